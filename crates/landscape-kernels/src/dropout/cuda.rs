//! The launch of the kernel for GPUs; lengths were checked.

use super::DropoutMask;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};

const KERNELS: Source = source!("dropout/kernels");

pub(super) fn apply<T: Real>(cuda: &Cuda, mask: &DropoutMask, x: View<'_, T>, y: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let n = y.len();
    let [state, first_idx, threshold] = mask.words();
    // With p = 1 nothing is kept and the scale is never used.
    let scale = 1.0 / (1.0 - mask.p);
    cuda.launch(&KERNELS, "dropout", T::NAME, Grid::over(n), &[&n, &state, &first_idx, &threshold, &scale, &x, &y, &mode])
}
