//! Launches of the kernels for GPUs; lengths were checked.

use super::EmbeddingShape;
use crate::cuda::memory::scratch;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};

const KERNELS: Source = source!("embedding/kernels");

pub(super) fn forward<T: Real>(
    cuda: &Cuda,
    shape: &EmbeddingShape,
    tokens: View<'_, T>,
    weight: View<'_, T>,
    y: ViewMut<'_, T>,
) -> Result<()> {
    let (n, EmbeddingShape { num_embeddings, embedding_dim, .. }) = (y.len(), *shape);
    cuda.launch(&KERNELS, "embedding_forward", T::NAME, Grid::over(n), &[&n, &num_embeddings, &embedding_dim, &tokens, &weight, &y])
}

pub(super) fn backward_weight<T: Real>(
    cuda: &Cuda,
    shape: &EmbeddingShape,
    tokens: View<'_, T>,
    dy: View<'_, T>,
    mut dweight: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let EmbeddingShape { n_tokens, num_embeddings, embedding_dim } = *shape;
    if mode == Accumulate::Overwrite {
        dweight.reborrow().fill(T::ZERO)?;
    }
    if dy.is_empty() {
        return Ok(());
    }
    let (mut next, mut first) = (scratch::<u32>(cuda, n_tokens)?, scratch::<u32>(cuda, n_tokens)?);
    cuda.launch(
        &KERNELS,
        "embedding_chains",
        T::NAME,
        Grid::over(n_tokens),
        &[&n_tokens, &num_embeddings, &tokens, &next.view_mut(), &first.view_mut()],
    )?;
    cuda.launch(
        &KERNELS,
        "embedding_backward",
        T::NAME,
        Grid::over(dy.len()),
        &[&n_tokens, &embedding_dim, &tokens, &next.view(), &first.view(), &dy, &dweight],
    )
}
