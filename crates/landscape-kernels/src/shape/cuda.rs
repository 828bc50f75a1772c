//! Launches of the kernels for GPUs; lengths were checked.

use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};

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
