//! The seam: how path algorithms know what they move through. *Move*, then measure many batches.
//!
//! Networks, candle models and analytic surfaces implement [`Objective`]; nothing above it knows which it is.

use crate::batch::Batches;
use crate::coefficients::Coefficients;
use crate::control::ControlPoints;
use crate::error::Result;
use crate::params::{Buffers, Flat};
use crate::tally::Tally;
use landscape_kernels::{Accumulate, Real};

/// Which statistics normalise a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// The batch's own; running statistics are updated (PyTorch's training mode).
    Batch,
    /// The stored ones (PyTorch's evaluation mode).
    Stored,
}

/// When a pass tells what it measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// Where it returns.
    AtOnce,
    /// Where it returns, or in [`Objective::collect`]: a GPU need not be waited for after every batch.
    Later,
}

/// How a batch is passed through the objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Which statistics normalise.
    pub norm: Norm,
    /// The seed of the dropout masks; without one nothing is dropped.
    pub dropout_seed: Option<u64>,
    /// When the tally is told.
    pub tell: Tell,
}

impl Pass {
    /// Evaluation: stored statistics, nothing dropped.
    pub const EVALUATE: Pass = Pass { norm: Norm::Stored, dropout_seed: None, tell: Tell::AtOnce };

    /// Training: batch statistics, masks from `dropout_seed`.
    pub const fn train(dropout_seed: u64) -> Pass {
        Pass { norm: Norm::Batch, dropout_seed: Some(dropout_seed), tell: Tell::AtOnce }
    }

    /// The same pass, told with [`Tell::Later`].
    pub const fn later(self) -> Pass {
        Pass { tell: Tell::Later, ..self }
    }
}

/// A function of the weights that can be measured batch by batch.
pub trait Objective {
    /// What one batch is.
    type Batch;
    /// The precision of the weights.
    type Scalar: Real;

    /// The point the objective stands at; it carries the layout.
    fn weights(&self) -> &Flat<Self::Scalar>;

    /// Goes to w = Σ_k c_k θ_k. Statistics buffers become stale where there are any.
    ///
    /// # Errors
    /// If the layout is not the objective's.
    fn move_to(&mut self, points: &ControlPoints<Self::Scalar>, c: &Coefficients) -> Result<()>;

    /// Measures one batch. With [`Tell::Later`] the tally may be empty (over no examples), and is then told by [`Objective::collect`].
    ///
    /// # Errors
    /// [`crate::Error::StaleStatistics`] with stored statistics after a move, before `refresh` or `set_buffers`.
    fn measure(&mut self, batch: &Self::Batch, pass: Pass) -> Result<Tally>;

    /// Measures one batch and writes the gradient of its *mean* loss.
    ///
    /// # Errors
    /// As [`Objective::measure`]; [`crate::Error::NoGradient`] for black boxes.
    fn gradient(&mut self, batch: &Self::Batch, pass: Pass, into: &mut Flat<Self::Scalar>, mode: Accumulate) -> Result<Tally>;

    /// Tells, batch by batch in their order, the tallies that passes with [`Tell::Later`] kept back; running statistics are up to date
    /// afterwards. What tells at once keeps none and has nothing to do here.
    ///
    /// # Errors
    /// If work that was not waited for failed.
    fn collect(&mut self, told: &mut dyn FnMut(Tally)) -> Result<()>;
}

/// How batch-norm statistics are taken anew at a point. All of them run over unaugmented data in fixed order unless the caller
/// hands them other batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum NormRefresh {
    /// The reference (`update_bn` of dnn-mode-connectivity): momentum b/(n+b), so means of batch means weighted by batch size,
    /// and of *unbiased* batch variances; each batch is normalised by its own statistics on the way.
    #[default]
    BatchAverage,
    /// `torch.optim.swa_utils.update_bn`: every batch counts the same, also a short last one.
    TorchCumulative,
    /// One pass like the reference's, but the variance is that of all examples pooled, within and between batches.
    Pooled,
    /// Layer by layer: each layer sees inputs normalised by the final statistics of the layers before it. Independent of
    /// batching and order; as many passes as there are layers with statistics.
    Sequential,
}

/// An objective with statistics buffers.
pub trait Stateful: Objective {
    /// The buffers as they stand.
    fn buffers(&self) -> &Buffers;

    /// Replaces the buffers, which belong to the present point from now on.
    ///
    /// # Errors
    /// If their layout is another.
    fn set_buffers(&mut self, buffers: &Buffers) -> Result<()>;

    /// Takes the buffers anew from epoch 0 of `batches`.
    ///
    /// # Errors
    /// If a batch cannot be had or run.
    fn refresh(&mut self, how: NormRefresh, batches: &dyn Batches<Batch = Self::Batch>) -> Result<()>;
}
