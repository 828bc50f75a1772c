//! Batches of two tensors, in another order in every epoch.

use super::task::TensorBatch;
use crate::error::{Error, Result};
use candle_core::Tensor;
use landscape_core::{Batches, Seed};

/// All examples of two tensors in batches, shuffled anew in every epoch; the last batch takes what is left.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use landscape_core::Batches;
/// use landscape_train::bound::Shuffled;
/// let (x, y) = (Tensor::arange(0f32, 10.0, &Device::Cpu)?, Tensor::arange(0u32, 10, &Device::Cpu)?);
/// let batches = Shuffled::new(&x, &y, 4, 0)?;
/// assert_eq!(batches.n_batches(), 3);
/// assert_eq!(batches.batch(0, 2)?.0.dims(), [2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Shuffled {
    inputs: Tensor,
    targets: Tensor,
    batch_size: usize,
    seed: Seed,
}

impl Shuffled {
    /// Batches of `batch_size` examples; the order of an epoch is a function of seed and epoch.
    ///
    /// # Errors
    /// If there are no examples, not as many targets as inputs, or `batch_size` is zero.
    pub fn new(inputs: &Tensor, targets: &Tensor, batch_size: usize, seed: u64) -> Result<Self> {
        let n_examples = inputs.dims().first().copied().unwrap_or(0);
        if n_examples == 0 {
            return Err(Error::config("inputs", "at least one example", format!("a tensor of shape {:?}", inputs.dims())));
        }
        if targets.dims().first() != Some(&n_examples) {
            return Err(Error::config("targets", format!("{n_examples} long"), format!("a tensor of shape {:?}", targets.dims())));
        }
        if batch_size == 0 {
            return Err(Error::config("batch_size", "at least 1", 0));
        }
        let (inputs, targets) = (inputs.detach(), targets.detach());
        Ok(Shuffled { inputs, targets, batch_size, seed: Seed::new(seed).child("batches") })
    }

    fn n_examples(&self) -> usize {
        self.inputs.dims()[0]
    }
}

impl Batches for Shuffled {
    type Batch = TensorBatch;

    fn n_batches(&self) -> usize {
        self.n_examples().div_ceil(self.batch_size)
    }

    fn batch(&self, epoch: u64, idx: usize) -> landscape_core::Result<TensorBatch> {
        if idx >= self.n_batches() {
            return Err(landscape_core::Error::config("idx", format!("below {}", self.n_batches()), idx));
        }
        let mut order: Vec<u32> = (0..self.n_examples() as u32).collect();
        self.seed.child_idx(epoch).stream().shuffle(&mut order);
        let start = idx * self.batch_size;
        let rows = &order[start..self.n_examples().min(start + self.batch_size)];
        let rows = Tensor::new(rows, self.inputs.device())?;
        Ok((self.inputs.index_select(&rows, 0)?, self.targets.index_select(&rows.to_device(self.targets.device())?, 0)?))
    }
}
