//! Files of every kind of network against what ONNX Runtime computes of them; see `tests/golden/make_onnx_fixtures.py`.
#![allow(clippy::unwrap_used)]

use landscape_core::{ParamLayout, Pass};
use landscape_graph::{Graph, Op};
use landscape_kernels::Device;
use landscape_network::Executor;
use landscape_onnx::{Imported, import};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("expected.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn outputs(imported: &Imported, inputs: &[f64], n: usize) -> Vec<Vec<f64>> {
    let graph = Arc::new(imported.graph.clone());
    let layout = Arc::new(ParamLayout::of_graph(&graph).unwrap());
    let mut executor = Executor::<f64>::new(graph.clone(), &Device::Cpu).unwrap();
    executor.load(&imported.checkpoint.params(&layout).unwrap()).unwrap();
    executor.set_buffers(&imported.checkpoint.buffers(&graph).unwrap()).unwrap();
    executor.evaluate(inputs, n, Pass::EVALUATE).unwrap();
    (0..graph.outputs().len()).map(|idx| executor.output_at(idx).unwrap().host().to_vec()).collect()
}

fn check(file: &str, name: &str) -> Imported {
    let expected = expected();
    let (n, expected) = (expected["n"].as_u64().unwrap() as usize, &expected[name]);
    let imported = import(&fixture(file)).unwrap();
    let mut names: Vec<String> = imported.graph.params().into_iter().map(|t| t.name).collect();
    names.sort();
    assert_eq!(serde_json::json!(names), expected["names"], "{name}");
    assert_eq!(imported.graph.n_parameters() as u64, expected["n_parameters"].as_u64().unwrap(), "{name}");
    let got = outputs(&imported, &numbers(&expected["inputs"]), n);
    let wanted: Vec<Vec<f64>> = expected["outputs"].as_array().unwrap().iter().map(numbers).collect();
    assert_eq!(got.len(), wanted.len(), "{name}");
    for (got, wanted) in got.iter().zip(&wanted) {
        assert_eq!(got.len(), wanted.len(), "{name}");
        let scale = wanted.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        let off = got.iter().zip(wanted).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(off <= 1e-5 * scale, "{name}: {off} of {scale}: {got:?} {wanted:?}");
    }
    assert_eq!(imported.checkpoint.metadata.as_ref().unwrap().graph.as_ref(), Some(&imported.graph));
    imported
}

fn count(graph: &Graph, op: &str) -> usize {
    graph.nodes().iter().filter(|node| node.op.name() == op).count()
}

#[test]
fn a_linear_layer_in_two_ops_is_one() {
    let graph = check("mlp.onnx", "mlp").graph;
    assert_eq!([count(&graph, "linear"), count(&graph, "add"), graph.nodes().len()], [2, 0, 4]);
}

#[test]
fn weights_in_a_file_of_their_own() {
    check("external.onnx", "mlp");
}

#[test]
fn convolutions_keep_their_batch_norm() {
    let imported = check("convnet.onnx", "convnet");
    let graph = &imported.graph;
    let norm = graph.node(graph.find("bn1").unwrap());
    assert_eq!(norm.op, Op::BatchNorm { num_features: 4, eps: 1e-3, momentum: 0.2, affine: true });
    assert_eq!(imported.checkpoint.get("bn1.num_batches_tracked").unwrap().to_f64_vec(), [0.0]);
    for (op, n) in [("silu", 1), ("sigmoid", 0), ("hardswish", 1), ("hardsigmoid", 1), ("conv_transpose2d", 1), ("upsample", 1)] {
        assert_eq!(count(graph, op), n, "{op}");
    }
}

#[test]
fn a_decoder_written_out_is_put_together_again() {
    let graph = check("transformer.onnx", "transformer").graph;
    for (op, n) in [("layer_norm", 1), ("rms_norm", 1), ("gelu", 2), ("attention", 1), ("softmax", 0), ("matmul", 0), ("linear", 5)] {
        assert_eq!(count(&graph, op), n, "{op}");
    }
    let attention = graph.nodes().iter().find(|node| node.op.name() == "attention").unwrap();
    assert_eq!(attention.op, Op::Attention { causal: true, scale: 0.5 });
    assert_eq!(attention.shape, [2, 5, 4]);
    // The last layer and the table share their weight.
    let last = graph.node(graph.output());
    assert_eq!(last.tensor_name(landscape_graph::Role::Weight), "wte.weight");
}

#[test]
fn several_inputs_and_outputs_and_a_batch_that_the_file_fixes() {
    let graph = check("mixed.onnx", "mixed").graph;
    assert_eq!((graph.inputs().len(), graph.outputs().len()), (2, 2));
    let norm = graph.nodes().iter().find(|node| matches!(node.op, Op::GroupNorm { num_groups: 3, .. })).unwrap();
    assert_eq!(norm.op, Op::GroupNorm { num_groups: 3, num_channels: 6, eps: 1e-5, affine: true });
}

#[test]
fn attention_of_version_23() {
    let graph = check("attention.onnx", "attention").graph;
    assert_eq!([count(&graph, "attention"), count(&graph, "rms_norm")], [1, 1]);
}
