//! How long a path is, and averages along its length.
//!
//! Chords come from the inner products of the control points ([`Gram`]), not from blended points: the weights are read once instead
//! of once per sample, and neighbouring points in f32 differ in their last digits only, which a sum over blended points would see.

use crate::control::{ControlPoints, Row};
use crate::curve::Curve;
use crate::error::{Error, Result};
use crate::gram::Gram;
use landscape_kernels::Real;

/// ‖φ(t_i) − φ(t_{i−1})‖ for every sample, 0 for the first (`dl` of the reference's `eval_curve.py`); their sum is the path's length
/// as measured there, a lower bound that is low where a corner falls between two samples.
///
/// # Errors
/// If `ts` leaves [0, 1], or curve and points differ in K.
///
/// # Source
/// `eval_curve.py` of timgaripov/dnn-mode-connectivity at f0bf253, which subtracts blended points.
pub fn chord_lengths<T: Real>(points: &ControlPoints<T>, curve: &dyn Curve, ts: &[f64]) -> Result<Vec<f64>> {
    check_points(points.n_points(), curve)?;
    let gram = Gram::new(&points.rows().iter().map(Row::point).collect::<Vec<_>>())?;
    let coefficients = ts.iter().map(|&t| curve.coefficients(t)).collect::<Result<Vec<_>>>()?;
    let steps = coefficients.windows(2).map(|pair| gram.distance(pair[1].as_slice(), pair[0].as_slice()));
    Ok(std::iter::once(0.0).chain(steps).take(ts.len()).collect())
}

/// Σ_i ½(v_i + v_{i+1}) dl_{i+1} / Σ_i dl_i: the mean of `values` along the length of the path, by the trapezoid rule (`int` of the
/// reference's tables). `dl` is as [`chord_lengths`] gives it; NaN over a path of no length.
///
/// # Errors
/// If `values` and `dl` differ in length.
///
/// ```
/// use landscape_core::length::mean_along_length;
/// // φ(t) = t² at t = 0, 1/2, 1, and its own value as the function.
/// assert_eq!(mean_along_length(&[0.0, 0.25, 1.0], &[0.0, 0.25, 0.75])?, 0.5);
/// # Ok::<(), landscape_core::Error>(())
/// ```
pub fn mean_along_length(values: &[f64], dl: &[f64]) -> Result<f64> {
    if values.len() != dl.len() {
        return Err(Error::config("dl", format!("{} numbers", values.len()), dl.len()));
    }
    let weighted: f64 = values.windows(2).zip(dl.iter().skip(1)).map(|(v, dl)| 0.5 * (v[0] + v[1]) * dl).sum();
    Ok(weighted / dl.iter().sum::<f64>())
}

/// T samples of [0, 1], equally spaced, both ends exactly.
///
/// # Errors
/// If `n_samples` is below 2.
pub fn uniform_ts(n_samples: usize) -> Result<Vec<f64>> {
    if n_samples < 2 {
        return Err(Error::config("n_samples", "at least 2 (both ends)", n_samples));
    }
    Ok((0..n_samples).map(|i| i as f64 / (n_samples - 1) as f64).collect())
}

/// Fails unless the curve is for this many points.
pub(crate) fn check_points(n_points: usize, curve: &dyn Curve) -> Result<()> {
    if curve.n_points() == n_points {
        Ok(())
    } else {
        Err(Error::config("points", format!("{} control points (the curve is a {})", curve.n_points(), curve.name()), n_points))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::curve::{Bezier, CurveKind, PolyChain, Segment};
    use crate::layout::ParamLayout;
    use crate::params::Flat;
    use landscape_kernels::Device;
    use std::sync::Arc;

    fn plane_points(points: &[[f64; 2]]) -> ControlPoints<f64> {
        let layout = Arc::new(ParamLayout::new([("w".to_owned(), vec![2])]).unwrap());
        let row = |p: &[f64; 2]| Row::Free(Flat::from_vec(&layout, &Device::Cpu, p.to_vec()).unwrap());
        ControlPoints::new(points.iter().map(row).collect()).unwrap()
    }

    fn length(points: &ControlPoints<f64>, curve: &dyn Curve, n_samples: usize) -> f64 {
        chord_lengths(points, curve, &uniform_ts(n_samples).unwrap()).unwrap().iter().sum()
    }

    #[test]
    fn a_parabola_has_its_closed_form_length() {
        let points = plane_points(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]);
        let exact = 1.0 + 1f64.asinh() / 2f64.sqrt();
        assert!((exact - 1.623_225_24).abs() < 5e-9);
        let curve = Bezier::new(3).unwrap();
        assert!((length(&points, &curve, 61) - 1.623_178_94).abs() < 5e-9);
        // The chord sum converges from below with 1/T².
        let (coarse, fine) = (exact - length(&points, &curve, 501), exact - length(&points, &curve, 1001));
        assert!(fine > 0.0 && (coarse / fine - 4.0).abs() < 1e-3, "{coarse} {fine}");
    }

    #[test]
    fn a_chain_is_low_when_its_corner_falls_between_samples() {
        let points = plane_points(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]);
        let chain = PolyChain::new(3).unwrap();
        assert!((length(&points, &chain, 61) - 2.0).abs() < 1e-14);
        assert!((length(&points, &chain, 60) - 1.990_07).abs() < 5e-6);
    }

    #[test]
    fn chords_are_the_distances_of_blended_points() {
        let points = plane_points(&[[0.3, -2.0], [4.0, 0.5], [1.0, 1.5], [-2.0, 0.0]]);
        for kind in [CurveKind::Bezier, CurveKind::PolyChain] {
            let curve = kind.build(4).unwrap();
            let ts = [0.0, 0.1, 0.35, 0.36, 0.9, 1.0];
            let dl = chord_lengths(&points, &*curve, &ts).unwrap();
            assert_eq!(dl[0], 0.0);
            for i in 1..ts.len() {
                let at = |t: f64| points.blend(&curve.coefficients(t).unwrap()).unwrap();
                assert!((dl[i] - at(ts[i]).distance(&at(ts[i - 1])).unwrap()).abs() < 1e-14, "{kind:?} {i}");
            }
        }
        assert!(chord_lengths(&points, &Segment, &[0.0]).unwrap_err().to_string().contains("segment"));
        assert!(chord_lengths(&points, &*CurveKind::Bezier.build(4).unwrap(), &[]).unwrap().is_empty());
    }

    #[test]
    fn the_mean_along_the_length_differs_from_the_mean_over_t() {
        let values = [0.0, 0.25, 1.0];
        assert_eq!(mean_along_length(&values, &[0.0, 0.25, 0.75]).unwrap(), 0.5);
        assert!((values.iter().sum::<f64>() / 3.0 - 0.416_667).abs() < 1e-6);
        assert!(mean_along_length(&values, &[0.0; 3]).unwrap().is_nan());
        assert!(mean_along_length(&[], &[]).unwrap().is_nan());
        assert!(mean_along_length(&values, &[0.0]).is_err());
        assert!(uniform_ts(1).is_err());
        assert_eq!(uniform_ts(61).unwrap()[60], 1.0);
    }
}
