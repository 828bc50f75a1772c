//! Barriers: how much worse a path gets than its ends, in every definition that is in use, and the two verdicts drawn from them.
//!
//! The definitions disagree, so a number means nothing without its name; [`Barriers`] reports all of them. Definition E of
//! dnn-mode-connectivity is a table (start, end, min, max, mean, integral): [`crate::profile::Statistics`].
//!
//! A sample that is NaN makes every barrier NaN, wherever it lies: what the path does there is not known, and a maximum over the rest
//! would look like an answer. Verdicts are then negative. Infinite samples give infinite barriers.

use crate::error::{Error, Result};
use crate::number;
use serde::{Deserialize, Serialize};

/// A definition of the barrier along a path with values L(t), from L_0 at the start to L_1 at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BarrierKind {
    /// A: max_t [L(t) − ((1−t) L_0 + t L_1)]. Entezari et al. 2022, Git Re-Basin, Optimizer-Induced-Mode-Connectivity
    /// (`compute_mc_barrier.py`). Never negative, as it is 0 at both ends.
    AboveLine,
    /// B: max_t L(t) − ½(L_0 + L_1). Frankle et al. 2020 (linear mode connectivity), with L the error.
    AboveMeanOfEnds,
    /// C: ½(L_0 + L_1) − L(t*) with t* where |½(L_0 + L_1) − L(t)| is largest (the first such t). loss_landscape_taxonomy, of the
    /// training error at 5 samples; *negative* for a barrier, positive where the path is better than its ends.
    SignedDeviation,
    /// D: the saddle, max_t L(t) itself. AutoNEB.
    Saddle,
    /// D, compared with the minima: max_t L(t) / ½(L_0 + L_1). AutoNEB's tables (saddles at twice the loss of the minima).
    SaddleOverMeanOfEnds,
    /// max_t L(t) − max(L_0, L_1): the excess over the worse endpoint, by which dnn-mode-connectivity's tables are usually read.
    AboveWorseEnd,
    /// max_t L(t) / max(L_0, L_1).
    OverWorseEnd,
    /// max_t L(t) / min_t L(t).
    OverMinimum,
}

/// A / B with the ends of the scale thought through: 1 if both are equal (0/0 too), infinite over 0, NaN over a negative number,
/// where a ratio says nothing.
fn ratio(value: f64, reference: f64) -> f64 {
    if value.is_nan() || reference.is_nan() || reference < 0.0 && value != reference {
        f64::NAN
    } else if value == reference {
        1.0
    } else {
        value / reference
    }
}

impl BarrierKind {
    /// The barrier of `values` measured at `ts`; the first and the last are the ends. Ratios over 0 are infinite (1 if both are 0),
    /// ratios over a negative number are NaN unless both are equal (then 1).
    ///
    /// # Errors
    /// If there are fewer than two samples, as many values as samples are missing, or `ts` does not increase.
    ///
    /// ```
    /// use landscape_core::barrier::BarrierKind;
    /// let (ts, losses) = ([0.0, 0.5, 1.0], [1.0, 4.0, 2.0]);
    /// assert_eq!(BarrierKind::AboveLine.of(&ts, &losses)?, 2.5);
    /// assert_eq!(BarrierKind::AboveWorseEnd.of(&ts, &losses)?, 2.0);
    /// # Ok::<(), landscape_core::Error>(())
    /// ```
    pub fn of(self, ts: &[f64], values: &[f64]) -> Result<f64> {
        check_samples(ts, values)?;
        if values.iter().any(|v| v.is_nan()) {
            return Ok(f64::NAN);
        }
        let (start, end) = (values[0], values[values.len() - 1]);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let mean_of_ends = 0.5 * (start + end);
        let worse_end = start.max(end);
        Ok(match self {
            BarrierKind::AboveLine => above_line(ts, values),
            BarrierKind::AboveMeanOfEnds => max - mean_of_ends,
            BarrierKind::SignedDeviation => {
                values.iter().map(|v| mean_of_ends - v).fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a })
            }
            BarrierKind::Saddle => max,
            BarrierKind::SaddleOverMeanOfEnds => ratio(max, mean_of_ends),
            BarrierKind::AboveWorseEnd => max - worse_end,
            BarrierKind::OverWorseEnd => ratio(max, worse_end),
            BarrierKind::OverMinimum => ratio(max, min),
        })
    }
}

/// Definition A; 0 at the ends by definition, so that infinite ends do not make it NaN.
fn above_line(ts: &[f64], values: &[f64]) -> f64 {
    let last = ts.len() - 1;
    let inner = (1..last).map(|i| {
        let s = (ts[i] - ts[0]) / (ts[last] - ts[0]);
        values[i] - ((1.0 - s) * values[0] + s * values[last])
    });
    inner.fold(0.0, f64::max)
}

/// Fails unless there are two samples or more, one value for each, at increasing t.
pub(crate) fn check_samples(ts: &[f64], values: &[f64]) -> Result<()> {
    if ts.len() < 2 {
        return Err(Error::config("ts", "two samples or more", ts.len()));
    }
    if values.len() != ts.len() {
        return Err(Error::config("values", format!("{} numbers", ts.len()), values.len()));
    }
    if let Some(pair) = ts.windows(2).find(|pair| pair[0].partial_cmp(&pair[1]) != Some(std::cmp::Ordering::Less)) {
        return Err(Error::config("ts", "increasing", format!("{} before {}", pair[0], pair[1])));
    }
    Ok(())
}

/// Every barrier of one quantity along one path; not finite ones are `null` in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Barriers {
    /// [`BarrierKind::AboveLine`] (A).
    #[serde(with = "number")]
    pub above_line: f64,
    /// [`BarrierKind::AboveMeanOfEnds`] (B).
    #[serde(with = "number")]
    pub above_mean_of_ends: f64,
    /// [`BarrierKind::SignedDeviation`] (C).
    #[serde(with = "number")]
    pub signed_deviation: f64,
    /// [`BarrierKind::Saddle`] (D).
    #[serde(with = "number")]
    pub saddle: f64,
    /// [`BarrierKind::SaddleOverMeanOfEnds`] (D).
    #[serde(with = "number")]
    pub saddle_over_mean_of_ends: f64,
    /// [`BarrierKind::AboveWorseEnd`].
    #[serde(with = "number")]
    pub above_worse_end: f64,
    /// [`BarrierKind::OverWorseEnd`].
    #[serde(with = "number")]
    pub over_worse_end: f64,
    /// [`BarrierKind::OverMinimum`].
    #[serde(with = "number")]
    pub over_minimum: f64,
}

impl Barriers {
    /// All of them.
    ///
    /// # Errors
    /// As [`BarrierKind::of`].
    pub fn of(ts: &[f64], values: &[f64]) -> Result<Self> {
        let of = |kind: BarrierKind| kind.of(ts, values);
        Ok(Barriers {
            above_line: of(BarrierKind::AboveLine)?,
            above_mean_of_ends: of(BarrierKind::AboveMeanOfEnds)?,
            signed_deviation: of(BarrierKind::SignedDeviation)?,
            saddle: of(BarrierKind::Saddle)?,
            saddle_over_mean_of_ends: of(BarrierKind::SaddleOverMeanOfEnds)?,
            above_worse_end: of(BarrierKind::AboveWorseEnd)?,
            over_worse_end: of(BarrierKind::OverWorseEnd)?,
            over_minimum: of(BarrierKind::OverMinimum)?,
        })
    }
}

/// Where the verdicts draw their lines.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// [`Verdicts::is_lmc`]: barrier A must stay under this part of the larger end.
    pub lmc_fraction: f64,
    /// [`Verdicts::is_connected`]: max/max(ends) must stay under this.
    pub connected_ratio: f64,
}

impl Thresholds {
    /// This project's own: 10 % of the larger end, and a ratio of 1.1. No paper fixes them; Frankle et al. call an error barrier
    /// under 2 points stable.
    pub const PROJECT: Thresholds = Thresholds { lmc_fraction: 0.1, connected_ratio: 1.1 };

    /// Fails unless the verdicts make sense.
    ///
    /// # Errors
    /// If the fraction is negative, the ratio below 1, or one is not finite.
    pub fn check(&self) -> Result<()> {
        if !self.lmc_fraction.is_finite() || self.lmc_fraction < 0.0 {
            return Err(Error::config("lmc_fraction", "0 or more", self.lmc_fraction));
        }
        if !self.connected_ratio.is_finite() || self.connected_ratio < 1.0 {
            return Err(Error::config("connected_ratio", "1 or more", self.connected_ratio));
        }
        Ok(())
    }
}

/// Whether the ends are connected by the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// Barrier A is 0, or under [`Thresholds::lmc_fraction`] of the larger end. Of the straight line this says that the ends are
    /// linearly mode connected; of a curve, that the curve meets the same bar.
    pub is_lmc: bool,
    /// max/max(ends) is under [`Thresholds::connected_ratio`].
    pub is_connected: bool,
}

impl Verdicts {
    /// The verdicts on one quantity. Over ends that are 0 or negative only a path without any excess passes; with a NaN none does.
    ///
    /// # Errors
    /// As [`BarrierKind::of`], and if a threshold is out of its range.
    pub fn of(ts: &[f64], values: &[f64], thresholds: &Thresholds) -> Result<Self> {
        thresholds.check()?;
        let above_line = BarrierKind::AboveLine.of(ts, values)?;
        let over_worse_end = BarrierKind::OverWorseEnd.of(ts, values)?;
        let worse_end = values[0].max(values[values.len() - 1]);
        Ok(Verdicts {
            is_lmc: values.iter().all(|v| v.is_finite()) && (above_line <= 0.0 || above_line < thresholds.lmc_fraction * worse_end),
            is_connected: values.iter().all(|v| v.is_finite()) && (over_worse_end < thresholds.connected_ratio || over_worse_end == 1.0),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
    const ALL: [BarrierKind; 8] = [
        BarrierKind::AboveLine,
        BarrierKind::AboveMeanOfEnds,
        BarrierKind::SignedDeviation,
        BarrierKind::Saddle,
        BarrierKind::SaddleOverMeanOfEnds,
        BarrierKind::AboveWorseEnd,
        BarrierKind::OverWorseEnd,
        BarrierKind::OverMinimum,
    ];

    fn all(values: &[f64]) -> [f64; 8] {
        ALL.map(|kind| kind.of(&TS[..values.len()], values).unwrap())
    }

    #[test]
    fn the_definitions_tell_an_uneven_path_apart() {
        // Ends 1 and 3, a dip to 0.5 and a hump of 4 at t = 3/4, where the line is at 2.5.
        assert_eq!(all(&[1.0, 0.5, 2.0, 4.0, 3.0]), [1.5, 2.0, -2.0, 4.0, 2.0, 1.0, 4.0 / 3.0, 8.0]);
        // A pure dip: A is 0 (at the ends), B is the worse end over the mean, C is positive.
        assert_eq!(all(&[1.0, 0.1, 0.1, 0.1, 1.0]), [0.0, 0.0, 0.9, 1.0, 1.0, 0.0, 1.0, 10.0]);
        // A straight rise has no barrier by A and one by B.
        assert_eq!(all(&[1.0, 2.0, 3.0, 4.0, 5.0])[..2], [0.0, 2.0]);
    }

    #[test]
    fn the_struct_is_the_enum() {
        let values = [1.0, 0.5, 2.0, 4.0, 3.0];
        let json = serde_json::to_value(Barriers::of(&TS, &values).unwrap()).unwrap();
        for kind in ALL {
            let name = serde_json::to_value(kind).unwrap();
            assert_eq!(json[name.as_str().unwrap()], kind.of(&TS, &values).unwrap(), "{kind:?}");
        }
        assert_eq!(json.as_object().unwrap().len(), ALL.len());
    }

    #[test]
    fn barriers_do_not_depend_on_the_direction_and_scale_with_the_loss() {
        let values = [1.0, 0.5, 2.0, 4.0, 3.0];
        let mut reversed = values;
        reversed.reverse();
        assert_eq!(all(&values), all(&reversed));
        for (kind, (a, b)) in ALL.iter().zip(all(&values).into_iter().zip(all(&values.map(|v| 2.0 * v)))) {
            let is_ratio = matches!(kind, BarrierKind::SaddleOverMeanOfEnds | BarrierKind::OverWorseEnd | BarrierKind::OverMinimum);
            assert_eq!(b, if is_ratio { a } else { 2.0 * a }, "{kind:?}");
        }
    }

    #[test]
    fn zero_and_negative_ends_are_defined() {
        let zero = all(&[0.0, 0.0, 0.5, 0.0, 0.0]);
        assert_eq!(zero, [0.5, 0.5, -0.5, 0.5, f64::INFINITY, 0.5, f64::INFINITY, f64::INFINITY]);
        assert_eq!(all(&[0.0; 5]), [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
        let negative = all(&[-2.0, -1.0, -1.0, -1.0, -2.0]);
        assert_eq!(negative[..4], [1.0, 1.0, -1.0, -1.0]);
        assert!(negative[4].is_nan() && negative[6].is_nan() && negative[7].is_nan());
        assert_eq!(all(&[-2.0; 5])[4..], [1.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn a_nan_anywhere_is_not_hidden_and_infinities_are_infinite() {
        for idx in 0..5 {
            let mut values = [1.0; 5];
            values[idx] = f64::NAN;
            assert!(all(&values).iter().all(|b| b.is_nan()), "{idx}");
            let verdicts = Verdicts::of(&TS, &values, &Thresholds::PROJECT).unwrap();
            assert_eq!(verdicts, Verdicts { is_lmc: false, is_connected: false });
        }
        let barriers = Barriers::of(&TS, &[1.0, f64::INFINITY, 1.0, 1.0, 1.0]).unwrap();
        assert_eq!((barriers.above_line, barriers.over_worse_end), (f64::INFINITY, f64::INFINITY));
        let json = serde_json::to_string(&barriers).unwrap();
        assert!(json.contains("\"above_line\":null"), "{json}");
        let read: Barriers = serde_json::from_str(&json).unwrap();
        assert!(read.above_line.is_nan());
    }

    #[test]
    fn verdicts_keep_to_their_thresholds() {
        let verdicts = |values: &[f64; 5]| {
            let v = Verdicts::of(&TS, values, &Thresholds::PROJECT).unwrap();
            (v.is_lmc, v.is_connected)
        };
        let hump = |height: f64| [1.0, 1.0, height, 1.0, 1.0];
        assert_eq!(verdicts(&hump(1.09)), (true, true));
        assert_eq!(verdicts(&hump(1.11)), (false, false));
        // A rising path: far above its line, yet never above its worse end.
        assert_eq!(verdicts(&[1.0, 3.0, 3.0, 3.0, 3.0]), (false, true));
        assert_eq!(verdicts(&[0.0; 5]), (true, true));
        assert_eq!(verdicts(&[0.0, 0.0, 1e-9, 0.0, 0.0]), (false, false));
        assert_eq!(verdicts(&[-1.0, -1.0, -2.0, -1.0, -1.0]), (true, true));
        assert_eq!(verdicts(&[-1.0, -1.0, -0.5, -1.0, -1.0]), (false, false));
        let strict = Thresholds { lmc_fraction: 0.0, connected_ratio: 1.0 };
        let v = Verdicts::of(&TS, &hump(1.0), &strict).unwrap();
        assert!(v.is_lmc && v.is_connected, "no barrier passes the strictest thresholds");
        assert!(Verdicts::of(&TS, &hump(1.0), &Thresholds { connected_ratio: 0.9, ..Thresholds::PROJECT }).is_err());
        assert!(Verdicts::of(&TS, &hump(1.0), &Thresholds { lmc_fraction: f64::NAN, ..Thresholds::PROJECT }).is_err());
    }

    #[test]
    fn samples_that_are_none_are_refused() {
        assert!(BarrierKind::AboveLine.of(&[0.0], &[1.0]).is_err());
        assert!(BarrierKind::AboveLine.of(&[0.0, 1.0], &[1.0]).is_err());
        assert!(BarrierKind::AboveLine.of(&[0.0, 0.0], &[1.0, 1.0]).is_err());
        assert!(BarrierKind::AboveLine.of(&[0.0, f64::NAN], &[1.0, 1.0]).is_err());
        assert_eq!(BarrierKind::AboveLine.of(&[0.0, 1.0], &[1.0, 5.0]).unwrap(), 0.0);
    }
}
