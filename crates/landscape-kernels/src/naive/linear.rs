//! y = x·Wᵀ + b by three loops, in double precision.

use crate::linear::LinearShape;

pub(crate) fn forward(s: &LinearShape, x: &[f64], weight: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let mut y = vec![0.0; s.n_rows * s.out_features];
    for i in 0..s.n_rows {
        for o in 0..s.out_features {
            let mut sum = bias.map_or(0.0, |b| b[o]);
            for k in 0..s.in_features {
                sum += x[i * s.in_features + k] * weight[o * s.in_features + k];
            }
            y[i * s.out_features + o] = sum;
        }
    }
    y
}
