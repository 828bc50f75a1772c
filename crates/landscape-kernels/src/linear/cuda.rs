//! The linear layer on GPUs; lengths were checked.

use super::LinearShape;
use crate::cuda::Cuda;
use crate::error::Result;
use crate::gemm::cuda::product;
use crate::gemm::{Dims, Strides};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::reduce::cuda::{fill_rows, store_column_sums};

pub(super) fn forward<T: Real>(
    cuda: &Cuda,
    shape: &LinearShape,
    x: View<'_, T>,
    weight: View<'_, T>,
    bias: Option<View<'_, T>>,
    mut y: ViewMut<'_, T>,
) -> Result<()> {
    let &LinearShape { n_rows, in_features, out_features, precision } = shape;
    let mut mode = Accumulate::Overwrite;
    if let Some(bias) = bias {
        fill_rows(cuda, bias, y.reborrow())?;
        mode = Accumulate::Add;
    }
    let dims = Dims { m: n_rows, n: out_features, k: in_features };
    product(cuda, precision, dims, (x, Strides::row_major(in_features)), (weight, Strides::transposed(in_features)), y, mode)
}

pub(super) fn backward_input<T: Real>(
    cuda: &Cuda,
    shape: &LinearShape,
    weight: View<'_, T>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let &LinearShape { n_rows, in_features, out_features, precision } = shape;
    let dims = Dims { m: n_rows, n: in_features, k: out_features };
    product(cuda, precision, dims, (dy, Strides::row_major(out_features)), (weight, Strides::row_major(in_features)), dx, mode)
}

pub(super) fn backward_weight<T: Real>(
    cuda: &Cuda,
    shape: &LinearShape,
    x: View<'_, T>,
    dy: View<'_, T>,
    dweight: ViewMut<'_, T>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    let &LinearShape { n_rows, in_features, out_features, precision } = shape;
    if let Some(dbias) = dbias {
        store_column_sums(cuda, out_features, dy, dbias, mode)?;
    }
    let dims = Dims { m: out_features, n: in_features, k: n_rows };
    product(cuda, precision, dims, (dy, Strides::transposed(out_features)), (x, Strides::row_major(in_features)), dweight, mode)
}
