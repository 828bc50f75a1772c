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
