//! `--device` in builds with and without GPUs.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MODEL, Sandbox};

/// Trains a network on `device` and expects to be refused.
fn refused(device: &str, needles: &[&str]) {
    let args = ["train", "--model", MODEL, "--epochs", "1", "--out", "x.safetensors", "--device", device];
    Sandbox::new().refused(&args, needles);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_gpus_names_the_feature() {
    for device in ["cuda", "cuda:0", "cuda:0,1"] {
        refused(device, &[device, "--features cuda"]);
    }
}

/// A build for GPUs starts anywhere, works on the processor, and says why there is no GPU.
#[cfg(feature = "cuda")]
#[test]
fn a_machine_without_a_gpu_says_so() {
    use landscape_kernels::{Device, Error};
    refused("cuda:60000", &["cuda:60000"]);
    let sandbox = Sandbox::new();
    sandbox.ok(&["train", "--model", MODEL, "--epochs", "1", "--out", "x.safetensors"]);
    match Device::parse("cuda:0") {
        Err(Error::NoDevice { reason, .. }) => refused("cuda:0", &["cuda:0", &reason]),
        found => assert!(found.is_ok(), "{found:?}"),
    }
}
