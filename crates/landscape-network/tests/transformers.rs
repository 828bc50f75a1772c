//! Networks of tokens and patches, several inputs and outputs, shared tensors: gradients against central differences, and what is counted.
#![allow(clippy::unwrap_used)]

mod common;

use common::{check_all, examples, objective};
use landscape_core::{Examples, Flat, Norm, Objective, Pass, Targets, Tell};
use landscape_graph::{Bias, Conv2d, Dtype, Gelu, Graph, GraphBuilder, NodeId, Op, Role, RopeStyle, Upsampling, WeightOrder};
use landscape_kernels::loss::IGNORED;
use landscape_kernels::{Accumulate, Device};
use landscape_network::{Loss, NetworkObjective};
use std::sync::Arc;

fn layer_norm(b: &mut GraphBuilder, name: &str, x: NodeId, width: usize) -> NodeId {
    let op = Op::LayerNorm { normalized_shape: vec![width], eps: 1e-5, elementwise_affine: true, bias: true };
    b.push(name, op, &[x]).unwrap()
}

/// `[places, heads * width]` as `[heads, places, width]`.
fn heads(b: &mut GraphBuilder, name: &str, x: NodeId, heads: usize) -> NodeId {
    let shape = b.shape(x).unwrap().clone();
    let x = b.push(&format!("{name}.split"), Op::Reshape { shape: vec![shape[0], heads, shape[1] / heads] }, &[x]).unwrap();
    b.push(&format!("{name}.heads"), Op::Permute { dims: vec![1, 0, 2] }, &[x]).unwrap()
}

fn joined(b: &mut GraphBuilder, name: &str, x: NodeId) -> NodeId {
    let shape = b.shape(x).unwrap().clone();
    let x = b.push(&format!("{name}.places"), Op::Permute { dims: vec![1, 0, 2] }, &[x]).unwrap();
    b.push(&format!("{name}.joined"), Op::Reshape { shape: vec![shape[1], shape[0] * shape[2]] }, &[x]).unwrap()
}

/// A block of GPT-2 with its transposed weights, positions, and the embedding again as the last layer.
fn gpt() -> Graph {
    let mut b = GraphBuilder::with_input("tokens", [5], Dtype::Int);
    let x = b.push("wte", Op::Embedding { num_embeddings: 7, embedding_dim: 4 }, &[b.input()]).unwrap();
    let positions = b.push("positions", Op::Constant { shape: vec![5], values: (0..5).map(f64::from).collect() }, &[]).unwrap();
    let p = b.push("wpe", Op::Embedding { num_embeddings: 6, embedding_dim: 4 }, &[positions]).unwrap();
    let x = b.add("embedded", x, p).unwrap();
    let x = b.dropout("drop", x, 0.2).unwrap();
    let y = layer_norm(&mut b, "ln_1", x, 4);
    let qkv = Op::Linear { in_features: 4, out_features: 12, bias: true, weight_order: WeightOrder::InOut };
    let qkv = b.push("c_attn", qkv, &[y]).unwrap();
    let mut part = |name: &str, start: usize| {
        let x = b.push(name, Op::Slice { dim: 1, start, end: start + 4, step: 1 }, &[qkv]).unwrap();
        heads(&mut b, name, x, 2)
    };
    let (q, k, v) = (part("q", 0), part("k", 4), part("v", 8));
    let y = b.push("attention", Op::Attention { causal: true, scale: 0.7 }, &[q, k, v]).unwrap();
    let y = joined(&mut b, "attention", y);
    let y = b.linear("c_proj", y, 4, Bias::On).unwrap();
    let x = b.add("residual", x, y).unwrap();
    let y = layer_norm(&mut b, "ln_2", x, 4);
    let y = b.linear("c_fc", y, 6, Bias::On).unwrap();
    let y = b.gelu("act", y, Gelu::Tanh).unwrap();
    let y = b.linear("mlp.c_proj", y, 4, Bias::Off).unwrap();
    let x = b.add("residual2", x, y).unwrap();
    let x = layer_norm(&mut b, "ln_f", x, 4);
    let logits = b.linear("lm_head", x, 7, Bias::On).unwrap();
    b.name_tensor(logits, Role::Weight, "wte.weight").unwrap();
    b.finish(logits).unwrap()
}

/// A block of Llama: rotary positions, shared keys and values, RMS norm, a gated MLP; its last two layers share a weight but no bias.
fn llama() -> Graph {
    let mut b = GraphBuilder::with_input("tokens", [4], Dtype::Int);
    let x = b.push("embed", Op::Embedding { num_embeddings: 6, embedding_dim: 8 }, &[b.input()]).unwrap();
    let norm = || Op::RmsNorm { normalized_shape: vec![8], eps: 1e-6, elementwise_affine: true };
    let y = b.push("norm1", norm(), &[x]).unwrap();
    let mut rotated = |name: &str, n_heads: usize, style: RopeStyle| {
        let x = b.linear(name, y, 4 * n_heads, Bias::Off).unwrap();
        let x = heads(&mut b, name, x, n_heads);
        b.push(&format!("{name}.rope"), Op::Rope { base: 100.0, rotary_dim: 4, style }, &[x]).unwrap()
    };
    let (q, k) = (rotated("q", 2, RopeStyle::Half), rotated("k", 1, RopeStyle::Interleaved));
    let v = b.linear("v", y, 4, Bias::Off).unwrap();
    let v = heads(&mut b, "v", v, 1);
    let y = b.push("attention", Op::Attention { causal: true, scale: 0.5 }, &[q, k, v]).unwrap();
    let y = joined(&mut b, "attention", y);
    let x = b.add("residual", x, y).unwrap();
    let y = b.push("norm2", norm(), &[x]).unwrap();
    let gate = b.linear("gate", y, 8, Bias::On).unwrap();
    let gate = b.push("silu", Op::Silu, &[gate]).unwrap();
    let up = b.linear("up", y, 8, Bias::On).unwrap();
    b.name_tensor(up, Role::Weight, "gate.weight").unwrap();
    let y = b.push("gated", Op::Multiply, &[gate, up]).unwrap();
    let x = b.add("residual2", x, y).unwrap();
    let x = b.linear("head", x, 6, Bias::Off).unwrap();
    b.finish(x).unwrap()
}

/// Patches with a class token, matrix products instead of attention, layer scale, and squeeze-and-excitation before.
fn vision() -> Graph {
    let mut b = GraphBuilder::new([2, 6, 4]);
    let x = b.conv2d("conv", b.input(), Conv2d { padding: [1, 1], ..Conv2d::new(4, 3) }).unwrap();
    let squeezed = b.push("squeeze", Op::Mean { start_dim: 1, end_dim: 2, keepdim: true }, &[x]).unwrap();
    let excited = b.conv2d("excite", squeezed, Conv2d::new(4, 1)).unwrap();
    let excited = b.push("gate", Op::Hardsigmoid, &[excited]).unwrap();
    let x = b.push("scaled", Op::Multiply, &[x, excited]).unwrap();
    let scale = b.push("layer_scale", Op::Parameter { shape: vec![4, 1, 1] }, &[]).unwrap();
    let x = b.push("rescaled", Op::Multiply, &[scale, x]).unwrap();
    let x = b.push("group_norm", Op::GroupNorm { num_groups: 2, num_channels: 4, eps: 1e-5, affine: true }, &[x]).unwrap();
    let x = b.conv2d("conv_proj", x, Conv2d { stride: [2, 2], ..Conv2d::new(4, 2) }).unwrap();
    let x = b.push("patches", Op::Reshape { shape: vec![4, 6] }, &[x]).unwrap();
    let x = b.push("tokens", Op::Permute { dims: vec![1, 0] }, &[x]).unwrap();
    let class = b.push("class_token", Op::Parameter { shape: vec![1, 4] }, &[]).unwrap();
    let x = b.push("with_class", Op::Concat { dim: 0 }, &[class, x]).unwrap();
    let position = b.push("pos_embedding", Op::Parameter { shape: vec![7, 4] }, &[]).unwrap();
    let x = b.add("positioned", x, position).unwrap();
    let x = layer_norm(&mut b, "ln", x, 4);
    let (q, k) = (b.linear("q", x, 3, Bias::On).unwrap(), b.linear("k", x, 3, Bias::On).unwrap());
    let k = b.push("k.t", Op::Permute { dims: vec![1, 0] }, &[k]).unwrap();
    let scores = b.push("scores", Op::Matmul, &[q, k]).unwrap();
    let scores = b.push("scaled_scores", Op::Affine { scale: 0.4, shift: 0.1 }, &[scores]).unwrap();
    let weights = b.push("weights", Op::Softmax { dim: 1 }, &[scores]).unwrap();
    let columns = b.push("columns", Op::Softmax { dim: 0 }, &[scores]).unwrap();
    let weights = b.add("both", weights, columns).unwrap();
    let y = b.push("mixed", Op::Matmul, &[weights, x]).unwrap();
    let x = b.add("residual", x, y).unwrap();
    let x = b.push("class", Op::Slice { dim: 0, start: 0, end: 1, step: 1 }, &[x]).unwrap();
    let x = b.flatten("flatten", x).unwrap();
    let x = b.linear("head", x, 3, Bias::On).unwrap();
    b.finish(x).unwrap()
}

/// Signals: convolutions of one axis with batch norm, a transposed convolution, an image made larger, and every activation.
fn signals() -> Graph {
    let mut b = GraphBuilder::new([3, 9]);
    let conv = |in_channels, out_channels, groups| Op::Conv1d {
        in_channels,
        out_channels,
        kernel_size: 3,
        stride: 2,
        padding: 1,
        dilation: 1,
        groups,
        bias: groups == 1,
    };
    let x = b.push("conv1", conv(3, 4, 1), &[b.input()]).unwrap();
    let x = b.batch_norm("bn1", x).unwrap();
    let x = b.relu("relu", x).unwrap();
    let x = b.push("conv2", conv(4, 4, 2), &[x]).unwrap();
    let x = b.push("image", Op::Reshape { shape: vec![4, 1, 3] }, &[x]).unwrap();
    let transposed = |bias| Op::ConvTranspose2d {
        in_channels: 4,
        out_channels: 4,
        kernel_size: [3, 2],
        stride: [2, 2],
        padding: [1, 0],
        output_padding: [1, 0],
        dilation: [1, 1],
        groups: 2,
        bias,
    };
    let y = b.push("up", transposed(true), &[x]).unwrap();
    let z = b.push("up2", transposed(false), &[x]).unwrap();
    let x = b.add("ups", y, z).unwrap();
    let smooth = b.push("bilinear", Op::Upsample { size: [3, 4], method: Upsampling::Bilinear }, &[x]).unwrap();
    let near = b.push("nearest", Op::Upsample { size: [3, 4], method: Upsampling::Nearest }, &[x]).unwrap();
    let mut x = b.add("sizes", smooth, near).unwrap();
    let activations = [
        Op::Sigmoid,
        Op::Hardswish,
        Op::Tanh,
        Op::LeakyRelu { negative_slope: 0.1 },
        Op::Hardtanh { min_val: -0.3, max_val: 6.0 },
        Op::Elu { alpha: 0.8 },
        Op::Softplus,
        Op::Power { exponent: -0.5 },
        Op::Exp,
    ];
    for op in activations {
        x = b.push(op.name(), op.clone(), &[x]).unwrap();
    }
    let wide = b.push("wide", Op::Mean { start_dim: 1, end_dim: 1, keepdim: true }, &[x]).unwrap();
    let wide = b.push("expanded", Op::Expand { shape: vec![2, 4, 3, 4] }, &[wide]).unwrap();
    let wide = b.push("last", Op::Mean { start_dim: 0, end_dim: 0, keepdim: false }, &[wide]).unwrap();
    let x = b.add("again", x, wide).unwrap();
    let x = b.push("every_other", Op::Slice { dim: 2, start: 1, end: 4, step: 2 }, &[x]).unwrap();
    let x = b.flatten("flatten", x).unwrap();
    let x = b.linear("fc", x, 3, Bias::On).unwrap();
    b.finish(x).unwrap()
}

#[test]
fn gradients_of_a_gpt_are_derivatives() {
    check_all(gpt(), Pass::train(3), 3);
    check_all(gpt(), Pass::EVALUATE, 2);
}

#[test]
fn gradients_of_a_llama_are_derivatives() {
    check_all(llama(), Pass::EVALUATE, 3);
}

#[test]
fn gradients_of_a_vision_transformer_are_derivatives() {
    check_all(vision(), Pass::EVALUATE, 3);
}

#[test]
fn gradients_of_signals_are_derivatives() {
    check_all(signals(), Pass { norm: Norm::Batch, dropout_seed: None, tell: Tell::AtOnce }, 3);
    check_all(signals(), Pass::EVALUATE, 2);
}

/// Two inputs of different kinds, two outputs, of which the second has parameters of its own.
fn two_by_two() -> Graph {
    let mut b = GraphBuilder::with_input("tokens", [2], Dtype::Int);
    let image = b.add_input("image", [2, 2, 2], Dtype::Float).unwrap();
    let x = b.push("wte", Op::Embedding { num_embeddings: 3, embedding_dim: 4 }, &[NodeId(0)]).unwrap();
    let x = b.flatten("tokens.flat", x).unwrap();
    let y = b.conv2d("conv", image, Conv2d::new(2, 1)).unwrap();
    let unread = b.flatten("image.flat", y).unwrap();
    let both = b.add("both", x, unread).unwrap();
    let first = b.linear("first", both, 3, Bias::On).unwrap();
    let second = b.linear("second", both, 2, Bias::On).unwrap();
    b.finish_with(&[first, second, y]).unwrap()
}

#[test]
fn several_inputs_and_outputs() {
    check_all(two_by_two(), Pass::EVALUATE, 3);
    let mut objective = objective::<f64>(two_by_two(), 4);
    let batch = examples(objective.executor().graph(), 3, 5);
    let layout = objective.weights().layout().clone();
    let mut gradient = Flat::from_vec(&layout, &Device::Cpu, vec![f64::NAN; layout.n_elements()]).unwrap();
    objective.gradient(&batch, Pass::EVALUATE, &mut gradient, Accumulate::Overwrite).unwrap();
    // The loss does not depend on the second output's layer.
    assert!(gradient.tensor("second.weight").unwrap().host().iter().all(|g| *g == 0.0));
    assert!(gradient.tensor("conv.weight").unwrap().host().iter().all(|g| *g != 0.0));
    let executor = objective.executor_mut();
    executor.evaluate(&batch.inputs, 3, Pass::EVALUATE).unwrap();
    let image = executor.output_at(2).unwrap().host().to_vec();
    let second = executor.output_at(1).unwrap().host().to_vec();
    assert_eq!((image.len(), second.len(), executor.output_at(3).is_none()), (3 * 8, 3 * 2, true));
    // By hand, in PyTorch's order: the image of example 1 stands behind its two tokens.
    let weights = executor.weights().clone();
    let at = |name: &str, idx: usize| weights.tensor(name).unwrap().host()[idx];
    let pixel = |channel: usize, place: usize| batch.inputs[10 + 2 + 4 * channel + place];
    for channel in 0..2 {
        for place in 0..4 {
            let sum: f64 = (0..2).map(|c| at("conv.weight", 2 * channel + c) * pixel(c, place)).sum();
            let found = image[8 + 4 * channel + place];
            assert!((found - sum - at("conv.bias", channel)).abs() < 1e-12, "{found}");
        }
    }
}

/// An ignored label counts for nothing: the loss is that of the others.
#[test]
fn ignored_labels_do_not_count() {
    let mut objective = objective::<f64>(gpt(), 1);
    let batch = examples::<f64>(objective.executor().graph(), 2, 2);
    let Targets::Classes(labels) = &batch.targets else { panic!("labels expected") };
    let layout = objective.weights().layout().clone();
    let mut measured = |ignored: &[usize]| {
        let mut labels = labels.clone();
        ignored.iter().for_each(|&place| labels[place] = IGNORED);
        let batch = Examples { targets: Targets::Classes(labels), ..batch.clone() };
        let mut gradient = Flat::zeros(&layout, &Device::Cpu);
        let tally = objective.gradient(&batch, Pass::EVALUATE, &mut gradient, Accumulate::Overwrite).unwrap();
        (tally, gradient.to_vec())
    };
    let (all, whole) = measured(&[]);
    assert_eq!(all.n_examples, 10);
    let odd: Vec<usize> = (1..10).step_by(2).collect();
    let even: Vec<usize> = (0..10).step_by(2).collect();
    let ((first, a), (second, b)) = (measured(&odd), measured(&even));
    assert_eq!((first.n_examples, second.n_examples), (5, 5));
    assert!((first.loss_nats_sum + second.loss_nats_sum - all.loss_nats_sum).abs() < 1e-12);
    for ((a, b), whole) in a.iter().zip(&b).zip(&whole) {
        assert!((0.5 * (a + b) - whole).abs() < 1e-13);
    }
    let (none, gradient) = measured(&(0..10).collect::<Vec<_>>());
    assert_eq!((none.n_examples, none.loss_nats_sum), (0, 0.0));
    assert!(gradient.iter().all(|g| *g == 0.0));
}

#[test]
fn several_labels_at_once() {
    let mut b = GraphBuilder::new([3]);
    let x = b.linear("fc", b.input(), 2, Bias::On).unwrap();
    let graph = Arc::new(b.finish(x).unwrap());
    let mut objective = NetworkObjective::<f64>::new(graph.clone(), &Device::Cpu, Loss::BinaryCrossEntropy).unwrap();
    let layout = objective.weights().layout().clone();
    let point = Flat::from_vec(&layout, &Device::Cpu, vec![0.5, -1.0, 0.25, 1.0, 0.0, -0.5, 0.1, -0.2]).unwrap();
    objective.set_point(&point).unwrap();
    let batch = Examples { inputs: vec![1.0, 2.0, 3.0, -1.0, 0.5, 1.0], n_examples: 2, targets: Targets::Values(vec![1.0, 0.0, 0.0, 0.3]) };
    let mut gradient = Flat::zeros(&layout, &Device::Cpu);
    let tally = objective.gradient(&batch, Pass::EVALUATE, &mut gradient, Accumulate::Overwrite).unwrap();
    // −t·ln σ(z) − (1 − t)·ln(1 − σ(z)), mean over the two outputs.
    let logits: [f64; 4] = [0.5 - 2.0 + 0.75 + 0.1, 1.0 - 1.5 - 0.2, -0.5 - 0.5 + 0.25 + 0.1, -1.0 - 0.5 - 0.2];
    let targets = [1.0, 0.0, 0.0, 0.3];
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let loss: f64 = logits.iter().zip(targets).map(|(&z, t)| -t * sigmoid(z).ln() - (1.0 - t) * (1.0 - sigmoid(z)).ln()).sum();
    assert!((tally.loss_nats_sum - loss / 2.0).abs() < 1e-12);
    // The first example's first output is below 0 and should not be.
    assert_eq!((tally.n_examples, tally.n_wrong), (2, Some(1)));
    let by_bias = [0, 1].map(|output| (0..2).map(|n| sigmoid(logits[2 * n + output]) - targets[2 * n + output]).sum::<f64>() / 4.0);
    for (found, expected) in gradient.tensor("fc.bias").unwrap().host().iter().zip(by_bias) {
        assert!((found - expected).abs() < 1e-13);
    }
    let wrong = Examples { targets: Targets::Values(vec![0.0, 0.0, 0.0, 1.5]), ..batch };
    assert!(objective.measure(&wrong, Pass::EVALUATE).unwrap_err().to_string().contains("from 0 to 1, got 1.5"));
}
