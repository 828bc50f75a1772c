//! Optimisers on flat rows, as (init, update) pairs over the kernels' steps.

use crate::error::{Error, Result};
use landscape_kernels::step::{self, Adam, Decay, Nesterov, Sgd};
use landscape_kernels::{Device, Memory, Real, View, ViewMut};
use serde::{Deserialize, Serialize};

/// Which optimiser, with PyTorch's names and meanings. Weight decay is not here: what it acts on is [`crate::DecayOn`]'s business.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Optimizer {
    /// `torch.optim.SGD`.
    Sgd {
        /// Base learning rate.
        lr: f64,
        /// Momentum.
        momentum: f64,
        /// Whether the momentum looks ahead.
        nesterov: bool,
    },
    /// `torch.optim.Adam`: decay of the control points joins the gradient.
    Adam {
        /// Base learning rate.
        lr: f64,
        /// Decay rates of the two moments.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        eps: f64,
    },
    /// `torch.optim.AdamW`: decay of the control points shrinks them directly.
    AdamW {
        /// Base learning rate.
        lr: f64,
        /// Decay rates of the two moments.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        eps: f64,
    },
}

impl Optimizer {
    /// SGD with momentum 0.9, as the reference trains.
    pub const fn sgd(lr: f64) -> Self {
        Optimizer::Sgd { lr, momentum: 0.9, nesterov: false }
    }

    /// Adam with PyTorch's defaults.
    pub const fn adam(lr: f64) -> Self {
        Optimizer::Adam { lr, betas: [0.9, 0.999], eps: 1e-8 }
    }

    /// AdamW with PyTorch's defaults.
    pub const fn adamw(lr: f64) -> Self {
        Optimizer::AdamW { lr, betas: [0.9, 0.999], eps: 1e-8 }
    }

    /// The base learning rate.
    pub fn lr(&self) -> f64 {
        match *self {
            Optimizer::Sgd { lr, .. } | Optimizer::Adam { lr, .. } | Optimizer::AdamW { lr, .. } => lr,
        }
    }

    /// Fails unless every number is in its range.
    ///
    /// # Errors
    /// [`Error::Config`], naming the field.
    pub fn check(&self) -> Result<()> {
        let lr = self.lr();
        if !(lr.is_finite() && lr > 0.0) {
            return Err(Error::config("lr", "positive", lr));
        }
        match *self {
            Optimizer::Sgd { momentum, nesterov, .. } => {
                if !(0.0..1.0).contains(&momentum) {
                    return Err(Error::config("momentum", "at least 0 and below 1", momentum));
                }
                if nesterov && momentum == 0.0 {
                    return Err(Error::config("momentum", "positive with `nesterov`", momentum));
                }
            }
            Optimizer::Adam { betas, eps, .. } | Optimizer::AdamW { betas, eps, .. } => {
                if betas.iter().any(|b| !(0.0..1.0).contains(b)) {
                    return Err(Error::config("betas", "at least 0 and below 1", format!("{betas:?}")));
                }
                if !(eps.is_finite() && eps >= 0.0) {
                    return Err(Error::config("eps", "not negative", eps));
                }
            }
        }
        Ok(())
    }

    /// The moments of one row before its first step: zeros, as many vectors as the optimiser keeps.
    pub fn init<T: Real>(&self, device: &Device, n_elements: usize) -> Moments<T> {
        let n_vectors = match self {
            Optimizer::Sgd { momentum, .. } => usize::from(*momentum > 0.0),
            Optimizer::Adam { .. } | Optimizer::AdamW { .. } => 2,
        };
        Moments { vectors: (0..n_vectors).map(|_| Memory::zeros(device, n_elements)).collect() }
    }

    /// One step of one row: its gradient is c_k·(g + wd·w) with L2 of the point, c_k·g + decay·θ_k with decay of the control
    /// points, formed and applied in one pass.
    ///
    /// # Errors
    /// If a length is wrong.
    pub fn update<T: Real>(&self, step: RowStep<'_, T>, theta: ViewMut<'_, T>, moments: &mut Moments<T>) -> Result<()> {
        let RowStep { n_steps_before, lr_factor, c_k, gradient, point, decay } = step;
        match *self {
            Optimizer::Sgd { lr, momentum, nesterov } => {
                let nesterov = if nesterov { Nesterov::On } else { Nesterov::Off };
                let sgd = Sgd { lr: lr * lr_factor, momentum, dampening: 0.0, weight_decay: decay, nesterov };
                let velocity = moments.vectors.first_mut().map(Memory::view_mut);
                step::spread_sgd_step(&sgd, n_steps_before, c_k, gradient, point, theta, velocity)?;
            }
            Optimizer::Adam { lr, betas, eps } | Optimizer::AdamW { lr, betas, eps } => {
                let kind = if matches!(self, Optimizer::Adam { .. }) { Decay::Coupled } else { Decay::Decoupled };
                let adam = Adam { lr: lr * lr_factor, betas, eps, weight_decay: decay, decay: kind };
                let [m, v] = moments.vectors.as_mut_slice() else {
                    return Err(Error::config("moments", "two vectors", moments.vectors.len()));
                };
                step::spread_adam_step(&adam, n_steps_before + 1, c_k, gradient, point, theta, m.view_mut(), v.view_mut())?;
            }
        }
        Ok(())
    }
}

/// What one row needs for one step.
#[derive(Debug, Clone, Copy)]
pub struct RowStep<'a, T> {
    /// Steps done before this one.
    pub n_steps_before: u64,
    /// The schedule's factor on the base rate.
    pub lr_factor: f64,
    /// The row's coefficient at the point.
    pub c_k: f64,
    /// Gradient of the loss at the point.
    pub gradient: View<'a, T>,
    /// The point and its decay, where the L2 term is that of the point.
    pub point: Option<(View<'a, T>, f64)>,
    /// Decay of the row itself, else 0.
    pub decay: f64,
}

/// What an optimiser remembers of one row.
#[derive(Debug, Clone)]
pub struct Moments<T> {
    /// SGD: the velocity. Adam: first and second moment.
    pub vectors: Vec<Memory<T>>,
}
