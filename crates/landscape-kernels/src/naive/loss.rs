//! Twins of the losses, from their definitions: probabilities by plain division, classes by sorting.

use crate::memory::Real;

/// Loss, wrong rows, scaled gradient.
pub(crate) fn cross_entropy<T: Real>(n_classes: usize, logits: &[T], labels: &[u32], scale: f64) -> (f64, u64, Vec<T>) {
    let (mut loss, mut n_wrong, mut gradient) = (0.0, 0, Vec::new());
    for (row, &label) in logits.chunks_exact(n_classes).zip(labels) {
        let label = label as usize;
        let z: Vec<f64> = row.iter().map(|z| z.to_f64()).collect();
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        loss += total.ln() - z[label];
        let mut order: Vec<usize> = (0..n_classes).collect();
        order.sort_by(|&a, &b| z[b].total_cmp(&z[a]));
        n_wrong += u64::from(order[0] != label);
        gradient.extend(z.iter().enumerate().map(|(j, z)| T::from_f64(scale * (z.exp() / total - f64::from(u8::from(j == label))))));
    }
    (loss, n_wrong, gradient)
}

/// Loss and scaled gradient.
pub(crate) fn squared_error<T: Real>(n_outputs: usize, outputs: &[T], targets: &[T], scale: f64) -> (f64, Vec<T>) {
    let m = n_outputs as f64;
    let differences: Vec<f64> = outputs.iter().zip(targets).map(|(y, t)| y.to_f64() - t.to_f64()).collect();
    (differences.iter().map(|d| d * d / m).sum(), differences.iter().map(|d| T::from_f64(2.0 * scale * d / m)).collect())
}

/// Loss, wrong rows, scaled gradient, by probabilities.
pub(crate) fn binary_cross_entropy<T: Real>(n_outputs: usize, logits: &[T], targets: &[T], scale: f64) -> (f64, u64, Vec<T>) {
    let m = n_outputs as f64;
    let (mut loss, mut n_wrong, mut gradient) = (0.0, 0, Vec::new());
    for (z, t) in logits.chunks_exact(n_outputs).zip(targets.chunks_exact(n_outputs)) {
        let pairs: Vec<(f64, f64)> = z.iter().zip(t).map(|(z, t)| (1.0 / (1.0 + (-z.to_f64()).exp()), t.to_f64())).collect();
        let ln_not = |z: f64| -(z.exp().ln_1p());
        loss -= z.iter().zip(t).map(|(z, t)| t.to_f64() * ln_not(-z.to_f64()) + (1.0 - t.to_f64()) * ln_not(z.to_f64())).sum::<f64>() / m;
        n_wrong += u64::from(pairs.iter().any(|(p, t)| (*p > 0.5) != (*t > 0.5)));
        gradient.extend(pairs.iter().map(|(p, t)| T::from_f64(scale * (p - t) / m)));
    }
    (loss, n_wrong, gradient)
}
