//! Softmax row by row, in double precision.

pub(crate) fn forward(len: usize, x: &[f64]) -> Vec<f64> {
    let rows = x.chunks(len.max(1));
    rows.flat_map(|row| {
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - top).exp()).sum();
        row.iter().map(|v| (v - top).exp() / sum).collect::<Vec<_>>()
    })
    .collect()
}

/// Σ_k dy_k·∂y_k/∂x_j with every entry of the Jacobian: ∂y_k/∂x_j = y_k·(δ_jk − y_j).
pub(crate) fn backward(len: usize, y: &[f64], dy: &[f64]) -> Vec<f64> {
    let at = |i: usize| {
        let first = i / len * len;
        (first..first + len).map(|k| dy[k] * y[k] * (f64::from(u8::from(i == k)) - y[i])).sum()
    };
    (0..y.len()).map(at).collect()
}
