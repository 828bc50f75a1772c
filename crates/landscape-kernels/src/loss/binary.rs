//! Binary cross-entropy with logits: every output is a question of its own.

use super::{LossSums, N_SUMS, add_to, check_pairs, sum_rows};
#[cfg(feature = "cuda")]
use super::{cuda, read_sums};
use crate::error::{Result, check_len};
#[cfg(feature = "cuda")]
use crate::memory::{Device, Memory};
use crate::memory::{Real, View, ViewMut};

const BINARY: &str = "binary_cross_entropy";

/// Binary cross-entropy of logits, mean over the outputs of a row: Σ_i 1/m Σ_j (ln(1 + e^z_ij) − t_ij·z_ij), and scale·(σ(z) − t)/m into the
/// gradient.
///
/// A row is wrong if any of its outputs is: z > 0 says yes, and the target is yes above 1/2. A row with NaN is wrong.
///
/// # Shapes
/// `logits`, `targets` (numbers from 0 to 1) and the gradient `[n_rows, m]`, m = `n_outputs`. The gradient comes with its scale: 1/n for
/// that of the mean.
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ, [`crate::Error::Shape`] if there are no outputs.
///
/// # Source
/// PyTorch's `BCEWithLogitsLoss`; computed in double precision for either type.
///
/// ```
/// use landscape_kernels::{View, loss::binary_cross_entropy};
/// let sums = binary_cross_entropy(1, 2, View::Host(&[0.0_f64, 0.0]), View::Host(&[1.0, 0.0]), None)?;
/// assert!((sums.loss_nats_sum - 2.0_f64.ln()).abs() < 1e-15 && sums.n_wrong == 1);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn binary_cross_entropy<T: Real>(
    n_rows: usize,
    n_outputs: usize,
    logits: View<'_, T>,
    targets: View<'_, T>,
    gradient: Option<(ViewMut<'_, T>, f64)>,
) -> Result<LossSums> {
    check_pairs(BINARY, "logits", n_rows, n_outputs, logits, targets, gradient.as_ref())?;
    on_device!(BINARY, [logits, targets, gradient], gpu => {
        let mut sums = Memory::zeros(&Device::Cuda(gpu.clone()), N_SUMS);
        cuda::binary_cross_entropy(gpu, [n_rows, n_outputs], logits, targets, gradient, sums.view_mut())?;
        read_sums(0, sums.view())
    });
    let targets = targets.host();
    Ok(sum_rows(n_outputs, logits.host(), gradient, |row, logits, gradient| {
        binary_row(logits, &targets[row * n_outputs..][..n_outputs], gradient)
    }))
}

/// [`binary_cross_entropy`], its sums added to `sums` as [`super::add_cross_entropy`] does.
///
/// # Shapes
/// As [`binary_cross_entropy`]; `sums` [`super::N_SUMS`], zeros before the first batch.
///
/// # Errors
/// As [`binary_cross_entropy`].
pub fn add_binary_cross_entropy<T: Real>(
    n_rows: usize,
    n_outputs: usize,
    logits: View<'_, T>,
    targets: View<'_, T>,
    gradient: Option<(ViewMut<'_, T>, f64)>,
    sums: ViewMut<'_, f64>,
) -> Result<()> {
    check_pairs(BINARY, "logits", n_rows, n_outputs, logits, targets, gradient.as_ref())?;
    check_len(BINARY, "sums", N_SUMS, sums.len())?;
    on_device!(
        BINARY,
        [logits, targets, gradient, sums],
        gpu => cuda::binary_cross_entropy(gpu, [n_rows, n_outputs], logits, targets, gradient, sums)
    );
    add_to(sums.host(), binary_cross_entropy(n_rows, n_outputs, logits, targets, gradient)?)
}

fn binary_row<T: Real>(logits: &[T], targets: &[T], gradient: Option<(&mut [T], f64)>) -> LossSums {
    let m = logits.len() as f64;
    let (mut sum, mut is_wrong) = (0.0, false);
    for (z, t) in logits.iter().zip(targets) {
        let (z, t) = (z.to_f64(), t.to_f64());
        // ln(1 + e^z) without an overflow: max(z, 0) + ln(1 + e^−|z|).
        sum += z.max(0.0) - z * t + (-z.abs()).exp().ln_1p();
        is_wrong |= z.is_nan() || (z > 0.0) != (t > 0.5);
    }
    if let Some((gradient, scale)) = gradient {
        for ((gradient, z), t) in gradient.iter_mut().zip(logits).zip(targets) {
            let z = z.to_f64();
            let e = (-z.abs()).exp();
            let sigmoid = if z >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) };
            *gradient = T::from_f64(scale * (sigmoid - t.to_f64()) / m);
        }
    }
    LossSums { loss_nats_sum: sum / m, n_wrong: u64::from(is_wrong), n_rows: 1 }
}

#[cfg(test)]
mod tests {
    use super::super::read_sums;
    use super::*;
    use crate::naive::loss as naive;
    use crate::naive::tools::{assert_close, bits, check_gradient, on_pools, values};

    fn binary<T: Real>(n_rows: usize, m: usize, z: &[T], t: &[T], scale: f64) -> (LossSums, Vec<T>) {
        let mut gradient = vec![T::ONE; z.len()];
        let sums = binary_cross_entropy(n_rows, m, z.into(), t.into(), Some(((&mut gradient).into(), scale))).expect("a good call");
        assert_eq!(sums, binary_cross_entropy(n_rows, m, z.into(), t.into(), None).expect("a good call"));
        let mut added = [0.0; N_SUMS];
        add_binary_cross_entropy(n_rows, m, z.into(), t.into(), None, (&mut added[..]).into()).expect("a good call");
        assert_eq!(sums, read_sums(0, View::Host(&added)).expect("no labels"));
        (sums, gradient)
    }

    fn inputs<T: Real>(n: usize, size: f64) -> (Vec<T>, Vec<T>) {
        let z = values::<f64>(n, 1).into_iter().map(|v| T::from_f64(size * v)).collect();
        (z, values::<f64>(n, 2).into_iter().map(|v| T::from_f64((v + 1.0) / 2.0)).collect())
    }

    fn same_as_naive<T: Real>(n_rows: usize, m: usize, size: f64) {
        let (z, t) = inputs::<T>(n_rows * m, size);
        let (sums, gradient) = binary(n_rows, m, &z, &t, 0.25);
        let (loss, n_wrong, expected) = naive::binary_cross_entropy(m, &z, &t, 0.25);
        assert!((sums.loss_nats_sum - loss).abs() <= 1e-12 * (1.0 + loss), "{} {loss}", sums.loss_nats_sum);
        assert_eq!((sums.n_wrong, sums.n_rows), (n_wrong, n_rows as u64));
        assert_close(&gradient, &expected, 4.0);
    }

    #[test]
    fn equal_naive_on_any_number_of_threads() {
        for (n_rows, m) in [(0, 2), (1, 1), (9, 5), (700, 1), (300, 33)] {
            for size in [0.5, 20.0] {
                same_as_naive::<f32>(n_rows, m, size);
                same_as_naive::<f64>(n_rows, m, size);
            }
        }
        let (z, t) = inputs::<f32>(50_000, 5.0);
        on_pools(|| {
            let (sums, gradient) = binary(5000, 10, &z, &t, 1.0);
            (sums.loss_nats_sum.to_bits(), sums.n_wrong, bits(&gradient))
        });
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let (z, t) = inputs::<f64>(35, 3.0);
        check_gradient(&z, &binary(5, 7, &z, &t, 0.2).1, |z| 0.2 * binary(5, 7, z, &t, 1.0).0.loss_nats_sum);
    }

    #[test]
    fn large_logits_and_the_wrong_side() {
        let (sums, gradient) = binary(3, 1, &[1e30_f32, -1e30, 1e4], &[1.0, 0.0, 0.0], 1.0);
        assert_eq!((sums.loss_nats_sum, sums.n_wrong), (1e4, 1));
        assert_eq!(gradient, [0.0, 0.0, 1.0]);
        let wrong = |z: [f64; 2], t: [f64; 2]| binary(1, 2, &z, &t, 1.0).0.n_wrong;
        assert_eq!([wrong([1.0, -1.0], [1.0, 0.0]), wrong([1.0, 1.0], [1.0, 0.0]), wrong([0.0, 0.0], [0.0, 0.5])], [0, 1, 0]);
        let nan = binary_cross_entropy(1, 2, View::Host(&[f32::NAN, 0.0]), View::Host(&[0.0, 0.0]), None).expect("a good call");
        assert!(nan.loss_nats_sum.is_nan() && nan.n_wrong == 1);
    }

    #[test]
    fn bad_arguments_are_errors() {
        let x = [0.0_f32; 6];
        let mut gradient = [0.0_f32; 6];
        assert!(binary_cross_entropy(2, 3, View::Host(&x), View::Host(&x[..5]), None).is_err());
        assert!(binary_cross_entropy(2, 0, View::Host(&x[..0]), View::Host(&x[..0]), None).is_err());
        assert!(binary_cross_entropy(2, 3, View::Host(&x), View::Host(&x), Some(((&mut gradient[..5]).into(), 1.0))).is_err());
        assert!(add_binary_cross_entropy(2, 3, View::Host(&x), View::Host(&x), None, (&mut [0.0; 4][..]).into()).is_err());
    }
}
