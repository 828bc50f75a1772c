//! A bound model with a loss and data: what path algorithms can work on.

use super::check::{self, GradientCheck};
use super::loss::Loss;
use super::model::Bound;
use super::refresh;
use crate::error::{Error, Result};
use candle_core::{Tensor, WithDType};
use landscape_core::{Batches, Buffers, Coefficients, ControlPoints, Flat, Norm, NormRefresh, Objective, Pass, Stateful, Tally};
use landscape_kernels::{Accumulate, Real};
use std::sync::Arc;

/// Inputs and targets, examples first.
pub type TensorBatch = (Tensor, Tensor);

/// Batches that a task holds on to.
pub(super) type Data<'a> = Arc<dyn Batches<Batch = TensorBatch> + 'a>;

/// A candle model's loss on its own training data.
///
/// It can be measured for every model. The first gradient is preceded by a check against finite differences, which refuses a model
/// whose gradients candle gets wrong: see [`GradientCheck`].
pub struct Task<'a, T> {
    pub(super) model: Bound<'a, T>,
    pub(super) train: Data<'a>,
    pub(super) test: Option<Data<'a>>,
    loss: Loss<'a>,
    check: GradientCheck,
    /// For evaluation and training mode: the parameters that rightly have no gradient, once that is known.
    has_none: [Option<Vec<bool>>; 2],
}

impl<'a, T: Real + WithDType> Bound<'a, T> {
    /// Softmax cross-entropy of the outputs as logits `[n, n_classes]` against integer labels `[n]`.
    pub fn classes(self, batches: impl Batches<Batch = TensorBatch> + 'a) -> Task<'a, T> {
        self.task(Loss::Classes, Arc::new(batches))
    }

    /// Squared error of outputs against targets of the same shape, mean over the outputs of an example (PyTorch's `MSELoss`).
    pub fn squared_error(self, batches: impl Batches<Batch = TensorBatch> + 'a) -> Task<'a, T> {
        self.task(Loss::SquaredError, Arc::new(batches))
    }

    /// A loss of your own: from outputs and targets to one number, the mean over the examples.
    pub fn loss(
        self,
        batches: impl Batches<Batch = TensorBatch> + 'a,
        mean_loss: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor> + 'a,
    ) -> Task<'a, T> {
        self.task(Loss::Mean(Arc::new(mean_loss)), Arc::new(batches))
    }

    fn task(self, loss: Loss<'a>, train: Data<'a>) -> Task<'a, T> {
        Task { model: self, train, test: None, loss, check: GradientCheck::First, has_none: [None, None] }
    }
}

impl<'a, T: Real + WithDType> Task<'a, T> {
    /// With test data, which profiles are measured on too.
    pub fn with_test(mut self, batches: impl Batches<Batch = TensorBatch> + 'a) -> Self {
        self.test = Some(Arc::new(batches));
        self
    }

    /// With or without the check of candle's gradients.
    pub fn with_check(mut self, check: GradientCheck) -> Self {
        self.check = check;
        self
    }

    /// The model.
    pub fn model(&self) -> &Bound<'a, T> {
        &self.model
    }

    /// Another one at the same point, which shares data and loss and has a model of its own.
    ///
    /// # Errors
    /// If the model's constructor fails.
    pub fn fork(&self) -> Result<Self> {
        let (train, test, loss) = (self.train.clone(), self.test.clone(), self.loss.clone());
        Ok(Task { model: self.model.fork()?, train, test, loss, check: self.check, has_none: self.has_none.clone() })
    }

    /// Checks candle's gradients of the model at its present point, on a few examples of a batch.
    ///
    /// # Errors
    /// [`Error::Gradient`], naming the first parameter whose gradient is wrong or missing; what running the model yields.
    pub fn check_gradients(&self, batch: &TensorBatch, norm: Norm) -> Result<()> {
        self.checked(batch, norm).map(|_| ())
    }

    /// Checks the gradients of one mode, the first time that it is asked for.
    pub(super) fn ensure_checked(&mut self, batch: &TensorBatch, norm: Norm) -> Result<()> {
        let mode = usize::from(norm == Norm::Batch);
        if self.has_none[mode].is_none() {
            // An evaluation finds out whether the model copied its weights; it changes nothing.
            self.model.forward(&batch.0, false)?;
            self.has_none[mode] = Some(match self.check {
                GradientCheck::First => self.checked(batch, norm)?,
                GradientCheck::Never => Vec::new(),
            });
        }
        Ok(())
    }

    fn checked(&self, batch: &TensorBatch, norm: Norm) -> Result<Vec<bool>> {
        if self.model.copies_weights() {
            return Err(Error::Gradient {
                parameter: self.model.layout().tensors().first().map_or_else(String::new, |spec| spec.name.clone()),
                reason: "the model copies weights when it is built".to_owned(),
            });
        }
        check::check(&self.model, &self.loss, batch, norm == Norm::Batch)
    }

    fn try_measure(&mut self, (x, y): &TensorBatch, pass: Pass) -> Result<Tally> {
        let train = self.enter(pass)?;
        let outputs = self.model.forward(x, train)?;
        let tally = self.loss.tally(&outputs, y)?;
        self.leave(train)?;
        Ok(tally)
    }

    fn try_gradient(&mut self, batch: &TensorBatch, pass: Pass, into: &mut Flat<T>, mode: Accumulate) -> Result<Tally> {
        let train = self.enter(pass)?;
        self.model.layout().check_same("the model", into.layout(), "the gradient")?;
        self.ensure_checked(batch, pass.norm)?;
        let (x, y) = batch;
        let outputs = self.model.forward(x, train)?;
        let (tally, root) = self.loss.root(&outputs, y)?;
        let grads = root.backward()?;
        let has_none = self.has_none[usize::from(train)].as_deref().unwrap_or_default();
        let into = into.view_mut().host();
        for (idx, (spec, &leaf_idx)) in self.model.parts.layout.tensors().iter().zip(&self.model.parts.params).enumerate() {
            let into = &mut into[spec.range()];
            if mode == Accumulate::Overwrite {
                into.fill(T::ZERO);
            }
            let leaf = &self.model.instance.leaves[leaf_idx];
            match grads.get(leaf.var.as_tensor()) {
                Some(gradient) if gradient.dtype() == T::DTYPE && gradient.device().is_cpu() => {
                    landscape_kernels::candle::add_to(gradient, into)?;
                }
                Some(gradient) => {
                    let gradient: Vec<T> =
                        gradient.detach().to_device(&candle_core::Device::Cpu)?.to_dtype(T::DTYPE)?.flatten_all()?.to_vec1()?;
                    into.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
                }
                None if has_none.get(idx) == Some(&false) => {
                    let reason = format!("candle gives no gradient in {}, where it gave one when it was checked", T::NAME);
                    return Err(Error::Gradient { parameter: spec.name.clone(), reason });
                }
                None => {}
            }
        }
        self.leave(train)?;
        Ok(tally)
    }

    /// Whether the model runs in training mode.
    fn enter(&self, pass: Pass) -> Result<bool> {
        let train = pass.norm == Norm::Batch;
        if train || self.model.is_fresh { Ok(train) } else { Err(landscape_core::Error::StaleStatistics.into()) }
    }

    /// A pass in training mode has moved the running statistics.
    fn leave(&mut self, train: bool) -> Result<()> {
        if train && !self.model.buffers.is_empty() { self.model.reread_buffers() } else { Ok(()) }
    }
}

/// Ours as one of core's, which the seam speaks.
fn core_error(error: Error) -> landscape_core::Error {
    match error {
        Error::Core(error) => error,
        Error::Kernel(error) => error.into(),
        Error::Candle(error) => error.into(),
        other => landscape_core::Error::Objective(other.to_string()),
    }
}

impl<T: Real + WithDType> Objective for Task<'_, T> {
    type Batch = TensorBatch;
    type Scalar = T;

    fn weights(&self) -> &Flat<T> {
        self.model.weights()
    }

    fn move_to(&mut self, points: &ControlPoints<T>, c: &Coefficients) -> landscape_core::Result<()> {
        self.model.move_to(points, c).map_err(core_error)
    }

    fn measure(&mut self, batch: &TensorBatch, pass: Pass) -> landscape_core::Result<Tally> {
        self.try_measure(batch, pass).map_err(core_error)
    }

    fn gradient(&mut self, batch: &TensorBatch, pass: Pass, into: &mut Flat<T>, mode: Accumulate) -> landscape_core::Result<Tally> {
        self.try_gradient(batch, pass, into, mode).map_err(core_error)
    }

    fn collect(&mut self, _told: &mut dyn FnMut(Tally)) -> landscape_core::Result<()> {
        Ok(())
    }
}

impl<T: Real + WithDType> Stateful for Task<'_, T> {
    fn buffers(&self) -> &Buffers {
        self.model.buffers()
    }

    fn set_buffers(&mut self, buffers: &Buffers) -> landscape_core::Result<()> {
        self.model.set_buffers(buffers).map_err(core_error)
    }

    fn refresh(&mut self, how: NormRefresh, batches: &dyn Batches<Batch = TensorBatch>) -> landscape_core::Result<()> {
        refresh::refresh(&mut self.model, how, batches).map_err(core_error)
    }
}
