//! `--precision bf16`: recorded, the same bits for any number of threads, the numbers of f32 to its rounding, and refused where it is not.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MODEL, Sandbox};
use serde_json::{Value, json};

#[test]
fn training_in_bf16_is_recorded_and_learns_like_f32() {
    let sandbox = Sandbox::new();
    let train = |out: &str, flags: &[&str]| {
        let result = sandbox.json(&[&["train", "--model", MODEL, "--epochs", "10", "--out", out], flags].concat());
        (result["precision"].clone(), result["test"]["accuracy"].as_f64().unwrap())
    };
    let (precision, expected) = train("f32.safetensors", &[]);
    assert_eq!(precision, "f32");
    for (out, threads) in [("one.safetensors", "1"), ("two.safetensors", "2")] {
        let (precision, accuracy) = train(out, &["--precision", "bf16", "--threads", threads]);
        assert_eq!(precision, "bf16");
        assert!((accuracy - expected).abs() < 0.02 && expected > 0.5, "{accuracy} for {expected}");
    }
    assert!(sandbox.read("one.safetensors") == sandbox.read("two.safetensors"), "bits depend on the threads");
    assert!(sandbox.read("one.safetensors") != sandbox.read("f32.safetensors"), "nothing was rounded");
    let config = |run: &str| serde_json::from_slice::<Value>(&sandbox.read(&format!("{run}.run/config.json"))).unwrap();
    assert_eq!((&config("one")["precision"], &config("f32")["precision"]), (&json!("bf16"), &Value::Null));
}

#[test]
fn a_curve_is_trained_and_measured_in_bf16() {
    let sandbox = Sandbox::with_pair();
    let bf16 = ["--precision", "bf16"];
    let connect = ["connect", "a.safetensors", "b.safetensors", "--epochs", "1", "--out", "run"];
    assert_eq!(sandbox.json(&[&connect[..], &bf16].concat())["precision"], "bf16");
    sandbox.refused(&[&connect[..], &["--resume"]].concat(), &["`precision` was \"bf16\", got null"]);
    for (command, key) in [(&["profile", "run", "--samples", "5"][..], "points"), (&["plane", "run", "--grid", "3x3"], "train")] {
        let plain = sandbox.json(command);
        let found = sandbox.json(&[command, &bf16, &["--force"]].concat());
        assert_eq!((&plain["settings"]["precision"], &found["settings"]["precision"]), (&Value::Null, &json!("bf16")));
        let again = sandbox.json(&[command, &bf16, &["--force", "--threads", "1"]].concat());
        assert_eq!(again[key], found[key]);
        assert_ne!(plain[key], found[key], "nothing was rounded");
    }
    let point = sandbox.json(&["point", "run", "--t", "0.5", "--out", "point.safetensors", "--precision", "bf16"]);
    assert_eq!(point["precision"], "bf16");
    // The page says how to make the run again.
    sandbox.ok(&["report", "run", "--force"]);
    let page = String::from_utf8(sandbox.read("run/report.html")).unwrap();
    assert!(page.matches("--precision bf16").count() >= 3);
}

#[test]
fn what_is_not_computed_in_bf16_is_refused() {
    let sandbox = Sandbox::with_run();
    sandbox.refused(&["train", "--model", MODEL, "--precision", "f16"], &["--precision", "`f32`, `bf16` or `tf32`, got `f16`"]);
    let shared = ["profile", "run", "--samples", "3", "--shared-first-layer", "--precision", "bf16"];
    let answer = sandbox.run(&shared);
    assert_eq!(answer.code, Some(2), "{answer}");
    answer.check_message(&["--shared-first-layer", "--precision bf16"]);
}
