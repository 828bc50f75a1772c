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

/// Batch `idx` of a model's data: inputs of variance one and a class for each example, or tokens and one to come at every place.
pub fn batch(seed: u64, idx: u64, n_examples: usize, model: &str) -> Examples<f32> {
    let n_inputs = n_examples * input_shape(model).iter().product::<usize>();
    let (inputs, labels) = (stream(seed, "inputs", idx), stream(seed, "labels", idx));
    let below = |stream, n: usize, bound: usize| (0..n as u64).map(move |i| (uniform(stream, i) * bound as f64) as u32);
    let (inputs, n_labels) = if reads_tokens(model) {
        // Tokens come as numbers of the network's type.
        (below(inputs, n_inputs, N_TOKENS).map(|token| token as f32).collect(), n_inputs)
    } else {
        (symmetric(inputs, n_inputs, 3.0_f64.sqrt()), n_examples)
    };
    Examples { inputs, n_examples, targets: Targets::Classes(below(labels, n_labels, n_outputs(model)).collect()) }
}

/// Classes of images and features.
pub const N_CLASSES: usize = 10;
/// Tokens that there are: the characters of nanoGPT's first text.
pub const N_TOKENS: usize = 65;
/// Tokens of an example.
const CONTEXT: usize = 64;

/// The t of each of `n` steps.
pub fn ts(seed: u64, n: usize) -> Vec<f64> {
    let stream = stream(seed, "t", 0);
    (0..n as u64).map(|i| uniform(stream, i)).collect()
}

/// Whether a model reads tokens.
fn reads_tokens(model: &str) -> bool {
    model.starts_with("gpt")
}

/// Classes of a model's data, or tokens that there are.
pub fn n_outputs(model: &str) -> usize {
    if reads_tokens(model) { N_TOKENS } else { N_CLASSES }
}

/// What one example of a model is: the first width of an MLP, a row of tokens, else a CIFAR image.
pub fn input_shape(model: &str) -> Vec<usize> {
    if reads_tokens(model) {
        return vec![CONTEXT];
    }
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
    fn a_batch_of_text_has_a_label_at_every_place() {
        let Examples { inputs, targets, .. } = batch(0, 0, 3, "gpt:layers=1");
        let Targets::Classes(labels) = targets else { unreachable!("the data are classes") };
        assert_eq!([inputs.len(), labels.len()], [3 * CONTEXT; 2]);
        assert!(inputs.iter().all(|token| token.fract() == 0.0 && (0.0..N_TOKENS as f32).contains(token)));
        assert!(labels.iter().any(|&label| label as usize >= N_CLASSES) && labels.iter().all(|&label| (label as usize) < N_TOKENS));
    }

    #[test]
    fn streams_differ_by_name_index_and_seed() {
        let all = [stream(0, "a", 0), stream(0, "b", 0), stream(0, "a", 1), stream(1, "a", 0)];
        assert!((0..4).all(|i| (0..i).all(|j| all[i] != all[j])));
    }
}
