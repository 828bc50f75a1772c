//! Tallies of candle tensors.

use crate::error::{Error, Result};
use crate::tally::Tally;
use candle_core::{DType, Device, Tensor};
use landscape_kernels::{View, loss};

impl Tally {
    /// Softmax cross-entropy and wrong answers of a batch of logits, in f64 if the logits are, else in f32.
    ///
    /// # Shapes
    /// `logits` `[n, n_classes]`, `labels` `[n]` of any integer type.
    ///
    /// # Errors
    /// If the shapes are others, a label is no class, or candle fails.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use landscape_core::Tally;
    /// let logits = Tensor::new(&[[0.0f32, 0.0], [2.0, -2.0]], &Device::Cpu)?;
    /// let tally = Tally::classes(&logits, &Tensor::new(&[1u32, 0], &Device::Cpu)?)?;
    /// assert_eq!(tally.error(), Some(0.5)); // of equal logits the first counts
    /// # Ok::<(), landscape_core::Error>(())
    /// ```
    pub fn classes(logits: &Tensor, labels: &Tensor) -> Result<Tally> {
        let &[n_rows, n_classes] = logits.dims() else {
            return Err(Error::config("logits", "of shape [n, n_classes]", format!("{:?}", logits.dims())));
        };
        if labels.dims() != [n_rows] || labels.dtype().is_float() {
            let got = format!("{:?} {:?}", labels.dtype(), labels.dims());
            return Err(Error::config("labels", format!("integers of shape [{n_rows}]"), got));
        }
        let labels = labels.to_device(&Device::Cpu)?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        let in_range = |label: &i64| u32::try_from(*label).ok().filter(|&label| (label as usize) < n_classes);
        if let Some((row, label)) = labels.iter().enumerate().find(|(_, label)| in_range(label).is_none()) {
            return Err(Error::config("labels", format!("from 0 to below {n_classes}"), format!("{label} in row {row}")));
        }
        let labels: Vec<u32> = labels.iter().filter_map(in_range).collect();
        let sums = if logits.dtype() == DType::F64 {
            loss::cross_entropy(n_rows, n_classes, View::Host(&host::<f64>(logits)?), (&labels).into(), None)?
        } else {
            loss::cross_entropy(n_rows, n_classes, View::Host(&host::<f32>(&logits.to_dtype(DType::F32)?)?), (&labels).into(), None)?
        };
        Ok(Tally { n_examples: n_rows as u64, loss_nats_sum: sums.loss_nats_sum, n_wrong: Some(sums.n_wrong) })
    }

    /// Squared error of a batch of outputs, mean over the outputs of each example: [`Tally::nll`] is PyTorch's `MSELoss`.
    ///
    /// # Shapes
    /// `outputs` and `targets` alike, examples first.
    ///
    /// # Errors
    /// If the shapes differ or there are no outputs, or candle fails.
    pub fn squared_error(outputs: &Tensor, targets: &Tensor) -> Result<Tally> {
        let n_rows = outputs.dims().first().copied().unwrap_or(1);
        if outputs.dims() != targets.dims() {
            return Err(Error::config("targets", format!("of shape {:?}", outputs.dims()), format!("{:?}", targets.dims())));
        }
        let n_outputs = outputs.dims().iter().skip(1).product();
        let sums = if outputs.dtype() == DType::F64 {
            let targets = host::<f64>(&targets.to_dtype(DType::F64)?)?;
            loss::squared_error(n_rows, n_outputs, View::Host(&host::<f64>(outputs)?), View::Host(&targets), None)?
        } else {
            let (outputs, targets) = (host::<f32>(&outputs.to_dtype(DType::F32)?)?, host::<f32>(&targets.to_dtype(DType::F32)?)?);
            loss::squared_error(n_rows, n_outputs, View::Host(&outputs), View::Host(&targets), None)?
        };
        Ok(Tally { n_examples: n_rows as u64, loss_nats_sum: sums.loss_nats_sum, n_wrong: None })
    }
}

fn host<S: candle_core::WithDType>(tensor: &Tensor) -> Result<Vec<S>> {
    Ok(tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use candle_nn::loss::{cross_entropy, mse};

    fn tensor<D: candle_core::NdArray>(values: D) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn the_sums_are_those_of_candle() {
        let logits = tensor(&[[1.0f32, -2.0, 0.5], [0.0, 3.0, 0.1], [9.0, 8.0, 7.0]]);
        let labels = tensor(&[0u32, 2, 0]);
        let expected = f64::from(cross_entropy(&logits, &labels).unwrap().to_scalar::<f32>().unwrap());
        for labels in [labels.clone(), labels.to_dtype(DType::I64).unwrap(), labels.to_dtype(DType::U8).unwrap()] {
            for dtype in [DType::F32, DType::F64] {
                let tally = Tally::classes(&logits.to_dtype(dtype).unwrap(), &labels).unwrap();
                assert_eq!((tally.n_examples, tally.n_wrong), (3, Some(1)));
                assert!((tally.nll() - expected).abs() < 1e-6);
            }
        }
        let targets = tensor(&[[0.0f32, 0.0, 0.0], [1.0, 1.0, 1.0], [9.0, 9.0, 9.0]]);
        let tally = Tally::squared_error(&logits, &targets).unwrap();
        assert!((tally.nll() - f64::from(mse(&logits, &targets).unwrap().to_scalar::<f32>().unwrap())).abs() < 1e-6);
        assert_eq!(tally.n_wrong, None);
        assert_eq!(Tally::squared_error(&tensor(&[3.0f64, 1.0]), &tensor(&[1.0f64, 1.0])).unwrap().nll(), 2.0);
    }

    #[test]
    fn wrong_shapes_and_labels_are_refused_by_name_and_nan_is_wrong() {
        let logits = tensor(&[[0.0f32, 1.0]]);
        for labels in [tensor(&[2u32]), tensor(&[-1i64]), tensor(&[0u32, 1]), tensor(&[0.0f32])] {
            assert!(Tally::classes(&logits, &labels).unwrap_err().to_string().contains("`labels`"));
        }
        assert!(Tally::classes(&tensor(&[0.0f32]), &tensor(&[0u32])).unwrap_err().to_string().contains("`logits`"));
        assert!(Tally::squared_error(&logits, &tensor(&[0.0f32, 1.0])).is_err());
        let tally = Tally::classes(&tensor(&[[f32::NAN, 1.0]]), &tensor(&[1u32])).unwrap();
        assert!(tally.nll().is_nan() && tally.n_wrong == Some(1));
    }
}
