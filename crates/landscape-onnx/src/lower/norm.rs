//! Normalisations.

use super::{Call, Importer, Lowered};
use crate::number::Known;
use crate::value::{Live, Value, axis_of};
use landscape_graph::{Op, Role};
use std::collections::BTreeMap;

impl Importer {
    /// Kept as it is, with its statistics, so that it trains on.
    pub fn batch_norm(&mut self, call: &Call) -> Lowered<Live> {
        let x = self.batch_first(call.input(0)?)?;
        let num_features = *self.ir.shape(x.id).first().ok_or("it has no channels")?;
        let mut tensors = BTreeMap::new();
        let roles = [
            (1, Role::Weight, "the scale"),
            (2, Role::Bias, "the bias"),
            (3, Role::RunningMean, "the mean"),
            (4, Role::RunningVar, "the variance"),
        ];
        for (idx, role, what) in roles {
            tensors.insert(role, self.learned_vector(call, idx, num_features, what)?);
        }
        // ONNX has the share of the old statistics.
        let momentum = 1.0 - call.float("momentum").unwrap_or(0.9);
        let momentum = (momentum * 1e6).round() / 1e6;
        let eps = call.float("epsilon").unwrap_or(1e-5);
        let shape = self.ir.shape(x.id).clone();
        let op = Op::BatchNorm { num_features, eps, momentum, affine: true };
        if shape.len() <= 3 {
            let id = self.ir.push_with(op, &[x.id], tensors)?;
            return Ok(x.with(id));
        }
        Err(format!("[batch, channels] and at most two axes more, got {} axes", shape.len() + 1))
    }

    pub fn layer_norm(&mut self, call: &Call) -> Lowered<Live> {
        let (x, normalized_shape) = self.last_axes(call)?;
        let n = normalized_shape.iter().product();
        let mut tensors = BTreeMap::from([(Role::Weight, self.learned_vector(call, 1, n, "the scale")?)]);
        let bias = call.optional(2).is_some();
        if bias {
            tensors.insert(Role::Bias, self.learned_vector(call, 2, n, "the bias")?);
        }
        let eps = call.float("epsilon").unwrap_or(1e-5);
        let id = self.ir.push_with(Op::LayerNorm { normalized_shape, eps, elementwise_affine: true, bias }, &[x.id], tensors)?;
        Ok(x.with(id))
    }

    pub fn rms_norm(&mut self, call: &Call) -> Lowered<Live> {
        let (x, normalized_shape) = self.last_axes(call)?;
        let n = normalized_shape.iter().product();
        let tensors = BTreeMap::from([(Role::Weight, self.learned_vector(call, 1, n, "the scale")?)]);
        let eps = call.float("epsilon").unwrap_or(1e-5);
        let id = self.ir.push_with(Op::RmsNorm { normalized_shape, eps, elementwise_affine: true }, &[x.id], tensors)?;
        Ok(x.with(id))
    }

    fn last_axes(&mut self, call: &Call) -> Lowered<(Live, Vec<usize>)> {
        let x = self.live(call.input(0)?)?;
        let axis = axis_of(call.int("axis").unwrap_or(-1), x.axes.len())?;
        let normalized_shape = x.tail(axis)?;
        Ok((x, normalized_shape))
    }

    pub fn instance_norm(&mut self, call: &Call) -> Lowered<Live> {
        let (x, channels, _) = self.channels(call.input(0)?)?;
        self.grouped(call, &x, channels, channels)
    }

    pub fn group_norm(&mut self, call: &Call) -> Lowered<Live> {
        let (x, channels, _) = self.channels(call.input(0)?)?;
        let groups = super::conv::positive(call.int("num_groups").ok_or("`num_groups` is missing")?, "num_groups")?;
        if self.opset < 21 && groups != channels {
            return Err("before version 21 of ONNX's ops it has a scale per group, not per channel".to_owned());
        }
        self.grouped(call, &x, groups, channels)
    }

    fn grouped(&mut self, call: &Call, x: &Live, num_groups: usize, num_channels: usize) -> Lowered<Live> {
        let eps = call.float("epsilon").unwrap_or(1e-5);
        let is_plain = |known: Option<std::rc::Rc<Known>>, n: f64| {
            known.is_some_and(|known| known.numbers.to_f64().is_some_and(|values| values.iter().all(|&v| v == n)))
        };
        // Exporters write factors of 1 and constants of 0, as numbers, where there are none.
        let (scale, bias) = (call.input(1)?, call.input(2)?);
        let none = !matches!((scale, bias), (Value::Live(_), _) | (_, Value::Live(_)));
        if none && is_plain(self.known(scale)?, 1.0) && is_plain(self.known(bias)?, 0.0) {
            let id = self.ir.push(Op::GroupNorm { num_groups, num_channels, eps, affine: false }, &[x.id])?;
            return Ok(x.with(id));
        }
        let tensors = BTreeMap::from([
            (Role::Weight, self.learned_vector(call, 1, num_channels, "the scale")?),
            (Role::Bias, self.learned_vector(call, 2, num_channels, "the bias")?),
        ]);
        let id = self.ir.push_with(Op::GroupNorm { num_groups, num_channels, eps, affine: true }, &[x.id], tensors)?;
        Ok(x.with(id))
    }
}
