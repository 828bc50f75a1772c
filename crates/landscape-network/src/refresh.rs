//! Batch-norm statistics taken anew at a point.
//!
//! Three of the methods pass the data once, each batch normalised by its own statistics, and differ in how they put the batches
//! together. With batch statistics (m_b, v_b; v_b biased) of n_b values per channel, from a batch of e_b examples:
//! - `BatchAverage`: μ = Σ e_b·m_b / Σ e_b, σ² = Σ e_b·v_b·n_b/(n_b − 1) / Σ e_b;
//! - `TorchCumulative`: the same with e_b = 1;
//! - `Pooled`: μ and σ² = Σ n_b·(v_b + (m_b − μ)²) / Σ n_b, the mean and biased variance of all values together.
//!
//! `Sequential` takes the pooled statistics of a layer only when the layers before it have theirs, and normalises by those on the way,
//! so that no batch is ever normalised by itself: it yields the fixed point that evaluation sees. Layers that do not follow one
//! another share a pass. Nothing is dropped by dropout in any of them, and `num_batches_tracked` becomes the number of batches.
//!
//! # Source
//! `BatchAverage`: `utils.update_bn` of dnn-mode-connectivity (momentum b/(n + b) from reset statistics is this weighted mean);
//! `TorchCumulative`: `torch.optim.swa_utils.update_bn` (momentum `None`). The merge of moments is that of Chan, Golub and LeVeque 1983.

use crate::error::{Error, Result};
use crate::executor::{Control, Executor};
use crate::norm::{BatchStatistics, NormRule};
use crate::step::Program;
use landscape_core::{Batches, Examples, NormRefresh};
use landscape_graph::Op;
use landscape_kernels::batch_norm::{Share, merge_moments};
use landscape_kernels::{Device, Memory, Real};

/// Takes the statistics of all batch norms of a network anew, from epoch 0 of `batches`.
///
/// # Errors
/// [`Error::NoBatches`] if there are none and the network has batch norm, and what running them yields; the statistics are then as before.
///
/// # Complexity
/// One forward pass over the batches, up to the last batch norm; for [`NormRefresh::Sequential`] one per batch norm on the longest path.
pub fn refresh<T: Real>(executor: &mut Executor<T>, how: NormRefresh, batches: &dyn Batches<Batch = Examples<T>>) -> Result<()> {
    if executor.program().norms.is_empty() {
        return Ok(());
    }
    if batches.n_batches() == 0 {
        return Err(Error::NoBatches);
    }
    let all: Vec<usize> = (0..executor.program().norms.len()).collect();
    let mut once = |merge| one_pass(executor, merge, batches, &all, &|_| NormRule::Report);
    match how {
        NormRefresh::BatchAverage => once(Merge::ByExamples)?,
        NormRefresh::TorchCumulative => once(Merge::ByBatch)?,
        NormRefresh::Pooled => once(Merge::Pooled)?,
        NormRefresh::Sequential => {
            let levels = Levels::of(executor.program());
            let before = executor.buffers().clone();
            for level in 1..=levels.n_levels() {
                let pass =
                    one_pass(executor, Merge::Pooled, batches, &levels.norms_at(level), &|norm_idx| match levels.of_norm[norm_idx] {
                        at if at < level => NormRule::Stored,
                        _ => NormRule::Measure,
                    });
                if let Err(error) = pass {
                    executor.norms_mut().set_buffers(&before);
                    return Err(error);
                }
            }
        }
        other => {
            let expected = "a method that this version knows";
            return Err(landscape_core::Error::config("refresh", expected, format!("{other:?}")).into());
        }
    }
    executor.mark_fresh();
    Ok(())
}

/// Passes all batches once and stores the statistics of `norms`.
fn one_pass<T: Real>(
    executor: &mut Executor<T>,
    merge: Merge,
    batches: &dyn Batches<Batch = Examples<T>>,
    norms: &[usize],
    rule: &dyn Fn(usize) -> NormRule,
) -> Result<()> {
    let program = executor.program();
    let nodes: Vec<usize> = norms.iter().map(|&norm_idx| program.norms[norm_idx].node).collect();
    let needed = program.ancestors(&nodes);
    let mut sums: Vec<Moments> = program.norms.iter().map(|slots| Moments::new(executor.device(), slots.channels)).collect();
    for batch_idx in 0..batches.n_batches() {
        let batch = batches.batch(0, batch_idx)?;
        let mut failure = None;
        let mut report = |statistics: &BatchStatistics<'_, T>| {
            if let Err(error) = sums[statistics.norm_idx].add(merge, batch.n_examples, statistics) {
                failure.get_or_insert(error);
            }
        };
        let control = Control { needed: Some(&needed), rule, report: &mut report, taps: None };
        executor.run_controlled(&batch.inputs, batch.n_examples, control)?;
        if let Some(error) = failure {
            return Err(error);
        }
    }
    executor.store_statistics(norms.iter().map(|&norm_idx| (norm_idx, &sums[norm_idx])), batches.n_batches())
}

/// How the statistics of batches are put together.
#[derive(Debug, Clone, Copy)]
enum Merge {
    /// Means and unbiased variances, weighted by the examples of a batch.
    ByExamples,
    /// Means and unbiased variances, each batch alike.
    ByBatch,
    /// As if all values stood in one batch; the variance is biased.
    Pooled,
}

/// Statistics of all batches so far, in double precision, where the batches are.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    weight: f64,
    pub mean: Memory<f64>,
    pub var: Memory<f64>,
}

impl Moments {
    fn new(device: &Device, channels: usize) -> Self {
        Moments { weight: 0.0, mean: Memory::zeros(device, channels), var: Memory::zeros(device, channels) }
    }

    /// Moves towards a batch's statistics by its share of all weight so far.
    ///
    /// # Errors
    /// If an accelerator failed.
    fn add<T: Real>(&mut self, merge: Merge, n_examples: usize, batch: &BatchStatistics<'_, T>) -> Result<()> {
        let n = batch.n_rows as f64;
        // The variance a batch adds, per unit of its own, and whether differences of the means count.
        let (weight, factor, between) = match merge {
            Merge::ByExamples => (n_examples as f64, n / (n - 1.0), 0.0),
            Merge::ByBatch => (1.0, n / (n - 1.0), 0.0),
            Merge::Pooled => (n, 1.0, 1.0),
        };
        self.weight += weight;
        let share = Share { share: weight / self.weight, factor, between };
        Ok(merge_moments(share, batch.mean, batch.var, self.mean.view_mut(), self.var.view_mut())?)
    }
}

/// How many batch norms stand before each one on the longest path, itself included.
struct Levels {
    of_norm: Vec<usize>,
}

impl Levels {
    fn of(program: &Program) -> Self {
        let mut of_node: Vec<usize> = Vec::new();
        for step in &program.steps {
            let before = step.inputs.iter().map(|&input| of_node[input]).max().unwrap_or(0);
            of_node.push(before + usize::from(matches!(step.op, Op::BatchNorm { .. })));
        }
        Levels { of_norm: program.norms.iter().map(|slots| of_node[slots.node]).collect() }
    }

    fn n_levels(&self) -> usize {
        self.of_norm.iter().copied().max().unwrap_or(0)
    }

    fn norms_at(&self, level: usize) -> Vec<usize> {
        (0..self.of_norm.len()).filter(|&norm_idx| self.of_norm[norm_idx] == level).collect()
    }
}
