//! What a profile does at each of its points.

use crate::values;
use crate::worker::Work;
use landscape_core::{
    Bezier, Coefficients, ControlPoints, Curve, Examples, NormRefresh, Objective, ParamLayout, Pass, Row, Stateful, Tally,
};
use landscape_network::NetworkObjective;
use std::sync::Arc;

/// Where on the curve.
const T: f64 = 0.3;

/// A curve and the data to measure its points on.
pub struct ProfilePoint {
    objective: NetworkObjective<f32>,
    points: ControlPoints<f32>,
    c: Coefficients,
    train: Vec<Examples<f32>>,
    test: Vec<Examples<f32>>,
}

impl ProfilePoint {
    /// A Bézier curve of three points.
    ///
    /// # Errors
    /// If there is no such network.
    pub fn new(model: &str, batch: usize, n_train: usize, n_test: usize, seed: u64) -> anyhow::Result<Self> {
        let (graph, objective) = super::network(model, landscape_kernels::Precision::F32)?;
        let layout = Arc::new(ParamLayout::of_graph(&graph)?);
        let rows = (0..3).map(|k| Ok(Row::Frozen(Arc::new(values::point(&layout, seed, k)?)))).collect::<anyhow::Result<_>>()?;
        let batches = |range: std::ops::Range<usize>| range.map(|idx| values::batch(seed, idx as u64, batch, model)).collect();
        let (train, test) = (batches(0..n_train), batches(n_train..n_train + n_test));
        Ok(ProfilePoint { objective, points: ControlPoints::new(rows)?, c: Bezier::new(3)?.coefficients(T)?, train, test })
    }

    fn measure(&mut self) -> anyhow::Result<[f64; 2]> {
        self.objective.move_to(&self.points, &self.c)?;
        self.objective.refresh(NormRefresh::BatchAverage, &self.train)?;
        let mut losses = [0.0; 2];
        for (loss, batches) in losses.iter_mut().zip([&self.train, &self.test]) {
            let mut tally = Tally::default();
            for batch in batches {
                tally += self.objective.measure(batch, Pass::EVALUATE)?;
            }
            *loss = tally.nll();
        }
        Ok(losses)
    }
}

impl Work for ProfilePoint {
    fn answer(&mut self) -> anyhow::Result<Vec<f64>> {
        Ok(self.measure()?.to_vec())
    }

    fn run(&mut self, n: usize) -> anyhow::Result<Vec<f64>> {
        super::time(n, || {
            std::hint::black_box(self.measure()?);
            Ok(())
        })
    }
}
