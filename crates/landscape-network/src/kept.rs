//! Tallies that stay on an accelerator until they are asked for, so that its steps need not be waited for one by one.
//!
//! Each batch has numbers of its own and they are added up on the host, in their order: sums do not depend on when somebody asks.

use crate::error::Result;
use landscape_core::Tally;
use landscape_kernels::loss::{N_SUMS, read_sums};
use landscape_kernels::{Device, Memory, View, ViewMut};
use std::collections::VecDeque;

/// Batches that there is room for; a full memory is read.
const MAX_KEPT: usize = 256;

/// What is known of a batch whose sums are on an accelerator.
#[derive(Debug, Clone, Copy)]
struct Batch {
    n_examples: usize,
    /// None for regression.
    n_classes: Option<usize>,
}

/// Tallies that were not told yet.
#[derive(Debug)]
pub(crate) struct KeptTallies {
    device: Device,
    /// The sums of each of `batches`, one after the other.
    sums: Memory<f64>,
    batches: Vec<Batch>,
    /// Those that were read to make room, older than all `batches`.
    read: VecDeque<Tally>,
}

impl KeptTallies {
    /// None of them.
    pub fn new(device: &Device) -> Self {
        KeptTallies { device: device.clone(), sums: Memory::zeros(device, 0), batches: Vec::new(), read: VecDeque::new() }
    }

    /// Where batches are measured.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Keeps the sums that `add` adds to zeros; gives a tally over no examples.
    pub fn keep(
        &mut self,
        n_examples: usize,
        n_classes: Option<usize>,
        add: impl FnOnce(ViewMut<'_, f64>) -> landscape_kernels::Result<()>,
    ) -> Result<Tally> {
        if self.batches.len() == MAX_KEPT {
            self.read_all()?;
        }
        if self.sums.is_empty() {
            self.sums = Memory::zeros(&self.device, MAX_KEPT * N_SUMS);
        }
        let first = self.batches.len() * N_SUMS;
        let mut sums = self.sums.view_mut().slice(first..first + N_SUMS);
        sums.reborrow().fill(0.0)?;
        add(sums)?;
        self.batches.push(Batch { n_examples, n_classes });
        Ok(Tally::default())
    }

    /// Tells all of them in their order.
    pub fn collect(&mut self, told: &mut dyn FnMut(Tally)) -> Result<()> {
        self.read_all()?;
        self.read.drain(..).for_each(told);
        Ok(())
    }

    fn read_all(&mut self) -> Result<()> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let batches = std::mem::take(&mut self.batches);
        let sums = self.sums.view().slice(0..batches.len() * N_SUMS).read()?;
        for (batch, sums) in batches.iter().zip(sums.chunks_exact(N_SUMS)) {
            let sums = read_sums(batch.n_classes.unwrap_or(0), View::Host(sums))?;
            let n_wrong = batch.n_classes.map(|_| sums.n_wrong);
            self.read.push_back(Tally { n_examples: batch.n_examples as u64, loss_nats_sum: sums.loss_nats_sum, n_wrong });
        }
        Ok(())
    }
}
