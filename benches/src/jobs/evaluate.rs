//! Loss of a batch, statistics as they are stored.

use crate::values;
use crate::worker::Work;
use landscape_core::{Examples, Objective, ParamLayout, Pass, Stateful};
use landscape_kernels::Precision;
use landscape_network::NetworkObjective;
use std::sync::Arc;

/// A network and a batch.
pub struct Evaluation {
    objective: NetworkObjective<f32>,
    batch: Examples<f32>,
}

impl Evaluation {
    /// A network that stands at control point 0.
    ///
    /// # Errors
    /// If there is no such network.
    pub fn new(model: &str, batch: usize, precision: Precision, seed: u64) -> anyhow::Result<Self> {
        let (graph, mut objective) = super::network(model, precision)?;
        objective.set_point(&values::point(&Arc::new(ParamLayout::of_graph(&graph)?), seed, 0)?)?;
        let statistics = values::statistics(objective.buffers(), seed);
        objective.set_buffers(&statistics)?;
        Ok(Evaluation { objective, batch: values::batch(seed, 0, batch, model) })
    }
}

impl Work for Evaluation {
    fn answer(&mut self) -> anyhow::Result<Vec<f64>> {
        Ok(vec![self.objective.measure(&self.batch, Pass::EVALUATE)?.nll()])
    }

    fn run(&mut self, n: usize) -> anyhow::Result<Vec<f64>> {
        super::time(n, || {
            std::hint::black_box(self.objective.measure(&self.batch, Pass::EVALUATE)?);
            Ok(())
        })
    }
}
