//! A candle model that could not be trained by candle-nn's layers, repaired by its `use` lines, and two of it joined by a curve.

use candle_core::{DType, Device, Tensor};
// These two lines read `use candle_nn::..` before.
use landscape_kernels::candle::{Conv2d, Conv2dConfig, LayerNorm, Linear, Module, VarBuilder};
use landscape_kernels::candle::{conv2d, layer_norm, linear, max_pool2d, ops::softmax_last_dim};
use landscape_train::bound::{Bound, connect, train};
use landscape_train::landscape_core::Tally;
use landscape_train::landscape_core::profile::Profile;
use landscape_train::{Connect, FitConfig, Optimizer};

/// A convolution, and attention over the pixels that pooling leaves.
struct Net {
    conv: Conv2d,
    norm: LayerNorm,
    keys: Linear,
    head: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> candle_core::Result<Self> {
        let padded = Conv2dConfig { padding: 1, ..Default::default() };
        Ok(Net {
            conv: conv2d(1, 8, 3, padded, vb.pp("conv"))?,
            norm: layer_norm(8, 1e-5, vb.pp("norm"))?,
            keys: linear(8, 8, vb.pp("keys"))?,
            head: linear(8, 2, vb.pp("head"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        // And this line `self.conv.forward(x)?.relu()?.max_pool2d(2)?`.
        let x = max_pool2d(&self.conv.forward(x)?.relu()?, 2)?;
        let x = self.norm.forward(&x.flatten_from(2)?.transpose(1, 2)?.contiguous()?)?;
        let weights = softmax_last_dim(&self.keys.forward(&x)?.matmul(&x.t()?)?)?;
        self.head.forward(&weights.matmul(&x)?.max(1)?)
    }
}

/// Images of 8x8 with a bar that lies or stands, in batches of 32.
fn bars(dev: &Device) -> candle_core::Result<Vec<(Tensor, Tensor)>> {
    let pixel = |example: usize, i: usize| {
        let (along, across, place) = if example % 2 == 0 { (i / 8, i % 8, example / 2) } else { (i % 8, i / 8, example / 2) };
        let start = place / 8 % 4;
        let bar = along == place % 8 && (start..start + 5).contains(&across);
        // A little of a pattern that has nothing to do with the answer.
        (if bar { 1.0 } else { 0.0 }) + 0.3 * ((example * 64 + i) as f32 * 12.9898).sin()
    };
    let batch = |b: usize| {
        let examples = || (0..32).map(move |k| 2 * (b + 2 * (k / 2)) + k % 2);
        let x: Vec<f32> = examples().flat_map(|e| (0..64).map(move |i| pixel(e, i))).collect();
        Ok((Tensor::from_vec(x, (32, 1, 8, 8), dev)?, Tensor::from_iter(examples().map(|e| (e % 2) as u32), dev)?))
    };
    (0..2).map(batch).collect()
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
    let batches = bars(&dev)?;
    let data = batches.clone();
    let mut task = Bound::new(&dev, |vb| Net::new(vb), |net, x, _| net.forward(x))?.classes(batches);

    let (varmap_a, varmap_b) = (task.model().new_varmap(1)?, task.model().new_varmap(2)?);
    let endpoint = FitConfig { epochs: 60, optimizer: Optimizer::adam(0.02), ..Connect::garipov2018().fit };
    train(&mut task, &varmap_a, &endpoint, 1)?;
    train(&mut task, &varmap_b, &endpoint, 2)?;

    let fit = FitConfig { epochs: 60, optimizer: Optimizer::adam(0.02), ..Connect::garipov2018().fit };
    let run = connect(&mut task, &varmap_a, &varmap_b, Connect { points: 3, fit, ..Connect::garipov2018() })?;
    let (curve, line) = (run.profile(25)?, run.profile_straight(25)?);
    run.write_into(&varmap_a, 0.5)?;

    let net = Net::new(VarBuilder::from_varmap(&varmap_a, DType::F32, &dev))?;
    let mut tally = Tally::default();
    for (x, y) in &data {
        tally += Tally::classes(&net.forward(x)?, y)?;
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
fn the_repaired_model_trains_and_its_curve_stays_low() {
    let Joined { curve, line, middle_nats } = run().unwrap();
    let (curved, straight) = (&curve.summary.train_loss, &line.summary.train_loss);
    assert!(curved.start.max(curved.end) < 0.3, "both are trained: {curved:?}");
    assert!(curved.max < straight.max, "{curved:?} {straight:?}");
    assert!((middle_nats - curve.points[12].train.nll).abs() < 1e-9);
}
