//! Adam and AdamW.

use super::check_range;
use super::gradient::{Gradient, for_gradient};
use crate::check::shape_error;
use crate::error::{Result, check_len};
use crate::memory::{Real, View, ViewMut};
use crate::parallel::CHUNK;
use crate::simd::multiversion;
use rayon::prelude::*;

/// How Adam decays weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// λ·θ joins the gradient: `torch.optim.Adam`.
    Coupled,
    /// θ shrinks by 1 − lr·λ: `torch.optim.AdamW`.
    Decoupled,
}

/// Adam or AdamW, with the names and meanings of `torch.optim.Adam`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay rates β₁, β₂ of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay λ.
    pub weight_decay: f64,
    /// What the weight decay acts on.
    pub decay: Decay,
}

/// One step of Adam: d = g + λθ (coupled) or θ ← (1 − lr·λ)θ (decoupled); m ← m + (1 − β₁)(d − m); v ← β₂v + (1 − β₂)d²;
/// θ ← θ − lr/(1 − β₁ˢ) · m / (√v/√(1 − β₂ˢ) + ε), with s = `step_idx` counted from 1.
///
/// # Shapes
/// All `[P]`.
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ; [`crate::Error::Shape`] for a hyper-parameter out of range or a `step_idx` of 0.
///
/// # Source
/// Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019 for the decoupled decay; PyTorch `torch/optim/adam.py`,
/// `_single_tensor_adam`: the same sums in the same order.
///
/// ```
/// use landscape_kernels::step::{Adam, Decay, adam_step};
/// let adam = Adam { lr: 0.1, betas: [0.9, 0.999], eps: 0.0, weight_decay: 0.0, decay: Decay::Coupled };
/// let (g, mut theta, mut m, mut v) = ([-3.0_f64], [1.0_f64], [0.0_f64], [0.0_f64]);
/// adam_step(&adam, 1, (&g[..]).into(), (&mut theta[..]).into(), (&mut m[..]).into(), (&mut v[..]).into())?;
/// assert!((theta[0] - 1.1).abs() < 1e-12); // the first step is lr·sign(g)
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn adam_step<T: Real>(
    adam: &Adam,
    step_idx: u64,
    gradient: View<'_, T>,
    theta: ViewMut<'_, T>,
    m: ViewMut<'_, T>,
    v: ViewMut<'_, T>,
) -> Result<()> {
    check_len("adam_step", "gradient", theta.len(), gradient.len())?;
    on_device!("adam_step", [gradient, theta, m, v], gpu => {
        check_adam("adam_step", adam, step_idx, theta.len(), [m.len(), v.len()])?;
        super::cuda::adam(gpu, &AdamRule::new(adam, step_idx), super::cuda::Gradient::plain(gradient), theta, m, v)
    });
    run_adam("adam_step", adam, step_idx, Gradient::Plain(gradient.host()), theta, m, v)
}

/// [`adam_step`] with the gradient c_k·(g + wd·w), or c_k·g where there is no `point`; in one pass.
///
/// # Shapes
/// All `[P]`; `point` is the point w with its decay wd.
///
/// # Errors
/// As [`adam_step`].
#[allow(clippy::too_many_arguments)]
pub fn spread_adam_step<T: Real>(
    adam: &Adam,
    step_idx: u64,
    c_k: f64,
    gradient: View<'_, T>,
    point: Option<(View<'_, T>, f64)>,
    theta: ViewMut<'_, T>,
    m: ViewMut<'_, T>,
    v: ViewMut<'_, T>,
) -> Result<()> {
    on_device!("spread_adam_step", [gradient, point, theta, m, v], gpu => {
        let gradient = super::cuda::Gradient::spread("spread_adam_step", c_k, gradient, point, theta.len())?;
        check_adam("spread_adam_step", adam, step_idx, theta.len(), [m.len(), v.len()])?;
        super::cuda::adam(gpu, &AdamRule::new(adam, step_idx), gradient, theta, m, v)
    });
    let gradient = Gradient::spread("spread_adam_step", c_k, gradient, point, theta.len())?;
    run_adam("spread_adam_step", adam, step_idx, gradient, theta, m, v)
}

#[derive(Clone, Copy)]
pub(super) struct AdamRule<T> {
    pub coupled_decay: T,
    pub shrink: T,
    pub beta1: T,
    pub one_minus_beta1: T,
    pub beta2: T,
    pub one_minus_beta2: T,
    pub step_size: T,
    pub root_of_correction: T,
    pub eps: T,
}

impl<T: Real> AdamRule<T> {
    /// The numbers of step `step_idx`, counted from 1.
    pub fn new(adam: &Adam, step_idx: u64) -> Self {
        let (coupled, shrink) = match adam.decay {
            Decay::Coupled => (adam.weight_decay, 1.0),
            Decay::Decoupled => (0.0, 1.0 - adam.lr * adam.weight_decay),
        };
        let [correction1, correction2] = adam.betas.map(|beta| 1.0 - beta.powf(step_idx as f64));
        AdamRule {
            coupled_decay: T::from_f64(coupled),
            shrink: T::from_f64(shrink),
            beta1: T::from_f64(adam.betas[0]),
            one_minus_beta1: T::from_f64(1.0 - adam.betas[0]),
            beta2: T::from_f64(adam.betas[1]),
            one_minus_beta2: T::from_f64(1.0 - adam.betas[1]),
            step_size: T::from_f64(adam.lr / correction1),
            root_of_correction: T::from_f64(correction2.sqrt()),
            eps: T::from_f64(adam.eps),
        }
    }
}

/// Fails on hyper-parameters out of range, and on moments of another length than the row's `n`.
pub(super) fn check_adam(op: &'static str, adam: &Adam, step_idx: u64, n: usize, [m, v]: [usize; 2]) -> Result<()> {
    check_range(op, "lr", adam.lr, 0.0..f64::INFINITY)?;
    check_range(op, "betas[0]", adam.betas[0], 0.0..1.0)?;
    check_range(op, "betas[1]", adam.betas[1], 0.0..1.0)?;
    check_range(op, "eps", adam.eps, 0.0..f64::INFINITY)?;
    check_range(op, "weight_decay", adam.weight_decay, 0.0..f64::INFINITY)?;
    if step_idx == 0 {
        return Err(shape_error(op, "`step_idx` counts from 1, got 0"));
    }
    check_len(op, "m", n, m)?;
    check_len(op, "v", n, v)
}

fn run_adam<T: Real>(
    op: &'static str,
    adam: &Adam,
    step_idx: u64,
    gradient: Gradient<'_, T>,
    theta: ViewMut<'_, T>,
    m: ViewMut<'_, T>,
    v: ViewMut<'_, T>,
) -> Result<()> {
    check_adam(op, adam, step_idx, theta.len(), [m.len(), v.len()])?;
    let rule = AdamRule::new(adam, step_idx);
    let moments = m.host().par_chunks_mut(CHUNK).zip(v.host().par_chunks_mut(CHUNK));
    theta.host().par_chunks_mut(CHUNK).zip(moments).enumerate().for_each(|(idx, (theta, (m, v)))| {
        adam_chunk(rule, gradient.slice(idx * CHUNK..idx * CHUNK + theta.len()), theta, m, v);
    });
    Ok(())
}

multiversion! {
    fn adam_chunk<T>(rule: AdamRule<T>, gradient: Gradient<'_, T>, theta: &mut [T], m: &mut [T], v: &mut [T]) {
        let coupled = rule.coupled_decay != T::ZERO;
        // Which end the interpolation starts from: PyTorch's `lerp`, exact at both ends.
        let near = rule.one_minus_beta1 < T::from_f64(0.5);
        for_gradient!(gradient, |values| for (((theta, m), v), g) in theta.iter_mut().zip(m).zip(v).zip(values) {
            let w = rule.shrink * *theta;
            let g = if coupled { g + rule.coupled_decay * w } else { g };
            let first = if near { *m + rule.one_minus_beta1 * (g - *m) } else { g - rule.beta1 * (g - *m) };
            let second = *v * rule.beta2 + rule.one_minus_beta2 * g * g;
            *m = first;
            *v = second;
            *theta = w - rule.step_size * first / (second.sqrt() / rule.root_of_correction + rule.eps);
        });
    }
}
