//! Launches of the kernels for GPUs of layer, RMS and group norm; lengths were checked.

use super::rows::Centre;
use crate::cuda::memory::scratch;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::group_norm::GroupNormShape;
use crate::memory::{Accumulate, Memory, Real, View, ViewMut};
use crate::reduce::cuda::RowParts;

const KERNELS: Source = source!("layer_norm/kernels");

/// The number by which the kernels know it.
fn about_mean(centre: Centre) -> u32 {
    match centre {
        Centre::Mean => 1,
        Centre::Zero => 0,
    }
}

/// A block for each group, with as many threads as it has values, at most 256.
fn grid(shape: &GroupNormShape) -> Grid {
    let len = shape.pixels * (shape.channels / shape.groups);
    Grid::blocks(shape.n * shape.groups, len.next_power_of_two().clamp(32, 256) as u32)
}

fn statistics<T: Real>(cuda: &Cuda, centre: Centre, shape: &GroupNormShape, eps: f64, x: View<'_, T>) -> Result<Memory<f64>> {
    let &GroupNormShape { n, pixels, channels, groups } = shape;
    let n_groups = n * groups;
    let mut stats = scratch::<f64>(cuda, 2 * n_groups)?;
    cuda.launch(
        &KERNELS,
        "norm_statistics",
        T::NAME,
        grid(shape),
        &[&n_groups, &pixels, &channels, &groups, &about_mean(centre), &eps, &x, &stats.view_mut()],
    )?;
    Ok(stats)
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn forward<T: Real>(
    cuda: &Cuda,
    centre: Centre,
    shape: &GroupNormShape,
    eps: f64,
    x: View<'_, T>,
    weight: Option<View<'_, T>>,
    bias: Option<View<'_, T>>,
    y: ViewMut<'_, T>,
) -> Result<()> {
    let n = y.len();
    if n == 0 {
        return Ok(());
    }
    let &GroupNormShape { pixels, channels, groups, .. } = shape;
    let stats = statistics(cuda, centre, shape, eps, x)?;
    cuda.launch(
        &KERNELS,
        "norm_normalize",
        T::NAME,
        Grid::over(n),
        &[&n, &pixels, &channels, &groups, &stats.view(), &x, &weight, &bias, &y],
    )
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn backward<T: Real>(
    cuda: &Cuda,
    centre: Centre,
    shape: &GroupNormShape,
    eps: f64,
    x: View<'_, T>,
    weight: Option<View<'_, T>>,
    dy: View<'_, T>,
    dx: Option<(ViewMut<'_, T>, Accumulate)>,
    dweight: Option<ViewMut<'_, T>>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    let &GroupNormShape { n, pixels, channels, groups } = shape;
    if dy.is_empty() {
        // Sums of nothing.
        for into in [dweight, dbias].into_iter().flatten().filter(|_| mode == Accumulate::Overwrite) {
            into.fill(T::ZERO)?;
        }
        return Ok(());
    }
    let stats = statistics(cuda, centre, shape, eps, x)?;
    if let Some((dx, dx_mode)) = dx {
        let n_groups = n * groups;
        cuda.launch(
            &KERNELS,
            "norm_gradient",
            T::NAME,
            grid(shape),
            &[&n_groups, &pixels, &channels, &groups, &about_mean(centre), &stats.view(), &x, &weight, &dy, &dx, &dx_mode],
        )?;
    }
    if dweight.is_none() && dbias.is_none() {
        return Ok(());
    }
    let n_rows = n * pixels;
    let RowParts { grid, rows_per_part, n_parts } = RowParts::for_sums(n_rows, channels);
    let mut partials = scratch::<f64>(cuda, 2 * n_parts * channels)?;
    cuda.launch(
        &KERNELS,
        "norm_parameter_sums",
        T::NAME,
        grid,
        &[&n_rows, &pixels, &channels, &groups, &rows_per_part, &stats.view(), &x, &dy, &partials.view_mut()],
    )?;
    cuda.launch(
        &KERNELS,
        "norm_finish_parameters",
        T::NAME,
        Grid::over(channels),
        &[&channels, &n_parts, &partials.view(), &dweight, &dbias, &mode],
    )
}
