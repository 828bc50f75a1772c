//! Group normalisation of `[n, pixels, channels]`: each group of channels of each example by its own mean and variance.

use crate::batch_norm::{batch_gradient_rows, normalize_rows};
use crate::check::{n_elements, shape_error};
use crate::error::{Result, check_len};
#[cfg(feature = "cuda")]
use crate::layer_norm::cuda;
#[cfg(feature = "cuda")]
use crate::layer_norm::rows::Centre;
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::reduce::{gradient_moments, rows_per_wide_row, shifted_moments, tile};
use rayon::prelude::*;

const OP: &str = "group_norm";

/// The sizes of a group normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupNormShape {
    /// Examples.
    pub n: usize,
    /// Pixels of an example.
    pub pixels: usize,
    /// Channels.
    pub channels: usize,
    /// Groups of channels that stand next to each other.
    pub groups: usize,
}

impl GroupNormShape {
    fn check(&self) -> Result<usize> {
        let &GroupNormShape { n, pixels, channels, groups } = self;
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(shape_error(OP, format!("`groups` must divide {channels} channels, got {groups}")));
        }
        n_elements(OP, &[n, pixels, channels])
    }

    /// Values of a group of one example.
    fn group_len(&self) -> f64 {
        (self.pixels * (self.channels / self.groups)) as f64
    }
}

/// y = (x − μ)/√(σ² + eps)·weight + bias, with the mean and the biased variance of each example's groups.
///
/// The sums are taken in double precision, about an example's first pixel.
///
/// # Shapes
/// `x`, `y` `[n, pixels, channels]`; `weight`, `bias` `[channels]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit; [`crate::Error::Shape`] if `groups` does not divide `channels` or the sizes
/// overflow.
///
/// # Source
/// Wu and He 2018; PyTorch `group_norm`.
///
/// ```
/// use landscape_kernels::group_norm::{GroupNormShape, forward};
/// let shape = GroupNormShape { n: 1, pixels: 1, channels: 4, groups: 2 };
/// let mut y = [0.0_f64; 4];
/// forward(&shape, 0.0, (&[1.0, 3.0, 9.0, 5.0][..]).into(), None, None, (&mut y[..]).into())?;
/// assert_eq!(y, [-1.0, 1.0, 1.0, -1.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(
    shape: &GroupNormShape,
    eps: f64,
    x: View<'_, T>,
    weight: Option<View<'_, T>>,
    bias: Option<View<'_, T>>,
    y: ViewMut<'_, T>,
) -> Result<()> {
    let n = shape.check()?;
    check_len(OP, "x", n, x.len())?;
    check_len(OP, "y", n, y.len())?;
    for (operand, parameter) in [("weight", weight), ("bias", bias)] {
        parameter.map_or(Ok(()), |parameter| check_len(OP, operand, shape.channels, parameter.len()))?;
    }
    on_device!(OP, [x, weight, bias, y], gpu => cuda::forward(gpu, Centre::Mean, shape, eps, x, weight, bias, y));
    if n == 0 {
        return Ok(());
    }
    let times = rows_per_wide_row(shape.channels);
    let (weight, bias) = (weights(shape, weight), bias.map(View::host));
    let wide_bias = tile(&bias.map_or_else(|| vec![T::ZERO; shape.channels], <[T]>::to_vec), times);
    let example = shape.pixels * shape.channels;
    let chunk = (CHUNK / wide_bias.len()).max(1) * wide_bias.len();
    y.host().par_chunks_mut(example).zip(x.host().par_chunks(example)).for_each(|(y, x)| {
        let [means, scales] = statistics(shape, eps, x);
        let wide = |f: &dyn Fn(usize) -> f64| tile(&(0..shape.channels).map(|c| T::from_f64(f(c))).collect::<Vec<_>>(), times);
        let (mean, scale) = (wide(&|c| means[c]), wide(&|c| scales[c] * weight[c]));
        for_each_chunk_mut(y, chunk, |idx, y| normalize_rows(&x[idx * chunk..][..y.len()], &mean, &scale, &wide_bias, y));
    });
    Ok(())
}

/// The gradients of [`forward`]; the statistics are taken from `x` again.
///
/// With x̂ = (x − μ)/√(σ² + ε) and g = dy·γ, and means over a group: dx = (g − mean(g) − x̂·mean(g·x̂))/√(σ² + ε), dγ = Σ dy·x̂,
/// dβ = Σ dy, sums over examples and pixels.
///
/// # Shapes
/// `x`, `dy`, `dx` `[n, pixels, channels]`; `weight`, `dweight`, `dbias` `[channels]`. `dx` comes with its mode; `mode` is for `dweight`
/// and `dbias`.
///
/// # Errors
/// As [`forward`].
#[allow(clippy::too_many_arguments)]
pub fn backward<T: Real>(
    shape: &GroupNormShape,
    eps: f64,
    x: View<'_, T>,
    weight: Option<View<'_, T>>,
    dy: View<'_, T>,
    dx: Option<(ViewMut<'_, T>, Accumulate)>,
    dweight: Option<ViewMut<'_, T>>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    let n = shape.check()?;
    check_len(OP, "x", n, x.len())?;
    check_len(OP, "dy", n, dy.len())?;
    dx.as_ref().map_or(Ok(()), |(dx, _)| check_len(OP, "dx", n, dx.len()))?;
    let lens = [("dweight", dweight.as_ref().map(ViewMut::len)), ("dbias", dbias.as_ref().map(ViewMut::len))];
    for (operand, len) in [("weight", weight.map(View::len))].into_iter().chain(lens) {
        len.map_or(Ok(()), |len| check_len(OP, operand, shape.channels, len))?;
    }
    on_device!(
        OP,
        [x, weight, dy, dx, dweight, dbias],
        gpu => cuda::backward(gpu, Centre::Mean, shape, eps, x, weight, dy, dx, dweight, dbias, mode)
    );
    let sums = if n == 0 { Vec::new() } else { backward_examples(shape, eps, x.host(), weight, dy.host(), dx) };
    for (which, into) in [dweight, dbias].into_iter().enumerate() {
        let Some(into) = into else { continue };
        for (c, out) in into.host().iter_mut().enumerate() {
            let sum = T::from_f64(sums.iter().map(|of_example| of_example[which][c]).sum());
            *out = if mode == Accumulate::Add { *out + sum } else { sum };
        }
    }
    Ok(())
}

/// Writes dx, and returns each example's share of dweight and dbias.
fn backward_examples<T: Real>(
    shape: &GroupNormShape,
    eps: f64,
    x: &[T],
    weight: Option<View<'_, T>>,
    dy: &[T],
    dx: Option<(ViewMut<'_, T>, Accumulate)>,
) -> Vec<[Vec<f64>; 2]> {
    let &GroupNormShape { n, pixels, channels, groups } = shape;
    let (weight, example, per_group) = (weights(shape, weight), pixels * channels, channels / groups);
    let dx_mode = dx.as_ref().map_or(Accumulate::Overwrite, |(_, mode)| *mode);
    let parts: Vec<Option<&mut [T]>> = match dx {
        Some((dx, _)) => dx.host().chunks_mut(example).map(Some).collect(),
        None => (0..n).map(|_| None).collect(),
    };
    let one = |(idx, dx): (usize, Option<&mut [T]>)| {
        let (x, dy) = (&x[idx * example..][..example], &dy[idx * example..][..example]);
        let [means, scales] = statistics(shape, eps, x);
        let [sums, products] = gradient_moments(channels, x, &means, dy);
        if let Some(dx) = dx {
            let mean_of = |values: &[f64], c: usize| {
                let group = c / per_group * per_group..(c / per_group + 1) * per_group;
                group.map(|c| weight[c] * values[c]).sum::<f64>() / shape.group_len()
            };
            let times = rows_per_wide_row(channels);
            let wide = |f: &dyn Fn(usize) -> f64| tile(&(0..channels).map(|c| T::from_f64(f(c))).collect::<Vec<_>>(), times);
            let (shift, along): (Vec<f64>, Vec<f64>) =
                (0..groups).map(|group| (mean_of(&sums, group * per_group), mean_of(&products, group * per_group))).unzip();
            // dx = a·dy + b·(x − μ) + c, per channel.
            let (mean, a) = (wide(&|c| means[c]), wide(&|c| scales[c] * weight[c]));
            let b = wide(&|c| -scales[c].powi(3) * along[c / per_group]);
            let c = wide(&|c| -scales[c] * shift[c / per_group]);
            let chunk = (CHUNK / a.len()).max(1) * a.len();
            for_each_chunk_mut(dx, chunk, |idx, dx| {
                let range = idx * chunk..idx * chunk + dx.len();
                batch_gradient_rows(&x[range.clone()], &mean, &dy[range], &a, &b, &c, dx, dx_mode);
            });
        }
        [products.iter().zip(&scales).map(|(p, s)| p * s).collect(), sums]
    };
    parts.into_par_iter().enumerate().map(one).collect()
}

/// The weight in double precision, 1 where there is none.
fn weights<T: Real>(shape: &GroupNormShape, weight: Option<View<'_, T>>) -> Vec<f64> {
    weight.map_or_else(|| vec![1.0; shape.channels], |weight| weight.host().iter().map(|w| w.to_f64()).collect())
}

/// For every channel of one example its group's mean and 1/√(σ² + eps).
fn statistics<T: Real>(shape: &GroupNormShape, eps: f64, x: &[T]) -> [Vec<f64>; 2] {
    let &GroupNormShape { pixels, channels, groups, .. } = shape;
    let shift: Vec<f64> = x[..channels].iter().map(|v| v.to_f64()).collect();
    let [sums, squares] = shifted_moments(channels, x, &shift);
    let (p, per_group) = (pixels as f64, channels / groups);
    let [mut means, mut scales] = [vec![0.0; channels], vec![0.0; channels]];
    for first in (0..channels).step_by(per_group) {
        let group = first..first + per_group;
        let mean = group.clone().map(|c| p * shift[c] + sums[c]).sum::<f64>() / shape.group_len();
        // Of each channel about its own mean, and of that about the group's: neither loses digits to a large mean.
        let within = group.clone().map(|c| {
            let d = shift[c] + sums[c] / p - mean;
            squares[c] - sums[c] * sums[c] / p + p * d * d
        });
        let var = within.sum::<f64>() / shape.group_len();
        // Rounding may leave a tiny negative number; NaN must stay NaN.
        let scale = 1.0 / (if var < 0.0 { 0.0 } else { var } + eps).sqrt();
        means[group.clone()].fill(mean);
        scales[group].fill(scale);
    }
    [means, scales]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::naive::group_norm as naive;
    use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
    use crate::simd::tests::{at_every_level, at_level};

    const EPS: f64 = 1e-5;
    const SHAPES: [[usize; 4]; 8] =
        [[2, 5, 4, 2], [1, 1, 6, 2], [3, 49, 32, 8], [2, 100, 30, 1], [2, 7, 5, 5], [2, 1500, 16, 4], [0, 3, 4, 2], [2, 0, 4, 2]];

    fn shape([n, pixels, channels, groups]: [usize; 4]) -> GroupNormShape {
        GroupNormShape { n, pixels, channels, groups }
    }

    /// x, weight, bias and dy.
    fn operands<T: Real>(s: &GroupNormShape) -> [Vec<T>; 4] {
        let n = s.check().unwrap();
        [values(n, 1), values(s.channels, 2), values(s.channels, 3), values(n, 4)]
    }

    /// y, and dx, dweight and dbias added to 0.5.
    fn run<T: Real>(s: &GroupNormShape, affine: bool) -> [Vec<T>; 4] {
        let [x, w, b, dy] = operands::<T>(s);
        let [mut y, mut dx, mut dw, mut db] = [&x, &x, &w, &b].map(|v| vec![T::from_f64(0.5); v.len()]);
        let (weight, bias) = (affine.then(|| View::from(&w)), affine.then(|| View::from(&b)));
        let add = Accumulate::Add;
        forward(s, EPS, (&x).into(), weight, bias, (&mut y).into()).unwrap();
        let (into_dw, into_db) = (Some((&mut dw).into()), Some((&mut db).into()));
        backward(s, EPS, (&x).into(), weight, (&dy).into(), Some(((&mut dx).into(), add)), into_dw, into_db, add).unwrap();
        [y, dx, dw, db]
    }

    fn matches_naive<T: Real>(s: &GroupNormShape) {
        for affine in [true, false] {
            let [x, w, b, dy] = operands::<T>(s).map(|v| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
            let (weight, bias) = (affine.then_some(&w[..]), affine.then_some(&b[..]));
            let y = naive::forward(s, EPS, &x, weight, bias);
            let [mut dx, mut dw, mut db] = naive::backward(s, EPS, &x, weight, &dy);
            [&mut dx, &mut dw, &mut db].into_iter().flatten().for_each(|v| *v += 0.5);
            for (got, expected) in run::<T>(s, affine).iter().zip([y, dx, dw, db]) {
                assert_close(got, &expected.into_iter().map(T::from_f64).collect::<Vec<_>>(), 200.0);
            }
        }
    }

    #[test]
    fn equals_naive() {
        at_every_level(|| {
            for s in SHAPES.map(shape) {
                matches_naive::<f32>(&s);
                matches_naive::<f64>(&s);
            }
        });
    }

    #[test]
    fn gradients_are_those_of_the_forward_pass() {
        let s = shape([2, 3, 4, 2]);
        let [x, w, b, dy] = operands::<f64>(&s);
        let [_, dx, dw, db] = run::<f64>(&s, true).map(|v| v.iter().map(|v| v - 0.5).collect::<Vec<_>>());
        let f = |x: &[f64], w: &[f64], b: &[f64]| dot(&naive::forward(&s, EPS, x, Some(w), Some(b)), &dy);
        check_gradient(&x, &dx, |x| f(x, &w, &b));
        check_gradient(&w, &dw, |w| f(&x, w, &b));
        check_gradient(&b, &db, |b| f(&x, &w, b));
    }

    #[test]
    fn neither_threads_nor_levels_change_bits() {
        let all = || run::<f32>(&shape([3, 1100, 48, 6]), true).map(|v| bits(&v));
        let portable = at_level(crate::simd::Level::Portable, all);
        at_every_level(|| {
            on_pools(all);
            assert!(all() == portable);
        });
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let (x, mut y) = ([0.0_f32; 12], [0.0_f32; 12]);
        let mut error = |s| forward(&s, EPS, (&x[..]).into(), None, None, (&mut y[..]).into()).unwrap_err().to_string();
        assert_eq!(error(shape([1, 2, 6, 4])), "`group_norm`: `groups` must divide 6 channels, got 4");
        assert_eq!(error(shape([1, 2, 6, 0])), "`group_norm`: `groups` must divide 6 channels, got 0");
        assert_eq!(error(shape([1, 3, 6, 3])), "`group_norm`: `x` must have 18 elements, got 12");
    }
}
