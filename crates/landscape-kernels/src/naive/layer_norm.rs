//! Layer and RMS norms row by row, in double precision.

use crate::layer_norm::LayerNormShape;

/// The normalised row and its length, about the mean or about zero.
fn normal(of_mean: bool, eps: f64, x: &[f64]) -> (Vec<f64>, f64) {
    let n = x.len() as f64;
    let mean = if of_mean { x.iter().sum::<f64>() / n } else { 0.0 };
    let r = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n + eps).sqrt();
    (x.iter().map(|v| (v - mean) / r).collect(), r)
}

pub(crate) fn forward(of_mean: bool, s: &LayerNormShape, eps: f64, x: &[f64], weight: Option<&[f64]>, bias: Option<&[f64]>) -> Vec<f64> {
    let affine = |(j, v): (usize, f64)| v * weight.map_or(1.0, |w| w[j]) + bias.map_or(0.0, |b| b[j]);
    x.chunks(s.len.max(1)).flat_map(|row| normal(of_mean, eps, row).0.into_iter().enumerate().map(affine).collect::<Vec<_>>()).collect()
}

/// dx, dweight and dbias, by every entry of the Jacobian of a row: ∂x̂_j/∂x_i = (δ_ij − [mean]/n − x̂_i·x̂_j/n)/r.
pub(crate) fn backward(of_mean: bool, s: &LayerNormShape, eps: f64, x: &[f64], weight: Option<&[f64]>, dy: &[f64]) -> [Vec<f64>; 3] {
    let n = s.len as f64;
    let [mut dx, mut dweight, mut dbias] = [vec![0.0; x.len()], vec![0.0; s.len], vec![0.0; s.len]];
    for row in 0..if s.len == 0 { 0 } else { s.n_rows } {
        let at = row * s.len;
        let (x_hat, r) = normal(of_mean, eps, &x[at..][..s.len]);
        for j in 0..s.len {
            dweight[j] += dy[at + j] * x_hat[j];
            dbias[j] += dy[at + j];
            for i in 0..s.len {
                let entry = f64::from(u8::from(i == j)) - f64::from(u8::from(of_mean)) / n - x_hat[i] * x_hat[j] / n;
                dx[at + i] += weight.map_or(1.0, |w| w[j]) * dy[at + j] * entry / r;
            }
        }
    }
    [dx, dweight, dbias]
}
