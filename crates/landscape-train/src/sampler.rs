//! Which point each training step visits: a rule for the coefficients, a pure function of (seed, step).

use landscape_core::{Coefficients, Curve, Result, Seed};

/// A rule for the point of each step.
pub trait Sampler {
    /// K.
    fn n_points(&self) -> usize;

    /// The coefficients of step `step`.
    ///
    /// # Errors
    /// If the rule gives a point outside its path.
    fn coefficients(&self, seed: Seed, step: u64) -> Result<Coefficients>;
}

/// Ordinary training: the one control point itself.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint;

impl Sampler for Endpoint {
    fn n_points(&self) -> usize {
        1
    }

    fn coefficients(&self, _seed: Seed, _step: u64) -> Result<Coefficients> {
        Coefficients::one_hot(0, 1)
    }
}

/// Curve training: one t ~ U(0, 1) per step, as the reference draws it (`CurveNet.forward` of dnn-mode-connectivity).
pub struct UniformOn<'a>(pub &'a dyn Curve);

impl Sampler for UniformOn<'_> {
    fn n_points(&self) -> usize {
        self.0.n_points()
    }

    fn coefficients(&self, seed: Seed, step: u64) -> Result<Coefficients> {
        self.0.coefficients(seed.child("t").child_idx(step).stream().uniform())
    }
}

/// Points given beforehand, one per step and again from the start: for goldens and quadrature.
pub struct Given<'a> {
    /// The curve.
    pub curve: &'a dyn Curve,
    /// The t of each step.
    pub ts: &'a [f64],
}

impl Sampler for Given<'_> {
    fn n_points(&self) -> usize {
        self.curve.n_points()
    }

    fn coefficients(&self, _seed: Seed, step: u64) -> Result<Coefficients> {
        let t = self.ts.get((step % self.ts.len().max(1) as u64) as usize).copied();
        self.curve.coefficients(t.ok_or_else(|| landscape_core::Error::config("ts", "at least one t", "none"))?)
    }
}
