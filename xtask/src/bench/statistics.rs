//! Medians, quartiles and exponents.

use serde::{Deserialize, Serialize};

/// The middle of some numbers and the quartiles around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quartiles {
    pub median: f64,
    pub lower: f64,
    pub upper: f64,
}

impl Quartiles {
    /// By linear interpolation between the sorted numbers; none of no numbers.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let below = place.floor() as usize;
            sorted[below] + (place - below as f64) * (sorted[(below + 1).min(last)] - sorted[below])
        };
        Some(Quartiles { median: at(0.5), lower: at(0.25), upper: at(0.75) })
    }

    /// The same of the reciprocals.
    pub fn inverse(self) -> Self {
        Quartiles { median: 1.0 / self.median, lower: 1.0 / self.upper, upper: 1.0 / self.lower }
    }
}

/// The median; NaN of no numbers.
pub fn median(values: &[f64]) -> f64 {
    Quartiles::of(values).map_or(f64::NAN, |q| q.median)
}

/// The exponent p of y = a·x^p by least squares of the logarithms; none for fewer than two different x.
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0).map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = logs.len() as f64;
    let (mean_x, mean_y) = (logs.iter().map(|l| l.0).sum::<f64>() / n, logs.iter().map(|l| l.1).sum::<f64>() / n);
    let variance: f64 = logs.iter().map(|l| (l.0 - mean_x).powi(2)).sum();
    let covariance: f64 = logs.iter().map(|l| (l.0 - mean_x) * (l.1 - mean_y)).sum();
    (variance > 0.0).then(|| covariance / variance)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_five_numbers_are_the_second_and_fourth() {
        let q = Quartiles::of(&[5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!(q, Quartiles { median: 3.0, lower: 2.0, upper: 4.0 });
        assert_eq!(q.inverse(), Quartiles { median: 1.0 / 3.0, lower: 0.25, upper: 0.5 });
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert!(Quartiles::of(&[]).is_none());
    }

    #[test]
    fn a_power_law_gives_its_exponent() {
        let points: Vec<(f64, f64)> = [1.0, 10.0, 100.0].map(|x: f64| (x, 3.0 * x.powf(1.5))).to_vec();
        assert!((exponent(&points).unwrap() - 1.5).abs() < 1e-12);
        assert_eq!(exponent(&points[..1]), None);
        assert_eq!(exponent(&[]), None);
    }
}
