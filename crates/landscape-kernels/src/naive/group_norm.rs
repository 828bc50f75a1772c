//! Group norms as layer norms of what is brought into the order of its groups, in double precision.

use crate::group_norm::GroupNormShape;
use crate::layer_norm::LayerNormShape;
use crate::naive::layer_norm;

/// Where the values of `[n, pixels, channels]` stand in `[n, groups, channels/groups, pixels]`, and each one's channel.
fn places(s: &GroupNormShape) -> Vec<(usize, usize)> {
    let at = |i: usize| {
        let (c, p, n) = (i % s.channels, i / s.channels % s.pixels, i / s.channels / s.pixels);
        ((n * s.channels + c) * s.pixels + p, c)
    };
    (0..s.n * s.pixels * s.channels).map(at).collect()
}

fn turned(s: &GroupNormShape, x: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    places(s).iter().zip(x).for_each(|((at, _), x)| out[*at] = *x);
    out
}

fn rows(s: &GroupNormShape) -> LayerNormShape {
    LayerNormShape { n_rows: s.n * s.groups, len: s.pixels * s.channels / s.groups }
}

pub(crate) fn forward(s: &GroupNormShape, eps: f64, x: &[f64], weight: Option<&[f64]>, bias: Option<&[f64]>) -> Vec<f64> {
    let x_hat = layer_norm::forward(true, &rows(s), eps, &turned(s, x), None, None);
    let affine = |&(at, c): &(usize, usize)| x_hat[at] * weight.map_or(1.0, |w| w[c]) + bias.map_or(0.0, |b| b[c]);
    places(s).iter().map(affine).collect()
}

/// dx, dweight and dbias.
pub(crate) fn backward(s: &GroupNormShape, eps: f64, x: &[f64], weight: Option<&[f64]>, dy: &[f64]) -> [Vec<f64>; 3] {
    let places = places(s);
    let g: Vec<f64> = places.iter().zip(dy).map(|((_, c), dy)| dy * weight.map_or(1.0, |w| w[*c])).collect();
    let [mut dweight, mut dbias] = [vec![0.0; s.channels], vec![0.0; s.channels]];
    for (((_, c), dy), x_hat) in places.iter().zip(dy).zip(forward(s, eps, x, None, None)) {
        dweight[*c] += dy * x_hat;
        dbias[*c] += dy;
    }
    let (x, g, len) = (turned(s, x), turned(s, &g), rows(s).len);
    // The Jacobian of a long row is large: the sums that it amounts to, as the rows' own twin has it entry by entry.
    let dx: Vec<f64> = x
        .chunks(len.max(1))
        .zip(g.chunks(len.max(1)))
        .flat_map(|(x, g)| {
            let n = len as f64;
            let mean = x.iter().sum::<f64>() / n;
            let r = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n + eps).sqrt();
            let mean_g = g.iter().sum::<f64>() / n;
            let along = x.iter().zip(g).map(|(x, g)| g * (x - mean) / r).sum::<f64>() / n;
            x.iter().zip(g).map(|(x, g)| (g - mean_g - (x - mean) / r * along) / r).collect::<Vec<_>>()
        })
        .collect();
    [places.iter().map(|(at, _)| dx[*at]).collect(), dweight, dbias]
}
