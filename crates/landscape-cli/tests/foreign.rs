//! Two networks that PyTorch trained, joined here, and a point of the curve for PyTorch to take back.
//!
//! `fixtures/make_foreign.py` made the files, and wrote down what PyTorch finds for them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MODEL, Sandbox};
use landscape_core::checkpoint::Checkpoint;
use landscape_core::foreign::read_state_dict;
use landscape_core::tensor::Dtype;
use serde_json::Value;

const N_TRAIN: f64 = 1437.0;
const N_TEST: f64 = 360.0;

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn of_pytorch(name: &str) -> Value {
    let text = std::fs::read_to_string(fixture("foreign.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[name].clone()
}

/// Mean loss and wrong answers over all digits, as the fixture has them.
fn over_all(measured: &Value) -> (f64, f64) {
    let number = |split: &str, name: &str| measured[split][name].as_f64().unwrap();
    let sum = |name: &str| N_TRAIN * number("train", name) + N_TEST * number("test", name);
    (sum("nll") / (N_TRAIN + N_TEST), sum("error"))
}

/// Names, shapes and dtypes, in the order of the file.
fn tensors(checkpoint: &Checkpoint) -> Vec<(String, Dtype, Vec<usize>)> {
    checkpoint.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dtype(), tensor.shape().to_vec())).collect()
}

fn check_against_pytorch(measured: &Value, name: &str) {
    let (nll, n_wrong) = over_all(measured);
    let expected = of_pytorch(name);
    let difference = (nll - expected["nll"].as_f64().unwrap()).abs();
    assert!(difference < 1e-5 * expected["nll"].as_f64().unwrap().max(1.0), "{name}: {nll} here, {expected} in PyTorch");
    assert_eq!(n_wrong.round(), expected["n_wrong"].as_f64().unwrap());
}

#[test]
fn a_pytorch_pair_is_joined_and_a_point_keeps_its_names_and_dtypes() {
    for (a, b, wrapped) in [("foreign_a", "foreign_b", "a"), ("foreign_half", "foreign_b", "half")] {
        let sandbox = Sandbox::new();
        let (a_file, b_file) = (fixture(&format!("{a}.pth")), fixture(&format!("{b}.pth")));
        let connect = ["connect", &a_file, &b_file, "--model", MODEL, "--data", "digits", "--epochs", "3", "--out", "run"];
        let answer = sandbox.ok(&connect);
        for pair in ["0.weight -> fc1.weight", "0.bias -> fc1.bias", "2.weight -> fc2.weight", "2.bias -> fc2.bias"] {
            assert!(answer.stderr.contains(pair), "the mapping is printed: {answer}");
        }
        let original = read_state_dict(a_file.as_ref()).unwrap();
        for (t, name) in [("0", Some(wrapped)), ("1", Some("b")), ("0.3", None)] {
            let out = format!("t{t}.safetensors");
            let measured = sandbox.json(&["point", "run", "--t", t, "--out", &out]);
            let point = Checkpoint::read(&sandbox.path(&out)).unwrap();
            assert_eq!(tensors(&point), tensors(&original), "t = {t}: names, dtypes and shapes as in {a}.pth");
            if let Some(name) = name
                && (t == "0" || a == "foreign_a")
            {
                check_against_pytorch(&measured, name);
                let end = read_state_dict(if t == "0" { &a_file } else { &b_file }.as_ref()).unwrap();
                assert_eq!(point.tensors, end.tensors, "an end is the endpoint bit for bit");
            }
            // Read back as somebody else's file, with the numbers it was written with, also where it rounded them.
            let again = sandbox.json(&["profile", &out, &a_file, "--model", MODEL, "--samples", "2", "--out", &format!("again{t}")]);
            let (nll, error) = over_all(&measured);
            let (nll_again, error_again) = over_all(&again["points"][0]);
            assert!((nll - nll_again).abs() < 1e-9 && error == error_again, "{nll} {nll_again}");
        }
    }
}

#[test]
fn inspect_tells_how_a_foreign_file_fits() {
    let sandbox = Sandbox::new();
    let file = fixture("foreign_a.pth");
    let seen = sandbox.json(&["inspect", &file, "--model", MODEL]);
    assert_eq!(seen["graph"]["matches"], true);
    assert_eq!(seen["graph"]["renamed"], 4);
    assert_eq!(seen["n_parameters"], 64 * 16 + 16 + 160 + 10);
    let seen = sandbox.json(&["inspect", &file, "--model", "cnn"]);
    assert_eq!(seen["graph"]["matches"], false);
}
