//! Activations that are dropped and computed again, so that deep networks train in little memory.
#![allow(clippy::unwrap_used)]

mod common;

use common::{examples, objective};
use landscape_core::{Flat, Objective, Pass};
use landscape_graph::{Bias, Gelu, GraphBuilder};
use landscape_kernels::{Accumulate, Device};

/// A chain of forty layers: with a limit it trains in a fraction of the memory, to the same bits, and below what is possible it says so.
#[test]
fn a_limit_on_activations_is_kept_and_changes_no_bit() {
    let mut b = GraphBuilder::new([64]);
    let mut x = b.input();
    for layer in 0..40 {
        x = b.linear(&format!("fc{layer}"), x, 64, Bias::On).unwrap();
        x = b.gelu(&format!("gelu{layer}"), x, Gelu::Tanh).unwrap();
    }
    let x = b.linear("last", x, 3, Bias::On).unwrap();
    let graph = b.finish(x).unwrap();
    let n = 32;
    let trained = |max_bytes: Option<usize>| {
        let mut objective = objective::<f32>(graph.clone(), 3);
        objective.limit_activations(max_bytes);
        let batch = examples(objective.executor().graph(), n, 4);
        let mut gradient = Flat::zeros(objective.weights().layout(), &Device::Cpu);
        objective.gradient(&batch, Pass::train(1), &mut gradient, Accumulate::Overwrite).map(|tally| {
            let bits: Vec<u32> = gradient.to_vec().iter().map(|g| g.to_bits()).collect();
            (tally.loss_nats_sum.to_bits(), bits, objective.executor().memory_bytes())
        })
    };
    let (loss, gradient, all) = trained(None).unwrap();
    // Two activations a layer.
    let of_layer = 64 * n * size_of::<f32>();
    assert!(all > 80 * of_layer);
    for max_bytes in [40 * of_layer, 24 * of_layer] {
        let (limited_loss, limited, bytes) = trained(Some(max_bytes)).unwrap();
        assert_eq!((limited_loss, &limited), (loss, &gradient));
        assert!(bytes <= max_bytes, "{bytes} of {max_bytes}");
    }
    let message = trained(Some(3 * of_layer)).unwrap_err().to_string();
    assert!(message.contains("32 examples") && message.contains("at least"), "{message}");
}
