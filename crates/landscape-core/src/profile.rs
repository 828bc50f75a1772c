//! Profiles: what was measured along a path, and what follows from it; the record behind every table and figure.
//!
//! [`measure_path`] walks an objective along a curve and has every point measured; [`Profile::of`] is a pure function of those
//! samples. Values are fractions, not percent.

use crate::barrier::{Barriers, Thresholds, Verdicts, check_samples};
use crate::control::ControlPoints;
use crate::curve::Curve;
use crate::error::{Error, Result};
use crate::length::{check_points, mean_along_length};
use crate::number;
use crate::objective::Objective;
use crate::tally::Tally;
use landscape_kernels::Real;
use serde::{Deserialize, Serialize};

/// What one data split gave at one point. NaN (a diverged network) is kept, and is `null` in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// nll plus the L2 term ½·wd·‖w‖² of the run.
    #[serde(with = "number")]
    pub loss: f64,
    /// Mean loss per example without any regulariser: negative log-likelihood in nats, or squared error.
    #[serde(with = "number")]
    pub nll: f64,
    /// Share of wrong answers; absent for regression.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub error: Option<f64>,
}

impl Values {
    /// Of a tally, with the L2 term of weights whose squared norm is `squared_norm`.
    ///
    /// An infinite loss becomes NaN: the record cannot hold it, and a run that is resumed from its record must come to the same
    /// result as one that was not.
    pub fn new(tally: &Tally, weight_decay: f64, squared_norm: f64) -> Self {
        let recorded = |value: f64| if value.is_finite() { value } else { f64::NAN };
        let nll = tally.nll();
        // Without decay the weights do not count, even where they are infinite.
        let penalty = if weight_decay == 0.0 { 0.0 } else { 0.5 * weight_decay * squared_norm };
        Values { loss: recorded(nll + penalty), nll: recorded(nll), error: tally.error().map(recorded) }
    }
}

/// What was measured at one point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// On the training split.
    pub train: Values,
    /// On the test split, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Values>,
}

/// One sample of a path.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Where on the path, from 0 to 1.
    pub t: f64,
    /// ‖φ(t) − φ(previous t)‖, 0 for the first sample.
    #[serde(default, with = "number")]
    pub dl: f64,
    /// The training split.
    pub train: Values,
    /// The test split, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Values>,
}

/// An end of the path, measured twice: batch-norm statistics taken anew make another network of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// With the statistics of its own checkpoint.
    pub stored: Measured,
    /// With statistics taken anew, as everywhere on the path.
    pub refreshed: Measured,
}

/// One quantity summed up along a path: definition E of the barrier. All are over the samples and NaN if one of them is, except
/// `start` and `end`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// At t = 0.
    #[serde(with = "number")]
    pub start: f64,
    /// At t = 1.
    #[serde(with = "number")]
    pub end: f64,
    /// The least sample.
    #[serde(with = "number")]
    pub min: f64,
    /// The greatest sample.
    #[serde(with = "number")]
    pub max: f64,
    /// Where the greatest sample is (the first of equals).
    #[serde(with = "number")]
    pub t_max: f64,
    /// The top of the parabola through the greatest sample and its two neighbours; the sample itself at an end of the path, or where
    /// a neighbour is not finite. An estimate, never below `max`.
    #[serde(with = "number")]
    pub max_refined: f64,
    /// Where that top is.
    #[serde(with = "number")]
    pub t_refined: f64,
    /// Mean of the samples (`avg` of the reference).
    #[serde(with = "number")]
    pub mean: f64,
    /// Mean along the length of the path (`int` of the reference), see [`mean_along_length`]; the mean over t on a path of no length.
    #[serde(with = "number")]
    pub integral: f64,
    /// How many samples are NaN or infinite.
    pub n_not_finite: usize,
}

/// Something for each quantity that a profile may hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PerQuantity<S> {
    /// Training nll with the L2 term.
    pub train_loss: S,
    /// Training nll.
    pub train_nll: S,
    /// Training error; absent for regression.
    #[serde(default = "absent", skip_serializing_if = "Option::is_none")]
    pub train_error: Option<S>,
    /// Test nll with the L2 term; absent without a test split, as all that follow.
    #[serde(default = "absent", skip_serializing_if = "Option::is_none")]
    pub test_loss: Option<S>,
    /// Test nll.
    #[serde(default = "absent", skip_serializing_if = "Option::is_none")]
    pub test_nll: Option<S>,
    /// Test error.
    #[serde(default = "absent", skip_serializing_if = "Option::is_none")]
    pub test_error: Option<S>,
}

fn absent<S>() -> Option<S> {
    None
}

/// The quantities of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Training nll with the L2 term.
    TrainLoss,
    /// Training nll.
    TrainNll,
    /// Training error.
    TrainError,
    /// Test nll with the L2 term.
    TestLoss,
    /// Test nll.
    TestNll,
    /// Test error.
    TestError,
}

impl Quantity {
    /// All of them, in the order of [`PerQuantity`].
    pub const ALL: [Quantity; 6] =
        [Quantity::TrainLoss, Quantity::TrainNll, Quantity::TrainError, Quantity::TestLoss, Quantity::TestNll, Quantity::TestError];

    /// The key in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::TrainLoss => "train_loss",
            Quantity::TrainNll => "train_nll",
            Quantity::TrainError => "train_error",
            Quantity::TestLoss => "test_loss",
            Quantity::TestNll => "test_nll",
            Quantity::TestError => "test_error",
        }
    }

    /// Its value at every sample; none unless all samples have it.
    pub fn series(self, samples: &[Sample]) -> Option<Vec<f64>> {
        let value = |sample: &Sample| match self {
            Quantity::TrainLoss => Some(sample.train.loss),
            Quantity::TrainNll => Some(sample.train.nll),
            Quantity::TrainError => sample.train.error,
            Quantity::TestLoss => sample.test.map(|v| v.loss),
            Quantity::TestNll => sample.test.map(|v| v.nll),
            Quantity::TestError => sample.test.and_then(|v| v.error),
        };
        samples.iter().map(value).collect()
    }
}

impl<S> PerQuantity<S> {
    /// What belongs to `quantity`.
    pub fn get(&self, quantity: Quantity) -> Option<&S> {
        match quantity {
            Quantity::TrainLoss => Some(&self.train_loss),
            Quantity::TrainNll => Some(&self.train_nll),
            Quantity::TrainError => self.train_error.as_ref(),
            Quantity::TestLoss => self.test_loss.as_ref(),
            Quantity::TestNll => self.test_nll.as_ref(),
            Quantity::TestError => self.test_error.as_ref(),
        }
    }

    /// Makes one for every quantity that all samples have.
    fn of(samples: &[Sample], make: impl Fn(&[f64]) -> Result<S>) -> Result<Self> {
        let optional = |quantity: Quantity| quantity.series(samples).map(|values| make(&values)).transpose();
        let required = |quantity| Ok::<S, Error>(optional(quantity)?.expect("every sample has the training loss and nll"));
        Ok(PerQuantity {
            train_loss: required(Quantity::TrainLoss)?,
            train_nll: required(Quantity::TrainNll)?,
            train_error: optional(Quantity::TrainError)?,
            test_loss: optional(Quantity::TestLoss)?,
            test_nll: optional(Quantity::TestNll)?,
            test_error: optional(Quantity::TestError)?,
        })
    }
}

/// A path, measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// [`Profile::FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// The curve's name.
    pub curve: String,
    /// K, both endpoints counted.
    pub n_points: usize,
    /// The weight decay in `loss`.
    pub weight_decay: f64,
    /// The samples, from t = 0 to t = 1.
    pub points: Vec<Sample>,
    /// Every quantity summed up.
    pub summary: PerQuantity<Statistics>,
    /// Σ of the chords between samples.
    #[serde(with = "number")]
    pub length: f64,
    /// Every barrier of every quantity.
    pub barriers: PerQuantity<Barriers>,
    /// The verdicts on the training loss.
    pub verdicts: Verdicts,
    /// Where the verdicts draw their lines.
    pub thresholds: Thresholds,
    /// Start and end as stored and as refreshed, where both were measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
}

impl Profile {
    /// The version of the record's format; it grows when a field changes its meaning.
    pub const FORMAT_VERSION: u32 = 1;

    /// Sums samples up.
    ///
    /// # Errors
    /// If there are fewer than two samples, their t does not increase, or a threshold is out of its range.
    pub fn of(samples: Vec<Sample>, curve: &dyn Curve, weight_decay: f64, thresholds: Thresholds) -> Result<Self> {
        let ts: Vec<f64> = samples.iter().map(|s| s.t).collect();
        let dl: Vec<f64> = samples.iter().map(|s| s.dl).collect();
        let train_loss = Quantity::TrainLoss.series(&samples).expect("every sample has a training loss");
        check_samples(&ts, &train_loss)?;
        Ok(Profile {
            format_version: Self::FORMAT_VERSION,
            curve: curve.name().to_owned(),
            n_points: curve.n_points(),
            weight_decay,
            summary: PerQuantity::of(&samples, |values| summarise(&ts, &dl, values))?,
            length: dl.iter().sum(),
            barriers: PerQuantity::of(&samples, |values| Barriers::of(&ts, values))?,
            verdicts: Verdicts::of(&ts, &train_loss, &thresholds)?,
            thresholds,
            points: samples,
            endpoints: Vec::new(),
        })
    }
}

/// Sums up `values` measured at `ts`, with the chords `dl` between them.
///
/// # Errors
/// If there are fewer than two samples, the lengths differ, or `ts` does not increase.
pub fn summarise(ts: &[f64], dl: &[f64], values: &[f64]) -> Result<Statistics> {
    check_samples(ts, values)?;
    let n_not_finite = values.iter().filter(|v| !v.is_finite()).count();
    let (start, end) = (values[0], values[values.len() - 1]);
    let along_length = mean_along_length(values, dl)?;
    if values.iter().any(|v| v.is_nan()) {
        let nan = f64::NAN;
        let [min, max, t_max, max_refined, t_refined, mean, integral] = [nan; 7];
        return Ok(Statistics { start, end, min, max, t_max, max_refined, t_refined, mean, integral, n_not_finite });
    }
    let idx_max = (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best });
    let top = parabola_top(ts, values, idx_max).unwrap_or(Top { t: ts[idx_max], value: values[idx_max] });
    let has_length = dl.iter().sum::<f64>() > 0.0;
    let steps: Vec<f64> = std::iter::once(0.0).chain(ts.windows(2).map(|pair| pair[1] - pair[0])).collect();
    Ok(Statistics {
        start,
        end,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values[idx_max],
        t_max: ts[idx_max],
        max_refined: top.value,
        t_refined: top.t,
        mean: values.iter().sum::<f64>() / values.len() as f64,
        integral: if has_length { along_length } else { mean_along_length(values, &steps)? },
        n_not_finite,
    })
}

/// The top of a parabola.
struct Top {
    t: f64,
    value: f64,
}

/// The top of the parabola through sample `idx` and its neighbours, in Newton's form; none at an end, without curvature, or where a
/// neighbour is not finite.
fn parabola_top(ts: &[f64], values: &[f64], idx: usize) -> Option<Top> {
    if idx == 0 || idx + 1 >= ts.len() {
        return None;
    }
    let [t0, t1, t2] = [ts[idx - 1], ts[idx], ts[idx + 1]];
    let [v0, v1, v2] = [values[idx - 1], values[idx], values[idx + 1]];
    let (left, right) = ((v1 - v0) / (t1 - t0), (v2 - v1) / (t2 - t1));
    let curvature = (right - left) / (t2 - t0);
    if !curvature.is_finite() || curvature >= 0.0 {
        return None;
    }
    // p(t) = v1 + slope·(t − t1) + curvature·(t − t1)², so the top lies at t1 − slope/(2·curvature).
    let slope = left + curvature * (t1 - t0);
    let t = (t1 - slope / (2.0 * curvature)).clamp(t0, t2);
    let value = v1 - slope * slope / (4.0 * curvature);
    value.is_finite().then_some(Top { t, value: value.max(v1) })
}

/// Moves `objective` to φ(t) for each of `ts`, in order, and has `measure` take statistics anew where needed and measure there.
///
/// A sample that is NaN is kept and the walk goes on; an error ends it. [`crate::parallel_points`] has several points measured at once.
///
/// # Errors
/// If curve and points differ in K, `ts` leaves [0, 1], or the objective or `measure` fails.
///
/// # Complexity
/// One pass over the control points for the chords, one blend and one call of `measure` per sample.
pub fn measure_path<O, E>(
    objective: &mut O,
    points: &ControlPoints<O::Scalar>,
    curve: &dyn Curve,
    ts: &[f64],
    mut measure: impl FnMut(&mut O, f64) -> std::result::Result<Measured, E>,
) -> std::result::Result<Vec<Sample>, E>
where
    O: Objective,
    E: From<Error>,
{
    check_points(points.n_points(), curve)?;
    let mut measured = Vec::with_capacity(ts.len());
    for &t in ts {
        objective.move_to(points, &curve.coefficients(t)?)?;
        measured.push(measure(objective, t)?);
    }
    Ok(samples(points, curve, ts, &measured)?)
}

/// What was `measured` at each of `ts`, with the chords between them.
///
/// # Errors
/// If curve and points differ in K, `ts` leaves [0, 1], or there are not as many measurements as `ts`.
pub fn samples<T: Real>(points: &ControlPoints<T>, curve: &dyn Curve, ts: &[f64], measured: &[Measured]) -> Result<Vec<Sample>> {
    if measured.len() != ts.len() {
        return Err(Error::config("measured", format!("{} measurements", ts.len()), measured.len()));
    }
    let chords = crate::length::chord_lengths(points, curve, ts)?;
    Ok(ts.iter().zip(chords).zip(measured).map(|((&t, dl), &Measured { train, test })| Sample { t, dl, train, test }).collect())
}

/// An optional number that may be NaN: `null` reads as NaN, absence as none.
mod optional {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(v) if v.is_finite() => serializer.serialize_f64(*v),
            _ => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Some(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::curve::Segment;
    use crate::length::uniform_ts;

    fn sample(t: f64, loss: f64) -> Sample {
        let values = |loss: f64| Values { loss, nll: loss - 0.5, error: Some(loss / 10.0) };
        Sample { t, dl: if t == 0.0 { 0.0 } else { 0.5 }, train: values(loss), test: Some(values(2.0 * loss)) }
    }

    #[test]
    fn the_mean_over_samples_and_the_mean_along_the_length_are_the_published_ones() {
        // φ(t) = t² and its own value as the function, three samples.
        let statistics = summarise(&[0.0, 0.5, 1.0], &[0.0, 0.25, 0.75], &[0.0, 0.25, 1.0]).unwrap();
        assert!((statistics.mean - 0.416_667).abs() < 1e-6);
        assert_eq!(statistics.integral, 0.5);
        assert_eq!((statistics.start, statistics.end, statistics.min, statistics.max, statistics.t_max), (0.0, 1.0, 0.0, 1.0, 1.0));
        // No length: the trapezoid over t.
        assert_eq!(summarise(&[0.0, 0.25, 1.0], &[0.0; 3], &[1.0, 1.0, 5.0]).unwrap().integral, 2.5);
    }

    #[test]
    fn the_refined_maximum_of_a_parabola_is_its_top_and_the_samples_are_left_alone() {
        let parabola = |t: f64| 3.0 - 7.0 * (t - 0.43) * (t - 0.43);
        for ts in [uniform_ts(5).unwrap(), vec![0.0, 0.1, 0.38, 0.7, 1.0]] {
            let values: Vec<f64> = ts.iter().map(|&t| parabola(t)).collect();
            let s = summarise(&ts, &vec![0.0; ts.len()], &values).unwrap();
            assert!((s.max_refined - 3.0).abs() < 1e-13 && (s.t_refined - 0.43).abs() < 1e-13, "{s:?}");
            assert!(s.max < 3.0 && values.contains(&s.max) && ts.contains(&s.t_max));
        }
    }

    #[test]
    fn without_a_parabola_the_refined_maximum_is_the_sample() {
        let refined = |values: [f64; 3]| {
            let s = summarise(&[0.0, 0.5, 1.0], &[0.0; 3], &values).unwrap();
            (s.max_refined, s.t_refined)
        };
        assert_eq!(refined([3.0, 1.0, 2.0]), (3.0, 0.0));
        assert_eq!(refined([1.0, 2.0, 3.0]), (3.0, 1.0));
        assert_eq!(refined([2.0, 2.0, 2.0]), (2.0, 0.0));
        assert_eq!(refined([f64::NEG_INFINITY, 2.0, 1.0]), (2.0, 0.5));
        assert_eq!(refined([1.0, f64::INFINITY, 1.0]), (f64::INFINITY, 0.5));
    }

    #[test]
    fn nan_is_counted_and_makes_what_depends_on_it_nan() {
        let s = summarise(&[0.0, 0.5, 1.0], &[0.0, 1.0, 1.0], &[1.0, f64::NAN, 2.0]).unwrap();
        assert_eq!((s.start, s.end, s.n_not_finite), (1.0, 2.0, 1));
        assert!([s.min, s.max, s.mean, s.integral, s.max_refined].iter().all(|v| v.is_nan()));
    }

    #[test]
    fn the_record_has_the_documented_keys_and_comes_back() {
        let samples: Vec<Sample> = [1.0, 4.0, 2.0].into_iter().zip([0.0, 0.5, 1.0]).map(|(v, t)| sample(t, v)).collect();
        let profile = Profile::of(samples, &Segment, 5e-4, Thresholds::PROJECT).unwrap();
        let json = serde_json::to_value(&profile).unwrap();
        assert_eq!(json["points"][1]["t"], 0.5);
        assert_eq!(json["points"][1]["test"]["loss"], 8.0);
        for key in ["start", "end", "min", "max", "max_refined", "t_refined", "mean", "integral"] {
            assert!(json["summary"]["test_error"][key].is_number(), "{key}");
        }
        assert_eq!(json["summary"]["train_loss"]["max"], 4.0);
        assert_eq!(json["barriers"]["train_loss"]["above_line"], 2.5);
        assert_eq!(json["length"], 1.0);
        assert_eq!(json["verdicts"], serde_json::json!({"is_lmc": false, "is_connected": false}));
        assert_eq!(serde_json::from_value::<Profile>(json).unwrap(), profile);
        for quantity in Quantity::ALL {
            assert_eq!(serde_json::to_value(quantity).unwrap(), quantity.name());
            assert_eq!(profile.summary.get(quantity).unwrap().max, profile.barriers.get(quantity).unwrap().saddle);
        }
    }

    #[test]
    fn regression_without_a_test_split_and_nan_survive_json() {
        let values = |v: f64| Values { loss: v, nll: v, error: None };
        let samples = vec![
            Sample { t: 0.0, dl: 0.0, train: values(1.0), test: None },
            Sample { t: 1.0, dl: 2.0, train: values(f64::NAN), test: None },
        ];
        let profile = Profile::of(samples, &Segment, 0.0, Thresholds::PROJECT).unwrap();
        let text = serde_json::to_string(&profile).unwrap();
        assert!(!text.contains("error") && !text.contains("test") && text.contains("\"nll\":null"), "{text}");
        let read: Profile = serde_json::from_str(&text).unwrap();
        assert!(read.points[1].train.nll.is_nan() && read.summary.train_error.is_none() && read.points[0].train.error.is_none());
        let diverged = Values { error: Some(f64::NAN), ..values(0.0) };
        let read: Values = serde_json::from_str(&serde_json::to_string(&diverged).unwrap()).unwrap();
        assert!(read.error.unwrap().is_nan());
    }

    #[test]
    fn the_l2_term_is_half_the_decay_times_the_squared_norm() {
        let tally = Tally { n_examples: 4, loss_nats_sum: 2.0, n_wrong: Some(1) };
        assert_eq!(Values::new(&tally, 0.5, 8.0), Values { loss: 2.5, nll: 0.5, error: Some(0.25) });
        assert_eq!(Values::new(&tally, 0.0, f64::INFINITY).loss, 0.5);
        let diverged = Values::new(&Tally { loss_nats_sum: f64::INFINITY, ..tally }, 0.5, 8.0);
        assert!(diverged.loss.is_nan() && diverged.nll.is_nan() && diverged.error == Some(0.25));
    }

    #[test]
    fn too_few_samples_are_refused() {
        assert!(Profile::of(vec![], &Segment, 0.0, Thresholds::PROJECT).is_err());
        assert!(Profile::of(vec![sample(0.0, 1.0)], &Segment, 0.0, Thresholds::PROJECT).is_err());
        assert!(Profile::of(vec![sample(0.0, 1.0), sample(0.0, 1.0)], &Segment, 0.0, Thresholds::PROJECT).is_err());
        assert!(summarise(&[0.0, 1.0], &[0.0], &[1.0, 1.0]).is_err());
    }
}
