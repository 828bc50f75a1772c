//! The gradient of a row: given as it is, or formed from that of the point tile by tile.

use crate::error::{Result, check_len};
use crate::memory::{Real, View};
use crate::simd::multiversion;

/// Elements of a gradient that are formed at once; a small part of L1 in either type.
const TILE: usize = 1024;

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

    /// Calls `f(range within the chunk, gradient there)` for the tiles of the chunk that begins at `start`.
    pub fn for_each_tile(&self, start: usize, len: usize, mut f: impl FnMut(std::ops::Range<usize>, &[T])) {
        match *self {
            Gradient::Plain(g) => f(0..len, &g[start..start + len]),
            Gradient::Spread { c, g, point } => {
                let mut tile = [T::ZERO; TILE];
                for first in (0..len).step_by(TILE) {
                    let range = first..(first + TILE).min(len);
                    let source = start + range.start..start + range.end;
                    let tile = &mut tile[..range.len()];
                    form_gradient(c, &g[source.clone()], point.map(|(w, decay)| (&w[source], decay)), tile);
                    f(range, tile);
                }
            }
        }
    }
}

multiversion! {
    fn form_gradient<T>(c: T, g: &[T], point: Option<(&[T], T)>, out: &mut [T]) {
        match point {
            // As `spread`: a coefficient of zero gives exactly zero.
            _ if c == T::ZERO => out.fill(T::ZERO),
            None => {
                for (out, &g) in out.iter_mut().zip(g) {
                    *out = c * g;
                }
            }
            Some((w, decay)) => {
                for ((out, &g), &w) in out.iter_mut().zip(g).zip(w) {
                    *out = c * (g + decay * w);
                }
            }
        }
    }
}
