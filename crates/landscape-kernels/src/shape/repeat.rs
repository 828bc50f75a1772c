//! One run of numbers for every example of a batch: a parameter that is an input, such as a class token.

use crate::check::n_elements;
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::reduce::store_column_sums;

/// Every row of y becomes x.
///
/// # Shapes
/// `x` `[len]`; `y` `[n, len]`.
///
/// # Errors
/// [`crate::Error::Length`] where the length of `y` does not fit, [`crate::Error::Shape`] if it overflows.
///
/// ```
/// use landscape_kernels::{View, shape::repeat_forward};
/// let mut y = [0.0_f32; 4];
/// repeat_forward(2, View::Host(&[1.0, 2.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [1.0, 2.0, 1.0, 2.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn repeat_forward<T: Real>(n: usize, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    check_len("repeat_forward", "y", n_elements("repeat_forward", &[n, x.len()])?, y.len())?;
    on_device!("repeat_forward", [x, y], gpu => crate::reduce::cuda::fill_rows(gpu, x, y));
    let x = x.host();
    let rows_per_task = (CHUNK / x.len().max(1)).max(1);
    for_each_chunk_mut(y.host(), rows_per_task * x.len(), |_, y| y.chunks_exact_mut(x.len()).for_each(|y| y.copy_from_slice(x)));
    Ok(())
}

/// The gradient of [`repeat_forward`]: the sum of the rows of dy, in double precision.
///
/// # Shapes
/// `dy` `[n, len]`; `dx` `[len]`.
///
/// # Errors
/// As [`repeat_forward`].
pub fn repeat_backward<T: Real>(n: usize, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    check_len("repeat_backward", "dy", n_elements("repeat_backward", &[n, dx.len()])?, dy.len())?;
    let n_columns = dx.len();
    on_device!("repeat_backward", [dy, dx], gpu => crate::reduce::cuda::store_column_sums(gpu, n_columns, dy, dx, mode));
    store_column_sums(n_columns, dy.host(), dx.host(), mode);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::tools::{assert_close, bits, on_pools, values};

    fn same_as_naive<T: Real>(n: usize, len: usize) {
        let (x, dy) = (values::<T>(len, 1), values::<T>(n * len, 2));
        let mut y = vec![T::ONE; n * len];
        repeat_forward(n, (&x).into(), (&mut y).into()).expect("lengths agree");
        assert_eq!(bits(&y), bits(&x.repeat(n)));
        for mode in [Accumulate::Overwrite, Accumulate::Add] {
            let mut dx = x.clone();
            repeat_backward(n, (&dy).into(), (&mut dx).into(), mode).expect("lengths agree");
            let sum = |j: usize| (0..n).map(|i| dy[i * len + j].to_f64()).sum::<f64>();
            let before = |j: usize| if mode == Accumulate::Add { x[j].to_f64() } else { 0.0 };
            let expected: Vec<T> = (0..len).map(|j| T::from_f64(before(j) + sum(j))).collect();
            assert_close(&dx, &expected, if T::NAME == "f64" { 512.0 } else { 2.0 });
        }
    }

    #[test]
    fn equal_naive_on_any_number_of_threads() {
        for (n, len) in [(0, 3), (1, 1), (5, 7), (300, 192), (3, 40_000), (4, 0)] {
            on_pools(|| {
                same_as_naive::<f32>(n, len);
                same_as_naive::<f64>(n, len);
            });
        }
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let (x, mut y) = ([0.0_f32; 3], [0.0_f32; 6]);
        assert!(repeat_forward(3, View::Host(&x), (&mut y[..]).into()).is_err());
        assert!(repeat_forward(usize::MAX, View::Host(&x), (&mut y[..]).into()).is_err());
        assert!(repeat_backward(3, View::Host(&x), (&mut y[..]).into(), Accumulate::Add).is_err());
    }
}
