//! Additive measurements: sums over examples, so that batches and shards add up.

use std::ops::AddAssign;

/// What a pass over some examples found.
///
/// `nll = loss_nats_sum / n_examples`, `error = n_wrong / n_examples`; both are NaN over no examples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// How many examples; where every place of an example has a label, how many labels.
    pub n_examples: u64,
    /// Sum of the examples' losses: negative log-likelihood in nats, or squared error.
    pub loss_nats_sum: f64,
    /// How many examples were classified wrongly; none for regression.
    pub n_wrong: Option<u64>,
}

impl Tally {
    /// Mean loss per example, without any regulariser.
    pub fn nll(&self) -> f64 {
        self.loss_nats_sum / self.n_examples as f64
    }

    /// Share of examples that were classified wrongly.
    pub fn error(&self) -> Option<f64> {
        self.n_wrong.map(|n| n as f64 / self.n_examples as f64)
    }

    /// Share of examples that were classified rightly.
    pub fn accuracy(&self) -> Option<f64> {
        self.error().map(|e| 1.0 - e)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.n_wrong = match (self.n_examples, self.n_wrong, other.n_wrong) {
            (0, None, b) => b,
            (_, Some(a), Some(b)) => Some(a + b),
            (_, a, None) if other.n_examples == 0 => a,
            _ => None,
        };
        self.n_examples += other.n_examples;
        self.loss_nats_sum += other.loss_nats_sum;
    }
}
