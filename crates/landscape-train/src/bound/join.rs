//! Two candle models, or a chain of more, joined by a trained curve.

use super::task::{Data, Task, TensorBatch};
use super::tensors::{NamedTensors, write_varmap};
use crate::connect::Connect;
use crate::error::{Error, Result};
use crate::fit::{Control, FitConfig, FitState, Moment, fit};
use crate::sampler::{Endpoint, UniformOn};
use candle_core::{Tensor, WithDType};
use candle_nn::VarMap;
use landscape_core::barrier::Thresholds;
use landscape_core::length::uniform_ts;
use landscape_core::profile::{Measured, Profile, Values, measure_path};
use landscape_core::{Batches, ControlPoints, Curve, Norm, NormRefresh, Objective, Pass, PolyChain, Row, Seed, Stateful, Tally};
use landscape_kernels::Real;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A trained curve, with the model to go along it.
pub struct Run<'a, T> {
    /// The control points as training left them.
    pub points: ControlPoints<T>,
    /// The curve they belong to.
    pub curve: Box<dyn Curve>,
    /// What training saw in each epoch: the loss in training mode, at points of the curve drawn at random.
    pub epochs: Vec<Tally>,
    /// How batch-norm statistics are taken anew at a point; set to [`NormRefresh::BatchAverage`].
    pub refresh: NormRefresh,
    weight_decay: f64,
    n_endpoints: usize,
    task: RefCell<Task<'a, T>>,
}

/// Joins two trained models by a curve of low loss.
///
/// `start` and `end` are `VarMap`s or maps of tensors with the model's names and shapes; they are read and not written. The task's
/// batches are those that the curve is trained on, in the order of the epoch.
///
/// # Errors
/// If names or shapes differ from the model's (every difference is listed), an option is out of its range, candle's gradients of the
/// model are wrong or missing ([`Error::Gradient`]), or training diverges.
///
/// # Source
/// Garipov et al. 2018, section 3; `train.py` of dnn-mode-connectivity. See [`Connect`].
pub fn connect<'a, T: Real + WithDType>(
    task: &mut Task<'a, T>,
    start: &impl NamedTensors,
    end: &impl NamedTensors,
    config: Connect,
) -> Result<Run<'a, T>> {
    connect_chain(task, &[start, end], config)
}

/// Joins any number of trained models, one curve from each to the next.
///
/// # Errors
/// As [`connect`]; and if there are fewer than two.
pub fn connect_chain<'a, T: Real + WithDType>(
    task: &mut Task<'a, T>,
    endpoints: &[&dyn NamedTensors],
    config: Connect,
) -> Result<Run<'a, T>> {
    config.fit.check()?;
    let curve = config.path(endpoints.len())?;
    let ends = endpoints.iter().map(|end| Ok(Arc::new(task.model.read(*end)?.0))).collect::<Result<Vec<_>>>()?;
    let seed = Seed::new(config.seed);
    let mut random =
        |k: usize| task.model.initial(seed.child("init").child_idx(k as u64)).map_err(|e| landscape_core::Error::Objective(e.to_string()));
    let mut points = config.control_points(&ends, &mut random)?;
    task.move_to(&points, &curve.coefficients(0.5)?)?;
    let epochs = train_rows(task, &mut points, &UniformOn(curve.as_ref()), &config.fit, seed)?;
    Ok(Run {
        points,
        curve,
        epochs,
        refresh: NormRefresh::BatchAverage,
        weight_decay: config.fit.weight_decay,
        n_endpoints: endpoints.len(),
        task: RefCell::new(task.fork()?),
    })
}

/// Trains the variables of one model in place, from where they are; statistics are left as training left them. Gives each epoch's
/// tally.
///
/// # Errors
/// As [`connect`].
pub fn train<T: Real + WithDType>(task: &mut Task<'_, T>, vars: &VarMap, config: &FitConfig, seed: u64) -> Result<Vec<Tally>> {
    config.check()?;
    let (point, buffers) = task.model.read(vars)?;
    task.model.set_point(&point)?;
    task.model.set_buffers(&buffers)?;
    let mut points = ControlPoints::single(point);
    let epochs = train_rows(task, &mut points, &Endpoint, config, Seed::new(seed))?;
    let trained = task.buffers().clone();
    task.model.set_point(&points.point(0))?;
    task.model.set_buffers(&trained)?;
    write_varmap(&task.model.tensors()?, vars)?;
    Ok(epochs)
}

/// The training of either: gradients are checked first, so that their error keeps its type.
fn train_rows<T: Real + WithDType>(
    task: &mut Task<'_, T>,
    points: &mut ControlPoints<T>,
    sampler: &dyn crate::Sampler,
    config: &FitConfig,
    seed: Seed,
) -> Result<Vec<Tally>> {
    let batches = task.train.clone();
    if batches.n_batches() > 0 {
        task.ensure_checked(&batches.batch(0, 0)?, Norm::Batch)?;
    }
    let mut state = FitState::new(points, &config.optimizer);
    let mut epochs = Vec::new();
    fit(task, points, sampler, batches.as_ref(), config, seed, &mut state, &mut |moment: Moment<'_, Task<'_, T>>| {
        if moment.report.ends_epoch() {
            epochs.push(moment.report.epoch);
        }
        Ok(Control::Continue)
    })?;
    Ok(epochs)
}

impl<T: Real + WithDType> Run<'_, T> {
    /// The model at t, its statistics taken anew there from the task's batches, as tensors of the model's own names and types.
    ///
    /// # Errors
    /// If t is not between 0 and 1, or running the model fails.
    pub fn tensors(&self, t: f64) -> Result<BTreeMap<String, Tensor>> {
        let task = &mut *self.task.borrow_mut();
        task.move_to(&self.points, &self.curve.coefficients(t)?)?;
        let batches = task.train.clone();
        task.refresh(self.refresh, batches.as_ref())?;
        task.model.tensors()
    }

    /// Writes the model at t into variables, in place: a model built on them is that model from then on. Weights at the ends are those
    /// of the endpoints bit for bit; statistics are taken anew everywhere.
    ///
    /// # Errors
    /// If names or shapes are not the model's (every difference is listed; nothing is written), or as [`Run::tensors`].
    pub fn write_into(&self, vars: &VarMap, t: f64) -> Result<()> {
        self.task.borrow().model.check_names(&vars.named_tensors()?, "the variables")?;
        write_varmap(&self.tensors(t)?, vars)
    }

    /// Loss and error at `n_samples` equally spaced points of the curve, statistics taken anew at each: on the task's batches, and on
    /// its test batches where it has some. `loss` is nll plus the L2 term of the training.
    ///
    /// # Errors
    /// If `n_samples` is below 2, or running the model fails.
    pub fn profile(&self, n_samples: usize) -> Result<Profile> {
        self.profile_of(&self.points, self.curve.as_ref(), n_samples)
    }

    /// The same along the straight line between the endpoints, or from each to the next.
    ///
    /// # Errors
    /// As [`Run::profile`].
    pub fn profile_straight(&self, n_samples: usize) -> Result<Profile> {
        let per_segment = (self.points.n_points() - 1) / (self.n_endpoints - 1);
        let ends = self.points.rows().iter().step_by(per_segment).cloned();
        let ends = ends.map(|row| Row::Frozen(Arc::new(row.point().into_owned()))).collect();
        self.profile_of(&ControlPoints::new(ends)?, &PolyChain::new(self.n_endpoints)?, n_samples)
    }

    fn profile_of(&self, points: &ControlPoints<T>, curve: &dyn Curve, n_samples: usize) -> Result<Profile> {
        let task = &mut *self.task.borrow_mut();
        let (train, test) = (task.train.clone(), task.test.clone());
        let samples = measure_path(task, points, curve, &uniform_ts(n_samples)?, |task, _| {
            task.refresh(self.refresh, train.as_ref())?;
            let squared_norm = task.weights().squared_norm();
            let mut values = |data: &Data<'_>| Ok::<_, Error>(Values::new(&tally(task, data.as_ref())?, self.weight_decay, squared_norm));
            Ok::<_, Error>(Measured { train: values(&train)?, test: test.as_ref().map(&mut values).transpose()? })
        })?;
        Ok(Profile::of(samples, curve, self.weight_decay, Thresholds::PROJECT)?)
    }
}

/// All batches of epoch 0, in evaluation mode.
fn tally<T: Real + WithDType>(task: &mut Task<'_, T>, batches: &dyn Batches<Batch = TensorBatch>) -> Result<Tally> {
    let mut sum = Tally::default();
    for idx in 0..batches.n_batches() {
        sum += task.measure(&batches.batch(0, idx)?, Pass::EVALUATE)?;
    }
    Ok(sum)
}
