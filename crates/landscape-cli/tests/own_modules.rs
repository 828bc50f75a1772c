//! Networks of one's own: the script that writes them, and graphs as files.
#![allow(clippy::unwrap_used)]

mod common;

use common::Sandbox;

/// The digits' images, by a batch norm and a shared layer.
const GRAPH: &str = r#"{"format_version":2,"nodes":[
    {"name":"image","op":"input","inputs":[],"shape":[1,8,8]},
    {"name":"norm","op":"batch_norm","num_features":1,"eps":1e-05,"momentum":0.1,"affine":true,"inputs":["image"]},
    {"name":"flatten","op":"flatten","inputs":["norm"]},
    {"name":"mix","op":"linear","in_features":64,"out_features":64,"bias":true,"inputs":["flatten"]},
    {"name":"act","op":"silu","inputs":["mix"]},
    {"name":"mix_1","op":"linear","in_features":64,"out_features":64,"bias":true,"inputs":["act"],
     "tensors":{"weight":"mix.weight","bias":"mix.bias"}},
    {"name":"fc","op":"linear","in_features":64,"out_features":10,"bias":true,"inputs":["mix_1"]}],"outputs":["fc"]}"#;

#[test]
fn the_script_is_printed_as_it_is() {
    let answer = Sandbox::new().ok(&["export-script"]);
    assert_eq!(answer.stdout, include_str!("../src/export_graph.py"));
    assert!(answer.stderr.is_empty(), "{answer}");
}

#[test]
fn a_graph_of_a_file_is_trained_and_joined() {
    let sandbox = Sandbox::new();
    sandbox.write("own.json", GRAPH);
    for (seed, out) in [("0", "a.safetensors"), ("1", "b.safetensors")] {
        sandbox.ok(&["train", "--model", "own.json", "--max-steps", "2", "--seed", seed, "--out", out]);
    }
    // The checkpoint knows its graph.
    let inspected = sandbox.json(&["inspect", "a.safetensors"]);
    let names: Vec<_> = inspected["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect();
    assert!(names.contains(&"mix.weight".to_owned()) && !names.contains(&"mix_1.weight".to_owned()), "{names:?}");
    sandbox.ok(&["connect", "a.safetensors", "b.safetensors", "--max-steps", "2", "--out", "run"]);
    sandbox.ok(&["profile", "run", "--samples", "3"]);
}

#[test]
fn a_graph_that_cannot_be_is_refused_by_its_node() {
    let sandbox = Sandbox::new();
    let refused = |text: &str, needles: &[&str]| {
        sandbox.write("own.json", text);
        sandbox.refused(&["train", "--model", "own.json", "--out", "new.safetensors"], &[&["own.json"], needles].concat());
    };
    refused("{", &["not JSON"]);
    refused(&GRAPH.replace("silu", "swish"), &["act", "swish", "silu"]);
    refused(&GRAPH.replace(r#""inputs":["mix"]"#, r#""inputs":["fc"]"#), &["act", "fc"]);
    refused(&GRAPH.replace(r#""in_features":64,"out_features":10"#, r#""in_features":65,"out_features":10"#), &["fc", "65"]);
    refused(&GRAPH.replace(r#""outputs":["fc"]"#, r#""outputs":["mix_1"]"#), &["fc"]);
    refused(&GRAPH.replace(r#""format_version":2"#, r#""format_version":3"#), &["3", "2"]);
    sandbox.refused(&["train", "--model", "none.json", "--out", "new.safetensors"], &["none.json", "No such file"]);
    sandbox.write("own.json", GRAPH.replace("[1,8,8]", "[1,4,16]"));
    sandbox.refused(&["train", "--model", "own.json", "--out", "new.safetensors"], &["[1, 4, 16]", "[1, 8, 8]"]);
}
