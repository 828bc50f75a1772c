//! Curves by name, as configurations and records hold them.

use super::{Bezier, Curve, PolyChain, Segment};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which curve.
///
/// ```
/// use landscape_core::curve::CurveKind;
/// let curve = CurveKind::parse("bezier")?.build(3)?;
/// assert_eq!((curve.name(), curve.n_points()), ("bezier", 3));
/// # Ok::<(), landscape_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CurveKind {
    /// [`Segment`].
    Segment,
    /// [`Bezier`].
    Bezier,
    /// [`PolyChain`].
    PolyChain,
}

impl CurveKind {
    /// All of them.
    pub const ALL: [CurveKind; 3] = [CurveKind::Segment, CurveKind::Bezier, CurveKind::PolyChain];

    /// Reads a name.
    ///
    /// # Errors
    /// If there is no curve of that name.
    pub fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| Error::config("curve", "`segment`, `bezier` or `polychain`", format!("`{name}`")))
    }

    /// The name in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            CurveKind::Segment => "segment",
            CurveKind::Bezier => "bezier",
            CurveKind::PolyChain => "polychain",
        }
    }

    /// The curve with `n_points` control points, both endpoints counted.
    ///
    /// # Errors
    /// If there are fewer than two, or more for a segment.
    pub fn build(self, n_points: usize) -> Result<Box<dyn Curve>> {
        match self {
            CurveKind::Segment if n_points == 2 => Ok(Box::new(Segment)),
            CurveKind::Segment => Err(Error::config("n_points", "2 for a segment", n_points)),
            CurveKind::Bezier => Ok(Box::new(Bezier::new(n_points)?)),
            CurveKind::PolyChain => Ok(Box::new(PolyChain::new(n_points)?)),
        }
    }
}
