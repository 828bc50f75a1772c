//! Layer norm and RMS norm, written out, and the factors and constants behind them and group norm.

use super::{near, no_tensors, parameter, under};
use crate::ir::{Id, Ir};
use landscape_graph::{Op, Role};
use std::collections::BTreeMap;

/// d · (mean(d²) + eps)^−½ along the last axes, with d the difference from the mean or the number itself; and learned factors.
pub fn product(ir: &mut Ir, a: Id, b: Id) -> Result<Option<Id>, String> {
    for (x, by) in [(a, b), (b, a)] {
        if let Some(id) = normalised(ir, x, by)? {
            return Ok(Some(id));
        }
        if let Some(id) = factor(ir, x, by)? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn normalised(ir: &mut Ir, d: Id, by: Id) -> Result<Option<Id>, String> {
    let Some(&[variance]) = under(ir, by, |op| *op == Op::Power { exponent: -0.5 }) else { return Ok(None) };
    let Some(&Op::Affine { scale, shift: eps }) = ir.op(variance) else { return Ok(None) };
    let Some((squares, n_axes)) = mean_of_last(ir, ir.inputs(variance)[0]) else { return Ok(None) };
    let is_square = match ir.op(squares) {
        Some(Op::Power { exponent: 2.0 }) => ir.inputs(squares) == [d],
        Some(Op::Multiply) => ir.inputs(squares) == [d, d],
        _ => false,
    };
    if !is_square || !near(scale, 1.0) || eps <= 0.0 {
        return Ok(None);
    }
    let shape = ir.shape(d);
    let normalized_shape = shape[shape.len() - n_axes..].to_vec();
    if let Some(x) = centred(ir, d, n_axes) {
        let op = Op::LayerNorm { normalized_shape, eps, elementwise_affine: false, bias: false };
        return ir.push_with(op, &[x], no_tensors()).map(Some);
    }
    ir.push_with(Op::RmsNorm { normalized_shape, eps, elementwise_affine: false }, &[d], no_tensors()).map(Some)
}

/// What is averaged, and over how many of the last axes.
fn mean_of_last(ir: &Ir, id: Id) -> Option<(Id, usize)> {
    let Some(&Op::Mean { start_dim, end_dim, keepdim: true }) = ir.op(id) else { return None };
    let x = ir.inputs(id)[0];
    (end_dim + 1 == ir.shape(x).len()).then_some((x, end_dim + 1 - start_dim))
}

/// x, if d is x − mean(x).
fn centred(ir: &Ir, d: Id, n_axes: usize) -> Option<Id> {
    let &[p, q] = under(ir, d, |op| *op == Op::Add)? else { return None };
    [(p, q), (q, p)].into_iter().find_map(|(x, minus)| {
        let &[mean] = under(ir, minus, |op| *op == Op::Affine { scale: -1.0, shift: 0.0 })? else { return None };
        (mean_of_last(ir, mean) == Some((x, n_axes))).then_some(x)
    })
}

/// The learned factor of a norm that has none yet.
fn factor(ir: &mut Ir, x: Id, by: Id) -> Result<Option<Id>, String> {
    let Some(tensor) = parameter(ir, by) else { return Ok(None) };
    let op = match ir.op(x) {
        Some(Op::LayerNorm { normalized_shape, eps, elementwise_affine: false, bias }) if fits(ir, by, normalized_shape) => {
            Op::LayerNorm { normalized_shape: normalized_shape.clone(), eps: *eps, elementwise_affine: true, bias: *bias }
        }
        Some(Op::RmsNorm { normalized_shape, eps, elementwise_affine: false }) if fits(ir, by, normalized_shape) => {
            Op::RmsNorm { normalized_shape: normalized_shape.clone(), eps: *eps, elementwise_affine: true }
        }
        _ => return Ok(None),
    };
    let inputs = ir.inputs(x).to_vec();
    ir.push_with(op, &inputs, BTreeMap::from([(Role::Weight, tensor)])).map(Some)
}

/// Whether a parameter has the normalised axes, and no others but of length 1.
fn fits(ir: &Ir, id: Id, normalized_shape: &[usize]) -> bool {
    let shape = ir.shape(id);
    shape.ends_with(normalized_shape) && shape[..shape.len() - normalized_shape.len()].iter().all(|&d| d == 1)
}

/// The learned constant behind a norm that has none yet.
pub fn sum(ir: &mut Ir, a: Id, b: Id) -> Result<Option<Id>, String> {
    for (x, added) in [(a, b), (b, a)] {
        let Some(bias) = parameter(ir, added) else { continue };
        match ir.op(x) {
            Some(Op::LayerNorm { normalized_shape, eps, elementwise_affine: true, bias: false }) if fits(ir, added, normalized_shape) => {
                let op = Op::LayerNorm { normalized_shape: normalized_shape.clone(), eps: *eps, elementwise_affine: true, bias: true };
                let mut tensors = ir.nodes[x].tensors.clone();
                tensors.insert(Role::Bias, bias);
                let inputs = ir.inputs(x).to_vec();
                return ir.push_with(op, &inputs, tensors).map(Some);
            }
            Some(Op::Multiply) => {
                if let Some(id) = group_norm(ir, x, added, bias)? {
                    return Ok(Some(id));
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Factor and constant per channel behind a group norm without.
fn group_norm(ir: &mut Ir, product: Id, added: Id, bias: usize) -> Result<Option<Id>, String> {
    let &[p, q] = ir.inputs(product) else { return Ok(None) };
    for (x, by) in [(p, q), (q, p)] {
        let Some(&Op::GroupNorm { num_groups, num_channels, eps, affine: false }) = ir.op(x) else { continue };
        let Some(weight) = parameter(ir, by) else { continue };
        let n_places = ir.shape(x).len() - 1;
        let per_channel = [&[num_channels][..], &vec![1; n_places]].concat();
        if fits(ir, by, &per_channel) && fits(ir, added, &per_channel) {
            let tensors = BTreeMap::from([(Role::Weight, weight), (Role::Bias, bias)]);
            let inputs = ir.inputs(x).to_vec();
            return ir.push_with(Op::GroupNorm { num_groups, num_channels, eps, affine: true }, &inputs, tensors).map(Some);
        }
    }
    Ok(None)
}
