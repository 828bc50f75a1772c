//! `landscape compare`: what it measures, what it says, and what it refuses.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MODEL, Sandbox};

#[test]
fn two_networks_trained_apart_are_not_to_be_averaged() {
    let sandbox = Sandbox::with_pair();
    let before = sandbox.tree();
    let found = sandbox.json(&["compare", "a.safetensors", "b.safetensors"]);
    common::assert_same_tree(&before, &sandbox.tree(), "a question writes nothing");
    // The line is that of `profile`, all examples included: the digits have fewer than 2000.
    let profile = sandbox.json(&["profile", "a.safetensors", "b.safetensors", "--samples", "11", "--out", "line"]);
    assert_eq!(found["line"]["summary"], profile["summary"]);
    assert_eq!(found["line"]["verdicts"], profile["verdicts"]);
    assert_eq!((&found["n_train"], &found["n_test"]), (&1437.into(), &360.into()));
    let d = |name: &str| found["distance"][name].as_f64().unwrap();
    let by_cosine = (d("norm_a").powi(2) + d("norm_b").powi(2) - 2.0 * d("cosine") * d("norm_a") * d("norm_b")).sqrt();
    assert!((d("distance") - by_cosine).abs() < 1e-6 * by_cosine);
    let share = found["answers"]["disagreement"].as_f64().unwrap();
    assert!(share > 0.0 && share < 1.0);
    assert!(found["next"].as_str().unwrap().starts_with("landscape connect a.safetensors b.safetensors"), "{found}");
    let answer = sandbox.ok(&["compare", "a.safetensors", "b.safetensors", "--examples", "100"]);
    for part in ["same network", "100 training", "not linearly connected", "next: landscape connect"] {
        assert!(answer.stdout.contains(part), "{answer}");
    }
}

#[test]
fn a_network_and_its_own_next_epoch_are_to_be_averaged() {
    let sandbox = Sandbox::with_pair();
    let further = ["train", "--init-from", "a.safetensors", "--epochs", "1", "--lr", "0.001", "--out", "c.safetensors"];
    sandbox.ok(&further);
    let found = sandbox.json(&["compare", "a.safetensors", "c.safetensors"]);
    assert!(found["verdict"].as_str().unwrap().contains("are linearly connected"), "{found}");
    assert_eq!(found["next"], "landscape profile a.safetensors c.safetensors");
}

#[test]
fn different_networks_are_told_apart_without_failing() {
    let sandbox = Sandbox::with_pair();
    sandbox.ok(&["train", "--model", "mlp:64-20-10", "--epochs", "1", "--out", "wide.safetensors"]);
    let answer = sandbox.ok(&["compare", "a.safetensors", "wide.safetensors"]);
    for part in ["different networks", "`fc1.weight` is [16, 64] in A and [20, 64] in B", "averaged"] {
        assert!(answer.stdout.contains(part), "{answer}");
    }
    sandbox.refused(&["compare", "a.safetensors", "nowhere.safetensors"], &["nowhere.safetensors"]);
    sandbox.refused(&["compare", "a.safetensors"], &["<B>"]);
    sandbox.refused(&["compare", "a.safetensors", "b.safetensors", "--examples", "0"], &["--examples"]);
    let other_data = ["compare", "a.safetensors", "b.safetensors", "--data", "text:a.safetensors"];
    sandbox.refused(&other_data, &["a.safetensors"]);
    assert!(MODEL.starts_with("mlp:64-16"));
}
