//! The straight line φ(t) = (1−t) θ_0 + t θ_1.
//!
//! # Source
//! The linear interpolation of every study of linear mode connectivity, in the order "start at t = 0"; Capiru/rl-mode-connectivity
//! runs the other way round.

use super::{Curve, check_t};
use crate::coefficients::Coefficients;
use crate::error::Result;

/// The straight line between two points: c(t) = (1−t, t).
///
/// ```
/// use landscape_core::curve::{Curve, Segment};
/// assert_eq!(Segment.coefficients(0.25)?.as_slice(), [0.75, 0.25]);
/// # Ok::<(), landscape_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment;

impl Curve for Segment {
    fn n_points(&self) -> usize {
        2
    }

    fn coefficients(&self, t: f64) -> Result<Coefficients> {
        check_t(t)?;
        Coefficients::new(vec![1.0 - t, t])
    }

    fn derivative(&self, t: f64) -> Result<Coefficients> {
        check_t(t)?;
        Coefficients::new(vec![-1.0, 1.0])
    }

    fn name(&self) -> &'static str {
        "segment"
    }
}
