//! Points measured for `profile` and `plane`: several at once, recorded in their order, gone on with where an earlier sitting stopped.

use crate::args::{Common, RefreshArgs};
use crate::failure::Interrupted;
use crate::interrupt;
use crate::job::{self, Data};
use crate::partial::Partial;
use crate::progress::Progress;
use landscape_core::parallel_points::{measure_points, n_forks};
use landscape_core::profile::{Measured, Values};
use landscape_core::{Coefficients, ControlPoints, Fork, NormRefresh, Objective, Pass, Seed, Stateful, Tally};
use landscape_network::NetworkObjective;
use landscape_zoo::data::held::HeldBatches;

/// The inputs of a split are kept decoded up to this size, and decoded anew for each point above it.
const HELD_BYTES: usize = 256 << 20;

/// Everything that is measured at a point.
pub struct Points<'a> {
    /// The control points that all coefficients are for.
    pub control: &'a ControlPoints<f32>,
    /// Where each point is.
    pub coefficients: &'a [Coefficients],
    pub data: &'a Data,
    pub refresh: &'a RefreshArgs,
    pub weight_decay: f64,
    /// What points that are measured at once may take.
    pub memory_bytes: usize,
}

/// The examples of a measurement, decoded.
struct Splits {
    train: HeldBatches<f32>,
    test: HeldBatches<f32>,
    /// What statistics are taken over, where that is not the training split as it is.
    augmented: Option<HeldBatches<f32>>,
}

impl Points<'_> {
    /// Measures the points that are not done yet with statistics taken anew at each; the bits are those of one after the other.
    pub fn measure(
        &self,
        common: &Common,
        name: &str,
        objective: &mut NetworkObjective<f32>,
        partial: &mut Partial<Measured>,
    ) -> anyhow::Result<()> {
        let n_points = self.coefficients.len();
        let mut progress = Progress::new(common, name, n_points as u64, partial.done.len() as u64);
        let left = partial.done.len().min(n_points)..n_points;
        if !left.is_empty() {
            let splits = self.splits(common)?;
            let n_forks = n_forks(left.len(), objective.fork_bytes(self.data.batch_size), self.memory_bytes);
            let measure = |objective: &mut NetworkObjective<f32>, idx: usize| self.at(objective, &splits, &self.coefficients[idx]);
            measure_points(objective, n_forks, left, measure, |idx, measured| {
                partial.push(measured)?;
                progress.update(idx as u64 + 1, || format!("loss {:.4}", measured.train.loss));
                if interrupt::asked() && idx + 1 < n_points {
                    return Err(Interrupted { resume_hint: "the same command with `--resume` goes on".to_owned() }.into());
                }
                Ok(())
            })?;
        }
        progress.finish();
        Ok(())
    }

    fn splits(&self, common: &Common) -> anyhow::Result<Splits> {
        let augmented = match self.refresh.refresh_augmented {
            true => Some(HeldBatches::new(self.data.refresh_batches(self.refresh, Seed::new(common.seed))?, HELD_BYTES)?),
            false => None,
        };
        Ok(Splits {
            train: HeldBatches::new(self.data.train_batches()?, HELD_BYTES)?,
            test: HeldBatches::new(self.data.test_batches()?, HELD_BYTES)?,
            augmented,
        })
    }

    fn at(&self, objective: &mut NetworkObjective<f32>, splits: &Splits, c: &Coefficients) -> anyhow::Result<Measured> {
        let how: NormRefresh = job::norm_refresh(self.refresh.refresh);
        objective.move_to(self.control, c)?;
        objective.refresh(how, splits.augmented.as_ref().unwrap_or(&splits.train))?;
        let squared_norm = if self.weight_decay == 0.0 { 0.0 } else { objective.weights().squared_norm() };
        let values = |tally| Values::new(&tally, self.weight_decay, squared_norm);
        Ok(Measured { train: values(tally(objective, &splits.train)?), test: Some(values(tally(objective, &splits.test)?)) })
    }
}

/// Measures all batches with the stored statistics.
fn tally(objective: &mut NetworkObjective<f32>, batches: &HeldBatches<f32>) -> anyhow::Result<Tally> {
    let mut sum = Tally::default();
    batches.for_each(|batch| {
        sum += objective.measure(batch, Pass::EVALUATE)?;
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(sum)
}
