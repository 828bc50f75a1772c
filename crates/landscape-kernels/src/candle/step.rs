//! Optimiser steps on lists of tensors.

use super::AsTensor;
use super::host::{Float, error, host, kernel_error, modify};
use super::lists::{Narrow, check_targets, list};
use crate::memory::View;
use crate::step::{self, Adam, Sgd};
use candle_core::{DType, Result, Tensor, Var, bail};

/// The gradient of a row, formed on the way into a step: c_k·(g_l + decay·w_l), or c_k·g_l where there is no point.
#[derive(Debug)]
pub struct Spread<'a, P> {
    /// The row's coefficient c_k; 1 for ordinary training.
    pub c: f64,
    /// The gradient at the point.
    pub gradient: &'a [P],
    /// The point w, with its decay.
    pub point: Option<(&'a [P], f64)>,
}

// By hand: what is pointed to need not be `Copy`.
impl<P> Clone for Spread<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Spread<'_, P> {}

/// One step of SGD of a row, its gradient formed on the way: [`step::spread_sgd_step`] on lists of tensors, all in place.
///
/// # Shapes
/// All lists of the shapes of `theta`. Without momentum a velocity is neither needed nor changed.
///
/// # Errors
/// As [`super::blend()`], and as the step on memory.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use landscape_kernels::candle::{Spread, sgd_step};
/// use landscape_kernels::step::{Nesterov, Sgd};
/// let (theta, velocity) = (vec![Var::ones(2, candle_core::DType::F64, &Device::Cpu)?], vec![Var::zeros(2, candle_core::DType::F64, &Device::Cpu)?]);
/// let g = vec![Tensor::new(&[2.0, -4.0], &Device::Cpu)?];
/// let sgd = Sgd { lr: 0.5, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: Nesterov::Off };
/// sgd_step(&sgd, 0, Spread { c: 0.5, gradient: &g, point: None }, &theta, Some(&velocity))?;
/// assert_eq!(theta[0].to_vec1::<f64>()?, [0.5, 2.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn sgd_step<P: AsTensor>(
    sgd: &Sgd,
    n_steps_before: u64,
    gradient: Spread<'_, P>,
    theta: &[Var],
    velocity: Option<&[Var]>,
) -> Result<()> {
    let inputs = StepInputs::new("sgd_step", &gradient, theta, velocity.as_slice())?;
    if sgd.momentum != 0.0 && velocity.is_none() {
        bail!("`sgd_step`: a momentum of {} needs a velocity", sgd.momentum);
    }
    #[cfg(feature = "candle-cuda")]
    if theta.first().is_some_and(|var| var.device().is_cuda()) {
        return super::cuda::sgd_step(sgd, n_steps_before, &inputs, theta, velocity);
    }
    for (l, theta) in theta.iter().enumerate() {
        let velocity = velocity.map(|velocity| &velocity[l]);
        match theta.dtype() {
            DType::F64 => sgd_one::<f64>(sgd, n_steps_before, &inputs, l, theta, velocity)?,
            _ => sgd_one::<f32>(sgd, n_steps_before, &inputs, l, theta, velocity)?,
        }
    }
    Ok(())
}

/// One step of Adam or AdamW of a row, its gradient formed on the way: [`step::spread_adam_step`] on lists of tensors, all in place.
///
/// # Shapes
/// All lists of the shapes of `theta`; `m` and `v` are its moments.
///
/// # Errors
/// As [`super::blend()`], and as the step on memory.
pub fn adam_step<P: AsTensor>(adam: &Adam, step_idx: u64, gradient: Spread<'_, P>, theta: &[Var], m: &[Var], v: &[Var]) -> Result<()> {
    let inputs = StepInputs::new("adam_step", &gradient, theta, &[m, v])?;
    #[cfg(feature = "candle-cuda")]
    if theta.first().is_some_and(|var| var.device().is_cuda()) {
        return super::cuda::adam_step(adam, step_idx, &inputs, theta, m, v);
    }
    for (l, theta) in theta.iter().enumerate() {
        match theta.dtype() {
            DType::F64 => adam_one::<f64>(adam, step_idx, &inputs, l, [theta, &m[l], &v[l]])?,
            _ => adam_one::<f32>(adam, step_idx, &inputs, l, [theta, &m[l], &v[l]])?,
        }
    }
    Ok(())
}

/// What a step reads, contiguous.
pub(super) struct StepInputs {
    pub(super) c: f64,
    pub(super) gradient: Vec<Tensor>,
    pub(super) point: Option<(Vec<Tensor>, f64)>,
}

impl StepInputs {
    fn new<P: AsTensor>(op: &'static str, gradient: &Spread<'_, P>, theta: &[Var], memories: &[&[Var]]) -> Result<Self> {
        let point = match gradient.point {
            Some((point, decay)) => Some((list(op, "point", point, theta, Narrow::Refused)?, decay)),
            None => None,
        };
        for memory in memories {
            list(op, "memory", memory, theta, Narrow::Refused)?;
        }
        let inputs = StepInputs { c: gradient.c, gradient: list(op, "gradient", gradient.gradient, theta, Narrow::Refused)?, point };
        let targets: Vec<Var> = theta.iter().chain(memories.iter().copied().flatten()).cloned().collect();
        let sources: Vec<Tensor> = inputs.gradient.iter().chain(inputs.point.iter().flat_map(|(point, _)| point)).cloned().collect();
        check_targets(op, &targets, &sources)?;
        Ok(inputs)
    }

    /// Calls `f` with gradient and point of tensor `l`.
    fn with<T: Float>(&self, l: usize, f: impl FnOnce(View<'_, T>, Option<(View<'_, T>, f64)>) -> crate::Result<()>) -> Result<()> {
        let (g, g_layout) = self.gradient[l].storage_and_layout();
        let g = host::<T>(&g, g_layout)?.into();
        match &self.point {
            None => f(g, None).map_err(error),
            Some((point, decay)) => {
                let (w, w_layout) = point[l].storage_and_layout();
                f(g, Some((host::<T>(&w, w_layout)?.into(), *decay))).map_err(error)
            }
        }
    }
}

fn sgd_one<T: Float>(sgd: &Sgd, n_before: u64, inputs: &StepInputs, l: usize, theta: &Var, velocity: Option<&Var>) -> Result<()> {
    inputs.with::<T>(l, |g, point| {
        let mut result = Ok(());
        let outcome = modify::<T>("sgd_step", theta, |theta| {
            match velocity {
                None => return step::spread_sgd_step(sgd, n_before, inputs.c, g, point, theta, None),
                Some(velocity) => {
                    result = modify::<T>("sgd_step", velocity, |velocity| {
                        step::spread_sgd_step(sgd, n_before, inputs.c, g, point, theta, Some(velocity))
                    });
                }
            }
            Ok(())
        });
        outcome.and(result).map_err(kernel_error)
    })
}

fn adam_one<T: Float>(adam: &Adam, step_idx: u64, inputs: &StepInputs, l: usize, [theta, m, v]: [&Var; 3]) -> Result<()> {
    inputs.with::<T>(l, |g, point| {
        let mut result = Ok(());
        let outcome = modify::<T>("adam_step", theta, |theta| {
            result = modify::<T>("adam_step", m, |m| {
                modify::<T>("adam_step", v, |v| step::spread_adam_step(adam, step_idx, inputs.c, g, point, theta, m, v))
                    .map_err(kernel_error)
            });
            Ok(())
        });
        outcome.and(result).map_err(kernel_error)
    })
}
