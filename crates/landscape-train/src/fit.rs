//! The one training loop: it serves endpoints (K = 1), curves and simplexes alike.
//!
//! Each step: the sampler names a point, the objective moves there, the gradient of one batch is taken, and every free row
//! takes an optimiser step with its share of it. Everything random is a pure function of (seed, step), so a run that
//! goes on from a saved [`FitState`] gives the bits of the unbroken run.

use crate::error::{Error, Result};
use crate::optimizer::{Moments, Optimizer, RowStep};
use crate::sampler::Sampler;
use crate::schedule::{Progress, Schedule};
use landscape_core::{Batches, ControlPoints, Flat, Objective, Pass, Seed, Tally};
use landscape_kernels::{Accumulate, Real};
use serde::{Deserialize, Serialize};

/// What weight decay acts on. The literature disagrees, and the optima differ: with decay alone, the bend goes to the
/// place that makes the *curve* short of norm, or to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecayOn {
    /// ½·wd·‖φ(t)‖² of the visited point (dnn-mode-connectivity, `utils.py` `l2_regularizer` of the curve).
    Point,
    /// Each free control point by the optimiser's own decay (the TensorFlow port; AdamW's meaning of decay).
    ControlPoints,
}

/// Options of [`fit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitConfig {
    /// Epochs that the schedule spans.
    pub epochs: u64,
    /// The optimiser, with its base learning rate.
    pub optimizer: Optimizer,
    /// How the rate changes.
    pub schedule: Schedule,
    /// Strength of the L2 term.
    pub weight_decay: f64,
    /// What it acts on.
    pub decay_on: DecayOn,
}

impl FitConfig {
    /// Fails unless every field is in its range.
    ///
    /// # Errors
    /// [`Error::Config`], naming the field.
    pub fn check(&self) -> Result<()> {
        if self.epochs == 0 {
            return Err(Error::config("epochs", "at least 1", 0));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(Error::config("weight_decay", "not negative", self.weight_decay));
        }
        self.optimizer.check()?;
        self.schedule.check()
    }
}

/// All that a run remembers between two steps, besides the control points and the statistics buffers.
#[derive(Debug, Clone)]
pub struct FitState<T> {
    /// Steps done.
    pub step: u64,
    /// Sum over the steps of the running epoch.
    pub epoch_tally: Tally,
    /// What the optimiser remembers of each row; none for frozen rows.
    pub moments: Vec<Option<Moments<T>>>,
}

impl<T: Real> FitState<T> {
    /// Before the first step.
    pub fn new(points: &ControlPoints<T>, optimizer: &Optimizer) -> Self {
        let moments =
            (0..points.n_points()).map(|k| points.is_free(k).then(|| optimizer.init(&points.device(), points.layout().n_elements())));
        FitState { step: 0, epoch_tally: Tally::default(), moments: moments.collect() }
    }
}

/// What the observer is told after each step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Where the run stands, this step included.
    pub progress: Progress,
    /// The learning rate of this step.
    pub lr: f64,
    /// What the batch gave, before the step; over no examples where the objective tells later ([`Tell::Later`]) and did not yet.
    ///
    /// [`Tell::Later`]: landscape_core::Tell::Later
    pub batch: Tally,
    /// The epoch's sum so far: this step included at the end of an epoch, and wherever the objective tells at once.
    pub epoch: Tally,
}

impl StepReport {
    /// Whether this step ended an epoch.
    pub fn ends_epoch(&self) -> bool {
        self.progress.step.is_multiple_of(self.progress.steps_per_epoch)
    }

    /// Whether this step was the last of the whole run.
    pub fn ends_run(&self) -> bool {
        self.progress.step == self.progress.steps_per_epoch * self.progress.n_epochs
    }
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Take the next step.
    Continue,
    /// Stop after this one.
    Stop,
}

/// What the observer may look at after a step; statistics stand as the objective left them.
pub struct Moment<'a, O: Objective> {
    /// The objective.
    pub objective: &'a mut O,
    /// The control points, this step included.
    pub points: &'a ControlPoints<O::Scalar>,
    /// The state, this step included; its `epoch_tally` as `report.epoch` until [`Moment::collect`].
    pub state: &'a mut FitState<O::Scalar>,
    /// Numbers of the step.
    pub report: StepReport,
}

impl<O: Objective> Moment<'_, O> {
    /// Waits for what the objective has not told yet, so that state, report and statistics buffers are those of this step. Needed before
    /// the state is saved.
    ///
    /// # Errors
    /// As [`fit`].
    pub fn collect(&mut self) -> Result<()> {
        self.report.batch = collect(self.objective, self.state)?.unwrap_or(self.report.batch);
        self.report.epoch = self.state.epoch_tally;
        Ok(())
    }
}

/// Adds what the objective kept back to the epoch's sum; gives the last of it.
fn collect<O: Objective>(objective: &mut O, state: &mut FitState<O::Scalar>) -> Result<Option<Tally>> {
    let mut told = Vec::new();
    objective.collect(&mut |tally| told.push(tally))?;
    for (step, tally) in (state.step - told.len() as u64..).zip(&told) {
        if !tally.loss_nats_sum.is_finite() {
            return Err(Error::Diverged { step, loss_nats: tally.nll() });
        }
        state.epoch_tally += *tally;
    }
    Ok(told.last().copied())
}

/// How [`fit`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// The observer asked to stop.
    Stopped,
}

/// Steps whose losses are waited for together, where an objective tells later.
const STEPS_TOLD_TOGETHER: u64 = 10;

/// Trains the free rows of `points` from `state` on until all epochs are done or the observer stops it.
///
/// Step s visits the point that `sampler` names for (seed, s), on batch s mod n of epoch ⌊s/n⌋, and moves every free row by
/// `optimizer` along c_k·(∇L + wd·w) ([`DecayOn::Point`]) or c_k·∇L with the optimiser's own decay ([`DecayOn::ControlPoints`]).
///
/// Objectives may tell losses later: they are waited for every few steps and at the end of an epoch, and their sum has the same bits
/// whenever that is. A loss that is no number is then found up to nine steps late, and `points` have taken these steps too; an objective
/// that tells at once leaves them as they were before it.
///
/// # Errors
/// [`Error::Config`] for options out of range, [`Error::Diverged`] when the loss is no number any more, and whatever
/// objective, batches or observer report.
///
/// # Source
/// `train.py` of dnn-mode-connectivity; ours draws t and masks from the step's own seed, so that a run can go on anywhere.
#[expect(clippy::too_many_arguments, reason = "each is a part of the run that callers own: what, where, how, and who watches")]
pub fn fit<O: Objective>(
    objective: &mut O,
    points: &mut ControlPoints<O::Scalar>,
    sampler: &dyn Sampler,
    batches: &dyn Batches<Batch = O::Batch>,
    config: &FitConfig,
    seed: Seed,
    state: &mut FitState<O::Scalar>,
    observer: &mut dyn FnMut(Moment<'_, O>) -> Result<Control>,
) -> Result<Outcome> {
    config.check()?;
    if sampler.n_points() != points.n_points() {
        return Err(Error::config("points", format!("{} control points", sampler.n_points()), points.n_points()));
    }
    let steps_per_epoch = batches.n_batches() as u64;
    if steps_per_epoch == 0 {
        return Err(Error::config("batches", "at least one batch", 0));
    }
    let n_steps = steps_per_epoch
        .checked_mul(config.epochs)
        .ok_or_else(|| Error::config("epochs", format!("few enough for {steps_per_epoch} steps each to be counted"), config.epochs))?;
    let mut gradient = Flat::zeros(points.layout(), &points.device());
    let (point_decay, row_decay) = match config.decay_on {
        DecayOn::Point => (config.weight_decay, 0.0),
        DecayOn::ControlPoints => (0.0, config.weight_decay),
    };
    while state.step < n_steps {
        let before = Progress { step: state.step, steps_per_epoch, n_epochs: config.epochs };
        let c = sampler.coefficients(seed, state.step)?;
        objective.move_to(points, &c)?;
        let batch = batches.batch(before.epoch(), (state.step % steps_per_epoch) as usize)?;
        let pass = Pass::train(seed.child("dropout").child_idx(state.step).value()).later();
        let tally = objective.gradient(&batch, pass, &mut gradient, Accumulate::Overwrite)?;
        if !tally.loss_nats_sum.is_finite() {
            return Err(Error::Diverged { step: state.step, loss_nats: tally.nll() });
        }
        let lr_factor = config.schedule.factor(before);
        let point = (point_decay > 0.0).then(|| (objective.weights().view(), point_decay));
        for (k, moments) in state.moments.iter_mut().enumerate() {
            let (Some(moments), Some(theta)) = (moments.as_mut(), points.free_mut(k)) else { continue };
            let row =
                RowStep { n_steps_before: state.step, lr_factor, c_k: c.as_slice()[k], gradient: gradient.view(), point, decay: row_decay };
            config.optimizer.update(row, theta.view_mut(), moments)?;
        }
        if state.step.is_multiple_of(steps_per_epoch) {
            state.epoch_tally = Tally::default();
        }
        state.epoch_tally += tally;
        state.step += 1;
        let progress = Progress { step: state.step, ..before };
        let mut report = StepReport { progress, lr: config.optimizer.lr() * lr_factor, batch: tally, epoch: state.epoch_tally };
        if report.ends_epoch() || state.step.is_multiple_of(STEPS_TOLD_TOGETHER) {
            report.batch = collect(objective, state)?.unwrap_or(tally);
            report.epoch = state.epoch_tally;
        }
        if observer(Moment { objective, points, state, report })? == Control::Stop && state.step < n_steps {
            collect(objective, state)?;
            return Ok(Outcome::Stopped);
        }
    }
    Ok(Outcome::Finished)
}
