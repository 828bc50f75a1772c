//! Launches of the kernels for GPUs; lengths were checked.

use crate::cuda::memory::scratch;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Memory, Real, View, ViewMut};

const KERNELS: Source = source!("loss/kernels");

/// A warp for each row, eight warps to a block.
fn grid(n_rows: usize) -> Grid {
    Grid { threads: [32, 8, 1], ..Grid::blocks(n_rows.div_ceil(8), 256) }
}

/// The losses of the rows and their flags, before they are added up.
fn rows(cuda: &Cuda, n_rows: usize) -> Result<(Memory<f64>, Memory<u32>)> {
    Ok((scratch(cuda, n_rows)?, scratch(cuda, n_rows)?))
}

fn add_rows(
    cuda: &Cuda,
    n_rows: usize,
    losses: &Memory<f64>,
    flags: &Memory<u32>,
    labels: Option<View<'_, u32>>,
    sums: ViewMut<'_, f64>,
) -> Result<()> {
    cuda.launch(&KERNELS, "loss_sums", "", Grid::blocks(1, 256), &[&n_rows, &losses.view(), &flags.view(), &labels, &sums])
}

pub(super) fn cross_entropy<T: Real>(
    cuda: &Cuda,
    [n_rows, n_classes]: [usize; 2],
    logits: View<'_, T>,
    labels: View<'_, u32>,
    gradient: Option<(ViewMut<'_, T>, f64)>,
    sums: ViewMut<'_, f64>,
) -> Result<()> {
    if n_rows == 0 {
        return Ok(());
    }
    let (mut losses, mut flags) = rows(cuda, n_rows)?;
    let (gradient, scale) = gradient.map_or((None, 0.0), |(gradient, scale)| (Some(gradient), scale));
    cuda.launch(
        &KERNELS,
        "cross_entropy",
        T::NAME,
        grid(n_rows),
        &[&n_rows, &n_classes, &logits, &labels, &gradient, &scale, &losses.view_mut(), &flags.view_mut()],
    )?;
    add_rows(cuda, n_rows, &losses, &flags, Some(labels), sums)
}

/// A loss between outputs and targets of the same shape.
fn pairs<T: Real>(
    cuda: &Cuda,
    kernel: &'static str,
    [n_rows, n_outputs]: [usize; 2],
    outputs: View<'_, T>,
    targets: View<'_, T>,
    gradient: Option<(ViewMut<'_, T>, f64)>,
    sums: ViewMut<'_, f64>,
) -> Result<()> {
    if n_rows == 0 {
        return Ok(());
    }
    let (mut losses, mut flags) = rows(cuda, n_rows)?;
    let (gradient, scale) = gradient.map_or((None, 0.0), |(gradient, scale)| (Some(gradient), scale));
    cuda.launch(
        &KERNELS,
        kernel,
        T::NAME,
        grid(n_rows),
        &[&n_rows, &n_outputs, &outputs, &targets, &gradient, &scale, &losses.view_mut(), &flags.view_mut()],
    )?;
    add_rows(cuda, n_rows, &losses, &flags, None, sums)
}

pub(super) fn squared_error<T: Real>(
    cuda: &Cuda,
    sizes: [usize; 2],
    outputs: View<'_, T>,
    targets: View<'_, T>,
    gradient: Option<(ViewMut<'_, T>, f64)>,
    sums: ViewMut<'_, f64>,
) -> Result<()> {
    pairs(cuda, "squared_error", sizes, outputs, targets, gradient, sums)
}

pub(super) fn binary_cross_entropy<T: Real>(
    cuda: &Cuda,
    sizes: [usize; 2],
    logits: View<'_, T>,
    targets: View<'_, T>,
    gradient: Option<(ViewMut<'_, T>, f64)>,
    sums: ViewMut<'_, f64>,
) -> Result<()> {
    pairs(cuda, "binary_cross_entropy", sizes, logits, targets, gradient, sums)
}
