//! `landscape import`: an ONNX file becomes a checkpoint that every command takes, or a message that says why not.
#![allow(clippy::unwrap_used)]

mod common;
#[allow(dead_code)]
mod files;

use common::Sandbox;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../landscape-onnx/tests/fixtures/").to_owned() + name).unwrap()
}

#[test]
fn an_imported_network_trains_and_is_joined() {
    let sandbox = Sandbox::new();
    sandbox.write("model.onnx", fixture("transformer.onnx"));
    let imported = sandbox.json(&["import", "model.onnx", "--out", "start.safetensors"]);
    assert_eq!((&imported["schema"], &imported["inputs"][0]["whole_numbers"]), (&"landscape-import/1".into(), &true.into()));
    assert_eq!((&imported["inputs"][0]["shape"], &imported["outputs"][0]["shape"]), (&[5].into(), &[5, 11].into()));
    assert_eq!(sandbox.json(&["inspect", "start.safetensors"])["n_parameters"], imported["n_parameters"]);
    // Each token is followed by the next one.
    let tokens = |first: u16| (0..200).flat_map(|i| ((first + i) % 11).to_le_bytes()).collect::<Vec<u8>>();
    let labels: Vec<u8> = (0..200i64).flat_map(|i| ((i + 1) % 11).to_le_bytes()).collect();
    let (x, y) = (files::npy("<u2", &[40, 5], &tokens(0)), files::npy("<i8", &[40, 5], &labels));
    sandbox.write("d.npz", files::npz(&[("x_train", &x), ("y_train", &y), ("x_test", &x), ("y_test", &y)]));
    let fit = [
        "--data",
        "npz:d.npz",
        "--init-from",
        "start.safetensors",
        "--epochs",
        "8",
        "--batch-size",
        "8",
        "--optimizer",
        "adam",
        "--lr",
        "0.02",
    ];
    for (seed, out) in [("0", "a.safetensors"), ("1", "b.safetensors")] {
        let trained = sandbox.json(&[&["train", "--seed", seed, "--out", out], &fit[..]].concat());
        assert!(trained["train"]["nll"].as_f64().unwrap() < 1.5, "ln 11 is 2.4: {trained}");
    }
    sandbox.ok(&["connect", "a.safetensors", "b.safetensors", "--epochs", "1", "--batch-size", "8", "--out", "run"]);
    let profile = sandbox.json(&["profile", "run", "--samples", "3"]);
    assert_eq!(profile["points"].as_array().unwrap().len(), 3);
}

#[test]
fn what_cannot_be_imported_is_refused_and_writes_nothing() {
    let sandbox = Sandbox::new();
    let whole = fixture("mlp.onnx");
    sandbox.write("model.onnx", &whole);
    sandbox.write("cut.onnx", &whole[..whole.len() / 2]);
    sandbox.write("external.onnx", fixture("external.onnx"));
    // The same length, another op.
    let place = whole.windows(4).position(|w| w == b"Relu").unwrap();
    let mut other = whole.clone();
    other[place..place + 4].copy_from_slice(b"Loop");
    sandbox.write("loop.onnx", &other);
    sandbox.write("old.safetensors", b"mine");
    for (args, needles) in [
        (&["import", "model.onnx"][..], &["--out"][..]),
        (&["import", "absent.onnx", "--out", "new"], &["absent.onnx"]),
        (&["import", "cut.onnx", "--out", "new"], &["cut.onnx"]),
        (&["import", "external.onnx", "--out", "new"], &["external.bin"]),
        (&["import", "loop.onnx", "--out", "new"], &["loop.onnx", "Loop `relu1`", "control flow"]),
        (&["import", "model.onnx", "--out", "old.safetensors"], &["old.safetensors", "--force"]),
        (&["import", "model.onnx", "--out", "no/where"], &["no/where"]),
        (&["import", "model.onnx", "--out", "new", "--resume"], &["--resume"]),
    ] {
        sandbox.refused(args, needles);
    }
    sandbox.ok(&["import", "model.onnx", "--out", "old.safetensors", "--force"]);
    sandbox.write("external.bin", fixture("external.bin"));
    let answer = sandbox.ok(&["import", "external.onnx", "--out", "new.safetensors"]);
    assert!(answer.stdout.contains("59 parameters") && answer.stdout.contains("features [6]"), "{answer}");
}
