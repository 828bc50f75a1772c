//! Curves in weight space: rules for the coefficients of the control points.

use crate::coefficients::Coefficients;
use crate::error::{Error, Result};

/// A path φ(t) = Σ_k c_k(t) θ_k for t in [0, 1], with φ(0) the first control point and φ(1) the last, bit for bit.
pub trait Curve {
    /// K, both endpoints counted (the convention of dnn-mode-connectivity's `num_bends`).
    fn n_points(&self) -> usize;

    /// c(t).
    ///
    /// # Errors
    /// [`Error::OutsidePath`] unless 0 ≤ t ≤ 1.
    fn coefficients(&self, t: f64) -> Result<Coefficients>;

    /// c′(t); at a corner the derivative from the right.
    ///
    /// # Errors
    /// [`Error::OutsidePath`] unless 0 ≤ t ≤ 1.
    fn derivative(&self, t: f64) -> Result<Coefficients>;

    /// The name in records and on the command line.
    fn name(&self) -> &'static str;
}

/// Fails unless 0 ≤ t ≤ 1.
pub(crate) fn check_t(t: f64) -> Result<()> {
    if (0.0..=1.0).contains(&t) { Ok(()) } else { Err(Error::OutsidePath(t)) }
}
