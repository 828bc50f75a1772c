//! softmax(scale · q kᵀ + mask) v, where the mask is none or the causal one.

use super::under;
use crate::ir::{Id, Ir};
use landscape_graph::Op;

/// Smaller numbers in a mask leave nothing of a place.
const HIDDEN: f64 = -1e30;

pub fn matmul(ir: &mut Ir, weights: Id, v: Id) -> Result<Option<Id>, String> {
    let [heads, q_len, kv_len] = match ir.shape(weights).as_slice() {
        &[heads, q_len, kv_len] => [heads, q_len, kv_len],
        _ => return Ok(None),
    };
    let Some(&[scores]) = under(ir, weights, |op| *op == Op::Softmax { dim: 2 }) else { return Ok(None) };
    let (scores, causal) = match under(ir, scores, |op| *op == Op::Add) {
        Some(&[a, b]) => {
            let masked =
                [(a, b), (b, a)].into_iter().find_map(|(scores, mask)| Some((scores, mask_kind(ir, mask, [heads, q_len, kv_len])?)));
            let Some(found) = masked else { return Ok(None) };
            found
        }
        _ => (scores, false),
    };
    let (scores, outer) = scaled(ir, scores);
    let Some(&[q, k_t]) = under(ir, scores, |op| *op == Op::Matmul) else { return Ok(None) };
    let (q, of_q) = scaled(ir, q);
    let (k, of_k) = transposed(ir, k_t)?;
    let mut scale = outer * of_q * of_k;
    // A head's 1/√n, rounded to single precision twice on the way.
    let usual = 1.0 / (ir.shape(q)[2] as f64).sqrt();
    if super::near(scale, usual) {
        scale = usual;
    }
    let (k, v) = match (repeated(ir, k), repeated(ir, v)) {
        (Some(k), Some(v)) if ir.shape(k)[..2] == ir.shape(v)[..2] => (k, v),
        _ => (k, v),
    };
    ir.push_with(Op::Attention { causal, scale }, &[q, k, v], super::no_tensors()).map(Some)
}

/// Whether a mask is causal; none if it is anything else than that or nothing at all.
fn mask_kind(ir: &Ir, mask: Id, shape: [usize; 3]) -> Option<bool> {
    let mut mask = mask;
    while let Some(&[x]) = under(ir, mask, |op| matches!(op, Op::Expand { .. } | Op::Reshape { .. })) {
        // Another order of the numbers would be another mask.
        let (before, after) = (ir.shape(x), ir.shape(mask));
        let stripped = |s: &[usize]| s.iter().copied().skip_while(|&d| d == 1).collect::<Vec<_>>();
        if !stripped(after).ends_with(&stripped(before)) {
            return None;
        }
        mask = x;
    }
    let Some(Op::Constant { shape: own, values }) = ir.op(mask) else { return None };
    if values.iter().all(|&v| v == 0.0) {
        return Some(false);
    }
    let [_, q_len, kv_len] = shape;
    let is_causal = |rows: &[f64]| rows.iter().enumerate().all(|(at, &v)| if at % kv_len <= at / kv_len { v == 0.0 } else { v <= HIDDEN });
    let ends_so = own.ends_with(&[q_len, kv_len]) && q_len == kv_len;
    (ends_so && values.chunks(q_len * kv_len).all(is_causal)).then_some(true)
}

/// The node without the factor in front of it, and the factor.
fn scaled(ir: &Ir, id: Id) -> (Id, f64) {
    match ir.op(id) {
        Some(&Op::Affine { scale, shift: 0.0 }) => (ir.inputs(id)[0], scale),
        _ => (id, 1.0),
    }
}

/// The transpose of the last two axes of [heads, a, b], without the factor in front of it.
fn transposed(ir: &mut Ir, id: Id) -> Result<(Id, f64), String> {
    let (id, factor) = scaled(ir, id);
    if let Some(Op::Permute { dims }) = ir.op(id) {
        let dims = dims.clone();
        let (inner, more) = scaled(ir, ir.inputs(id)[0]);
        let permuted = ir.push(Op::Permute { dims }, &[inner])?;
        return Ok((ir.push(Op::Permute { dims: vec![0, 2, 1] }, &[permuted])?, factor * more));
    }
    Ok((ir.push(Op::Permute { dims: vec![0, 2, 1] }, &[id])?, factor))
}

/// [kv_heads, len, dim], if this is that with each head repeated for the queries that share it.
fn repeated(ir: &Ir, id: Id) -> Option<Id> {
    let &[expanded] = under(ir, id, |op| matches!(op, Op::Reshape { .. }))? else { return None };
    let &[one] = under(ir, expanded, |op| matches!(op, Op::Expand { .. }))? else { return None };
    let &[kv] = under(ir, one, |op| matches!(op, Op::Reshape { .. }))? else { return None };
    let (&[kv_heads, len, dim], &[heads, out_len, out_dim]) = (ir.shape(kv).as_slice(), ir.shape(id).as_slice()) else { return None };
    let fits = *ir.shape(one) == [kv_heads, 1, len, dim]
        && ir.shape(expanded)[..1] == [kv_heads]
        && ir.shape(expanded)[2..] == [len, dim]
        && (out_len, out_dim) == (len, dim)
        && kv_heads * ir.shape(expanded)[1] == heads;
    fits.then_some(kv)
}
