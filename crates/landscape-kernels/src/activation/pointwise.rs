//! Activations without parameters to learn, element by element, with PyTorch's formulas and its gradients at the corners.

#[cfg(feature = "cuda")]
use super::cuda;
use crate::error::{Result, check_len};
use crate::exp::exp;
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::simd::multiversion;

/// A function of one number, by PyTorch's names of its attributes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pointwise {
    /// x/(1 + e^−x).
    Silu,
    /// 1/(1 + e^−x).
    Sigmoid,
    /// x·min(max(x + 3, 0), 6)/6.
    HardSwish,
    /// min(max(x + 3, 0), 6)/6.
    HardSigmoid,
    /// tanh x.
    Tanh,
    /// x where positive, else negative_slope·x.
    LeakyRelu {
        /// The slope below zero.
        negative_slope: f64,
    },
    /// min(max(x, min_val), max_val); from 0 to 6 it is relu6.
    HardTanh {
        /// The least value.
        min_val: f64,
        /// The largest value.
        max_val: f64,
    },
    /// x where positive, else alpha·(e^x − 1).
    Elu {
        /// What is subtracted far below zero.
        alpha: f64,
    },
    /// ln(1 + e^x), x itself above 20.
    Softplus,
    /// e^x.
    Exp,
    /// scale·x + shift.
    Affine {
        /// The factor.
        scale: f64,
        /// What is added.
        shift: f64,
    },
    /// x^exponent.
    Power {
        /// The exponent.
        exponent: f64,
    },
}

/// From here on [`Pointwise::Softplus`] is the number itself, as in PyTorch.
const SOFTPLUS_THRESHOLD: f64 = 20.0;

/// Elements that one task works on: fewer than of cheaper activations.
const PIECE: usize = CHUNK / 4;

/// y = f(x); in single precision to a few units in the last place.
///
/// # Shapes
/// Both of any equal length.
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ.
///
/// # Source
/// `torch.nn.functional`: `silu`, `sigmoid`, `hardswish`, `hardsigmoid`, `tanh`, `leaky_relu`, `hardtanh`, `elu`, `softplus`, and `exp`,
/// `pow`.
///
/// ```
/// use landscape_kernels::{View, activation::{Pointwise, pointwise_forward}};
/// let mut y = [0.0_f32; 3];
/// pointwise_forward(Pointwise::HardTanh { min_val: 0.0, max_val: 6.0 }, View::Host(&[-1.0, 2.0, 9.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [0.0, 2.0, 6.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn pointwise_forward<T: Real>(kind: Pointwise, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    check_len("pointwise_forward", "x", y.len(), x.len())?;
    on_device!("pointwise_forward", [x, y], gpu => cuda::pointwise_forward(gpu, kind, x, y));
    let x = x.host();
    for_each_chunk_mut(y.host(), PIECE, |idx, y| forward_chunk(kind, &x[idx * PIECE..][..y.len()], y));
    Ok(())
}

/// dx = f'(x)·dy.
///
/// Where f has a corner, f' is PyTorch's: that of the left side for leaky relu and elu at 0, zero for hardtanh and hardsigmoid at either
/// end, and for hardswish 0 at −3 and 1 at 3.
///
/// # Shapes
/// All of any equal length; `x` is the input of [`pointwise_forward`].
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ.
pub fn pointwise_backward<T: Real>(kind: Pointwise, x: View<'_, T>, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    check_len("pointwise_backward", "x", dx.len(), x.len())?;
    check_len("pointwise_backward", "dy", dx.len(), dy.len())?;
    on_device!("pointwise_backward", [x, dy, dx], gpu => cuda::pointwise_backward(gpu, kind, x, dy, dx, mode));
    let (x, dy) = (x.host(), dy.host());
    for_each_chunk_mut(dx.host(), PIECE, |idx, dx| {
        let range = idx * PIECE..idx * PIECE + dx.len();
        backward_chunk(kind, &x[range.clone()], &dy[range], dx, mode);
    });
    Ok(())
}

multiversion! {
    fn forward_chunk<T>(kind: Pointwise, x: &[T], y: &mut [T]) {
        let n = |value: f64| T::from_f64(value);
        match kind {
            Pointwise::Silu => map(x, y, |x| x * sigmoid(x).0),
            Pointwise::Sigmoid => map(x, y, |x| sigmoid(x).0),
            Pointwise::HardSwish => map(x, y, |x| x * clamp(x + n(3.0), n(0.0), n(6.0)) / n(6.0)),
            Pointwise::HardSigmoid => map(x, y, |x| clamp(x + n(3.0), n(0.0), n(6.0)) / n(6.0)),
            Pointwise::Tanh => map(x, y, tanh),
            Pointwise::LeakyRelu { negative_slope } => {
                let slope = n(negative_slope);
                map(x, y, |x| if x > T::ZERO { x } else { x * slope });
            }
            Pointwise::HardTanh { min_val, max_val } => {
                let (min_val, max_val) = (n(min_val), n(max_val));
                map(x, y, |x| clamp(x, min_val, max_val));
            }
            Pointwise::Elu { alpha } => {
                let alpha = n(alpha);
                map(x, y, |x| {
                    let below = alpha * (if x > T::ZERO { T::ZERO } else { x }).exp_m1_lane();
                    if x <= T::ZERO { below } else { x }
                });
            }
            Pointwise::Softplus => {
                let threshold = n(SOFTPLUS_THRESHOLD);
                map(x, y, |x| {
                    let value = x.maximum(T::ZERO) + exp(-x.abs()).ln_1p_lane();
                    if x > threshold { x } else { value }
                });
            }
            Pointwise::Exp => map(x, y, |x| x.exp_lane()),
            Pointwise::Affine { scale, shift } => {
                let (scale, shift) = (n(scale), n(shift));
                map(x, y, |x| scale * x + shift);
            }
            Pointwise::Power { exponent } => power(exponent, x, y),
        }
    }
}

multiversion! {
    fn backward_chunk<T>(kind: Pointwise, x: &[T], dy: &[T], dx: &mut [T], mode: Accumulate) {
        let n = |value: f64| T::from_f64(value);
        match kind {
            Pointwise::Silu => gradient(x, dy, dx, mode, |x, dy| {
                let (s, rest) = sigmoid(x);
                dy * (s * (T::ONE + x * rest))
            }),
            Pointwise::Sigmoid => gradient(x, dy, dx, mode, |x, dy| {
                let (s, rest) = sigmoid(x);
                dy * (s * rest)
            }),
            Pointwise::HardSwish => {
                let (three, half) = (n(3.0), n(0.5));
                gradient(x, dy, dx, mode, |x, dy| {
                    let above = if x < three { dy * (x / three + half) } else { dy };
                    if x <= -three { T::ZERO } else { above }
                });
            }
            Pointwise::HardSigmoid => {
                let (three, six) = (n(3.0), n(6.0));
                gradient(x, dy, dx, mode, |x, dy| if x > -three && x < three { dy / six } else { T::ZERO });
            }
            Pointwise::Tanh => gradient(x, dy, dx, mode, |x, dy| dy * tanh_slope(x)),
            Pointwise::LeakyRelu { negative_slope } => {
                let slope = n(negative_slope);
                gradient(x, dy, dx, mode, |x, dy| if x > T::ZERO { dy } else { dy * slope });
            }
            Pointwise::HardTanh { min_val, max_val } => {
                let (min_val, max_val) = (n(min_val), n(max_val));
                gradient(x, dy, dx, mode, |x, dy| if x > min_val && x < max_val { dy } else { T::ZERO });
            }
            Pointwise::Elu { alpha } => {
                let alpha = n(alpha);
                gradient(x, dy, dx, mode, |x, dy| {
                    let below = dy * (alpha * exp(if x > T::ZERO { T::ZERO } else { x }));
                    if x <= T::ZERO { below } else { dy }
                });
            }
            Pointwise::Softplus => {
                let threshold = n(SOFTPLUS_THRESHOLD);
                gradient(x, dy, dx, mode, |x, dy| {
                    let value = dy * sigmoid(x).0;
                    if x > threshold { dy } else { value }
                });
            }
            Pointwise::Exp => gradient(x, dy, dx, mode, |x, dy| dy * x.exp_lane()),
            Pointwise::Affine { scale, .. } => {
                let scale = n(scale);
                gradient(x, dy, dx, mode, |_, dy| dy * scale);
            }
            Pointwise::Power { exponent } => power_gradient(exponent, x, dy, dx, mode),
        }
    }
}

#[inline(always)]
fn map<T: Real>(x: &[T], y: &mut [T], f: impl Fn(T) -> T) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = f(x);
    }
}

#[inline(always)]
fn gradient<T: Real>(x: &[T], dy: &[T], dx: &mut [T], mode: Accumulate, f: impl Fn(T, T) -> T) {
    let each = dx.iter_mut().zip(x).zip(dy);
    match mode {
        Accumulate::Overwrite => {
            for ((dx, &x), &dy) in each {
                *dx = f(x, dy);
            }
        }
        Accumulate::Add => {
            for ((dx, &x), &dy) in each {
                *dx += f(x, dy);
            }
        }
    }
}

/// NaN stays NaN.
#[inline(always)]
fn clamp<T: Real>(x: T, low: T, high: T) -> T {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// The logistic function, and one minus it without the loss of digits.
#[inline(always)]
fn sigmoid<T: Real>(x: T) -> (T, T) {
    let e = exp(-x.abs());
    let large = T::ONE / (T::ONE + e);
    let small = e * large;
    if x >= T::ZERO { (large, small) } else { (small, large) }
}

#[inline(always)]
fn tanh<T: Real>(x: T) -> T {
    let e = (-(x.abs() + x.abs())).exp_m1_lane();
    let value = -e / (T::ONE + T::ONE + e);
    if x < T::ZERO { -value } else { value }
}

/// 1 − tanh²x = 4e/(1 + e)², e = e^(−2|x|), which loses no digits far out.
#[inline(always)]
fn tanh_slope<T: Real>(x: T) -> T {
    let e = exp(-(x.abs() + x.abs()));
    let two = T::ONE + T::ONE;
    let half = two / (T::ONE + e);
    e * half * half
}

#[inline(always)]
fn power<T: Real>(exponent: f64, x: &[T], y: &mut [T]) {
    if exponent == 2.0 {
        map(x, y, |x| x * x);
    } else if exponent == 3.0 {
        map(x, y, |x| x * x * x);
    } else if exponent == 0.5 {
        map(x, y, |x| x.sqrt());
    } else if exponent == -0.5 {
        map(x, y, |x| T::ONE / x.sqrt());
    } else if exponent == -1.0 {
        map(x, y, |x| T::ONE / x);
    } else {
        map(x, y, |x| T::from_f64(x.to_f64().powf(exponent)));
    }
}

#[inline(always)]
fn power_gradient<T: Real>(exponent: f64, x: &[T], dy: &[T], dx: &mut [T], mode: Accumulate) {
    let factor = T::from_f64(exponent);
    if exponent == 2.0 {
        gradient(x, dy, dx, mode, |x, dy| dy * (factor * x));
    } else if exponent == 3.0 {
        gradient(x, dy, dx, mode, |x, dy| dy * (factor * (x * x)));
    } else if exponent == 0.5 {
        gradient(x, dy, dx, mode, |x, dy| dy * (factor / x.sqrt()));
    } else if exponent == -0.5 {
        gradient(x, dy, dx, mode, |x, dy| dy * (factor / (x * x.sqrt())));
    } else if exponent == -1.0 {
        gradient(x, dy, dx, mode, |x, dy| dy * (factor / (x * x)));
    } else if exponent == 0.0 {
        gradient(x, dy, dx, mode, |_, _| T::ZERO);
    } else {
        gradient(x, dy, dx, mode, |x, dy| T::from_f64(dy.to_f64() * (exponent * x.to_f64().powf(exponent - 1.0))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::pointwise as naive;
    use crate::naive::tools::{LENGTHS, bits, check_gradient, dot, on_pools, values};
    use crate::simd::Level;
    use crate::simd::tests::{at_every_level, at_level};

    const MODES: [Accumulate; 2] = [Accumulate::Overwrite, Accumulate::Add];

    fn forward<T: Real>(kind: Pointwise, x: &[T]) -> Vec<T> {
        let mut y = vec![T::ONE; x.len()];
        pointwise_forward(kind, x.into(), (&mut y).into()).expect("lengths agree");
        y
    }

    fn backward<T: Real>(kind: Pointwise, x: &[T], dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
        let mut dx = start.to_vec();
        pointwise_backward(kind, x.into(), dy.into(), (&mut dx).into(), mode).expect("lengths agree");
        dx
    }

    /// Numbers that the function is defined for.
    fn inputs<T: Real>(kind: Pointwise, n: usize, seed: u64) -> Vec<T> {
        let positive = matches!(kind, Pointwise::Power { .. });
        values::<f64>(n, seed).into_iter().map(|v| T::from_f64(if positive { 1.05 + v } else { 8.0 * v })).collect()
    }

    fn same_as_naive<T: Real>() {
        for (n, kind) in LENGTHS.into_iter().zip(naive::KINDS.into_iter().cycle()).chain(naive::KINDS.map(|kind| (4099, kind))) {
            let (x, dy, start) = (inputs::<T>(kind, n, 1), values::<T>(n, 2), values::<T>(n, 3));
            for (i, (got, x)) in forward(kind, &x).into_iter().zip(&x).enumerate() {
                let expected = naive::value(kind, x.to_f64());
                let near = (got.to_f64() - expected).abs() <= 6.0 * T::EPSILON.to_f64() * expected.abs();
                assert!(near, "{kind:?} {i}: {got} for {expected} at {x}");
            }
            for mode in MODES {
                for (i, got) in backward(kind, &x, &dy, &start, mode).into_iter().enumerate() {
                    let term = naive::slope(kind, x[i].to_f64()) * dy[i].to_f64();
                    let expected = if mode == Accumulate::Add { start[i].to_f64() + term } else { term };
                    let allowed = T::EPSILON.to_f64() * (12.0 * (term.abs() + dy[i].to_f64().abs()) + start[i].to_f64().abs());
                    assert!((got.to_f64() - expected).abs() <= allowed, "{kind:?}' {mode:?} {i}: {got} for {expected} at {}", x[i]);
                }
            }
        }
    }

    #[test]
    fn equal_naive_at_every_level() {
        at_every_level(same_as_naive::<f32>);
        at_every_level(same_as_naive::<f64>);
    }

    #[test]
    fn levels_and_threads_give_the_same_bits() {
        for kind in naive::KINDS {
            let n = 3 * PIECE + 7;
            let (x, dy) = (inputs::<f32>(kind, n, 1), values::<f32>(n, 2));
            let all = || [bits(&forward(kind, &x)), bits(&backward(kind, &x, &dy, &x, Accumulate::Add))];
            let portable = at_level(Level::Portable, all);
            at_every_level(|| assert!(all() == portable));
            on_pools(all);
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for kind in naive::KINDS {
            let (x, dy, zero) = (inputs::<f64>(kind, 60, 1), values::<f64>(60, 2), vec![0.0; 60]);
            check_gradient(&x, &backward(kind, &x, &dy, &zero, Accumulate::Overwrite), |x| dot(&forward(kind, x), &dy));
        }
    }

    /// What PyTorch 2.15 gives at −3, 3, 0, NaN, ∞, −∞.
    #[test]
    fn corners_are_those_of_pytorch() {
        const INF: f64 = f64::INFINITY;
        const NAN: f64 = f64::NAN;
        let x = [-3.0, 3.0, 0.0, NAN, INF, -INF];
        let relu6 = Pointwise::HardTanh { min_val: 0.0, max_val: 6.0 };
        let leaky = Pointwise::LeakyRelu { negative_slope: 0.5 };
        let power = |exponent| Pointwise::Power { exponent };
        let expected = [
            (Pointwise::HardSwish, [-0.0, 3.0, 0.0, NAN, INF, NAN], [0.0, 1.0, 0.5, 1.0, 1.0, 0.0]),
            (Pointwise::HardSigmoid, [0.0, 1.0, 0.5, NAN, 1.0, 0.0], [0.0, 0.0, 1.0 / 6.0, 0.0, 0.0, 0.0]),
            (relu6, [0.0, 3.0, 0.0, NAN, 6.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
            (Pointwise::HardTanh { min_val: -3.0, max_val: 3.0 }, [-3.0, 3.0, 0.0, NAN, 3.0, -3.0], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
            (leaky, [-1.5, 3.0, 0.0, NAN, INF, -INF], [0.5, 1.0, 0.5, 0.5, 1.0, 0.5]),
            (power(2.0), [9.0, 9.0, 0.0, NAN, INF, INF], [-6.0, 6.0, 0.0, NAN, INF, -INF]),
            (power(3.0), [-27.0, 27.0, 0.0, NAN, INF, -INF], [27.0, 27.0, 0.0, NAN, INF, INF]),
            (power(0.0), [1.0; 6], [0.0; 6]),
            (power(-1.0), [-1.0 / 3.0, 1.0 / 3.0, INF, NAN, 0.0, -0.0], [-1.0 / 9.0, -1.0 / 9.0, -INF, NAN, -0.0, -0.0]),
        ];
        fn check<T: Real>(kind: Pointwise, x: &[f64], expected: &[f64], got: &[T]) {
            for ((x, e), got) in x.iter().zip(expected).zip(got) {
                let equal = (e.is_nan() && got.is_nan()) || (got.to_f64() == *e) || (got.to_f64() - e).abs() < 1e-7;
                assert!(equal, "{kind:?} at {x}: {got} for {e}");
            }
        }
        for (kind, y, dx) in expected {
            let narrow = x.map(|x| x as f32);
            check(kind, &x, &y, &forward(kind, &x));
            check(kind, &x, &y, &forward(kind, &narrow));
            check(kind, &x, &dx, &backward(kind, &x, &[1.0; 6], &[0.0; 6], Accumulate::Overwrite));
            check(kind, &x, &dx, &backward(kind, &narrow, &[1.0; 6], &[0.0; 6], Accumulate::Overwrite));
        }
        let ends = [NAN, INF, -INF].map(|x| x as f32);
        for (kind, y) in [
            (Pointwise::Silu, [NAN, INF, NAN]),
            (Pointwise::Sigmoid, [NAN, 1.0, 0.0]),
            (Pointwise::Tanh, [NAN, 1.0, -1.0]),
            (Pointwise::Elu { alpha: 1.5 }, [NAN, INF, -1.5]),
            (Pointwise::Softplus, [NAN, INF, 0.0]),
            (Pointwise::Exp, [NAN, INF, 0.0]),
        ] {
            check(kind, &[NAN, INF, -INF], &y, &forward(kind, &ends));
        }
        assert_eq!(forward(Pointwise::Softplus, &[20.5_f64]), [20.5]);
        assert_eq!(backward(Pointwise::Softplus, &[20.5_f64], &[1.0], &[0.0], Accumulate::Overwrite), [1.0]);
        assert_eq!(backward(Pointwise::Elu { alpha: 1.5 }, &[0.0_f64], &[1.0], &[0.0], Accumulate::Overwrite), [1.5]);
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let (a, mut out) = ([1.0_f32; 3], [0.0_f32; 3]);
        let (short, full) = (View::Host(&a[..2]), View::Host(&a[..]));
        assert!(pointwise_forward(Pointwise::Silu, short, (&mut out[..]).into()).is_err());
        assert!(pointwise_backward(Pointwise::Silu, short, full, (&mut out[..]).into(), Accumulate::Add).is_err());
        assert!(pointwise_backward(Pointwise::Silu, full, short, (&mut out[..]).into(), Accumulate::Add).is_err());
    }
}
