//! Launches of the kernels for GPUs; lengths were checked. The weights of as many examples as fit into a bound are in memory at once.

use super::{AttentionShape, Mask};
use crate::cuda::args::Plain;
use crate::cuda::memory::scratch;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Memory, Real, View, ViewMut};
use cudarc::driver::DeviceRepr;
use std::ops::Range;

const KERNELS: Source = source!("attention/kernels");

/// Weights in memory at once, where an example has not more.
const MAX_WEIGHTS: usize = 1 << 26;

/// `Shape` of the kernels.
#[derive(Clone, Copy)]
#[repr(C)]
struct Sizes {
    n: i64,
    q_len: i64,
    kv_len: i64,
    heads: i64,
    kv_heads: i64,
}

// SAFETY: five numbers of eight bytes in the order that the kernels declare.
unsafe impl DeviceRepr for Sizes {}

/// Some of the examples: their number, and where their part of an operand with so many numbers per example is.
struct Part {
    sizes: Plain<Sizes>,
    examples: Range<usize>,
    n_weights: usize,
    n_rows: usize,
}

impl Part {
    fn of(&self, per_example: usize) -> Range<usize> {
        self.examples.start * per_example..self.examples.end * per_example
    }
}

/// The examples in parts whose weights are in memory at once.
fn parts(s: &AttentionShape) -> impl Iterator<Item = Part> {
    let &AttentionShape { n, q_len, kv_len, heads, kv_heads, .. } = s;
    let at_once = (MAX_WEIGHTS / (heads * q_len * kv_len).max(1)).max(1);
    (0..n).step_by(at_once).map(move |first| {
        let n = at_once.min(n - first);
        let [q_len, kv_len, heads, kv_heads] = [q_len, kv_len, heads, kv_heads].map(|size| size as i64);
        let sizes = Plain(Sizes { n: n as i64, q_len, kv_len, heads, kv_heads });
        let n_rows = n * (heads * q_len) as usize;
        Part { sizes, examples: first..first + n, n_weights: n_rows * kv_len as usize, n_rows }
    })
}

/// A warp for each row, eight warps to a block.
fn rows(n_rows: usize) -> Grid {
    Grid { threads: [32, 8, 1], ..Grid::blocks(n_rows.div_ceil(8), 256) }
}

/// The weights of a part.
fn weights<T: Real>(cuda: &Cuda, s: &AttentionShape, part: &Part, q: View<'_, T>, k: View<'_, T>) -> Result<Memory<T>> {
    let mut weights = scratch::<T>(cuda, part.n_weights)?;
    products(cuda, "attention_scores", part, s.head_dim, q, k, weights.view_mut())?;
    let causal: u32 = match s.mask {
        Mask::None => 0,
        Mask::Causal => 1,
    };
    cuda.launch(&KERNELS, "attention_weigh", T::NAME, rows(part.n_rows), &[&part.sizes, &causal, &s.scale, &weights.view_mut()])?;
    Ok(weights)
}

fn products<T: Real>(
    cuda: &Cuda,
    kernel: &'static str,
    part: &Part,
    dim: usize,
    a: View<'_, T>,
    b: View<'_, T>,
    into: ViewMut<'_, T>,
) -> Result<()> {
    cuda.launch(&KERNELS, kernel, T::NAME, Grid::over(into.len()), &[&part.sizes, &dim, &a, &b, &into])
}

pub(super) fn forward<T: Real>(
    cuda: &Cuda,
    s: &AttentionShape,
    q: View<'_, T>,
    k: View<'_, T>,
    v: View<'_, T>,
    mut y: ViewMut<'_, T>,
) -> Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    if s.kv_len == 0 {
        return y.fill(T::ZERO);
    }
    let [q_per, k_per, v_per, y_per] = [q.len(), k.len(), v.len(), y.len()].map(|len| len / s.n);
    for part in parts(s) {
        let weights = weights(cuda, s, &part, q.slice(part.of(q_per)), k.slice(part.of(k_per)))?;
        let y = y.reborrow().slice(part.of(y_per));
        products(cuda, "attention_over_keys", &part, s.v_dim, weights.view(), v.slice(part.of(v_per)), y)?;
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward<T: Real>(
    cuda: &Cuda,
    s: &AttentionShape,
    q: View<'_, T>,
    k: View<'_, T>,
    v: View<'_, T>,
    dy: View<'_, T>,
    mut dq: ViewMut<'_, T>,
    mut dk: ViewMut<'_, T>,
    mut dv: ViewMut<'_, T>,
) -> Result<()> {
    if s.kv_len == 0 || dy.is_empty() {
        dq.fill(T::ZERO)?;
        dk.fill(T::ZERO)?;
        return dv.fill(T::ZERO);
    }
    let [q_per, k_per, v_per, y_per] = [q.len(), k.len(), v.len(), dy.len()].map(|len| len / s.n);
    for part in parts(s) {
        let (q, k, v) = (q.slice(part.of(q_per)), k.slice(part.of(k_per)), v.slice(part.of(v_per)));
        let dy = dy.slice(part.of(y_per));
        let weights = weights(cuda, s, &part, q, k)?;
        let mut slopes = scratch::<T>(cuda, part.n_weights)?;
        products(cuda, "attention_scores", &part, s.v_dim, dy, v, slopes.view_mut())?;
        let arguments = (weights.view(), slopes.view_mut());
        cuda.launch(
            &KERNELS,
            "attention_score_gradients",
            T::NAME,
            rows(part.n_rows),
            &[&part.sizes, &s.scale, &arguments.0, &arguments.1],
        )?;
        let slopes = slopes.view();
        products(cuda, "attention_over_keys", &part, s.head_dim, slopes, k, dq.reborrow().slice(part.of(q_per)))?;
        products(cuda, "attention_over_queries", &part, s.head_dim, slopes, q, dk.reborrow().slice(part.of(k_per)))?;
        products(cuda, "attention_over_queries", &part, s.v_dim, weights.view(), dy, dv.reborrow().slice(part.of(v_per)))?;
    }
    Ok(())
}
