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

/// dx, dweight and dbias through batch statistics, by every entry of the Jacobian of a column:
/// ∂y_j/∂x_i = γ/√(σ² + ε) · (δ_ij − 1/n − x̂_i·x̂_j/n).
pub(crate) fn backward_batch(s: &BatchNormShape, x: &[f64], eps: f64, weight: Option<&[f64]>, dy: &[f64]) -> [Vec<f64>; 3] {
    let (mean, var) = statistics(s, x);
    let (n, c) = (s.n_rows as f64, s.channels);
    let [mut dx, dweight, dbias] = backward_stored(s, x, (&mean, &var), eps, weight, dy);
    for (at, dx) in dx.iter_mut().enumerate() {
        let (i, channel) = (at / c, at % c);
        let inv_std = 1.0 / (var[channel] + eps).sqrt();
        let x_hat = |j: usize| (x[j * c + channel] - mean[channel]) * inv_std;
        let entry = |j: usize| f64::from(u8::from(i == j)) - 1.0 / n - x_hat(i) * x_hat(j) / n;
        *dx = weight.map_or(1.0, |w| w[channel]) * inv_std * (0..s.n_rows).map(|j| entry(j) * dy[j * c + channel]).sum::<f64>();
    }
    [dx, dweight, dbias]
}

/// dx, dweight and dbias where the statistics are constants.
pub(crate) fn backward_stored(
    s: &BatchNormShape,
    x: &[f64],
    (mean, var): (&[f64], &[f64]),
    eps: f64,
    weight: Option<&[f64]>,
    dy: &[f64],
) -> [Vec<f64>; 3] {
    let x_hat = normalize(s, x, (mean, var), eps, None, None);
    let column_sum = |f: &dyn Fn(usize) -> f64, c: usize| (0..s.n_rows).map(|i| f(i * s.channels + c)).sum::<f64>();
    let dx = (0..x.len()).map(|at| dy[at] * weight.map_or(1.0, |w| w[at % s.channels]) / (var[at % s.channels] + eps).sqrt());
    let dweight = (0..s.channels).map(|c| column_sum(&|at| dy[at] * x_hat[at], c));
    let dbias = (0..s.channels).map(|c| column_sum(&|at| dy[at], c));
    [dx.collect(), dweight.collect(), dbias.collect()]
}
