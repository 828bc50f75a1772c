//! Attention query by query and key by key, in double precision.

use crate::attention::{AttentionShape, Mask};

/// For each example, head and query: where its query and output begin, and of each key that it sees the weight and where the key and the
/// value begin.
fn each(s: &AttentionShape, q: &[f64], k: &[f64], mut f: impl FnMut(usize, usize, &[(f64, usize, usize)])) {
    for (b, h, i) in (0..s.n).flat_map(|b| (0..s.heads).flat_map(move |h| (0..s.q_len).map(move |i| (b, h, i)))) {
        let (query, kv_head) = ((b * s.q_len + i) * s.heads + h, h / (s.heads / s.kv_heads));
        let keys = (0..s.kv_len).filter(|&j| s.mask == Mask::None || j <= i).map(|j| (b * s.kv_len + j) * s.kv_heads + kv_head);
        let score = |key: usize| s.scale * (0..s.head_dim).map(|d| q[query * s.head_dim + d] * k[key * s.head_dim + d]).sum::<f64>();
        let scores: Vec<(f64, usize)> = keys.map(|key| (score(key), key)).collect();
        let top = scores.iter().map(|(score, _)| *score).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|(score, _)| (score - top).exp()).sum();
        let seen: Vec<_> = scores.iter().map(|&(score, key)| ((score - top).exp() / sum, key * s.head_dim, key * s.v_dim)).collect();
        f(query * s.head_dim, query * s.v_dim, &seen);
    }
}

pub(crate) fn forward(s: &AttentionShape, q: &[f64], k: &[f64], v: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; s.n * s.q_len * s.heads * s.v_dim];
    each(s, q, k, |_, out, seen| {
        for &(weight, _, value) in seen {
            (0..s.v_dim).for_each(|d| y[out + d] += weight * v[value + d]);
        }
    });
    y
}

/// dq, dk and dv.
pub(crate) fn backward(s: &AttentionShape, q: &[f64], k: &[f64], v: &[f64], dy: &[f64]) -> [Vec<f64>; 3] {
    let [mut dq, mut dk, mut dv] = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
    each(s, q, k, |query, out, seen| {
        let slope = |value: usize| (0..s.v_dim).map(|d| dy[out + d] * v[value + d]).sum::<f64>();
        let mean: f64 = seen.iter().map(|&(weight, _, value)| weight * slope(value)).sum();
        for &(weight, key, value) in seen {
            let dscore = s.scale * weight * (slope(value) - mean);
            (0..s.v_dim).for_each(|d| dv[value + d] += weight * dy[out + d]);
            for d in 0..s.head_dim {
                dq[query + d] += dscore * k[key + d];
                dk[key + d] += dscore * q[query + d];
            }
        }
    });
    [dq, dk, dv]
}
