//! Launches of the kernels for GPUs; lengths were checked, and there are rows where statistics are taken.

use super::{BatchNormShape, Share, Through};
use crate::cuda::memory::scratch;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Memory, Real, View, ViewMut};
use crate::reduce::cuda::RowParts;

const KERNELS: Source = source!("batch_norm/kernels");

pub(super) fn statistics<T: Real>(
    cuda: &Cuda,
    shape: &BatchNormShape,
    x: View<'_, T>,
    mean: ViewMut<'_, T>,
    var: ViewMut<'_, T>,
) -> Result<()> {
    let &BatchNormShape { n_rows, channels } = shape;
    let RowParts { grid, rows_per_part, n_parts } = RowParts::for_sums(n_rows, channels);
    let mut partials = scratch::<f64>(cuda, 2 * n_parts * channels)?;
    cuda.launch(&KERNELS, "batch_norm_moments", T::NAME, grid, &[&n_rows, &channels, &rows_per_part, &x, &partials.view_mut()])?;
    cuda.launch(
        &KERNELS,
        "batch_norm_finish_statistics",
        T::NAME,
        Grid::over(channels),
        &[&n_rows, &channels, &n_parts, &x, &partials.view(), &mean, &var],
    )
}

#[allow(clippy::too_many_arguments)]
pub(super) fn normalize<T: Real>(
    cuda: &Cuda,
    shape: &BatchNormShape,
    x: View<'_, T>,
    mean: View<'_, T>,
    var: View<'_, T>,
    eps: f64,
    weight: Option<View<'_, T>>,
    bias: Option<View<'_, T>>,
    y: ViewMut<'_, T>,
) -> Result<()> {
    let &BatchNormShape { n_rows, channels } = shape;
    if n_rows == 0 {
        return Ok(());
    }
    let RowParts { grid, rows_per_part, .. } = RowParts::for_pass(n_rows, channels);
    cuda.launch(
        &KERNELS,
        "batch_norm_normalize",
        T::NAME,
        grid,
        &[&n_rows, &channels, &rows_per_part, &eps, &x, &mean, &var, &weight, &bias, &y],
    )
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward<T: Real>(
    cuda: &Cuda,
    shape: &BatchNormShape,
    through: Through,
    x: View<'_, T>,
    mean: View<'_, T>,
    var: View<'_, T>,
    eps: f64,
    weight: Option<View<'_, T>>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    dx_mode: Accumulate,
    dweight: Option<ViewMut<'_, T>>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    let &BatchNormShape { n_rows, channels } = shape;
    let mut coefficients = match through {
        Through::Batch => Some(scratch::<T>(cuda, 3 * channels)?),
        Through::Stored => None,
    };
    if coefficients.is_some() || dweight.is_some() || dbias.is_some() {
        let RowParts { grid, rows_per_part, n_parts } = RowParts::for_sums(n_rows, channels);
        let mut partials = scratch::<f64>(cuda, 2 * n_parts * channels)?;
        cuda.launch(
            &KERNELS,
            "batch_norm_gradient_moments",
            T::NAME,
            grid,
            &[&n_rows, &channels, &rows_per_part, &x, &mean, &dy, &partials.view_mut()],
        )?;
        let into = coefficients.as_mut().map(Memory::view_mut);
        cuda.launch(
            &KERNELS,
            "batch_norm_finish_gradient",
            T::NAME,
            Grid::over(channels),
            &[&n_rows, &channels, &n_parts, &eps, &partials.view(), &var, &weight, &dweight, &dbias, &mode, &into],
        )?;
    }
    let RowParts { grid, rows_per_part, .. } = RowParts::for_pass(n_rows, channels);
    match coefficients {
        Some(coefficients) => cuda.launch(
            &KERNELS,
            "batch_norm_batch_gradient",
            T::NAME,
            grid,
            &[&n_rows, &channels, &rows_per_part, &x, &mean, &dy, &coefficients.view(), &dx, &dx_mode],
        ),
        None => cuda.launch(
            &KERNELS,
            "batch_norm_stored_gradient",
            T::NAME,
            grid,
            &[&n_rows, &channels, &rows_per_part, &eps, &var, &weight, &dy, &dx, &dx_mode],
        ),
    }
}

pub(super) fn update_running<T: Real>(
    cuda: &Cuda,
    momentum: f64,
    factor: f64,
    batch: View<'_, T>,
    running: ViewMut<'_, f64>,
) -> Result<()> {
    let n = batch.len();
    cuda.launch(&KERNELS, "batch_norm_update_running", T::NAME, Grid::over(n), &[&n, &momentum, &factor, &batch, &running])
}

pub(super) fn merge_moments<T: Real>(
    cuda: &Cuda,
    Share { share, factor, between }: Share,
    batch_mean: View<'_, T>,
    batch_var: View<'_, T>,
    mean: ViewMut<'_, f64>,
    var: ViewMut<'_, f64>,
) -> Result<()> {
    let n = batch_mean.len();
    cuda.launch(
        &KERNELS,
        "batch_norm_merge_moments",
        T::NAME,
        Grid::over(n),
        &[&n, &share, &factor, &between, &batch_mean, &batch_var, &mean, &var],
    )
}
