//! Points measured for `profile` and `plane`: several at once, recorded in their order, gone on with where an earlier sitting stopped.

use crate::args::{AtOnceArgs, Common, RefreshArgs};
use crate::failure::Interrupted;
use crate::interrupt;
use crate::job::{self, Data};
use crate::partial::Partial;
use crate::progress::Progress;
use anyhow::bail;
use landscape_core::parallel_points::{in_order, n_forks};
use landscape_core::profile::{Measured, Values};
use landscape_core::{Batches, Coefficients, ControlPoints, Examples, Fork, Objective, Pass, Seed, Stateful, Tally};
use landscape_graph::Graph;
use landscape_kernels::{Device, Precision};
use landscape_network::NetworkObjective;
use landscape_network::shared_first_layer::{FirstLayer, Products, SharedFirstLayer};
use landscape_zoo::data::held::HeldBatches;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// The inputs of a split are kept decoded up to this size, and decoded anew for each point above it.
const HELD_BYTES: usize = 256 << 20;

/// Everything that is measured at a point.
pub struct Points<'a> {
    /// The control points that all coefficients are for.
    pub control: &'a ControlPoints<f32>,
    /// Where each point is.
    pub coefficients: &'a [Coefficients],
    pub graph: &'a Arc<Graph>,
    pub data: &'a Data,
    pub refresh: &'a RefreshArgs,
    pub weight_decay: f64,
    pub at_once: &'a AtOnceArgs,
}

/// Batches of a split that every point is measured on.
trait Examined: Batches + Sync {
    /// Shows every batch, lent where it is kept.
    fn for_each(&self, look: &mut dyn FnMut(&Self::Batch) -> anyhow::Result<()>) -> anyhow::Result<()>;
}

impl Examined for HeldBatches<f32> {
    fn for_each(&self, look: &mut dyn FnMut(&Examples<f32>) -> anyhow::Result<()>) -> anyhow::Result<()> {
        HeldBatches::for_each(self, look)
    }
}

impl Examined for Vec<Arc<Products<f32>>> {
    fn for_each(&self, look: &mut dyn FnMut(&Arc<Products<f32>>) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.iter().try_for_each(look)
    }
}

/// An objective with the control points where it is.
struct Worker<'a, O> {
    objective: O,
    control: Cow<'a, ControlPoints<f32>>,
}

/// The examples of a measurement.
struct Splits<S> {
    train: S,
    test: S,
    /// What statistics are taken over, where that is not the training split as it is.
    augmented: Option<S>,
}

impl Points<'_> {
    /// Measures the points that are not done yet with statistics taken anew at each; the bits are those of one after the other.
    pub fn measure(&self, common: &Common, name: &str, partial: &mut Partial<Measured>) -> anyhow::Result<()> {
        let n_points = self.coefficients.len();
        let left = partial.done.len().min(n_points)..n_points;
        let mut progress = Progress::new(common, name, n_points as u64, left.start as u64);
        if !left.is_empty() {
            let devices = common.devices()?;
            let splits = self.splits(common)?;
            let memory_bytes = self.at_once.memory_bytes();
            if self.at_once.shared_first_layer {
                if devices != [Device::Cpu] {
                    bail!("`--shared-first-layer` runs on the processor alone, got `--device {}`", common.device);
                }
                if common.precision != Precision::F32 {
                    bail!("`--shared-first-layer` computes in `f32` alone, got `--precision {}`", common.precision);
                }
                let mut first = FirstLayer::new(self.graph, &Device::Cpu, self.control)?;
                let product_bytes = self.check_memory(&first, &splits)?;
                let splits = splits.products(&mut first)?;
                drop(first);
                let objective = SharedFirstLayer::new(self.graph, &Device::Cpu, self.data.loss(), self.control.clone())?;
                let workers = self.on_threads(objective, left.len(), memory_bytes - product_bytes);
                self.measure_left(workers, &splits, left, partial, &mut progress)?;
            } else {
                let objective =
                    |device: &Device| NetworkObjective::<f32>::in_precision(self.graph.clone(), device, self.data.loss(), common.precision);
                let workers = match devices.as_slice() {
                    [Device::Cpu] => self.on_threads(objective(&Device::Cpu)?, left.len(), memory_bytes),
                    // One point keeps a GPU busy.
                    gpus => {
                        let worker = |gpu| {
                            let control = self.control.clone().on_device(gpu)?;
                            Ok(Worker { objective: objective(gpu)?, control: Cow::Owned(control) })
                        };
                        gpus.iter().take(left.len()).map(worker).collect::<anyhow::Result<_>>()?
                    }
                };
                self.measure_left(workers, &splits, left, partial, &mut progress)?;
            }
        }
        progress.finish();
        Ok(())
    }

    /// As many workers as there are threads and as fit into the memory.
    fn on_threads<O: Fork>(&self, objective: O, n_points: usize, memory_bytes: usize) -> Vec<Worker<'_, O>> {
        let n = n_forks(n_points, objective.fork_bytes(self.data.batch_size), memory_bytes);
        let mut workers: Vec<O> = (1..n).map(|_| objective.fork()).collect();
        workers.push(objective);
        workers.into_iter().map(|objective| Worker { objective, control: Cow::Borrowed(self.control) }).collect()
    }

    /// Measures the points `left`, each by the next worker that is free.
    fn measure_left<O, S>(
        &self,
        mut workers: Vec<Worker<'_, O>>,
        splits: &Splits<S>,
        left: Range<usize>,
        partial: &mut Partial<Measured>,
        progress: &mut Progress,
    ) -> anyhow::Result<()>
    where
        O: Stateful<Scalar = f32> + Send,
        S: Examined<Batch = O::Batch>,
    {
        let n_points = left.end;
        let measure = |worker: &mut Worker<'_, O>, idx: usize| self.at(worker, splits, &self.coefficients[idx]);
        in_order(&mut workers, left, measure, |idx, measured| {
            partial.push(measured)?;
            progress.update(idx as u64 + 1, || format!("loss {:.4}", measured.train.loss));
            if interrupt::asked() && idx + 1 < n_points {
                return Err(Interrupted { resume_hint: "the same command with `--resume` goes on".to_owned() }.into());
            }
            Ok(())
        })
    }

    fn splits(&self, common: &Common) -> anyhow::Result<Splits<HeldBatches<f32>>> {
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

    /// Bytes that the products take; fails where that is more than there is.
    fn check_memory(&self, first: &FirstLayer<f32>, splits: &Splits<HeldBatches<f32>>) -> anyhow::Result<usize> {
        let n_examples: usize = splits.all().map(HeldBatches::n_examples).sum();
        let bytes = n_examples.saturating_mul(first.numbers_per_example()).saturating_mul(size_of::<f32>());
        if bytes > self.at_once.memory_bytes() {
            bail!(
                "`--shared-first-layer` keeps {} products of {n_examples} examples, {} MiB, and `--memory-mib` allows {}; allow more, or measure without it",
                self.control.n_points(),
                bytes.div_ceil(1 << 20),
                self.at_once.memory_mib
            );
        }
        Ok(bytes)
    }

    fn at<O, S>(&self, worker: &mut Worker<'_, O>, splits: &Splits<S>, c: &Coefficients) -> anyhow::Result<Measured>
    where
        O: Stateful<Scalar = f32>,
        S: Examined<Batch = O::Batch>,
    {
        let Worker { objective, control } = worker;
        objective.move_to(control, c)?;
        objective.refresh(job::norm_refresh(self.refresh.refresh), splits.augmented.as_ref().unwrap_or(&splits.train))?;
        // Without decay the norm does not count, and need not be taken.
        let squared_norm = if self.weight_decay == 0.0 { 0.0 } else { objective.weights().squared_norm() };
        let values = |tally| Values::new(&tally, self.weight_decay, squared_norm);
        Ok(Measured { train: values(tally(objective, &splits.train)?), test: Some(values(tally(objective, &splits.test)?)) })
    }
}

impl<S> Splits<S> {
    fn all(&self) -> impl Iterator<Item = &S> {
        [&self.train, &self.test].into_iter().chain(&self.augmented)
    }
}

impl Splits<HeldBatches<f32>> {
    /// What the first layer makes of all batches.
    fn products(&self, first: &mut FirstLayer<f32>) -> anyhow::Result<Splits<Vec<Arc<Products<f32>>>>> {
        let mut of = |split: &HeldBatches<f32>| {
            let mut products = Vec::with_capacity(split.n_batches());
            split.for_each(|batch| {
                products.push(Arc::new(first.products(batch)?));
                Ok::<_, anyhow::Error>(())
            })?;
            Ok::<_, anyhow::Error>(products)
        };
        Ok(Splits { train: of(&self.train)?, test: of(&self.test)?, augmented: self.augmented.as_ref().map(of).transpose()? })
    }
}

/// Measures all batches with the stored statistics.
fn tally<O, S>(objective: &mut O, batches: &S) -> anyhow::Result<Tally>
where
    O: Objective,
    S: Examined<Batch = O::Batch>,
{
    let mut sum = Tally::default();
    batches.for_each(&mut |batch| {
        sum += objective.measure(batch, Pass::EVALUATE.later())?;
        Ok(())
    })?;
    objective.collect(&mut |tally| sum += tally)?;
    Ok(sum)
}
