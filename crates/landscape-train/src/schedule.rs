//! Learning rates over a run: a factor on the base rate, as a function of the position in epochs.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps of one epoch.
    pub steps_per_epoch: u64,
    /// Epochs of the whole run, also where it is cut short.
    pub n_epochs: u64,
}

impl Progress {
    /// Epochs done, with fractions.
    pub fn position(&self) -> f64 {
        self.step as f64 / self.steps_per_epoch as f64
    }

    /// The epoch that the next step belongs to, from zero.
    pub fn epoch(&self) -> u64 {
        self.step / self.steps_per_epoch
    }
}

/// How the learning rate changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Schedule {
    /// Always 1.
    Constant,
    /// Times `gamma` at each milestone, a share of the run.
    Step {
        /// Shares of the run, between 0 and 1.
        milestones: Vec<f64>,
        /// The factor at each.
        gamma: f64,
    },
    /// ½(1 + cos πp), p the share of the run that is done; per step (Loshchilov and Hutter 2017, without restarts).
    Cosine,
    /// The reference's piecewise linear rate (`learning_rate_schedule` of dnn-mode-connectivity `train.py`): with α = e/E, e the
    /// epoch counted from one, 1 up to α = 0.5, then linear to 0.01 at α = 0.9, then 0.01. Per epoch.
    Garipov2018,
    /// Triangles of `cycle_epochs`: from 1 down to `low` in the first half of a cycle and back in the second
    /// (`cyclic_learning_rate` of the reference's FGE; `low` = lr_2/lr_1). Per step.
    Triangular {
        /// Length of one cycle in epochs.
        cycle_epochs: f64,
        /// The factor at the middle of a cycle.
        low: f64,
    },
}

impl Schedule {
    /// The factor on the base rate for the step that follows `progress`.
    ///
    /// ```
    /// use landscape_train::{Progress, Schedule};
    /// let at = |epoch: u64| Schedule::Garipov2018.factor(Progress { step: epoch - 1, steps_per_epoch: 1, n_epochs: 20 });
    /// assert_eq!((at(1), at(10)), (1.0, 1.0));
    /// assert!((at(14) - 0.505).abs() < 1e-12 && (at(18) - 0.01).abs() < 1e-12 && at(20) == 0.01);
    /// ```
    pub fn factor(&self, progress: Progress) -> f64 {
        let share = progress.position() / progress.n_epochs as f64;
        match self {
            Schedule::Constant => 1.0,
            Schedule::Step { milestones, gamma } => gamma.powi(milestones.iter().filter(|&&m| share >= m).count() as i32),
            Schedule::Cosine => 0.5 * (1.0 + (PI * share.min(1.0)).cos()),
            Schedule::Garipov2018 => {
                let alpha = (progress.epoch() + 1) as f64 / progress.n_epochs as f64;
                if alpha <= 0.5 {
                    1.0
                } else if alpha <= 0.9 {
                    1.0 - (alpha - 0.5) / 0.4 * 0.99
                } else {
                    0.01
                }
            }
            Schedule::Triangular { cycle_epochs, low } => {
                let phase = (progress.position() / cycle_epochs).fract();
                let toward_low = 1.0 - (2.0 * phase - 1.0).abs();
                1.0 - toward_low * (1.0 - low)
            }
        }
    }

    /// Fails unless every number is in its range.
    ///
    /// # Errors
    /// [`Error::Config`], naming the field.
    pub fn check(&self) -> Result<()> {
        match self {
            Schedule::Step { milestones, gamma } => {
                if milestones.iter().any(|m| !(0.0..=1.0).contains(m)) {
                    return Err(Error::config("milestones", "shares of the run between 0 and 1", format!("{milestones:?}")));
                }
                if !(gamma.is_finite() && *gamma > 0.0) {
                    return Err(Error::config("gamma", "positive", gamma));
                }
            }
            Schedule::Triangular { cycle_epochs, low } => {
                if !(cycle_epochs.is_finite() && *cycle_epochs > 0.0) {
                    return Err(Error::config("cycle_epochs", "positive", cycle_epochs));
                }
                if !(0.0..=1.0).contains(low) {
                    return Err(Error::config("low", "between 0 and 1", low));
                }
            }
            Schedule::Constant | Schedule::Cosine | Schedule::Garipov2018 => {}
        }
        Ok(())
    }
}

/// `constant`, `cosine`, `garipov`, `step:0.5,0.75/0.1`, `triangular:4/0.01`.
impl std::str::FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::config(
                "schedule",
                "`constant`, `cosine`, `garipov`, `step:SHARE,SHARE/GAMMA` or `triangular:EPOCHS/LOW`",
                format!("`{text}`"),
            )
        };
        let number = |s: &str| s.trim().parse::<f64>().map_err(|_| wrong());
        let schedule = match text.split_once(':') {
            None => match text {
                "constant" => Schedule::Constant,
                "cosine" => Schedule::Cosine,
                "garipov" => Schedule::Garipov2018,
                _ => return Err(wrong()),
            },
            Some((kind, rest)) => {
                let (first, second) = rest.split_once('/').ok_or_else(wrong)?;
                match kind {
                    "step" => Schedule::Step { milestones: first.split(',').map(number).collect::<Result<_>>()?, gamma: number(second)? },
                    "triangular" => Schedule::Triangular { cycle_epochs: number(first)?, low: number(second)? },
                    _ => return Err(wrong()),
                }
            }
        };
        schedule.check()?;
        Ok(schedule)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(schedule: &Schedule, position: f64, n_epochs: u64) -> f64 {
        schedule.factor(Progress { step: (position * 100.0).round() as u64, steps_per_epoch: 100, n_epochs })
    }

    #[test]
    fn triangles_are_lowest_in_the_middle_of_a_cycle() {
        let fge = Schedule::Triangular { cycle_epochs: 4.0, low: 1e-4 / 0.05 };
        for cycle in 0..3 {
            let start = f64::from(cycle) * 4.0;
            assert!((at(&fge, start, 12) - 1.0).abs() < 1e-9);
            assert!((at(&fge, start + 1.0, 12) - 0.5 * (1.0 + 0.002)).abs() < 1e-9);
            // The end of the second epoch of a cycle: the reference collects a member here.
            assert!((at(&fge, start + 2.0, 12) - 0.002).abs() < 1e-9);
        }
    }

    #[test]
    fn steps_and_cosine_by_formula() {
        let step: Schedule = "step:0.5,0.75/0.1".parse().unwrap();
        assert_eq!((at(&step, 4.99, 10), at(&step, 5.0, 10)), (1.0, 0.1));
        assert!((at(&step, 8.0, 10) - 0.01).abs() < 1e-15);
        assert!((at(&Schedule::Cosine, 5.0, 10) - 0.5).abs() < 1e-12);
        assert!(at(&Schedule::Cosine, 10.0, 10).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_read_says_what_can() {
        for text in ["", "warm", "step:0.5", "step:2/0.1", "triangular:0/0.1", "triangular:4/x"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}
