//! Curves in weight space: rules for the coefficients of the control points.

mod segment;
mod bezier;
mod polychain;
mod chain;
mod kind;

pub use bezier::Bezier;
pub use chain::Chain;
pub use kind::CurveKind;
pub use polychain::PolyChain;
pub use segment::Segment;

use crate::coefficients::Coefficients;
use crate::error::{Error, Result};

/// A path φ(t) = Σ_k c_k(t) θ_k for t in [0, 1], with φ(0) the first control point and φ(1) the last, bit for bit.
pub trait Curve: Send + Sync {
    /// K, both endpoints counted (the convention of dnn-mode-connectivity's `num_bends`).
    fn n_points(&self) -> usize;

    /// c(t).
    ///
    /// # Errors
    /// [`Error::OutsidePath`] unless 0 ≤ t ≤ 1.
    fn coefficients(&self, t: f64) -> Result<Coefficients>;

    /// c′(t); at a corner the derivative from the right.
    ///
    /// # Errors
    /// [`Error::OutsidePath`] unless 0 ≤ t ≤ 1.
    fn derivative(&self, t: f64) -> Result<Coefficients>;

    /// The name in records and on the command line.
    fn name(&self) -> &'static str;
}

/// Fails unless 0 ≤ t ≤ 1.
pub(crate) fn check_t(t: f64) -> Result<()> {
    if (0.0..=1.0).contains(&t) { Ok(()) } else { Err(Error::OutsidePath(t)) }
}

/// Fails unless there are two ends.
fn check_n_points(n_points: usize) -> Result<()> {
    if n_points >= 2 { Ok(()) } else { Err(Error::config("n_points", "at least 2", n_points)) }
}

/// The piece that t lies on when [0, 1] is cut into `n_pieces` (the right one of two at a corner, the last one at t = 1), and how far
/// along it, from 0 to 1.
fn piece_of(t: f64, n_pieces: usize) -> (usize, f64) {
    let mut s = t * n_pieces as f64;
    // The division that made a corner's t and the product above round once each: together less than two steps.
    if (s - s.round()).abs() <= 2.0 * f64::EPSILON * s.round() {
        s = s.round();
    }
    let piece = (s.floor() as usize).min(n_pieces - 1);
    (piece, s - piece as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A new curve is a new row.
    fn implementors() -> Vec<Box<dyn Curve>> {
        let mut curves: Vec<Box<dyn Curve>> = vec![Box::new(Segment)];
        for n_points in [2, 3, 4, 6, 50, 300] {
            curves.push(Box::new(Bezier::new(n_points).unwrap()));
            curves.push(Box::new(PolyChain::new(n_points).unwrap()));
        }
        curves.push(Box::new(Chain::new(Box::new(Segment), 3).unwrap()));
        curves.push(Box::new(Chain::new(Box::new(Bezier::new(3).unwrap()), 7).unwrap()));
        curves
    }

    #[test]
    fn every_curve_keeps_the_contract() {
        for curve in implementors() {
            let n_points = curve.n_points();
            let label = format!("{} of {n_points} points", curve.name());
            let c = |t: f64| curve.coefficients(t).unwrap().as_slice().to_vec();
            assert_eq!(curve.coefficients(0.0).unwrap(), Coefficients::one_hot(0, n_points).unwrap(), "{label}");
            assert_eq!(curve.coefficients(1.0).unwrap(), Coefficients::one_hot(n_points - 1, n_points).unwrap(), "{label}");
            for outside in [-1e-300, 1.0 + f64::EPSILON, f64::NAN, f64::INFINITY] {
                assert!(curve.coefficients(outside).is_err() && curve.derivative(outside).is_err(), "{label} at {outside}");
            }
            // 0.1237 + i·0.0731 hits no corner of the chains above, so the difference quotients below stay on one piece.
            for t in (0..12).map(|i| 0.1237 + f64::from(i) * 0.0731) {
                let here = c(t);
                let tolerance = 8.0 * n_points as f64 * f64::EPSILON;
                assert_eq!(here.len(), n_points);
                assert!((here.iter().sum::<f64>() - 1.0).abs() < tolerance, "{label} at {t}: the sum is 1");
                assert!(here.iter().all(|&v| v >= 0.0), "{label} at {t}: inside the hull");
                for (k, v) in c(1.0 - t).into_iter().rev().enumerate() {
                    assert!((v - here[k]).abs() < 4.0 * tolerance, "{label} at {t}: reversed");
                }
                let h = 1e-6;
                let derivative = curve.derivative(t).unwrap();
                let (ahead, behind) = (c(t + h), c(t - h));
                for (k, &d) in derivative.as_slice().iter().enumerate() {
                    // Truncation h²c‴/6 with c‴ at most (2n)³, and rounding eps/h.
                    let bound = (2.0 * n_points as f64).powi(3) * h * h / 6.0 + 8.0 * n_points as f64 * f64::EPSILON / h;
                    assert!(((ahead[k] - behind[k]) / (2.0 * h) - d).abs() < bound, "{label} at {t}: derivative {k}");
                }
                assert!(derivative.as_slice().iter().sum::<f64>().abs() < tolerance * n_points as f64, "{label} at {t}");
            }
        }
    }

    #[test]
    fn bezier_coefficients_are_the_published_ones() {
        let c = |n: usize, t: f64| Bezier::new(n).unwrap().coefficients(t).unwrap().as_slice().to_vec();
        assert_eq!(c(2, 0.25), [0.75, 0.25]);
        assert_eq!(c(3, 0.25), [0.5625, 0.375, 0.0625]);
        assert_eq!(c(3, 0.5), [0.25, 0.5, 0.25]);
        assert_eq!(c(4, 0.25), [0.421_875, 0.421_875, 0.140_625, 0.015_625]);
        assert_eq!(c(5, 0.25), [0.316_406_25, 0.421_875, 0.210_937_5, 0.046_875, 0.003_906_25]);
        assert_eq!(c(6, 0.5), [1.0, 5.0, 10.0, 10.0, 5.0, 1.0].map(|binomial| binomial / 32.0));
    }

    #[test]
    fn chain_coefficients_are_the_published_ones() {
        let c = |n: usize, t: f64| PolyChain::new(n).unwrap().coefficients(t).unwrap().as_slice().to_vec();
        assert_eq!(c(3, 0.25), [0.5, 0.5, 0.0]);
        assert_eq!(c(3, 0.5), [0.0, 1.0, 0.0]);
        assert_eq!(c(5, 0.25), [0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(c(6, 0.25), [0.0, 0.75, 0.25, 0.0, 0.0, 0.0]);
        assert_eq!(c(6, 0.5), [0.0, 0.0, 0.5, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn chain_corners_are_the_control_points_and_its_formula_holds_between() {
        for n_points in 2..200 {
            let chain = PolyChain::new(n_points).unwrap();
            for k in 0..n_points {
                let corner = k as f64 / (n_points - 1) as f64;
                assert_eq!(chain.coefficients(corner).unwrap(), Coefficients::one_hot(k, n_points).unwrap(), "corner {k} of {n_points}");
            }
            for t in [1e-300, 0.317, 0.92] {
                for (k, &c) in chain.coefficients(t).unwrap().as_slice().iter().enumerate() {
                    let formula = (1.0 - (t * (n_points - 1) as f64 - k as f64).abs()).max(0.0);
                    assert!((c - formula).abs() < 4.0 * n_points as f64 * f64::EPSILON);
                }
            }
        }
        assert_eq!(PolyChain::new(3).unwrap().derivative(0.5).unwrap().as_slice(), [0.0, -2.0, 2.0]);
        assert_eq!(PolyChain::new(3).unwrap().derivative(1.0).unwrap().as_slice(), [0.0, -2.0, 2.0]);
    }

    #[test]
    fn a_chain_of_curves_visits_every_endpoint_and_one_of_segments_is_a_polygon() {
        for n_segments in 1..60 {
            let bends = Chain::new(Box::new(Bezier::new(3).unwrap()), n_segments).unwrap();
            let straight = Chain::new(Box::new(Segment), n_segments).unwrap();
            let polygon = PolyChain::new(n_segments + 1).unwrap();
            for s in 0..=n_segments {
                let t = s as f64 / n_segments as f64;
                assert_eq!(bends.coefficients(t).unwrap(), Coefficients::one_hot(2 * s, 2 * n_segments + 1).unwrap());
            }
            for t in [0.0, 0.3, 0.77, 1.0] {
                assert_eq!(straight.coefficients(t).unwrap(), polygon.coefficients(t).unwrap());
                assert_eq!(straight.derivative(t).unwrap(), polygon.derivative(t).unwrap());
            }
        }
        assert!(Chain::new(Box::new(Segment), 0).is_err());
    }

    #[test]
    fn curves_are_built_by_name_and_too_few_points_are_refused() {
        for kind in CurveKind::ALL {
            assert_eq!(CurveKind::parse(kind.name()).unwrap(), kind);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(kind.build(2).unwrap().name(), kind.name());
            assert!(kind.build(1).is_err() && kind.build(0).is_err());
        }
        assert_eq!(Bezier::new(1).unwrap_err().to_string(), "`n_points` must be at least 2, got 1");
        assert!(CurveKind::Segment.build(3).is_err());
        assert!(CurveKind::parse("spline").unwrap_err().to_string().contains("`spline`"));
    }
}
