//! Launches of the kernels for GPUs; lengths were checked.

use super::Op;
use crate::axes::{Axis, MAX_AXES};
use crate::cuda::args::Plain;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};
use cudarc::driver::DeviceRepr;

const KERNELS: Source = source!("broadcast/kernels");

/// `BroadcastAxes` of the kernels.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct BroadcastAxes {
    n_axes: i64,
    sizes: [i64; MAX_AXES],
    first: [i64; MAX_AXES],
    second: [i64; MAX_AXES],
}

// SAFETY: numbers of eight bytes each in the order that the kernels declare.
unsafe impl DeviceRepr for BroadcastAxes {}

impl BroadcastAxes {
    fn of(axes: &[Axis<2>]) -> Plain<Self> {
        let mut table = BroadcastAxes { n_axes: axes.len() as i64, sizes: [1; MAX_AXES], first: [0; MAX_AXES], second: [0; MAX_AXES] };
        for (i, axis) in axes.iter().enumerate() {
            let [first, second] = axis.strides.map(|stride| stride as i64);
            (table.sizes[i], table.first[i], table.second[i]) = (axis.size as i64, first, second);
        }
        Plain(table)
    }
}

pub(super) fn forward<T: Real>(cuda: &Cuda, op: Op, axes: &[Axis<2>], a: View<'_, T>, b: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let (n, code) = (y.len(), u32::from(op == Op::Multiply));
    cuda.launch(&KERNELS, "broadcast_forward", T::NAME, Grid::over(n), &[&n, &code, &BroadcastAxes::of(axes), &a, &b, &y])
}

/// `axes` walk over `dy` with the positions of `dx` and of `other`.
pub(super) fn backward<T: Real>(
    cuda: &Cuda,
    axes: &[Axis<2>],
    dy: View<'_, T>,
    other: Option<View<'_, T>>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let n = dx.len();
    if axes.iter().all(|axis| axis.strides[0] != 0) {
        let table = BroadcastAxes::of(axes);
        return cuda.launch(&KERNELS, "broadcast_products", T::NAME, Grid::over(n), &[&n, &table, &dy, &other, &dx, &mode]);
    }
    // The same axes with the positions of dy and of `other`, kept and repeated apart.
    let (mut kept, mut repeated, mut stride) = (Vec::new(), Vec::new(), 1_usize);
    for axis in axes.iter().rev() {
        let into = if axis.strides[0] == 0 { &mut repeated } else { &mut kept };
        into.insert(0, Axis { size: axis.size, strides: [stride, axis.strides[1]] });
        stride = stride.wrapping_mul(axis.size);
    }
    let n_repeated = dy.len().checked_div(n).unwrap_or(0);
    let (kept, repeated) = (BroadcastAxes::of(&kept), BroadcastAxes::of(&repeated));
    let grid = Grid { threads: [32, 8, 1], ..Grid::blocks(n.div_ceil(32), 256) };
    cuda.launch(&KERNELS, "broadcast_sums", T::NAME, grid, &[&n, &n_repeated, &kept, &repeated, &dy, &other, &dx, &mode])
}
