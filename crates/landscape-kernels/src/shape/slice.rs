//! Every so many-th index of an axis.

#[cfg(feature = "cuda")]
use super::cuda;
use crate::check::{n_elements, shape_error};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};

/// The indices start, start + step, … of one axis of an array `[outer, axis, inner]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceShape {
    /// Elements of the axes before it.
    pub outer: usize,
    /// The size of the axis.
    pub axis: usize,
    /// Elements of the axes after it.
    pub inner: usize,
    /// The first index that is taken.
    pub start: usize,
    /// From one index that is taken to the next.
    pub step: usize,
    /// How many are taken.
    pub len: usize,
}

impl SliceShape {
    /// Fails unless all indices are on the axis.
    ///
    /// # Errors
    /// [`crate::Error::Shape`], naming the attribute; also where a product of the sizes overflows.
    pub fn check(&self) -> Result<()> {
        self.lengths("slice").map(|_| ())
    }

    /// Elements of the array and of the slice.
    fn lengths(&self, op: &'static str) -> Result<[usize; 2]> {
        let Self { outer, axis, inner, start, step, len } = *self;
        if step == 0 {
            return Err(shape_error(op, "`step` must be at least 1, got 0"));
        }
        let last = len.checked_sub(1).map_or(Some(0), |steps| steps.checked_mul(step)?.checked_add(start)?.checked_add(1));
        if last.is_none_or(|last| last > axis) {
            return Err(shape_error(op, format!("{len} indices from {start} on by {step} must be below the size of the axis {axis}")));
        }
        n_elements(op, &[axis, inner])?;
        Ok([n_elements(op, &[outer, axis, inner])?, n_elements(op, &[outer, len, inner])?])
    }
}

/// y = x at the indices of the slice.
///
/// # Shapes
/// `x` `[outer, axis, inner]`; `y` `[outer, len, inner]`.
///
/// # Errors
/// [`crate::Error::Shape`] if an index is not on the axis, the step is 0 or a product of sizes overflows; [`crate::Error::Length`] where a
/// length does not fit.
///
/// ```
/// use landscape_kernels::{View, shape::{SliceShape, slice_forward}};
/// let odd = SliceShape { outer: 1, axis: 5, inner: 1, start: 1, step: 2, len: 2 };
/// let mut y = [0.0_f32; 2];
/// slice_forward(&odd, View::Host(&[0.0, 1.0, 2.0, 3.0, 4.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [1.0, 3.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn slice_forward<T: Real>(shape: &SliceShape, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let [n, n_taken] = shape.lengths("slice_forward")?;
    check_len("slice_forward", "x", n, x.len())?;
    check_len("slice_forward", "y", n_taken, y.len())?;
    on_device!("slice_forward", [x, y], gpu => cuda::slice_forward(gpu, shape, x, y));
    let x = x.host();
    let SliceShape { axis, inner, start, step, len, .. } = *shape;
    // A step of 1 leaves whole runs.
    let (row, rows_per_outer) = if step == 1 { (len * inner, 1) } else { (inner, len) };
    let rows_per_task = (CHUNK / row.max(1)).max(1);
    for_each_chunk_mut(y.host(), rows_per_task * row, |idx, y| {
        for (i, y) in y.chunks_exact_mut(row).enumerate() {
            let at = idx * rows_per_task + i;
            let from = (at / rows_per_outer * axis + start + at % rows_per_outer * step) * inner;
            y.copy_from_slice(&x[from..][..row]);
        }
    });
    Ok(())
}

/// The gradient of [`slice_forward`]: dy at the indices of the slice, zero elsewhere.
///
/// # Shapes
/// `dy` `[outer, len, inner]`; `dx` `[outer, axis, inner]`.
///
/// # Errors
/// As [`slice_forward`].
pub fn slice_backward<T: Real>(shape: &SliceShape, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let [n, n_taken] = shape.lengths("slice_backward")?;
    check_len("slice_backward", "dy", n_taken, dy.len())?;
    check_len("slice_backward", "dx", n, dx.len())?;
    on_device!("slice_backward", [dy, dx], gpu => cuda::slice_backward(gpu, shape, dy, dx, mode));
    let dy = dy.host();
    let SliceShape { axis, inner, start, step, len, .. } = *shape;
    let whole = axis * inner;
    let per_task = (CHUNK / whole.max(1)).max(1);
    for_each_chunk_mut(dx.host(), per_task * whole, |idx, dx| {
        if mode == Accumulate::Overwrite {
            dx.fill(T::ZERO);
        }
        for (i, dx) in dx.chunks_exact_mut(whole).enumerate() {
            let dy = &dy[(idx * per_task + i) * len * inner..][..len * inner];
            let (row, step) = if step == 1 { (len * inner, 1) } else { (inner, step) };
            for (taken, dy) in dy.chunks_exact(row.max(1)).enumerate() {
                let into = &mut dx[(start + taken * step) * inner..][..row];
                into.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy);
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::shape as naive;
    use crate::naive::tools::{bits, check_gradient, dot, on_pools, values};

    const SHAPES: [SliceShape; 6] = [
        SliceShape { outer: 3, axis: 7, inner: 5, start: 2, step: 1, len: 4 },
        SliceShape { outer: 3, axis: 7, inner: 5, start: 1, step: 3, len: 2 },
        SliceShape { outer: 1000, axis: 60, inner: 1, start: 0, step: 2, len: 30 },
        SliceShape { outer: 2, axis: 3, inner: 9, start: 2, step: 8, len: 1 },
        SliceShape { outer: 2, axis: 3, inner: 2, start: 3, step: 1, len: 0 },
        SliceShape { outer: 0, axis: 3, inner: 2, start: 0, step: 1, len: 3 },
    ];

    fn taken<T: Real>(s: &SliceShape, x: &[T]) -> Vec<T> {
        let mut y = vec![T::ONE; s.outer * s.len * s.inner];
        slice_forward(s, x.into(), (&mut y).into()).expect("lengths agree");
        y
    }

    fn back<T: Real>(s: &SliceShape, dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
        let mut dx = start.to_vec();
        slice_backward(s, dy.into(), (&mut dx).into(), mode).expect("lengths agree");
        dx
    }

    fn same_as_naive<T: Real>(s: &SliceShape) {
        let x = values::<T>(s.outer * s.axis * s.inner, 1);
        let places = naive::slice_places(s);
        assert_eq!(bits(&taken(s, &x)), bits(&places.iter().map(|&place| x[place]).collect::<Vec<_>>()));
        let (dy, start) = (values::<T>(places.len(), 2), values::<T>(x.len(), 3));
        for mode in [Accumulate::Overwrite, Accumulate::Add] {
            let mut expected = if mode == Accumulate::Add { start.clone() } else { vec![T::ZERO; x.len()] };
            places.iter().zip(&dy).for_each(|(&place, &dy)| expected[place] += dy);
            assert_eq!(bits(&back(s, &dy, &start, mode)), bits(&expected), "{s:?} {mode:?}");
        }
    }

    #[test]
    fn equal_naive_on_any_number_of_threads() {
        for s in SHAPES {
            on_pools(|| {
                same_as_naive::<f32>(&s);
                same_as_naive::<f64>(&s);
            });
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let s = SHAPES[1];
        let (x, dy) = (values::<f64>(105, 1), values::<f64>(30, 2));
        check_gradient(&x, &back(&s, &dy, &[0.0; 105], Accumulate::Overwrite), |x| dot(&taken(&s, x), &dy));
    }

    #[test]
    fn what_is_not_on_the_axis_is_an_error() {
        let (x, mut y) = ([0.0_f32; 6], [0.0_f32; 6]);
        let good = SliceShape { outer: 2, axis: 3, inner: 1, start: 0, step: 1, len: 3 };
        let mut call = |s: SliceShape, n: usize| slice_forward(&s, View::Host(&x[..n]), (&mut y[..]).into()).map_err(|e| e.to_string());
        assert!(call(good, 6).is_ok() && call(good, 5).is_err());
        let error = call(SliceShape { start: 1, ..good }, 6).expect_err("3 is not below 3");
        assert_eq!(error, "`slice_forward`: 3 indices from 1 on by 1 must be below the size of the axis 3");
        for bad in [
            SliceShape { step: 0, ..good },
            SliceShape { step: usize::MAX, ..good },
            SliceShape { start: usize::MAX, ..good },
            SliceShape { outer: usize::MAX, ..good },
        ] {
            assert!(call(bad, 6).is_err(), "{bad:?}");
            assert!(slice_backward(&bad, View::Host(&x), (&mut [0.0; 6][..]).into(), Accumulate::Add).is_err());
        }
    }
}
