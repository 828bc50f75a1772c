//! Batch normalisation column by column, in double precision and in two passes.

use crate::batch_norm::BatchNormShape;

pub(crate) fn statistics(s: &BatchNormShape, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let n = s.n_rows as f64;
    let column = |c: usize| (0..s.n_rows).map(move |i| x[i * s.channels + c]);
    let mean: Vec<f64> = (0..s.channels).map(|c| column(c).sum::<f64>() / n).collect();
    let var = (0..s.channels).map(|c| column(c).map(|v| (v - mean[c]).powi(2)).sum::<f64>() / n).collect();
    (mean, var)
}

pub(crate) fn normalize(
    s: &BatchNormShape,
    x: &[f64],
    (mean, var): (&[f64], &[f64]),
    eps: f64,
    weight: Option<&[f64]>,
    bias: Option<&[f64]>,
) -> Vec<f64> {
    (0..s.n_rows * s.channels)
        .map(|i| {
            let c = i % s.channels;
            (x[i] - mean[c]) / (var[c] + eps).sqrt() * weight.map_or(1.0, |w| w[c]) + bias.map_or(0.0, |b| b[c])
        })
        .collect()
}
