//! Optimiser steps on flat rows: SGD, Adam and AdamW with PyTorch's formulas, alone or fused with `spread`.
//!
//! The fused steps form the gradient of a control point, c_k·(g + wd·w), in a tile that stays in L1 and hand it to the very loop of the
//! plain step: one pass over memory, and the same bits as `spread` followed by the step.

use crate::check::shape_error;
use crate::error::{Result, check_len};
use crate::memory::{Real, View, ViewMut};
use crate::parallel::CHUNK;
use crate::simd::multiversion;
use rayon::prelude::*;

/// Elements of a gradient that are formed at once; a small part of L1 in either type.
const TILE: usize = 1024;

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
    let gradient = Gradient::spread("spread_sgd_step", c_k, gradient, point, theta.len())?;
    run_sgd("spread_sgd_step", sgd, n_steps_before, gradient, theta, velocity)
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
    let gradient = Gradient::spread("spread_adam_step", c_k, gradient, point, theta.len())?;
    run_adam("spread_adam_step", adam, step_idx, gradient, theta, m, v)
}

/// Where the gradient of a row comes from.
#[derive(Clone, Copy)]
enum Gradient<'a, T> {
    Plain(&'a [T]),
    Spread { c: T, g: &'a [T], point: Option<(&'a [T], T)> },
}

impl<'a, T: Real> Gradient<'a, T> {
    fn spread(op: &'static str, c: f64, g: View<'a, T>, point: Option<(View<'a, T>, f64)>, n: usize) -> Result<Self> {
        check_len(op, "gradient", n, g.len())?;
        if let Some((point, _)) = point {
            check_len(op, "point", n, point.len())?;
        }
        let point = point.map(|(w, decay)| (w.host(), T::from_f64(decay)));
        Ok(Gradient::Spread { c: T::from_f64(c), g: g.host(), point })
    }

    /// Calls `f(range within the chunk, gradient there)` for the tiles of the chunk that begins at `start`.
    fn for_each_tile(&self, start: usize, len: usize, mut f: impl FnMut(std::ops::Range<usize>, &[T])) {
        match *self {
            Gradient::Plain(g) => f(0..len, &g[start..start + len]),
            Gradient::Spread { c, g, point } => {
                let mut tile = [T::ZERO; TILE];
                for first in (0..len).step_by(TILE) {
                    let range = first..(first + TILE).min(len);
                    let source = start + range.start..start + range.end;
                    let tile = &mut tile[..range.len()];
                    form_gradient(c, &g[source.clone()], point.map(|(w, decay)| (&w[source], decay)), tile);
                    f(range, tile);
                }
            }
        }
    }
}

multiversion! {
    fn form_gradient<T>(c: T, g: &[T], point: Option<(&[T], T)>, out: &mut [T]) {
        match point {
            // As `spread`: a coefficient of zero gives exactly zero.
            _ if c == T::ZERO => out.fill(T::ZERO),
            None => {
                for (out, &g) in out.iter_mut().zip(g) {
                    *out = c * g;
                }
            }
            Some((w, decay)) => {
                for ((out, &g), &w) in out.iter_mut().zip(g).zip(w) {
                    *out = c * (g + decay * w);
                }
            }
        }
    }
}

fn check_range(op: &'static str, name: &str, value: f64, range: std::ops::Range<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let top = if range.end.is_finite() { format!("below {}", range.end) } else { "finite".to_owned() };
    Err(shape_error(op, format!("`{name}` must be at least {} and {top}, got {value}", range.start)))
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
    if let Some(velocity) = &velocity {
        check_len(op, "velocity", theta.len(), velocity.len())?;
    }
    let rule = SgdRule {
        lr: T::from_f64(sgd.lr),
        momentum: T::from_f64(sgd.momentum),
        keep: T::from_f64(1.0 - sgd.dampening),
        weight_decay: T::from_f64(sgd.weight_decay),
        nesterov: sgd.nesterov,
    };
    let chunks = theta.host().par_chunks_mut(CHUNK);
    match velocity {
        _ if sgd.momentum == 0.0 => chunks.enumerate().for_each(|(idx, theta)| {
            gradient.for_each_tile(idx * CHUNK, theta.len(), |range, g| sgd_tile(rule, g, &mut theta[range]));
        }),
        Some(velocity) => chunks.zip(velocity.host().par_chunks_mut(CHUNK)).enumerate().for_each(|(idx, (theta, velocity))| {
            gradient.for_each_tile(idx * CHUNK, theta.len(), |range, g| {
                let (theta, velocity) = (&mut theta[range.clone()], &mut velocity[range]);
                if n_steps_before == 0 {
                    first_momentum_tile(rule, g, theta, velocity);
                } else {
                    momentum_tile(rule, g, theta, velocity);
                }
            });
        }),
        None => return Err(shape_error(op, format!("a momentum of {} needs a velocity", sgd.momentum))),
    }
    Ok(())
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
    fn sgd_tile<T>(rule: SgdRule<T>, g: &[T], theta: &mut [T]) {
        for (theta, &g) in theta.iter_mut().zip(g) {
            *theta -= rule.lr * rule.decayed(g, *theta);
        }
    }
}

multiversion! {
    fn first_momentum_tile<T>(rule: SgdRule<T>, g: &[T], theta: &mut [T], velocity: &mut [T]) {
        for ((theta, velocity), &g) in theta.iter_mut().zip(velocity).zip(g) {
            let g = rule.decayed(g, *theta);
            *velocity = g;
            *theta -= rule.lr * rule.direction(g, g);
        }
    }
}

multiversion! {
    fn momentum_tile<T>(rule: SgdRule<T>, g: &[T], theta: &mut [T], velocity: &mut [T]) {
        for ((theta, velocity), &g) in theta.iter_mut().zip(velocity).zip(g) {
            let g = rule.decayed(g, *theta);
            let v = *velocity * rule.momentum + rule.keep * g;
            *velocity = v;
            *theta -= rule.lr * rule.direction(g, v);
        }
    }
}

#[derive(Clone, Copy)]
struct AdamRule<T> {
    coupled_decay: T,
    shrink: T,
    beta1: T,
    one_minus_beta1: T,
    beta2: T,
    one_minus_beta2: T,
    step_size: T,
    root_of_correction: T,
    eps: T,
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
    check_range(op, "lr", adam.lr, 0.0..f64::INFINITY)?;
    check_range(op, "betas[0]", adam.betas[0], 0.0..1.0)?;
    check_range(op, "betas[1]", adam.betas[1], 0.0..1.0)?;
    check_range(op, "eps", adam.eps, 0.0..f64::INFINITY)?;
    check_range(op, "weight_decay", adam.weight_decay, 0.0..f64::INFINITY)?;
    if step_idx == 0 {
        return Err(shape_error(op, "`step_idx` counts from 1, got 0"));
    }
    check_len(op, "m", theta.len(), m.len())?;
    check_len(op, "v", theta.len(), v.len())?;
    let (coupled, shrink) = match adam.decay {
        Decay::Coupled => (adam.weight_decay, 1.0),
        Decay::Decoupled => (0.0, 1.0 - adam.lr * adam.weight_decay),
    };
    let [correction1, correction2] = adam.betas.map(|beta| 1.0 - beta.powf(step_idx as f64));
    let rule = AdamRule {
        coupled_decay: T::from_f64(coupled),
        shrink: T::from_f64(shrink),
        beta1: T::from_f64(adam.betas[0]),
        one_minus_beta1: T::from_f64(1.0 - adam.betas[0]),
        beta2: T::from_f64(adam.betas[1]),
        one_minus_beta2: T::from_f64(1.0 - adam.betas[1]),
        step_size: T::from_f64(adam.lr / correction1),
        root_of_correction: T::from_f64(correction2.sqrt()),
        eps: T::from_f64(adam.eps),
    };
    let moments = m.host().par_chunks_mut(CHUNK).zip(v.host().par_chunks_mut(CHUNK));
    theta.host().par_chunks_mut(CHUNK).zip(moments).enumerate().for_each(|(idx, (theta, (m, v)))| {
        gradient.for_each_tile(idx * CHUNK, theta.len(), |range, g| {
            adam_tile(rule, g, &mut theta[range.clone()], &mut m[range.clone()], &mut v[range]);
        });
    });
    Ok(())
}

multiversion! {
    fn adam_tile<T>(rule: AdamRule<T>, g: &[T], theta: &mut [T], m: &mut [T], v: &mut [T]) {
        let coupled = rule.coupled_decay != T::ZERO;
        // Which end the interpolation starts from: PyTorch's `lerp`, exact at both ends.
        let near = rule.one_minus_beta1 < T::from_f64(0.5);
        for (((theta, m), v), &g) in theta.iter_mut().zip(m).zip(v).zip(g) {
            let w = rule.shrink * *theta;
            let g = if coupled { g + rule.coupled_decay * w } else { g };
            let first = if near { *m + rule.one_minus_beta1 * (g - *m) } else { g - rule.beta1 * (g - *m) };
            let second = *v * rule.beta2 + rule.one_minus_beta2 * g * g;
            *m = first;
            *v = second;
            *theta = w - rule.step_size * first / (second.sqrt() / rule.root_of_correction + rule.eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Accumulate;
    use crate::blend::spread;
    use crate::naive::step as naive;
    use crate::naive::tools::{LENGTHS, bits, on_pools, values};
    use proptest::prelude::*;

    /// Decay, momentum, dampening and Nesterov in every allowed combination.
    fn all_sgd() -> Vec<Sgd> {
        let mut all = Vec::new();
        for weight_decay in [0.0, 5e-4] {
            for (momentum, dampening, nesterov) in
                [(0.0, 0.0, Nesterov::Off), (0.9, 0.0, Nesterov::Off), (0.9, 0.3, Nesterov::Off), (0.9, 0.0, Nesterov::On)]
            {
                all.push(Sgd { lr: 0.07, momentum, dampening, weight_decay, nesterov });
            }
        }
        all
    }

    fn all_adam() -> Vec<Adam> {
        let mut all = Vec::new();
        for (decay, weight_decay) in [(Decay::Coupled, 0.0), (Decay::Coupled, 0.1), (Decay::Decoupled, 0.1)] {
            for betas in [[0.9, 0.999], [0.3, 0.5], [0.0, 0.0]] {
                all.push(Adam { lr: 0.03, betas, eps: 1e-8, weight_decay, decay });
            }
        }
        all
    }

    /// Three steps; the parameters and the state after them.
    fn sgd_steps<T: Real>(n: usize, mut step: impl FnMut(u64, &[T], &mut [T], &mut [T])) -> Vec<u64> {
        let (mut theta, mut velocity) = (values::<T>(n, 1), values::<T>(n, 2));
        for s in 0..3 {
            step(s, &values(n, 10 + s), &mut theta, &mut velocity);
        }
        bits(&[theta, velocity].concat())
    }

    fn adam_steps<T: Real>(n: usize, mut step: impl FnMut(u64, &[T], &mut [T], &mut [T], &mut [T])) -> Vec<u64> {
        let (mut theta, mut m, mut v) = (values::<T>(n, 1), vec![T::ZERO; n], vec![T::ZERO; n]);
        for s in 1..4 {
            step(s, &values(n, 10 + s), &mut theta, &mut m, &mut v);
        }
        bits(&[theta, m, v].concat())
    }

    fn run<T: Real>(sgd: &Sgd, s: u64, g: &[T], theta: &mut [T], velocity: &mut [T]) {
        sgd_step(sgd, s, g.into(), theta.into(), Some(velocity.into())).expect("lengths agree");
    }

    fn run_a<T: Real>(adam: &Adam, s: u64, g: &[T], theta: &mut [T], m: &mut [T], v: &mut [T]) {
        adam_step(adam, s, g.into(), theta.into(), m.into(), v.into()).expect("lengths agree");
    }

    fn equals_pytorch_formula<T: Real>(n: usize) {
        for sgd in all_sgd() {
            let fast = sgd_steps::<T>(n, |s, g, theta, velocity| run(&sgd, s, g, theta, velocity));
            let slow = sgd_steps::<T>(n, |s, g, theta, velocity| naive::sgd(&sgd, s, g, theta, velocity));
            assert_eq!(fast, slow, "{sgd:?}");
        }
        for adam in all_adam() {
            let fast = adam_steps::<T>(n, |s, g, theta, m, v| run_a(&adam, s, g, theta, m, v));
            let slow = adam_steps::<T>(n, |s, g, theta, m, v| naive::adam(&adam, s, g, theta, m, v));
            assert_eq!(fast, slow, "{adam:?}");
        }
    }

    /// c_k·(g + wd·w) by plain loops and `spread`.
    fn spread_gradient<T: Real>(c: f64, g: &[T], point: Option<(&[T], f64)>) -> Vec<T> {
        let g: Vec<T> = match point {
            Some((w, decay)) => g.iter().zip(w).map(|(&g, &w)| g + T::from_f64(decay) * w).collect(),
            None => g.to_vec(),
        };
        let mut out = vec![T::ZERO; g.len()];
        spread(&[c], (&g).into(), &mut [Some((&mut out).into())], Accumulate::Overwrite).expect("lengths agree");
        out
    }

    fn fused_equals_unfused<T: Real>(n: usize, c: f64, decay: Option<f64>) {
        let w = values::<T>(n, 77);
        let point = decay.map(|decay| (w.as_slice(), decay));
        let view = point.map(|(w, decay)| (View::from(w), decay));
        for sgd in all_sgd() {
            let fused = sgd_steps::<T>(n, |s, g, theta, velocity| {
                spread_sgd_step(&sgd, s, c, g.into(), view, theta.into(), Some(velocity.into())).expect("lengths agree");
            });
            let apart = sgd_steps::<T>(n, |s, g, theta, velocity| run(&sgd, s, &spread_gradient(c, g, point), theta, velocity));
            assert_eq!(fused, apart, "{sgd:?}");
        }
        for adam in all_adam() {
            let fused = adam_steps::<T>(n, |s, g, theta, m, v| {
                spread_adam_step(&adam, s, c, g.into(), view, theta.into(), m.into(), v.into()).expect("lengths agree");
            });
            let apart = adam_steps::<T>(n, |s, g, theta, m, v| run_a(&adam, s, &spread_gradient(c, g, point), theta, m, v));
            assert_eq!(fused, apart, "{adam:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn steps_equal_pytorchs_formula(n in prop::sample::select(LENGTHS.to_vec())) {
            equals_pytorch_formula::<f32>(n);
            equals_pytorch_formula::<f64>(n);
        }

        #[test]
        fn fused_steps_equal_spread_then_step(
            n in prop::sample::select(LENGTHS.to_vec()),
            c in prop::sample::select(vec![0.0, 1.0, 0.375, 0.123_456_789]),
            decay in prop::option::of(0.0_f64..0.1),
        ) {
            fused_equals_unfused::<f32>(n, c, decay);
            fused_equals_unfused::<f64>(n, c, decay);
        }
    }

    /// With a huge ε the step of Adam is that of SGD on the bias-corrected first moment; with β = 0 and ε = 0 it is the sign.
    #[test]
    fn adam_has_its_known_limits() {
        let n = 100;
        let g = values::<f64>(n, 4);
        let adam = Adam { lr: 0.25, betas: [0.0, 0.0], eps: 0.0, weight_decay: 0.0, decay: Decay::Coupled };
        let (mut theta, mut m, mut v) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        run_a(&adam, 5, &g, &mut theta, &mut m, &mut v);
        for (theta, g) in theta.iter().zip(&g) {
            assert!((theta + 0.25 * g.signum()).abs() < 1e-12);
        }
    }

    /// Decoupled decay without a gradient shrinks geometrically, coupled decay of SGD likewise.
    #[test]
    fn decay_alone_shrinks() {
        let zero = [0.0_f64];
        let (mut theta, mut m, mut v) = ([1.0], [0.0], [0.0]);
        let adam = Adam { lr: 0.5, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.5, decay: Decay::Decoupled };
        for s in 1..=3 {
            run_a(&adam, s, &zero, &mut theta, &mut m, &mut v);
        }
        assert_eq!(theta, [0.75_f64.powi(3)]);
        let mut theta = [1.0];
        let sgd = Sgd { lr: 0.5, momentum: 0.0, dampening: 0.0, weight_decay: 0.5, nesterov: Nesterov::Off };
        for s in 0..3 {
            sgd_step(&sgd, s, (&zero[..]).into(), (&mut theta[..]).into(), None).expect("no velocity needed");
        }
        assert_eq!(theta, [0.75_f64.powi(3)]);
    }

    #[test]
    fn bits_do_not_depend_on_the_thread_count() {
        let n = 3 * CHUNK + 11;
        on_pools(|| sgd_steps::<f32>(n, |s, g, theta, velocity| run(&all_sgd()[7], s, g, theta, velocity)));
        let w = values::<f32>(n, 5);
        on_pools(|| {
            adam_steps::<f32>(n, |s, g, theta, m, v| {
                let point = Some(((&w).into(), 1e-3));
                spread_adam_step(&all_adam()[3], s, 0.5, g.into(), point, theta.into(), m.into(), v.into()).expect("lengths agree");
            })
        });
    }

    #[test]
    fn bad_arguments_are_errors_and_change_nothing() {
        let sgd = Sgd { lr: 0.1, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: Nesterov::Off };
        let adam = Adam { lr: 0.1, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, decay: Decay::Coupled };
        let (g, short) = ([1.0_f32; 3], [1.0_f32; 2]);
        let (mut theta, mut a, mut b) = ([1.0_f32; 3], [0.0_f32; 3], [0.0_f32; 3]);
        let mut fails = |sgd: Sgd, g: &[f32], n_velocity: Option<usize>| {
            let velocity = n_velocity.map(|n| (&mut a[..n]).into());
            assert!(sgd_step(&sgd, 0, g.into(), (&mut theta[..]).into(), velocity).is_err(), "{sgd:?}");
        };
        fails(sgd, &short, Some(3));
        fails(sgd, &g, Some(2));
        fails(sgd, &g, None);
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            fails(Sgd { lr: bad, ..sgd }, &g, Some(3));
            fails(Sgd { momentum: bad, ..sgd }, &g, Some(3));
            fails(Sgd { weight_decay: bad, ..sgd }, &g, Some(3));
        }
        fails(Sgd { dampening: 0.1, nesterov: Nesterov::On, ..sgd }, &g, Some(3));
        fails(Sgd { momentum: 0.0, nesterov: Nesterov::On, ..sgd }, &g, Some(3));
        let mut fails = |adam: Adam, step_idx: u64, n: [usize; 3]| {
            let result = adam_step(&adam, step_idx, (&g[..n[0]]).into(), (&mut theta[..]).into(), (&mut a[..n[1]]).into(), (&mut b[..n[2]]).into());
            assert!(result.is_err(), "{adam:?} {step_idx} {n:?}");
        };
        fails(adam, 0, [3, 3, 3]);
        fails(adam, 1, [2, 3, 3]);
        fails(adam, 1, [3, 2, 3]);
        fails(adam, 1, [3, 3, 2]);
        fails(Adam { betas: [1.0, 0.9], ..adam }, 1, [3, 3, 3]);
        fails(Adam { betas: [0.9, 1.5], ..adam }, 1, [3, 3, 3]);
        fails(Adam { eps: -1.0, ..adam }, 1, [3, 3, 3]);
        fails(Adam { weight_decay: f64::NAN, ..adam }, 1, [3, 3, 3]);
        let point: Option<(View<'_, f32>, f64)> = Some(((&short[..]).into(), 0.1));
        assert!(spread_sgd_step(&sgd, 0, 1.0, (&g[..]).into(), point, (&mut theta[..]).into(), Some((&mut a[..]).into())).is_err());
        assert_eq!((theta, a, b), ([1.0; 3], [0.0; 3], [0.0; 3]));
    }
}
