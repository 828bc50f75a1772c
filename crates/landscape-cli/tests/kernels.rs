//! `--kernels` forces an instruction set: it is the one that runs and is recorded, each learns the same, and each gives its own bits
//! for any number of threads.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MODEL, Sandbox};
use landscape_kernels::simd::Level;

#[test]
fn a_forced_level_runs_is_recorded_and_learns() {
    let mut accuracies = Vec::new();
    for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
        let sandbox = Sandbox::new();
        let train = |out: &str, threads: &str| {
            let name = level.name();
            sandbox.json(&["train", "--model", MODEL, "--epochs", "10", "--kernels", name, "--threads", threads, "--out", out])
        };
        let result = train("one.safetensors", "1");
        assert_eq!(result["kernel_path"], level.name());
        assert_eq!(train("two.safetensors", "2")["kernel_path"], level.name());
        assert!(sandbox.read("one.safetensors") == sandbox.read("two.safetensors"), "`{level}` depends on the threads");
        accuracies.push(result["test"]["accuracy"].as_f64().unwrap());
    }
    for accuracy in &accuracies {
        assert!((accuracy - accuracies[0]).abs() < 0.02 && *accuracy > 0.5, "{accuracies:?}");
    }
}

#[test]
fn an_unknown_level_is_refused() {
    let args = ["train", "--model", MODEL, "--kernels", "sse9"];
    Sandbox::new().refused(&args, &["--kernels", "`avx512`, `avx2` or `portable`, got `sse9`"]);
}
