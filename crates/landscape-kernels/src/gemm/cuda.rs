//! Matrix products on GPUs: by cuBLAS where it is there, else by own kernels.

use super::{Dims, Strides};
use crate::cuda::args::Plain;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::precision::Precision;
use crate::precision::cuda::rounded;
use cudarc::driver::DeviceRepr;

const KERNELS: Source = source!("gemm/kernels");

/// `Strides` of the kernels.
#[derive(Clone, Copy)]
#[repr(C)]
struct Pair {
    row: i64,
    col: i64,
}

// SAFETY: two numbers of eight bytes in the order that the kernels declare.
unsafe impl DeviceRepr for Pair {}

impl From<Strides> for Plain<Pair> {
    fn from(strides: Strides) -> Self {
        Plain(Pair { row: strides.row as i64, col: strides.col as i64 })
    }
}

/// Tiles of 64 x 64 that keep a device busy; below, smaller ones do better.
const MIN_TILES: usize = 64;

/// c = a·b, or c += a·b; `c` is row-major, all lengths were checked.
pub(crate) fn product<T: Real>(
    cuda: &Cuda,
    precision: Precision,
    dims: Dims,
    a: (View<'_, T>, Strides),
    b: (View<'_, T>, Strides),
    c: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    if cuda.blas_product(precision, dims, a, b, &c, mode)? {
        return Ok(());
    }
    if precision == Precision::Bf16 {
        let (left, right) = (rounded(cuda, a.0)?, rounded(cuda, b.0)?);
        return product(cuda, Precision::F32, dims, (left.view(), a.1), (right.view(), b.1), c, mode);
    }
    let Dims { m, n, k } = dims;
    let tiles = |rows: usize, columns: usize| [m.div_ceil(rows), n.div_ceil(columns)];
    let ([x, y], kernel) = match tiles(64, 64) {
        large if large[0] * large[1] >= MIN_TILES => (large, "product"),
        _ => (tiles(32, 16), "product_small"),
    };
    let grid = Grid { blocks: [x as u32, y as u32, 1], threads: [256, 1, 1], shared_bytes: 0 };
    let (a_strides, b_strides) = (Plain::<Pair>::from(a.1), Plain::<Pair>::from(b.1));
    cuda.launch(&KERNELS, kernel, T::NAME, grid, &[&m, &n, &k, &a.0, &a_strides, &b.0, &b_strides, &c, &mode])
}
