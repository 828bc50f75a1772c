//! Batches decoded once and kept, for measurements that pass the same examples again and again.

use super::batches::SeededBatches;
use landscape_core::{Batches, Examples};
use landscape_kernels::Real;

/// Epoch 0 of a source: decoded and normalised once and kept where it fits, made anew for each pass where it does not. Either way the
/// batches are the source's own, so nothing that is measured depends on it.
///
/// ```
/// use landscape_core::Batches;
/// use landscape_zoo::data::{self, batches::{BatchConfig, SeededBatches}, held::HeldBatches};
/// let digits = data::open("digits")?;
/// let source = || SeededBatches::<f32>::new(digits.test.clone(), BatchConfig::evaluation(100, None));
/// let held = HeldBatches::new(source()?, 1 << 20)?;
/// assert_eq!((held.n_batches(), held.held_bytes()), (4, 360 * 64 * 4));
/// assert_eq!(held.batch(0, 3)?, source()?.batch(0, 3)?);
/// assert_eq!(HeldBatches::new(source()?, 1000)?.held_bytes(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct HeldBatches<T> {
    source: SeededBatches<T>,
    /// All of epoch 0, or none.
    held: Vec<Examples<T>>,
}

impl<T: Real> HeldBatches<T> {
    /// Decodes epoch 0, if its inputs take at most `max_bytes`.
    ///
    /// # Errors
    /// If a batch cannot be made.
    pub fn new(source: SeededBatches<T>, max_bytes: usize) -> landscape_core::Result<Self> {
        let width: usize = source.split().input_shape.iter().product();
        let n_bytes = source.n_examples().saturating_mul(width).saturating_mul(size_of::<T>());
        let n_held = if n_bytes <= max_bytes { source.n_batches() } else { 0 };
        let held = (0..n_held).map(|idx| source.batch(0, idx)).collect::<landscape_core::Result<_>>()?;
        Ok(HeldBatches { source, held })
    }

    /// How many examples an epoch has.
    pub fn n_examples(&self) -> usize {
        self.source.n_examples()
    }

    /// Bytes of the inputs that are kept.
    pub fn held_bytes(&self) -> usize {
        self.held.iter().map(|batch| size_of_val(batch.inputs.as_slice())).sum()
    }

    /// Shows every batch of epoch 0, in order; kept ones are lent and not copied.
    ///
    /// # Errors
    /// If a batch cannot be made, or `look` fails.
    pub fn for_each<E: From<landscape_core::Error>>(&self, mut look: impl FnMut(&Examples<T>) -> Result<(), E>) -> Result<(), E> {
        for idx in 0..self.n_batches() {
            match self.held.get(idx) {
                Some(batch) => look(batch)?,
                None => look(&self.source.batch(0, idx)?)?,
            }
        }
        Ok(())
    }
}

impl<T: Real> Batches for HeldBatches<T> {
    type Batch = Examples<T>;

    fn n_batches(&self) -> usize {
        self.source.n_batches()
    }

    fn batch(&self, epoch: u64, idx: usize) -> landscape_core::Result<Examples<T>> {
        match self.held.get(idx) {
            Some(batch) if epoch == 0 => Ok(batch.clone()),
            _ => self.source.batch(epoch, idx),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::batches::{Augmentation, BatchConfig};
    use super::super::dataset::{Inputs, Split, SplitTargets};
    use super::*;
    use landscape_core::Seed;
    use std::sync::Arc;

    #[test]
    fn held_and_made_anew_are_the_same() {
        let split = Arc::new(Split {
            inputs: Inputs::U8((0..7 * 12).collect()),
            n_examples: 7,
            input_shape: vec![1, 3, 4],
            divisor: 255.0,
            targets: SplitTargets::Classes((0..7).collect()),
        });
        let config = BatchConfig::training(3, Seed::new(5), Augmentation::CropFlip { padding: 1 }, None);
        let source = || SeededBatches::<f64>::new(split.clone(), config.clone()).unwrap();
        let plain = source();
        for (max_bytes, n_held) in [(7 * 12 * 8, 7 * 12 * 8), (7 * 12 * 8 - 1, 0), (0, 0)] {
            let held = HeldBatches::new(source(), max_bytes).unwrap();
            assert_eq!((held.held_bytes(), held.n_batches()), (n_held, 3));
            for epoch in 0..3 {
                (0..3).for_each(|idx| assert_eq!(held.batch(epoch, idx).unwrap(), plain.batch(epoch, idx).unwrap()));
            }
            let mut n_seen = 0;
            held.for_each(|batch| {
                assert_eq!(*batch, plain.batch(0, n_seen).unwrap());
                n_seen += 1;
                Ok::<_, landscape_core::Error>(())
            })
            .unwrap();
            assert_eq!(n_seen, 3);
            assert!(held.batch(0, 3).is_err());
        }
    }
}
