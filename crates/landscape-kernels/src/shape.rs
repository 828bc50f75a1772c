//! Elements moved, not changed: layouts of images, flatten, axes in another order, slices, repetition, concatenation along the last axis.

mod permute;
mod repeat;
mod slice;
mod transpose;
#[cfg(feature = "cuda")]
mod cuda;

pub use permute::{inverse, permute};
pub use repeat::{repeat_backward, repeat_forward};
pub use slice::{SliceShape, slice_backward, slice_forward};

use crate::check::{n_elements, shape_error};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};

/// `[n, c, h, w]` to `[n, h, w, c]`.
///
/// # Shapes
/// Both n·c·h·w elements.
///
/// # Errors
/// [`crate::Error::Length`] where a length is not that, [`crate::Error::Shape`] if the product overflows.
///
/// ```
/// use landscape_kernels::{View, shape::nchw_to_nhwc};
/// let mut y = [0.0_f32; 4];
/// nchw_to_nhwc(1, 2, 1, 2, View::Host(&[1.0, 2.0, 3.0, 4.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [1.0, 3.0, 2.0, 4.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn nchw_to_nhwc<T: Real>(n: usize, c: usize, h: usize, w: usize, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    transpose_images("nchw_to_nhwc", [n, c, h, w], Channels::First, x, y, Accumulate::Overwrite)
}

/// `[n, h, w, c]` to `[n, c, h, w]`.
///
/// # Shapes
/// Both n·c·h·w elements.
///
/// # Errors
/// As [`nchw_to_nhwc`].
pub fn nhwc_to_nchw<T: Real>(n: usize, c: usize, h: usize, w: usize, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    transpose_images("nhwc_to_nchw", [n, c, h, w], Channels::Last, x, y, Accumulate::Overwrite)
}

/// An image to features in PyTorch's order: `[n, h, w, c]` to `[n, c·h·w]` with c outermost.
///
/// # Shapes
/// Both n·c·h·w elements.
///
/// # Errors
/// As [`nchw_to_nhwc`].
pub fn flatten_forward<T: Real>(n: usize, c: usize, h: usize, w: usize, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    transpose_images("flatten_forward", [n, c, h, w], Channels::Last, x, y, Accumulate::Overwrite)
}

/// The gradient of [`flatten_forward`]: `[n, c·h·w]` back to `[n, h, w, c]`.
///
/// # Shapes
/// Both n·c·h·w elements.
///
/// # Errors
/// As [`nchw_to_nhwc`].
pub fn flatten_backward<T: Real>(
    n: usize,
    c: usize,
    h: usize,
    w: usize,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    transpose_images("flatten_backward", [n, c, h, w], Channels::First, dy, dx, mode)
}

/// Rows of several matrices side by side: y_i = (x⁰_i, x¹_i, …). Channels last, this concatenates channels.
///
/// # Shapes
/// `inputs[j]` `[n_rows, widths[j]]`; `y` `[n_rows, Σ_j widths[j]]`.
///
/// # Errors
/// [`crate::Error::Length`] where a length is not that, [`crate::Error::Shape`] if there are no inputs, not as many as widths, or a
/// size overflows.
pub fn concat_forward<T: Real>(n_rows: usize, widths: &[usize], inputs: &[View<'_, T>], y: ViewMut<'_, T>) -> Result<()> {
    const OP: &str = "concat_forward";
    let width = total_width(OP, widths)?;
    if inputs.len() != widths.len() {
        return Err(shape_error(OP, format!("there must be as many inputs as widths, got {} and {}", inputs.len(), widths.len())));
    }
    for (input, &width) in inputs.iter().zip(widths) {
        check_len(OP, "input", n_elements(OP, &[n_rows, width])?, input.len())?;
    }
    check_len(OP, "y", n_elements(OP, &[n_rows, width])?, y.len())?;
    on_device!(OP, [inputs, y], gpu => {
        let mut y = y;
        let mut start = 0;
        for (input, &own) in inputs.iter().zip(widths) {
            let end = y.len();
            let into = y.reborrow().slice(start.min(end)..end);
            cuda::copy_columns(gpu, [n_rows, own], (*input, own), (into, width), Accumulate::Overwrite)?;
            start += own;
        }
        Ok(())
    });
    let inputs: Vec<(&[T], usize)> = inputs.iter().zip(widths).map(|(input, &width)| (input.host(), width)).collect();
    let rows_per_chunk = (CHUNK / width.max(1)).max(1);
    for_each_chunk_mut(y.host(), rows_per_chunk * width, |idx, y| {
        for (row, y) in y.chunks_exact_mut(width).enumerate() {
            let row = idx * rows_per_chunk + row;
            let mut start = 0;
            for &(input, width) in &inputs {
                y[start..start + width].copy_from_slice(&input[row * width..][..width]);
                start += width;
            }
        }
    });
    Ok(())
}

/// The gradient of [`concat_forward`] with respect to one input: its columns of dy.
///
/// # Shapes
/// `dy` `[n_rows, Σ_j widths[j]]`; `dx` `[n_rows, widths[input_idx]]`.
///
/// # Errors
/// As [`concat_forward`]; also if there is no input `input_idx`.
pub fn concat_backward<T: Real>(
    n_rows: usize,
    widths: &[usize],
    input_idx: usize,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    const OP: &str = "concat_backward";
    let width = total_width(OP, widths)?;
    let Some(&own) = widths.get(input_idx) else {
        return Err(shape_error(OP, format!("`input_idx` must be below {}, got {input_idx}", widths.len())));
    };
    check_len(OP, "dy", n_elements(OP, &[n_rows, width])?, dy.len())?;
    check_len(OP, "dx", n_elements(OP, &[n_rows, own])?, dx.len())?;
    let start: usize = widths[..input_idx].iter().sum();
    on_device!(OP, [dy, dx], gpu => {
        let dy = dy.slice(start.min(dy.len())..dy.len());
        cuda::copy_columns(gpu, [n_rows, own], (dy, width), (dx, own), mode)
    });
    let dy = dy.host();
    let rows_per_chunk = (CHUNK / own.max(1)).max(1);
    for_each_chunk_mut(dx.host(), rows_per_chunk * own, |idx, dx| {
        for (row, dx) in dx.chunks_exact_mut(own).enumerate() {
            let dy = &dy[(idx * rows_per_chunk + row) * width + start..][..own];
            match mode {
                Accumulate::Overwrite => dx.copy_from_slice(dy),
                Accumulate::Add => dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy),
            }
        }
    });
    Ok(())
}

fn total_width(op: &'static str, widths: &[usize]) -> Result<usize> {
    if widths.is_empty() {
        return Err(shape_error(op, "there must be at least 1 input, got 0"));
    }
    let total = widths.iter().try_fold(0_usize, |sum, &width| sum.checked_add(width));
    total.ok_or_else(|| shape_error(op, format!("the sum of the widths {widths:?} does not fit in memory")))
}

/// Where the channels of the source stand.
#[derive(Clone, Copy)]
enum Channels {
    First,
    Last,
}

fn transpose_images<T: Real>(
    op: &'static str,
    [n, c, h, w]: [usize; 4],
    source: Channels,
    x: View<'_, T>,
    y: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let len = n_elements(op, &[n, c, h, w])?;
    let (x_name, y_name) = if op == "flatten_backward" { ("dy", "dx") } else { ("x", "y") };
    check_len(op, x_name, len, x.len())?;
    check_len(op, y_name, len, y.len())?;
    if len == 0 {
        return Ok(());
    }
    let (n_rows, n_columns) = match source {
        Channels::First => (c, h * w),
        Channels::Last => (h * w, c),
    };
    on_device!(op, [x, y], gpu => cuda::transpose(gpu, [n, n_rows, n_columns], x, y, mode));
    let x = x.host();
    for_each_chunk_mut(y.host(), n_rows * n_columns, |idx, y| {
        transpose::transpose(n_rows, n_columns, &x[idx * n_rows * n_columns..][..n_rows * n_columns], y, mode);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::shape as naive;
    use crate::naive::tools::{bits, dot, on_pools, values};
    use proptest::prelude::*;

    type Move<T> = fn(usize, usize, usize, usize, View<'_, T>, ViewMut<'_, T>) -> Result<()>;

    fn moved<T: Real>(f: Move<T>, [n, c, h, w]: [usize; 4], x: &[T]) -> Vec<T> {
        let mut y = vec![T::ONE; x.len()];
        f(n, c, h, w, x.into(), (&mut y).into()).expect("lengths agree");
        y
    }

    fn flatten_back<T: Real>([n, c, h, w]: [usize; 4], dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
        let mut dx = start.to_vec();
        flatten_backward(n, c, h, w, dy.into(), (&mut dx).into(), mode).expect("lengths agree");
        dx
    }

    fn concat<T: Real>(n_rows: usize, widths: &[usize], inputs: &[Vec<T>]) -> Vec<T> {
        let mut y = vec![T::ONE; n_rows * widths.iter().sum::<usize>()];
        let views: Vec<View<'_, T>> = inputs.iter().map(View::from).collect();
        concat_forward(n_rows, widths, &views, (&mut y).into()).expect("lengths agree");
        y
    }

    fn concat_back<T: Real>(n_rows: usize, widths: &[usize], idx: usize, dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
        let mut dx = start.to_vec();
        concat_backward(n_rows, widths, idx, dy.into(), (&mut dx).into(), mode).expect("lengths agree");
        dx
    }

    fn inputs<T: Real>(n_rows: usize, widths: &[usize]) -> Vec<Vec<T>> {
        widths.iter().enumerate().map(|(j, width)| values(n_rows * width, j as u64)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn layouts_equal_naive(n in 0_usize..4, c in 0_usize..40, h in 0_usize..7, w in 0_usize..7, seed in 0_u64..100) {
            let sizes = [n, c, h, w];
            let (x, start) = (values::<f32>(n * c * h * w, seed), values::<f32>(n * c * h * w, seed + 1));
            let last = moved(nchw_to_nhwc, sizes, &x);
            assert_eq!(last, naive::nchw_to_nhwc(sizes, &x));
            assert_eq!(moved(nhwc_to_nchw, sizes, &last), x);
            assert_eq!(moved(flatten_forward, sizes, &last), x);
            assert_eq!(flatten_back(sizes, &x, &start, Accumulate::Overwrite), last);
            let sum: Vec<f32> = start.iter().zip(&last).map(|(a, b)| a + b).collect();
            assert_eq!(flatten_back(sizes, &x, &start, Accumulate::Add), sum);
        }

        #[test]
        fn concat_equals_naive(n_rows in 0_usize..50, widths in prop::collection::vec(0_usize..20, 1..5)) {
            let inputs = inputs::<f64>(n_rows, &widths);
            let y = concat(n_rows, &widths, &inputs);
            assert_eq!(y, naive::concat(n_rows, &widths, &inputs));
            for (idx, input) in inputs.iter().enumerate() {
                let start = values::<f64>(input.len(), 9);
                assert_eq!(&concat_back(n_rows, &widths, idx, &y, &start, Accumulate::Overwrite), input);
                let sum: Vec<f64> = start.iter().zip(input).map(|(a, b)| a + b).collect();
                assert_eq!(concat_back(n_rows, &widths, idx, &y, &start, Accumulate::Add), sum);
            }
        }
    }

    /// Backward is the transpose of forward: ⟨f(x), g⟩ = ⟨x, fᵀ(g)⟩.
    #[test]
    fn backward_is_the_transpose() {
        let sizes = [2, 3, 4, 5];
        let (x, g) = (values::<f64>(120, 1), values::<f64>(120, 2));
        let left = dot(&moved(flatten_forward, sizes, &x), &g);
        assert!((left - dot(&x, &flatten_back(sizes, &g, &x, Accumulate::Overwrite))).abs() < 1e-12);
        let widths = [2, 5, 1];
        let inputs = inputs::<f64>(15, &widths);
        let left = dot(&concat(15, &widths, &inputs), &g);
        let parts = inputs.iter().enumerate();
        let right: f64 = parts.map(|(j, input)| dot(input, &concat_back(15, &widths, j, &g, input, Accumulate::Overwrite))).sum();
        assert!((left - right).abs() < 1e-12);
    }

    #[test]
    fn bits_do_not_depend_on_the_thread_count() {
        let sizes = [5, 37, 16, 16];
        let x = values::<f32>(5 * 37 * 256, 1);
        on_pools(|| bits(&flatten_back(sizes, &x, &moved(nhwc_to_nchw, sizes, &x), Accumulate::Add)));
        let widths = [7, 3, 90];
        let inputs = inputs::<f32>(2000, &widths);
        on_pools(|| bits(&concat(2000, &widths, &inputs)));
    }

    #[test]
    fn bad_arguments_are_errors() {
        let (x, mut y) = ([1.0_f32; 6], [0.0_f32; 6]);
        let mut fails = |n_x: usize, n_y: usize, n: usize| {
            let view = View::Host(&x[..n_x]);
            assert!(nchw_to_nhwc(n, 3, 1, 2, view, (&mut y[..n_y]).into()).is_err());
            assert!(nhwc_to_nchw(n, 3, 1, 2, view, (&mut y[..n_y]).into()).is_err());
            assert!(flatten_forward(n, 3, 1, 2, view, (&mut y[..n_y]).into()).is_err());
            assert!(flatten_backward(n, 3, 1, 2, view, (&mut y[..n_y]).into(), Accumulate::Add).is_err());
            assert!(concat_forward(n, &[6], &[view], (&mut y[..n_y]).into()).is_err());
            assert!(concat_backward(n, &[6], 0, view, (&mut y[..n_y]).into(), Accumulate::Add).is_err());
        };
        fails(5, 6, 1);
        fails(6, 5, 1);
        fails(6, 6, 2);
        fails(6, 6, usize::MAX);
        let view = View::Host(&x[..]);
        assert!(concat_forward::<f32>(1, &[], &[], (&mut y[..]).into()).is_err());
        assert!(concat_forward(1, &[3, 3], &[view], (&mut y[..]).into()).is_err());
        assert!(concat_forward(1, &[usize::MAX, 7], &[view, view], (&mut y[..]).into()).is_err());
        assert!(concat_backward(1, &[6], 1, view, (&mut y[..]).into(), Accumulate::Add).is_err());
        assert_eq!(y, [0.0; 6]);
    }
}
