//! The mean over one axis: global pooling of images and of sequences.

#[cfg(feature = "cuda")]
use super::cuda;
use crate::check::{n_elements, shape_error};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::simd::multiversion;

/// y = the mean of x over the middle axis; its sums are taken in double precision.
///
/// # Shapes
/// `x` `[outer, len, inner]`; `y` `[outer, inner]`.
///
/// # Errors
/// [`crate::Error::Shape`] if `len` is 0 or a product of sizes overflows, [`crate::Error::Length`] where a length does not fit.
///
/// ```
/// use landscape_kernels::{View, pool::mean_forward};
/// let mut y = [0.0_f32; 2];
/// mean_forward(1, 2, 2, View::Host(&[1.0, 10.0, 3.0, 20.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [2.0, 15.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn mean_forward<T: Real>(outer: usize, len: usize, inner: usize, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let [n, n_means] = lengths("mean_forward", outer, len, inner)?;
    check_len("mean_forward", "x", n, x.len())?;
    check_len("mean_forward", "y", n_means, y.len())?;
    on_device!("mean_forward", [x, y], gpu => cuda::axis_mean_forward(gpu, [len, inner], x, y));
    let x = x.host();
    let per_task = (CHUNK / (len * inner).max(1)).max(1);
    for_each_chunk_mut(y.host(), per_task * inner, |idx, y| {
        let mut sums = vec![0.0; inner];
        for (i, y) in y.chunks_exact_mut(inner).enumerate() {
            means(&x[(idx * per_task + i) * len * inner..][..len * inner], &mut sums, y);
        }
    });
    Ok(())
}

/// The gradient of [`mean_forward`]: dy/len everywhere on the axis.
///
/// # Shapes
/// `dy` `[outer, inner]`; `dx` `[outer, len, inner]`.
///
/// # Errors
/// As [`mean_forward`].
pub fn mean_backward<T: Real>(outer: usize, len: usize, inner: usize, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let [n, n_means] = lengths("mean_backward", outer, len, inner)?;
    check_len("mean_backward", "dy", n_means, dy.len())?;
    check_len("mean_backward", "dx", n, dx.len())?;
    on_device!("mean_backward", [dy, dx], gpu => cuda::axis_mean_backward(gpu, [len, inner], dy, dx, mode));
    let dy = dy.host();
    let per_task = (CHUNK / (len * inner).max(1)).max(1);
    for_each_chunk_mut(dx.host(), per_task * (len * inner), |idx, dx| {
        let mut row = vec![T::ZERO; inner];
        for (i, dx) in dx.chunks_exact_mut(len * inner).enumerate() {
            let dy = &dy[(idx * per_task + i) * inner..][..inner];
            row.iter_mut().zip(dy).for_each(|(row, dy)| *row = T::from_f64(dy.to_f64() / len as f64));
            spread(&row, dx, mode);
        }
    });
    Ok(())
}

/// Elements of the input and of the means.
fn lengths(op: &'static str, outer: usize, len: usize, inner: usize) -> Result<[usize; 2]> {
    if len == 0 {
        return Err(shape_error(op, "`len` must be at least 1, got 0"));
    }
    let n = n_elements(op, &[outer, len, inner])?;
    n_elements(op, &[len, inner])?;
    Ok([n, outer * inner])
}

multiversion! {
    /// The mean of the rows of `x`.
    fn means<T>(x: &[T], sums: &mut [f64], y: &mut [T]) {
        let n_rows = (x.len() / y.len()) as f64;
        if y.len() == 1 {
            // Eight interleaved sums, added in order.
            let mut lanes = [0.0; 8];
            for eight in x.chunks(8) {
                lanes.iter_mut().zip(eight).for_each(|(lane, v)| *lane += v.to_f64());
            }
            y[0] = T::from_f64(lanes.iter().sum::<f64>() / n_rows);
            return;
        }
        sums.fill(0.0);
        for row in x.chunks_exact(y.len()) {
            for (sum, v) in sums.iter_mut().zip(row) {
                *sum += v.to_f64();
            }
        }
        y.iter_mut().zip(&*sums).for_each(|(y, sum)| *y = T::from_f64(sum / n_rows));
    }
}

multiversion! {
    /// Every row of `dx` becomes `row`, or has it added.
    fn spread<T>(row: &[T], dx: &mut [T], mode: Accumulate) {
        for dx in dx.chunks_exact_mut(row.len()) {
            match mode {
                Accumulate::Overwrite => dx.copy_from_slice(row),
                Accumulate::Add => dx.iter_mut().zip(row).for_each(|(dx, &v)| *dx += v),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
    use crate::simd::Level;
    use crate::simd::tests::{at_every_level, at_level};

    fn mean<T: Real>([outer, len, inner]: [usize; 3], x: &[T]) -> Vec<T> {
        let mut y = vec![T::ONE; outer * inner];
        mean_forward(outer, len, inner, x.into(), (&mut y).into()).expect("lengths agree");
        y
    }

    fn back<T: Real>([outer, len, inner]: [usize; 3], dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
        let mut dx = start.to_vec();
        mean_backward(outer, len, inner, dy.into(), (&mut dx).into(), mode).expect("lengths agree");
        dx
    }

    fn same_as_naive<T: Real>(sizes: [usize; 3]) {
        let [outer, len, inner] = sizes;
        let (x, dy) = (values::<T>(outer * len * inner, 1), values::<T>(outer * inner, 2));
        let expected: Vec<T> = (0..outer * inner)
            .map(|i| T::from_f64((0..len).map(|k| x[(i / inner * len + k) * inner + i % inner].to_f64()).sum::<f64>() / len as f64))
            .collect();
        assert_close(&mean(sizes, &x), &expected, 1.0);
        for mode in [Accumulate::Overwrite, Accumulate::Add] {
            let expected: Vec<T> = (0..x.len())
                .map(|i| {
                    let term = T::from_f64(dy[i / (len * inner) * inner + i % inner].to_f64() / len as f64);
                    if mode == Accumulate::Add { x[i] + term } else { term }
                })
                .collect();
            assert_eq!(bits(&back(sizes, &dy, &x, mode)), bits(&expected));
        }
    }

    #[test]
    fn equal_naive_at_every_level_on_any_number_of_threads() {
        for sizes in [[2, 3, 5], [7, 49, 33], [40, 65, 1], [1, 30_000, 2], [0, 2, 3], [3, 1, 4], [2, 4, 0]] {
            at_every_level(|| {
                same_as_naive::<f32>(sizes);
                same_as_naive::<f64>(sizes);
            });
            let x = values::<f32>(sizes.iter().product(), 1);
            let all = || bits(&mean(sizes, &x));
            let portable = at_level(Level::Portable, all);
            at_every_level(|| assert!(all() == portable));
            on_pools(all);
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let sizes = [2, 3, 4];
        let (x, dy) = (values::<f64>(24, 1), values::<f64>(8, 2));
        check_gradient(&x, &back(sizes, &dy, &[0.0; 24], Accumulate::Overwrite), |x| dot(&mean(sizes, x), &dy));
    }

    #[test]
    fn bad_sizes_are_errors() {
        let (x, mut y) = ([0.0_f32; 6], [0.0_f32; 2]);
        assert!(mean_forward(1, 3, 2, View::Host(&x[..5]), (&mut y[..]).into()).is_err());
        assert!(mean_forward(1, 0, 2, View::Host(&x[..0]), (&mut y[..]).into()).is_err());
        assert!(mean_forward(0, usize::MAX, 2, View::Host(&x[..0]), (&mut y[..0]).into()).is_err());
        assert!(mean_backward(1, 3, 2, View::Host(&x), (&mut y[..]).into(), Accumulate::Add).is_err());
    }
}
