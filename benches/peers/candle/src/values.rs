//! The numbers of `landscape_benches::values`, without a crate of ours.

use candle_core::{Device, Tensor, Var};
use candle_nn::VarMap;
use std::collections::BTreeMap;

const N_CLASSES: usize = 10;

/// What the statistics of batch norms start from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    New,
    Filled,
}

fn uniform(stream: u64, i: u64) -> f64 {
    let mut z = stream.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

fn stream(seed: u64, name: &str) -> u64 {
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3));
    hash.wrapping_add(seed.wrapping_mul(0xA24B_AED4_963E_E407))
}

fn symmetric(stream: u64, n: usize, bound: f64) -> Vec<f32> {
    (0..n as u64).map(|i| ((2.0 * uniform(stream, i) - 1.0) * bound) as f32).collect()
}

/// All variables in the order of their names: the map's own order differs from run to run.
pub fn variables(variables: &VarMap) -> anyhow::Result<Vec<Var>> {
    let Ok(all) = variables.data().lock() else { anyhow::bail!("the variables are locked") };
    let sorted: BTreeMap<&String, &Var> = all.iter().collect();
    Ok(sorted.into_values().cloned().collect())
}

/// Sets every variable to control point 0.
pub fn fill(variables: &VarMap, seed: u64, statistics: Statistics) -> anyhow::Result<()> {
    let Ok(all) = variables.data().lock() else { anyhow::bail!("the variables are locked") };
    for (name, variable) in all.iter() {
        let (dims, n) = (variable.dims().to_vec(), variable.elem_count());
        let s = stream(seed, name);
        let numbers = match dims.as_slice() {
            [_, inner @ ..] if !inner.is_empty() => symmetric(s, n, (6.0 / inner.iter().product::<usize>() as f64).sqrt()),
            _ if name.ends_with("running_mean") || name.ends_with("running_var") => {
                let is_mean = name.ends_with("running_mean");
                let filled = |i| if is_mean { 0.2 * uniform(s, i) - 0.1 } else { 0.5 + uniform(s, i) };
                let new = if is_mean { 0.0 } else { 1.0 };
                (0..n as u64).map(|i| if statistics == Statistics::Filled { filled(i) as f32 } else { new }).collect()
            }
            _ if name.ends_with(".weight") => vec![1.0; n],
            _ => symmetric(s, n, 0.05),
        };
        variable.set(&Tensor::from_vec(numbers, dims, variable.device())?)?;
    }
    Ok(())
}

/// Inputs and classes.
pub fn batch(seed: u64, n: usize, input_shape: &[usize], device: &Device) -> anyhow::Result<(Tensor, Tensor)> {
    let shape: Vec<usize> = std::iter::once(n).chain(input_shape.iter().copied()).collect();
    let inputs = symmetric(stream(seed, "inputs"), shape.iter().product(), 3.0_f64.sqrt());
    let labels = stream(seed, "labels");
    let labels: Vec<u32> = (0..n as u64).map(|i| (uniform(labels, i) * N_CLASSES as f64) as u32).collect();
    Ok((Tensor::from_vec(inputs, shape, device)?, Tensor::from_vec(labels, n, device)?))
}
