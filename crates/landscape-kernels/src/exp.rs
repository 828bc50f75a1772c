//! The exponential in loops over rows, and the folds over a row that stand beside it: what softmax and attention share.
//!
//! In single precision e^x is a polynomial that compilers turn into vectors, for arguments of at most zero: x = n·ln 2 + r with |r| ≤ ½ ln 2,
//! ln 2 in two parts of which the first times n is exact, and e^r = 1 + r + r²·P(r) with P fitted for this file (degree 4, least squares
//! reweighted towards the largest relative error, which is 3·10⁻⁹). Double precision goes number by number through the standard library.
//!
//! Folds go over fixed lanes and then a tree, so they have the same bits whatever vectors a processor has.

#![allow(clippy::needless_range_loop)] // Indices are the lanes of vectors here.

use crate::memory::Real;
use std::any::TypeId;

/// Below this e^x is no normal number, and taken for zero.
const LOWEST: f32 = -87.336_54;
/// P(r), from the constant on.
pub(crate) const P: [f32; 5] = [0.499_999_93, 0.166_665_2, 0.041_668_408, 0.008_368_922, 0.001_381_417_4];
/// ln 2 in two parts: nine bits, and the rest.
pub(crate) const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
/// Added, it rounds to a whole number, with which the bits of the sum end.
pub(crate) const WHOLE: f32 = 1.5 * (1_u32 << 23) as f32;

/// e^x for x ≤ 0, to one unit in the last place; zero where that is below 2⁻¹²⁶. NaN stays NaN.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    let near = if x < LOWEST { LOWEST } else { x };
    let biased = near * std::f32::consts::LOG2_E + WHOLE;
    let n = biased - WHOLE;
    let r = (near - n * LN_2[0]) - n * LN_2[1];
    let p = (((P[4] * r + P[3]) * r + P[2]) * r + P[1]) * r + P[0];
    let fraction = (p * (r * r) + r) + 1.0;
    let exponent = (biased.to_bits() as i32).wrapping_sub(WHOLE.to_bits() as i32);
    let power = f32::from_bits((exponent.wrapping_add(127) << 23) as u32);
    if x < LOWEST { 0.0 } else { fraction * power }
}

/// e^x for x ≤ 0, for loops of either type.
#[inline(always)]
pub(crate) fn exp<T: Real>(x: T) -> T {
    if TypeId::of::<T>() == TypeId::of::<f32>() {
        // Neither conversion does anything: `T` is `f32` here.
        T::from_f64(f64::from(exp_f32(x.to_f64() as f32)))
    } else {
        x.exp()
    }
}

/// Sums that go on beside each other in a vector.
pub(crate) const LANES: usize = 16;

/// Folds lanes by a tree.
#[inline(always)]
fn tree<T: Copy>(lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    // From memory: the compiler would cut the vectors of the loop before into the pieces that the tree takes.
    let mut lanes = std::hint::black_box(lanes);
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The largest of `x`·`scale`, passing NaN by; minus infinity if there is none.
#[inline(always)]
pub(crate) fn scaled_maximum<T: Real>(x: &[T], scale: T) -> T {
    let larger = |a: T, b: T| if b > a { b } else { a };
    let mut lanes = [T::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], chunk[i] * scale);
        }
    }
    rest.iter().fold(tree(lanes, larger), |top, &v| larger(top, v * scale))
}

/// Adds f(a_i, b_i) to lane i.
#[inline(always)]
fn add<T: Real, S: Real>(lanes: &mut [S; LANES], a: &[T; LANES], b: &[T; LANES], f: &impl Fn(T, T) -> S) {
    for i in 0..LANES {
        lanes[i] += f(a[i], b[i]);
    }
}

/// Σ_i f(a_i, b_i) in the type of the sum.
#[inline(always)]
pub(crate) fn sum_of<T: Real, S: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> S) -> S {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let (a_chains, a_few) = a.as_chunks::<4>();
    let (b_chains, b_few) = b.as_chunks::<4>();
    // Four sums that do not wait for each other, each by its name: in a loop over them the compiler would turn the lanes around.
    let [mut first, mut second, mut third, mut fourth] = [[S::ZERO; LANES]; 4];
    for (a, b) in a_chains.iter().zip(b_chains) {
        add(&mut first, &a[0], &b[0], &f);
        add(&mut second, &a[1], &b[1], &f);
        add(&mut third, &a[2], &b[2], &f);
        add(&mut fourth, &a[3], &b[3], &f);
    }
    for (a, b) in a_few.iter().zip(b_few) {
        add(&mut first, a, b, &f);
    }
    for i in 0..LANES {
        first[i] = (first[i] + second[i]) + (third[i] + fourth[i]);
    }
    a_rest.iter().zip(b_rest).fold(tree(first, |a, b| a + b), |sum, (&a, &b)| sum + f(a, b))
}

/// y_i = e^(scale·x_i − top), and the sum of them.
#[inline(always)]
pub(crate) fn exponentials<T: Real>(x: &[T], scale: T, top: T, y: &mut [T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks_mut::<LANES>();
    for (x, y) in x.iter().zip(y) {
        for i in 0..LANES {
            y[i] = exp(x[i] * scale - top);
            lanes[i] += y[i];
        }
    }
    x_rest.iter().zip(y_rest).fold(tree(lanes, |a, b| a + b), |sum, (&x, y)| {
        *y = exp(x * scale - top);
        sum + *y
    })
}

/// [`exponentials`] where they stand.
#[inline(always)]
pub(crate) fn exponentials_in_place<T: Real>(x: &mut [T], scale: T, top: T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp(chunk[i] * scale - top);
            lanes[i] += chunk[i];
        }
    }
    rest.iter_mut().fold(tree(lanes, |a, b| a + b), |sum, x| {
        *x = exp(*x * scale - top);
        sum + *x
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every argument of a fine grid and of the neighbourhood of the ends, against double precision.
    #[test]
    fn exp_is_right_to_one_unit_in_the_last_place() {
        let mut worst = 0.0_f64;
        let mut check = |x: f32| {
            let (got, expected) = (f64::from(exp_f32(x)), f64::from(x).exp());
            let ulp = 2.0_f64.powi(expected.log2().floor() as i32 - 23);
            worst = worst.max((got - expected).abs() / ulp);
        };
        for i in 0..2_000_000_u32 {
            check(-(i as f32) * (87.336_5 / 2e6));
            // Small ones by their exponents.
            check(-f32::from_bits(0x2f00_0000 + i * 128));
        }
        assert!(worst <= 1.0, "{worst}");
    }

    #[test]
    fn the_ends_of_exp() {
        assert_eq!((exp_f32(0.0), exp_f32(-0.0)), (1.0, 1.0));
        for x in [-87.34_f32, -100.0, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp_f32(x).to_bits(), 0, "{x}");
        }
        assert!(exp_f32(f32::NAN).is_nan() && exp(f64::NAN).is_nan());
        assert_eq!(exp(-1.5_f64), (-1.5_f64).exp());
    }
}
