//! `Attention` of ONNX 23.

use super::{Call, Importer, Lowered};
use crate::value::{Axis, Live, Value};
use landscape_graph::Op;

impl Importer {
    pub fn attention(&mut self, call: &Call) -> Lowered<Live> {
        if (4..6).any(|idx| call.optional(idx).is_some()) || call.node.output.iter().skip(1).any(|output| !output.is_empty()) {
            return Err("keys and values of earlier calls are not supported".to_owned());
        }
        if call.float("softcap").is_some_and(|cap| cap != 0.0) {
            return Err("`softcap` is not supported".to_owned());
        }
        let is_flat = self.live(call.input(0)?)?.axes.len() == 3;
        let q = self.heads(call, 0, "q_num_heads")?;
        let k = self.heads(call, 1, "kv_num_heads")?;
        let v = self.heads(call, 2, "kv_num_heads")?;
        let head_dim = *self.ir.shape(q).get(2).ok_or("it expects heads")?;
        let scale = call.float("scale").unwrap_or(1.0 / (head_dim as f64).sqrt());
        let causal = call.flag("is_causal");
        let id = match call.optional(3) {
            None => self.ir.push(Op::Attention { causal, scale }, &[q, k, v])?,
            Some(_) if causal => return Err("a mask beside `is_causal`".to_owned()),
            Some(mask) => {
                let k_t = self.ir.push(Op::Permute { dims: vec![0, 2, 1] }, &[k])?;
                let scores = self.ir.push(Op::Matmul, &[q, k_t])?;
                let scores = self.ir.push(Op::Affine { scale, shift: 0.0 }, &[scores])?;
                let scores = self.of_batch(scores);
                let masked = self.masked(&scores, mask)?;
                let weights = self.ir.push(Op::Softmax { dim: 2 }, &[masked.id])?;
                self.ir.push(Op::Matmul, &[weights, v])?
            }
        };
        if !is_flat {
            return Ok(self.of_batch(id));
        }
        let &[heads, len, dim] = self.ir.shape(id).as_slice() else { return Err("it expects heads".to_owned()) };
        let rows = self.ir.push(Op::Permute { dims: vec![1, 0, 2] }, &[id])?;
        self.reaxed(rows, vec![Axis::Batch, Axis::Local(len), Axis::Local(heads * dim)])
    }

    /// Adds a mask of numbers, or hides where one of truths is false.
    fn masked(&mut self, scores: &Live, mask: &Value) -> Lowered<Live> {
        let known = self.constant(mask, "the mask")?;
        let mask = match &known.numbers {
            crate::number::Numbers::Bool(seen) => {
                self.spend(seen.len())?;
                let hidden = seen.iter().map(|&seen| if seen { 0.0 } else { f64::from(f32::MIN) }).collect();
                Value::known(crate::number::Known { dims: known.dims.clone(), numbers: crate::number::Numbers::Float(hidden) })
            }
            _ => mask.clone(),
        };
        self.both(Op::Add, &Value::Live(scores.clone()), &mask)
    }

    /// [heads, len, dim], of that or of [len, heads · dim].
    fn heads(&mut self, call: &Call, idx: usize, attribute: &str) -> Lowered<usize> {
        let x = self.batch_first(call.input(idx)?)?;
        match *self.ir.shape(x.id).as_slice() {
            [_, _, _] => Ok(x.id),
            [len, width] => {
                let heads = super::conv::positive(call.int(attribute).unwrap_or(0), attribute)?;
                if width % heads != 0 {
                    return Err(format!("{width} numbers in {heads} heads"));
                }
                let split = self.ir.push(Op::Reshape { shape: vec![len, heads, width / heads] }, &[x.id])?;
                self.ir.push(Op::Permute { dims: vec![1, 0, 2] }, &[split])
            }
            _ => Err("it expects [batch, heads, length, dim] or [batch, length, heads · dim]".to_owned()),
        }
    }
}
