//! Activations, losses and optimiser steps against PyTorch in f64, values in full.

use anyhow::Result;
use landscape_kernels::activation::{self, Gelu};
use landscape_kernels::loss;
use landscape_kernels::step::{self, Adam, Decay, Nesterov, Sgd};
use landscape_kernels::{Accumulate, View, ViewMut};
use landscape_tests::golden::{Golden, fill, labels, quarters};

const TOLERANCE: f64 = 1e-11;

fn named(name: &str, n: usize) -> Vec<f64> {
    fill(name, n, 1.0, 0.0)
}

fn view(values: &[f64]) -> View<'_, f64> {
    View::from(values)
}

fn view_mut(values: &mut [f64]) -> ViewMut<'_, f64> {
    ViewMut::from(values)
}

#[test]
fn relu_and_both_gelus() -> Result<()> {
    let ops = Golden::open("ops")?;
    let dy = named("dy", 36);
    let x = quarters("x", 36);
    let (mut y, mut dx) = (vec![0.0; 36], vec![0.0; 36]);
    activation::relu_forward(view(&x), view_mut(&mut y))?;
    activation::relu_backward(view(&y), view(&dy), view_mut(&mut dx), Accumulate::Overwrite)?;
    ops.at("relu")?.at("y")?.check_values(&y, 0.0)?;
    ops.at("relu")?.at("dx")?.check_values(&dx, TOLERANCE)?;

    let x: Vec<f64> = named("x", 36).into_iter().map(|v| 6.0 * v).collect();
    for (key, kind) in [("gelu none", Gelu::Erf), ("gelu tanh", Gelu::Tanh)] {
        activation::gelu_forward(kind, view(&x), view_mut(&mut y))?;
        activation::gelu_backward(kind, view(&x), view(&dy), view_mut(&mut dx), Accumulate::Overwrite)?;
        ops.at(key)?.at("y")?.check_values(&y, TOLERANCE)?;
        ops.at(key)?.at("dx")?.check_values(&dx, TOLERANCE)?;
    }
    Ok(())
}

#[test]
fn cross_entropy_sums_and_counts() -> Result<()> {
    let golden = Golden::open("ops")?.at("cross entropy")?;
    let logits: Vec<f64> = named("x", 30).into_iter().map(|v| 10.0 * v).collect();
    let mut dx = vec![0.0; 30];
    let sums = loss::cross_entropy(6, 5, view(&logits), (&labels("labels", 6, 5)).into(), Some((view_mut(&mut dx), 1.0)))?;
    let loss_sum = golden.at("loss_sum")?.number()?;
    assert!((sums.loss_nats_sum - loss_sum).abs() < TOLERANCE * loss_sum, "{} is not {loss_sum}", sums.loss_nats_sum);
    assert_eq!(sums.n_wrong as f64, golden.at("n_wrong")?.number()?);
    golden.at("dx")?.check_values(&dx, TOLERANCE)
}

/// PyTorch's `MSELoss` is the mean over examples and outputs.
#[test]
fn squared_error_is_the_mean_over_outputs() -> Result<()> {
    let golden = Golden::open("ops")?.at("squared error")?;
    let (n_rows, n_outputs) = (6, 3);
    let mut dx = vec![0.0; n_rows * n_outputs];
    let (outputs, targets) = (named("x", dx.len()), named("targets", dx.len()));
    let gradient = Some((view_mut(&mut dx), 1.0 / n_rows as f64));
    let sums = loss::squared_error(n_rows, n_outputs, view(&outputs), view(&targets), gradient)?;
    let (found, expected) = (sums.loss_nats_sum / n_rows as f64, golden.at("loss_mean")?.number()?);
    assert!((found - expected).abs() < TOLERANCE * expected, "{found} is not {expected}");
    golden.at("dx")?.check_values(&dx, TOLERANCE)
}

#[test]
fn sgd_takes_five_steps() -> Result<()> {
    for (_, golden) in Golden::open("ops")?.at("sgd")?.entries()? {
        let config = golden.at("config")?;
        let sgd = Sgd {
            lr: config.at("lr")?.number()?,
            momentum: config.at("momentum")?.number()?,
            dampening: config.at("dampening")?.number()?,
            weight_decay: config.at("weight_decay")?.number()?,
            nesterov: if config.at("nesterov")?.flag()? { Nesterov::On } else { Nesterov::Off },
        };
        let (mut theta, mut velocity) = (named("theta", 11), vec![0.0; 11]);
        for step in 0..5 {
            let gradient = named(&format!("gradient {step}"), 11);
            let velocity = (sgd.momentum > 0.0).then(|| view_mut(&mut velocity));
            step::sgd_step(&sgd, step, view(&gradient), view_mut(&mut theta), velocity)?;
        }
        golden.at("theta")?.check_values(&theta, TOLERANCE)?;
    }
    Ok(())
}

#[test]
fn adam_and_adamw_take_five_steps() -> Result<()> {
    for (_, golden) in Golden::open("ops")?.at("adam")?.entries()? {
        let config = golden.at("config")?;
        let betas = config.at("betas")?.numbers()?;
        let adam = Adam {
            lr: config.at("lr")?.number()?,
            betas: [betas[0], betas[1]],
            eps: config.at("eps")?.number()?,
            weight_decay: config.at("weight_decay")?.number()?,
            decay: if config.at("decoupled")?.flag()? { Decay::Decoupled } else { Decay::Coupled },
        };
        let (mut theta, mut m, mut v) = (named("theta", 11), vec![0.0; 11], vec![0.0; 11]);
        for step in 0..5 {
            let gradient = named(&format!("gradient {step}"), 11);
            step::adam_step(&adam, step + 1, view(&gradient), view_mut(&mut theta), view_mut(&mut m), view_mut(&mut v))?;
        }
        golden.at("theta")?.check_values(&theta, TOLERANCE)?;
    }
    Ok(())
}
