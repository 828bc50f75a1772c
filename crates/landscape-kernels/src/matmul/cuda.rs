//! Batched products on GPUs, one after another; lengths were checked.

use crate::cuda::Cuda;
use crate::error::Result;
use crate::gemm::cuda::product;
use crate::gemm::{Dims, Strides};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::precision::Precision;

pub(super) fn products<T: Real>(
    cuda: &Cuda,
    n: usize,
    dims: Dims,
    a: (View<'_, T>, Strides),
    b: (View<'_, T>, Strides),
    mut c: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let Dims { m, n: cols, k } = dims;
    if c.is_empty() {
        return Ok(());
    }
    for idx in 0..n {
        let part = |len: usize| idx * len..(idx + 1) * len;
        let (a, b) = ((a.0.slice(part(m * k)), a.1), (b.0.slice(part(k * cols)), b.1));
        product(cuda, Precision::F32, dims, a, b, c.reborrow().slice(part(m * cols)), mode)?;
    }
    Ok(())
}
