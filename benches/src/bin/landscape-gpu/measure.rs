//! What is measured on a GPU. Weights and data are made by the formula of the bench jobs, so nothing is read from disk and PyTorch can
//! start from the same.

use anyhow::{Context, bail, ensure};
use landscape_benches::values;
use landscape_core::{Coefficients, ControlPoints, Examples, Flat, Objective, Pass, Row, Stateful, Targets};
use landscape_kernels::cuda::Cuda;
use landscape_kernels::step::{Nesterov, Sgd, spread_sgd_step};
use landscape_kernels::{Accumulate, Device, Memory, Precision, Real, View, ViewMut, blend};
use landscape_network::{Loss, NetworkObjective};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

const SEED: u64 = 1;
/// Parameters of the weight-space kernels' measurements.
const N_PARAMETERS: usize = 15_000_000;
/// Networks whose steps are measured.
const MODELS: [&str; 3] = ["mlp:784-512-512-512-10", "resnet20", "vgg16"];
const BATCH: usize = 128;
/// Steps between two waits, as in training; launches between two waits, so that waiting does not count.
const TOGETHER: usize = 10;
/// Blocks of steps that are measured, and those before them, which load kernels and take memory.
const N_BLOCKS: usize = 15;
const N_WARM_UP: usize = 3;
/// Curve steps whose losses are the answer, and their rate. They are taken without dropout, whose masks no two programs share.
const N_ANSWER_STEPS: usize = 3;
const ANSWER_RATE: f64 = 0.01;
/// A rate that moves nothing far, so that the numbers stay those of a new network however many steps are measured.
const TIMED_RATE: f64 = 1e-6;

fn sgd(lr: f64) -> Sgd {
    Sgd { lr, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: Nesterov::Off }
}

/// Takes the rows of a part as they are found.
pub type Tell<'a> = dyn FnMut(Value) + 'a;

/// Runs a part by its name and tells its rows.
pub fn part(name: &str, device: &Device, cuda: &Cuda, tell: &mut Tell<'_>) -> anyhow::Result<()> {
    match name {
        "errors" => errors(device, tell),
        "determinism" => determinism(device, tell),
        "bandwidth" => bandwidth(device, cuda, tell),
        "steps-f32" => steps(device, cuda, Precision::F32, tell),
        "steps-tf32" => steps(device, cuda, Precision::Tf32, tell),
        "steps-bf16" => steps(device, cuda, Precision::Bf16, tell),
        other => bail!("`{other}` is no part of this program"),
    }
}

/// A network at control point 0 with statistics that normalise by something.
fn network<T: Real>(model: &str, device: &Device, precision: Precision) -> anyhow::Result<NetworkObjective<T>> {
    let graph = landscape_zoo::models::build(model, &values::input_shape(model), values::n_outputs(model))?;
    let mut objective = NetworkObjective::in_precision(Arc::new(graph), device, Loss::CrossEntropy, precision)?;
    let point = values::point(objective.weights().layout(), SEED, 0)?;
    let numbers = point.to_vec().into_iter().map(|v| T::from_f64(f64::from(v))).collect();
    objective.set_point(&Flat::from_vec(point.layout(), &Device::Cpu, numbers)?.to_device(device)?)?;
    let statistics = values::statistics(objective.buffers(), SEED);
    objective.set_buffers(&statistics)?;
    Ok(objective)
}

fn batch<T: Real>(model: &str, n: usize) -> Examples<T> {
    let Examples { inputs, n_examples, targets } = values::batch(SEED, 0, n, model);
    let Targets::Classes(labels) = targets else { unreachable!("the data are classes") };
    Examples { inputs: inputs.into_iter().map(|v| T::from_f64(f64::from(v))).collect(), n_examples, targets: Targets::Classes(labels) }
}

/// Mean loss and gradient of one batch in training mode.
fn gradient<T: Real>(model: &str, device: &Device, precision: Precision) -> anyhow::Result<(f64, Vec<f64>)> {
    let mut objective = network::<T>(model, device, precision)?;
    let mut into = Flat::zeros(objective.weights().layout(), device);
    let tally = objective.gradient(&batch(model, 16), Pass::train(SEED), &mut into, Accumulate::Overwrite)?;
    Ok((tally.nll(), into.to_host()?.to_vec().into_iter().map(Real::to_f64).collect()))
}

/// ‖a − b‖/‖b‖.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// Losses and gradients against the processor's in double precision: the GPU's f64 agrees to rounding, its f32 errs like the
/// processor's, and what the other precisions cost is told.
fn errors(device: &Device, tell: &mut Tell<'_>) -> anyhow::Result<()> {
    for model in ["mlp:784-512-512-512-10", "cnn", "resnet20", "vgg11_bn"] {
        let (loss, exact) = gradient::<f64>(model, &Device::Cpu, Precision::F32)?;
        let mut row = json!({"model": model, "loss": loss});
        let mut add = |name: &str, (found, gradient): (f64, Vec<f64>)| {
            let error = distance(&gradient, &exact);
            row[name] = json!({"loss_error": (found - loss).abs() / loss, "gradient_error": error});
            error
        };
        let host = add("cpu_f32", gradient::<f32>(model, &Device::Cpu, Precision::F32)?);
        let double = add("gpu_f64", gradient::<f64>(model, device, Precision::F32)?);
        let single = add("gpu_f32", gradient::<f32>(model, device, Precision::F32)?);
        add("gpu_tf32", gradient::<f32>(model, device, Precision::Tf32)?);
        add("gpu_bf16", gradient::<f32>(model, device, Precision::Bf16)?);
        tell(row);
        ensure!(double < 1e-10, "`{model}` in f64: the gradient is off by {double}");
        ensure!(single < 1e-5 + 8.0 * host, "`{model}` in f32: the gradient is off by {single}, the processor's by {host}");
    }
    Ok(())
}

/// Three steps on a curve, twice: the same bits.
fn determinism(device: &Device, tell: &mut Tell<'_>) -> anyhow::Result<()> {
    for model in MODELS {
        for precision in Precision::ALL {
            let run = || -> anyhow::Result<Vec<u32>> {
                let mut curve = Curve::new(model, device, precision)?;
                (0..3).try_for_each(|idx| curve.step(1e-3, Pass::train(idx)))?;
                curve.wait()?;
                Ok(curve.points.point(1).to_host()?.to_vec().into_iter().map(f32::to_bits).collect())
            };
            let same = run()? == run()?;
            tell(json!({"model": model, "precision": precision.name(), "same_bits": same}));
            ensure!(same, "`{model}` in {precision}: two runs have different bits");
        }
    }
    Ok(())
}

/// Training of the middle point of a Bézier curve of three.
struct Curve {
    objective: NetworkObjective<f32>,
    points: ControlPoints<f32>,
    gradient: Flat<f32>,
    velocity: Memory<f32>,
    batch: Examples<f32>,
    ts: Vec<f64>,
    n_steps: usize,
    /// Of the steps since the last wait, where they are told at once, as on the processor.
    losses: Vec<f64>,
}

impl Curve {
    fn new(model: &str, device: &Device, precision: Precision) -> anyhow::Result<Self> {
        let objective = network::<f32>(model, device, precision)?;
        let layout = objective.weights().layout().clone();
        let row = |k| Ok::<_, anyhow::Error>(values::point(&layout, SEED, k)?.to_device(device)?);
        let points = ControlPoints::new(vec![Row::Frozen(Arc::new(row(0)?)), Row::Free(row(1)?), Row::Frozen(Arc::new(row(2)?))])?;
        let gradient = Flat::zeros(&layout, device);
        let velocity = Memory::zeros(device, layout.n_elements());
        let ts = values::ts(SEED, N_ANSWER_STEPS + TOGETHER * (N_BLOCKS + N_WARM_UP));
        Ok(Curve { objective, points, gradient, velocity, batch: batch(model, BATCH), ts, n_steps: 0, losses: Vec::new() })
    }

    /// The next step, the batch handed over from the host, without a wait.
    fn step(&mut self, lr: f64, pass: Pass) -> anyhow::Result<()> {
        let idx = self.n_steps;
        self.n_steps += 1;
        let t = *self.ts.get(idx).context("there is a t for every step")?;
        let c = Coefficients::new(vec![(1.0 - t) * (1.0 - t), 2.0 * t * (1.0 - t), t * t])?;
        self.objective.move_to(&self.points, &c)?;
        let tally = self.objective.gradient(&self.batch, pass.later(), &mut self.gradient, Accumulate::Overwrite)?;
        if tally.n_examples > 0 {
            self.losses.push(tally.nll());
        }
        let point = Some((self.objective.weights().view(), 5e-4));
        let theta = self.points.free_mut(1).context("the middle point is free")?;
        Ok(spread_sgd_step(
            &sgd(lr),
            idx as u64,
            c.as_slice()[1],
            self.gradient.view(),
            point,
            theta.view_mut(),
            Some(self.velocity.view_mut()),
        )?)
    }

    /// Waits for all steps; the losses of those since the last wait.
    fn wait(&mut self) -> anyhow::Result<Vec<f64>> {
        let losses = &mut self.losses;
        self.objective.collect(&mut |tally| losses.push(tally.nll()))?;
        Ok(std::mem::take(losses))
    }

    /// The losses of the first steps, without dropout: what PyTorch must say too.
    fn answer(&mut self) -> anyhow::Result<Vec<f64>> {
        let plain = |idx: usize| Pass { dropout_seed: None, ..Pass::train(idx as u64) };
        (0..N_ANSWER_STEPS).try_for_each(|idx| self.step(ANSWER_RATE, plain(idx)))?;
        self.wait()
    }
}

/// The median and both quartiles of the seconds that `n` runs take, each waited for.
fn seconds(cuda: &Cuda, n: usize, mut run: impl FnMut(usize) -> anyhow::Result<()>) -> anyhow::Result<[f64; 3]> {
    let mut all = Vec::new();
    for idx in 0..n + N_WARM_UP {
        cuda.synchronize()?;
        let start = Instant::now();
        run(idx)?;
        cuda.synchronize()?;
        all.push(start.elapsed().as_secs_f64());
    }
    let all = &mut all[N_WARM_UP..];
    all.sort_by(f64::total_cmp);
    Ok([all[n / 2], all[n / 4], all[3 * n / 4]])
}

/// The coefficients of a blend of `k` rows: none of them 1 or 0, which would be a copy or no reading at all.
fn coefficients(k: usize) -> Vec<f64> {
    (0..k).map(|k| 0.25 + 1.0 / (k + 2) as f64).collect()
}

/// Bytes per second of the weight-space kernels, against a copy on the device in the same run.
fn bandwidth(device: &Device, cuda: &Cuda, tell: &mut Tell<'_>) -> anyhow::Result<()> {
    let n = N_PARAMETERS;
    let values = |k: u64| Memory::from_host(device, values::symmetric(k, n, 1.0));
    let rows: Vec<Memory<f32>> = (0..32).map(values).collect();
    let (mut out, mut theta, mut velocity) = (values(40), values(41), values(42));
    let rate = |n_bytes: usize, median: f64| (n_bytes * TOGETHER) as f64 / median;
    let copy = seconds(cuda, 20, |_| (0..TOGETHER).try_for_each(|_| Ok(out.view_mut().copy_from(rows[0].view())?)))?;
    let of_copy = rate(8 * n, copy[0]);
    let row = |kernel: String, n_bytes: usize, [median, low, high]: [f64; 3]| {
        let rate = rate(n_bytes, median);
        json!({
            "kernel": kernel, "n_parameters": n, "bytes": n_bytes, "bytes_per_second": rate, "share_of_copy": rate / of_copy,
            "seconds": median / TOGETHER as f64, "quartiles_seconds": [low / TOGETHER as f64, high / TOGETHER as f64],
        })
    };
    tell(json!({"kernel": "copy", "n_parameters": n, "bytes": 8 * n, "bytes_per_second": of_copy}));
    for k in [1, 2, 3, 4, 8, 16, 32] {
        let c = coefficients(k);
        let views: Vec<View<'_, f32>> = rows[..k].iter().map(Memory::view).collect();
        let times = seconds(cuda, 20, |_| (0..TOGETHER).try_for_each(|_| Ok(blend::blend(&c, &views, out.view_mut())?)))?;
        tell(row(format!("blend_k{k}"), 4 * n * (k + 1), times));
    }
    let times = seconds(cuda, 20, |_| {
        let mut target = [None, Some(out.view_mut()), None];
        (0..TOGETHER).try_for_each(|_| Ok(blend::spread(&[0.25, 0.5, 0.25], rows[0].view(), &mut target, Accumulate::Overwrite)?))
    })?;
    tell(row("spread".to_owned(), 8 * n, times));
    let times = seconds(cuda, 20, |idx| {
        let run = |theta: ViewMut<'_, f32>, velocity: ViewMut<'_, f32>| {
            spread_sgd_step(&sgd(TIMED_RATE), 1 + idx as u64, 0.5, rows[0].view(), Some((rows[1].view(), 5e-4)), theta, Some(velocity))
        };
        (0..TOGETHER).try_for_each(|_| Ok(run(theta.view_mut(), velocity.view_mut())?))
    })?;
    // Gradient and point read, row and velocity read and written.
    tell(row("spread_sgd_step".to_owned(), 4 * n * 6, times));
    Ok(())
}

/// Curve steps, and evaluations of one batch, with the losses of a few of each.
fn steps(device: &Device, cuda: &Cuda, precision: Precision, tell: &mut Tell<'_>) -> anyhow::Result<()> {
    let each = |[median, low, high]: [f64; 3]| [median, low, high].map(|block| block / TOGETHER as f64);
    for model in MODELS {
        let mut curve = Curve::new(model, device, precision)?;
        let losses = curve.answer()?;
        let [step, step_low, step_high] = each(seconds(cuda, N_BLOCKS, |block| {
            (0..TOGETHER).try_for_each(|idx| curve.step(TIMED_RATE, Pass::train((block * TOGETHER + idx) as u64)))?;
            curve.wait().map(|_| ())
        })?);
        let mut objective = network::<f32>(model, device, precision)?;
        let batch = batch::<f32>(model, BATCH);
        let evaluated = objective.measure(&batch, Pass::EVALUATE)?.nll();
        let [eval, eval_low, eval_high] = each(seconds(cuda, N_BLOCKS, |_| {
            (0..TOGETHER).try_for_each(|_| objective.measure(&batch, Pass::EVALUATE.later()).map(|_| ()))?;
            Ok(objective.collect(&mut |_| ())?)
        })?);
        tell(json!({
            "model": model, "precision": precision.name(), "batch": BATCH, "curve_step_losses": losses, "evaluation_losses": [evaluated],
            "curve_step_seconds": step, "curve_step_quartiles": [step_low, step_high],
            "evaluation_seconds": eval, "evaluation_quartiles": [eval_low, eval_high],
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blend by 1 would be a copy, and one by 0 would not read its row.
    #[test]
    fn every_row_of_a_measured_blend_is_read_and_multiplied() {
        assert!((1..=32).all(|k| coefficients(k).len() == k && coefficients(k).iter().all(|c| *c != 0.0 && *c != 1.0)));
    }

    /// The losses of the CPU suites, which PyTorch gives too (`benches/suites/step.toml`, but for the decay).
    #[test]
    fn answers_are_losses_of_steps_without_dropout_at_the_suites_points() -> anyhow::Result<()> {
        let mut curve = Curve::new(MODELS[0], &Device::Cpu, Precision::F32)?;
        let losses = curve.answer()?;
        let expected = [2.84539, 2.32164, 2.59537];
        assert!(losses.len() == N_ANSWER_STEPS && losses.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-3 * b), "{losses:?}");
        Ok(())
    }
}
