//! Element-wise activations and sums: relu, gelu, the functions of [`Pointwise`], `add`, `accumulate`.

mod gelu;
mod pointwise;
#[cfg(feature = "cuda")]
mod cuda;

pub use gelu::{Gelu, gelu_backward, gelu_forward};
pub use pointwise::{Pointwise, pointwise_backward, pointwise_forward};

use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::simd::multiversion;

/// An activation that another op applies by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// The number itself.
    #[default]
    None,
    /// max(v, 0), NaN for NaN.
    Relu,
}

/// y = max(x, 0); NaN stays NaN.
///
/// # Shapes
/// Both of any equal length.
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ.
///
/// ```
/// use landscape_kernels::{View, activation::relu_forward};
/// let mut y = [0.0_f32; 2];
/// relu_forward(View::Host(&[-1.0, 2.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [0.0, 2.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn relu_forward<T: Real>(x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    check_len("relu_forward", "x", y.len(), x.len())?;
    on_device!("relu_forward", [x, y], gpu => cuda::relu_forward(gpu, x, y));
    let x = x.host();
    for_each_chunk_mut(y.host(), CHUNK, |idx, y| relu_chunk(&x[idx * CHUNK..][..y.len()], y));
    Ok(())
}

/// x ← max(x, 0): [`relu_forward`] where nobody needs what was there.
pub fn relu_in_place<T: Real>(x: ViewMut<'_, T>) {
    for_each_chunk_mut(x.host(), CHUNK, |_, x| relu_in_place_chunk(x));
}

/// dx = dy where the output `y` was positive, else 0 (so relu'(0) = 0, as in PyTorch).
///
/// # Shapes
/// All of any equal length; `y` is the output of [`relu_forward`].
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ.
pub fn relu_backward<T: Real>(y: View<'_, T>, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    check_len("relu_backward", "y", dx.len(), y.len())?;
    check_len("relu_backward", "dy", dx.len(), dy.len())?;
    on_device!("relu_backward", [y, dy, dx], gpu => cuda::relu_backward(gpu, y, dy, dx, mode));
    let (y, dy) = (y.host(), dy.host());
    for_each_chunk_mut(dx.host(), CHUNK, |idx, dx| {
        let range = idx * CHUNK..idx * CHUNK + dx.len();
        relu_gradient_chunk(&y[range.clone()], &dy[range], dx, mode);
    });
    Ok(())
}

/// dx ← 0 where the output `y` was not positive: [`relu_backward`] on the gradient that stands in `dx`.
///
/// # Shapes
/// Both of any equal length; `y` is the output of [`relu_forward`].
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ.
pub fn relu_backward_in_place<T: Real>(y: View<'_, T>, dx: ViewMut<'_, T>) -> Result<()> {
    check_len("relu_backward", "y", dx.len(), y.len())?;
    let y = y.host();
    for_each_chunk_mut(dx.host(), CHUNK, |idx, dx| relu_gate_chunk(&y[idx * CHUNK..][..dx.len()], dx));
    Ok(())
}

/// y = a + b.
///
/// # Shapes
/// All of any equal length.
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ.
pub fn add<T: Real>(a: View<'_, T>, b: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    check_len("add", "a", y.len(), a.len())?;
    check_len("add", "b", y.len(), b.len())?;
    on_device!("add", [a, b, y], gpu => cuda::add(gpu, a, b, y));
    let (a, b) = (a.host(), b.host());
    for_each_chunk_mut(y.host(), CHUNK, |idx, y| {
        let range = idx * CHUNK..idx * CHUNK + y.len();
        add_chunk(&a[range.clone()], &b[range], y);
    });
    Ok(())
}

/// into += x.
///
/// # Shapes
/// Both of any equal length.
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ.
pub fn accumulate<T: Real>(x: View<'_, T>, into: ViewMut<'_, T>) -> Result<()> {
    check_len("accumulate", "x", into.len(), x.len())?;
    on_device!("accumulate", [x, into], gpu => cuda::accumulate(gpu, x, into));
    let x = x.host();
    for_each_chunk_mut(into.host(), CHUNK, |idx, into| accumulate_chunk(&x[idx * CHUNK..][..into.len()], into));
    Ok(())
}

multiversion! {
    fn relu_chunk<T>(x: &[T], y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = if x <= T::ZERO { T::ZERO } else { x };
        }
    }
}

multiversion! {
    fn relu_in_place_chunk<T>(x: &mut [T]) {
        for x in x {
            *x = if *x <= T::ZERO { T::ZERO } else { *x };
        }
    }
}

multiversion! {
    fn relu_gate_chunk<T>(y: &[T], dx: &mut [T]) {
        for (dx, &y) in dx.iter_mut().zip(y) {
            *dx = if y <= T::ZERO { T::ZERO } else { *dx };
        }
    }
}

multiversion! {
    fn relu_gradient_chunk<T>(y: &[T], dy: &[T], dx: &mut [T], mode: Accumulate) {
        let pairs = dx.iter_mut().zip(y).zip(dy);
        match mode {
            Accumulate::Overwrite => {
                for ((dx, &y), &dy) in pairs {
                    *dx = if y <= T::ZERO { T::ZERO } else { dy };
                }
            }
            Accumulate::Add => {
                for ((dx, &y), &dy) in pairs {
                    *dx += if y <= T::ZERO { T::ZERO } else { dy };
                }
            }
        }
    }
}

multiversion! {
    fn add_chunk<T>(a: &[T], b: &[T], y: &mut [T]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    }
}

multiversion! {
    fn accumulate_chunk<T>(x: &[T], into: &mut [T]) {
        for (into, &x) in into.iter_mut().zip(x) {
            *into += x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::activation as naive;
    use crate::naive::tools::{LENGTHS, assert_close, bits, check_gradient, dot, on_pools, values};
    use proptest::prelude::*;

    const KINDS: [Gelu; 2] = [Gelu::Erf, Gelu::Tanh];
    const MODES: [Accumulate; 2] = [Accumulate::Overwrite, Accumulate::Add];

    fn relu<T: Real>(x: &[T]) -> Vec<T> {
        let mut y = vec![T::ONE; x.len()];
        relu_forward(x.into(), (&mut y).into()).expect("lengths agree");
        y
    }

    fn gelu<T: Real>(kind: Gelu, x: &[T]) -> Vec<T> {
        let mut y = vec![T::ONE; x.len()];
        gelu_forward(kind, x.into(), (&mut y).into()).expect("lengths agree");
        y
    }

    fn relu_back<T: Real>(y: &[T], dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
        let mut dx = start.to_vec();
        relu_backward(y.into(), dy.into(), (&mut dx).into(), mode).expect("lengths agree");
        dx
    }

    fn gelu_back<T: Real>(kind: Gelu, x: &[T], dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
        let mut dx = start.to_vec();
        gelu_backward(kind, x.into(), dy.into(), (&mut dx).into(), mode).expect("lengths agree");
        dx
    }

    fn same_as_naive<T: Real>(n: usize, seed: u64, size: f64) {
        let x: Vec<T> = values::<T>(n, seed).into_iter().map(|x| x * T::from_f64(size)).collect();
        let (dy, start) = (values::<T>(n, seed + 1), values::<T>(n, seed + 2));
        let y = relu(&x);
        assert_eq!(bits(&y), bits(&naive::relu(&x)));
        let (mut in_place, mut gated) = (x.clone(), dy.clone());
        relu_in_place((&mut in_place).into());
        relu_backward_in_place((&y).into(), (&mut gated).into()).expect("lengths agree");
        let expected = [bits(&y), bits(&relu_back(&y, &dy, &start, Accumulate::Overwrite))];
        assert_eq!([bits(&in_place), bits(&gated)], expected);
        for mode in MODES {
            assert_eq!(bits(&relu_back(&y, &dy, &start, mode)), bits(&naive::relu_backward(&x, &dy, &start, mode)));
        }
        for kind in KINDS {
            assert_close(&gelu(kind, &x), &naive::gelu(kind, &x), 16.0);
            for mode in MODES {
                assert_close(&gelu_back(kind, &x, &dy, &start, mode), &naive::gelu_backward(kind, &x, &dy, &start, mode), 64.0);
            }
        }
        let mut sum = vec![T::ZERO; n];
        add((&x).into(), (&dy).into(), (&mut sum).into()).expect("lengths agree");
        let mut into = x.clone();
        accumulate((&dy).into(), (&mut into).into()).expect("lengths agree");
        let expected: Vec<T> = x.iter().zip(&dy).map(|(&a, &b)| a + b).collect();
        assert_eq!((bits(&sum), bits(&into)), (bits(&expected), bits(&expected)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equal_naive(n in prop::sample::select(LENGTHS.to_vec()), seed in 0_u64..1000, size in 0.1_f64..4.0) {
            same_as_naive::<f32>(n, seed, size);
            same_as_naive::<f64>(n, seed, size);
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let x: Vec<f64> = values::<f64>(60, 1).iter().map(|x| 5.0 * x).collect();
        let dy = values::<f64>(60, 2);
        let zero = vec![0.0; 60];
        check_gradient(&x, &relu_back(&relu(&x), &dy, &zero, Accumulate::Overwrite), |x| dot(&relu(x), &dy));
        for kind in KINDS {
            check_gradient(&x, &gelu_back(kind, &x, &dy, &zero, Accumulate::Overwrite), |x| dot(&gelu(kind, x), &dy));
        }
    }

    #[test]
    fn special_values_behave_as_in_pytorch() {
        assert_eq!(relu(&[0.0_f32, -0.0, -1.0, f32::INFINITY, f32::NEG_INFINITY]), [0.0, 0.0, 0.0, f32::INFINITY, 0.0]);
        assert!(relu(&[f32::NAN])[0].is_nan());
        assert_eq!(relu_back(&[0.0_f32, 1.0], &[3.0, 4.0], &[1.0, 1.0], Accumulate::Add), [1.0, 5.0]);
        for kind in KINDS {
            for x in [40.0, 1e30, 1e300] {
                assert_eq!(gelu(kind, &[x, -x]), [x, 0.0]);
                assert_eq!(gelu_back(kind, &[x, -x], &[1.0, 1.0], &[0.0, 0.0], Accumulate::Overwrite), [1.0, 0.0]);
            }
            assert!(gelu(kind, &[f64::NAN])[0].is_nan());
            assert!(gelu_back(kind, &[f64::NAN], &[1.0], &[0.0], Accumulate::Overwrite)[0].is_nan());
        }
        // Φ(−8) = 6.220960574271784e-16 (Abramowitz and Stegun's asymptotic series gives the same digits).
        assert!((gelu(Gelu::Erf, &[-8.0_f64])[0] / (-8.0 * 6.220_960_574_271_784e-16) - 1.0).abs() < 1e-12);
    }

    /// gelu(x) − gelu(−x) = x: the odd part is linear, whatever the gate.
    #[test]
    fn the_odd_part_of_gelu_is_linear() {
        for kind in KINDS {
            for i in 0..400 {
                let x = f64::from(i) * 0.02;
                let y = gelu(kind, &[x, -x]);
                assert!((y[0] - y[1] - x).abs() <= 4.0 * f64::EPSILON * (1.0 + x));
            }
        }
    }

    #[test]
    fn bits_do_not_depend_on_the_thread_count() {
        let n = 3 * CHUNK + 7;
        let (x, dy) = (values::<f32>(n, 1), values::<f32>(n, 2));
        on_pools(|| bits(&relu_back(&relu(&x), &dy, &x, Accumulate::Add)));
        on_pools(|| bits(&gelu_back(Gelu::Erf, &gelu(Gelu::Tanh, &x), &dy, &x, Accumulate::Add)));
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let a = [1.0_f32; 3];
        for (n, m) in [(3, 2), (2, 3)] {
            let mut out = vec![0.0_f32; m];
            let short = View::Host(&a[..n]);
            let full = View::Host(&a[..m]);
            let mut fails = |call: &dyn Fn(ViewMut<'_, f32>) -> Result<()>| assert!(call((&mut out).into()).is_err());
            fails(&|y| relu_forward(short, y));
            fails(&|dx| relu_backward(short, full, dx, Accumulate::Add));
            fails(&|dx| relu_backward(full, short, dx, Accumulate::Add));
            fails(&|y| gelu_forward(Gelu::Erf, short, y));
            fails(&|dx| gelu_backward(Gelu::Erf, short, full, dx, Accumulate::Add));
            fails(&|dx| gelu_backward(Gelu::Erf, full, short, dx, Accumulate::Add));
            fails(&|y| add(short, full, y));
            fails(&|y| add(full, short, y));
            fails(&|into| accumulate(short, into));
        }
    }
}
