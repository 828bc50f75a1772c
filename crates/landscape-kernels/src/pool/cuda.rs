//! Launches of the kernels for GPUs; lengths were checked.

use super::{AdaptiveShape, PoolShape};
use crate::cuda::args::Plain;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};
use cudarc::driver::DeviceRepr;

const KERNELS: Source = source!("pool/kernels");

/// `PoolWindows` of the kernels.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Windows {
    n: i64,
    channels: i64,
    in_size: [i64; 2],
    out_size: [i64; 2],
    kernel_size: [i64; 2],
    /// 0 marks windows that adapt.
    stride: [i64; 2],
    padding: [i64; 2],
    /// 0 for the pixels of the window that are in the image.
    divisor: f64,
}

// SAFETY: numbers of eight bytes each in the order that the kernels declare.
unsafe impl DeviceRepr for Windows {}

impl Windows {
    /// Of windows that stride; `divisor` as in the struct.
    pub fn of(shape: &PoolShape, divisor: f64) -> Self {
        let long = |pair: [usize; 2]| pair.map(|v| v as i64);
        Windows {
            n: shape.n as i64,
            channels: shape.channels as i64,
            in_size: long(shape.in_size),
            out_size: long(shape.out_size()),
            kernel_size: long(shape.kernel_size),
            stride: long(shape.stride),
            padding: long(shape.padding),
            divisor,
        }
    }

    /// Of windows that adapt.
    pub fn adaptive(shape: &AdaptiveShape) -> Self {
        let long = |pair: [usize; 2]| pair.map(|v| v as i64);
        Windows {
            n: shape.n as i64,
            channels: shape.channels as i64,
            in_size: long(shape.in_size),
            out_size: long(shape.out_size),
            kernel_size: [0; 2],
            stride: [0; 2],
            padding: [0; 2],
            divisor: 0.0,
        }
    }
}

pub(super) fn max_forward<T: Real>(
    cuda: &Cuda,
    shape: &PoolShape,
    x: View<'_, T>,
    y: ViewMut<'_, T>,
    argmax: ViewMut<'_, u32>,
) -> Result<()> {
    let windows = Plain(Windows::of(shape, 0.0));
    cuda.launch(&KERNELS, "max_pool_forward", T::NAME, Grid::over(y.len()), &[&windows, &x, &y, &argmax])
}

/// Entries of `argmax` that are no pixel of the input go nowhere.
pub(super) fn max_backward<T: Real>(
    cuda: &Cuda,
    shape: &PoolShape,
    argmax: View<'_, u32>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let windows = Plain(Windows::of(shape, 0.0));
    cuda.launch(&KERNELS, "max_pool_backward", T::NAME, Grid::over(dx.len()), &[&windows, &argmax, &dy, &dx, &mode])
}

pub(super) fn mean_forward<T: Real>(cuda: &Cuda, windows: Windows, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    cuda.launch(&KERNELS, "mean_pool_forward", T::NAME, Grid::over(y.len()), &[&Plain(windows), &x, &y])
}

pub(super) fn mean_backward<T: Real>(cuda: &Cuda, windows: Windows, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    cuda.launch(&KERNELS, "mean_pool_backward", T::NAME, Grid::over(dx.len()), &[&Plain(windows), &dy, &dx, &mode])
}

pub(super) fn axis_mean_forward<T: Real>(cuda: &Cuda, [len, inner]: [usize; 2], x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let n = y.len();
    let grid = Grid { threads: [32, 8, 1], ..Grid::blocks(n.div_ceil(32), 256) };
    cuda.launch(&KERNELS, "axis_mean_forward", T::NAME, grid, &[&n, &len, &inner, &x, &y])
}

pub(super) fn axis_mean_backward<T: Real>(
    cuda: &Cuda,
    [len, inner]: [usize; 2],
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let n = dx.len();
    cuda.launch(&KERNELS, "axis_mean_backward", T::NAME, Grid::over(n), &[&n, &len, &inner, &dy, &dx, &mode])
}
