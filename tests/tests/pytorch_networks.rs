//! Whole networks against PyTorch: logits, gradients, training and curve steps in f64 to 1e-9 of each tensor's norm, and in f32
//! an error at most twice PyTorch's own. Weights and inputs come from a formula (`tests/golden/formula.py`); dropout is off on both sides.
#![allow(clippy::unwrap_used)]

use anyhow::{Result, ensure};
use landscape_core::{Buffers, Coefficients, ControlPoints, CurveKind, Flat, Norm, Objective, Pass, Row, Seed, Stateful, Tell};
use landscape_kernels::{Accumulate, Device, Real};
use landscape_network::{Loss, NetworkObjective};
use landscape_tests::golden::{self, Golden};
use landscape_tests::networks::{Case, FiveBatches, N_BATCHES};
use landscape_train::{Control, DecayOn, Endpoint, FitConfig, FitState, Given, Optimizer, Sampler, Schedule, fit};
use std::collections::BTreeMap;
use std::sync::Arc;

const TOLERANCE: f64 = 1e-9;
const N_CURVE_STEPS: usize = 20;
const MOMENTUM: f64 = 0.9;
const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;
/// Training mode without dropout.
const TRAIN: Pass = Pass { norm: Norm::Batch, dropout_seed: None, tell: Tell::AtOnce };

/// Within the tolerance of the golden's norm. What vanishes identically (a bias before batch norm has no gradient) is rounding alone
/// on both sides, and held to that.
fn check(golden: &Golden, values: &[f64], whole: f64) -> Result<()> {
    let rounding = 1e-12 * whole;
    if golden.numbers()?[0] < rounding {
        let norm = golden::summary(values)[0];
        ensure!(norm < rounding, "`{}` should vanish but has norm {norm:e}", golden.place());
        return Ok(());
    }
    let distance = golden.relative_distance(values, 0.0)?;
    ensure!(distance <= TOLERANCE, "`{}` differs by {distance:e} of its norm", golden.place());
    Ok(())
}

/// Every parameter within the tolerance of the golden's; `prefix` goes before the names.
fn check_params(golden: &Golden, prefix: &str, values: &Flat<f64>) -> Result<()> {
    let whole = values.squared_norm().sqrt();
    for tensor in values.layout().tensors() {
        check(&golden.at(&format!("{prefix}{}", tensor.name))?, values.tensor(&tensor.name)?.host(), whole)?;
    }
    Ok(())
}

fn check_buffers(golden: &Golden, buffers: &Buffers) -> Result<()> {
    for tensor in buffers.layout().tensors() {
        check(&golden.at(&tensor.name)?, buffers.get(&tensor.name).unwrap(), 0.0)?;
    }
    Ok(())
}

fn objective<T: Real>(case: &Case) -> Result<NetworkObjective<T>> {
    Ok(NetworkObjective::new(case.graph.clone(), &Device::Cpu, Loss::CrossEntropy)?)
}

/// Loss, logits and gradient at row0 on one batch, in training mode.
struct Found {
    loss_nats: f64,
    logits: Vec<f64>,
    gradient: Flat<f64>,
}

impl Found {
    /// All of it by name, as the goldens name it.
    fn parts(&self) -> Result<BTreeMap<String, Vec<f64>>> {
        let mut parts = BTreeMap::from([
            ("loss".to_owned(), vec![self.loss_nats]),
            ("logits".to_owned(), self.logits.clone()),
            ("gradient".to_owned(), self.gradient.to_vec()),
        ]);
        for tensor in self.gradient.layout().tensors() {
            parts.insert(tensor.name.clone(), self.gradient.tensor(&tensor.name)?.host().to_vec());
        }
        Ok(parts)
    }
}

fn gradient_at<T: Real>(case: &Case, idx: usize) -> Result<Found> {
    let mut objective = objective::<T>(case)?;
    objective.move_to(&ControlPoints::single(case.row::<T>("row0")?), &Coefficients::one_hot(0, 1)?)?;
    let mut gradient = Flat::zeros(&case.layout, &Device::Cpu);
    let tally = objective.gradient(&FiveBatches(case).examples(idx), TRAIN, &mut gradient, Accumulate::Overwrite)?;
    let logits = objective.executor().output().host().iter().map(|v| v.to_f64()).collect();
    Ok(Found { loss_nats: tally.nll(), logits, gradient: gradient.cast() })
}

fn logits_and_gradients(case: &Case) -> Result<()> {
    let golden = case.golden.at("gradient")?;
    let found = gradient_at::<f64>(case, 0)?;
    check(&golden.at("loss")?, &[found.loss_nats], 0.0)?;
    check(&golden.at("logits")?, &found.logits, 0.0)?;
    check_params(&golden, "", &found.gradient)
}

fn options(case: &Case, n_epochs: u64, nesterov: bool) -> FitConfig {
    FitConfig {
        epochs: n_epochs,
        optimizer: Optimizer::Sgd { lr: case.lr, momentum: MOMENTUM, nesterov },
        schedule: Schedule::Constant,
        weight_decay: case.weight_decay,
        decay_on: DecayOn::Point,
    }
}

/// The control points after all epochs, and the statistics that the run left.
fn run(case: &Case, mut points: ControlPoints<f64>, sampler: &dyn Sampler, config: &FitConfig) -> Result<(ControlPoints<f64>, Buffers)> {
    let mut objective = objective::<f64>(case)?;
    let mut state = FitState::new(&points, &config.optimizer);
    let batches = FiveBatches(case);
    fit(&mut objective, &mut points, sampler, &batches, config, Seed::new(0), &mut state, &mut |_| Ok(Control::Continue))?;
    Ok((points, objective.buffers().clone()))
}

fn five_training_steps(case: &Case) -> Result<()> {
    let golden = case.golden.at("train")?;
    let (points, buffers) = run(case, ControlPoints::single(case.row("row0")?), &Endpoint, &options(case, 1, true))?;
    check_params(&golden, "", &points.point(0))?;
    check_buffers(&golden, &buffers)?;

    let mut objective = objective::<f64>(case)?;
    objective.move_to(&points, &Coefficients::one_hot(0, 1)?)?;
    objective.set_buffers(&buffers)?;
    objective.measure(&FiveBatches(case).examples(0), Pass::EVALUATE)?;
    check(&golden.at("evaluation logits")?, objective.executor().output().host(), 0.0)
}

fn twenty_curve_steps(case: &Case) -> Result<()> {
    let ts: Vec<f64> = (1..=N_CURVE_STEPS).map(|i| (i as f64 * GOLDEN_RATIO).fract()).collect();
    for (name, kind) in [("bezier", CurveKind::Bezier), ("polychain", CurveKind::PolyChain)] {
        for n_points in [3, 4] {
            let golden = case.golden.at(&format!("{name}-{n_points}"))?;
            let curve = kind.build(n_points)?;
            let row = |k: usize| -> Result<Row<f64>> {
                let point = case.row(&format!("row{k}"))?;
                Ok(if k == 0 || k == n_points - 1 { Row::Frozen(Arc::new(point)) } else { Row::Free(point) })
            };
            let points = ControlPoints::new((0..n_points).map(row).collect::<Result<_>>()?)?;
            let sampler = Given { curve: curve.as_ref(), ts: &ts };
            let n_epochs = (N_CURVE_STEPS / N_BATCHES) as u64;
            let (points, buffers) = run(case, points, &sampler, &options(case, n_epochs, false))?;
            for k in 1..n_points - 1 {
                check_params(&golden, &format!("row{k}/"), &points.point(k))?;
            }
            check_buffers(&golden, &buffers)?;
            for k in [0, n_points - 1] {
                ensure!(points.point(k).to_vec() == case.row::<f64>(&format!("row{k}"))?.to_vec(), "end point {k} moved");
            }
        }
    }
    Ok(())
}

/// ‖f32 − f64‖ / ‖f64‖ of ours, at most twice PyTorch's own: the logits, the gradient as one vector, and every tensor of it.
///
/// PyTorch's is the root mean square over five batches, on which none of its ReLUs and maxima falls on different sides in the two
/// precisions: one that does changes a gradient by far more than rounding, by chance. Ours is the median over the same batches, which
/// a fold crossed on one or two of them does not move, and which a wrong kernel does. The loss, one
/// number a batch, is held to twice PyTorch's error of the logits: its own may happen to be next to nothing. A gradient that vanishes
/// identically (a bias before batch norm) is rounding alone in both, and held to the f32 epsilon of the whole gradient.
fn f32_error_is_at_most_twice_pytorchs(case: &Case) -> Result<()> {
    let golden = case.golden.at("f32_error")?;
    // By name: the error on each batch, and whether the tensor vanishes.
    let mut errors: BTreeMap<String, (Vec<f64>, bool)> = BTreeMap::new();
    for idx in 0..N_BATCHES {
        let (exact, single) = (gradient_at::<f64>(case, idx)?, gradient_at::<f32>(case, idx)?);
        let (exact, single) = (exact.parts()?, single.parts()?);
        let whole = golden::norm(&exact["gradient"]);
        for (name, exact) in &exact {
            let (norm, error) = (golden::norm(exact), golden::distance(exact, &single[name]));
            let (errors, vanishes) = errors.entry(name.clone()).or_insert((Vec::new(), norm < 1e-12 * whole));
            errors.push(error / if *vanishes { whole } else { norm });
        }
    }
    let mut failures = Vec::new();
    for (name, (mut errors, vanishes)) in errors {
        // In total order a NaN is the largest.
        errors.sort_by(f64::total_cmp);
        let ours = errors[N_BATCHES / 2];
        let theirs = golden.at(if name == "loss" { "logits" } else { &name })?.number()?;
        let allowed = if vanishes { f64::from(f32::EPSILON) } else { 2.0 * theirs };
        // Written so that a NaN fails.
        let holds = ours <= allowed;
        if !holds {
            failures.push(format!("`{name}`: {ours:.2e}, PyTorch {theirs:.2e}"));
        }
    }
    ensure!(failures.is_empty(), "f32 errors above twice PyTorch's: {}", failures.join("; "));
    Ok(())
}

macro_rules! networks {
    ($($name:ident: $($test:ident),*;)*) => {
        $(mod $name {
            use super::*;
            $(
                #[test]
                fn $test() -> Result<()> {
                    super::$test(&Case::open(stringify!($name))?)
                }
            )*
        })*
    };
}
networks! {
    mlp_small: logits_and_gradients, five_training_steps, twenty_curve_steps, f32_error_is_at_most_twice_pytorchs;
    mlp_image: logits_and_gradients, five_training_steps, twenty_curve_steps, f32_error_is_at_most_twice_pytorchs;
    vgg11_bn: logits_and_gradients, five_training_steps, twenty_curve_steps, f32_error_is_at_most_twice_pytorchs;
    resnet20: logits_and_gradients, five_training_steps, twenty_curve_steps, f32_error_is_at_most_twice_pytorchs;
    mixed: logits_and_gradients, five_training_steps, f32_error_is_at_most_twice_pytorchs;
}
