//! A data set in memory: bytes stay bytes until a batch is made of them.

use super::augment::Augmentation;
use super::{hash, stratify};
use crate::error::{Error, Result};
use landscape_core::Seed;
use landscape_core::metadata::Normalization;
use landscape_kernels::loss::IGNORED;
use std::sync::Arc;

/// The inputs of a split, as the file holds them.
#[derive(Debug, Clone, PartialEq)]
pub enum Inputs {
    /// Bytes: pixels.
    U8(Vec<u8>),
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
    /// Whole numbers that a network looks up.
    Tokens(Vec<u32>),
}

impl Inputs {
    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Inputs::U8(values) => values.len(),
            Inputs::F32(values) => values.len(),
            Inputs::F64(values) => values.len(),
            Inputs::Tokens(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The targets of a split.
#[derive(Debug, Clone, PartialEq)]
pub enum SplitTargets {
    /// A class per example.
    Classes(Vec<u32>),
    /// `n_outputs` numbers per example, row-major.
    Values {
        /// Numbers per example.
        n_outputs: usize,
        /// The numbers.
        values: Vec<f64>,
    },
    /// A class at each of `n_places` places of an example, such as the next token; [`landscape_kernels::loss::IGNORED`] counts for nothing.
    Places {
        /// Places per example.
        n_places: usize,
        /// The classes, row-major.
        labels: Vec<u32>,
    },
}

/// Examples in a fixed order.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// The inputs, `[n_examples, input_shape..]`, row-major (images as NCHW).
    pub inputs: Inputs,
    /// How many examples.
    pub n_examples: usize,
    /// The shape of one input: `[c, h, w]` or `[features]`.
    pub input_shape: Vec<usize>,
    /// What inputs are divided by before anything else: 255 for pixels, 16 for digits, 1 for numbers that stay as they are.
    pub divisor: f64,
    /// The targets.
    pub targets: SplitTargets,
}

impl Split {
    /// The examples at `indices`, in that order.
    ///
    /// # Errors
    /// If an index is out of range.
    pub fn select(&self, indices: &[usize]) -> Result<Split> {
        if let Some(&idx) = indices.iter().find(|&&idx| idx >= self.n_examples) {
            return Err(Error::config("indices", format!("below {}", self.n_examples), idx));
        }
        let width: usize = self.input_shape.iter().product();
        let inputs = match &self.inputs {
            Inputs::U8(values) => Inputs::U8(rows(values, width, indices)),
            Inputs::F32(values) => Inputs::F32(rows(values, width, indices)),
            Inputs::F64(values) => Inputs::F64(rows(values, width, indices)),
            Inputs::Tokens(values) => Inputs::Tokens(rows(values, width, indices)),
        };
        let targets = match &self.targets {
            SplitTargets::Classes(labels) => SplitTargets::Classes(rows(labels, 1, indices)),
            SplitTargets::Values { n_outputs, values } => {
                SplitTargets::Values { n_outputs: *n_outputs, values: rows(values, *n_outputs, indices) }
            }
            SplitTargets::Places { n_places, labels } => {
                SplitTargets::Places { n_places: *n_places, labels: rows(labels, *n_places, indices) }
            }
        };
        let input_shape = self.input_shape.clone();
        Ok(Split { inputs, n_examples: indices.len(), input_shape, divisor: self.divisor, targets })
    }

    /// A seeded part of the examples that has the classes in the whole's proportions (largest remainders), in the whole's order.
    ///
    /// It has `round(fraction · n)` examples, at least one. Without classes, all examples count as one class.
    ///
    /// # Errors
    /// If `fraction` is not in (0, 1].
    pub fn subset_stratified(&self, fraction: f64, seed: Seed) -> Result<Split> {
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(Error::config("fraction", "above 0 and at most 1", fraction));
        }
        let n_chosen = ((self.n_examples as f64 * fraction).round() as usize).clamp(1, self.n_examples.max(1));
        let indices = match &self.targets {
            SplitTargets::Classes(labels) => stratify::choose(labels, n_chosen, seed),
            SplitTargets::Values { .. } | SplitTargets::Places { .. } => stratify::choose(&vec![0; self.n_examples], n_chosen, seed),
        };
        self.select(&indices)
    }

    /// Fails unless sizes agree with one another; the readers have said more exactly before what is wrong with a file.
    fn check(&self, n_classes: Option<usize>) -> Result<()> {
        let width: usize = self.input_shape.iter().product();
        if self.n_examples == 0 || width == 0 {
            return Err(Error::config("split", "at least one example of at least one number", format!("{} of {width}", self.n_examples)));
        }
        let expected = self.n_examples.checked_mul(width);
        if expected != Some(self.inputs.len()) {
            return Err(Error::config("inputs", format!("{} x {width} numbers", self.n_examples), self.inputs.len()));
        }
        if !(self.divisor.is_finite() && self.divisor > 0.0) {
            return Err(Error::config("divisor", "positive", self.divisor));
        }
        let (n_targets, bad_label) = match (&self.targets, n_classes) {
            (SplitTargets::Classes(labels), Some(n_classes)) => {
                (Some(labels.len()), labels.iter().find(|&&label| label as usize >= n_classes))
            }
            (SplitTargets::Places { n_places, labels }, Some(n_classes)) => {
                let bad = |label: &&u32| **label as usize >= n_classes && **label != IGNORED;
                (labels.len().checked_div(*n_places), labels.iter().find(bad))
            }
            (SplitTargets::Values { n_outputs, values }, None) => (values.len().checked_div(*n_outputs), None),
            _ => return Err(Error::config("targets", "classes with `n_classes`, numbers without", format!("{n_classes:?}"))),
        };
        match bad_label {
            Some(label) => Err(Error::config("targets", format!("labels below {}", n_classes.unwrap_or(0)), label)),
            None if n_targets == Some(self.n_examples) => Ok(()),
            None => Err(Error::config("targets", format!("one per example ({})", self.n_examples), format!("{n_targets:?}"))),
        }
    }
}

fn rows<V: Copy>(values: &[V], width: usize, indices: &[usize]) -> Vec<V> {
    let mut out = Vec::with_capacity(indices.len() * width);
    indices.iter().for_each(|&idx| out.extend_from_slice(&values[idx * width..][..width]));
    out
}

/// A data set: examples to train with, examples to test with, and how they are commonly prepared.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// `digits`, `mnist`, `fashion`, `cifar10`, `cifar100`, `npz`, `text`, `bytes`, or the caller's own name.
    pub name: String,
    /// The examples to train with.
    pub train: Arc<Split>,
    /// The examples to test with.
    pub test: Arc<Split>,
    /// The shape of one input: `[c, h, w]` or `[features]`.
    pub input_shape: Vec<usize>,
    /// How many classes there are; none for regression.
    pub n_classes: Option<usize>,
    /// What happens to inputs after the division; none by default.
    pub normalization: Option<Normalization>,
    /// What training does to images unless told otherwise; none by default.
    pub augmentation: Augmentation,
    /// The SHA-256 of the decoded content, in hexadecimal: the same for the same examples in any container.
    pub sha256: String,
}

impl Dataset {
    /// A data set from its parts, without normalisation and augmentation.
    ///
    /// # Errors
    /// If the parts do not fit one another.
    pub fn new(name: &str, n_classes: Option<usize>, train: Split, test: Split) -> Result<Self> {
        train.check(n_classes)?;
        test.check(n_classes)?;
        if train.input_shape != test.input_shape || train.divisor != test.divisor {
            let [expected, got] = [&train, &test].map(|split| format!("{:?} divided by {}", split.input_shape, split.divisor));
            return Err(Error::config("test", format!("inputs like those of `train`, {expected}"), got));
        }
        let per_target = |split: &Split| match split.targets {
            SplitTargets::Values { n_outputs: n, .. } | SplitTargets::Places { n_places: n, .. } => n,
            SplitTargets::Classes(_) => 0,
        };
        if per_target(&train) != per_target(&test) {
            return Err(Error::config("test", format!("{} numbers per target as `train`", per_target(&train)), per_target(&test)));
        }
        let sha256 = hash::of_content(n_classes, &train, &test);
        let input_shape = train.input_shape.clone();
        let (train, test) = (Arc::new(train), Arc::new(test));
        Ok(Dataset {
            name: name.to_owned(),
            train,
            test,
            input_shape,
            n_classes,
            normalization: None,
            augmentation: Augmentation::None,
            sha256,
        })
    }

    /// How many outputs a network for these data has: classes, or numbers per target.
    pub fn n_outputs(&self) -> usize {
        match (&self.train.targets, self.n_classes) {
            (SplitTargets::Values { n_outputs, .. }, _) => *n_outputs,
            (SplitTargets::Classes(_) | SplitTargets::Places { .. }, n_classes) => n_classes.unwrap_or(0),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn split(n: usize) -> Split {
        let targets = SplitTargets::Classes((0..n).map(|i| u32::from(i.is_multiple_of(4))).collect());
        Split { inputs: Inputs::F32((0..2 * n).map(|i| i as f32).collect()), n_examples: n, input_shape: vec![2], divisor: 1.0, targets }
    }

    #[test]
    fn a_stratified_part_keeps_proportions_and_order() {
        let whole = split(400);
        let part = whole.subset_stratified(0.1, Seed::new(1)).unwrap();
        let SplitTargets::Classes(labels) = &part.targets else { panic!("labels are classes") };
        assert_eq!((part.n_examples, labels.iter().filter(|&&l| l == 1).count()), (40, 10));
        let Inputs::F32(inputs) = &part.inputs else { panic!("numbers stay what they are") };
        for (pair, &label) in inputs.chunks(2).zip(labels) {
            let idx = pair[0] as usize / 2;
            assert_eq!((pair[1] as usize, label), (2 * idx + 1, u32::from(idx.is_multiple_of(4))), "inputs and labels stay together");
        }
        assert!(inputs.chunks(2).is_sorted_by(|a, b| a[0] < b[0]));
        assert_eq!(part, whole.subset_stratified(0.1, Seed::new(1)).unwrap());
        assert_ne!(part, whole.subset_stratified(0.1, Seed::new(2)).unwrap());
        assert_eq!(whole, whole.subset_stratified(1.0, Seed::new(3)).unwrap());
        assert_eq!(whole.subset_stratified(1e-9, Seed::new(3)).unwrap().n_examples, 1);
        for fraction in [0.0, -0.1, 1.1, f64::NAN] {
            assert!(whole.subset_stratified(fraction, Seed::new(1)).is_err());
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let refused = |change: fn(&mut Split), n_classes| {
            let mut test = split(8);
            change(&mut test);
            Dataset::new("own", n_classes, split(8), test).err().unwrap().to_string()
        };
        assert!(Dataset::new("own", Some(2), split(8), split(5)).is_ok());
        assert!(refused(|_| (), Some(1)).contains("labels below 1"));
        assert!(refused(|_| (), None).contains("n_classes"));
        assert!(refused(|s| s.n_examples = 7, Some(2)).contains("inputs"));
        assert!(refused(|s| s.n_examples = 0, Some(2)).contains("at least one"));
        assert!(refused(|s| s.divisor = 0.0, Some(2)).contains("divisor"));
        assert!(refused(|s| s.divisor = 2.0, Some(2)).contains("divided by"));
        assert!(refused(|s| s.targets = SplitTargets::Classes(vec![0]), Some(2)).contains("one per example"));
        assert!(refused(|s| s.targets = SplitTargets::Values { n_outputs: 0, values: vec![] }, None).contains("targets"));
        assert!(split(3).select(&[3]).is_err());
    }
}
