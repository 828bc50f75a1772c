//! Softmax over the rows of `[n_rows, len]`: y_j = e^(x_j) / Σ_k e^(x_k).

#[cfg(feature = "cuda")]
mod cuda;

use crate::check::n_elements;
use crate::error::{Result, check_len};
use crate::exp::{exponentials, scaled_maximum, sum_of};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::simd::multiversion;

const OP: &str = "softmax";

/// Elements that one task works on, in whole rows.
const PIECE: usize = CHUNK / 2;

/// y = softmax(x) over the last axis, about the largest of a row. A row with NaN, or of nothing but −∞, becomes NaN.
///
/// In single precision the exponentials are right to one unit in the last place, and below 2⁻¹²⁶ zero.
///
/// # Shapes
/// `x`, `y` `[n_rows, len]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit, [`crate::Error::Shape`] for sizes whose product overflows.
///
/// ```
/// use landscape_kernels::softmax;
/// let mut y = [0.0_f64; 2];
/// softmax::forward(1, 2, (&[0.0, f64::NEG_INFINITY][..]).into(), (&mut y[..]).into())?;
/// assert_eq!(y, [1.0, 0.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(n_rows: usize, len: usize, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let n = n_elements(OP, &[n_rows, len])?;
    check_len(OP, "x", n, x.len())?;
    check_len(OP, "y", n, y.len())?;
    on_device!(OP, [x, y], gpu => cuda::forward(gpu, n_rows, len, x, y));
    if n == 0 {
        return Ok(());
    }
    let (x, piece) = (x.host(), (PIECE / len).max(1) * len);
    for_each_chunk_mut(y.host(), piece, |idx, y| forward_rows(len, &x[idx * piece..][..y.len()], y));
    Ok(())
}

/// dx = y·(dy − Σ_k dy_k·y_k).
///
/// # Shapes
/// `y`, `dy`, `dx` `[n_rows, len]`; `y` is what [`forward`] yielded.
///
/// # Errors
/// As [`forward`].
pub fn backward<T: Real>(n_rows: usize, len: usize, y: View<'_, T>, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let n = n_elements(OP, &[n_rows, len])?;
    check_len(OP, "y", n, y.len())?;
    check_len(OP, "dy", n, dy.len())?;
    check_len(OP, "dx", n, dx.len())?;
    on_device!(OP, [y, dy, dx], gpu => cuda::backward(gpu, n_rows, len, y, dy, dx, mode));
    if n == 0 {
        return Ok(());
    }
    let (y, dy, piece) = (y.host(), dy.host(), (PIECE / len).max(1) * len);
    for_each_chunk_mut(dx.host(), piece, |idx, dx| {
        let range = idx * piece..idx * piece + dx.len();
        backward_rows(len, &y[range.clone()], &dy[range], dx, mode);
    });
    Ok(())
}

multiversion! {
    fn forward_rows<T>(len: usize, x: &[T], y: &mut [T]) {
        for (x, y) in x.chunks_exact(len).zip(y.chunks_exact_mut(len)) {
            let top = scaled_maximum(x, T::ONE);
            let sum = exponentials(x, T::ONE, top, y);
            let scale = T::ONE / sum;
            for y in y {
                *y *= scale;
            }
        }
    }
}

multiversion! {
    fn backward_rows<T>(len: usize, y: &[T], dy: &[T], dx: &mut [T], mode: Accumulate) {
        for ((y, dy), dx) in y.chunks_exact(len).zip(dy.chunks_exact(len)).zip(dx.chunks_exact_mut(len)) {
            let dot: T = sum_of(y, dy, |y, dy| y * dy);
            let each = dx.iter_mut().zip(y).zip(dy);
            match mode {
                Accumulate::Overwrite => {
                    for ((dx, &y), &dy) in each {
                        *dx = y * (dy - dot);
                    }
                }
                Accumulate::Add => {
                    for ((dx, &y), &dy) in each {
                        *dx += y * (dy - dot);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::naive::softmax as naive;
    use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
    use crate::simd::tests::at_every_level;

    /// Values in [-8, 8).
    fn wide<T: Real>(n: usize, seed: u64) -> Vec<T> {
        values::<T>(n, seed).into_iter().map(|v| v * T::from_f64(8.0)).collect()
    }

    /// y, and dx added to 0.5.
    fn run<T: Real>(n_rows: usize, len: usize) -> [Vec<T>; 2] {
        let (x, dy) = (wide::<T>(n_rows * len, 1), values::<T>(n_rows * len, 2));
        let (mut y, mut dx) = (vec![T::ONE; x.len()], vec![T::from_f64(0.5); x.len()]);
        forward(n_rows, len, (&x).into(), (&mut y).into()).unwrap();
        backward(n_rows, len, (&y).into(), (&dy).into(), (&mut dx).into(), Accumulate::Add).unwrap();
        [y, dx]
    }

    fn matches_naive<T: Real>(n_rows: usize, len: usize) {
        let x: Vec<f64> = wide::<T>(n_rows * len, 1).iter().map(|v| v.to_f64()).collect();
        let dy: Vec<f64> = values::<T>(x.len(), 2).iter().map(|v| v.to_f64()).collect();
        let y = naive::forward(len, &x);
        let dx: Vec<T> = naive::backward(len, &y, &dy).iter().map(|v| T::from_f64(v + 0.5)).collect();
        let [got_y, got_dx] = run::<T>(n_rows, len);
        for (got, expected) in got_y.iter().zip(&y) {
            let error = (got.to_f64() - expected).abs();
            // The twin adds a row up one by one, which for long ones is the worse sum of the two.
            assert!(error <= (8.0 + len as f64 / 64.0) * T::EPSILON.to_f64() * expected, "{got} for {expected}");
        }
        assert_close(&got_dx, &dx, 16.0);
    }

    #[test]
    fn equals_naive() {
        at_every_level(|| {
            for (n_rows, len) in [(1, 1), (3, 2), (40, 10), (5, 16), (7, 33), (33, 197), (2, 3000), (0, 3), (3, 0)] {
                matches_naive::<f32>(n_rows, len);
                matches_naive::<f64>(n_rows, len);
            }
        });
    }

    #[test]
    fn gradient_is_that_of_the_forward_pass() {
        for (n_rows, len) in [(3, 5), (1, 20)] {
            let (x, dy) = (values::<f64>(n_rows * len, 1), values::<f64>(n_rows * len, 2));
            let y = naive::forward(len, &x);
            let mut dx = vec![9.0; x.len()];
            backward(n_rows, len, (&y).into(), (&dy).into(), (&mut dx).into(), Accumulate::Overwrite).unwrap();
            check_gradient(&x, &dx, |x| dot(&naive::forward(len, x), &dy));
        }
    }

    #[test]
    fn neither_threads_nor_levels_change_bits() {
        let all = || run::<f32>(700, 65).map(|v| bits(&v));
        let portable = crate::simd::tests::at_level(crate::simd::Level::Portable, all);
        at_every_level(|| {
            on_pools(all);
            assert!(all() == portable);
        });
    }

    #[test]
    fn masked_places_are_zero_and_a_masked_row_is_nan() {
        let inf = f32::NEG_INFINITY;
        let x = [inf, 2.0, inf, inf, inf, inf, 1.0, f32::NAN, 2.0, 3.0, f32::INFINITY, 0.0];
        let mut y = [9.0_f32; 12];
        forward(4, 3, (&x[..]).into(), (&mut y[..]).into()).unwrap();
        assert_eq!(y[..3], [0.0, 1.0, 0.0]);
        assert!(y[3..].iter().all(|v| v.is_nan()), "{y:?}");
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let (x, mut y) = ([0.0_f32; 6], [0.0_f32; 5]);
        let error = forward(2, 3, (&x[..]).into(), (&mut y[..]).into()).unwrap_err();
        assert_eq!(error.to_string(), "`softmax`: `y` must have 6 elements, got 5");
        assert!(forward(usize::MAX, 3, (&x[..]).into(), (&mut y[..]).into()).is_err());
    }
}
