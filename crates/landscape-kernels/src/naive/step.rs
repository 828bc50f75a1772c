//! Twins of the optimiser steps, statement by statement as PyTorch's `_single_tensor_sgd` and `_single_tensor_adam` make them.

use crate::memory::Real;
use crate::step::{Adam, Decay, Nesterov, Sgd};

/// One step of `torch.optim.SGD`; a velocity without momentum is left alone.
pub(crate) fn sgd<T: Real>(sgd: &Sgd, n_steps_before: u64, gradient: &[T], theta: &mut [T], velocity: &mut [T]) {
    for i in 0..theta.len() {
        let mut grad = gradient[i];
        if sgd.weight_decay != 0.0 {
            grad += T::from_f64(sgd.weight_decay) * theta[i];
        }
        if sgd.momentum != 0.0 {
            if n_steps_before == 0 {
                velocity[i] = grad;
            } else {
                velocity[i] = velocity[i] * T::from_f64(sgd.momentum) + T::from_f64(1.0 - sgd.dampening) * grad;
            }
            grad = if sgd.nesterov == Nesterov::On { grad + T::from_f64(sgd.momentum) * velocity[i] } else { velocity[i] };
        }
        theta[i] += T::from_f64(-sgd.lr) * grad;
    }
}

/// One step of `torch.optim.Adam` or `torch.optim.AdamW`.
pub(crate) fn adam<T: Real>(adam: &Adam, step: u64, gradient: &[T], theta: &mut [T], exp_avg: &mut [T], exp_avg_sq: &mut [T]) {
    let [beta1, beta2] = adam.betas;
    for i in 0..theta.len() {
        let mut grad = gradient[i];
        match adam.decay {
            Decay::Coupled if adam.weight_decay != 0.0 => grad += T::from_f64(adam.weight_decay) * theta[i],
            Decay::Coupled => {}
            Decay::Decoupled => theta[i] *= T::from_f64(1.0 - adam.lr * adam.weight_decay),
        }
        let weight = T::from_f64(1.0 - beta1);
        let difference = grad - exp_avg[i];
        exp_avg[i] = if weight < T::from_f64(0.5) { exp_avg[i] + weight * difference } else { grad - T::from_f64(beta1) * difference };
        exp_avg_sq[i] = exp_avg_sq[i] * T::from_f64(beta2) + T::from_f64(1.0 - beta2) * grad * grad;
        let bias_correction1 = 1.0 - beta1.powf(step as f64);
        let bias_correction2 = 1.0 - beta2.powf(step as f64);
        let denom = exp_avg_sq[i].sqrt() / T::from_f64(bias_correction2.sqrt()) + T::from_f64(adam.eps);
        theta[i] += T::from_f64(-(adam.lr / bias_correction1)) * exp_avg[i] / denom;
    }
}
