//! Ops on each number alone.

use super::{Call, Importer, Lowered};
use crate::value::{Live, Value};
use landscape_graph::{Gelu, Op};

impl Importer {
    pub fn activation(&mut self, op: &str, call: &Call) -> Lowered<Live> {
        let supported = match op {
            "Relu" => Op::Relu,
            "Sigmoid" => Op::Sigmoid,
            "Tanh" => Op::Tanh,
            "Softplus" => Op::Softplus,
            "Exp" => Op::Exp,
            "HardSwish" => Op::Hardswish,
            "Sqrt" => Op::Power { exponent: 0.5 },
            "Reciprocal" => Op::Power { exponent: -1.0 },
            "Neg" => Op::Affine { scale: -1.0, shift: 0.0 },
            "LeakyRelu" => Op::LeakyRelu { negative_slope: call.float("alpha").unwrap_or(0.01) },
            "Elu" => Op::Elu { alpha: call.float("alpha").unwrap_or(1.0) },
            "Gelu" => match call.text("approximate").as_deref() {
                None | Some("none") => Op::Gelu { approximate: Gelu::None },
                Some("tanh") => Op::Gelu { approximate: Gelu::Tanh },
                Some(other) => return Err(format!("`approximate` must be `none` or `tanh`, got `{other}`")),
            },
            "Clip" => return self.clip(call),
            "Dropout" => Op::Dropout { p: self.dropout(call)? },
            "Erf" => {
                let x = self.live(call.input(0)?)?;
                let id = self.ir.erf(x.id);
                return Ok(x.with(id));
            }
            "HardSigmoid" => return self.hard_sigmoid(call),
            "Selu" => {
                let (alpha, gamma) = (call.float("alpha").unwrap_or(1.6732632), call.float("gamma").unwrap_or(1.0507009));
                let elu = self.unary(call.input(0)?, Op::Elu { alpha })?;
                return self.affine(&Value::Live(elu), gamma, 0.0);
            }
            "Mish" => {
                let x = call.input(0)?;
                let softplus = Value::Live(self.unary(x, Op::Softplus)?);
                let gate = Value::Live(self.unary(&softplus, Op::Tanh)?);
                return self.both(Op::Multiply, x, &gate);
            }
            _ => return Err("this op is not supported".to_owned()),
        };
        self.unary(call.input(0)?, supported)
    }

    fn clip(&mut self, call: &Call) -> Lowered<Live> {
        let bound = |idx: usize| call.optional(idx).map(|value| self.number(value, "a bound")).transpose();
        let (min, max) = (bound(1)?, bound(2)?);
        let op = match (min, max) {
            (None, None) => return self.live(call.input(0)?),
            (Some(0.0), None) => Op::Relu,
            (min, max) => {
                let limit = f64::from(f32::MAX);
                Op::Hardtanh { min_val: min.unwrap_or(-limit).max(-limit), max_val: max.unwrap_or(limit).min(limit) }
            }
        };
        self.unary(call.input(0)?, op)
    }

    fn hard_sigmoid(&mut self, call: &Call) -> Lowered<Live> {
        let (alpha, beta) = (call.float("alpha").unwrap_or(0.2), call.float("beta").unwrap_or(0.5));
        if (alpha - 1.0 / 6.0).abs() < 1e-6 && beta == 0.5 {
            return self.unary(call.input(0)?, Op::Hardsigmoid);
        }
        let line = self.affine(call.input(0)?, alpha, beta)?;
        self.unary(&Value::Live(line), Op::Hardtanh { min_val: 0.0, max_val: 1.0 })
    }

    /// Kept, also where the file only uses the network: it does nothing then, and something in training.
    fn dropout(&mut self, call: &Call) -> Lowered<f64> {
        match call.optional(1) {
            Some(ratio) => self.number(ratio, "the ratio"),
            None => Ok(call.float("ratio").unwrap_or(0.5)),
        }
    }
}
