//! Batch normalisation over the rows of `[n_rows, channels]` (channels last, n_rows = n·h·w).
//!
//! y = (x − μ) / √(σ² + ε) · γ + β with μ and σ² per channel, either of this batch or stored.
//! Running statistics, and the unbiased variance that PyTorch keeps in them, are the caller's business.

#[cfg(feature = "cuda")]
mod cuda;

use crate::check::n_elements;
use crate::error::{Error, Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::reduce::{gradient_moments, rows_per_wide_row, shifted_moments, tile};
use crate::simd::multiversion;

mod fused;
mod moments;

pub use fused::{Incoming, Through, backward_input, backward_parameters, gate_and_sum, normalize_fused};
pub use moments::{Share, merge_moments, update_running};

const OP: &str = "batch_norm";

/// The sizes of a batch normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchNormShape {
    /// Values per channel: examples times pixels.
    pub n_rows: usize,
    /// Channels.
    pub channels: usize,
}

impl BatchNormShape {
    /// Elements of an activation.
    ///
    /// # Errors
    /// [`Error::Shape`] if the product overflows.
    pub fn n_elements(&self) -> Result<usize> {
        n_elements(OP, &[self.n_rows, self.channels])
    }
}

/// Mean and biased variance of every channel: μ = Σx/n, σ² = Σ(x − μ)²/n.
///
/// The sums are taken in double precision, about the first row, so that a large mean costs no digits.
///
/// # Shapes
/// `x` `[n_rows, channels]`; `mean`, `var` `[channels]`.
///
/// # Errors
/// [`Error::Length`] where an operand does not fit; [`Error::Shape`] if there are no rows or the sizes overflow.
///
/// # Source
/// Ioffe and Szegedy 2015, algorithm 1; the shifted sums are those of Chan, Golub and LeVeque 1983.
///
/// ```
/// use landscape_kernels::batch_norm::{BatchNormShape, statistics};
/// let (mut mean, mut var) = ([0.0_f32; 1], [0.0_f32; 1]);
/// statistics(&BatchNormShape { n_rows: 2, channels: 1 }, (&[1.0_f32, 3.0][..]).into(), (&mut mean[..]).into(), (&mut var[..]).into())?;
/// assert_eq!((mean, var), ([2.0], [1.0]));
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn statistics<T: Real>(shape: &BatchNormShape, x: View<'_, T>, mean: ViewMut<'_, T>, var: ViewMut<'_, T>) -> Result<()> {
    check_len(OP, "x", shape.n_elements()?, x.len())?;
    check_len(OP, "mean", shape.channels, mean.len())?;
    check_len(OP, "var", shape.channels, var.len())?;
    check_rows(shape)?;
    on_device!(OP, [x, mean, var], gpu => cuda::statistics(gpu, shape, x, mean, var));
    let x = x.host();
    let shift: Vec<f64> = x[..shape.channels].iter().map(|v| v.to_f64()).collect();
    let [sums, squares] = shifted_moments(shape.channels, x, &shift);
    let n = shape.n_rows as f64;
    let (mean, var) = (mean.host(), var.host());
    for c in 0..shape.channels {
        let d = sums[c] / n;
        mean[c] = T::from_f64(shift[c] + d);
        // Rounding may leave a tiny negative number; NaN must stay NaN, which `f64::max` would lose.
        let v = squares[c] / n - d * d;
        var[c] = T::from_f64(if v < 0.0 { 0.0 } else { v });
    }
    Ok(())
}

/// y = (x − mean) / √(var + eps) · weight + bias, for batch and for stored statistics.
///
/// # Shapes
/// `x`, `y` `[n_rows, channels]`; `mean`, `var`, `weight`, `bias` `[channels]`.
///
/// # Errors
/// [`Error::Length`] where an operand does not fit.
#[allow(clippy::too_many_arguments)]
pub fn normalize<T: Real>(
    shape: &BatchNormShape,
    x: View<'_, T>,
    mean: View<'_, T>,
    var: View<'_, T>,
    eps: f64,
    weight: Option<View<'_, T>>,
    bias: Option<View<'_, T>>,
    y: ViewMut<'_, T>,
) -> Result<()> {
    check_len(OP, "x", shape.n_elements()?, x.len())?;
    check_len(OP, "y", shape.n_elements()?, y.len())?;
    check_channels(shape, mean, var, weight)?;
    if let Some(bias) = bias {
        check_len(OP, "bias", shape.channels, bias.len())?;
    }
    if shape.channels == 0 {
        return Ok(());
    }
    on_device!(OP, [x, mean, var, weight, bias, y], gpu => cuda::normalize(gpu, shape, x, mean, var, eps, weight, bias, y));
    let times = rows_per_wide_row(shape.channels);
    let scale = scales(var, eps, weight).into_iter().map(T::from_f64).collect::<Vec<_>>();
    let (mean, scale) = (tile(mean.host(), times), tile(&scale, times));
    let bias = bias.map_or_else(|| vec![T::ZERO; mean.len()], |b| tile(b.host(), times));
    let chunk = (CHUNK / mean.len()).max(1) * mean.len();
    let x = x.host();
    for_each_chunk_mut(y.host(), chunk, |idx, y| {
        let start = idx * chunk;
        normalize_rows(&x[start..start + y.len()], &mean, &scale, &bias, y);
    });
    Ok(())
}

/// scale = weight / √(var + eps), computed in double precision: the factor that [`normalize`] applies, and what a convolution's
/// prologue takes.
///
/// # Shapes
/// All `[channels]`.
///
/// # Errors
/// [`Error::Length`] where an operand does not fit.
pub fn scale<T: Real>(var: View<'_, T>, eps: f64, weight: Option<View<'_, T>>, scale: ViewMut<'_, T>) -> Result<()> {
    check_len(OP, "scale", var.len(), scale.len())?;
    weight.map_or(Ok(()), |w| check_len(OP, "weight", var.len(), w.len()))?;
    scale.host().iter_mut().zip(scales(var, eps, weight)).for_each(|(out, s)| *out = T::from_f64(s));
    Ok(())
}

/// The gradient through [`normalize`] and [`statistics`]: `mean` and `var` are those of `x`.
///
/// With x̂ = (x − μ)/√(σ² + ε): dγ = Σ dy·x̂, dβ = Σ dy, dx = γ/√(σ² + ε) · (dy − dβ/n − x̂·dγ/n).
///
/// # Shapes
/// `x`, `dy`, `dx` `[n_rows, channels]`; `mean`, `var`, `weight`, `dweight`, `dbias` `[channels]`. `dx_mode` is for `dx`, `mode` for
/// `dweight` and `dbias`.
///
/// # Errors
/// [`Error::Length`] where an operand does not fit; [`Error::Shape`] if there are no rows or the sizes overflow.
#[allow(clippy::too_many_arguments)]
pub fn backward_batch<T: Real>(
    shape: &BatchNormShape,
    x: View<'_, T>,
    mean: View<'_, T>,
    var: View<'_, T>,
    eps: f64,
    weight: Option<View<'_, T>>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    dx_mode: Accumulate,
    dweight: Option<ViewMut<'_, T>>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    backward(shape, Through::Batch, x, mean, var, eps, weight, dy, dx, dx_mode, dweight, dbias, mode)
}

/// The gradient through [`normalize`] alone: `mean` and `var` are constants, as in evaluation.
///
/// dγ and dβ as in [`backward_batch`], dx = γ/√(σ² + ε) · dy.
///
/// # Shapes
/// As [`backward_batch`].
///
/// # Errors
/// As [`backward_batch`].
#[allow(clippy::too_many_arguments)]
pub fn backward_stored<T: Real>(
    shape: &BatchNormShape,
    x: View<'_, T>,
    mean: View<'_, T>,
    var: View<'_, T>,
    eps: f64,
    weight: Option<View<'_, T>>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    dx_mode: Accumulate,
    dweight: Option<ViewMut<'_, T>>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    backward(shape, Through::Stored, x, mean, var, eps, weight, dy, dx, dx_mode, dweight, dbias, mode)
}

#[allow(clippy::too_many_arguments)]
fn backward<T: Real>(
    shape: &BatchNormShape,
    through: Through,
    x: View<'_, T>,
    mean: View<'_, T>,
    var: View<'_, T>,
    eps: f64,
    weight: Option<View<'_, T>>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    dx_mode: Accumulate,
    dweight: Option<ViewMut<'_, T>>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    check_len(OP, "x", shape.n_elements()?, x.len())?;
    check_len(OP, "dy", shape.n_elements()?, dy.len())?;
    check_len(OP, "dx", shape.n_elements()?, dx.len())?;
    check_channels(shape, mean, var, weight)?;
    for (operand, values) in [("dweight", &dweight), ("dbias", &dbias)] {
        if let Some(values) = values {
            check_len(OP, operand, shape.channels, values.len())?;
        }
    }
    check_rows(shape)?;
    if shape.channels == 0 {
        return Ok(());
    }
    on_device!(
        OP,
        [x, mean, var, weight, dy, dx, dweight, dbias],
        gpu => cuda::backward(gpu, shape, through, x, mean, var, eps, weight, dy, dx, dx_mode, dweight, dbias, mode)
    );
    let (x, dy) = (x.host(), dy.host());
    let means: Vec<f64> = mean.host().iter().map(|v| v.to_f64()).collect();
    let scale = scales(var, eps, weight);
    let inv_std = scales(var, eps, None);
    // For stored statistics without affine gradients the sums are not needed; dx is then one multiplication.
    let needs_sums = through == Through::Batch || dweight.is_some() || dbias.is_some();
    let [sums, products] =
        if needs_sums { gradient_moments(shape.channels, x, &means, dy) } else { [(); 2].map(|()| vec![0.0; shape.channels]) };
    let dgamma: Vec<f64> = products.iter().zip(&inv_std).map(|(p, s)| p * s).collect();
    store(&dgamma, dweight, mode);
    store(&sums, dbias, mode);

    // dx = a·dy + b·(x − μ) + c, per channel.
    let n = shape.n_rows as f64;
    let times = rows_per_wide_row(shape.channels);
    let wide = |f: &dyn Fn(usize) -> f64| tile(&(0..shape.channels).map(|c| T::from_f64(f(c))).collect::<Vec<_>>(), times);
    let a = wide(&|c| scale[c]);
    let chunk = (CHUNK / a.len()).max(1) * a.len();
    match through {
        Through::Batch => {
            let b = wide(&|c| -scale[c] * inv_std[c] * dgamma[c] / n);
            let shift = wide(&|c| -scale[c] * sums[c] / n);
            let mean = tile(mean.host(), times);
            for_each_chunk_mut(dx.host(), chunk, |idx, dx| {
                let range = idx * chunk..idx * chunk + dx.len();
                batch_gradient_rows(&x[range.clone()], &mean, &dy[range], &a, &b, &shift, dx, dx_mode);
            });
        }
        Through::Stored => for_each_chunk_mut(dx.host(), chunk, |idx, dx| {
            stored_gradient_rows(&dy[idx * chunk..idx * chunk + dx.len()], &a, dx, dx_mode);
        }),
    }
    Ok(())
}

/// weight / √(var + eps) in double precision, with weight 1 where there is none.
fn scales<T: Real>(var: View<'_, T>, eps: f64, weight: Option<View<'_, T>>) -> Vec<f64> {
    let inv_std = var.host().iter().map(|v| 1.0 / (v.to_f64() + eps).sqrt());
    match weight {
        Some(weight) => inv_std.zip(weight.host()).map(|(s, w)| s * w.to_f64()).collect(),
        None => inv_std.collect(),
    }
}

fn store<T: Real>(values: &[f64], into: Option<ViewMut<'_, T>>, mode: Accumulate) {
    let Some(into) = into else { return };
    for (out, &value) in into.host().iter_mut().zip(values) {
        *out = match mode {
            Accumulate::Overwrite => T::from_f64(value),
            Accumulate::Add => *out + T::from_f64(value),
        };
    }
}

fn check_rows(shape: &BatchNormShape) -> Result<()> {
    if shape.n_rows == 0 {
        return Err(Error::Shape { op: OP, reason: "`n_rows` must be at least 1, got 0".to_owned() });
    }
    Ok(())
}

fn check_channels<T: Real>(shape: &BatchNormShape, mean: View<'_, T>, var: View<'_, T>, weight: Option<View<'_, T>>) -> Result<()> {
    check_len(OP, "mean", shape.channels, mean.len())?;
    check_len(OP, "var", shape.channels, var.len())?;
    weight.map_or(Ok(()), |w| check_len(OP, "weight", shape.channels, w.len()))
}

multiversion! {
    pub(crate) fn normalize_rows<T>(x: &[T], mean: &[T], scale: &[T], bias: &[T], y: &mut [T]) {
        let width = mean.len();
        for (x_row, y_row) in x.chunks(width).zip(y.chunks_mut(width)) {
            for ((((y, &x), &m), &s), &b) in y_row.iter_mut().zip(x_row).zip(mean).zip(scale).zip(bias) {
                *y = (x - m) * s + b;
            }
        }
    }
}

multiversion! {
    pub(crate) fn batch_gradient_rows<T>(x: &[T], mean: &[T], dy: &[T], a: &[T], b: &[T], c: &[T], dx: &mut [T], mode: Accumulate) {
        let width = mean.len();
        for ((x_row, dy_row), dx_row) in x.chunks(width).zip(dy.chunks(width)).zip(dx.chunks_mut(width)) {
            let rows = dx_row.iter_mut().zip(x_row).zip(dy_row).zip(mean).zip(a).zip(b).zip(c);
            match mode {
                Accumulate::Overwrite => {
                    for ((((((dx, &x), &dy), &m), &a), &b), &c) in rows {
                        *dx = a * dy + (b * (x - m) + c);
                    }
                }
                Accumulate::Add => {
                    for ((((((dx, &x), &dy), &m), &a), &b), &c) in rows {
                        *dx += a * dy + (b * (x - m) + c);
                    }
                }
            }
        }
    }
}

multiversion! {
    fn stored_gradient_rows<T>(dy: &[T], a: &[T], dx: &mut [T], mode: Accumulate) {
        let width = a.len();
        for (dy_row, dx_row) in dy.chunks(width).zip(dx.chunks_mut(width)) {
            let rows = dx_row.iter_mut().zip(dy_row).zip(a);
            match mode {
                Accumulate::Overwrite => rows.for_each(|((dx, &dy), &a)| *dx = a * dy),
                Accumulate::Add => rows.for_each(|((dx, &dy), &a)| *dx += a * dy),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::naive::batch_norm as naive;
    use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
    use proptest::prelude::*;

    const EPS: f64 = 1e-5;

    fn shape(n_rows: usize, channels: usize) -> BatchNormShape {
        BatchNormShape { n_rows, channels }
    }

    /// Mean, variance and the normalised values.
    fn run<T: Real>(s: &BatchNormShape, x: &[T], weight: Option<&[T]>, bias: Option<&[T]>) -> [Vec<T>; 3] {
        let (mut mean, mut var) = (vec![T::ZERO; s.channels], vec![T::ZERO; s.channels]);
        statistics(s, x.into(), (&mut mean).into(), (&mut var).into()).unwrap();
        let mut y = vec![T::ONE; x.len()];
        let (weight, bias) = (weight.map(View::from), bias.map(View::from));
        normalize(s, x.into(), (&mean).into(), (&var).into(), EPS, weight, bias, (&mut y).into()).unwrap();
        [mean, var, y]
    }

    /// dx, dweight and dbias, added to 0.5.
    fn gradients<T: Real>(
        s: &BatchNormShape,
        through: Through,
        x: &[T],
        mean: &[T],
        var: &[T],
        weight: Option<&[T]>,
        dy: &[T],
    ) -> [Vec<T>; 3] {
        let half = |n| vec![T::from_f64(0.5); n];
        let (mut dx, mut dw, mut db) = (half(x.len()), half(s.channels), half(s.channels));
        let f = if through == Through::Batch { backward_batch } else { backward_stored };
        let (weight, dw_view) = (weight.map(View::from), Some((&mut dw).into()));
        let add = Accumulate::Add;
        f(s, x.into(), mean.into(), var.into(), EPS, weight, dy.into(), (&mut dx).into(), add, dw_view, Some((&mut db).into()), add)
            .unwrap();
        [dx, dw, db]
    }

    fn matches_naive<T: Real>(s: &BatchNormShape, n_ulps: f64) {
        let (x, w, b) = (values::<T>(s.n_elements().unwrap(), 1), values::<T>(s.channels, 2), values::<T>(s.channels, 3));
        let wide = |v: &[T]| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
        let [mean, var, y] = run(s, &x, Some(&w), Some(&b));
        let (naive_mean, naive_var) = naive::statistics(s, &wide(&x));
        let narrow = |v: Vec<f64>| v.into_iter().map(T::from_f64).collect::<Vec<_>>();
        let naive_y = naive::normalize(s, &wide(&x), (&wide(&mean), &wide(&var)), EPS, Some(&wide(&w)), Some(&wide(&b)));
        assert_close(&mean, &narrow(naive_mean), n_ulps);
        assert_close(&var, &narrow(naive_var), n_ulps);
        assert_close(&y, &narrow(naive_y), n_ulps);
    }

    /// Both gradients, with and without a weight, at the statistics of the input and at others.
    fn gradients_match_naive<T: Real>(s: &BatchNormShape, affine: bool) {
        let len = s.n_elements().unwrap();
        let (x, w, g) = (values::<T>(len, 1), values::<T>(s.channels, 2), values::<T>(len, 4));
        let wide = |v: &[T]| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
        let (weight, wide_weight) = (affine.then_some(w.as_slice()), affine.then(|| wide(&w)));
        let [mean, var, _] = run(s, &x, None, None);
        let others = [values::<T>(s.channels, 5), values::<T>(s.channels, 6).iter().map(|&v| v + T::from_f64(1.5)).collect()];
        let twin = |through, mean: &[T], var: &[T]| match through {
            Through::Batch => naive::backward_batch(s, &wide(&x), EPS, wide_weight.as_deref(), &wide(&g)),
            Through::Stored => naive::backward_stored(s, &wide(&x), (&wide(mean), &wide(var)), EPS, wide_weight.as_deref(), &wide(&g)),
        };
        for (through, mean, var) in [(Through::Batch, &mean, &var), (Through::Stored, &others[0], &others[1])] {
            let found = gradients(s, through, &x, mean, var, weight, &g);
            // A gradient of γ is a sum of n terms, each as large as a number of the input over its deviation.
            let size = (s.n_rows as f64).sqrt() / var.iter().map(|v| v.to_f64()).fold(1.0, f64::min).sqrt();
            for (found, expected) in found.iter().zip(twin(through, mean, var)) {
                let expected: Vec<T> = expected.into_iter().map(|v| T::from_f64(v + 0.5)).collect();
                assert_close(found, &expected, 40.0 * size);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn equals_naive(n in 2_usize..300, c in 1_usize..150) {
            matches_naive::<f32>(&shape(n, c), 20.0);
            matches_naive::<f64>(&shape(n, c), 200.0);
        }

        #[test]
        fn gradients_equal_naive(n in 3_usize..120, c in 1_usize..40, affine: bool) {
            gradients_match_naive::<f32>(&shape(n, c), affine);
            gradients_match_naive::<f64>(&shape(n, c), affine);
        }
    }

    #[test]
    fn equals_naive_over_many_splits() {
        matches_naive::<f32>(&shape(20_011, 16), 20.0);
        matches_naive::<f64>(&shape(20_011, 3), 2000.0);
    }

    #[test]
    fn gradients_are_those_of_the_forward_pass() {
        for s in [shape(7, 3), shape(2, 1), shape(50, 5)] {
            let (x, w, b, g) =
                (values(s.n_elements().unwrap(), 1), values(s.channels, 2), values(s.channels, 3), values(s.n_elements().unwrap(), 4));
            let [mean, var, _] = run(&s, &x, Some(&w), Some(&b));
            let whole = |x: &[f64], w: &[f64], b: &[f64]| {
                let (mean, var) = naive::statistics(&s, x);
                dot(&naive::normalize(&s, x, (&mean, &var), EPS, Some(w), Some(b)), &g)
            };
            let minus_half = |v: Vec<f64>| v.iter().map(|v| v - 0.5).collect::<Vec<f64>>();
            let [dx, dw, db] = gradients(&s, Through::Batch, &x, &mean, &var, Some(&w), &g).map(minus_half);
            // Two rows are normalised to about ±1 wherever they lie: the third derivative is large where they nearly meet.
            if s.n_rows > 2 {
                check_gradient(&x, &dx, |x| whole(x, &w, &b));
            }
            check_gradient(&w, &dw, |w| whole(&x, w, &b));
            check_gradient(&b, &db, |b| whole(&x, &w, b));

            let stored = |x: &[f64], w: &[f64], b: &[f64]| dot(&naive::normalize(&s, x, (&mean, &var), EPS, Some(w), Some(b)), &g);
            let [dx, dw, db] = gradients(&s, Through::Stored, &x, &mean, &var, Some(&w), &g).map(minus_half);
            check_gradient(&x, &dx, |x| stored(x, &w, &b));
            check_gradient(&w, &dw, |w| stored(&x, w, &b));
            check_gradient(&b, &db, |b| stored(&x, &w, b));
        }
    }

    #[test]
    fn normalised_columns_have_mean_zero_and_variance_one() {
        let s = shape(1000, 7);
        let x: Vec<f32> = values::<f32>(s.n_elements().unwrap(), 1).iter().map(|v| v * 3.0 + 1000.0).collect();
        let [mean, _, y] = run(&s, &x, None, None);
        let y: Vec<f64> = y.iter().map(|&v| f64::from(v)).collect();
        let (y_mean, y_var) = naive::statistics(&s, &y);
        assert!(mean.iter().all(|m| (m - 1000.0).abs() < 0.3));
        assert!(y_mean.iter().all(|m| m.abs() < 1e-4), "{y_mean:?}");
        assert!(y_var.iter().all(|v| (v - 1.0).abs() < 1e-4), "{y_var:?}");
    }

    #[test]
    fn a_constant_column_has_variance_zero_and_nan_stays() {
        let s = shape(777, 2);
        let mut x = vec![0.1_f32; s.n_elements().unwrap()];
        let [mean, var, y] = run(&s, &x, None, None);
        assert_eq!((mean, var), (vec![0.1; 2], vec![0.0; 2]));
        assert!(y.iter().all(|&v| v == 0.0));
        x[3] = f32::NAN;
        let [mean, var, _] = run(&s, &x, None, None);
        assert!(mean[1].is_nan() && var[1].is_nan() && var[0] == 0.0);
    }

    #[test]
    fn threads_do_not_change_bits() {
        let s = shape(9000, 24);
        let (x, w, g) =
            (values::<f32>(s.n_elements().unwrap(), 1), values::<f32>(s.channels, 2), values::<f32>(s.n_elements().unwrap(), 4));
        on_pools(|| {
            let [mean, var, y] = run(&s, &x, Some(&w), None);
            let [dx, dw, db] = gradients(&s, Through::Batch, &x, &mean, &var, Some(&w), &g);
            [mean, var, y, dx, dw, db].map(|v| bits(&v))
        });
    }

    #[test]
    fn wrong_lengths_and_no_rows_are_errors() {
        let (mut mean, mut var) = ([0.0_f32; 2], [0.0_f32; 2]);
        let err = statistics(&shape(2, 2), (&[0.0; 3][..]).into(), (&mut mean[..]).into(), (&mut var[..]).into()).unwrap_err();
        assert_eq!(err.to_string(), "`batch_norm`: `x` must have 4 elements, got 3");
        let err = statistics(&shape(0, 2), (&[][..]).into(), (&mut mean[..]).into(), (&mut var[..]).into()).unwrap_err();
        assert_eq!(err.to_string(), "`batch_norm`: `n_rows` must be at least 1, got 0");
        assert!(statistics(&shape(usize::MAX, 2), (&[][..]).into(), (&mut mean[..]).into(), (&mut var[..]).into()).is_err());
        let (s, x, mut y) = (shape(2, 2), [0.0_f32; 4], [0.0_f32; 4]);
        let short = Some((&x[..1]).into());
        assert!(normalize(&s, (&x[..]).into(), (&mean[..]).into(), (&var[..]).into(), EPS, short, None, (&mut y[..]).into()).is_err());
        assert!(normalize(&s, (&x[..]).into(), (&mean[..]).into(), (&var[..]).into(), EPS, None, short, (&mut y[..]).into()).is_err());
        assert!(normalize(&s, (&x[..]).into(), (&mean[..]).into(), (&var[..1]).into(), EPS, None, None, (&mut y[..]).into()).is_err());
    }
}
