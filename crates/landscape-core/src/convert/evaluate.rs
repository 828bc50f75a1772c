//! A profile of any candle model.

use super::TensorPoints;
use crate::barrier::Thresholds;
use crate::curve::Curve;
use crate::error::Result;
use crate::length::{chord_lengths, uniform_ts};
use crate::profile::{Profile, Sample, Values};
use crate::tally::Tally;
use candle_core::Tensor;
use landscape_kernels::Real;

/// Measures a candle model at `n_samples` equally spaced points of a curve.
///
/// `measure` gets the tensors of each point, from t = 0 to t = 1, builds the model on them and tallies whatever data it holds; they
/// stand as `train` in the profile, without an L2 term. No gradient is asked for, so it does not matter which of candle's ops have one.
/// For the buffers see [`super::BufferPolicy`].
///
/// # Errors
/// If `n_samples` is below 2, curve and points differ in K, or `measure` fails.
#[expect(clippy::disallowed_types, reason = "candle's VarBuilder takes a std map; its order is never used")]
pub fn profile<T: Real>(
    points: &TensorPoints<T>,
    curve: &dyn Curve,
    n_samples: usize,
    mut measure: impl FnMut(std::collections::HashMap<String, Tensor>) -> Result<Tally>,
) -> Result<Profile> {
    let ts = uniform_ts(n_samples)?;
    let chords = chord_lengths(points.points(), curve, &ts)?;
    let mut samples = Vec::with_capacity(n_samples);
    for (&t, dl) in ts.iter().zip(chords) {
        let tally = measure(points.to_tensors(&curve.coefficients(t)?)?)?;
        samples.push(Sample { t, dl, train: Values::new(&tally, 0.0, 0.0), test: None });
    }
    Profile::of(samples, curve, 0.0, Thresholds::PROJECT)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::ControlPoints;
    use crate::convert::BufferNames;
    use crate::curve::{Bezier, Segment};
    use candle_core::Device;

    #[test]
    fn a_linear_model_has_a_parabola_of_known_top_between_its_ends() {
        // y = w x on x = 1 with target 3 from w = 1 to w = 7: the loss (w − 3)² is (6t − 2)².
        let model = |w: f32| [("w".to_owned(), Tensor::new(&[w], &Device::Cpu).unwrap())].into_iter().collect();
        let (a, b) = (model(1.0), model(7.0));
        let points = ControlPoints::from_tensors([&a, &b], BufferNames::none()).unwrap();
        let target = Tensor::new(&[3.0f32], &Device::Cpu).unwrap();
        let found = profile(&points, &Segment, 31, |w| Tally::squared_error(&w["w"], &target)).unwrap();
        for sample in &found.points {
            assert!((sample.train.nll - (6.0 * sample.t - 2.0).powi(2)).abs() < 1e-5, "{sample:?}");
            assert_eq!(sample.train.loss, sample.train.nll);
        }
        let summary = &found.summary.train_loss;
        assert_eq!((summary.start, summary.end, summary.max, summary.t_max), (4.0, 16.0, 16.0, 1.0));
        assert!(summary.min < 1e-10 && (found.length - 6.0).abs() < 1e-12);
        assert!(found.verdicts.is_lmc && found.verdicts.is_connected);
        assert!(found.summary.train_error.is_none() && found.summary.test_loss.is_none());
        assert!(profile(&points, &Bezier::new(3).unwrap(), 5, |_| unreachable!()).is_err());
        assert!(profile(&points, &Segment, 1, |_| unreachable!()).is_err());
        let failure = profile(&points, &Segment, 5, |w| Tally::classes(&w["w"], &target)).unwrap_err();
        assert!(failure.to_string().contains("`logits`"));
    }
}
