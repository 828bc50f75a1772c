//! JSON: there and back, canonical, and nothing that is wrong gets in.
#![allow(clippy::unwrap_used)]

mod common;

use landscape_graph::{Bias, Conv2d, Error, Graph, GraphBuilder};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A residual block with a head: enough to break in many ways.
fn sample() -> Value {
    let mut b = GraphBuilder::new([3, 8, 8]);
    let x = b.conv2d("conv1", b.input(), Conv2d { padding: [1, 1], bias: Bias::Off, ..Conv2d::new(4, 3) }).unwrap();
    let y = b.batch_norm("bn1", x).unwrap();
    let y = b.add("add", x, y).unwrap();
    let y = b.max_pool2d("pool", y, 2, 2).unwrap();
    let y = b.flatten("flatten", y).unwrap();
    let y = b.dropout("dropout", y, 0.25).unwrap();
    let y = b.linear("fc", y, 10, Bias::On).unwrap();
    serde_json::from_str(&b.finish(y).unwrap().to_json()).unwrap()
}

/// The sample with one thing changed.
fn broken(change: impl FnOnce(&mut Value)) -> Error {
    let mut value = sample();
    change(&mut value);
    Graph::from_json(&value.to_string()).unwrap_err()
}

fn read(value: &Value) -> Graph {
    Graph::from_json(&value.to_string()).unwrap()
}

#[test]
fn the_text_is_fixed() {
    let mut b = GraphBuilder::new([4]);
    let x = b.linear("fc", b.input(), 3, Bias::Off).unwrap();
    let x = b.batch_norm("bn", x).unwrap();
    let text = b.finish(x).unwrap().to_json();
    let expected = concat!(
        r#"{"format_version":1,"input_shape":[4],"nodes":[{"name":"input","op":"input","inputs":[]},"#,
        r#"{"name":"fc","op":"linear","in_features":4,"out_features":3,"bias":false,"inputs":["input"]},"#,
        r#"{"name":"bn","op":"batch_norm","num_features":3,"eps":0.00001,"momentum":0.1,"affine":true,"inputs":["fc"]}],"#,
        r#""output":"bn"}"#
    );
    assert_eq!(text, expected);
}

#[test]
fn the_order_and_spacing_of_a_file_do_not_matter() {
    let value = sample();
    let graph = read(&value);
    assert_eq!(Graph::from_json(&serde_json::to_string_pretty(&value).unwrap()).unwrap().to_json(), graph.to_json());
    let embedded: Value = serde_json::to_value(&graph).unwrap();
    assert_eq!(serde_json::from_value::<Graph>(embedded).unwrap(), graph);
}

#[test]
fn an_unknown_op_is_named_with_its_node() {
    let error = broken(|v| v["nodes"][2]["op"] = json!("instance_norm"));
    assert!(matches!(&error, Error::UnknownOp { node, got, .. } if node == "bn1" && got == "instance_norm"), "{error}");
    assert!(error.to_string().contains("`batch_norm`"), "{error}");
    assert!(matches!(broken(|v| v["nodes"][2]["op"] = json!(7)), Error::UnknownOp { .. }));
}

#[test]
fn unknown_and_missing_fields_are_named() {
    for (idx, field) in [(1, "padding_mode"), (3, "alpha"), (5, "start_dim")] {
        let message = broken(|v| v["nodes"][idx][field] = json!(1)).to_string();
        assert!(message.contains(field), "{message}");
    }
    for (idx, field) in [(1, "stride"), (2, "eps"), (4, "op"), (4, "inputs"), (6, "p"), (7, "name")] {
        let message = broken(|v| drop(v["nodes"][idx].as_object_mut().unwrap().remove(field))).to_string();
        assert!(message.contains(&format!("`{field}`")), "{message}");
    }
    assert!(broken(|v| v["comment"] = json!("")).to_string().contains("comment"));
    for field in ["format_version", "input_shape", "nodes", "output"] {
        let message = broken(|v| drop(v.as_object_mut().unwrap().remove(field))).to_string();
        assert!(message.contains(field), "{message}");
    }
}

#[test]
fn names_are_unique_and_module_paths() {
    assert_eq!(broken(|v| v["nodes"][2]["name"] = json!("conv1")), Error::DuplicateName { name: "conv1".to_owned() });
    assert_eq!(broken(|v| v["nodes"][1]["name"] = json!("input")), Error::DuplicateName { name: "input".to_owned() });
    for name in ["", "a b", "a..b", ".a", "a\u{0}", &"x".repeat(300)] {
        assert!(matches!(broken(|v| v["nodes"][7]["name"] = json!(name)), Error::Name { .. }), "{name:?}");
        let rename_input = |v: &mut Value| (v["nodes"][0]["name"], v["nodes"][1]["inputs"]) = (json!(name), json!([name]));
        assert!(matches!(broken(rename_input), Error::Name { .. }), "{name:?}");
        let lone = json!({"format_version": 1, "input_shape": [4], "nodes": [{"name": name, "op": "input", "inputs": []}], "output": name});
        assert!(matches!(Graph::from_json(&lone.to_string()), Err(Error::Name { .. })), "{name:?}");
    }
}

#[test]
fn forward_references_and_cycles_are_refused() {
    for input in ["fc", "bn1", "nowhere"] {
        let error = broken(|v| v["nodes"][2]["inputs"] = json!([input]));
        assert_eq!(error, Error::UnknownInput { node: "bn1".to_owned(), input: input.to_owned() });
    }
}

#[test]
fn the_inputs_stand_first() {
    assert!(matches!(broken(|v| drop(v["nodes"].as_array_mut().unwrap().remove(0))), Error::Input(_)));
    assert!(matches!(broken(|v| v["nodes"] = json!([])), Error::Input(_)));
    assert!(matches!(broken(|v| v["nodes"][0]["inputs"] = json!(["fc"])), Error::Input(_)));
    let second = |shape: Value| broken(move |v| v["nodes"][2] = json!({"name": "bn1", "op": "input", "inputs": [], "shape": shape}));
    assert!(matches!(second(json!([3])), Error::Input(_)));
    assert!(matches!(second(json!([0])), Error::Shape { .. }));
    assert!(matches!(broken(|v| v["nodes"][1] = json!({"name": "conv1", "op": "input", "inputs": []})), Error::Json(_)));
}

#[test]
fn nodes_without_effect_are_refused() {
    assert_eq!(broken(|v| v["output"] = json!("flatten")), Error::DeadNode { node: "fc".to_owned(), output: "flatten".to_owned() });
    assert!(matches!(broken(|v| v["nodes"][3]["inputs"] = json!(["conv1", "conv1"])), Error::DeadNode { .. }));
    assert!(broken(|v| v["output"] = json!("logits")).to_string().contains("`logits`"));
}

#[test]
fn shapes_that_do_not_fit_are_refused_with_the_node() {
    let cases: [(usize, &str, Value); 8] = [
        (1, "in_channels", json!(4)),
        (1, "groups", json!(2)),
        (1, "kernel_size", json!([11, 3])),
        (1, "stride", json!([0, 1])),
        (2, "num_features", json!(5)),
        (4, "padding", json!([2, 0])),
        (7, "in_features", json!(63)),
        (7, "out_features", json!(0)),
    ];
    for (idx, field, value) in cases {
        let name = sample()["nodes"][idx]["name"].as_str().unwrap().to_owned();
        let message = broken(|v| v["nodes"][idx][field] = value.clone()).to_string();
        assert!(message.contains(&format!("`{name}`")), "{field} = {value}: {message}");
    }
    for shape in [json!([]), json!([3, 8]), json!([3, 0, 8]), json!([1, 3, 8, 8])] {
        assert!(matches!(broken(|v| v["input_shape"] = shape), Error::Shape { .. }));
    }
    assert!(matches!(broken(|v| v["nodes"][3]["inputs"] = json!(["bn1"])), Error::Arity { got: 1, .. }));
    assert!(matches!(broken(|v| v["nodes"][2]["inputs"] = json!([])), Error::Arity { got: 0, .. }));
}

#[test]
fn numbers_out_of_range_are_refused() {
    let cases = [(2, "eps", json!(0.0)), (2, "eps", json!(-1.0)), (2, "momentum", json!(1.5)), (6, "p", json!(1.0)), (6, "p", json!(-0.1))];
    for (idx, field, value) in cases {
        let error = broken(|v| v["nodes"][idx][field] = value.clone());
        assert!(matches!(&error, Error::Attribute { field: f, .. } if *f == field), "{error}");
    }
    for value in [json!(-1), json!(1.5), json!("3"), json!(null), json!([3])] {
        assert!(matches!(broken(|v| v["nodes"][1]["out_channels"] = value), Error::Json(_)));
    }
}

/// Sizes up to the largest number give an error, in no time: nothing of that size is computed or allocated.
#[test]
fn huge_sizes_are_refused() {
    for huge in [1u64 << 41, u64::MAX / 2, u64::MAX] {
        for (idx, field) in [(1, "out_channels"), (7, "out_features"), (7, "in_features")] {
            broken(|v| v["nodes"][idx][field] = json!(huge));
        }
        for field in ["kernel_size", "stride", "padding", "dilation"] {
            for pair in [json!([huge, 1]), json!([1, huge]), json!([huge, huge])] {
                let mut value = sample();
                value["nodes"][1][field] = pair;
                assert!(Graph::from_json(&value.to_string()).is_err(), "{field} {huge}");
            }
        }
        for shape in [json!([huge, 8, 8]), json!([3, huge, huge]), json!([huge])] {
            broken(|v| v["input_shape"] = shape);
        }
        let adaptive = json!({"name": "pool", "op": "adaptive_avg_pool2d", "output_size": [huge, huge], "inputs": ["add"]});
        broken(|v| v["nodes"][4] = adaptive);
    }
}

/// Each node is within bounds, their sum is not.
#[test]
fn networks_that_are_too_large_as_a_whole_are_refused() {
    let mut b = GraphBuilder::new([1 << 20]);
    let mut x = b.input();
    for idx in 0..3 {
        x = b.linear(&format!("fc{idx}"), x, 1 << 20, Bias::Off).unwrap();
    }
    assert!(matches!(b.finish(x), Err(Error::TooLarge { node, .. }) if node == "fc1"));
    let mut b = GraphBuilder::new([1 << 20, 1 << 10, 1 << 10]);
    let x = b.conv2d("conv", b.input(), Conv2d::new(1 << 20, 1)).unwrap();
    assert!(matches!(b.finish(x), Err(Error::TooLarge { .. })));
}

#[test]
fn other_versions_are_told_apart() {
    assert_eq!(broken(|v| v["format_version"] = json!(3)), Error::FormatVersion { got: 3, supported: 2 });
    // A later format may look like anything else.
    assert_eq!(Graph::from_json(r#"{"format_version": 3, "layers": []}"#), Err(Error::FormatVersion { got: 3, supported: 2 }));
    for version in [json!(0), json!(-1), json!("1"), json!(null), json!(1.5)] {
        assert!(matches!(broken(|v| v["format_version"] = version), Error::Json(_)));
    }
    for text in ["", "{", "[]", "1", "null", r#"{"format_version":1}"#] {
        assert!(matches!(Graph::from_json(text), Err(Error::Json(_))), "{text}");
    }
}

/// Builds the same nodes once more; nothing but the declaration decides the result.
fn rebuilt(graph: &Graph) -> Graph {
    let mut b = GraphBuilder::new(graph.input_shape().clone());
    let mut last = b.input();
    for node in &graph.nodes()[1..] {
        last = b.push(&node.name, node.op.clone(), &node.inputs).unwrap();
    }
    b.finish(last).unwrap()
}

/// The random networks are worth something: every op that the old format has comes up. `all_ops.rs` has the others.
#[test]
fn random_networks_have_the_ops_of_version_1() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let graph = common::graphs().new_tree(&mut runner).unwrap().current();
        seen.extend(graph.nodes().iter().map(|n| n.op.name()));
    }
    assert_eq!(seen.len(), 14);
}

proptest! {
    #[test]
    fn there_and_back(graph in common::graphs()) {
        let text = graph.to_json();
        let read = Graph::from_json(&text).unwrap();
        prop_assert_eq!(&read, &graph);
        prop_assert_eq!(read.to_json(), text.clone());
        prop_assert_eq!(rebuilt(&graph).to_json(), text);
    }

    /// The parts of the state dict are its whole, every name once, and as many numbers as the cost says.
    #[test]
    fn the_state_dict_is_parameters_and_buffers(graph in common::graphs()) {
        let mut parts = [graph.params(), graph.buffers()].concat();
        let whole = graph.state_dict();
        parts.sort_by_key(|t| whole.iter().position(|w| w == t));
        prop_assert_eq!(&parts, &whole);
        let names: BTreeSet<_> = whole.iter().map(|t| &t.name).collect();
        prop_assert_eq!(names.len(), whole.len());
        prop_assert!(whole.windows(2).all(|pair| pair[0].node <= pair[1].node));
        prop_assert_eq!(graph.params().iter().map(|t| t.n_elements()).sum::<usize>(), graph.n_parameters());
        prop_assert_eq!(graph.buffers().iter().map(|t| t.n_elements() as u64).sum::<u64>(), graph.cost().n_buffers);
    }

    /// A damaged file gives an error or another valid graph, never a panic.
    #[test]
    fn damaged_text_does_no_harm(graph in common::graphs(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = graph.to_json().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(graph) = Graph::from_json(&String::from_utf8_lossy(&bytes)) {
            prop_assert_eq!(Graph::from_json(&graph.to_json()).unwrap(), graph);
        }
    }

    /// The same with whole values: any number becomes any other.
    #[test]
    fn strange_numbers_do_no_harm(graph in common::graphs(), at in any::<prop::sample::Index>(), number in prop_oneof![
        any::<u64>(), 0u64..70, Just(u64::MAX), Just(1 << 20), Just(1 << 40)
    ]) {
        let mut value: Value = serde_json::from_str(&graph.to_json()).unwrap();
        let mut numbers = Vec::new();
        collect_numbers(&mut value, &mut numbers);
        let at = at.index(numbers.len());
        *numbers.swap_remove(at) = json!(number);
        if let Ok(graph) = Graph::from_json(&value.to_string()) {
            prop_assert_eq!(Graph::from_json(&graph.to_json()).unwrap(), graph);
        }
    }
}

fn collect_numbers<'a>(value: &'a mut Value, into: &mut Vec<&'a mut Value>) {
    match value {
        Value::Number(_) => into.push(value),
        Value::Array(values) => values.iter_mut().for_each(|v| collect_numbers(v, into)),
        Value::Object(fields) => fields.values_mut().for_each(|v| collect_numbers(v, into)),
        _ => {}
    }
}
