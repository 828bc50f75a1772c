//! Launches of the kernels for GPUs; lengths were checked.

use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};

const KERNELS: Source = source!("softmax/kernels");

/// A warp for each row, eight warps to a block.
fn grid(n_rows: usize) -> Grid {
    Grid { threads: [32, 8, 1], ..Grid::blocks(n_rows.div_ceil(8), 256) }
}

pub(super) fn forward<T: Real>(cuda: &Cuda, n_rows: usize, len: usize, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    cuda.launch(&KERNELS, "softmax_forward", T::NAME, grid(n_rows), &[&n_rows, &len, &x, &y])
}

pub(super) fn backward<T: Real>(
    cuda: &Cuda,
    n_rows: usize,
    len: usize,
    y: View<'_, T>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    cuda.launch(&KERNELS, "softmax_backward", T::NAME, grid(n_rows), &[&n_rows, &len, &y, &dy, &dx, &mode])
}
