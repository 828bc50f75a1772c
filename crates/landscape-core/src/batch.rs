//! Examples as networks take them, and the source they come from.

use crate::error::{Error, Result};

/// What the examples of a batch should give.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets<T> {
    /// A class label per example, or one at each place of an example (the next token), example after example. Which label counts for
    /// nothing is for the objective to say.
    Classes(Vec<u32>),
    /// `n_outputs` numbers per example.
    Values(Vec<T>),
}

/// A batch: inputs in the outside's order (`[n, c, h, w]`, `[n, features]`, `[n, places]` of tokens or any other, row-major) and their
/// targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples<T> {
    /// The inputs.
    pub inputs: Vec<T>,
    /// How many examples.
    pub n_examples: usize,
    /// Their targets.
    pub targets: Targets<T>,
}

/// A source of batches. A batch, its augmentation included, is a pure function of (seed, epoch, index).
pub trait Batches {
    /// What one batch is.
    type Batch;
    /// How many batches an epoch has.
    fn n_batches(&self) -> usize;
    /// Batch `idx` of `epoch`.
    ///
    /// # Errors
    /// If there is no such batch or it cannot be made.
    fn batch(&self, epoch: u64, idx: usize) -> Result<Self::Batch>;
}

/// The same batches in the same order in every epoch.
impl<B: Clone> Batches for Vec<B> {
    type Batch = B;

    fn n_batches(&self) -> usize {
        self.len()
    }

    fn batch(&self, _epoch: u64, idx: usize) -> Result<B> {
        self.get(idx).cloned().ok_or_else(|| Error::config("idx", format!("below {}", self.len()), idx))
    }
}
