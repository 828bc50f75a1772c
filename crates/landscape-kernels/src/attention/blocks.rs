//! Attention on the processor: blocks of query rows by all the keys that they see, as products of matrices that stand apart in memory.

use super::{AttentionShape, Mask};
use crate::exp::{exponentials_in_place, scaled_maximum, sum_of};
use crate::gemm::{Dims, Scattered, Strides, gemm};
use crate::memory::{Accumulate, Real};
use crate::parallel::split_range;
use crate::simd::multiversion;
use rayon::prelude::*;

/// Query rows of a block.
const BLOCK: usize = 64;
/// Tasks of the forward pass at least, where there are blocks enough.
const MIN_TASKS: usize = 16;

/// Where a head's matrices begin, and how far their rows are apart.
struct Head {
    q: usize,
    k: usize,
    v: usize,
    y: usize,
    q_row: usize,
    k_row: usize,
    v_row: usize,
    y_row: usize,
}

impl Head {
    fn new(s: &AttentionShape, example: usize, head: usize) -> Self {
        let kv_head = head / (s.heads / s.kv_heads);
        let (queries, keys) = (example * s.q_len * s.heads + head, example * s.kv_len * s.kv_heads + kv_head);
        Head {
            q: queries * s.head_dim,
            k: keys * s.head_dim,
            v: keys * s.v_dim,
            y: queries * s.v_dim,
            q_row: s.heads * s.head_dim,
            k_row: s.kv_heads * s.head_dim,
            v_row: s.kv_heads * s.v_dim,
            y_row: s.heads * s.v_dim,
        }
    }
}

pub(super) fn forward<T: Real>(s: &AttentionShape, q: &[T], k: &[T], v: &[T], y: &mut [T]) {
    if y.is_empty() {
        return;
    }
    if s.kv_len == 0 {
        y.fill(T::ZERO);
        return;
    }
    let scale = T::from_f64(s.scale);
    let n_heads = s.n * s.heads;
    let n_parts = MIN_TASKS.div_ceil(n_heads).min(s.q_len.div_ceil(BLOCK));
    let y = Scattered::new(y);
    let scratch = || (vec![T::ZERO; BLOCK.min(s.q_len) * s.kv_len], [T::ZERO; BLOCK]);
    (0..n_heads * n_parts).into_par_iter().for_each_init(scratch, |(weights, sums), task| {
        let (head, part) = (task / n_parts, task % n_parts);
        let at = Head::new(s, head / s.heads, head % s.heads);
        let rows = split_range(s.q_len, n_parts, part);
        for first in rows.clone().step_by(BLOCK) {
            let m = BLOCK.min(rows.end - first);
            let n = s.n_seen(first + m - 1);
            scores(s, &at, first, [m, n], q, k, weights);
            weigh(s.mask, first, n, scale, &mut weights[..m * n], sums);
            let (v, begin) = ((&v[at.v..], Strides::row_major(at.v_row)), at.y + first * at.y_row);
            // SAFETY: these rows of this head are this task's alone.
            unsafe {
                y.gemm(Dims { m, n: s.v_dim, k: n }, (&weights[..], Strides::row_major(n)), v, (begin, at.y_row), Accumulate::Overwrite);
                for (row, &sum) in sums[..m].iter().enumerate() {
                    let scale = T::ONE / sum;
                    y.part(begin + row * at.y_row, s.v_dim).iter_mut().for_each(|y| *y *= scale);
                }
            }
        }
    });
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward<T: Real>(s: &AttentionShape, q: &[T], k: &[T], v: &[T], dy: &[T], dq: &mut [T], dk: &mut [T], dv: &mut [T]) {
    // What no query sees has no gradient.
    [&mut *dk, &mut *dv].into_iter().for_each(|d| d.fill(T::ZERO));
    if s.kv_len == 0 || dy.is_empty() {
        dq.fill(T::ZERO);
        return;
    }
    let (scale, group) = (T::from_f64(s.scale), s.heads / s.kv_heads);
    let (dq, dk, dv) = (Scattered::new(dq), Scattered::new(dk), Scattered::new(dv));
    let block = BLOCK.min(s.q_len) * s.kv_len;
    let scratch = || (vec![T::ZERO; block], vec![T::ZERO; block], [T::ZERO; BLOCK]);
    (0..s.n * s.kv_heads).into_par_iter().for_each_init(scratch, |(weights, slopes, sums), task| {
        let (example, kv_head) = (task / s.kv_heads, task % s.kv_heads);
        for head in kv_head * group..(kv_head + 1) * group {
            let at = Head::new(s, example, head);
            for first in (0..s.q_len).step_by(BLOCK) {
                let m = BLOCK.min(s.q_len - first);
                let n = s.n_seen(first + m - 1);
                scores(s, &at, first, [m, n], q, k, weights);
                weigh(s.mask, first, n, scale, &mut weights[..m * n], sums);
                let (dy, dy_strides) = (&dy[at.y + first * at.y_row..], Strides::row_major(at.y_row));
                let v = (&v[at.v..], Strides { row: 1, col: at.v_row });
                gemm(Dims { m, n, k: s.v_dim }, (dy, dy_strides), v, (&mut slopes[..], Strides::row_major(n)), Accumulate::Overwrite);
                score_gradients(n, scale, &sums[..m], &mut weights[..m * n], &mut slopes[..m * n]);
                let (q, k) = ((&q[at.q + first * at.q_row..], Strides::row_major(at.q_row)), (&k[at.k..], Strides::row_major(at.k_row)));
                let (along, across) = (Strides::row_major(n), Strides::transposed(n));
                // SAFETY: these heads of the queries, and this head of the keys and values, are this task's alone.
                unsafe {
                    let (begin, dims) = ((at.q + first * at.q_row, at.q_row), Dims { m, n: s.head_dim, k: n });
                    dq.gemm(dims, (&slopes[..], along), k, begin, Accumulate::Overwrite);
                    dk.gemm(Dims { m: n, n: s.head_dim, k: m }, (&slopes[..], across), q, (at.k, at.k_row), Accumulate::Add);
                    let dims = Dims { m: n, n: s.v_dim, k: m };
                    dv.gemm(dims, (&weights[..], across), (dy, dy_strides), (at.v, at.v_row), Accumulate::Add);
                }
            }
        }
    });
}

/// q·kᵀ of a block of rows.
fn scores<T: Real>(s: &AttentionShape, at: &Head, first: usize, [m, n]: [usize; 2], q: &[T], k: &[T], into: &mut [T]) {
    let q = (&q[at.q + first * at.q_row..], Strides::row_major(at.q_row));
    let k = (&k[at.k..], Strides { row: 1, col: at.k_row });
    gemm(Dims { m, n, k: s.head_dim }, q, k, (into, Strides::row_major(n)), Accumulate::Overwrite);
}

multiversion! {
    /// Scores of rows from `first` on become e^(scale·score − largest), zero where the mask is; their sums go beside.
    fn weigh<T>(mask: Mask, first: usize, n: usize, scale: T, scores: &mut [T], sums: &mut [T]) {
        for (idx, (row, sum)) in scores.chunks_exact_mut(n).zip(sums).enumerate() {
            let n_seen = if mask == Mask::Causal { n.min(first + idx + 1) } else { n };
            let (seen, hidden) = row.split_at_mut(n_seen);
            let top = scaled_maximum(seen, scale);
            *sum = exponentials_in_place(seen, scale, top);
            hidden.fill(T::ZERO);
        }
    }
}

multiversion! {
    /// Weights are divided by their sums, and their gradients become those of the scores before they were scaled.
    fn score_gradients<T>(n: usize, scale: T, sums: &[T], weights: &mut [T], slopes: &mut [T]) {
        for ((weights, slopes), &sum) in weights.chunks_exact_mut(n).zip(slopes.chunks_exact_mut(n)).zip(sums) {
            let one = T::ONE / sum;
            let mean: T = sum_of(weights, slopes, |w, s| w * s) * one;
            for (w, s) in weights.iter_mut().zip(slopes) {
                *w *= one;
                *s = *w * (*s - mean) * scale;
            }
        }
    }
}
