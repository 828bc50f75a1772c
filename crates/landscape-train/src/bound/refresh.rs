//! Batch-norm statistics of a candle model taken anew, through the running averages that its layers keep.
//!
//! A layer in training mode writes r ← (1 − m)·r + m·s, where s is the batch's mean or unbiased variance. From r = 0 it leaves m·s,
//! and what it makes of a large r tells m, which the layer does not tell: so the statistics s of every batch can be had from outside.

use super::model::Bound;
use crate::error::{Error, Result};
use candle_core::{Tensor, WithDType};
use landscape_core::{Batches, NormRefresh, TensorSpec};
use landscape_kernels::Real;
use std::sync::Arc;

/// What a buffer does in training mode.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// It is an average with this momentum.
    Average { momentum: f64 },
    /// It counts batches.
    Count,
    /// It stays as it is.
    Constant,
}

/// Takes the statistics anew from epoch 0 of `batches`; on an error they are as before.
pub(super) fn refresh<T: Real + WithDType>(
    model: &mut Bound<'_, T>,
    how: NormRefresh,
    batches: &dyn Batches<Batch = (Tensor, Tensor)>,
) -> Result<()> {
    if model.buffers.is_empty() {
        return Ok(());
    }
    if !matches!(how, NormRefresh::BatchAverage | NormRefresh::TorchCumulative) {
        let expected = "`BatchAverage` or `TorchCumulative` for a candle model, whose layers tell neither how many values a batch statistic \
                        is of nor take statistics one by one";
        return Err(Error::config("refresh", expected, format!("`{how:?}`")));
    }
    if batches.n_batches() == 0 {
        return Err(Error::config("batches", "at least one batch", 0));
    }
    let (before, was_fresh) = (model.buffers.clone(), model.is_fresh);
    match averages(model, how, batches) {
        Ok(values) => {
            let mut buffers = before;
            buffers.values_mut().copy_from_slice(&values);
            model.set_buffers(&buffers)
        }
        Err(error) => {
            model.set_buffers(&before)?;
            model.is_fresh = was_fresh;
            Err(error)
        }
    }
}

fn averages<T: Real + WithDType>(
    model: &mut Bound<'_, T>,
    how: NormRefresh,
    batches: &dyn Batches<Batch = (Tensor, Tensor)>,
) -> Result<Vec<f64>> {
    let specs = model.parts.buffer_layout.tensors().to_vec();
    let mut values = model.buffers.values().to_vec();
    let rules = match &model.rules {
        Some(rules) => rules.clone(),
        None => rules(model, &specs, &batches.batch(0, 0)?.0)?,
    };
    model.rules = Some(rules.clone());
    let mut start = values.clone();
    for (spec, rule) in specs.iter().zip(rules.iter()) {
        match rule {
            Rule::Average { .. } => {
                values[spec.range()].fill(0.0);
                start[spec.range()].fill(0.0);
            }
            Rule::Count => values[spec.range()].fill(batches.n_batches() as f64),
            Rule::Constant => {}
        }
    }
    let mut total = 0.0;
    for batch_idx in 0..batches.n_batches() {
        let (x, _) = batches.batch(0, batch_idx)?;
        let found = pass(model, &start, &x)?;
        let weight = if how == NormRefresh::TorchCumulative { 1.0 } else { x.dim(0)? as f64 };
        total += weight;
        for (spec, rule) in specs.iter().zip(rules.iter()) {
            let Rule::Average { momentum } = rule else { continue };
            if let Some(r) = found[spec.range()].iter().find(|r| !r.is_finite()) {
                let reason = format!(
                    "the statistics of batch {batch_idx} are {r}: a batch needs finite inputs, and more than one value per channel"
                );
                return Err(landscape_core::Error::Tensor { tensor: spec.name.clone(), reason }.into());
            }
            for (value, r) in values[spec.range()].iter_mut().zip(&found[spec.range()]) {
                *value += weight / total * (r / momentum - *value);
            }
        }
    }
    Ok(values)
}

/// Runs `x` in training mode from given buffers and gives what they become.
fn pass<T: Real + WithDType>(model: &mut Bound<'_, T>, start: &[f64], x: &Tensor) -> Result<Vec<f64>> {
    model.parts.write_buffers(&model.instance.leaves, start)?;
    model.forward(x, true)?;
    model.reread_buffers()?;
    Ok(model.buffers.values().to_vec())
}

/// What each buffer does, from two passes of one batch: from zero, and from a number so large that rounding and whatever is random in
/// the model do not count beside it.
fn rules<T: Real + WithDType>(model: &mut Bound<'_, T>, specs: &[TensorSpec], x: &Tensor) -> Result<Arc<[Rule]>> {
    let is_integer: Vec<bool> = model.parts.buffers.iter().map(|&i| !model.instance.leaves[i].var.dtype().is_float()).collect();
    let is_count = |spec: &TensorSpec| spec.name.rsplit('.').next() == Some("num_batches_tracked");
    let stored = model.buffers.values().to_vec();
    let from = |value: f64| {
        let mut start = stored.clone();
        for (spec, &is_integer) in specs.iter().zip(&is_integer) {
            if !is_integer && !is_count(spec) {
                start[spec.range()].fill(value);
            }
        }
        start
    };
    let low = pass(model, &from(0.0), x)?;
    let large = 4096.0 * (1.0 + low.iter().fold(0.0, |a: f64, b| a.max(b.abs())));
    let high = pass(model, &from(large), x)?;
    let rule = |(spec, &is_integer): (&TensorSpec, &bool)| {
        if is_count(spec) {
            return Ok(Rule::Count);
        }
        let is_untouched = low[spec.range()].iter().all(|&r| r == 0.0) && high[spec.range()].iter().all(|&r| r == large);
        let is_statistic = ["running_mean", "running_var"].contains(&spec.name.rsplit('.').next().unwrap_or_default());
        if is_integer || spec.n_elements() == 0 || (is_untouched && !is_statistic) {
            return Ok(Rule::Constant);
        }
        let momenta: Vec<f64> = spec.range().map(|i| 1.0 - (high[i] - low[i]) / large).collect();
        let mean = momenta.iter().sum::<f64>() / momenta.len() as f64;
        let spread = momenta.iter().fold(0.0, |a: f64, m| a.max((m - mean).abs()));
        if is_untouched || !(mean > 1e-6 && mean <= 1.0 + 1e-6 && spread < 1e-3) {
            let reason = "statistics can be taken anew only where the model in training mode keeps a running average of them; \
                          check that `forward` passes `train` on, or do not name it as a buffer";
            return Err(landscape_core::Error::Tensor { tensor: spec.name.clone(), reason: reason.to_owned() }.into());
        }
        // People write a momentum with few digits: those are exact, what was measured in f32 is not.
        let written = (mean * 1e4).round() / 1e4;
        Ok(Rule::Average { momentum: if (mean - written).abs() < 1e-5 { written } else { mean } })
    };
    specs.iter().zip(&is_integer).map(rule).collect()
}
