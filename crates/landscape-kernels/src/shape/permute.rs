//! Axes in another order.

#[cfg(feature = "cuda")]
use super::cuda;
use super::transpose::transpose;
use crate::axes::{Axis, MAX_AXES, Walk, merged, strides};
use crate::broadcast::rows;
use crate::check::{n_elements, shape_error};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};

/// Axis i of y is axis `order[i]` of x, as `torch.permute`: y, or what is added to it. With [`inverse`] it is its own gradient.
///
/// # Shapes
/// `x` as `dims`, at most 8 axes; `y` as many elements.
///
/// # Errors
/// [`crate::Error::Shape`] if `order` is no order of the axes, there are more than 8 or a product of sizes overflows;
/// [`crate::Error::Length`] where a length does not fit.
///
/// ```
/// use landscape_kernels::{Accumulate, View, shape::permute};
/// let mut y = [0.0_f32; 6];
/// permute(&[2, 3], &[1, 0], View::Host(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), (&mut y[..]).into(), Accumulate::Overwrite)?;
/// assert_eq!(y, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn permute<T: Real>(dims: &[usize], order: &[usize], x: View<'_, T>, y: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    const OP: &str = "permute";
    check_order(OP, dims, order)?;
    let len = n_elements(OP, dims)?;
    check_len(OP, "x", len, x.len())?;
    check_len(OP, "y", len, y.len())?;
    if len == 0 {
        return Ok(());
    }
    // A walk over y with the positions of x.
    let strides = strides(dims);
    let axes = merged(order.iter().map(|&axis| Axis { size: dims[axis], strides: [strides[axis]] }));
    let matrices = turned(&axes);
    #[cfg(feature = "cuda")]
    if let Some([n_matrices, n_rows, n_columns]) = matrices {
        on_device!(OP, [x, y], gpu => cuda::transpose(gpu, [n_matrices, n_rows, n_columns], x, y, mode));
    }
    on_device!(OP, [x, y], gpu => cuda::permute(gpu, &axes, x, y, mode));
    let (x, y) = (x.host(), y.host());
    if let Some([_, n_rows, n_columns]) = matrices {
        let matrix = n_rows * n_columns;
        let per_task = (CHUNK / matrix).max(1) * matrix;
        for_each_chunk_mut(y, per_task, |idx, y| {
            for (x, y) in x[idx * per_task..].chunks_exact(matrix).zip(y.chunks_exact_mut(matrix)) {
                transpose(n_rows, n_columns, x, y, mode);
            }
        });
        return Ok(());
    }
    let (outer, inner) = rows(&axes);
    for_each_chunk_mut(y, CHUNK, |idx, y| gather(outer, inner, idx * CHUNK, x, y, mode));
    Ok(())
}

/// The order that undoes `order`: `inverse(order)[order[i]] = i`. For what is no order, positions that are not there are left out.
///
/// ```
/// use landscape_kernels::shape::inverse;
/// assert_eq!(inverse(&[2, 0, 1]), [1, 2, 0]);
/// ```
pub fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    for (i, &axis) in order.iter().enumerate() {
        if let Some(place) = inverse.get_mut(axis) {
            *place = i;
        }
    }
    inverse
}

fn check_order(op: &'static str, dims: &[usize], order: &[usize]) -> Result<()> {
    if dims.len() > MAX_AXES {
        return Err(shape_error(op, format!("there must be at most {MAX_AXES} axes, got {}", dims.len())));
    }
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..dims.len()) {
        return Err(shape_error(
            op,
            format!("`order` must have each of the axes 0 to {} once, got {order:?}", dims.len().saturating_sub(1)),
        ));
    }
    Ok(())
}

/// How many matrices of how many rows and columns are each transposed, if that is all.
fn turned(axes: &[Axis<1>]) -> Option<[usize; 3]> {
    let (n_matrices, stride, columns, rows) = match axes {
        [columns, rows] => (1, None, columns, rows),
        [matrices, columns, rows] => (matrices.size, Some(matrices.strides[0]), columns, rows),
        _ => return None,
    };
    let (n_rows, n_columns) = (rows.size, columns.size);
    let is_turned = columns.strides == [1] && rows.strides == [n_columns];
    (is_turned && stride.is_none_or(|stride| stride == n_rows * n_columns)).then_some([n_matrices, n_rows, n_columns])
}

/// The elements of y from `start` on.
fn gather<T: Real>(outer: &[Axis<1>], inner: Axis<1>, start: usize, x: &[T], mut y: &mut [T], mode: Accumulate) {
    let mut walk = Walk::new(outer, start / inner.size);
    let mut column = start % inner.size;
    let stride = inner.strides[0].max(1);
    while !y.is_empty() {
        let n = (inner.size - column).min(y.len());
        let (row, rest) = y.split_at_mut(n);
        let from = &x[walk.at()[0] + column * stride..];
        match (stride, mode) {
            (1, Accumulate::Overwrite) => row.copy_from_slice(&from[..n]),
            (1, Accumulate::Add) => row.iter_mut().zip(from).for_each(|(y, &x)| *y += x),
            (_, Accumulate::Overwrite) => row.iter_mut().zip(from.iter().step_by(stride)).for_each(|(y, &x)| *y = x),
            (_, Accumulate::Add) => row.iter_mut().zip(from.iter().step_by(stride)).for_each(|(y, &x)| *y += x),
        }
        y = rest;
        column = 0;
        walk.step();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::shape as naive;
    use crate::naive::tools::{bits, check_gradient, dot, on_pools, values};
    use crate::simd::tests::at_every_level;
    use proptest::prelude::*;

    const MODES: [Accumulate; 2] = [Accumulate::Overwrite, Accumulate::Add];

    fn permuted<T: Real>(dims: &[usize], order: &[usize], x: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
        let mut y = start.to_vec();
        permute(dims, order, x.into(), (&mut y).into(), mode).expect("lengths agree");
        y
    }

    fn same_as_naive<T: Real>(dims: &[usize], order: &[usize]) {
        let n = dims.iter().product();
        let (x, start) = (values::<T>(n, 1), values::<T>(n, 2));
        let expected = naive::permute(dims, order, &x);
        for mode in MODES {
            let sum: Vec<T> = expected.iter().zip(&start).map(|(&y, &s)| if mode == Accumulate::Add { s + y } else { y }).collect();
            assert_eq!(bits(&permuted(dims, order, &x, &start, mode)), bits(&sum), "{dims:?} {order:?}");
        }
        let out: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
        assert_eq!(bits(&permuted(&out, &inverse(order), &expected, &start, Accumulate::Overwrite)), bits(&x));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equal_naive(dims in prop::collection::vec(0_usize..6, 0..6), seed in 0_usize..1000) {
            let mut order: Vec<usize> = (0..dims.len()).collect();
            (1..dims.len()).for_each(|i| order.swap(i, (seed * 31 / (i * i)) % (i + 1)));
            same_as_naive::<f32>(&dims, &order);
            same_as_naive::<f64>(&dims, &order);
        }
    }

    #[test]
    fn usual_orders_at_every_level() {
        for (dims, order) in [
            (&[3, 65, 4, 32][..], &[0, 2, 1, 3][..]),
            (&[3, 65, 4, 32], &[0, 2, 3, 1]),
            (&[2, 3, 40, 50], &[0, 2, 3, 1]),
            (&[130, 257], &[1, 0]),
            (&[2, 3, 4, 5, 6], &[4, 3, 2, 1, 0]),
            (&[7, 9, 11], &[1, 0, 2]),
            (&[2, 1, 3, 1, 2, 2, 1, 2], &[7, 0, 5, 2, 1, 6, 3, 4]),
            (&[6, 7], &[0, 1]),
            (&[], &[]),
        ] {
            at_every_level(|| same_as_naive::<f32>(dims, order));
            same_as_naive::<f64>(dims, order);
        }
    }

    #[test]
    fn the_inverse_is_the_gradient_and_threads_change_nothing() {
        let (dims, order) = ([2, 3, 4], [2, 0, 1]);
        let (x, dy, zero) = (values::<f64>(24, 1), values::<f64>(24, 2), vec![0.0; 24]);
        let dx = permuted(&[4, 2, 3], &inverse(&order), &dy, &zero, Accumulate::Overwrite);
        check_gradient(&x, &dx, |x| dot(&permuted(&dims, &order, x, &zero, Accumulate::Overwrite), &dy));
        let x = values::<f32>(60 * 50 * 40, 1);
        on_pools(|| bits(&permuted(&[60, 50, 40], &[2, 0, 1], &x, &x, Accumulate::Add)));
    }

    #[test]
    fn what_is_no_order_is_an_error() {
        let (x, mut y) = ([0.0_f32; 6], [0.0_f32; 6]);
        let mut call = |dims: &[usize], order: &[usize], n: usize| {
            permute(dims, order, View::Host(&x[..n]), (&mut y[..]).into(), Accumulate::Add).map_err(|e| e.to_string())
        };
        assert_eq!(
            call(&[2, 3], &[0, 0], 6).expect_err("0 twice"),
            "`permute`: `order` must have each of the axes 0 to 1 once, got [0, 0]"
        );
        assert!(call(&[2, 3], &[0], 6).is_err());
        assert!(call(&[2, 3], &[0, 2], 6).is_err());
        assert!(call(&[2, 3], &[1, 0], 5).is_err());
        assert!(call(&[usize::MAX, 3], &[1, 0], 6).is_err());
        assert!(call(&[1; 9], &[0, 1, 2, 3, 4, 5, 6, 7, 8], 1).is_err());
        assert_eq!(inverse(&[5, 0]), [1, 0]);
    }
}
