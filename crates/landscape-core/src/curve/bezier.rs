//! Bézier curves: c_k(t) = C(n, k) tᵏ (1−t)ⁿ⁻ᵏ with n = K−1.
//!
//! The coefficients come from the recursion B_{k,n} = (1−t) B_{k,n−1} + t B_{k−1,n−1} (de Casteljau's, on the coefficients): it adds
//! only numbers of one sign, so the sum stays 1 to rounding and nothing overflows, however many points there are; and with t = 0 or
//! 1 every product is by exactly 0 or 1, so the ends are one-hot to the bit.
//!
//! # Source
//! Garipov et al. 2018 (arXiv 1802.10026), section 3.2; `curves.py` `Bezier` of timgaripov/dnn-mode-connectivity at f0bf253. Ours is
//! the same curve; theirs multiplies binomials and powers.

use super::{Curve, check_n_points, check_t};
use crate::coefficients::Coefficients;
use crate::error::Result;

/// The Bézier curve of K control points; it passes through the first and the last.
///
/// ```
/// use landscape_core::curve::{Bezier, Curve};
/// assert_eq!(Bezier::new(3)?.coefficients(0.25)?.as_slice(), [0.5625, 0.375, 0.0625]);
/// # Ok::<(), landscape_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bezier {
    n_points: usize,
}

impl Bezier {
    /// With `n_points` control points, both endpoints counted.
    ///
    /// # Errors
    /// If there are fewer than two.
    pub fn new(n_points: usize) -> Result<Self> {
        check_n_points(n_points)?;
        Ok(Bezier { n_points })
    }
}

impl Curve for Bezier {
    fn n_points(&self) -> usize {
        self.n_points
    }

    fn coefficients(&self, t: f64) -> Result<Coefficients> {
        check_t(t)?;
        Coefficients::new(bernstein(self.n_points - 1, t))
    }

    /// c_k′(t) = n (B_{k−1,n−1}(t) − B_{k,n−1}(t)).
    fn derivative(&self, t: f64) -> Result<Coefficients> {
        check_t(t)?;
        let degree = self.n_points - 1;
        let lower = bernstein(degree - 1, t);
        let at = |k: Option<usize>| k.and_then(|k| lower.get(k)).copied().unwrap_or(0.0);
        Coefficients::new((0..=degree).map(|k| degree as f64 * (at(k.checked_sub(1)) - at(Some(k)))).collect())
    }

    fn name(&self) -> &'static str {
        "bezier"
    }
}

/// The Bernstein polynomials B_{0,n} … B_{n,n} at t.
fn bernstein(degree: usize, t: f64) -> Vec<f64> {
    let mut values = vec![0.0; degree + 1];
    values[0] = 1.0;
    for n in 1..=degree {
        for k in (1..=n).rev() {
            values[k] = (1.0 - t) * values[k] + t * values[k - 1];
        }
        values[0] *= 1.0 - t;
    }
    values
}
