//! Two endpoints, or a chain of more, to a trained curve: the options, and the control points that training starts from.

use crate::error::{Error, Result};
use crate::fit::{DecayOn, FitConfig};
use crate::optimizer::Optimizer;
use crate::schedule::Schedule;
use landscape_core::curve::{Chain, CurveKind};
use landscape_core::init::{self, BendInit};
use landscape_core::{ControlPoints, Curve, Flat, Row};
use landscape_kernels::Real;
use serde::{Deserialize, Serialize};

/// Which endpoints move in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreeEnds {
    /// None: both stay what they were (the reference's `--fix_start --fix_end`).
    Neither,
    /// The first.
    Start,
    /// The last.
    End,
    /// Both.
    Both,
}

/// Options of connecting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connect {
    /// The family of curves.
    pub curve: CurveKind,
    /// K, both endpoints of a segment counted, as the reference's `num_bends` counts them.
    pub points: usize,
    /// Where the bends start.
    pub init: BendInit,
    /// Which endpoints move.
    pub free_ends: FreeEnds,
    /// The training.
    pub fit: FitConfig,
    /// The seed of t, masks and batches.
    pub seed: u64,
}

impl Connect {
    /// What dnn-mode-connectivity does for residual networks (README of f0bf253): a Bézier curve of three points, bends on the
    /// line, 200 epochs of SGD with momentum 0.9 and the piecewise linear rate from 0.03, L2 of the point 3e-4.
    pub fn garipov2018() -> Self {
        Connect {
            curve: CurveKind::Bezier,
            points: 3,
            init: BendInit::Line,
            free_ends: FreeEnds::Neither,
            fit: FitConfig {
                epochs: 200,
                optimizer: Optimizer::sgd(0.03),
                schedule: Schedule::Garipov2018,
                weight_decay: 3e-4,
                decay_on: DecayOn::Point,
            },
            seed: 0,
        }
    }

    /// The curve through `n_endpoints`: one segment for two, a chain for more.
    ///
    /// # Errors
    /// If there are fewer than two endpoints, or fewer than two points a segment.
    pub fn path(&self, n_endpoints: usize) -> Result<Box<dyn Curve>> {
        if n_endpoints < 2 {
            return Err(Error::config("endpoints", "at least two", n_endpoints));
        }
        let segment = self.curve.build(self.points)?;
        Ok(if n_endpoints == 2 { segment } else { Box::new(Chain::new(segment, n_endpoints - 1)?) })
    }

    /// The control points that training starts from: endpoints (shared points, or rows) in their places; bends between them, free.
    ///
    /// `random(i)` gives the i-th bend where [`BendInit::Random`] asks for freshly initialised networks.
    ///
    /// # Errors
    /// As [`Connect::path`]; and if the endpoints' layouts differ, with every difference.
    pub fn control_points<T: Real>(
        &self,
        endpoints: &[impl Clone + Into<Row<T>>],
        random: &mut dyn FnMut(usize) -> landscape_core::Result<Flat<T>>,
    ) -> Result<ControlPoints<T>> {
        self.path(endpoints.len())?;
        let endpoints: Vec<Row<T>> = endpoints.iter().map(|end| end.clone().into()).collect();
        let mut rows = vec![endpoints[0].clone()];
        for (segment_idx, pair) in endpoints.windows(2).enumerate() {
            let n_before = segment_idx * (self.points - 2);
            let bends = init::bends(self.init, &pair[0], &pair[1], self.points, &mut |k| random(n_before + k - 1))?;
            rows.extend(bends.into_iter().map(Row::Free));
            rows.push(pair[1].clone());
        }
        let last = rows.len() - 1;
        if matches!(self.free_ends, FreeEnds::Start | FreeEnds::Both) {
            rows[0] = Row::Free(rows[0].point().into_owned());
        }
        if matches!(self.free_ends, FreeEnds::End | FreeEnds::Both) {
            rows[last] = Row::Free(rows[last].point().into_owned());
        }
        Ok(ControlPoints::new(rows)?)
    }
}
