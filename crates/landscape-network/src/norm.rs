//! The statistics of batch norm layers: those of the latest pass, and the running ones.

use crate::error::{Error, Result};
use crate::step::{NormSlots, Program};
use landscape_core::{Buffers, Flat, Norm};
use landscape_graph::Op;
use landscape_kernels::activation::Activation;
use landscape_kernels::batch_norm::{self, BatchNormShape};
use landscape_kernels::conv2d::Prologue;
use landscape_kernels::{Device, Memory, Real, View};
use std::ops::Range;

/// What one batch norm does in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormRule {
    /// Normalises by the batch and updates the running statistics.
    Train,
    /// Normalises by the batch and reports its statistics.
    Report,
    /// Normalises by the stored statistics.
    Stored,
    /// Reports the statistics of what comes in and normalises nothing.
    Measure,
}

impl NormRule {
    /// What a pass asks for.
    pub fn of(norm: Norm) -> Self {
        match norm {
            Norm::Batch => NormRule::Train,
            Norm::Stored => NormRule::Stored,
        }
    }
}

/// The statistics of one batch that a layer saw: mean and biased variance over `n_rows` values per channel.
#[derive(Debug)]
pub(crate) struct BatchStatistics<'a, T> {
    /// Which batch norm.
    pub norm_idx: usize,
    /// Values per channel: examples times pixels.
    pub n_rows: usize,
    /// Mean per channel.
    pub mean: View<'a, T>,
    /// Biased variance per channel.
    pub var: View<'a, T>,
}

/// Called with the statistics of batches where a [`NormRule`] says so.
pub(crate) type Report<'a, 'b, T> = &'a mut (dyn FnMut(&BatchStatistics<'_, T>) + 'b);

/// The statistics of all batch norms.
#[derive(Debug, Clone)]
pub(crate) struct Norms<T> {
    /// Mean and variance that the latest pass normalised by.
    used: Vec<[Memory<T>; 2]>,
    /// Whether those are the stored ones, so that the batches of an evaluation need not take them anew.
    is_stored: Vec<bool>,
    /// weight / √(variance + eps) of the latest pass.
    scales: Vec<Memory<T>>,
    /// What stands for a bias that is not there.
    zeros: Memory<T>,
    buffers: Buffers,
    /// The running statistics where batches are taken on an accelerator, by batch norm.
    kept: Vec<Option<Kept>>,
}

/// Running statistics on an accelerator.
#[derive(Debug, Clone)]
struct Kept {
    /// Mean and variance, with their places in the buffers.
    statistics: [(Range<usize>, Memory<f64>); 2],
    /// Whether the buffers are behind.
    ahead: bool,
}

impl<T: Real> Norms<T> {
    /// What a new network starts from.
    pub fn new(program: &Program, buffers: Buffers, device: &Device) -> Self {
        let used = program.norms.iter().map(|norm| [(); 2].map(|()| Memory::zeros(device, norm.channels))).collect();
        let scales = program.norms.iter().map(|norm| Memory::zeros(device, norm.channels)).collect();
        let longest = program.norms.iter().map(|norm| norm.channels).max().unwrap_or(0);
        let (kept, is_stored) = (vec![None; program.norms.len()], vec![false; program.norms.len()]);
        Norms { used, is_stored, scales, zeros: Memory::zeros(device, longest), buffers, kept }
    }

    /// The running statistics; as of the last [`Norms::collect`] where an accelerator is ahead.
    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Replaces the running statistics; their layout was checked.
    pub fn set_buffers(&mut self, buffers: &Buffers) {
        self.buffers = buffers.clone();
        self.kept.fill(None);
        self.is_stored.fill(false);
    }

    /// Brings the buffers up to date with an accelerator, which is waited for if it is ahead.
    pub fn collect(&mut self) -> Result<()> {
        let values = self.buffers.values_mut();
        for kept in self.kept.iter_mut().flatten().filter(|kept| kept.ahead) {
            for (range, memory) in &kept.statistics {
                values[range.clone()].copy_from_slice(&memory.view().read()?);
            }
            kept.ahead = false;
        }
        Ok(())
    }

    /// Mean and variance that the latest pass normalised by.
    pub fn used(&self, norm_idx: usize) -> (View<'_, T>, View<'_, T>) {
        let [mean, var] = &self.used[norm_idx];
        (mean.view(), var.view())
    }

    /// Takes the memory of mean and variance out, for a convolution to write to; [`Norms::put_used`] brings it back.
    pub fn take_used(&mut self, norm_idx: usize) -> [Memory<T>; 2] {
        self.is_stored[norm_idx] = false;
        let [mean, var] = &self.used[norm_idx];
        let nothing = [mean, var].map(|memory| Memory::zeros(&memory.device(), 0));
        std::mem::replace(&mut self.used[norm_idx], nothing)
    }

    /// Puts mean and variance back.
    pub fn put_used(&mut self, norm_idx: usize, used: [Memory<T>; 2]) {
        self.used[norm_idx] = used;
    }

    /// Brings the factors of a batch norm up to date with what it uses.
    pub fn update_scale(&mut self, norm_idx: usize, eps: f64, weight: Option<View<'_, T>>) -> Result<()> {
        let [_, var] = &self.used[norm_idx];
        Ok(batch_norm::scale(var.view(), eps, weight, self.scales[norm_idx].view_mut())?)
    }

    /// The batch norm as its readers apply it.
    pub fn prologue<'a>(&'a self, norm_idx: usize, bias: Option<View<'a, T>>, activation: Activation) -> Prologue<'a, T> {
        let scale = self.scales[norm_idx].view();
        let shift = bias.unwrap_or_else(|| self.zeros.view().slice(0..scale.len()));
        Prologue { mean: self.used[norm_idx][0].view(), scale, shift, activation }
    }

    /// Takes the statistics of a batch.
    pub fn take_batch(&mut self, norm_idx: usize, n_rows: usize, x: View<'_, T>) -> Result<()> {
        self.is_stored[norm_idx] = false;
        let [mean, var] = &mut self.used[norm_idx];
        let shape = BatchNormShape { n_rows, channels: mean.len() };
        Ok(batch_norm::statistics(&shape, x, mean.view_mut(), var.view_mut())?)
    }

    /// The statistics of a batch that were taken last.
    pub fn taken(&self, norm_idx: usize, n_rows: usize) -> BatchStatistics<'_, T> {
        let (mean, var) = self.used(norm_idx);
        BatchStatistics { norm_idx, n_rows, mean, var }
    }

    /// Per channel, the batch norm of a node by its stored statistics as x·scale + shift, in double precision.
    pub fn stored_affine<'a>(
        &'a self,
        program: &'a Program,
        node: usize,
        weights: &'a Flat<T>,
    ) -> impl Iterator<Item = (f64, f64)> + use<'a, T> {
        let step = &program.steps[node];
        let (&Op::BatchNorm { eps, .. }, Some(norm_idx)) = (&step.op, step.norm_idx) else { unreachable!("only batch norms are folded") };
        let slots = &program.norms[norm_idx];
        let values = self.buffers.values();
        let of_step = |range: &Option<Range<usize>>| range.clone().map(|range| weights.view().slice(range).host());
        let (weight, bias) = (of_step(&step.weight), of_step(&step.bias));
        values[slots.mean.clone()].iter().zip(&values[slots.var.clone()]).enumerate().map(move |(channel, (mean, var))| {
            let scale = weight.map_or(1.0, |weight| weight[channel].to_f64()) / (var + eps).sqrt();
            (scale, bias.map_or(0.0, |bias| bias[channel].to_f64()) - mean * scale)
        })
    }

    /// Uses the stored statistics; where they are used already there is nothing to do.
    pub fn take_stored(&mut self, norm_idx: usize, slots: &NormSlots) -> Result<()> {
        if self.is_stored[norm_idx] {
            return Ok(());
        }
        self.collect()?;
        let values = self.buffers.values();
        for (used, range) in self.used[norm_idx].iter_mut().zip([&slots.mean, &slots.var]) {
            let stored = values[range.clone()].iter().copied().map(T::from_f64);
            match used {
                Memory::Host(used) => used.iter_mut().zip(stored).for_each(|(used, value)| *used = value),
                elsewhere => *elsewhere = Memory::from_host(&elsewhere.device(), stored.collect()),
            }
        }
        self.is_stored[norm_idx] = true;
        Ok(())
    }

    /// Moves the running statistics towards those of the batch just taken.
    ///
    /// As [`batch_norm::update_running`], with the unbiased variance σ²·n/(n − 1), and counts the batch. On an accelerator nothing waits:
    /// [`Norms::collect`] brings the buffers up to date.
    pub fn update_running(&mut self, norm_idx: usize, n_rows: usize, slots: &NormSlots) -> Result<()> {
        self.is_stored[norm_idx] = false;
        let n = n_rows as f64;
        let values = self.buffers.values_mut();
        values[slots.count] += 1.0;
        let [mean, var] = &self.used[norm_idx];
        let device = mean.device();
        let factors = [1.0, n / (n - 1.0)];
        if device == Device::Cpu {
            for ((batch, range), factor) in [(mean, &slots.mean), (var, &slots.var)].into_iter().zip(factors) {
                batch_norm::update_running(slots.momentum, factor, batch.view(), (&mut values[range.clone()]).into())?;
            }
            return Ok(());
        }
        let there = |range: &Range<usize>| (range.clone(), Memory::from_host(&device, values[range.clone()].to_vec()));
        let kept = self.kept[norm_idx].get_or_insert_with(|| Kept { statistics: [there(&slots.mean), there(&slots.var)], ahead: false });
        kept.ahead = true;
        for ((batch, (_, running)), factor) in [mean, var].into_iter().zip(&mut kept.statistics).zip(factors) {
            batch_norm::update_running(slots.momentum, factor, batch.view(), running.view_mut())?;
        }
        Ok(())
    }

    /// Writes statistics into the buffers, in the network's own precision.
    pub fn store(&mut self, norm_idx: usize, slots: &NormSlots, mean: &[f64], var: &[f64], n_batches: usize) {
        self.kept[norm_idx] = None;
        self.is_stored[norm_idx] = false;
        let values = self.buffers.values_mut();
        for (range, from) in [(&slots.mean, mean), (&slots.var, var)] {
            for (value, &from) in values[range.clone()].iter_mut().zip(from) {
                *value = T::from_f64(from).to_f64();
            }
        }
        values[slots.count] = n_batches as f64;
    }
}

/// Fails where a batch has a single value per channel, and so no variance.
pub(crate) fn check_rows(name: &str, n_rows: usize) -> Result<()> {
    if n_rows < 2 { Err(Error::SingleValue { node: name.to_owned() }) } else { Ok(()) }
}
