//! Statistics kept over many batches, in double precision and where the batches are, so that nothing waits for them.

use super::OP;
#[cfg(feature = "cuda")]
use super::cuda;
use crate::error::{Result, check_len};
use crate::memory::{Real, View, ViewMut};

/// A running statistic moves towards a batch's: r ← T((1 − momentum)·r + (momentum·factor)·b), rounded to the batch's precision, so that a
/// checkpoint holds it exactly.
///
/// For a variance `factor` is n/(n − 1), which makes the batch's unbiased.
///
/// # Shapes
/// `batch`, `running` `[channels]`.
///
/// # Errors
/// [`crate::Error::Length`] where they differ.
///
/// # Source
/// PyTorch's `BatchNorm2d` in training mode.
///
/// ```
/// use landscape_kernels::{View, batch_norm::update_running};
/// let mut running = [1.0];
/// update_running(0.25, 2.0, View::Host(&[3.0_f32]), (&mut running[..]).into())?;
/// assert_eq!(running, [0.75 + 0.25 * 6.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn update_running<T: Real>(momentum: f64, factor: f64, batch: View<'_, T>, running: ViewMut<'_, f64>) -> Result<()> {
    check_len(OP, "running", batch.len(), running.len())?;
    on_device!(OP, [batch, running], gpu => cuda::update_running(gpu, momentum, factor, batch, running));
    for (running, batch) in running.host().iter_mut().zip(batch.host()) {
        let value = (1.0 - momentum) * *running + momentum * factor * batch.to_f64();
        *running = T::from_f64(value).to_f64();
    }
    Ok(())
}

/// How a batch counts in [`merge_moments`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Its weight over all weight so far, itself included.
    pub share: f64,
    /// What its variance is multiplied by.
    pub factor: f64,
    /// How much the distance of the means adds to the variance: 1 pools all values, 0 averages variances.
    pub between: f64,
}

/// Mean and variance over all batches take one more in: with d = b_mean − mean,
/// mean += share·d and var += share·(factor·b_var − var) + between·share·(1 − share)·d².
///
/// # Shapes
/// All `[channels]`.
///
/// # Errors
/// [`crate::Error::Length`] where they differ.
///
/// # Source
/// Chan, Golub and LeVeque 1983.
///
/// ```
/// use landscape_kernels::{View, batch_norm::{Share, merge_moments}};
/// let (mut mean, mut var) = ([1.0], [0.0]); // of one value, 1
/// let share = Share { share: 0.5, factor: 1.0, between: 1.0 };
/// merge_moments(share, View::Host(&[3.0_f32]), View::Host(&[0.0]), (&mut mean[..]).into(), (&mut var[..]).into())?;
/// assert_eq!((mean, var), ([2.0], [1.0])); // of 1 and 3
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn merge_moments<T: Real>(
    share: Share,
    batch_mean: View<'_, T>,
    batch_var: View<'_, T>,
    mean: ViewMut<'_, f64>,
    var: ViewMut<'_, f64>,
) -> Result<()> {
    check_len(OP, "batch_var", batch_mean.len(), batch_var.len())?;
    check_len(OP, "mean", batch_mean.len(), mean.len())?;
    check_len(OP, "var", batch_mean.len(), var.len())?;
    on_device!(OP, [batch_mean, batch_var, mean, var], gpu => cuda::merge_moments(gpu, share, batch_mean, batch_var, mean, var));
    let Share { share, factor, between } = share;
    let of_batch = batch_mean.host().iter().zip(batch_var.host());
    for ((mean, var), (batch_mean, batch_var)) in mean.host().iter_mut().zip(var.host()).zip(of_batch) {
        let d = batch_mean.to_f64() - *mean;
        *mean += share * d;
        *var += share * (factor * batch_var.to_f64() - *var) + between * share * (1.0 - share) * d * d;
    }
    Ok(())
}
