//! Training steps of an endpoint or of a curve, through the one training loop.

use crate::values;
use crate::worker::Work;
use landscape_core::{Bezier, Coefficients, ControlPoints, Examples, Flat, Objective, ParamLayout, Pass, Row, Seed, Tally};
use landscape_kernels::{Accumulate, Precision};
use landscape_network::NetworkObjective;
use landscape_train::sampler::Given;
use landscape_train::{Control, DecayOn, Endpoint, FitConfig, FitState, Optimizer, Sampler, Schedule, fit};
use std::sync::Arc;
use std::time::Instant;

/// Steps whose losses are the answer, and their rate. They are taken without dropout, whose masks no two programs share.
const N_ANSWER_STEPS: u64 = 3;
const ANSWER_RATE: f64 = 0.01;
/// A rate that moves nothing far, so that the numbers stay those of a new network however many steps are measured.
const TIMED_RATE: f64 = 1e-6;
/// Curves visit these many points in turn.
const N_TS: usize = 64;

/// A training run that stands between two steps.
pub struct Steps {
    objective: NetworkObjective<f32>,
    points: ControlPoints<f32>,
    state: FitState<f32>,
    batches: Vec<Examples<f32>>,
    ts: Vec<f64>,
    curve: Option<Bezier>,
}

impl Steps {
    /// Training of one control point, or of the inner ones of a Bézier curve, on one batch.
    ///
    /// # Errors
    /// If there is no such network.
    pub fn new(model: &str, batch: usize, n_points: usize, precision: Precision, seed: u64) -> anyhow::Result<Self> {
        let (graph, objective) = super::network(model, precision)?;
        let layout = Arc::new(ParamLayout::of_graph(&graph)?);
        let point = |k| values::point(&layout, seed, k as u64);
        let (points, curve) = if n_points == 1 {
            (ControlPoints::single(point(0)?), None)
        } else {
            let row = |k| anyhow::Ok(if k == 0 || k + 1 == n_points { Row::Frozen(Arc::new(point(k)?)) } else { Row::Free(point(k)?) });
            (ControlPoints::new((0..n_points).map(row).collect::<Result<_, _>>()?)?, Some(Bezier::new(n_points)?))
        };
        let state = FitState::new(&points, &Optimizer::sgd(TIMED_RATE));
        let batches = vec![values::batch(seed, 0, batch, model)];
        Ok(Steps { objective, points, state, batches, ts: values::ts(seed, N_TS), curve })
    }

    /// Takes `n` steps through `objective_of`'s view of the network; gives losses and seconds.
    fn steps(&mut self, n: u64, rate: f64, dropout: Dropout) -> anyhow::Result<Vec<(f64, f64)>> {
        let config = FitConfig {
            epochs: 1 << 40,
            optimizer: Optimizer::sgd(rate),
            schedule: Schedule::Constant,
            weight_decay: 1e-4,
            decay_on: DecayOn::Point,
        };
        let given;
        let sampler: &dyn Sampler = match &self.curve {
            None => &Endpoint,
            Some(curve) => {
                given = Given { curve, ts: &self.ts };
                &given
            }
        };
        let end = self.state.step + n;
        let mut seen = Vec::with_capacity(n as usize);
        let mut last = Instant::now();
        let mut network = Network { inner: &mut self.objective, dropout };
        fit(&mut network, &mut self.points, sampler, &self.batches, &config, Seed::new(3), &mut self.state, &mut |moment| {
            let now = Instant::now();
            seen.push((moment.report.batch.nll(), (now - last).as_secs_f64()));
            last = now;
            Ok(if moment.report.progress.step < end { Control::Continue } else { Control::Stop })
        })?;
        Ok(seen)
    }
}

impl Work for Steps {
    fn answer(&mut self) -> anyhow::Result<Vec<f64>> {
        Ok(self.steps(N_ANSWER_STEPS, ANSWER_RATE, Dropout::Off)?.into_iter().map(|(loss, _)| loss).collect())
    }

    fn run(&mut self, n: usize) -> anyhow::Result<Vec<f64>> {
        Ok(self.steps(n as u64, TIMED_RATE, Dropout::On)?.into_iter().map(|(_, seconds)| seconds).collect())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dropout {
    On,
    Off,
}

/// The network, with or without its dropout.
struct Network<'a> {
    inner: &'a mut NetworkObjective<f32>,
    dropout: Dropout,
}

impl Network<'_> {
    fn pass(&self, pass: Pass) -> Pass {
        match self.dropout {
            Dropout::On => pass,
            Dropout::Off => Pass { dropout_seed: None, ..pass },
        }
    }
}

impl Objective for Network<'_> {
    type Batch = Examples<f32>;
    type Scalar = f32;

    fn weights(&self) -> &Flat<f32> {
        self.inner.weights()
    }

    fn move_to(&mut self, points: &ControlPoints<f32>, c: &Coefficients) -> landscape_core::Result<()> {
        self.inner.move_to(points, c)
    }

    fn measure(&mut self, batch: &Examples<f32>, pass: Pass) -> landscape_core::Result<Tally> {
        let pass = self.pass(pass);
        self.inner.measure(batch, pass)
    }

    fn gradient(&mut self, batch: &Examples<f32>, pass: Pass, into: &mut Flat<f32>, mode: Accumulate) -> landscape_core::Result<Tally> {
        let pass = self.pass(pass);
        self.inner.gradient(batch, pass, into, mode)
    }

    fn collect(&mut self, told: &mut dyn FnMut(Tally)) -> landscape_core::Result<()> {
        self.inner.collect(told)
    }
}
