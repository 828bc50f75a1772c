//! The statistics of batch norm layers: those of the latest pass, and the running ones.

use crate::error::{Error, Result};
use crate::step::{NormSlots, Program};
use landscape_core::{Buffers, Norm};
use landscape_kernels::batch_norm::{self, BatchNormShape};
use landscape_kernels::{Device, Memory, Real, View};

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
    buffers: Buffers,
}

impl<T: Real> Norms<T> {
    /// What a new network starts from.
    pub fn new(program: &Program, buffers: Buffers, device: &Device) -> Self {
        let used = program.norms.iter().map(|norm| [(); 2].map(|()| Memory::zeros(device, norm.channels))).collect();
        Norms { used, buffers }
    }

    /// The running statistics.
    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Replaces the running statistics; their layout was checked.
    pub fn set_buffers(&mut self, buffers: &Buffers) {
        self.buffers = buffers.clone();
    }

    /// Mean and variance that the latest pass normalised by.
    pub fn used(&self, norm_idx: usize) -> (View<'_, T>, View<'_, T>) {
        let [mean, var] = &self.used[norm_idx];
        (mean.view(), var.view())
    }

    /// Takes the statistics of a batch.
    pub fn take_batch(&mut self, norm_idx: usize, n_rows: usize, x: View<'_, T>) -> Result<BatchStatistics<'_, T>> {
        let [mean, var] = &mut self.used[norm_idx];
        let shape = BatchNormShape { n_rows, channels: mean.len() };
        batch_norm::statistics(&shape, x, mean.view_mut(), var.view_mut())?;
        let [mean, var] = &self.used[norm_idx];
        Ok(BatchStatistics { norm_idx, n_rows, mean: mean.view(), var: var.view() })
    }

    /// Uses the stored statistics.
    pub fn take_stored(&mut self, norm_idx: usize, slots: &NormSlots) {
        let values = self.buffers.values();
        for (used, range) in self.used[norm_idx].iter_mut().zip([&slots.mean, &slots.var]) {
            for (used, &value) in used.view_mut().host().iter_mut().zip(&values[range.clone()]) {
                *used = T::from_f64(value);
            }
        }
    }

    /// Moves the running statistics towards those of the batch just taken.
    ///
    /// running ← (1 − momentum)·running + momentum·batch, with the unbiased variance σ²·n/(n − 1), and counts the batch; kept in the
    /// network's own precision, so that a checkpoint holds them exactly.
    ///
    /// # Source
    /// PyTorch's `BatchNorm2d` in training mode.
    pub fn update_running(&mut self, norm_idx: usize, n_rows: usize, slots: &NormSlots) {
        let n = n_rows as f64;
        let values = self.buffers.values_mut();
        let [mean, var] = &self.used[norm_idx];
        for (statistic, range, factor) in [(mean, &slots.mean, 1.0), (var, &slots.var, n / (n - 1.0))] {
            for (running, batch) in values[range.clone()].iter_mut().zip(statistic.view().host()) {
                let value = (1.0 - slots.momentum) * *running + slots.momentum * factor * batch.to_f64();
                *running = T::from_f64(value).to_f64();
            }
        }
        values[slots.count] += 1.0;
    }

    /// Writes statistics into the buffers, in the network's own precision.
    pub fn store(&mut self, slots: &NormSlots, mean: &[f64], var: &[f64], n_batches: usize) {
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
