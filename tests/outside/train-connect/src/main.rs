//! Two candle models joined by a curve of low loss, with `landscape-train` alone.

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{BatchNorm, Linear, ModuleT, VarBuilder, batch_norm, linear};
use landscape_train::bound::{Bound, connect, train};
use landscape_train::landscape_core::Tally;
use landscape_train::landscape_core::profile::Profile;
use landscape_train::{Connect, FitConfig, Optimizer};

struct Net {
    fc1: Linear,
    bn1: BatchNorm,
    fc2: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> candle_core::Result<Self> {
        Ok(Net { fc1: linear(2, 64, vb.pp("fc1"))?, bn1: batch_norm(64, 1e-5, vb.pp("bn1"))?, fc2: linear(64, 2, vb.pp("fc2"))? })
    }

    fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        self.fc2.forward(&self.bn1.forward_t(&self.fc1.forward(x)?, train)?.relu()?)
    }
}

/// Two arms of a spiral, in batches of 100 points.
fn spiral(dev: &Device) -> candle_core::Result<Vec<(Tensor, Tensor)>> {
    let point = |i: usize| {
        let (arm, s) = ((i % 2) as f32, (i / 2) as f32 / 200.0);
        let angle = 5.0 * s + std::f32::consts::PI * arm;
        [(0.2 + s) * angle.cos(), (0.2 + s) * angle.sin()]
    };
    // Every fourth point goes into the same batch, so that each has points of the whole spiral.
    let batch = |b: usize| {
        let points = || (0..100).map(move |i| 8 * (i / 2) + 2 * b + i % 2);
        let x: Vec<f32> = points().flat_map(point).collect();
        Ok((Tensor::from_vec(x, (100, 2), dev)?, Tensor::from_iter(points().map(|i| (i % 2) as u32), dev)?))
    };
    (0..4).map(batch).collect()
}

/// What the curve and the straight line are like.
struct Joined {
    curve: Profile,
    line: Profile,
    /// Loss of the user's own model on the variables that were written at t = 0.5.
    middle_nats: f64,
}

fn run() -> landscape_train::Result<Joined> {
    let dev = Device::Cpu;
    let batches = spiral(&dev)?;
    let data = batches.clone();
    let mut task = Bound::new(&dev, |vb| Net::new(vb), |net, x, train| net.forward_t(x, train))?.classes(batches);

    let (varmap_a, varmap_b) = (task.model().new_varmap(1)?, task.model().new_varmap(2)?);
    let endpoint = FitConfig { epochs: 100, optimizer: Optimizer::adam(0.01), ..Connect::garipov2018().fit };
    train(&mut task, &varmap_a, &endpoint, 1)?;
    train(&mut task, &varmap_b, &endpoint, 2)?;

    let run = connect(&mut task, &varmap_a, &varmap_b, Connect { points: 3, ..Connect::garipov2018() })?;
    let (curve, line) = (run.profile(25)?, run.profile_straight(25)?);
    run.write_into(&varmap_a, 0.5)?;

    let net = Net::new(VarBuilder::from_varmap(&varmap_a, DType::F32, &dev))?;
    let mut tally = Tally::default();
    for (x, y) in &data {
        tally += Tally::classes(&net.forward_t(x, false)?, y)?;
    }
    Ok(Joined { curve, line, middle_nats: tally.nll() })
}

fn main() -> landscape_train::Result<()> {
    let Joined { curve, line, middle_nats } = run()?;
    println!("    t     line    curve");
    for (on_line, on_curve) in line.points.iter().zip(&curve.points) {
        println!("{:.3}   {:.4}   {:.4}", on_line.t, on_line.train.loss, on_curve.train.loss);
    }
    println!("a model of our own on the written variables: {middle_nats:.4} nats");
    Ok(())
}

#[test]
fn the_curve_stays_low_where_the_line_does_not() {
    let Joined { curve, line, middle_nats } = run().unwrap();
    let (curved, straight) = (&curve.summary.train_loss, &line.summary.train_loss);
    let ends = curved.start.max(curved.end);
    assert!(ends < 0.3, "both are trained: {curved:?}");
    assert!(straight.max > ends + 0.15, "{straight:?}");
    assert!(curved.max < ends + 0.05, "{curved:?}");
    assert!((middle_nats - curve.points[12].train.nll).abs() < 1e-9);
}
