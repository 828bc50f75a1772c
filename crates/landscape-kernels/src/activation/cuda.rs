//! Launches of the kernels for GPUs; lengths were checked.

use super::{Gelu, Pointwise};
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

/// The number by which the kernels know it, and its attributes.
fn parts(kind: Pointwise) -> (u32, f64, f64) {
    match kind {
        Pointwise::Silu => (0, 0.0, 0.0),
        Pointwise::Sigmoid => (1, 0.0, 0.0),
        Pointwise::HardSwish => (2, 0.0, 0.0),
        Pointwise::HardSigmoid => (3, 0.0, 0.0),
        Pointwise::Tanh => (4, 0.0, 0.0),
        Pointwise::LeakyRelu { negative_slope } => (5, negative_slope, 0.0),
        Pointwise::HardTanh { min_val, max_val } => (6, min_val, max_val),
        Pointwise::Elu { alpha } => (7, alpha, 0.0),
        Pointwise::Softplus => (8, 0.0, 0.0),
        Pointwise::Exp => (9, 0.0, 0.0),
        Pointwise::Affine { scale, shift } => (10, scale, shift),
        Pointwise::Power { exponent } => (11, exponent, 0.0),
    }
}

pub(super) fn pointwise_forward<T: Real>(cuda: &Cuda, kind: Pointwise, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let (n, (code, p, q)) = (y.len(), parts(kind));
    cuda.launch(&KERNELS, "pointwise_forward", T::NAME, Grid::over(n), &[&n, &code, &p, &q, &x, &y])
}

pub(super) fn pointwise_backward<T: Real>(
    cuda: &Cuda,
    kind: Pointwise,
    x: View<'_, T>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let (n, (code, p, q)) = (dx.len(), parts(kind));
    cuda.launch(&KERNELS, "pointwise_backward", T::NAME, Grid::over(n), &[&n, &code, &p, &q, &x, &dy, &dx, &mode])
}

pub(super) fn add<T: Real>(cuda: &Cuda, a: View<'_, T>, b: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let n = y.len();
    cuda.launch(&KERNELS, "add", T::NAME, Grid::over(n), &[&n, &a, &b, &y])
}

pub(super) fn accumulate<T: Real>(cuda: &Cuda, x: View<'_, T>, into: ViewMut<'_, T>) -> Result<()> {
    let n = into.len();
    cuda.launch(&KERNELS, "add", T::NAME, Grid::over(n), &[&n, &into.view(), &x, &into])
}
