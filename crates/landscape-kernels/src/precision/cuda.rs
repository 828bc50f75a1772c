//! Rounding to bf16 on GPUs.

use crate::cuda::memory::scratch;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Memory, Real, View};
use half::bf16;

const KERNELS: Source = source!("precision/kernels");

/// A copy of `values` rounded to bf16, in their own type; for `f32`.
pub(crate) fn rounded<T: Real>(cuda: &Cuda, values: View<'_, T>) -> Result<Memory<T>> {
    let mut out = scratch::<T>(cuda, values.len())?;
    cuda.launch(&KERNELS, "round_to_bf16", T::NAME, Grid::over(values.len()), &[&values.len(), &values, &out.view_mut()])?;
    Ok(out)
}

/// A copy of `values` in bf16; for `f32`.
pub(crate) fn to_bf16<T: Real>(cuda: &Cuda, values: View<'_, T>) -> Result<Memory<bf16>> {
    let mut out = scratch::<bf16>(cuda, values.len())?;
    cuda.launch(&KERNELS, "to_bf16", T::NAME, Grid::over(values.len()), &[&values.len(), &values, &out.view_mut()])?;
    Ok(out)
}
