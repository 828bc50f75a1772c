//! Batches by seed: what a batch holds, its augmentation included, depends on (seed, epoch, index) and on nothing else.

use super::augment::CropFlip;
use super::dataset::{Split, SplitTargets};
use super::normalize::Scaler;
use crate::error::{Error, Result};
use landscape_core::metadata::Normalization;
use landscape_core::{Batches, Examples, Seed, Targets};
use landscape_kernels::Real;
use std::sync::{Arc, Mutex, PoisonError};

pub use super::augment::Augmentation;

/// In which order an epoch takes the examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A new random order every epoch.
    Shuffled,
    /// As the split has them.
    Fixed,
}

/// What happens to the examples that do not fill a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastBatch {
    /// They make a smaller batch (PyTorch's default).
    Keep,
    /// They are left out.
    Drop,
}

/// How batches are made.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchConfig {
    /// Examples in a batch.
    pub batch_size: usize,
    /// The seed of order and augmentation.
    pub seed: Seed,
    /// In which order an epoch takes the examples.
    pub order: Order,
    /// What happens to images.
    pub augmentation: Augmentation,
    /// What happens to the examples that do not fill a batch.
    pub last: LastBatch,
    /// What happens to inputs after the division; see [`super::Dataset::normalization`].
    pub normalization: Option<Normalization>,
}

impl BatchConfig {
    /// Batches to measure with: all examples, unchanged, in their order.
    pub fn evaluation(batch_size: usize, normalization: Option<Normalization>) -> Self {
        let (order, augmentation, last) = (Order::Fixed, Augmentation::None, LastBatch::Keep);
        BatchConfig { batch_size, seed: Seed::new(0), order, augmentation, last, normalization }
    }

    /// Batches to train with: shuffled anew every epoch, a smaller last one kept.
    pub fn training(batch_size: usize, seed: Seed, augmentation: Augmentation, normalization: Option<Normalization>) -> Self {
        BatchConfig { batch_size, seed, order: Order::Shuffled, augmentation, last: LastBatch::Keep, normalization }
    }
}

/// Batches of a split.
///
/// The order of epoch e is a shuffle by `seed.child("order").child_idx(e)`; the example at position p of that epoch is augmented by
/// `seed.child("augmentation").child_idx(e).child_idx(p)`.
///
/// # Shapes
/// Inputs `[n, input_shape..]`, row-major.
///
/// ```
/// use landscape_core::{Batches, Seed};
/// use landscape_zoo::data::{self, batches::{Augmentation, BatchConfig, SeededBatches}};
/// let digits = data::open("digits")?;
/// let config = BatchConfig::training(128, Seed::new(1), Augmentation::None, digits.normalization.clone());
/// let batches = SeededBatches::<f32>::new(digits.train.clone(), config)?;
/// assert_eq!(batches.n_batches(), 12);
/// assert_eq!(batches.batch(0, 11)?.n_examples, 1437 - 11 * 128);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SeededBatches<T> {
    split: Arc<Split>,
    scaler: Scaler<T>,
    config: BatchConfig,
    /// The order of the epoch asked for last; batches of one epoch are mostly asked for one after the other.
    order: Mutex<Option<(u64, Arc<[usize]>)>>,
}

impl<T: Real> SeededBatches<T> {
    /// Batches of `split`.
    ///
    /// # Errors
    /// If `batch_size` is 0, no batch would be full where only full ones are kept, the normalisation does not fit the channels, or
    /// augmentation is asked for where inputs are no images.
    pub fn new(split: Arc<Split>, config: BatchConfig) -> Result<Self> {
        let least = if config.last == LastBatch::Drop { split.n_examples } else { usize::MAX };
        if config.batch_size == 0 || config.batch_size > least {
            let expected =
                if least == usize::MAX { "at least 1".into() } else { format!("from 1 to {least}, as only full batches are kept") };
            return Err(Error::config("batch_size", expected, config.batch_size));
        }
        if config.augmentation != Augmentation::None && split.input_shape.len() != 3 {
            let got = format!("{:?}", split.input_shape);
            return Err(Error::config("augmentation", "none where inputs are no images of shape [c, h, w]", got));
        }
        let scaler = Scaler::new(split.divisor, &split.input_shape, config.normalization.as_ref())?;
        Ok(SeededBatches { split, scaler, config, order: Mutex::new(None) })
    }

    /// How many examples an epoch has.
    pub fn n_examples(&self) -> usize {
        match self.config.last {
            LastBatch::Keep => self.split.n_examples,
            LastBatch::Drop => self.split.n_examples / self.config.batch_size * self.config.batch_size,
        }
    }

    /// The split that the batches are of.
    pub fn split(&self) -> &Arc<Split> {
        &self.split
    }

    /// The order of the examples in an epoch.
    fn order(&self, epoch: u64) -> Arc<[usize]> {
        // A panic elsewhere cannot leave a half-written order here, so a poisoned lock is as good as any.
        let mut cached = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((of, order)) if *of == epoch || self.config.order == Order::Fixed => order.clone(),
            _ => {
                let mut order: Vec<usize> = (0..self.split.n_examples).collect();
                if self.config.order == Order::Shuffled {
                    self.config.seed.child("order").child_idx(epoch).stream().shuffle(&mut order);
                }
                let order: Arc<[usize]> = order.into();
                *cached = Some((epoch, order.clone()));
                order
            }
        }
    }

    /// Appends example `idx` as numbers.
    fn extend_plain(&self, out: &mut Vec<T>, idx: usize) {
        let width: usize = self.split.input_shape.iter().product();
        let n_channel = width / self.scaler.n_channels();
        for c in 0..self.scaler.n_channels() {
            let start = idx * width + c * n_channel;
            self.scaler.extend(out, c, &self.split.inputs, start..start + n_channel);
        }
    }
}

impl<T: Real> Batches for SeededBatches<T> {
    type Batch = Examples<T>;

    fn n_batches(&self) -> usize {
        self.n_examples().div_ceil(self.config.batch_size)
    }

    fn batch(&self, epoch: u64, idx: usize) -> landscape_core::Result<Examples<T>> {
        if idx >= self.n_batches() {
            return Err(landscape_core::Error::config("idx", format!("below {} batches", self.n_batches()), idx));
        }
        let start = idx * self.config.batch_size;
        let positions = start..start.saturating_add(self.config.batch_size).min(self.split.n_examples);
        let order = self.order(epoch);
        let members = &order[positions.clone()];
        let width: usize = self.split.input_shape.iter().product();
        let mut inputs = Vec::with_capacity(members.len() * width);
        match (self.config.augmentation, &self.split.input_shape[..]) {
            (Augmentation::CropFlip { padding }, &[c, h, w]) => {
                let black: Vec<T> = (0..c).map(|c| self.scaler.value(c, 0.0)).collect();
                let seed = self.config.seed.child("augmentation").child_idx(epoch);
                let mut image = Vec::with_capacity(width);
                for (position, &member) in positions.zip(members) {
                    image.clear();
                    self.extend_plain(&mut image, member);
                    CropFlip::draw(padding, seed.child_idx(position as u64)).extend(&mut inputs, &image, [h, w], &black);
                }
            }
            _ => members.iter().for_each(|&member| self.extend_plain(&mut inputs, member)),
        }
        let targets = match &self.split.targets {
            SplitTargets::Classes(labels) => Targets::Classes(members.iter().map(|&member| labels[member]).collect()),
            SplitTargets::Values { n_outputs, values } => {
                let row = |&member: &usize| &values[member * n_outputs..][..*n_outputs];
                Targets::Values(members.iter().flat_map(row).map(|&v| T::from_f64(v)).collect())
            }
            SplitTargets::Places { n_places, labels } => {
                Targets::Classes(members.iter().flat_map(|&member| &labels[member * n_places..][..*n_places]).copied().collect())
            }
        };
        Ok(Examples { inputs, n_examples: members.len(), targets })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::dataset::Inputs;
    use super::*;

    /// Image i holds 4 channels-by-pixels bytes 10 i, 10 i + 1, ...; its label is i.
    fn split(n: usize) -> Arc<Split> {
        let inputs = Inputs::U8((0..n).flat_map(|i| (0..4).map(move |p| (10 * i + p) as u8)).collect());
        let targets = SplitTargets::Classes((0..n as u32).collect());
        Arc::new(Split { inputs, n_examples: n, input_shape: vec![2, 1, 2], divisor: 1.0, targets })
    }

    fn config(batch_size: usize) -> BatchConfig {
        BatchConfig::training(batch_size, Seed::new(11), Augmentation::None, None)
    }

    fn labels(batch: &Examples<f64>) -> Vec<u32> {
        let Targets::Classes(labels) = &batch.targets else { panic!("labels are classes") };
        labels.clone()
    }

    #[test]
    fn an_epoch_takes_every_example_once_with_its_own_label() {
        let batches = SeededBatches::<f64>::new(split(10), config(4)).unwrap();
        assert_eq!(batches.n_batches(), 3);
        let mut orders = Vec::new();
        for epoch in 0..3 {
            let mut order = Vec::new();
            for idx in 0..3 {
                let batch = batches.batch(epoch, idx).unwrap();
                for (image, label) in batch.inputs.chunks(4).zip(labels(&batch)) {
                    assert_eq!(image, [0.0, 1.0, 2.0, 3.0].map(|p| f64::from(10 * label) + p));
                    order.push(label);
                }
            }
            orders.push(order.clone());
            order.sort_unstable();
            assert_eq!(order, (0..10).collect::<Vec<_>>());
        }
        assert!(orders[0] != orders[1] && orders[1] != orders[2]);
        assert!(batches.batch(0, 3).is_err());
    }

    #[test]
    fn a_batch_depends_on_seed_epoch_and_index_alone() {
        let augmented = BatchConfig { augmentation: Augmentation::CropFlip { padding: 1 }, ..config(3) };
        let one = SeededBatches::<f32>::new(split(10), augmented.clone()).unwrap();
        let other = SeededBatches::<f32>::new(split(10), augmented.clone()).unwrap();
        let asked = [(5, 2), (0, 0), (5, 1), (7, 3), (0, 3)];
        let expected: Vec<_> = asked.iter().map(|&(epoch, idx)| one.batch(epoch, idx).unwrap()).collect();
        for (&(epoch, idx), expected) in asked.iter().zip(&expected).rev() {
            assert_eq!(other.batch(epoch, idx).unwrap(), *expected);
        }
        std::thread::scope(|scope| {
            for (&(epoch, idx), expected) in asked.iter().zip(&expected) {
                let one = &one;
                scope.spawn(move || assert_eq!(one.batch(epoch, idx).unwrap(), *expected));
            }
        });
        let reseeded = SeededBatches::<f32>::new(split(10), BatchConfig { seed: Seed::new(12), ..augmented }).unwrap();
        assert_ne!(reseeded.batch(5, 2).unwrap(), expected[0]);
    }

    #[test]
    fn fixed_order_is_that_of_the_split_in_every_epoch() {
        let batches = SeededBatches::<f64>::new(split(5), BatchConfig::evaluation(2, None)).unwrap();
        for epoch in [0, 3] {
            let found: Vec<u32> = (0..3).flat_map(|idx| labels(&batches.batch(epoch, idx).unwrap())).collect();
            assert_eq!(found, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn the_last_batch_is_kept_or_dropped() {
        let sizes = |last, n| {
            let batches = SeededBatches::<f64>::new(split(n), BatchConfig { last, ..config(4) }).unwrap();
            let sizes: Vec<_> = (0..batches.n_batches()).map(|idx| batches.batch(0, idx).unwrap().n_examples).collect();
            assert_eq!(sizes.iter().sum::<usize>(), batches.n_examples());
            sizes
        };
        assert_eq!(sizes(LastBatch::Keep, 10), [4, 4, 2]);
        assert_eq!(sizes(LastBatch::Drop, 10), [4, 4]);
        assert_eq!(sizes(LastBatch::Keep, 8), [4, 4]);
        assert_eq!(sizes(LastBatch::Keep, 3), [3]);
        let refused = |config| SeededBatches::<f64>::new(split(3), config).err().unwrap().to_string();
        assert!(refused(config(0)).contains("`batch_size` must be at least 1"));
        assert!(refused(BatchConfig { last: LastBatch::Drop, ..config(4) }).contains("from 1 to 3"));
    }

    #[test]
    fn channels_are_normalised_apart_and_what_is_padded_is_black() {
        let normalization = Some(Normalization { mean: vec![1.0, 2.0], std: vec![2.0, 4.0] });
        let plain = SeededBatches::<f64>::new(split(3), BatchConfig::evaluation(3, normalization.clone())).unwrap();
        let batch = plain.batch(0, 0).unwrap();
        assert_eq!(batch.inputs[4..8], [(10.0 - 1.0) / 2.0, (11.0 - 1.0) / 2.0, (12.0 - 2.0) / 4.0, (13.0 - 2.0) / 4.0]);
        let config = BatchConfig { augmentation: Augmentation::CropFlip { padding: 5 }, normalization, ..config(3) };
        let batch = SeededBatches::<f64>::new(split(3), config).unwrap().batch(0, 0).unwrap();
        // Cut out of five pixels around two, most pixels are black: -1/2 in the first channel, -2/4 in the second.
        assert!(batch.inputs.iter().filter(|&&v| v == -0.5).count() > 6);
    }

    #[test]
    fn regression_targets_follow_their_examples() {
        let targets = SplitTargets::Values { n_outputs: 2, values: (0..10).map(f64::from).collect() };
        let split = Split { targets, ..Arc::unwrap_or_clone(split(5)) };
        let batch = SeededBatches::<f64>::new(Arc::new(split), config(5)).unwrap().batch(1, 0).unwrap();
        let Targets::Values(values) = batch.targets else { panic!("numbers") };
        for (image, pair) in batch.inputs.chunks(4).zip(values.chunks(2)) {
            assert_eq!(pair, [image[0] / 5.0, image[0] / 5.0 + 1.0]);
        }
    }

    #[test]
    fn augmentation_needs_images() {
        let flat = Arc::new(Split { input_shape: vec![4], ..Arc::unwrap_or_clone(split(3)) });
        let config = BatchConfig { augmentation: Augmentation::CropFlip { padding: 4 }, ..config(2) };
        assert!(SeededBatches::<f32>::new(flat, config).err().unwrap().to_string().contains("augmentation"));
    }
}
