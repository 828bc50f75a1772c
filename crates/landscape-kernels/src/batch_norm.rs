//! Batch normalisation over the rows of `[n_rows, channels]` (channels last, n_rows = n·h·w).
//!
//! y = (x − μ) / √(σ² + ε) · γ + β with μ and σ² per channel, either of this batch or stored.
//! Running statistics, and the unbiased variance that PyTorch keeps in them, are the caller's business.

use crate::error::{Error, Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::reduce::{gradient_moments, rows_per_wide_row, shifted_moments, tile};
use crate::simd::multiversion;

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
    pub fn n_elements(&self) -> usize {
        self.n_rows * self.channels
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
/// [`Error::Length`] where an operand does not fit; [`Error::Shape`] if there are no rows.
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
    check_len(OP, "x", shape.n_elements(), x.len())?;
    check_len(OP, "mean", shape.channels, mean.len())?;
    check_len(OP, "var", shape.channels, var.len())?;
    check_rows(shape)?;
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
    check_len(OP, "x", shape.n_elements(), x.len())?;
    check_len(OP, "y", shape.n_elements(), y.len())?;
    check_channels(shape, mean, var, weight)?;
    if let Some(bias) = bias {
        check_len(OP, "bias", shape.channels, bias.len())?;
    }
    if shape.channels == 0 {
        return Ok(());
    }
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

/// The gradient through [`normalize`] and [`statistics`]: `mean` and `var` are those of `x`.
///
/// With x̂ = (x − μ)/√(σ² + ε): dγ = Σ dy·x̂, dβ = Σ dy, dx = γ/√(σ² + ε) · (dy − dβ/n − x̂·dγ/n).
///
/// # Shapes
/// `x`, `dy`, `dx` `[n_rows, channels]`; `mean`, `var`, `weight`, `dweight`, `dbias` `[channels]`. `dx_mode` is for `dx`, `mode` for
/// `dweight` and `dbias`.
///
/// # Errors
/// [`Error::Length`] where an operand does not fit; [`Error::Shape`] if there are no rows.
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

/// Whether the statistics depend on the input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Through {
    Batch,
    Stored,
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
    check_len(OP, "x", shape.n_elements(), x.len())?;
    check_len(OP, "dy", shape.n_elements(), dy.len())?;
    check_len(OP, "dx", shape.n_elements(), dx.len())?;
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
    fn normalize_rows<T>(x: &[T], mean: &[T], scale: &[T], bias: &[T], y: &mut [T]) {
        let width = mean.len();
        for (x_row, y_row) in x.chunks(width).zip(y.chunks_mut(width)) {
            for ((((y, &x), &m), &s), &b) in y_row.iter_mut().zip(x_row).zip(mean).zip(scale).zip(bias) {
                *y = (x - m) * s + b;
            }
        }
    }
}

multiversion! {
    fn batch_gradient_rows<T>(x: &[T], mean: &[T], dy: &[T], a: &[T], b: &[T], c: &[T], dx: &mut [T], mode: Accumulate) {
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
