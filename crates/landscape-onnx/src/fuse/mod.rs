//! Ops that exporters write out as several: what is about to be added is looked at together with what it reads.
//!
//! Every rule gives a node that computes the same of nodes that are there already. The ones it replaces stay, for others that read
//! them, and are left out at the end if there are none.

mod activation;
mod attention;
mod norm;
mod shape;

use crate::ir::{Id, Ir, Kind};
use landscape_graph::{Op, Role};
use std::collections::BTreeMap;

/// A node that does what `op` would do to `inputs`, if it is better than adding that.
pub fn simpler(ir: &mut Ir, op: &Op, inputs: &[Id]) -> Result<Option<Id>, String> {
    match (op, inputs) {
        (&Op::Affine { scale, shift }, &[x]) => affine(ir, scale, shift, x),
        (&Op::Power { exponent }, &[x]) => power(ir, exponent, x),
        (Op::Reshape { shape }, &[x]) => shape::reshape(ir, shape, x),
        (Op::Permute { dims }, &[x]) => shape::permute(ir, dims, x),
        (Op::Expand { shape }, &[x]) if ir.shape(x) == shape => Ok(Some(x)),
        (Op::Concat { .. }, &[x]) => Ok(Some(x)),
        (Op::Slice { dim, start: 0, end, step: 1 }, &[x]) if ir.shape(x).get(*dim) == Some(end) => Ok(Some(x)),
        (Op::Multiply, &[a, b]) => match activation::product(ir, a, b)? {
            Some(id) => Ok(Some(id)),
            None => norm::product(ir, a, b),
        },
        (Op::Add, &[a, b]) => match bias(ir, a, b)? {
            Some(id) => Ok(Some(id)),
            None => norm::sum(ir, a, b),
        },
        (Op::Matmul, &[a, b]) => attention::matmul(ir, a, b),
        _ => Ok(None),
    }
}

fn affine(ir: &mut Ir, scale: f64, shift: f64, x: Id) -> Result<Option<Id>, String> {
    if (scale, shift) == (1.0, 0.0) {
        return Ok(Some(x));
    }
    if let Some(&Op::Affine { scale: before, shift: added }) = ir.op(x) {
        let x = ir.inputs(x)[0];
        return ir.push(Op::Affine { scale: scale * before, shift: scale * added + shift }, &[x]).map(Some);
    }
    Ok(None)
}

fn power(ir: &mut Ir, exponent: f64, x: Id) -> Result<Option<Id>, String> {
    if exponent == 1.0 {
        return Ok(Some(x));
    }
    // Of roots alone: (x²)^½ is not x.
    if let Some(&Op::Power { exponent: 0.5 }) = ir.op(x) {
        let x = ir.inputs(x)[0];
        return ir.push(Op::Power { exponent: 0.5 * exponent }, &[x]).map(Some);
    }
    Ok(None)
}

/// The bias of a linear layer that was written as a sum behind it.
fn bias(ir: &mut Ir, a: Id, b: Id) -> Result<Option<Id>, String> {
    for (x, added) in [(a, b), (b, a)] {
        let Some(&Op::Linear { in_features, out_features, bias: false, weight_order }) = ir.op(x) else { continue };
        let Some(tensor) = parameter(ir, added).filter(|_| is_vector(ir.shape(added), out_features)) else { continue };
        let mut tensors = ir.nodes[x].tensors.clone();
        tensors.insert(Role::Bias, tensor);
        let inputs = ir.inputs(x).to_vec();
        return ir.push_with(Op::Linear { in_features, out_features, bias: true, weight_order }, &inputs, tensors).map(Some);
    }
    Ok(None)
}

/// The tensor that a node is, perhaps under another shape.
pub fn parameter(ir: &Ir, id: Id) -> Option<usize> {
    match ir.op(id)? {
        Op::Parameter { .. } => ir.nodes[id].tensors.get(&Role::Parameter).copied(),
        Op::Reshape { .. } => parameter(ir, ir.inputs(id)[0]),
        _ => None,
    }
}

/// Whether all axes but the last have length 1, and that one has length `n`.
fn is_vector(shape: &[usize], n: usize) -> bool {
    matches!(shape.split_last(), Some((&last, rest)) if last == n && rest.iter().all(|&d| d == 1))
}

/// The factor and the rest of a product: c · (f₁ + s₁) · (f₂ + s₂) · ..., with multiples taken out of all of them.
struct Product {
    factor: f64,
    terms: Vec<(Id, f64)>,
}

impl Product {
    fn of(ir: &Ir, ids: &[Id]) -> Self {
        let mut product = Product { factor: 1.0, terms: Vec::new() };
        ids.iter().for_each(|&id| product.take(ir, id, 4));
        product
    }

    /// Depth is limited: no rule looks for more.
    fn take(&mut self, ir: &Ir, id: Id, depth: usize) {
        match ir.op(id) {
            Some(&Op::Affine { scale, shift }) if scale != 0.0 => {
                self.factor *= scale;
                let x = ir.inputs(id)[0];
                if shift == 0.0 && depth > 0 { self.take(ir, x, depth - 1) } else { self.terms.push((x, shift / scale)) }
            }
            Some(Op::Multiply) if depth > 0 => ir.inputs(id).to_vec().into_iter().for_each(|x| self.take(ir, x, depth - 1)),
            _ => self.terms.push((id, 0.0)),
        }
    }
}

/// Whether two numbers are the same but for rounding in single precision.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * b.abs().max(1e-30)
}

/// The input of a node, if it is this op.
fn under(ir: &Ir, id: Id, is: impl Fn(&Op) -> bool) -> Option<&[Id]> {
    ir.op(id).filter(|op| is(op)).map(|_| ir.inputs(id))
}

fn is_erf(ir: &Ir, id: Id) -> Option<Id> {
    (ir.nodes[id].kind == Kind::Erf).then(|| ir.inputs(id)[0])
}

fn no_tensors() -> BTreeMap<Role, usize> {
    BTreeMap::new()
}
