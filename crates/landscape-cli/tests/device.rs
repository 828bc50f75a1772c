//! `--device` in builds with and without GPUs.
#![allow(clippy::unwrap_used)]

mod common;

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
    match Device::parse("cuda:0") {
        Err(Error::NoDevice { reason, .. }) => refused("cuda:0", &["cuda:0", &reason]),
        found => assert!(found.is_ok(), "{found:?}"),
    }
}

/// On the stand-in for the driver, which has two devices: points and networks are shared out, with the numbers of one device.
#[cfg(all(feature = "cuda", target_os = "linux"))]
#[test]
#[allow(clippy::print_stderr)]
fn two_devices_give_the_numbers_of_one() {
    use common::Answer;
    use serde_json::Value;
    let folder = match host_driver::build(std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        Ok(folder) => folder,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    let libraries = format!("{}:{}", folder.display(), folder.join(host_driver::LIBRARIES).display());
    let sandbox = Sandbox::with_run();
    let run = |args: &[&str]| {
        let output = sandbox.command(args).env("LD_LIBRARY_PATH", &libraries).output().unwrap();
        Answer::of(args, output)
    };
    let json = |args: &[&str], device: &str| -> Value {
        let args = [args, &["--device", device, "--json"]].concat();
        let answer = run(&args);
        assert_eq!(answer.code, Some(0), "{answer}");
        serde_json::from_str(&answer.stdout).unwrap()
    };
    for (args, key) in
        [(&["profile", "run", "--samples", "5", "--force"][..], "points"), (&["plane", "run", "--grid", "3x2", "--force"], "train")]
    {
        let one = json(args, "cuda:1");
        assert_eq!(json(args, "cuda:0,1")[key], one[key], "{args:?}");
        assert_eq!(json(args, "cuda:1,0")[key], one[key], "{args:?}");
        assert_ne!(one[key], Value::Null);
    }
    let (here, there) =
        (json(&["profile", "run", "--samples", "2", "--force"], "cpu"), json(&["profile", "run", "--samples", "2", "--force"], "cuda"));
    let nll = |profile: &Value| profile["points"][1]["train"]["nll"].as_f64().unwrap();
    assert!((nll(&here) - nll(&there)).abs() < 1e-5, "{} on the processor, {} on a GPU", nll(&here), nll(&there));
    let train = ["train", "--model", MODEL, "--epochs", "1", "--seeds", "0..3", "--out"];
    json(&[&train[..], &["one"]].concat(), "cuda:0");
    json(&[&train[..], &["two"]].concat(), "cuda:0,1");
    for seed in 0..3 {
        let file = |folder: &str| sandbox.read(&format!("{folder}/seed-{seed}.safetensors"));
        assert!(file("one") == file("two"), "seed {seed}");
    }
    let one = run(&["train", "--model", MODEL, "--out", "x.safetensors", "--device", "cuda:0,1"]);
    assert_eq!(one.code, Some(2), "{one}");
    one.check_message(&["one device", "cuda:0,1"]);
    // What numbers depend on is recorded.
    json(&["train", "--model", MODEL, "--epochs", "1", "--out", "t.safetensors", "--precision", "tf32", "--algorithms", "any"], "cuda:0");
    let config: Value = serde_json::from_slice(&sandbox.read("t.run/config.json")).unwrap();
    assert_eq!((config["precision"].as_str(), config["algorithms"].as_str()), (Some("tf32"), Some("any")));
}
