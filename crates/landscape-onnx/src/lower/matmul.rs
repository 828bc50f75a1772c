//! Products of matrices: linear layers where one of the two is a tensor of the file.

use super::{Call, Importer, Lowered};
use crate::ir::Id;
use crate::value::{Axis, Live, Value};
use landscape_graph::{Op, Role, WeightOrder, broadcast};
use std::collections::BTreeMap;

impl Importer {
    pub fn mat_mul(&mut self, call: &Call) -> Lowered<Live> {
        let (a, b) = (call.input(0)?, call.input(1)?);
        if let Some((weight, order)) = self.matrix(b, Self::input_name(call, 1))? {
            return self.linear(a, weight, order, None);
        }
        let (a, b) = (self.live(a)?, self.live(b)?);
        self.product(&a, &b)
    }

    pub fn gemm(&mut self, call: &Call) -> Lowered<Live> {
        let (a, b) = (call.input(0)?, call.input(1)?);
        let (alpha, beta) = (call.float("alpha").unwrap_or(1.0), call.float("beta").unwrap_or(1.0));
        if call.flag("transA") {
            return Err("`transA`: the batch would be an axis that is multiplied".to_owned());
        }
        let transposed = call.flag("transB");
        let bias = call.optional(2);
        let matrix = self.matrix(b, Self::input_name(call, 1))?;
        if let (Some((weight, order)), 1.0) = (matrix, alpha) {
            let order = if transposed { flipped(order) } else { order };
            let n_out = self.store[weight].dims[if order == WeightOrder::OutIn { 0 } else { 1 }];
            let slot = match bias {
                Some(bias) if beta == 1.0 => self.learned(bias, Self::input_name(call, 2), "the bias").ok(),
                _ => None,
            };
            let slot = slot.filter(|&bias| self.store[bias].n_elements() == n_out);
            let y = self.linear(a, weight, order, slot)?;
            return match bias {
                Some(bias) if slot.is_none() => self.with_bias(y, bias, beta),
                _ => Ok(y),
            };
        }
        let (a, mut b) = (self.live(a)?, self.live(b)?);
        if transposed {
            if b.batch().is_some() || b.axes.len() != 2 {
                return Err("the second matrix must be one".to_owned());
            }
            let id = self.ir.push(Op::Permute { dims: vec![1, 0] }, &[b.id])?;
            b = Live { id, axes: vec![b.axes[1], b.axes[0]] };
        }
        let y = self.product(&a, &b)?;
        let y = self.affine(&Value::Live(y), alpha, 0.0)?;
        match bias {
            Some(bias) => self.with_bias(y, bias, beta),
            None => Ok(y),
        }
    }

    fn with_bias(&mut self, y: Live, bias: &Value, beta: f64) -> Lowered<Live> {
        let bias = Value::Live(self.affine(bias, beta, 0.0)?);
        self.both(Op::Add, &Value::Live(y), &bias)
    }

    /// A matrix of the file, and which of its axes is which; none if the value is something else.
    fn matrix(&mut self, value: &Value, name: &str) -> Lowered<Option<(usize, WeightOrder)>> {
        let found = match value {
            Value::Stored(idx) if self.store[*idx].dtype.is_float() => Some((*idx, WeightOrder::InOut)),
            Value::Known(known) if known.dims.len() == 2 => {
                self.learned(value, name, "the weight").ok().map(|idx| (idx, WeightOrder::InOut))
            }
            Value::Live(live) if live.batch().is_none() && live.axes.len() == 2 => match self.ir.op(live.id) {
                Some(Op::Parameter { .. }) => Some((self.ir.nodes[live.id].tensors[&Role::Parameter], WeightOrder::InOut)),
                Some(Op::Permute { dims }) if *dims == [1, 0] => {
                    let x = self.ir.inputs(live.id)[0];
                    match self.ir.op(x) {
                        Some(Op::Parameter { .. }) => Some((self.ir.nodes[x].tensors[&Role::Parameter], WeightOrder::OutIn)),
                        _ => None,
                    }
                }
                _ => None,
            },
            _ => None,
        };
        Ok(found.filter(|&(idx, _)| self.store[idx].dims.len() == 2))
    }

    fn linear(&mut self, x: &Value, weight: usize, weight_order: WeightOrder, bias: Option<usize>) -> Lowered<Live> {
        let x = self.live(x)?;
        let &[first, second] = self.store[weight].dims.as_slice() else { return Err("the weight must be a matrix".to_owned()) };
        let (in_features, out_features) = if weight_order == WeightOrder::OutIn { (second, first) } else { (first, second) };
        match x.axes.last() {
            Some(Axis::Local(n)) if *n == in_features => {}
            Some(Axis::Local(n)) => return Err(format!("a weight for {in_features} numbers, and there are {n}")),
            _ => return Err("the batch is the axis that is multiplied".to_owned()),
        }
        let tensors = [Some((Role::Weight, weight)), bias.map(|bias| (Role::Bias, bias))];
        let op = Op::Linear { in_features, out_features, bias: bias.is_some(), weight_order };
        let id = self.ir.push_with(op, &[x.id], tensors.into_iter().flatten().collect::<BTreeMap<_, _>>())?;
        let mut axes = x.axes;
        axes.pop();
        axes.push(Axis::Local(out_features));
        Ok(Live { id, axes })
    }

    /// [..., m, k] times [..., k, n] of two nodes.
    pub fn product(&mut self, a: &Live, b: &Live) -> Lowered<Live> {
        let (rank_a, rank_b) = (a.axes.len(), b.axes.len());
        if rank_a < 2 || rank_b < 2 {
            return Err("a product with a vector".to_owned());
        }
        let ([Axis::Local(m), Axis::Local(k)], [Axis::Local(k_b), Axis::Local(n)]) = (&a.axes[rank_a - 2..], &b.axes[rank_b - 2..]) else {
            return Err("the batch is an axis that is multiplied".to_owned());
        };
        if k != k_b {
            return Err(format!("rows of {k} numbers and columns of {k_b}"));
        }
        let (m, k, n) = (*m, *k, *n);
        // What stands before is aligned as in a sum; of this the nodes are not needed.
        let leading = |live: &Live, rank: usize| Live { id: live.id, axes: live.axes[..rank - 2].to_vec() };
        let (lead_a, lead_b) = (leading(a, rank_a), leading(b, rank_b));
        let (own_a, own_b, axes) = leading_axes(&lead_a, &lead_b)?;
        let common = broadcast(&own_a, &own_b).ok_or_else(|| format!("matrices in lists {own_a:?} and {own_b:?}"))?;
        let a = self.spread(a.id, &own_a, &common, [m, k])?;
        let b = self.spread(b.id, &own_b, &common, [k, n])?;
        let id = self.ir.push(Op::Matmul, &[a, b])?;
        Ok(Live { id, axes: [axes.as_slice(), &[Axis::Local(m), Axis::Local(n)]].concat() })
    }

    /// Matrices repeated so that there is one for each of `common`.
    fn spread(&mut self, id: Id, own: &[usize], common: &[usize], matrix: [usize; 2]) -> Lowered<Id> {
        let ones = vec![1; common.len() - own.len()];
        let shape = [&ones, own, &matrix[..]].concat();
        let id = self.ir.push(Op::Reshape { shape }, &[id])?;
        self.ir.push(Op::Expand { shape: [common, &matrix[..]].concat() }, &[id])
    }
}

/// The nodes' axes in front of two lists of matrices, and the axes of the result there.
fn leading_axes(a: &Live, b: &Live) -> Lowered<(Vec<usize>, Vec<usize>, Vec<Axis>)> {
    let rank = a.axes.len().max(b.axes.len());
    let (mut own_a, mut own_b, mut axes) = (Vec::new(), Vec::new(), Vec::new());
    for back in (1..=rank).rev() {
        let at = |live: &Live| live.axes.len().checked_sub(back).map(|axis| live.axes[axis]);
        let (x, y) = (at(a), at(b));
        let axis = match (x, y) {
            (Some(Axis::Local(p)), Some(Axis::Local(q))) => Axis::Local(p.max(q)),
            (Some(x), Some(y)) if x == y => x,
            (Some(axis), None) | (None, Some(axis)) => axis,
            // Matrices without a batch, one for all examples.
            (Some(Axis::Batch), Some(Axis::Local(1))) | (Some(Axis::Local(1)), Some(Axis::Batch)) => Axis::Batch,
            _ => return Err("the batch of one value meets another axis of the other".to_owned()),
        };
        for (own, at) in [(&mut own_a, x), (&mut own_b, y)] {
            if axis != Axis::Batch {
                own.extend(at.map(|axis| axis.locals()).unwrap_or_default());
            }
        }
        axes.push(axis);
    }
    Ok((own_a, own_b, axes))
}

fn flipped(order: WeightOrder) -> WeightOrder {
    match order {
        WeightOrder::OutIn => WeightOrder::InOut,
        WeightOrder::InOut => WeightOrder::OutIn,
    }
}
