//! Operations on control points, and the triad that says what the machine's memory gives.
//!
//! Bytes are counted as the formula has them: each vector read once and written once. What a cache fetches in order to write is not
//! counted, on either side; a triad whose stores bypass the cache therefore shows more of the bus than one whose stores do not.

use crate::request::WeightSpace;
use crate::values::{stream, symmetric};
use crate::worker::{Cost, Work};
use landscape_kernels::step::{Adam, Decay, Nesterov, Sgd, spread_adam_step, spread_sgd_step};
use landscape_kernels::{View, blend::blend};
use rayon::prelude::*;

const DECAY: f64 = 1e-4;
const SGD: Sgd = Sgd { lr: 0.01, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: Nesterov::Off };
const ADAM: Adam = Adam { lr: 0.001, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, decay: Decay::Coupled };
/// The coefficient of the row that steps.
const C_K: f64 = 0.5;

/// Control points and what the operation needs besides.
pub struct Operation {
    operation: WeightSpace,
    n: usize,
    c: Vec<f64>,
    rows: Vec<Vec<f32>>,
    point: Vec<f32>,
    gradient: Vec<f32>,
    moments: [Vec<f32>; 2],
    n_steps: u64,
}

impl Operation {
    /// Rows of `n` numbers.
    ///
    /// # Errors
    /// If there are no rows.
    pub fn new(operation: WeightSpace, n: usize, n_points: usize, seed: u64) -> anyhow::Result<Self> {
        anyhow::ensure!(n_points > 0, "`points` must be at least 1");
        let vector = |name: &str, k: u64| symmetric(stream(seed, name, k), n, 1.0);
        let is_blend = operation == WeightSpace::Blend;
        // Coefficients that no shortcut applies to, with a sum of one.
        let total = (n_points * (n_points + 1) / 2) as f64;
        let c = (0..n_points).map(|k| (k + 1) as f64 / total).collect();
        let n_rows = if is_blend { n_points } else { 1 };
        let rows = (0..n_rows).map(|k| vector("row", k as u64)).collect();
        let gradient = if is_blend { Vec::new() } else { vector("gradient", 0) };
        let point = if is_blend { vec![0.0; n] } else { vector("point", 0) };
        let zeros = |wanted: bool| if wanted { vec![0.0; n] } else { Vec::new() };
        let moments = [zeros(!is_blend), zeros(operation == WeightSpace::SpreadAdam)];
        Ok(Operation { operation, n, c, rows, point, gradient, moments, n_steps: 0 })
    }

    fn once(&mut self) -> anyhow::Result<()> {
        let Operation { operation, c, rows, point, gradient, moments: [m, v], n_steps, .. } = self;
        match operation {
            WeightSpace::Blend => {
                let rows: Vec<View<'_, f32>> = rows.iter().map(View::from).collect();
                blend(c, &rows, point.into())?;
            }
            WeightSpace::SpreadSgd => {
                let point = Some(((&*point).into(), DECAY));
                spread_sgd_step(&SGD, *n_steps, C_K, (&*gradient).into(), point, (&mut rows[0]).into(), Some(m.into()))?;
            }
            WeightSpace::SpreadAdam => {
                let point = Some(((&*point).into(), DECAY));
                spread_adam_step(&ADAM, *n_steps + 1, C_K, (&*gradient).into(), point, (&mut rows[0]).into(), m.into(), v.into())?;
            }
        }
        *n_steps += 1;
        Ok(())
    }
}

impl Work for Operation {
    /// The sum and the sum of squares of the point (`blend`), or of the row after two steps.
    fn answer(&mut self) -> anyhow::Result<Vec<f64>> {
        self.once()?;
        let result = if self.operation == WeightSpace::Blend {
            &self.point
        } else {
            self.once()?;
            &self.rows[0]
        };
        Ok(vec![result.iter().map(|&v| f64::from(v)).sum(), result.iter().map(|&v| f64::from(v).powi(2)).sum()])
    }

    fn run(&mut self, n: usize) -> anyhow::Result<Vec<f64>> {
        super::time(n, || self.once())
    }

    fn cost(&self) -> Cost {
        let n_vectors = match self.operation {
            WeightSpace::Blend => self.c.len() + 1,
            // Read: gradient, point, row, velocity. Written: row, velocity.
            WeightSpace::SpreadSgd => 6,
            WeightSpace::SpreadAdam => 8,
        };
        Cost { bytes: Some(4 * (n_vectors * self.n) as u64), flops: None }
    }
}

/// a = b + s·c.
pub struct Triad {
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

/// Numbers that one task of the triad works on.
const CHUNK: usize = 16 * 1024;
const SCALE: f32 = 0.5;

impl Triad {
    /// Vectors of `n` numbers.
    pub fn new(n: usize, seed: u64) -> Self {
        let vector = |name| symmetric(stream(seed, name, 0), n, 1.0);
        Triad { a: vec![0.0; n], b: vector("b"), c: vector("c") }
    }
}

impl Work for Triad {
    fn answer(&mut self) -> anyhow::Result<Vec<f64>> {
        self.run(1)?;
        Ok(vec![self.a.iter().map(|&v| f64::from(v)).sum()])
    }

    fn run(&mut self, n: usize) -> anyhow::Result<Vec<f64>> {
        super::time(n, || {
            let pieces = self.a.par_chunks_mut(CHUNK).zip(self.b.par_chunks(CHUNK)).zip(self.c.par_chunks(CHUNK));
            pieces.for_each(|((a, b), c)| triad(a, b, c));
            std::hint::black_box(&mut self.a);
            Ok(())
        })
    }

    fn cost(&self) -> Cost {
        Cost { bytes: Some(12 * self.a.len() as u64), flops: None }
    }
}

fn triad(a: &mut [f32], b: &[f32], c: &[f32]) {
    for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
        *a = b + SCALE * c;
    }
}
