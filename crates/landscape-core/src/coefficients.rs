//! The K numbers that make a point out of K control points: w = Σ_k c_k θ_k.

use crate::error::{Error, Result};

/// One number per control point.
#[derive(Debug, Clone, PartialEq)]
pub struct Coefficients(Vec<f64>);

impl Coefficients {
    /// These numbers.
    ///
    /// # Errors
    /// If there are none, or one is not finite.
    pub fn new(values: Vec<f64>) -> Result<Self> {
        if values.is_empty() || values.iter().any(|c| !c.is_finite()) {
            return Err(Error::config("coefficients", "one finite number per control point", format!("{values:?}")));
        }
        Ok(Coefficients(values))
    }

    /// Control point `k` of `n_points` itself; blending by these copies it bit for bit.
    ///
    /// # Errors
    /// If there is no such point.
    pub fn one_hot(k: usize, n_points: usize) -> Result<Self> {
        if k >= n_points {
            return Err(Error::config("k", format!("below {n_points}"), k));
        }
        let mut values = vec![0.0; n_points];
        values[k] = 1.0;
        Ok(Coefficients(values))
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// How many control points they are for.
    pub fn n_points(&self) -> usize {
        self.0.len()
    }
}
