//! Reshapes and permutations one after the other, and the detour that group norm takes.

use crate::ir::{Id, Ir};
use landscape_graph::Op;

pub fn reshape(ir: &mut Ir, shape: &[usize], x: Id) -> Result<Option<Id>, String> {
    if ir.shape(x) == shape {
        return Ok(Some(x));
    }
    match ir.op(x) {
        Some(Op::Reshape { .. } | Op::Flatten) => {
            let before = ir.inputs(x)[0];
            ir.push(Op::Reshape { shape: shape.to_vec() }, &[before]).map(Some)
        }
        // Exporters normalise [groups, the rest] without factors and go back to the image.
        Some(&Op::GroupNorm { num_groups, num_channels, eps, affine: false }) if num_groups == num_channels => {
            let before = ir.inputs(x)[0];
            let Some(Op::Reshape { .. }) = ir.op(before) else { return Ok(None) };
            let image = ir.inputs(before)[0];
            if ir.shape(image) != shape || !shape[0].is_multiple_of(num_groups) || shape.len() > 3 {
                return Ok(None);
            }
            ir.push(Op::GroupNorm { num_groups, num_channels: shape[0], eps, affine: false }, &[image]).map(Some)
        }
        _ => Ok(None),
    }
}

pub fn permute(ir: &mut Ir, dims: &[usize], x: Id) -> Result<Option<Id>, String> {
    if dims.iter().copied().eq(0..dims.len()) && dims.len() == ir.shape(x).len() {
        return Ok(Some(x));
    }
    if let Some(Op::Permute { dims: before }) = ir.op(x) {
        let dims: Option<Vec<usize>> = dims.iter().map(|&dim| before.get(dim).copied()).collect();
        let x = ir.inputs(x)[0];
        return match dims {
            Some(dims) => ir.push(Op::Permute { dims }, &[x]).map(Some),
            None => Ok(None),
        };
    }
    Ok(None)
}
