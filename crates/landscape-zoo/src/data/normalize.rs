//! How stored inputs become numbers for a network: divided, then centred and scaled per channel.

use super::dataset::Inputs;
use crate::error::{Error, Result};
use landscape_core::metadata::Normalization;
use landscape_kernels::Real;
use std::ops::Range;

/// Tables for more channels than this cost more than they save.
const MAX_TABLES: usize = 64;

/// x ↦ (x/divisor − mean)/std per channel, in double precision and rounded once at the end.
///
/// Bytes go through a table of 256 entries per channel. PyTorch's `ToTensor` and `Normalize` do the same in single precision with a
/// rounding after every operation, so results may differ in the last place.
#[derive(Debug, Clone)]
pub(crate) struct Scaler<T> {
    divisor: f64,
    /// One entry per channel; one channel holds everything where all are treated alike.
    mean: Vec<f64>,
    std: Vec<f64>,
    tables: Vec<[T; 256]>,
}

impl<T: Real> Scaler<T> {
    /// For inputs of this shape; the channels are its first dimension. `normalization` has one entry for all or one per channel.
    pub(crate) fn new(divisor: f64, input_shape: &[usize], normalization: Option<&Normalization>) -> Result<Self> {
        let (mean, std): (&[f64], &[f64]) = normalization.map_or((&[0.0], &[1.0]), |n| (&n.mean, &n.std));
        let n_channels = input_shape.first().copied().unwrap_or(1);
        for (field, values) in [("normalization mean", mean), ("normalization std", std)] {
            if values.len() != 1 && values.len() != n_channels {
                let expected = format!("one number for all or one per channel ({n_channels})");
                return Err(Error::config(field, expected, format!("{} numbers", values.len())));
            }
        }
        if let Some(value) = mean.iter().find(|value| !value.is_finite()) {
            return Err(Error::config("normalization mean", "finite", value));
        }
        if let Some(value) = std.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
            return Err(Error::config("normalization std", "positive and finite", value));
        }
        let n_distinct = mean.len().max(std.len());
        let spread = |values: &[f64]| if values.len() == n_distinct { values.to_vec() } else { vec![values[0]; n_distinct] };
        let mut scaler = Scaler { divisor, mean: spread(mean), std: spread(std), tables: Vec::new() };
        if n_distinct <= MAX_TABLES {
            scaler.tables = (0..n_distinct).map(|c| std::array::from_fn(|byte| scaler.value(c, byte as f64))).collect();
        }
        Ok(scaler)
    }

    /// How many channels are treated apart; one if all are alike.
    pub(crate) fn n_channels(&self) -> usize {
        self.mean.len()
    }

    /// The number that `stored` becomes in channel `c`; if all are treated alike, in any.
    pub(crate) fn value(&self, c: usize, stored: f64) -> T {
        let c = if self.mean.len() == 1 { 0 } else { c };
        T::from_f64((stored / self.divisor - self.mean[c]) / self.std[c])
    }

    /// Appends what the stored numbers at `range`, all of channel `c`, become.
    pub(crate) fn extend(&self, out: &mut Vec<T>, c: usize, inputs: &Inputs, range: Range<usize>) {
        let c = if self.mean.len() == 1 { 0 } else { c };
        match (inputs, self.tables.get(c)) {
            (Inputs::U8(values), Some(table)) => out.extend(values[range].iter().map(|&byte| table[usize::from(byte)])),
            (Inputs::U8(values), None) => out.extend(values[range].iter().map(|&byte| self.value(c, f64::from(byte)))),
            (Inputs::F32(values), _) => out.extend(values[range].iter().map(|&v| self.value(c, f64::from(v)))),
            (Inputs::F64(values), _) => out.extend(values[range].iter().map(|&v| self.value(c, v))),
            // What is looked up stays what it is.
            (Inputs::Tokens(values), _) => out.extend(values[range].iter().map(|&v| T::from_f64(f64::from(v)))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn normalization(mean: &[f64], std: &[f64]) -> Normalization {
        Normalization { mean: mean.to_vec(), std: std.to_vec() }
    }

    #[test]
    fn divides_then_centres_then_scales() {
        let n = normalization(&[0.25, 0.5], &[0.5, 2.0]);
        let scaler = Scaler::<f64>::new(255.0, &[2, 1, 2], Some(&n)).unwrap();
        let mut out = Vec::new();
        let inputs = Inputs::U8(vec![0, 255, 0, 51]);
        scaler.extend(&mut out, 0, &inputs, 0..2);
        scaler.extend(&mut out, 1, &inputs, 2..4);
        assert_eq!(out, [-0.5, 1.5, -0.25, (0.2 - 0.5) / 2.0]);
    }

    #[test]
    fn tables_and_values_agree_and_one_number_does_for_all_channels() {
        let alike = Scaler::<f32>::new(255.0, &[3, 8, 8], Some(&normalization(&[0.1307], &[0.3081]))).unwrap();
        let apart = Scaler::<f32>::new(255.0, &[3, 8, 8], Some(&normalization(&[0.1307], &[0.3081; 3]))).unwrap();
        assert_eq!((alike.n_channels(), apart.n_channels()), (1, 3));
        let bytes = Inputs::U8((0..=255).collect());
        let floats = Inputs::F32((0..=255u8).map(f32::from).collect());
        let many = Scaler::<f32>::new(255.0, &[100], Some(&normalization(&[0.1307; 100], &[0.3081]))).unwrap();
        let mut outs = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        alike.extend(&mut outs[0], 2, &bytes, 0..256);
        apart.extend(&mut outs[1], 2, &bytes, 0..256);
        alike.extend(&mut outs[2], 0, &floats, 0..256);
        many.extend(&mut outs[3], 99, &bytes, 0..256);
        assert!(outs.iter().all(|out| *out == outs[0] && out.len() == 256));
    }

    #[test]
    fn without_normalisation_and_divisor_numbers_stay_as_they_are() {
        let scaler = Scaler::<f32>::new(1.0, &[4], None).unwrap();
        let values = vec![0.1f32, -3.4e38, 1e-45, f32::MIN_POSITIVE];
        let mut out = Vec::new();
        scaler.extend(&mut out, 0, &Inputs::F32(values.clone()), 0..4);
        assert_eq!(out, values);
    }

    #[test]
    fn numbers_that_do_not_fit_the_channels_are_refused() {
        for (mean, std) in [(&[0.0, 0.0][..], &[1.0][..]), (&[0.0], &[0.0]), (&[0.0], &[-1.0]), (&[f64::NAN], &[1.0]), (&[], &[1.0])] {
            let error = Scaler::<f64>::new(255.0, &[3, 4, 4], Some(&normalization(mean, std))).err().unwrap().to_string();
            assert!(error.contains("normalization"), "{error}");
        }
    }
}
