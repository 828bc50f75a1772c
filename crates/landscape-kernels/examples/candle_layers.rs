//! Forward and backward of candle-nn's layers and ours in turn, medians in milliseconds: `cargo run --release -p landscape-kernels --features candle --example candle_layers`.
#![allow(clippy::print_stdout)]

use candle_core::{D, DType, Device, Module, ModuleT, Result, Tensor, Var};
use landscape_kernels::candle as ours;
use std::time::Instant;

/// What is measured, of a tensor.
type Layer = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

fn var(dims: &[usize]) -> Result<Var> {
    let n: usize = dims.iter().product();
    Var::from_vec((0..n).map(|i| ((i * 7919 % 1009) as f32 / 504.5) - 1.0).collect::<Vec<_>>(), dims, &Device::Cpu)
}

/// Milliseconds of a forward and a backward pass.
fn once(layer: &Layer, x: &Var) -> Result<f64> {
    let start = Instant::now();
    layer(x)?.sum_all()?.backward()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<()> {
    let mut rows: Vec<(&str, Var, Layer, Layer)> = Vec::new();

    let (w, b) = (var(&[64, 64, 3, 3])?.into_inner(), var(&[64])?.into_inner());
    let config = ours::Conv2dConfig { padding: 1, ..Default::default() };
    let (a, c) = (candle_nn::Conv2d::new(w.clone(), Some(b.clone()), config), ours::Conv2d::new(w, Some(b), config));
    rows.push((
        "conv2d 64->64 3x3, [8, 64, 32, 32]",
        var(&[8, 64, 32, 32])?,
        Box::new(move |x| a.forward(x)),
        Box::new(move |x| c.forward(x)),
    ));

    rows.push((
        "max_pool2d 2, [32, 64, 32, 32]",
        var(&[32, 64, 32, 32])?,
        Box::new(|x| x.max_pool2d(2)),
        Box::new(|x| ours::max_pool2d(x, 2)),
    ));

    let norm = |c: usize| -> Result<[Tensor; 4]> {
        let ones = Tensor::ones(c, DType::F32, &Device::Cpu)?;
        Ok([ones.zeros_like()?, ones.clone(), Var::from_tensor(&ones)?.into_inner(), Var::zeros(c, DType::F32, &Device::Cpu)?.into_inner()])
    };
    let [m, v, w, b] = norm(64)?;
    let (a, c) =
        (candle_nn::BatchNorm::new(64, m.clone(), v.clone(), w.clone(), b.clone(), 1e-5)?, ours::BatchNorm::new(64, m, v, w, b, 1e-5)?);
    let (a, c): (Layer, Layer) = (Box::new(move |x| a.forward_t(x, true)), Box::new(move |x| c.forward_t(x, true)));
    rows.push(("BatchNorm in training, [32, 64, 32, 32]", var(&[32, 64, 32, 32])?, a, c));

    let [_, _, w, b] = norm(768)?;
    let c = ours::LayerNorm::new(w.clone(), b.clone(), 1e-5);
    // candle's fused op has no backward pass; this is what gives its gradient.
    let a: Layer = Box::new(move |x| candle_nn::ops::layer_norm_slow(x, &w, &b, 1e-5));
    rows.push(("LayerNorm (candle: layer_norm_slow), [2048, 768]", var(&[2048, 768])?, a, Box::new(move |x| c.forward(x))));

    let a: Layer = Box::new(|x| candle_nn::ops::softmax(x, D::Minus1));
    rows.push(("softmax_last_dim (candle: softmax), [96, 197, 197]", var(&[96, 197, 197])?, a, Box::new(ours::ops::softmax_last_dim)));

    for (name, x, candles, ours) in &rows {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for repetition in 0..8 {
            let times = (once(candles, x)?, once(ours, x)?);
            if repetition > 0 {
                a.push(times.0);
                b.push(times.1);
            }
        }
        let (a, b) = (median(a), median(b));
        println!("{name:52} candle {a:8.2} ms   ours {b:8.2} ms   {:5.1}x", a / b);
    }
    Ok(())
}
