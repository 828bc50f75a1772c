//! What is measured between a candle model's outputs and its targets.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor, WithDType};
use landscape_core::Tally;
use landscape_kernels::{Real, View, ViewMut, loss};
use std::sync::Arc;

/// A user's own loss: outputs and targets to the mean over the examples.
type MeanLoss<'a> = Arc<dyn Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor> + 'a>;

/// What is measured.
#[derive(Clone)]
pub(super) enum Loss<'a> {
    Classes,
    SquaredError,
    Mean(MeanLoss<'a>),
}

impl Loss<'_> {
    /// What a batch of outputs gives.
    pub fn tally(&self, outputs: &Tensor, targets: &Tensor) -> Result<Tally> {
        Ok(match self {
            Loss::Classes => Tally::classes(outputs, targets)?,
            Loss::SquaredError => Tally::squared_error(outputs, &targets.to_device(outputs.device())?)?,
            Loss::Mean(mean) => tally_of_mean(&mean(outputs, &targets_for(outputs, targets)?)?, targets)?,
        })
    }

    /// The tally, and a scalar whose gradient is that of the *mean* loss.
    ///
    /// The built-in losses take their gradient at the outputs from our kernels, so that a candle model is driven by the same numbers
    /// as a network of the executor's: the scalar is then Σ outputs·∂loss/∂outputs, with the second factor held constant.
    pub fn root(&self, outputs: &Tensor, targets: &Tensor) -> Result<(Tally, Tensor)> {
        if let Loss::Mean(mean) = self {
            let loss = mean(outputs, &targets_for(outputs, targets)?)?;
            return Ok((tally_of_mean(&loss, targets)?, loss));
        }
        let tally = self.tally(outputs, targets)?;
        let slope = match outputs.dtype() {
            DType::F64 => self.slope::<f64>(outputs, targets)?,
            _ => self.slope::<f32>(outputs, targets)?,
        };
        let slope = slope.to_dtype(outputs.dtype())?.to_device(outputs.device())?;
        Ok((tally, (outputs * slope)?.sum_all()?))
    }

    /// ∂(mean loss)/∂outputs, of outputs and targets that a tally was made of.
    fn slope<T: Real + WithDType>(&self, outputs: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let n_rows = outputs.dims().first().copied().unwrap_or(1);
        let n_columns = outputs.dims().iter().skip(1).product();
        let values = host::<T>(&outputs.to_dtype(T::DTYPE)?)?;
        let mut slope = vec![T::ZERO; values.len()];
        let into = Some((ViewMut::Host(&mut slope[..]), 1.0 / n_rows as f64));
        match self {
            Loss::Classes => {
                let labels = host::<u32>(&targets.to_dtype(DType::U32)?)?;
                loss::cross_entropy(n_rows, n_columns, View::Host(&values), (&labels).into(), into)?;
            }
            Loss::SquaredError => {
                let targets = host::<T>(&targets.to_dtype(T::DTYPE)?)?;
                loss::squared_error(n_rows, n_columns, View::Host(&values), View::Host(&targets), into)?;
            }
            Loss::Mean(_) => unreachable!("a loss of the user's own is differentiated by candle"),
        }
        Ok(Tensor::from_vec(slope, outputs.shape(), &Device::Cpu)?)
    }
}

/// Float targets in the precision of the outputs, on their device.
fn targets_for(outputs: &Tensor, targets: &Tensor) -> candle_core::Result<Tensor> {
    super::model::fit_input(targets, outputs.device(), outputs.dtype())
}

fn tally_of_mean(loss: &Tensor, targets: &Tensor) -> Result<Tally> {
    if loss.elem_count() != 1 {
        return Err(Error::config("loss", "one number, the mean over the examples", format!("a tensor of shape {:?}", loss.dims())));
    }
    let n_examples = targets.dims().first().copied().unwrap_or(1) as u64;
    let mean = super::leaves::numbers(loss)?[0];
    Ok(Tally { n_examples, loss_nats_sum: mean * n_examples as f64, n_wrong: None })
}

fn host<V: WithDType>(tensor: &Tensor) -> candle_core::Result<Vec<V>> {
    tensor.detach().to_device(&Device::Cpu)?.flatten_all()?.to_vec1()
}
