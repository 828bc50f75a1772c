//! Numbers by formula, the same in every language: a peer's script makes the same weights and data, so that answers can be compared.
//!
//! Number i of a stream is `splitmix64(stream, i)` as a fraction in [0, 1); `benches/peers/values.py` is its twin.

use landscape_core::{Buffers, Examples, Flat, ParamLayout, Targets};
use landscape_kernels::Device;
use std::sync::Arc;

/// Number `i` of a stream, uniform in [0, 1).
pub fn uniform(stream: u64, i: u64) -> f64 {
    let mut z = stream.wrapping_add((i.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// The stream of that name: the name's FNV-1a hash, moved by `idx` (of a control point, a batch) and by the seed.
pub fn stream(seed: u64, name: &str, idx: u64) -> u64 {
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3));
    hash.wrapping_add(idx.wrapping_mul(0xD134_2543_DE82_EF95)).wrapping_add(seed.wrapping_mul(0xA24B_AED4_963E_E407))
}

/// `n` numbers of a stream, uniform in [-bound, bound).
pub fn symmetric(stream: u64, n: usize, bound: f64) -> Vec<f32> {
    (0..n as u64).map(|i| ((2.0 * uniform(stream, i) - 1.0) * bound) as f32).collect()
}

/// Control point `k`: matrices and kernels uniform within √(6 / fan_in), biases within 0.05, weights of norms one.
pub fn point(layout: &Arc<ParamLayout>, seed: u64, k: u64) -> anyhow::Result<Flat<f32>> {
    let mut values = vec![0.0; layout.n_elements()];
    for spec in layout.tensors() {
        let range = spec.range();
        let numbers = match spec.shape.as_slice() {
            [_, inner @ ..] if !inner.is_empty() => {
                let fan_in: usize = inner.iter().product();
                symmetric(stream(seed, &spec.name, k), range.len(), (6.0 / fan_in as f64).sqrt())
            }
            _ if spec.name.ends_with(".weight") => vec![1.0; range.len()],
            _ => symmetric(stream(seed, &spec.name, k), range.len(), 0.05),
        };
        values[range].copy_from_slice(&numbers);
    }
    Ok(Flat::from_vec(layout, &Device::Cpu, values)?)
}

/// Statistics that normalise by something: means within 0.1, variances from 0.5 to 1.5.
pub fn statistics(buffers: &Buffers, seed: u64) -> Buffers {
    let mut filled = buffers.clone();
    for spec in buffers.layout().tensors() {
        let stream = stream(seed, &spec.name, 0);
        let is_mean = spec.name.ends_with("running_mean");
        if !is_mean && !spec.name.ends_with("running_var") {
            continue;
        }
        for (i, value) in filled.get_mut(&spec.name).into_iter().flatten().enumerate() {
            let u = uniform(stream, i as u64);
            *value = f64::from(if is_mean { 0.2 * u - 0.1 } else { 0.5 + u } as f32);
        }
    }
    filled
}

/// Batch `idx`: inputs of variance one, a class in ten for each.
pub fn batch(seed: u64, idx: u64, n_examples: usize, input_shape: &[usize]) -> Examples<f32> {
    let n_inputs = n_examples * input_shape.iter().product::<usize>();
    let inputs = symmetric(stream(seed, "inputs", idx), n_inputs, 3.0_f64.sqrt());
    let labels = stream(seed, "labels", idx);
    let labels = (0..n_examples as u64).map(|i| (uniform(labels, i) * N_CLASSES as f64) as u32).collect();
    Examples { inputs, n_examples, targets: Targets::Classes(labels) }
}

/// Classes of the data.
pub const N_CLASSES: usize = 10;

/// The t of each of `n` steps.
pub fn ts(seed: u64, n: usize) -> Vec<f64> {
    let stream = stream(seed, "t", 0);
    (0..n as u64).map(|i| uniform(stream, i)).collect()
}

/// What one example of a model is: the first width of an MLP, else a CIFAR image.
pub fn input_shape(model: &str) -> Vec<usize> {
    let width = model.strip_prefix("mlp:").and_then(|widths| widths.split('-').next()?.parse().ok());
    width.map_or_else(|| vec![3, 32, 32], |width| vec![width])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of splitmix64 from state 0, as its author publishes them; `values.py` checks the same.
    #[test]
    fn numbers_are_those_of_splitmix64() {
        let expected = [0xE220_A839_7B1D_CDAF_u64, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F];
        for (i, z) in expected.into_iter().enumerate() {
            assert_eq!(uniform(0, i as u64), (z >> 11) as f64 / (1u64 << 53) as f64);
        }
    }

    #[test]
    fn streams_differ_by_name_index_and_seed() {
        let all = [stream(0, "a", 0), stream(0, "b", 0), stream(0, "a", 1), stream(1, "a", 0)];
        assert!((0..4).all(|i| (0..i).all(|j| all[i] != all[j])));
    }
}
