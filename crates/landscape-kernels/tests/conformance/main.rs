//! What every op promises alike, run over a list of all of them: a new op is a new row.

mod accumulate;
mod devices;
mod moves;
mod transformers;
mod weight_space;
mod bad_shapes;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod without_gpu;

use landscape_kernels::batch_norm::{self, BatchNormShape};
use landscape_kernels::{Accumulate, Result, View, ViewMut};

/// The signature that both gradients of batch normalisation have.
type BatchNormBackward = fn(
    &BatchNormShape,
    View<'_, f64>,
    View<'_, f64>,
    View<'_, f64>,
    f64,
    Option<View<'_, f64>>,
    View<'_, f64>,
    ViewMut<'_, f64>,
    Accumulate,
    Option<ViewMut<'_, f64>>,
    Option<ViewMut<'_, f64>>,
    Accumulate,
) -> Result<()>;

const BATCH_NORM_BACKWARD: [(&str, BatchNormBackward); 2] =
    [("batch", batch_norm::backward_batch), ("stored", batch_norm::backward_stored)];

/// `n` values in [-1, 1), by a hash of the position.
fn values(n: usize, seed: u64) -> Vec<f64> {
    (0..n as u64)
        .map(|i| {
            let mut z = (seed << 32 | i).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((z ^ (z >> 32)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
        })
        .collect()
}
