//! Layer normalisation over the last axis: y = (x − μ)/√(σ² + ε)·γ + β with μ and σ² (biased) of each row.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod rows;

use crate::check::n_elements;
use crate::error::{Result, check_len};
#[cfg(feature = "cuda")]
use crate::group_norm::GroupNormShape;
use crate::memory::{Accumulate, Real, View, ViewMut};
use rows::{Centre, host};

const OP: &str = "layer_norm";

/// The sizes of a normalisation of rows: of a layer norm or an RMS norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerNormShape {
    /// Rows: examples times tokens.
    pub n_rows: usize,
    /// Values of a row.
    pub len: usize,
}

impl LayerNormShape {
    pub(crate) fn n_elements(&self, op: &'static str) -> Result<usize> {
        n_elements(op, &[self.n_rows, self.len])
    }

    /// The group norm that this is: of one pixel and one group.
    #[cfg(feature = "cuda")]
    pub(crate) fn as_groups(&self) -> GroupNormShape {
        GroupNormShape { n: self.n_rows, pixels: 1, channels: self.len, groups: 1 }
    }
}

/// y = (x − μ)/√(σ² + eps)·weight + bias, with the mean and the biased variance of each row.
///
/// Statistics are taken in double precision, in two passes.
///
/// # Shapes
/// `x`, `y` `[n_rows, len]`; `weight`, `bias` `[len]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit, [`crate::Error::Shape`] for sizes whose product overflows.
///
/// # Source
/// Ba, Kiros and Hinton 2016; PyTorch `layer_norm`.
///
/// ```
/// use landscape_kernels::layer_norm::{LayerNormShape, forward};
/// let mut y = [0.0_f64; 2];
/// forward(&LayerNormShape { n_rows: 1, len: 2 }, 0.0, (&[1.0, 3.0][..]).into(), None, None, (&mut y[..]).into())?;
/// assert_eq!(y, [-1.0, 1.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(
    shape: &LayerNormShape,
    eps: f64,
    x: View<'_, T>,
    weight: Option<View<'_, T>>,
    bias: Option<View<'_, T>>,
    y: ViewMut<'_, T>,
) -> Result<()> {
    let n = shape.n_elements(OP)?;
    check_len(OP, "x", n, x.len())?;
    check_len(OP, "y", n, y.len())?;
    check_parameters(OP, shape, weight, [("bias", bias.map(View::len))])?;
    on_device!(OP, [x, weight, bias, y], gpu => cuda::forward(gpu, Centre::Mean, &shape.as_groups(), eps, x, weight, bias, y));
    rows::forward(Centre::Mean, shape, eps, x.host(), host(weight), host(bias), y.host());
    Ok(())
}

/// The gradients of [`forward`]; the statistics are taken from `x` again.
///
/// With x̂ = (x − μ)/√(σ² + ε) and g = dy·γ: dx = (g − mean(g) − x̂·mean(g·x̂))/√(σ² + ε), dγ = Σ_rows dy·x̂, dβ = Σ_rows dy.
///
/// # Shapes
/// `x`, `dy`, `dx` `[n_rows, len]`; `weight`, `dweight`, `dbias` `[len]`. `dx` comes with its mode; `mode` is for `dweight` and `dbias`.
///
/// # Errors
/// As [`forward`].
#[allow(clippy::too_many_arguments)]
pub fn backward<T: Real>(
    shape: &LayerNormShape,
    eps: f64,
    x: View<'_, T>,
    weight: Option<View<'_, T>>,
    dy: View<'_, T>,
    dx: Option<(ViewMut<'_, T>, Accumulate)>,
    dweight: Option<ViewMut<'_, T>>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    let n = shape.n_elements(OP)?;
    check_len(OP, "x", n, x.len())?;
    check_len(OP, "dy", n, dy.len())?;
    dx.as_ref().map_or(Ok(()), |(dx, _)| check_len(OP, "dx", n, dx.len()))?;
    let lens = [("dweight", dweight.as_ref().map(ViewMut::len)), ("dbias", dbias.as_ref().map(ViewMut::len))];
    check_parameters(OP, shape, weight, lens)?;
    on_device!(
        OP,
        [x, weight, dy, dx, dweight, dbias],
        gpu => cuda::backward(gpu, Centre::Mean, &shape.as_groups(), eps, x, weight, dy, dx, dweight, dbias, mode)
    );
    rows::backward(Centre::Mean, shape, eps, x.host(), host(weight), dy.host(), dx, dweight, dbias, mode);
    Ok(())
}

pub(crate) fn check_parameters<T: Real, const N: usize>(
    op: &'static str,
    shape: &LayerNormShape,
    weight: Option<View<'_, T>>,
    others: [(&'static str, Option<usize>); N],
) -> Result<()> {
    weight.map_or(Ok(()), |weight| check_len(op, "weight", shape.len, weight.len()))?;
    others.into_iter().try_for_each(|(name, len)| len.map_or(Ok(()), |len| check_len(op, name, shape.len, len)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::naive::layer_norm as naive;
    use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
    use crate::rms_norm;
    use crate::simd::tests::{at_every_level, at_level};

    const EPS: f64 = 1e-5;
    const SHAPES: [[usize; 2]; 9] = [[1, 1], [3, 5], [70, 16], [40, 33], [9, 128], [130, 197], [2, 5000], [0, 4], [3, 0]];

    fn shape([n_rows, len]: [usize; 2]) -> LayerNormShape {
        LayerNormShape { n_rows, len }
    }

    /// x, weight, bias and dy.
    fn operands<T: Real>(s: &LayerNormShape) -> [Vec<T>; 4] {
        [values(s.n_rows * s.len, 1), values(s.len, 2), values(s.len, 3), values(s.n_rows * s.len, 4)]
    }

    /// y, and dx, dweight and dbias added to 0.5; without a bias for an RMS norm.
    fn run<T: Real>(centre: Centre, s: &LayerNormShape, affine: bool) -> [Vec<T>; 4] {
        let [x, w, b, dy] = operands::<T>(s);
        let [mut y, mut dx, mut dw, mut db] = [&x, &x, &w, &b].map(|v| vec![T::from_f64(0.5); v.len()]);
        let (weight, bias) = (affine.then(|| View::from(&w)), affine.then(|| View::from(&b)));
        let add = Accumulate::Add;
        let (into_dx, into_dw) = (Some(((&mut dx).into(), add)), Some((&mut dw).into()));
        match centre {
            Centre::Mean => {
                forward(s, EPS, (&x).into(), weight, bias, (&mut y).into()).unwrap();
                backward(s, EPS, (&x).into(), weight, (&dy).into(), into_dx, into_dw, Some((&mut db).into()), add).unwrap();
            }
            Centre::Zero => {
                rms_norm::forward(s, EPS, (&x).into(), weight, (&mut y).into()).unwrap();
                rms_norm::backward(s, EPS, (&x).into(), weight, (&dy).into(), into_dx, into_dw, add).unwrap();
            }
        }
        [y, dx, dw, db]
    }

    fn expected(centre: Centre, s: &LayerNormShape, affine: bool, [x, w, b, dy]: &[Vec<f64>; 4]) -> [Vec<f64>; 4] {
        let (weight, bias) = (affine.then_some(&w[..]), (affine && centre == Centre::Mean).then_some(&b[..]));
        let y = naive::forward(centre == Centre::Mean, s, EPS, x, weight, bias);
        let [dx, dw, mut db] = naive::backward(centre == Centre::Mean, s, EPS, x, weight, dy);
        if centre == Centre::Zero {
            db.fill(0.0);
        }
        [y, dx, dw, db]
    }

    fn matches_naive<T: Real>(centre: Centre, s: &LayerNormShape) {
        for affine in [true, false] {
            let wide = operands::<T>(s).map(|v| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
            let [y, mut dx, mut dw, mut db] = expected(centre, s, affine, &wide);
            [&mut dx, &mut dw, &mut db].into_iter().flatten().for_each(|v| *v += 0.5);
            for (got, expected) in run::<T>(centre, s, affine).iter().zip([y, dx, dw, db]) {
                assert_close(got, &expected.into_iter().map(T::from_f64).collect::<Vec<_>>(), 200.0);
            }
        }
    }

    #[test]
    fn equals_naive() {
        at_every_level(|| {
            for centre in [Centre::Mean, Centre::Zero] {
                for s in SHAPES.map(shape) {
                    matches_naive::<f64>(centre, &s);
                    if s.len > 1 {
                        matches_naive::<f32>(centre, &s);
                    }
                }
            }
        });
    }

    #[test]
    fn gradients_are_those_of_the_forward_pass() {
        let s = shape([3, 6]);
        for centre in [Centre::Mean, Centre::Zero] {
            let all = operands::<f64>(&s);
            let [x, w, b, dy] = &all;
            let [_, dx, dw, db] = run::<f64>(centre, &s, true).map(|v| v.iter().map(|v| v - 0.5).collect::<Vec<_>>());
            let of_mean = centre == Centre::Mean;
            let f = |x: &[f64], w: &[f64], b: &[f64]| dot(&naive::forward(of_mean, &s, EPS, x, Some(w), of_mean.then_some(b)), dy);
            check_gradient(x, &dx, |x| f(x, w, b));
            check_gradient(w, &dw, |w| f(x, w, b));
            check_gradient(b, &db, |b| f(x, w, b));
        }
    }

    #[test]
    fn neither_threads_nor_levels_change_bits() {
        for centre in [Centre::Mean, Centre::Zero] {
            let all = || run::<f32>(centre, &shape([900, 130]), true).map(|v| bits(&v));
            let portable = at_level(crate::simd::Level::Portable, all);
            at_every_level(|| {
                on_pools(all);
                assert!(all() == portable);
            });
        }
    }

    /// A mean of a million costs the digits that `f32` has of it, and no more.
    #[test]
    fn a_large_mean_is_no_trouble() {
        let s = shape([1, 256]);
        let x: Vec<f32> = values::<f32>(256, 1).into_iter().map(|v| 1e6 + (v * 64.0).round()).collect();
        let mut y = vec![0.0_f32; 256];
        forward(&s, EPS, (&x).into(), None, None, (&mut y).into()).unwrap();
        let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let expected = naive::forward(true, &s, EPS, &wide, None, None);
        assert!(y.iter().zip(expected).all(|(y, e)| (f64::from(*y) - e).abs() < 1e-3));
    }

    #[test]
    fn what_is_not_asked_for_is_not_needed() {
        let s = shape([4, 6]);
        let [x, w, _, dy] = operands::<f64>(&s);
        let [mut dx, mut db] = [vec![0.0; 24], vec![0.0; 6]];
        let over = Accumulate::Overwrite;
        backward(&s, EPS, (&x).into(), Some((&w).into()), (&dy).into(), Some(((&mut dx).into(), over)), None, None, over).unwrap();
        backward(&s, EPS, (&x).into(), Some((&w).into()), (&dy).into(), None, None, Some((&mut db).into()), over).unwrap();
        let [_, all_dx, _, all_db] = run::<f64>(Centre::Mean, &s, true).map(|v| v.iter().map(|v| v - 0.5).collect::<Vec<_>>());
        assert_close(&dx, &all_dx, 8.0);
        assert_close(&db, &all_db, 8.0);
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let (x, mut y) = ([0.0_f32; 6], [0.0_f32; 6]);
        let error = forward(&shape([2, 3]), EPS, (&x[..]).into(), Some((&x[..2]).into()), None, (&mut y[..]).into()).unwrap_err();
        assert_eq!(error.to_string(), "`layer_norm`: `weight` must have 3 elements, got 2");
        assert!(forward(&shape([usize::MAX, 3]), EPS, (&x[..]).into(), None, None, (&mut y[..]).into()).is_err());
        let error = rms_norm::forward(&shape([2, 3]), EPS, (&x[..5]).into(), None, (&mut y[..]).into()).unwrap_err();
        assert_eq!(error.to_string(), "`rms_norm`: `x` must have 6 elements, got 5");
    }
}
