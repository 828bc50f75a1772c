//! Where bends begin: control points between two endpoints before any training.

use crate::coefficients::Coefficients;
use crate::control::{ControlPoints, Row};
use crate::error::{Error, Result};
use crate::params::Flat;
use landscape_kernels::Real;
use serde::{Deserialize, Serialize};

/// How the inner control points are set before training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BendInit {
    /// On the straight line, equally spaced: the default of dnn-mode-connectivity (`init_linear`).
    #[default]
    Line,
    /// On the arc m + cos(πs/2)(a − m) + sin(πs/2)(b − m).
    ///
    /// The midpoint of two independent networks has weights √2 too small, which is where the barrier of the line comes from; on the
    /// arc independent weights keep their variance. m is, tensor by tensor, the mean over units (the first axis) of both endpoints,
    /// so that what is not centred (the gains of batch norm) keeps its mean.
    Arc,
    /// Newly initialised networks (`--init_linear_off` of dnn-mode-connectivity).
    Random,
}

impl BendInit {
    /// All of them.
    pub const ALL: [BendInit; 3] = [BendInit::Line, BendInit::Arc, BendInit::Random];

    /// Reads a name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|init| init.name() == name);
        found.ok_or_else(|| Error::config("init", "`line`, `arc` or `random`", format!("`{name}`")))
    }

    /// The name in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            BendInit::Line => "line",
            BendInit::Arc => "arc",
            BendInit::Random => "random",
        }
    }
}

/// The K−2 inner control points of a path from `start` to `end`, bend k (1 ≤ k ≤ K−2) for s = k/(K−1).
///
/// `draw` gives a newly initialised point for bend k; it is called only for [`BendInit::Random`].
///
/// # Errors
/// If `n_points` is below 2, the layouts differ, or `draw` fails.
///
/// # Source
/// Line and random: `curves.py` of timgaripov/dnn-mode-connectivity at f0bf253. Arc: Anokhin and Yarotsky 2020 (distribution-based
/// connectivity), `connector.py` `arc_connect` of avecplezir/distribution-based-connectivity at 4d92fd8; theirs groups the weights
/// around each hidden unit and visits the arc, ours takes every tensor by itself and sets control points on it.
pub fn bends<T: Real>(
    how: BendInit,
    start: &Row<T>,
    end: &Row<T>,
    n_points: usize,
    draw: &mut dyn FnMut(usize) -> Result<Flat<T>>,
) -> Result<Vec<Flat<T>>> {
    if n_points < 2 {
        return Err(Error::config("n_points", "at least 2", n_points));
    }
    start.layout().check_same("the start", end.layout(), "the end")?;
    let bend = |k: usize| {
        let s = k as f64 / (n_points - 1) as f64;
        match how {
            BendInit::Line => {
                let ends = ControlPoints::new(vec![start.clone(), end.clone()])?;
                ends.blend(&Coefficients::new(vec![1.0 - s, s])?)
            }
            BendInit::Arc => arc(&start.point(), &end.point(), s),
            BendInit::Random => {
                let bend = draw(k)?;
                start.layout().check_same("the start", bend.layout(), "the random bend")?;
                Ok(bend)
            }
        }
    };
    (1..n_points - 1).map(bend).collect()
}

/// The point at s on the arc from a to b.
fn arc<T: Real>(a: &Flat<T>, b: &Flat<T>, s: f64) -> Result<Flat<T>> {
    let (sin, cos) = (std::f64::consts::FRAC_PI_2 * s).sin_cos();
    let (from, to) = (a.view().read()?, b.view().read()?);
    let mut values = vec![T::ZERO; from.len()];
    for spec in a.layout().tensors() {
        let n_units = spec.shape.first().copied().unwrap_or(1);
        if spec.n_elements() == 0 {
            continue;
        }
        let width = spec.n_elements() / n_units;
        for column in 0..width {
            let elements = || (0..n_units).map(|unit| spec.offset + unit * width + column);
            let mean = elements().map(|i| from[i].to_f64() + to[i].to_f64()).sum::<f64>() / (2 * n_units) as f64;
            for i in elements() {
                values[i] = T::from_f64(mean + cos * (from[i].to_f64() - mean) + sin * (to[i].to_f64() - mean));
            }
        }
    }
    Flat::from_vec(a.layout(), &a.device(), values)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::layout::ParamLayout;
    use crate::seed::Seed;
    use landscape_kernels::Device;
    use std::sync::Arc;

    fn point(layout: &Arc<ParamLayout>, mut value: impl FnMut(usize) -> f64) -> Flat<f64> {
        Flat::from_vec(layout, &Device::Cpu, (0..layout.n_elements()).map(&mut value).collect()).unwrap()
    }

    fn row(point: &Flat<f64>) -> Row<f64> {
        Row::Free(point.clone())
    }

    #[test]
    fn every_bend_stands_where_its_init_says() {
        let layout = Arc::new(ParamLayout::new([("fc.weight".to_owned(), vec![3, 4])]).unwrap());
        let (a, b) = (point(&layout, |i| i as f64), point(&layout, |i| 1.0 - 0.5 * i as f64));
        for how in BendInit::ALL {
            assert_eq!(BendInit::parse(how.name()).unwrap(), how);
            assert_eq!(serde_json::to_value(how).unwrap(), how.name());
            for n_points in [2, 3, 6] {
                let found = bends(how, &row(&a), &row(&b), n_points, &mut |k| Ok(point(&layout, |_| k as f64))).unwrap();
                assert_eq!(found.len(), n_points - 2);
                for (idx, bend) in found.iter().enumerate() {
                    let s = (idx + 1) as f64 / (n_points - 1) as f64;
                    for (i, v) in bend.to_vec().into_iter().enumerate() {
                        let (from, to) = (i as f64, 1.0 - 0.5 * i as f64);
                        // Units are rows of 4: column j has the mean of j, j+4, j+8 in one end and of 1 − j/2 − … in the other.
                        let mean = 0.5 * ((i % 4 + 4) as f64 + 1.0 - 0.5 * (i % 4 + 4) as f64);
                        let angle = std::f64::consts::FRAC_PI_2 * s;
                        let expected = match how {
                            BendInit::Line => (1.0 - s) * from + s * to,
                            BendInit::Arc => mean + angle.cos() * (from - mean) + angle.sin() * (to - mean),
                            BendInit::Random => (idx + 1) as f64,
                        };
                        assert!((v - expected).abs() < 1e-12, "{how:?} {idx} of {n_points}");
                    }
                }
            }
        }
        let other = Arc::new(ParamLayout::new([("fc.weight".to_owned(), vec![4, 3])]).unwrap());
        let elsewhere = point(&other, |_| 0.0);
        assert!(bends(BendInit::Line, &row(&a), &row(&b), 1, &mut |_| Ok(a.clone())).is_err());
        assert!(bends(BendInit::Line, &row(&a), &row(&elsewhere), 3, &mut |_| Ok(a.clone())).is_err());
        assert!(bends(BendInit::Random, &row(&a), &row(&b), 3, &mut |_| Ok(elsewhere.clone())).is_err());
        assert!(BendInit::parse("circle").is_err());
    }

    #[test]
    fn the_arc_keeps_mean_and_variance_of_independent_weights_where_the_line_loses_half_of_it() {
        let layout = Arc::new(ParamLayout::new([("w".to_owned(), vec![20_000]), ("gain".to_owned(), vec![500])]).unwrap());
        let draw = |name: &str| {
            let mut stream = Seed::new(5).child(name).stream();
            point(&layout, |i| if i < 20_000 { 0.3 + stream.normal() } else { 1.0 })
        };
        let bend = |how| bends(how, &row(&draw("a")), &row(&draw("b")), 3, &mut |_| unreachable!()).unwrap()[0].to_vec();
        let moments = |w: &[f64]| {
            let mean = w.iter().sum::<f64>() / w.len() as f64;
            (mean, w.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / w.len() as f64)
        };
        let (mean, variance) = moments(&bend(BendInit::Arc)[..20_000]);
        // Four standard errors of a mean and a variance of 20,000 numbers.
        assert!((mean - 0.3).abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
        assert!(bend(BendInit::Arc)[20_000..].iter().all(|gain| (gain - 1.0).abs() < 1e-12));
        let (_, variance) = moments(&bend(BendInit::Line)[..20_000]);
        assert!((variance - 0.5).abs() < 0.02, "{variance}");
    }
}
