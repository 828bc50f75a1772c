//! Rotary embedding value by value, in double precision.

use crate::rope::{RopeShape, RopeStyle};

pub(crate) fn turn(s: &RopeShape, direction: f64, x: &[f64]) -> Vec<f64> {
    let (row, half) = (s.heads * s.head_dim, s.rotary_dim / 2);
    let at = |i: usize| {
        let (position, d) = (i / row % s.len, i % s.head_dim);
        if d >= s.rotary_dim {
            return x[i];
        }
        let (pair, is_first) = match s.style {
            RopeStyle::Half => (d % half, d < half),
            RopeStyle::Interleaved => (d / 2, d.is_multiple_of(2)),
        };
        let distance = if s.style == RopeStyle::Half { half } else { 1 };
        let angle = direction * position as f64 * s.base.powf(-2.0 * pair as f64 / s.rotary_dim as f64);
        let (sin, cos) = angle.sin_cos();
        if is_first { x[i] * cos - x[i + distance] * sin } else { x[i] * cos + x[i - distance] * sin }
    };
    (0..x.len()).map(at).collect()
}
