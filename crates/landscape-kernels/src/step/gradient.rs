//! The gradient of a row: given as it is, or formed from that of the point on the way.

use crate::error::{Result, check_len};
use crate::memory::{Real, View};
use std::ops::Range;

/// Where the gradient of a row comes from.
#[derive(Clone, Copy)]
pub(super) enum Gradient<'a, T> {
    /// This one.
    Plain(&'a [T]),
    /// c·(g + decay·w).
    Spread { c: T, g: &'a [T], point: Option<(&'a [T], T)> },
}

impl<'a, T: Real> Gradient<'a, T> {
    /// c·g, or c·(g + decay·w) where there is a point, for a row of `n` elements.
    pub fn spread(op: &'static str, c: f64, g: View<'a, T>, point: Option<(View<'a, T>, f64)>, n: usize) -> Result<Self> {
        check_len(op, "gradient", n, g.len())?;
        if let Some((point, _)) = point {
            check_len(op, "point", n, point.len())?;
        }
        let point = point.map(|(w, decay)| (w.host(), T::from_f64(decay)));
        Ok(Gradient::Spread { c: T::from_f64(c), g: g.host(), point })
    }

    /// A part of it.
    pub fn slice(&self, range: Range<usize>) -> Self {
        match *self {
            Gradient::Plain(g) => Gradient::Plain(&g[range]),
            Gradient::Spread { c, g, point } => {
                Gradient::Spread { c, g: &g[range.clone()], point: point.map(|(w, decay)| (&w[range], decay)) }
            }
        }
    }
}

/// Runs `$loop` with `$values` an iterator over a [`Gradient`]: one loop per kind, so that none asks inside what it reads.
macro_rules! for_gradient {
    ($gradient:expr, |$values:ident| $loop:expr) => {
        match $gradient {
            $crate::step::gradient::Gradient::Plain(g) => {
                let $values = g.iter().copied();
                $loop
            }
            // As `spread`: a coefficient of zero gives exactly zero.
            $crate::step::gradient::Gradient::Spread { c, g, .. } if c == T::ZERO => {
                let $values = g.iter().map(|_| T::ZERO);
                $loop
            }
            $crate::step::gradient::Gradient::Spread { c, g, point: None } => {
                let $values = g.iter().map(|&g| c * g);
                $loop
            }
            $crate::step::gradient::Gradient::Spread { c, g, point: Some((w, decay)) } => {
                let $values = g.iter().zip(w).map(|(&g, &w)| c * (g + decay * w));
                $loop
            }
        }
    };
}
pub(super) use for_gradient;
