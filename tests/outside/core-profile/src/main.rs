//! The straight line between two candle models, measured with `landscape-core` alone.

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{AdamW, BatchNorm, Linear, ModuleT, Optimizer, VarBuilder, VarMap, batch_norm, linear, loss};
use landscape_core::profile::Profile;
use landscape_core::{Buffers, ControlPoints, Seed, Segment, Tally, profile};
use std::collections::HashMap;

struct Net {
    fc1: Linear,
    bn1: BatchNorm,
    fc2: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> candle_core::Result<Self> {
        Ok(Net { fc1: linear(2, 24, vb.pp("fc1"))?, bn1: batch_norm(24, 1e-5, vb.pp("bn1"))?, fc2: linear(24, 2, vb.pp("fc2"))? })
    }

    fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        self.fc2.forward(&self.bn1.forward_t(&self.fc1.forward(x)?, train)?.relu()?)
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.forward_t(x, false)
    }
}

/// Two arms of a spiral, 200 points each.
fn spiral(dev: &Device) -> candle_core::Result<(Tensor, Tensor)> {
    let point = |i: usize| {
        let (arm, s) = ((i % 2) as f32, (i / 2) as f32 / 200.0);
        let angle = 5.0 * s + std::f32::consts::PI * arm;
        [(0.2 + s) * angle.cos(), (0.2 + s) * angle.sin()]
    };
    let x: Vec<f32> = (0..400).flat_map(point).collect();
    Ok((Tensor::from_vec(x, (400, 2), dev)?, Tensor::from_iter((0..400).map(|i| i % 2u32), dev)?))
}

/// A network trained by candle from a seed.
fn trained(seed: u64, (x, y): &(Tensor, Tensor), dev: &Device) -> candle_core::Result<HashMap<String, Tensor>> {
    let mut vars = VarMap::new();
    let net = Net::new(VarBuilder::from_varmap(&vars, DType::F32, dev))?;
    // candle's own initialisation cannot be seeded on the CPU.
    for name in ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"] {
        let shape = vars.data().lock().expect("no thread panicked")[name].shape().clone();
        let mut stream = Seed::new(seed).child(name).stream();
        let values: Vec<f32> = (0..shape.elem_count()).map(|_| 0.5 * stream.normal() as f32).collect();
        vars.set_one(name, Tensor::from_vec(values, shape, dev)?)?;
    }
    let mut optimizer = AdamW::new_lr(vars.all_vars(), 0.02)?;
    for _ in 0..150 {
        optimizer.backward_step(&loss::cross_entropy(&net.forward_t(x, true)?, y)?)?;
    }
    let vars = vars.data().lock().expect("no thread panicked");
    Ok(vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect())
}

fn run() -> landscape_core::Result<Profile> {
    let dev = Device::Cpu;
    let data = spiral(&dev)?;
    let (a, b) = (trained(1, &data, &dev)?, trained(2, &data, &dev)?);
    let (x, y) = data;

    let p = profile(&ControlPoints::from_tensors([&a, &b], Buffers::named(["running_mean", "running_var"]))?, &Segment, 25, |w| {
        Tally::classes(&Net::new(VarBuilder::from_tensors(w, DType::F32, &dev))?.forward(&x)?, &y)
    })?;

    let measured_here = Tally::classes(&Net::new(VarBuilder::from_tensors(b, DType::F32, &dev))?.forward(&x)?, &y)?;
    assert_eq!(p.points[24].train.nll, measured_here.nll(), "the end of the line is the second model");
    Ok(p)
}

fn main() -> landscape_core::Result<()> {
    let p = run()?;
    for point in &p.points {
        println!("{:.3}  {:.4}  {:.1} %", point.t, point.train.loss, 100.0 * point.train.error.unwrap_or(f64::NAN));
    }
    println!("barrier {:.3} nats", p.barriers.train_loss.above_line);
    Ok(())
}

#[test]
fn two_trained_models_have_a_barrier_between_them() {
    let p = run().unwrap();
    assert_eq!(p.points.len(), 25);
    let loss = &p.summary.train_loss;
    assert!(loss.start < 0.2 && loss.end < 0.2, "both are trained: {loss:?}");
    assert!(p.barriers.train_loss.above_line > 0.2 && !p.verdicts.is_lmc, "{:?}", p.barriers.train_loss);
}
