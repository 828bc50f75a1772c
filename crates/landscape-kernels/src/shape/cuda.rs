//! Launches of the kernels for GPUs; lengths were checked.

use super::SliceShape;
use crate::axes::{Axis, MAX_AXES};
use crate::cuda::args::Plain;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};
use cudarc::driver::DeviceRepr;

const KERNELS: Source = source!("shape/kernels");

/// Side of the square that a block moves.
const SIDE: usize = 32;

/// The transposes of matrices `[n_rows, n_columns]`.
pub(super) fn transpose<T: Real>(
    cuda: &Cuda,
    [n_matrices, n_rows, n_columns]: [usize; 3],
    x: View<'_, T>,
    y: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let n_tiles = n_matrices * n_rows.div_ceil(SIDE) * n_columns.div_ceil(SIDE);
    let grid = Grid { threads: [SIDE as u32, 8, 1], ..Grid::blocks(n_tiles, 1) };
    cuda.launch(&KERNELS, "transpose", T::NAME, grid, &[&n_matrices, &n_rows, &n_columns, &x, &y, &mode])
}

/// The first `width` columns of rows of `from_width`, to the first of rows of `into_width`.
pub(super) fn copy_columns<T: Real>(
    cuda: &Cuda,
    [n_rows, width]: [usize; 2],
    (from, from_width): (View<'_, T>, usize),
    (into, into_width): (ViewMut<'_, T>, usize),
    mode: Accumulate,
) -> Result<()> {
    let grid = Grid::over(n_rows * width);
    cuda.launch(&KERNELS, "copy_columns", T::NAME, grid, &[&n_rows, &width, &from, &from_width, &into, &into_width, &mode])
}

/// `PermuteAxes` of the kernels.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct PermuteAxes {
    n_axes: i64,
    sizes: [i64; MAX_AXES],
    strides: [i64; MAX_AXES],
}

// SAFETY: numbers of eight bytes each in the order that the kernels declare.
unsafe impl DeviceRepr for PermuteAxes {}

/// A walk over `y` with the positions of `x`; at most [`MAX_AXES`].
pub(super) fn permute<T: Real>(cuda: &Cuda, axes: &[Axis<1>], x: View<'_, T>, y: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let mut table = PermuteAxes { n_axes: axes.len() as i64, sizes: [1; MAX_AXES], strides: [0; MAX_AXES] };
    for (i, axis) in axes.iter().enumerate() {
        (table.sizes[i], table.strides[i]) = (axis.size as i64, axis.strides[0] as i64);
    }
    let n = y.len();
    cuda.launch(&KERNELS, "permute", T::NAME, Grid::over(n), &[&n, &Plain(table), &x, &y, &mode])
}

/// `SliceSizes` of the kernels.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct SliceSizes {
    axis: i64,
    inner: i64,
    start: i64,
    step: i64,
    len: i64,
}

// SAFETY: as above.
unsafe impl DeviceRepr for SliceSizes {}

impl SliceSizes {
    fn of(shape: &SliceShape) -> Self {
        let SliceShape { axis, inner, start, step, len, .. } = *shape;
        let long = |v: usize| i64::try_from(v).unwrap_or(i64::MAX);
        SliceSizes { axis: long(axis), inner: long(inner), start: long(start), step: long(step), len: long(len) }
    }
}

pub(super) fn slice_forward<T: Real>(cuda: &Cuda, shape: &SliceShape, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let n = y.len();
    cuda.launch(&KERNELS, "slice_forward", T::NAME, Grid::over(n), &[&n, &Plain(SliceSizes::of(shape)), &x, &y])
}

pub(super) fn slice_backward<T: Real>(
    cuda: &Cuda,
    shape: &SliceShape,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let n = dx.len();
    cuda.launch(&KERNELS, "slice_backward", T::NAME, Grid::over(n), &[&n, &Plain(SliceSizes::of(shape)), &dy, &dx, &mode])
}
