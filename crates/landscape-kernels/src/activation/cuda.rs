//! Launches of the kernels for GPUs; lengths were checked.

use super::Gelu;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};

const KERNELS: Source = source!("activation/kernels");

/// The number by which the kernels know it.
fn code(kind: Gelu) -> u32 {
    match kind {
        Gelu::Erf => 0,
        Gelu::Tanh => 1,
    }
}

pub(super) fn relu_forward<T: Real>(cuda: &Cuda, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let n = y.len();
    cuda.launch(&KERNELS, "relu_forward", T::NAME, Grid::over(n), &[&n, &x, &y])
}

pub(super) fn relu_backward<T: Real>(cuda: &Cuda, y: View<'_, T>, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let n = dx.len();
    cuda.launch(&KERNELS, "relu_backward", T::NAME, Grid::over(n), &[&n, &y, &dy, &dx, &mode])
}

pub(super) fn gelu_forward<T: Real>(cuda: &Cuda, kind: Gelu, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let n = y.len();
    cuda.launch(&KERNELS, "gelu_forward", T::NAME, Grid::over(n), &[&n, &code(kind), &x, &y])
}

pub(super) fn gelu_backward<T: Real>(
    cuda: &Cuda,
    kind: Gelu,
    x: View<'_, T>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let n = dx.len();
    cuda.launch(&KERNELS, "gelu_backward", T::NAME, Grid::over(n), &[&n, &code(kind), &x, &dy, &dx, &mode])
}

pub(super) fn add<T: Real>(cuda: &Cuda, a: View<'_, T>, b: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let n = y.len();
    cuda.launch(&KERNELS, "add", T::NAME, Grid::over(n), &[&n, &a, &b, &y])
}

pub(super) fn accumulate<T: Real>(cuda: &Cuda, x: View<'_, T>, into: ViewMut<'_, T>) -> Result<()> {
    let n = into.len();
    cuda.launch(&KERNELS, "add", T::NAME, Grid::over(n), &[&n, &into.view(), &x, &into])
}
