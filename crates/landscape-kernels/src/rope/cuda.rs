//! Launches of the kernels for GPUs; lengths were checked.

use super::{RopeShape, RopeStyle};
use crate::cuda::memory::scratch;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};

const KERNELS: Source = source!("rope/kernels");

pub(super) fn turn<T: Real>(
    cuda: &Cuda,
    shape: &RopeShape,
    direction: f64,
    x: View<'_, T>,
    y: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let &RopeShape { len, heads, head_dim, rotary_dim, base, style, .. } = shape;
    let (n, half) = (y.len(), rotary_dim / 2);
    if n == 0 {
        return Ok(());
    }
    let interleaved: u32 = match style {
        RopeStyle::Half => 0,
        RopeStyle::Interleaved => 1,
    };
    let mut table = scratch::<T>(cuda, (2 * len * half).max(1))?;
    cuda.launch(&KERNELS, "rope_angles", T::NAME, Grid::over(len * half), &[&len, &half, &base, &direction, &table.view_mut()])?;
    let sizes = [n, len, heads, head_dim, half];
    let [n, len, heads, head_dim, half] = &sizes;
    cuda.launch(
        &KERNELS,
        "rope_turn",
        T::NAME,
        Grid::over(*n),
        &[n, len, heads, head_dim, half, &interleaved, &table.view(), &x, &y, &mode],
    )
}
