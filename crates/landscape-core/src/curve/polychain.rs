//! Polygonal chains: K points joined by K−1 straight pieces of equal length in t, c_k(t) = max(0, 1 − |t(K−1) − k|).
//!
//! At most two coefficients differ from 0: with s = t(K−1) on piece i, c_i = 1 − (s − i) and c_{i+1} = s − i. A corner's t = i/(K−1)
//! is rarely a binary fraction; within the rounding of that division s counts as i, so that asking for a corner gives the control
//! point itself, bit for bit.
//!
//! # Source
//! Garipov et al. 2018 (arXiv 1802.10026), section 3.2; `curves.py` `PolyChain` of timgaripov/dnn-mode-connectivity at f0bf253. Ours
//! is the same but for that rounding.

use super::{Curve, check_n_points, check_t, piece_of};
use crate::coefficients::Coefficients;
use crate::error::Result;

/// The polygonal chain through K control points.
///
/// ```
/// use landscape_core::curve::{Curve, PolyChain};
/// assert_eq!(PolyChain::new(3)?.coefficients(0.25)?.as_slice(), [0.5, 0.5, 0.0]);
/// # Ok::<(), landscape_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolyChain {
    n_points: usize,
}

impl PolyChain {
    /// Through `n_points` control points, both endpoints counted.
    ///
    /// # Errors
    /// If there are fewer than two.
    pub fn new(n_points: usize) -> Result<Self> {
        check_n_points(n_points)?;
        Ok(PolyChain { n_points })
    }
}

impl Curve for PolyChain {
    fn n_points(&self) -> usize {
        self.n_points
    }

    fn coefficients(&self, t: f64) -> Result<Coefficients> {
        check_t(t)?;
        let (piece, along) = piece_of(t, self.n_points - 1);
        let mut values = vec![0.0; self.n_points];
        values[piece] = 1.0 - along;
        values[piece + 1] = along;
        Coefficients::new(values)
    }

    /// At a corner the derivative from the right (at t = 1 from the left): corners have measure zero under the sampler.
    fn derivative(&self, t: f64) -> Result<Coefficients> {
        check_t(t)?;
        let (piece, _) = piece_of(t, self.n_points - 1);
        let mut values = vec![0.0; self.n_points];
        values[piece] = -((self.n_points - 1) as f64);
        values[piece + 1] = (self.n_points - 1) as f64;
        Coefficients::new(values)
    }

    fn name(&self) -> &'static str {
        "polychain"
    }
}
