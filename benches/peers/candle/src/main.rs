//! Stock candle as a peer: the same networks by its own layers, its own autograd and its SGD, which has neither momentum nor weight
//! decay. Nothing of ours is linked, and `cargo xtask bench` builds this package alone, so that candle's dependencies have the features
//! that candle asks for and no more. The protocol is that of `landscape_benches::worker`, the numbers those of `landscape_benches::values`.

#![allow(clippy::print_stdout, reason = "standard output is what the other side of the protocol reads")]

mod values;
mod networks;

use anyhow::{Context, bail};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Optimizer, SGD, VarBuilder, VarMap, loss::cross_entropy};
use networks::Network;
use serde_json::{Value, json};
use std::io::BufRead;
use std::time::Instant;

/// The rate of the steps: no answer beyond the first loss is compared, and the numbers stay those of a new network.
const RATE: f64 = 1e-6;

fn main() -> anyhow::Result<()> {
    let argument = std::env::args().nth(1).context("the job is missing: one JSON argument")?;
    let request: Value = serde_json::from_str(&argument)?;
    let number = |key: &str| request[key].as_u64().with_context(|| format!("`{key}` is missing from `{argument}`"));
    rayon::ThreadPoolBuilder::new().num_threads(number("threads")? as usize).build_global()?;
    let idle_bytes = resident("VmRSS:");
    let (model, job) = (request["model"].as_str().context("`model` is missing")?, request["job"].as_str().unwrap_or_default());
    let is_training = match job {
        "step" if request["points"] == 1 => true,
        "evaluate" => false,
        _ => {
            println!("{}", json!({"skip": "candle has endpoint steps and evaluation only"}));
            return Ok(());
        }
    };
    let (seed, batch, n_repetitions) = (number("seed")?, number("batch")? as usize, number("repetitions")?);
    let device = Device::Cpu;
    let variables = VarMap::new();
    let network = Network::new(model, VarBuilder::from_varmap(&variables, DType::F32, &device))?;
    values::fill(&variables, seed, if is_training { values::Statistics::New } else { values::Statistics::Filled })?;
    let (x, y) = values::batch(seed, batch, &network.input_shape(), &device)?;
    let mut optimizer = SGD::new(values::variables(&variables)?, RATE)?;
    let mut once = || -> anyhow::Result<f64> {
        let loss = cross_entropy(&network.forward(&x, is_training)?, &y)?;
        if is_training {
            optimizer.backward_step(&loss)?;
        }
        Ok(f64::from(loss.to_scalar::<f32>()?))
    };
    let answer = once()?;
    once()?;
    println!(
        "{}",
        json!({"ready": true, "answer": [answer], "versions": {"candle": "0.11.1"}, "kernel_path": null, "idle_bytes": idle_bytes})
    );
    for line in std::io::stdin().lock().lines() {
        if line?.trim() != "run" {
            continue;
        }
        let mut seconds = Vec::new();
        for _ in 0..n_repetitions {
            let started = Instant::now();
            if !once()?.is_finite() {
                bail!("the loss is no number any more");
            }
            seconds.push(started.elapsed().as_secs_f64());
        }
        println!("{}", json!({"seconds": seconds}));
    }
    println!("{}", json!({"done": true, "peak_bytes": resident("VmHWM:")}));
    Ok(())
}

/// A line of `/proc/self/status` in bytes.
fn resident(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Tensors of logits come out of every network as `[n, classes]`.
type Logits = candle_core::Result<Tensor>;
