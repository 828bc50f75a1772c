//! What `train` and `connect` share: the loop driven with progress, records, saved state, interruption and `--max-steps`.

use crate::args::Common;
use crate::failure::Interrupted;
use crate::interrupt;
use crate::progress::Progress;
use crate::run_folder::RunFolder;
use anyhow::Context;
use landscape_core::prefetch::{Place, prefetched};
use landscape_core::record::RecordWriter;
use landscape_core::{Batches, ControlPoints, Examples, Seed, Stateful};
use landscape_network::NetworkObjective;
use landscape_train::{Control, FitConfig, FitState, Moment, Sampler, StepReport, fit, resume};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// The state is saved at the end of an epoch if this long has passed since, and within an epoch after ten times as long.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Batches that are made ahead of the step that needs them.
const BATCHES_AHEAD: usize = 2;

/// One training run.
pub struct Run<'a> {
    pub common: &'a Common,
    pub folder: &'a RunFolder,
    /// What `--out` names.
    pub out: &'a Path,
    pub name: &'a str,
    pub fit: &'a FitConfig,
    pub seed: Seed,
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub struct Driven {
    /// Whether all epochs are done, so that there is nothing to resume.
    pub finished: bool,
    pub steps: u64,
    /// Training steps alone, over all sittings.
    pub wall_seconds: f64,
    /// Everything since the run began, over all sittings, up to the end of the loop.
    pub total_seconds: f64,
}

/// What the end of an epoch adds to its record.
pub type EpochRecord<'a> = dyn FnMut(&mut NetworkObjective<f32>, &ControlPoints<f32>, &StepReport) -> anyhow::Result<Value> + 'a;

impl Run<'_> {
    /// Trains until done, interrupted, or at `--max-steps`; goes on from a saved state where there is one.
    pub fn drive(
        &self,
        objective: &mut NetworkObjective<f32>,
        points: &mut ControlPoints<f32>,
        sampler: &dyn Sampler,
        batches: &(dyn Batches<Batch = Examples<f32>> + Sync),
        on_epoch: &mut EpochRecord<'_>,
    ) -> anyhow::Result<Driven> {
        let started = Instant::now();
        let mut state = FitState::new(points, &self.fit.optimizer);
        let mut earlier = Earlier::default();
        if let Some(bytes) = self.folder.read_state()? {
            let path = self.folder.state_path();
            let mut buffers = objective.buffers().clone();
            let resumed = resume::from_bytes(&bytes, &path, points, &self.fit.optimizer, Some(&buffers))?;
            if let Some(values) = resumed.buffers {
                buffers = landscape_core::Buffers::from_values(&buffers.layout().clone(), values)?;
                objective.set_buffers(&buffers)?;
            }
            earlier = Earlier::from_json(&resumed.extra).with_context(|| format!("`{}`", path.display()))?;
            state = resumed.state;
        }
        let mut records = self.folder.records(earlier.records_bytes)?;
        let n_steps = (batches.n_batches() as u64).saturating_mul(self.fit.epochs);
        let mut progress = Progress::new(self.common, self.name, n_steps, state.step);
        let first_step = state.step;
        let stop_at = self.common.max_steps.unwrap_or(u64::MAX);
        let mut failure: Option<anyhow::Error> = None;
        let mut interrupted = false;
        let mut outside_steps = Duration::ZERO;
        let mut last_save = Instant::now();
        let loop_started = Instant::now();
        if state.step < n_steps.min(stop_at) {
            let first = Place { epoch: state.step / batches.n_batches() as u64, idx: (state.step % batches.n_batches() as u64) as usize };
            let mut observe = |mut moment: Moment<'_, NetworkObjective<f32>>| {
                let since = Instant::now();
                let mut watch = || -> anyhow::Result<Control> {
                    let report = moment.report;
                    let step = report.progress.step;
                    progress.update(step, || message(&report));
                    if report.ends_epoch() {
                        let mut record = json!({
                            "schema": "landscape-epoch/1",
                            "step": step,
                            "epoch": step / report.progress.steps_per_epoch,
                            "lr": report.lr,
                            "train_nll": report.epoch.nll(),
                            "train_error": report.epoch.error(),
                        });
                        merge(&mut record, on_epoch(moment.objective, moment.points, &report)?);
                        let steps_only = (loop_started.elapsed() - outside_steps - since.elapsed()).as_secs_f64();
                        merge(&mut record, json!({ "wall_seconds": earlier.wall_seconds + steps_only }));
                        records.append(&record)?;
                    }
                    interrupted = interrupt::asked();
                    let due = SAVE_EVERY * if report.ends_epoch() { 1 } else { 10 };
                    let stop = interrupted || step >= stop_at;
                    if !report.ends_run() && (stop || last_save.elapsed() >= due) {
                        records.sync()?;
                        moment.collect()?;
                        let now = earlier.plus(loop_started.elapsed() - outside_steps - since.elapsed(), started.elapsed(), &records);
                        let buffers = moment.objective.buffers();
                        self.folder.write_state(&resume::to_bytes(moment.points, moment.state, Some(buffers), &now.to_json())?)?;
                        last_save = Instant::now();
                    }
                    Ok(if stop { Control::Stop } else { Control::Continue })
                };
                let control = watch().unwrap_or_else(|error| {
                    failure = Some(error);
                    Control::Stop
                });
                outside_steps += since.elapsed();
                Ok(control)
            };
            let mut train = |batches: &dyn Batches<Batch = Examples<f32>>| {
                fit(objective, points, sampler, batches, self.fit, self.seed, &mut state, &mut observe)
            };
            // Who asked for one thread gets one.
            match rayon::current_num_threads() {
                1 => train(batches)?,
                _ => prefetched(batches, first, self.fit.epochs, BATCHES_AHEAD, train)?,
            };
        }
        progress.finish();
        if let Some(error) = failure {
            return Err(error);
        }
        let finished = state.step >= n_steps;
        if interrupted && !finished {
            let hint = format!("the same command with `--resume --out {}` goes on", self.out.display());
            return Err(Interrupted { resume_hint: hint }.into());
        }
        let wall = if state.step == first_step { Duration::ZERO } else { loop_started.elapsed().saturating_sub(outside_steps) };
        let totals = earlier.plus(wall, started.elapsed(), &records);
        Ok(Driven { finished, steps: state.step, wall_seconds: totals.wall_seconds, total_seconds: totals.total_seconds })
    }
}

fn message(report: &StepReport) -> String {
    if report.epoch.n_examples == 0 {
        return String::new();
    }
    let accuracy = report.epoch.accuracy().map(|a| format!("  accuracy {:.1} %", 100.0 * a)).unwrap_or_default();
    format!("loss {:.4}{accuracy}", report.epoch.nll())
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// What earlier sittings used, and how long the records were when the state was saved.
#[derive(Debug, Clone, Copy, Default)]
struct Earlier {
    wall_seconds: f64,
    total_seconds: f64,
    records_bytes: u64,
}

impl Earlier {
    fn plus(self, wall: Duration, total: Duration, records: &RecordWriter) -> Earlier {
        Earlier {
            wall_seconds: self.wall_seconds + wall.as_secs_f64(),
            total_seconds: self.total_seconds + total.as_secs_f64(),
            records_bytes: records.position(),
        }
    }

    fn to_json(self) -> Value {
        json!({"wall_seconds": self.wall_seconds, "total_seconds": self.total_seconds, "records_bytes": self.records_bytes})
    }

    fn from_json(value: &Value) -> anyhow::Result<Earlier> {
        let number = |key: &str| value[key].as_f64().with_context(|| format!("the state has no `{key}`"));
        let records_bytes = value["records_bytes"].as_u64().context("the state has no `records_bytes`")?;
        Ok(Earlier { wall_seconds: number("wall_seconds")?, total_seconds: number("total_seconds")?, records_bytes })
    }
}
