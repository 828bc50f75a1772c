//! A chain of curves of one family, end to end: the path through many endpoints is one path.
//!
//! n segments of a K-point curve share their ends, so there are n(K−1)+1 control points. For t in segment s = ⌊nt⌋ the
//! coefficients are the segment's own at nt − s, standing at rows s(K−1) … s(K−1)+K−1; all others are zero. At t = s/n the chain is
//! endpoint s itself, bit for bit; the derivative there is the one from the right.

use super::{Curve, check_t, piece_of};
use crate::coefficients::Coefficients;
use crate::error::{Error, Result};

/// `n_segments` copies of a curve, end to end.
///
/// ```
/// use landscape_core::curve::{Chain, Curve, Segment};
/// let chain = Chain::new(Box::new(Segment), 2)?;
/// assert_eq!(chain.n_points(), 3);
/// assert_eq!(chain.coefficients(0.75)?.as_slice(), [0.0, 0.5, 0.5]);
/// # Ok::<(), landscape_core::Error>(())
/// ```
pub struct Chain {
    segment: Box<dyn Curve>,
    n_segments: usize,
}

impl Chain {
    /// A chain of `n_segments`.
    ///
    /// # Errors
    /// If there are no segments.
    pub fn new(segment: Box<dyn Curve>, n_segments: usize) -> Result<Self> {
        if n_segments == 0 {
            return Err(Error::config("n_segments", "at least 1", 0));
        }
        Ok(Chain { segment, n_segments })
    }

    fn place(&self, t: f64, scale: f64, local: impl Fn(f64) -> Result<Coefficients>) -> Result<Coefficients> {
        check_t(t)?;
        let (segment_idx, along) = piece_of(t, self.n_segments);
        let mut all = vec![0.0; self.n_points()];
        let first = segment_idx * (self.segment.n_points() - 1);
        let own = local(along)?;
        for (slot, c) in all[first..].iter_mut().zip(own.as_slice()) {
            *slot = scale * c;
        }
        Coefficients::new(all)
    }
}

impl Curve for Chain {
    fn n_points(&self) -> usize {
        self.n_segments * (self.segment.n_points() - 1) + 1
    }

    fn coefficients(&self, t: f64) -> Result<Coefficients> {
        self.place(t, 1.0, |s| self.segment.coefficients(s))
    }

    fn derivative(&self, t: f64) -> Result<Coefficients> {
        self.place(t, self.n_segments as f64, |s| self.segment.derivative(s))
    }

    fn name(&self) -> &'static str {
        self.segment.name()
    }
}
