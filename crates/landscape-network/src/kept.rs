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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use landscape_kernels::loss::add_cross_entropy;

    /// More batches than there is room for, collected all at once or a few at a time.
    #[test]
    fn tallies_are_told_in_their_order_however_many_there_are() {
        let n = 2 * MAX_KEPT + 88;
        let tallies = |collect_every: usize| {
            let mut kept = KeptTallies::new(&Device::Cpu);
            let mut told = Vec::new();
            for idx in 0..n {
                let logits = [idx as f32, 1.0, 0.0];
                let label = [u32::from(idx % 3 == 0)];
                let empty =
                    kept.keep(1, Some(3), |sums| add_cross_entropy(1, 3, (&logits[..]).into(), (&label[..]).into(), None, sums)).unwrap();
                assert_eq!(empty, Tally::default());
                if idx % collect_every == collect_every - 1 {
                    kept.collect(&mut |tally| told.push(tally)).unwrap();
                }
            }
            kept.collect(&mut |tally| told.push(tally)).unwrap();
            kept.collect(&mut |_| panic!("all were told")).unwrap();
            told
        };
        let all = tallies(usize::MAX);
        assert_eq!(all.len(), n);
        for (idx, tally) in all.iter().enumerate() {
            let x = [idx as f64, 1.0, 0.0];
            let loss = x.iter().map(|v| (v - x[0].max(1.0)).exp()).sum::<f64>().ln() + x[0].max(1.0) - x[usize::from(idx % 3 == 0)];
            assert_eq!(tally.n_examples, 1);
            assert!((tally.loss_nats_sum - loss).abs() <= 1e-5 * (1.0 + loss), "{idx}: {} for {loss}", tally.loss_nats_sum);
        }
        assert_eq!(tallies(1), all);
        assert_eq!(tallies(100), all);
    }
}
