//! Every op: the shape of its result, what it refuses, and the way there and back as JSON.
#![allow(clippy::unwrap_used)]

use landscape_graph::{Bias, Dtype, Error, Gelu, Graph, GraphBuilder, NodeId, Op, Role, RopeStyle, Shape, Upsampling, WeightOrder, infer};
use std::collections::BTreeSet;

/// An op, what it reads, and PyTorch's shape of the result.
fn table() -> Vec<(Op, Vec<Vec<usize>>, Vec<usize>)> {
    let linear = |weight_order| Op::Linear { in_features: 6, out_features: 5, bias: true, weight_order };
    let transposed = Op::ConvTranspose2d {
        in_channels: 4,
        out_channels: 6,
        kernel_size: [3, 2],
        stride: [2, 1],
        padding: [1, 0],
        output_padding: [1, 0],
        dilation: [1, 2],
        groups: 2,
        bias: true,
    };
    let conv1d = Op::Conv1d { in_channels: 4, out_channels: 8, kernel_size: 3, stride: 2, padding: 1, dilation: 2, groups: 4, bias: false };
    let norm = |bias| Op::LayerNorm { normalized_shape: vec![5, 6], eps: 1e-5, elementwise_affine: true, bias };
    let image = vec![4, 5, 6];
    vec![
        (linear(WeightOrder::OutIn), vec![vec![2, 3, 6]], vec![2, 3, 5]),
        (linear(WeightOrder::InOut), vec![vec![6]], vec![5]),
        (conv1d, vec![vec![4, 9]], vec![8, 4]),
        (transposed, vec![image.clone()], vec![6, 10, 8]),
        (norm(true), vec![image.clone()], image.clone()),
        (norm(false), vec![image.clone()], image.clone()),
        (Op::RmsNorm { normalized_shape: vec![6], eps: 1e-6, elementwise_affine: true }, vec![image.clone()], image.clone()),
        (Op::GroupNorm { num_groups: 2, num_channels: 4, eps: 1e-5, affine: true }, vec![image.clone()], image.clone()),
        (Op::Attention { causal: true, scale: 0.5 }, vec![vec![4, 5, 6], vec![2, 7, 6], vec![2, 7, 3]], vec![4, 5, 3]),
        (Op::Rope { base: 1e4, rotary_dim: 4, style: RopeStyle::Half }, vec![image.clone()], image.clone()),
        (Op::Matmul, vec![vec![2, 3, 4], vec![2, 4, 5]], vec![2, 3, 5]),
        (Op::Softmax { dim: 1 }, vec![image.clone()], image.clone()),
        (Op::Silu, vec![image.clone()], image.clone()),
        (Op::Sigmoid, vec![image.clone()], image.clone()),
        (Op::Hardswish, vec![image.clone()], image.clone()),
        (Op::Hardsigmoid, vec![image.clone()], image.clone()),
        (Op::Tanh, vec![image.clone()], image.clone()),
        (Op::LeakyRelu { negative_slope: 0.01 }, vec![image.clone()], image.clone()),
        (Op::Hardtanh { min_val: 0.0, max_val: 6.0 }, vec![image.clone()], image.clone()),
        (Op::Elu { alpha: 1.0 }, vec![image.clone()], image.clone()),
        (Op::Softplus, vec![image.clone()], image.clone()),
        (Op::Exp, vec![image.clone()], image.clone()),
        (Op::Affine { scale: -1.0, shift: 0.5 }, vec![image.clone()], image.clone()),
        (Op::Power { exponent: 2.0 }, vec![image.clone()], image.clone()),
        (Op::Multiply, vec![image.clone(), vec![4, 1, 1]], image.clone()),
        (Op::Add, vec![vec![1, 6], image.clone()], image.clone()),
        (Op::Mean { start_dim: 1, end_dim: 2, keepdim: true }, vec![image.clone()], vec![4, 1, 1]),
        (Op::Mean { start_dim: 0, end_dim: 1, keepdim: false }, vec![image.clone()], vec![6]),
        (Op::Upsample { size: [10, 3], method: Upsampling::Bilinear }, vec![image.clone()], vec![4, 10, 3]),
        (Op::Reshape { shape: vec![2, 60] }, vec![image.clone()], vec![2, 60]),
        (Op::Permute { dims: vec![2, 0, 1] }, vec![image.clone()], vec![6, 4, 5]),
        (Op::Expand { shape: vec![3, 2, 5] }, vec![vec![2, 1]], vec![3, 2, 5]),
        (Op::Slice { dim: 2, start: 1, end: 6, step: 2 }, vec![image.clone()], vec![4, 5, 3]),
        (Op::Concat { dim: 1 }, vec![image.clone(), vec![4, 2, 6]], vec![4, 7, 6]),
        (Op::Parameter { shape: vec![1, 7] }, vec![], vec![1, 7]),
        (Op::Constant { shape: vec![2, 1], values: vec![0.1, -3e38] }, vec![], vec![2, 1]),
    ]
}

fn shapes(inputs: &[Vec<usize>]) -> Vec<&Shape> {
    inputs.iter().collect()
}

/// The op alone, between inputs and output.
fn alone(op: &Op, inputs: &[Vec<usize>]) -> Graph {
    let mut b = GraphBuilder::with_input("x", inputs.first().cloned().unwrap_or(vec![1]), Dtype::Float);
    for (idx, shape) in inputs.iter().enumerate().skip(1) {
        b.add_input(&format!("x{idx}"), shape.clone(), Dtype::Float).unwrap();
    }
    let ids: Vec<NodeId> = (0..inputs.len()).map(NodeId).collect();
    let node = b.push("op", op.clone(), &ids).unwrap();
    if inputs.is_empty() { b.finish_with(&[node, NodeId(0)]) } else { b.finish(node) }.unwrap()
}

#[test]
fn shapes_are_pytorchs_and_json_goes_there_and_back() {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (op, inputs, expected) in table() {
        seen.insert(op.name());
        assert_eq!(infer("op", &op, &shapes(&inputs)).unwrap(), expected, "{op:?}");
        let graph = alone(&op, &inputs);
        let text = graph.to_json();
        assert_eq!(Graph::from_json(&text).unwrap(), graph, "{text}");
        assert_eq!(Graph::from_json(&text).unwrap().to_json(), text);
    }
    let old = ["input", "conv2d", "batch_norm", "relu", "gelu", "dropout", "flatten", "global_avg_pool"];
    let pools = ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"];
    // The old format's are in `shape.rs` and `json.rs`.
    seen.extend(old.into_iter().chain(pools).chain(["embedding"]));
    assert_eq!(seen, BTreeSet::from(Op::NAMES));
}

#[test]
fn every_op_refuses_a_shape_that_it_cannot_take() {
    for (op, inputs, _) in table() {
        // An input more is too many, but for a concatenation, and an axis of another length, or none, does not fit.
        let mut more = inputs.clone();
        more.push(vec![4, 5, 6]);
        if !matches!(op, Op::Concat { .. }) {
            assert!(matches!(infer("op", &op, &shapes(&more)), Err(Error::Arity { .. })), "{op:?}");
        }
    }
    let refused = |op: Op, inputs: &[&[usize]]| {
        let inputs: Vec<Vec<usize>> = inputs.iter().map(|s| s.to_vec()).collect();
        infer("here", &op, &shapes(&inputs)).unwrap_err().to_string()
    };
    let norm = |normalized_shape: &[usize]| Op::LayerNorm {
        normalized_shape: normalized_shape.to_vec(),
        eps: 1e-5,
        elementwise_affine: true,
        bias: true,
    };
    let attention = Op::Attention { causal: false, scale: 1.0 };
    for message in [
        refused(norm(&[5]), &[&[4, 6]]),
        refused(norm(&[]), &[&[4, 6]]),
        refused(Op::GroupNorm { num_groups: 3, num_channels: 4, eps: 1e-5, affine: true }, &[&[4, 2, 2]]),
        refused(Op::GroupNorm { num_groups: 2, num_channels: 4, eps: 0.0, affine: true }, &[&[4, 2, 2]]),
        refused(attention.clone(), &[&[3, 5, 6], &[2, 5, 6], &[2, 5, 6]]),
        refused(attention.clone(), &[&[4, 5, 6], &[2, 5, 6], &[2, 4, 6]]),
        refused(attention, &[&[4, 6], &[2, 6], &[2, 6]]),
        refused(Op::Rope { base: 1e4, rotary_dim: 3, style: RopeStyle::Half }, &[&[1, 2, 8]]),
        refused(Op::Rope { base: 1e4, rotary_dim: 10, style: RopeStyle::Half }, &[&[1, 2, 8]]),
        refused(Op::Matmul, &[&[2, 3], &[2, 3]]),
        refused(Op::Softmax { dim: 2 }, &[&[2, 3]]),
        refused(Op::Affine { scale: f64::NAN, shift: 0.0 }, &[&[2]]),
        refused(Op::Hardtanh { min_val: 1.0, max_val: 1.0 }, &[&[2]]),
        refused(Op::Multiply, &[&[2, 3], &[2]]),
        refused(Op::Mean { start_dim: 1, end_dim: 0, keepdim: false }, &[&[2, 3]]),
        refused(Op::Reshape { shape: vec![7] }, &[&[2, 3]]),
        refused(Op::Reshape { shape: vec![1 << 63, 2, 6] }, &[&[2, 3]]),
        refused(Op::Permute { dims: vec![0, 0] }, &[&[2, 3]]),
        refused(Op::Expand { shape: vec![2, 4] }, &[&[2, 3]]),
        refused(Op::Slice { dim: 0, start: 1, end: 3, step: 1 }, &[&[2, 3]]),
        refused(Op::Slice { dim: 0, start: 1, end: 1, step: 1 }, &[&[2, 3]]),
        refused(Op::Slice { dim: 0, start: 0, end: 1, step: 0 }, &[&[2, 3]]),
        refused(Op::Constant { shape: vec![2], values: vec![1.0] }, &[]),
        refused(Op::Upsample { size: [0, 1], method: Upsampling::Nearest }, &[&[1, 2, 2]]),
    ] {
        assert!(message.starts_with("node `here`"), "{message}");
    }
}

/// A network of tokens whose last layer has the weight of the first.
fn tied() -> GraphBuilder {
    let mut b = GraphBuilder::with_input("tokens", [8], Dtype::Int);
    b.add_input("features", [8, 4], Dtype::Float).unwrap();
    let x = b.push("wte", Op::Embedding { num_embeddings: 11, embedding_dim: 4 }, &[NodeId(0)]).unwrap();
    let x = b.add("sum", x, NodeId(1)).unwrap();
    let x = b.gelu("act", x, Gelu::Tanh).unwrap();
    let x = b.linear("lm_head", x, 11, Bias::Off).unwrap();
    b.name_tensor(x, Role::Weight, "wte.weight").unwrap();
    b
}

#[test]
fn shared_tensors_count_once_and_belong_to_the_first() {
    let graph = tied().finish(NodeId(5)).unwrap();
    assert_eq!(graph.n_parameters(), 44);
    assert_eq!(graph.params().len(), 1);
    assert_eq!((graph.params()[0].name.as_str(), graph.params()[0].node), ("wte.weight", NodeId(2)));
    assert_eq!((graph.inputs().len(), graph.n_input_elements()), (2, 8 + 32));
    assert_eq!(graph.node_cost(NodeId(5)).n_parameters, 0);
    assert_eq!(graph.cost().forward_macs, 8 * 4 * 11);
    assert_eq!(Graph::from_json(&graph.to_json()).unwrap(), graph);
    assert!(graph.split_first_layer().is_none());
    let both = tied().finish_with(&[NodeId(5), NodeId(3)]).unwrap();
    assert_eq!(both.outputs(), [NodeId(5), NodeId(3)]);
    assert_eq!(Graph::from_json(&both.to_json()).unwrap(), both);
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let mut b = tied();
    let x = b.linear("other", NodeId(5), 4, Bias::On).unwrap();
    assert!(matches!(b.name_tensor(x, Role::RunningMean, "m"), Err(Error::NoSuchTensor { .. })));
    assert!(matches!(b.name_tensor(x, Role::Weight, "a..b"), Err(Error::Name { .. })));
    b.name_tensor(x, Role::Weight, "wte.weight").unwrap();
    let message = b.finish(x).unwrap_err().to_string();
    assert!(message.contains("`other`") && message.contains("`wte.weight`") && message.contains("`wte`"), "{message}");

    let mut b = tied();
    let x = b.batch_norm("bn", NodeId(5)).unwrap();
    assert!(matches!(b.name_tensor(x, Role::RunningMean, "bn.mean"), Err(Error::NoSuchTensor { .. })));
    b.name_tensor(x, Role::Weight, "bn.running_var").unwrap();
    assert!(matches!(b.finish(x), Err(Error::SharedTensor { .. })));
    assert!(matches!(tied().finish_with(&[]), Err(Error::Output(_))));
    assert!(matches!(tied().finish_with(&[NodeId(5), NodeId(5)]), Err(Error::Output(_))));
}

#[test]
fn only_whole_numbers_are_looked_up() {
    let embedding = Op::Embedding { num_embeddings: 3, embedding_dim: 2 };
    let mut b = GraphBuilder::new([4]);
    let message = b.push("wte", embedding.clone(), &[NodeId(0)]).unwrap_err().to_string();
    assert!(message.contains("`wte`") && message.contains("`input`"), "{message}");
    let mut b = GraphBuilder::with_input("tokens", [2, 2], Dtype::Int);
    let x = b.flatten("flat", b.input()).unwrap();
    let positions = b.push("positions", Op::Constant { shape: vec![4], values: vec![0.0, 1.0, 2.0, 0.0] }, &[]).unwrap();
    let x = b.push("wte", embedding.clone(), &[x]).unwrap();
    let p = b.push("wpe", embedding, &[positions]).unwrap();
    let x = b.add("sum", x, p).unwrap();
    assert_eq!(b.finish(x).unwrap().output_shape(), &[4, 2]);
}
