//! Stochastic gradient descent.

use super::check_range;
use super::gradient::{Gradient, for_gradient};
use crate::check::shape_error;
use crate::error::{Result, check_len};
use crate::memory::{Real, View, ViewMut};
use crate::parallel::CHUNK;
use crate::simd::multiversion;
use rayon::prelude::*;

/// Whether the momentum looks ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nesterov {
    /// Step along the velocity.
    #[default]
    Off,
    /// Step along gradient + momentum·velocity.
    On,
}

/// Stochastic gradient descent, with the names and meanings of `torch.optim.SGD`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Momentum μ.
    pub momentum: f64,
    /// Dampening τ of the momentum.
    pub dampening: f64,
    /// L2 coefficient λ: λ·θ joins the gradient.
    pub weight_decay: f64,
    /// Whether the momentum looks ahead.
    pub nesterov: Nesterov,
}

/// One step of SGD: d = g + λθ; v ← μv + (1 − τ)d (first step: v ← d); θ ← θ − lr·v, with Nesterov θ − lr·(d + μv).
///
/// `n_steps_before` is how many steps the row has made. Without momentum a velocity is neither needed nor changed.
///
/// # Shapes
/// All `[P]`.
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ; [`crate::Error::Shape`] for a hyper-parameter out of range or momentum without velocity.
///
/// # Source
/// PyTorch `torch/optim/sgd.py`, `_single_tensor_sgd`: the same sums in the same order.
///
/// ```
/// use landscape_kernels::step::{Nesterov, Sgd, sgd_step};
/// let sgd = Sgd { lr: 0.5, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: Nesterov::Off };
/// let (g, mut theta, mut velocity) = ([2.0_f64], [1.0_f64], [0.0_f64]);
/// sgd_step(&sgd, 0, (&g[..]).into(), (&mut theta[..]).into(), Some((&mut velocity[..]).into()))?;
/// assert_eq!((theta, velocity), ([0.0], [2.0]));
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn sgd_step<T: Real>(
    sgd: &Sgd,
    n_steps_before: u64,
    gradient: View<'_, T>,
    theta: ViewMut<'_, T>,
    velocity: Option<ViewMut<'_, T>>,
) -> Result<()> {
    check_len("sgd_step", "gradient", theta.len(), gradient.len())?;
    on_device!("sgd_step", [gradient, theta, velocity], gpu => {
        check_sgd("sgd_step", sgd, theta.len(), velocity.as_ref())?;
        super::cuda::sgd(gpu, sgd, n_steps_before, super::cuda::Gradient::plain(gradient), theta, velocity)
    });
    run_sgd("sgd_step", sgd, n_steps_before, Gradient::Plain(gradient.host()), theta, velocity)
}

/// [`sgd_step`] with the gradient c_k·(g + wd·w), or c_k·g where there is no `point`; in one pass.
///
/// # Shapes
/// All `[P]`; `point` is the point w with its decay wd.
///
/// # Errors
/// As [`sgd_step`].
pub fn spread_sgd_step<T: Real>(
    sgd: &Sgd,
    n_steps_before: u64,
    c_k: f64,
    gradient: View<'_, T>,
    point: Option<(View<'_, T>, f64)>,
    theta: ViewMut<'_, T>,
    velocity: Option<ViewMut<'_, T>>,
) -> Result<()> {
    on_device!("spread_sgd_step", [gradient, point, theta, velocity], gpu => {
        let gradient = super::cuda::Gradient::spread("spread_sgd_step", c_k, gradient, point, theta.len())?;
        check_sgd("spread_sgd_step", sgd, theta.len(), velocity.as_ref())?;
        super::cuda::sgd(gpu, sgd, n_steps_before, gradient, theta, velocity)
    });
    let gradient = Gradient::spread("spread_sgd_step", c_k, gradient, point, theta.len())?;
    run_sgd("spread_sgd_step", sgd, n_steps_before, gradient, theta, velocity)
}

#[derive(Clone, Copy)]
struct SgdRule<T> {
    lr: T,
    momentum: T,
    keep: T,
    weight_decay: T,
    nesterov: Nesterov,
}

fn run_sgd<T: Real>(
    op: &'static str,
    sgd: &Sgd,
    n_steps_before: u64,
    gradient: Gradient<'_, T>,
    theta: ViewMut<'_, T>,
    velocity: Option<ViewMut<'_, T>>,
) -> Result<()> {
    check_sgd(op, sgd, theta.len(), velocity.as_ref())?;
    let rule = SgdRule {
        lr: T::from_f64(sgd.lr),
        momentum: T::from_f64(sgd.momentum),
        keep: T::from_f64(1.0 - sgd.dampening),
        weight_decay: T::from_f64(sgd.weight_decay),
        nesterov: sgd.nesterov,
    };
    let chunks = theta.host().par_chunks_mut(CHUNK);
    let part = |idx: usize, len: usize| gradient.slice(idx * CHUNK..idx * CHUNK + len);
    match velocity {
        _ if sgd.momentum == 0.0 => chunks.enumerate().for_each(|(idx, theta)| sgd_chunk(rule, part(idx, theta.len()), theta)),
        Some(velocity) => chunks.zip(velocity.host().par_chunks_mut(CHUNK)).enumerate().for_each(|(idx, (theta, velocity))| {
            let gradient = part(idx, theta.len());
            if n_steps_before == 0 {
                first_momentum_chunk(rule, gradient, theta, velocity);
            } else {
                momentum_chunk(rule, gradient, theta, velocity);
            }
        }),
        None => unreachable!("a momentum was checked to have a velocity"),
    }
    Ok(())
}

/// Fails on hyper-parameters out of range, and on a velocity that is missing or of another length than the row's `n`.
pub(super) fn check_sgd<T: Real>(op: &'static str, sgd: &Sgd, n: usize, velocity: Option<&ViewMut<'_, T>>) -> Result<()> {
    check_range(op, "lr", sgd.lr, 0.0..f64::INFINITY)?;
    check_range(op, "momentum", sgd.momentum, 0.0..f64::INFINITY)?;
    check_range(op, "weight_decay", sgd.weight_decay, 0.0..f64::INFINITY)?;
    if !sgd.dampening.is_finite() {
        return Err(shape_error(op, format!("`dampening` must be finite, got {}", sgd.dampening)));
    }
    if sgd.nesterov == Nesterov::On && (sgd.momentum == 0.0 || sgd.dampening != 0.0) {
        let reason = format!("`nesterov` needs a momentum and zero dampening, got {} and {}", sgd.momentum, sgd.dampening);
        return Err(shape_error(op, reason));
    }
    match velocity {
        Some(velocity) => check_len(op, "velocity", n, velocity.len()),
        None if sgd.momentum != 0.0 => Err(shape_error(op, format!("a momentum of {} needs a velocity", sgd.momentum))),
        None => Ok(()),
    }
}

impl<T: Real> SgdRule<T> {
    #[inline(always)]
    fn decayed(&self, g: T, theta: T) -> T {
        if self.weight_decay == T::ZERO { g } else { g + self.weight_decay * theta }
    }

    #[inline(always)]
    fn direction(&self, g: T, velocity: T) -> T {
        match self.nesterov {
            Nesterov::Off => velocity,
            Nesterov::On => g + self.momentum * velocity,
        }
    }
}

multiversion! {
    fn sgd_chunk<T>(rule: SgdRule<T>, gradient: Gradient<'_, T>, theta: &mut [T]) {
        for_gradient!(gradient, |values| for (theta, g) in theta.iter_mut().zip(values) {
            *theta -= rule.lr * rule.decayed(g, *theta);
        });
    }
}

multiversion! {
    fn first_momentum_chunk<T>(rule: SgdRule<T>, gradient: Gradient<'_, T>, theta: &mut [T], velocity: &mut [T]) {
        for_gradient!(gradient, |values| for ((theta, velocity), g) in theta.iter_mut().zip(velocity).zip(values) {
            let g = rule.decayed(g, *theta);
            *velocity = g;
            *theta -= rule.lr * rule.direction(g, g);
        });
    }
}

multiversion! {
    fn momentum_chunk<T>(rule: SgdRule<T>, gradient: Gradient<'_, T>, theta: &mut [T], velocity: &mut [T]) {
        for_gradient!(gradient, |values| for ((theta, velocity), g) in theta.iter_mut().zip(velocity).zip(values) {
            let g = rule.decayed(g, *theta);
            let v = *velocity * rule.momentum + rule.keep * g;
            *velocity = v;
            *theta -= rule.lr * rule.direction(g, v);
        });
    }
}
