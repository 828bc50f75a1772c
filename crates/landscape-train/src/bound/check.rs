//! Whether candle's gradients of a model are right, found out before anything is trained by them.
//!
//! candle 0.11.1 gets some gradients wrong (`max_pool2d` scales by 1/k², `conv1d`'s weights) and leaves some out in silence
//! (`LayerNorm`, `RmsNorm`, `softmax_last_dim`), so a curve would be trained towards the wrong place without a word. The model is
//! built a second time, in f64, at the present point; for each parameter one random direction d is drawn (each element in proportion
//! to the size of its tensor) and ⟨gradient, d⟩ is held against the central difference (L(w + hd) − L(w − hd))/2h on a few examples.
//!
//! A step across the kink of a relu spoils a difference, but not those of all step sizes alike: a gradient that agrees at any step is
//! right; it is wrong if two steps agree with each other and not with it; where the steps do not agree, another direction is drawn.

use super::leaves::Instance;
use super::loss::Loss;
use super::model::{Bound, Parts, fit_input};
use crate::error::{Error, Result};
use candle_core::{DType, Tensor, WithDType};
use landscape_core::Seed;
use landscape_kernels::Real;

/// Whether [`super::Task`] checks candle's gradients before it hands out the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GradientCheck {
    /// Against finite differences, at the first gradient.
    #[default]
    First,
    /// Not at all: wrong and missing gradients go unseen. For models that cannot be checked, such as those that draw random numbers.
    Never,
}

/// As many examples as are worth their time; more than one, for the sake of batch norm.
const N_EXAMPLES: usize = 8;
/// Directions tried where the steps do not agree.
const N_DIRECTIONS: u64 = 3;

/// What differences can tell in one precision.
struct Precision {
    dtype: DType,
    /// Step sizes h, in units of a tensor's root mean square.
    steps: [f64; 3],
    /// Relative difference that counts as agreement.
    tolerance: f64,
    /// Absolute difference, per nat of loss, that is rounding.
    floor: f64,
}

const DOUBLE: Precision = Precision { dtype: DType::F64, steps: [1e-5, 1e-4, 1e-3], tolerance: 1e-3, floor: 1e-8 };
/// Some of candle's fused operations do not exist in f64.
const SINGLE: Precision = Precision { dtype: DType::F32, steps: [1e-2, 3e-2, 1e-1], tolerance: 5e-2, floor: 3e-4 };

/// Checks a model at its present point and names the parameters that have no gradient, rightly so.
pub(super) fn check<T: Real + WithDType>(
    model: &Bound<'_, T>,
    loss: &Loss<'_>,
    batch: &(Tensor, Tensor),
    train: bool,
) -> Result<Vec<bool>> {
    match check_in(&DOUBLE, model, loss, batch, train) {
        Err(Error::Candle(_) | Error::Core(landscape_core::Error::Candle(_))) if T::DTYPE != DType::F64 => {
            check_in(&SINGLE, model, loss, batch, train)
        }
        verdict => verdict,
    }
}

fn check_in<T: Real + WithDType>(
    precision: &Precision,
    model: &Bound<'_, T>,
    loss: &Loss<'_>,
    (x, y): &(Tensor, Tensor),
    train: bool,
) -> Result<Vec<bool>> {
    let instance = model.rebuilt_in(precision.dtype)?;
    let parts = Parts::of(&instance.leaves, &model.names)?;
    parts.layout.check_same("the model built a second time", model.layout(), "the model")?;
    let n = N_EXAMPLES.min(x.dim(0)?);
    let x = fit_input(&x.narrow(0, 0, n)?, &model.device, precision.dtype)?;
    let y = y.narrow(0, 0, n)?;
    let twin = Twin { instance, loss, x, y, train };
    let at = twin.loss()?;
    // A model that drops units at random has no differences in training mode; its gradients are those of evaluation, masked.
    let twin = if twin.loss()? == at { twin } else { Twin { train: false, ..twin } };
    let at = twin.loss()?;
    if twin.loss()? != at {
        return Err(Error::config("model", "the same function at every call", "losses that differ on the same batch"));
    }
    let grads = twin.loss.root(&(twin.instance.forward)(&twin.x, twin.train)?, &twin.y)?.1.backward()?;
    let mut has_none = Vec::new();
    let mut failures: Vec<(String, String)> = Vec::new();
    for (spec, &leaf_idx) in parts.layout.tensors().iter().zip(&parts.params) {
        let leaf = &twin.instance.leaves[leaf_idx];
        let gradient = grads.get(leaf.var.as_tensor()).map(super::leaves::numbers).transpose()?;
        has_none.push(gradient.is_none());
        let seed = Seed::new(0).child("gradient check").child(&spec.name);
        if let Some(reason) = twin.find_fault(precision, leaf_idx, gradient.as_deref(), at, seed)? {
            failures.push((spec.name.clone(), reason));
        }
    }
    if failures.is_empty() {
        return Ok(has_none);
    }
    let (parameter, mut reason) = failures.remove(0);
    if !failures.is_empty() {
        let others: Vec<String> = failures.iter().take(3).map(|(name, _)| format!("`{name}`")).collect();
        let n_more = failures.len() - others.len();
        let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
        reason.push_str(&format!("; so it is with {}{more}", others.join(", ")));
    }
    Err(Error::Gradient { parameter, reason })
}

/// The model that is checked, with what it is checked on.
struct Twin<'s, 'a> {
    instance: Instance<'a>,
    loss: &'s Loss<'a>,
    x: Tensor,
    y: Tensor,
    train: bool,
}

impl Twin<'_, '_> {
    fn loss(&self) -> Result<f64> {
        Ok(self.loss.tally(&(self.instance.forward)(&self.x, self.train)?, &self.y)?.nll())
    }

    /// What is wrong with the gradient of one leaf, if anything.
    fn find_fault(&self, precision: &Precision, leaf_idx: usize, gradient: Option<&[f64]>, at: f64, seed: Seed) -> Result<Option<String>> {
        let leaf = &self.instance.leaves[leaf_idx];
        let w = leaf.read()?;
        if w.is_empty() {
            return Ok(None);
        }
        // Weights that are all zero still get a step.
        let size = (w.iter().map(|v| v * v).sum::<f64>() / w.len() as f64).sqrt().max(1e-2);
        let norm = gradient.map_or(0.0, |g| g.iter().map(|v| v * v).sum::<f64>().sqrt()) * size;
        let floor = precision.floor * (1.0 + at.abs());
        let mut last = String::new();
        for direction_idx in 0..N_DIRECTIONS {
            let mut stream = seed.child_idx(direction_idx).stream();
            let d: Vec<f64> = w.iter().map(|_| size * stream.normal()).collect();
            let claimed = gradient.map_or(0.0, |g| g.iter().zip(&d).map(|(g, d)| g * d).sum());
            let mut slopes = Vec::new();
            for h in precision.steps {
                let side = |sign: f64| -> Result<f64> {
                    let moved: Vec<f64> = w.iter().zip(&d).map(|(w, d)| w + sign * h * d).collect();
                    leaf.write(&moved)?;
                    self.loss()
                };
                let slope = side(1.0).and_then(|up| Ok((up - side(-1.0)?) / (2.0 * h)));
                leaf.write(&w)?;
                slopes.push(slope?);
            }
            let agree = |a: f64, b: f64| (a - b).abs() <= precision.tolerance * norm.max(a.abs()).max(b.abs()) + floor;
            if slopes.iter().any(|&slope| agree(claimed, slope)) {
                return Ok(None);
            }
            let what = match gradient {
                None => "candle gives no gradient".to_owned(),
                Some(_) => format!("candle's gradient along a random direction is {claimed:.4e}"),
            };
            if let Some(pair) = slopes.windows(2).find(|pair| agree(pair[0], pair[1])) {
                return Ok(Some(format!("{what}, but finite differences give {:.4e}", pair[0])));
            }
            let slopes: Vec<String> = slopes.iter().map(|slope| format!("{slope:.4e}")).collect();
            last = format!("{what}, and finite differences do not settle: {}", slopes.join(", "));
        }
        Ok(Some(last))
    }
}
