//! The Gaussian error linear unit, forward and backward.
//!
//! Double precision goes number by number through `libm`. Single precision is a loop that compilers turn into vectors: the tail of the
//! normal distribution is e^(−z²/2) times a smooth function, a polynomial in t = 1/(1 + 0.35·z) fitted for this file to a relative error of
//! 3·10⁻⁸ on 0 ≤ z ≤ 15 (least squares reweighted towards the largest error, against erfcx). Only the exponent is computed in double
//! precision: there an error counts many times over. So the digits of the negative tail stay, down to the smallest numbers.

#[cfg(feature = "cuda")]
use super::cuda;
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::simd::{as_f32, as_f32_mut, multiversion};
use crate::vector_math::{exp_of_sum, polynomial};

/// Which form of the Gaussian error linear unit, `approximate="none"` or `"tanh"` in PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// x·Φ(x), Φ the distribution function of the normal distribution.
    Erf,
    /// x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))).
    Tanh,
}

/// Elements that one task works on: fewer than of other activations, which are cheaper.
const PIECE: usize = CHUNK / 8;

/// y = gelu(x): in double precision to the last bits, in single precision to a relative error of 8·2⁻²³ wherever the result is a normal
/// number.
///
/// # Shapes
/// Both of any equal length.
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ.
///
/// # Source
/// Hendrycks and Gimpel 2016. PyTorch writes Φ as 1 + erf, which loses the digits of the negative tail; ours is erfc, which keeps them.
pub fn gelu_forward<T: Real>(kind: Gelu, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    check_len("gelu_forward", "x", y.len(), x.len())?;
    on_device!("gelu_forward", [x, y], gpu => cuda::gelu_forward(gpu, kind, x, y));
    let x = x.host();
    for_each_chunk_mut(y.host(), PIECE, |idx, y| {
        let x = &x[idx * PIECE..][..y.len()];
        match (as_f32(x), as_f32_mut(y), kind) {
            (Some(x), Some(y), Gelu::Erf) => erf_chunk::<f32>(x, y),
            (Some(x), Some(y), Gelu::Tanh) => tanh_chunk::<f32>(x, y),
            _ => y.iter_mut().zip(x).for_each(|(y, x)| *y = T::from_f64(x.to_f64() * gate(kind, x.to_f64()))),
        }
    });
    Ok(())
}

/// dx = gelu'(x)·dy; in single precision gelu' to an error of 8·2⁻²³.
///
/// # Shapes
/// All of any equal length; `x` is the input of [`gelu_forward`].
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ.
pub fn gelu_backward<T: Real>(kind: Gelu, x: View<'_, T>, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    check_len("gelu_backward", "x", dx.len(), x.len())?;
    check_len("gelu_backward", "dy", dx.len(), dy.len())?;
    on_device!("gelu_backward", [x, dy, dx], gpu => cuda::gelu_backward(gpu, kind, x, dy, dx, mode));
    let (x, dy) = (x.host(), dy.host());
    for_each_chunk_mut(dx.host(), PIECE, |idx, dx| {
        let range = idx * PIECE..idx * PIECE + dx.len();
        let (x, dy) = (&x[range.clone()], &dy[range]);
        match (as_f32(x), as_f32(dy), as_f32_mut(dx), kind) {
            (Some(x), Some(dy), Some(dx), Gelu::Erf) => erf_gradient_chunk::<f32>(x, dy, dx, mode),
            (Some(x), Some(dy), Some(dx), Gelu::Tanh) => tanh_gradient_chunk::<f32>(x, dy, dx, mode),
            _ => gradient(|x: T| T::from_f64(slope(kind, x.to_f64())), x, dy, dx, mode),
        }
    });
    Ok(())
}

multiversion! {
    fn erf_chunk<T>(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * erf_gate(x).0;
        }
    }
}

multiversion! {
    fn tanh_chunk<T>(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * tanh_gate(x).0;
        }
    }
}

multiversion! {
    fn erf_gradient_chunk<T>(x: &[f32], dy: &[f32], dx: &mut [f32], mode: Accumulate) {
        gradient(erf_slope, x, dy, dx, mode);
    }
}

multiversion! {
    fn tanh_gradient_chunk<T>(x: &[f32], dy: &[f32], dx: &mut [f32], mode: Accumulate) {
        gradient(tanh_slope, x, dy, dx, mode);
    }
}

/// dx = slope(x)·dy, or that added.
#[inline(always)]
fn gradient<T: Real>(slope: impl Fn(T) -> T, x: &[T], dy: &[T], dx: &mut [T], mode: Accumulate) {
    // Loops, not closures over iterators: those may be compiled apart, without the level's instructions.
    let each = dx.iter_mut().zip(x).zip(dy);
    match mode {
        Accumulate::Overwrite => {
            for ((dx, &x), &dy) in each {
                *dx = slope(x) * dy;
            }
        }
        Accumulate::Add => {
            for ((dx, &x), &dy) in each {
                *dx += slope(x) * dy;
            }
        }
    }
}

/// √(2/π), the slope at zero of the tanh form's argument.
const TANH_SCALE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
const TANH_CUBIC: f64 = 0.044_715;
/// 1/√(2π), the density of the normal distribution at zero.
const DENSITY: f64 = 0.5 * TANH_SCALE;

/// gelu(x)/x.
fn gate(kind: Gelu, x: f64) -> f64 {
    match kind {
        Gelu::Erf => 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        // (1 + tanh u)/2 is the logistic function of 2u, which loses no digits where tanh is near −1.
        Gelu::Tanh => 1.0 / (1.0 + (-2.0 * TANH_SCALE * (x + TANH_CUBIC * x * x * x)).exp()),
    }
}

/// gelu'(x).
fn slope(kind: Gelu, x: f64) -> f64 {
    let gate_x = gate(kind, x);
    let gate_slope = match kind {
        Gelu::Erf => (-0.5 * x * x).exp() * DENSITY,
        Gelu::Tanh => 2.0 * TANH_SCALE * (1.0 + 3.0 * TANH_CUBIC * x * x) * gate_x * (1.0 - gate_x),
    };
    // The product must not become 0·∞ far out, where the gate is flat.
    gate_x + if gate_slope == 0.0 || x.abs() > 1e3 { 0.0 } else { x * gate_slope }
}

/// From here on e^(−x²/2) is zero: its products are below all normal numbers.
const ERF_FAR: f32 = 14.0;
/// From here on the logistic function's tail is zero.
const TANH_FAR: f32 = 10.5;
/// What makes t of z.
const TAIL_T: f32 = 0.35;
/// Φ(−z)·e^(z²/2)/t as a polynomial in t, from the constant on.
const TAIL: [f32; 9] =
    [0.139_621_26, 0.139_864_33, 0.119_815_58, 0.105_574_444, -0.023_262_937, 0.159_391_54, -0.255_900_62, 0.144_060_18, -0.029_163_782];

/// x, or as far out as `far`; NaN stays NaN.
#[inline(always)]
fn near(x: f32, far: f32) -> f32 {
    let below = if x > far { far } else { x };
    if below < -far { -far } else { below }
}

/// gelu(x)/x, and e^(−x²/2).
#[inline(always)]
fn erf_gate(x: f32) -> (f32, f32) {
    let z = near(x, ERF_FAR).abs();
    let t = 1.0 / (1.0 + TAIL_T * z);
    // z² = high² + (z − high)(z + high), of which the first is exact with twelve bits.
    let high = f32::from_bits(z.to_bits() & 0xffff_f000);
    let exp = exp_of_sum(-0.5 * (high * high), -0.5 * ((z - high) * (z + high)));
    let exp = if z >= ERF_FAR { 0.0 } else { exp };
    let tail = polynomial(&TAIL, t) * t * exp;
    (if x > 0.0 { 1.0 - tail } else { tail }, exp)
}

/// gelu'(x).
#[inline(always)]
fn erf_slope(x: f32) -> f32 {
    let (gate, exp) = erf_gate(x);
    gate + near(x, ERF_FAR) * exp * DENSITY as f32
}

/// gelu(x)/x, and its derivative with respect to the logistic function's argument.
#[inline(always)]
fn tanh_gate(x: f32) -> (f32, f32) {
    let z = near(x, TANH_FAR).abs();
    // The argument needs more digits than single precision has: it is what an exponent is made of.
    let wide = f64::from(z);
    let u = wide * (2.0 * TANH_SCALE + 2.0 * TANH_SCALE * TANH_CUBIC * (wide * wide));
    let high = u as f32;
    let exp = exp_of_sum(-high, (f64::from(high) - u) as f32);
    let exp = if z >= TANH_FAR { 0.0 } else { exp };
    let gate = 1.0 / (1.0 + exp);
    let tail = exp * gate;
    (if x > 0.0 { gate } else { tail }, gate * tail)
}

/// gelu'(x).
#[inline(always)]
fn tanh_slope(x: f32) -> f32 {
    let (gate, derivative) = tanh_gate(x);
    let z = near(x, TANH_FAR);
    gate + z * (2.0 * TANH_SCALE as f32) * (1.0 + 3.0 * TANH_CUBIC as f32 * z * z) * derivative
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::tools::bits;
    use crate::simd::Level;
    use crate::simd::tests::{at_every_level, at_level};

    const KINDS: [Gelu; 2] = [Gelu::Erf, Gelu::Tanh];

    /// Numbers of every size and sign, and enough of them for vectors and their ends.
    fn numbers() -> Vec<f32> {
        let mut all: Vec<f32> = (0..60_001).map(|i| (i as f32 - 30_000.0) * 0.000_5).collect();
        all.extend((-140..120).flat_map(|e| [1.0, -1.0, 1.37, -1.37].map(|m: f32| m * 2.0_f32.powi(e))));
        all
    }

    fn forward(kind: Gelu, x: &[f32]) -> Vec<f32> {
        let mut y = vec![7.0; x.len()];
        gelu_forward(kind, x.into(), (&mut y).into()).expect("lengths agree");
        y
    }

    fn slopes(kind: Gelu, x: &[f32]) -> Vec<f32> {
        let (ones, mut dx) = (vec![1.0; x.len()], vec![7.0; x.len()]);
        gelu_backward(kind, x.into(), (&ones).into(), (&mut dx).into(), Accumulate::Overwrite).expect("lengths agree");
        dx
    }

    #[test]
    fn single_precision_keeps_its_bounds() {
        let bound = 8.0 * f64::from(f32::EPSILON);
        let x = numbers();
        at_every_level(|| {
            for kind in KINDS {
                for ((&x, y), dx) in x.iter().zip(forward(kind, &x)).zip(slopes(kind, &x)) {
                    let wide = f64::from(x);
                    let (expected, derivative) = (wide * gate(kind, wide), slope(kind, wide));
                    let smallest = f64::from(f32::MIN_POSITIVE);
                    let allowed = if expected.abs() < smallest { smallest } else { bound * expected.abs() };
                    assert!((f64::from(y) - expected).abs() <= allowed, "{kind:?} {x}: {y} for {expected}");
                    assert!((f64::from(dx) - derivative).abs() <= bound, "{kind:?}' {x}: {dx} for {derivative}");
                }
            }
        });
    }

    #[test]
    fn levels_give_the_same_bits() {
        let x = numbers();
        for kind in KINDS {
            let all = || [bits(&forward(kind, &x)), bits(&slopes(kind, &x))];
            let portable = at_level(Level::Portable, all);
            at_every_level(|| assert!(all() == portable));
        }
    }

    #[test]
    fn the_ends_of_single_precision() {
        at_every_level(|| {
            for kind in KINDS {
                let x = [f32::NAN, -f32::NAN, 40.0, 1e30, f32::INFINITY, -40.0, -1e30, 0.0, -0.0];
                let (y, dx) = (forward(kind, &x), slopes(kind, &x));
                assert!(y[..2].iter().chain(&dx[..2]).all(|v| v.is_nan()), "{y:?} {dx:?}");
                assert_eq!((&y[2..5], &dx[2..5]), (&x[2..5], &[1.0; 3][..]));
                assert_eq!((&y[5..], &dx[5..]), (&[0.0; 4][..], &[0.0, 0.0, 0.5, 0.5][..]));
            }
        });
    }
}
