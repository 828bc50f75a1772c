//! Losses summed over a batch, and their gradients in the same pass.
//!
//! Every sum is taken in double precision over pieces cut by shape, so sums of batches can be added, and have the same bits for any
//! number of threads.

mod binary;
#[cfg(feature = "cuda")]
mod cuda;

pub use binary::{add_binary_cross_entropy, binary_cross_entropy};

use crate::check::{n_elements, shape_error};
use crate::error::{Error, Result, check_len};
#[cfg(feature = "cuda")]
use crate::memory::{Device, Memory};
use crate::memory::{Real, View, ViewMut};
use crate::parallel::CHUNK;
use rayon::prelude::*;

/// Sums over the rows of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossSums {
    /// Sum of the losses of the rows (nats for cross-entropy, squared units for the squared error).
    pub loss_nats_sum: f64,
    /// Rows whose largest output is not at their label, or with an output on the wrong side; 0 for the squared error.
    pub n_wrong: u64,
    /// Rows that counted: all whose label is not [`IGNORED`].
    pub n_rows: u64,
}

/// The label of a row that counts nothing: no loss, not wrong, a gradient of zero.
pub const IGNORED: u32 = u32::MAX;

/// Softmax cross-entropy: Σ_i (ln Σ_j exp z_ij − z_i,label), and scale·(softmax(z) − onehot) into the gradient.
///
/// A row whose label is [`IGNORED`] counts nothing, and its gradient is zero. A row counts as right if the first of its largest logits
/// stands at its label. A row with NaN is wrong, its loss and gradient are NaN.
///
/// # Shapes
/// `logits` and the gradient `[n_rows, n_classes]`; `labels` `[n_rows]`. The gradient comes with its scale: 1/n for that of the mean.
///
/// # Errors
/// [`Error::Length`] where lengths differ, [`Error::Label`] for a label that is no class; the gradient is then untouched.
///
/// # Source
/// PyTorch `cross_entropy` with class indices; the exponentials are taken in double precision for either type, about the maximum.
///
/// ```
/// use landscape_kernels::{View, loss::cross_entropy};
/// let sums = cross_entropy(2, 2, View::Host(&[0.0_f32, 0.0, 3.0, -3.0]), View::Host(&[0, 1]), None)?;
/// assert_eq!(sums.n_wrong, 1); // of equal logits the first counts
/// assert!((sums.loss_nats_sum - (2.0_f64.ln() + 6.0 + (-6.0_f64).exp().ln_1p())).abs() < 1e-12);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn cross_entropy<T: Real>(
    n_rows: usize,
    n_classes: usize,
    logits: View<'_, T>,
    labels: View<'_, u32>,
    gradient: Option<(ViewMut<'_, T>, f64)>,
) -> Result<LossSums> {
    check_cross_entropy(n_rows, n_classes, logits, labels, gradient.as_ref())?;
    on_device!(CROSS_ENTROPY, [logits, labels, gradient], gpu => {
        let mut sums = Memory::zeros(&Device::Cuda(gpu.clone()), N_SUMS);
        cuda::cross_entropy(gpu, [n_rows, n_classes], logits, labels, gradient, sums.view_mut())?;
        read_sums(n_classes, sums.view())
    });
    let labels = labels.host();
    if let Some((row, &label)) = labels.iter().enumerate().find(|(_, label)| **label != IGNORED && **label as usize >= n_classes) {
        return Err(Error::Label { op: CROSS_ENTROPY, row, label, n_classes });
    }
    Ok(sum_rows(n_classes, logits.host(), gradient, |row, logits, gradient| match (labels[row], gradient) {
        (IGNORED, None) => LossSums::default(),
        (IGNORED, Some((gradient, _))) => {
            gradient.fill(T::ZERO);
            LossSums::default()
        }
        (label, gradient) => cross_entropy_row(logits, label as usize, gradient),
    }))
}

/// Squared error, mean over the outputs of a row: Σ_i 1/m Σ_j (y_ij − t_ij)², and scale·2(y − t)/m into the gradient.
///
/// Divided by the number of rows this is PyTorch's `MSELoss` with its default `reduction="mean"`.
///
/// # Shapes
/// `outputs`, `targets` and the gradient `[n_rows, m]`, m = `n_outputs`. The gradient comes with its scale: 1/n for that of the mean.
///
/// # Errors
/// [`Error::Length`] where lengths differ, [`Error::Shape`] if there are no outputs.
///
/// ```
/// use landscape_kernels::{View, loss::squared_error};
/// let sums = squared_error(1, 2, View::Host(&[1.0_f64, 5.0]), View::Host(&[0.0, 2.0]), None)?;
/// assert_eq!(sums.loss_nats_sum, 5.0);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn squared_error<T: Real>(
    n_rows: usize,
    n_outputs: usize,
    outputs: View<'_, T>,
    targets: View<'_, T>,
    gradient: Option<(ViewMut<'_, T>, f64)>,
) -> Result<LossSums> {
    check_pairs(SQUARED_ERROR, "outputs", n_rows, n_outputs, outputs, targets, gradient.as_ref())?;
    on_device!(SQUARED_ERROR, [outputs, targets, gradient], gpu => {
        let mut sums = Memory::zeros(&Device::Cuda(gpu.clone()), N_SUMS);
        cuda::squared_error(gpu, [n_rows, n_outputs], outputs, targets, gradient, sums.view_mut())?;
        read_sums(0, sums.view())
    });
    let targets = targets.host();
    Ok(sum_rows(n_outputs, outputs.host(), gradient, |row, outputs, gradient| {
        squared_error_row(outputs, &targets[row * n_outputs..][..n_outputs], gradient)
    }))
}

/// Numbers that sums of losses take where they are added up: the loss, the wrong rows, the row and value of a bad label, and the rows that
/// counted.
pub const N_SUMS: usize = 5;

/// [`cross_entropy`], its sums added to `sums` where the operands are, without a wait: [`read_sums`] reads them.
///
/// # Shapes
/// As [`cross_entropy`]; `sums` [`N_SUMS`], zeros before the first batch.
///
/// # Errors
/// [`Error::Length`] where lengths differ. A label that is no class is told by [`read_sums`], and its row counts nothing.
///
/// ```
/// use landscape_kernels::{View, loss::{N_SUMS, add_cross_entropy, cross_entropy, read_sums}};
/// let (logits, labels) = ([0.0_f32, 1.0, 3.0, -3.0], [0, 0]);
/// let mut sums = [0.0; N_SUMS];
/// for _ in 0..2 {
///     add_cross_entropy(2, 2, View::Host(&logits), View::Host(&labels), None, (&mut sums[..]).into())?;
/// }
/// let once = cross_entropy(2, 2, View::Host(&logits), View::Host(&labels), None)?;
/// assert_eq!(read_sums(2, View::Host(&sums))?.loss_nats_sum, 2.0 * once.loss_nats_sum);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn add_cross_entropy<T: Real>(
    n_rows: usize,
    n_classes: usize,
    logits: View<'_, T>,
    labels: View<'_, u32>,
    gradient: Option<(ViewMut<'_, T>, f64)>,
    sums: ViewMut<'_, f64>,
) -> Result<()> {
    check_cross_entropy(n_rows, n_classes, logits, labels, gradient.as_ref())?;
    check_len(CROSS_ENTROPY, "sums", N_SUMS, sums.len())?;
    on_device!(
        CROSS_ENTROPY,
        [logits, labels, gradient, sums],
        gpu => cuda::cross_entropy(gpu, [n_rows, n_classes], logits, labels, gradient, sums)
    );
    let sums = sums.host();
    match cross_entropy(n_rows, n_classes, logits, labels, gradient) {
        Err(Error::Label { row, label, .. }) if sums[2] == 0.0 => {
            // A row number is far below 2⁵³, so it is exact.
            (sums[2], sums[3]) = ((row + 1) as f64, f64::from(label));
            Ok(())
        }
        Err(Error::Label { .. }) => Ok(()),
        other => add_to(sums, other?),
    }
}

/// [`squared_error`], its sums added to `sums` as [`add_cross_entropy`] does.
///
/// # Shapes
/// As [`squared_error`]; `sums` [`N_SUMS`], zeros before the first batch.
///
/// # Errors
/// As [`squared_error`].
pub fn add_squared_error<T: Real>(
    n_rows: usize,
    n_outputs: usize,
    outputs: View<'_, T>,
    targets: View<'_, T>,
    gradient: Option<(ViewMut<'_, T>, f64)>,
    sums: ViewMut<'_, f64>,
) -> Result<()> {
    check_pairs(SQUARED_ERROR, "outputs", n_rows, n_outputs, outputs, targets, gradient.as_ref())?;
    check_len(SQUARED_ERROR, "sums", N_SUMS, sums.len())?;
    on_device!(
        SQUARED_ERROR,
        [outputs, targets, gradient, sums],
        gpu => cuda::squared_error(gpu, [n_rows, n_outputs], outputs, targets, gradient, sums)
    );
    add_to(sums.host(), squared_error(n_rows, n_outputs, outputs, targets, gradient)?)
}

/// What [`add_cross_entropy`], [`add_squared_error`] or [`add_binary_cross_entropy`] has added up; where that is on a GPU, this waits for it.
///
/// # Errors
/// [`Error::Label`] for the first label since the sums were zero that was none of `n_classes` (its row counted within its batch),
/// [`Error::Length`] if there are not [`N_SUMS`], [`Error::Device`] if a GPU failed.
pub fn read_sums(n_classes: usize, sums: View<'_, f64>) -> Result<LossSums> {
    check_len(CROSS_ENTROPY, "sums", N_SUMS, sums.len())?;
    let sums = sums.read()?;
    if sums[2] > 0.0 {
        return Err(Error::Label { op: CROSS_ENTROPY, row: sums[2] as usize - 1, label: sums[3] as u32, n_classes });
    }
    Ok(LossSums { loss_nats_sum: sums[0], n_wrong: sums[1] as u64, n_rows: sums[4] as u64 })
}

fn add_to(sums: &mut [f64], batch: LossSums) -> Result<()> {
    sums[0] += batch.loss_nats_sum;
    sums[1] += batch.n_wrong as f64;
    sums[4] += batch.n_rows as f64;
    Ok(())
}

const CROSS_ENTROPY: &str = "cross_entropy";
const SQUARED_ERROR: &str = "squared_error";

fn check_cross_entropy<T: Real>(
    n_rows: usize,
    n_classes: usize,
    logits: View<'_, T>,
    labels: View<'_, u32>,
    gradient: Option<&(ViewMut<'_, T>, f64)>,
) -> Result<()> {
    let n = n_elements(CROSS_ENTROPY, &[n_rows, n_classes])?;
    check_len(CROSS_ENTROPY, "logits", n, logits.len())?;
    check_len(CROSS_ENTROPY, "labels", n_rows, labels.len())?;
    gradient.map_or(Ok(()), |(gradient, _)| check_len(CROSS_ENTROPY, "gradient", n, gradient.len()))
}

/// Fails unless outputs, targets and gradient are `[n_rows, n_outputs]` with at least one output.
fn check_pairs<T: Real>(
    op: &'static str,
    outputs_name: &'static str,
    n_rows: usize,
    n_outputs: usize,
    outputs: View<'_, T>,
    targets: View<'_, T>,
    gradient: Option<&(ViewMut<'_, T>, f64)>,
) -> Result<()> {
    if n_outputs == 0 {
        return Err(shape_error(op, "`n_outputs` must be at least 1, got 0"));
    }
    let n = n_elements(op, &[n_rows, n_outputs])?;
    check_len(op, outputs_name, n, outputs.len())?;
    check_len(op, "targets", n, targets.len())?;
    gradient.map_or(Ok(()), |(gradient, _)| check_len(op, "gradient", n, gradient.len()))
}

/// Adds `f(row_idx, row, gradient of the row and scale)` up, over fixed pieces in parallel and in order.
fn sum_rows<T: Real>(
    width: usize,
    values: &[T],
    gradient: Option<(ViewMut<'_, T>, f64)>,
    f: impl Fn(usize, &[T], Option<(&mut [T], f64)>) -> LossSums + Sync,
) -> LossSums {
    if values.is_empty() {
        return LossSums::default();
    }
    // An exponential costs much more than a load, so pieces are smaller than those of element-wise kernels.
    let rows_per_piece = (CHUNK / 8 / width).max(1);
    let pieces = values.par_chunks(rows_per_piece * width).enumerate();
    let add = |sum: LossSums, row: LossSums| LossSums {
        loss_nats_sum: sum.loss_nats_sum + row.loss_nats_sum,
        n_wrong: sum.n_wrong + row.n_wrong,
        n_rows: sum.n_rows + row.n_rows,
    };
    let partials: Vec<LossSums> = match gradient {
        None => pieces
            .map(|(idx, rows)| {
                let rows = rows.chunks_exact(width).enumerate();
                rows.map(|(i, row)| f(idx * rows_per_piece + i, row, None)).fold(LossSums::default(), add)
            })
            .collect(),
        Some((gradient, scale)) => pieces
            .zip(gradient.host().par_chunks_mut(rows_per_piece * width))
            .map(|((idx, rows), gradients)| {
                let rows = rows.chunks_exact(width).zip(gradients.chunks_exact_mut(width)).enumerate();
                rows.map(|(i, (row, gradient))| f(idx * rows_per_piece + i, row, Some((gradient, scale)))).fold(LossSums::default(), add)
            })
            .collect(),
    };
    partials.into_iter().fold(LossSums::default(), add)
}

fn cross_entropy_row<T: Real>(logits: &[T], label: usize, gradient: Option<(&mut [T], f64)>) -> LossSums {
    let (mut best, mut has_nan) = (0, false);
    for (j, z) in logits.iter().enumerate() {
        has_nan |= z.is_nan();
        if *z > logits[best] {
            best = j;
        }
    }
    let max = logits[best].to_f64();
    let sum: f64 = logits.iter().map(|z| (z.to_f64() - max).exp()).sum();
    let log_sum = sum.ln();
    if let Some((gradient, scale)) = gradient {
        for (j, (gradient, z)) in gradient.iter_mut().zip(logits).enumerate() {
            let p = (z.to_f64() - max).exp() / sum;
            *gradient = T::from_f64(scale * if j == label { p - 1.0 } else { p });
        }
    }
    LossSums { loss_nats_sum: log_sum - (logits[label].to_f64() - max), n_wrong: u64::from(has_nan || best != label), n_rows: 1 }
}

fn squared_error_row<T: Real>(outputs: &[T], targets: &[T], gradient: Option<(&mut [T], f64)>) -> LossSums {
    let m = outputs.len() as f64;
    let sum: f64 = outputs.iter().zip(targets).map(|(y, t)| (y.to_f64() - t.to_f64()).powi(2)).sum();
    if let Some((gradient, scale)) = gradient {
        for ((gradient, y), t) in gradient.iter_mut().zip(outputs).zip(targets) {
            *gradient = T::from_f64(scale * 2.0 * (y.to_f64() - t.to_f64()) / m);
        }
    }
    LossSums { loss_nats_sum: sum / m, n_wrong: 0, n_rows: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::loss as naive;
    use crate::naive::tools::{assert_close, bits, check_gradient, on_pools, values};
    use proptest::prelude::*;

    fn labels(n_rows: usize, n_classes: usize, seed: u64) -> Vec<u32> {
        values::<f64>(n_rows, seed).iter().map(|v| ((v + 1.0) / 2.0 * n_classes as f64) as u32).collect()
    }

    fn logits<T: Real>(n: usize, seed: u64, size: f64) -> Vec<T> {
        values::<T>(n, seed).into_iter().map(|v| v * T::from_f64(size)).collect()
    }

    fn cross<T: Real>(n_rows: usize, n_classes: usize, z: &[T], labels: &[u32], scale: f64) -> (LossSums, Vec<T>) {
        let mut gradient = vec![T::ONE; z.len()];
        let sums = cross_entropy(n_rows, n_classes, z.into(), labels.into(), Some(((&mut gradient).into(), scale))).expect("a good call");
        let again = cross_entropy(n_rows, n_classes, z.into(), labels.into(), None).expect("a good call");
        assert_eq!(sums, again);
        (sums, gradient)
    }

    fn square<T: Real>(n_rows: usize, n_outputs: usize, y: &[T], t: &[T], scale: f64) -> (LossSums, Vec<T>) {
        let mut gradient = vec![T::ONE; y.len()];
        let sums = squared_error(n_rows, n_outputs, y.into(), t.into(), Some(((&mut gradient).into(), scale))).expect("a good call");
        assert_eq!(sums, squared_error(n_rows, n_outputs, y.into(), t.into(), None).expect("a good call"));
        (sums, gradient)
    }

    fn same_as_naive<T: Real>(n_rows: usize, n: usize, seed: u64, size: f64) {
        let (z, labels) = (logits::<T>(n_rows * n, seed, size), labels(n_rows, n, seed + 1));
        let (sums, gradient) = cross(n_rows, n, &z, &labels, 0.25);
        let (loss, n_wrong, expected) = naive::cross_entropy(n, &z, &labels, 0.25);
        assert!((sums.loss_nats_sum - loss).abs() <= 1e-12 * (1.0 + loss), "{} {loss}", sums.loss_nats_sum);
        assert_eq!(sums.n_wrong, n_wrong);
        assert_close(&gradient, &expected, 4.0);
        let t = logits::<T>(n_rows * n, seed + 2, 3.0);
        let (sums, gradient) = square(n_rows, n, &z, &t, 0.25);
        let (loss, expected) = naive::squared_error(n, &z, &t, 0.25);
        assert!((sums.loss_nats_sum - loss).abs() <= 1e-12 * (1.0 + loss));
        assert_close(&gradient, &expected, 4.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equal_naive(n_rows in 0_usize..700, n in 1_usize..23, seed in 0_u64..1000, size in 0.1_f64..40.0) {
            same_as_naive::<f32>(n_rows, n, seed, size);
            same_as_naive::<f64>(n_rows, n, seed, size);
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let (n_rows, n) = (5, 7);
        let (z, t, labels) = (logits::<f64>(n_rows * n, 1, 3.0), logits::<f64>(n_rows * n, 2, 3.0), labels(n_rows, n, 3));
        check_gradient(&z, &cross(n_rows, n, &z, &labels, 0.2).1, |z| 0.2 * cross(n_rows, n, z, &labels, 1.0).0.loss_nats_sum);
        check_gradient(&z, &square(n_rows, n, &z, &t, 0.2).1, |z| 0.2 * square(n_rows, n, z, &t, 1.0).0.loss_nats_sum);
    }

    /// Large logits neither overflow nor lose the loss; a constant added to a row changes nothing.
    #[test]
    fn large_logits_are_exact() {
        let (sums, gradient) = cross(1, 3, &[1e4_f32, 0.0, -1e4], &[1], 1.0);
        assert_eq!((sums.loss_nats_sum, sums.n_wrong), (1e4, 1));
        assert_eq!(gradient, [1.0, -1.0, 0.0]);
        let right = cross(1, 2, &[60.0_f64, 0.0], &[0], 1.0).0;
        assert!(right.loss_nats_sum >= 0.0 && right.loss_nats_sum < 1e-15);
        let z = logits::<f64>(40, 9, 3.0);
        let moved: Vec<f64> = z.iter().map(|z| z + 64.0).collect();
        let (a, b) = (cross(4, 10, &z, &[1, 2, 3, 4], 1.0).0, cross(4, 10, &moved, &[1, 2, 3, 4], 1.0).0);
        assert!((a.loss_nats_sum - b.loss_nats_sum).abs() < 1e-12);
    }

    /// Rows without a label are as if they were not there, but for a gradient of zero.
    #[test]
    fn ignored_rows_count_nothing() {
        let z = logits::<f32>(12, 3, 3.0);
        let (some, gradient) = cross(4, 3, &z, &[1, IGNORED, IGNORED, 0], 0.5);
        let rest = [&z[..3], &z[9..]].concat();
        let (expected, of_rest) = cross(2, 3, &rest, &[1, 0], 0.5);
        assert_eq!((some, some.n_rows), (expected, 2));
        assert_eq!(gradient, [&of_rest[..3], &[0.0; 6], &of_rest[3..]].concat());
        let mut sums = [0.0; N_SUMS];
        let labels = [IGNORED, 2, IGNORED, IGNORED];
        add_cross_entropy(4, 3, (&z).into(), View::Host(&labels), None, (&mut sums[..]).into()).expect("a good call");
        assert_eq!(read_sums(3, View::Host(&sums)).expect("no bad label").n_rows, 1);
        let error = cross_entropy(1, 3, View::Host(&z[..3]), View::Host(&[IGNORED - 1]), None).expect_err("no class");
        assert!(matches!(error, Error::Label { row: 0, .. }));
    }

    #[test]
    fn ties_go_to_the_first_and_nan_is_wrong() {
        assert_eq!(cross(1, 3, &[1.0_f32, 1.0, 0.0], &[0], 1.0).0.n_wrong, 0);
        assert_eq!(cross(1, 3, &[1.0_f32, 1.0, 0.0], &[1], 1.0).0.n_wrong, 1);
        for nan_idx in 0..3 {
            let mut z = [5.0_f32, 1.0, 0.0];
            z[nan_idx] = f32::NAN;
            let mut gradient = [0.0; 3];
            for label in 0..3 {
                let sums = cross_entropy(1, 3, (&z[..]).into(), View::Host(&[label]), Some(((&mut gradient[..]).into(), 1.0)))
                    .expect("a good call");
                assert!(sums.loss_nats_sum.is_nan() && sums.n_wrong == 1);
                assert!(gradient.iter().all(|g| g.is_nan()));
            }
        }
        let minus = [f32::NEG_INFINITY, 0.0];
        assert_eq!(cross(1, 2, &minus, &[1], 1.0), (LossSums { n_rows: 1, ..LossSums::default() }, vec![0.0, 0.0]));
        assert_eq!(cross(1, 2, &minus, &[0], 1.0).0.loss_nats_sum, f64::INFINITY);
    }

    #[test]
    fn bits_do_not_depend_on_the_thread_count() {
        let (n_rows, n) = (5003, 10);
        let (z, labels) = (logits::<f32>(n_rows * n, 1, 5.0), labels(n_rows, n, 2));
        on_pools(|| {
            let (sums, gradient) = cross(n_rows, n, &z, &labels, 1.0);
            (sums.loss_nats_sum.to_bits(), sums.n_wrong, bits(&gradient))
        });
        let t = logits::<f32>(n_rows * n, 3, 5.0);
        on_pools(|| square(n_rows, n, &z, &t, 1.0).0.loss_nats_sum.to_bits());
    }

    #[test]
    fn bad_arguments_are_errors_and_change_nothing() {
        let z = [0.0_f32; 6];
        let mut gradient = [7.0_f32; 6];
        let mut call = |n_rows, n, n_logits: usize, labels: &[u32], n_gradient: usize| {
            cross_entropy(n_rows, n, (&z[..n_logits]).into(), labels.into(), Some(((&mut gradient[..n_gradient]).into(), 1.0))).map(|_| ())
        };
        assert!(call(2, 3, 5, &[0, 0], 6).is_err());
        assert!(call(2, 3, 6, &[0], 6).is_err());
        assert!(call(2, 3, 6, &[0, 0], 5).is_err());
        let label = call(2, 3, 6, &[0, 3], 6).expect_err("3 is no class").to_string();
        assert_eq!(label, "`cross_entropy`: label 3 of row 1 must be below 3");
        assert!(call(1, 0, 0, &[0], 0).is_err());
        assert!(call(usize::MAX, 2, 6, &[0], 6).is_err());
        assert!(call(0, 3, 0, &[], 0).is_ok());
        assert!(squared_error(2, 3, View::Host(&z), View::Host(&z[..5]), None).is_err());
        assert!(squared_error(2, 0, View::Host(&z[..0]), View::Host(&z[..0]), None).is_err());
        assert!(squared_error(2, 3, View::Host(&z), View::Host(&z), Some(((&mut gradient[..5]).into(), 1.0))).is_err());
        assert_eq!(gradient, [7.0; 6]);
    }
}
