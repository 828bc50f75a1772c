//! `--device` in builds with and without GPUs.
#![allow(clippy::unwrap_used)]

mod common;
#[cfg(all(feature = "cuda", target_os = "linux"))]
#[allow(dead_code, reason = "files of other formats are not needed here")]
mod files;

#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "../../landscape-kernels/tests/host_driver/mod.rs"]
mod host_driver;

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
    // Who computes nothing opens nothing, and still reads the names.
    sandbox.ok(&["completions", "bash", "--device", "cuda:60000"]);
    sandbox.refused(&["completions", "bash", "--device", "tpu"], &["tpu"]);
    match Device::parse("cuda:0") {
        Err(Error::NoDevice { reason, .. }) => refused("cuda:0", &["cuda:0", &reason]),
        found => assert!(found.is_ok(), "{found:?}"),
    }
}

/// On the stand-in for the driver, which has two devices: networks are trained and joined there, points and networks are shared out, with
/// the numbers of one device.
#[cfg(all(feature = "cuda", target_os = "linux"))]
#[test]
#[allow(clippy::print_stderr)]
fn two_devices_give_the_numbers_of_one() {
    use common::Answer;
    use files::{npy, npz};
    use serde_json::Value;
    let folder = match host_driver::build(std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        Ok(folder) => folder,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    let libraries = host_driver::library_path(&folder, host_driver::Beside::CublasAndCudnn);
    let sandbox = Sandbox::new();
    // The stand-in is slow, so there are few examples.
    let inputs = |n: usize| npy("<f4", &[n, 4], &(0..n * 4).flat_map(|i| ((i * i % 7) as f32 - 3.0).to_le_bytes()).collect::<Vec<_>>());
    let labels = |n: usize| npy("<i8", &[n], &(0..n as i64).flat_map(|i| ((i * i + i / 2) % 3).to_le_bytes()).collect::<Vec<_>>());
    let data = [("x_train", inputs(12)), ("y_train", labels(12)), ("x_test", inputs(6)), ("y_test", labels(6))];
    sandbox.write("d.npz", npz(&data.each_ref().map(|(name, array)| (*name, array.as_slice()))));
    let run = |args: &[&str]| {
        let output = sandbox.command(args).env("LD_LIBRARY_PATH", &libraries).output().unwrap();
        Answer::of(args, output)
    };
    let json = |args: &[&str], device: &str| -> Value {
        let args = [args, &["--data", "npz:d.npz", "--device", device, "--json"]].concat();
        let answer = run(&args);
        assert_eq!(answer.code, Some(0), "{answer}");
        serde_json::from_str(&answer.stdout).unwrap()
    };
    let train = ["train", "--model", "mlp:4-5-3", "--batch-size", "4"];
    for (device, out) in [("cuda:0", "one"), ("cuda:0,1", "two"), ("cpu", "here")] {
        json(&[&train[..], &["--epochs", "4", "--seeds", "0..3", "--out", out]].concat(), device);
    }
    for seed in 0..3 {
        let file = |folder: &str| sandbox.read(&format!("{folder}/seed-{seed}.safetensors"));
        assert!(file("one") == file("two"), "seed {seed}");
    }
    let connect = ["connect", "one/seed-0.safetensors", "one/seed-1.safetensors", "--epochs", "3", "--out", "run"];
    json(&connect, "cuda:1");
    for (args, key) in [(&["profile", "run", "--samples", "5"][..], "points"), (&["plane", "run", "--grid", "3x2"], "train")] {
        let args = [args, &["--force"]].concat();
        let one = json(&args, "cuda:1");
        assert_ne!(one[key], Value::Null);
        for devices in ["cuda:0,1", "cuda:1,0"] {
            assert_eq!(json(&args, devices)[key], one[key], "{args:?} on {devices}");
        }
    }
    let middle = |device: &str| {
        let profile = json(&["profile", "run", "--samples", "3", "--force"], device);
        profile["points"][1]["train"]["nll"].as_f64().unwrap()
    };
    let (here, there) = (middle("cpu"), middle("cuda"));
    assert!((here - there).abs() < 1e-5, "{here} on the processor, {there} on a GPU");
    let several = run(&[&train[..], &["--data", "npz:d.npz", "--out", "x.safetensors", "--device", "cuda:0,1"]].concat());
    assert_eq!(several.code, Some(2), "{several}");
    several.check_message(&["one device", "cuda:0,1"]);
    // What numbers depend on is recorded.
    let computed = ["--epochs", "1", "--out", "t.safetensors", "--precision", "tf32", "--algorithms", "any"];
    let result = json(&[&train[..], &computed].concat(), "cuda:1");
    assert_eq!(result["kernel_path"], "cuda");
    let config: Value = serde_json::from_slice(&sandbox.read("t.run/config.json")).unwrap();
    let recorded = ["device", "precision", "algorithms"].map(|key| config[key].as_str());
    assert_eq!(recorded, [Some("cuda"), Some("tf32"), Some("any")]);
    // A run goes on where it was, be it on another device of the kind.
    let short = [&train[..], &["--epochs", "2", "--out", "s.safetensors", "--data", "npz:d.npz", "--max-steps", "2"]].concat();
    let go_on = |device: &str| {
        run(&[&short[..6], &["2", "--out", "s.safetensors", "--data", "npz:d.npz", "--resume", "--device", device]].concat())
    };
    assert_eq!(run(&[&short[..], &["--device", "cuda:0"]].concat()).code, Some(0));
    let elsewhere = go_on("cpu");
    assert_eq!(elsewhere.code, Some(2), "{elsewhere}");
    elsewhere.check_message(&["device", "cuda"]);
    let there = go_on("cuda:1");
    assert_eq!(there.code, Some(0), "{there}");
}
