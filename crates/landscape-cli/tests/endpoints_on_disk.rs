//! `connect --endpoints-on-disk`: the same run in less memory.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Sandbox, assert_same_tree, without_clock};

/// The files of a run, JSON without its clocks.
fn run_files(sandbox: &Sandbox) -> std::collections::BTreeMap<String, Option<Vec<u8>>> {
    let mut tree = sandbox.tree();
    tree.retain(|name, _| name.starts_with("run/"));
    for (name, bytes) in &mut tree {
        let Some(bytes) = bytes else { continue };
        let strip = |bytes: &[u8]| serde_json::to_vec(&without_clock(serde_json::from_slice(bytes).unwrap())).unwrap();
        if name.ends_with(".json") {
            *bytes = strip(bytes);
        } else if name.ends_with(".jsonl") {
            *bytes = bytes.split_inclusive(|&b| b == b'\n').map(strip).collect::<Vec<_>>().join(&b'\n');
        }
    }
    tree
}

#[test]
fn the_run_has_the_same_bits_and_can_go_on_without() {
    let job = ["connect", "a.safetensors", "b.safetensors", "--epochs", "3", "--points", "4", "--free-end", "--out", "run"];
    let in_memory = Sandbox::with_pair();
    in_memory.ok(&job);
    let on_disk = Sandbox::with_pair();
    on_disk.ok(&[&job[..], &["--endpoints-on-disk"]].concat());
    assert_same_tree(&run_files(&in_memory), &run_files(&on_disk), "in memory and on disk");
    // Where the endpoints are is no part of the run: it is the same run, finished.
    on_disk.ok(&[&job[..], &["--resume"]].concat());
    on_disk.ok(&["profile", "run", "--samples", "3"]);
}

#[test]
fn a_file_that_cannot_be_read_in_place_is_refused_by_the_name_of_the_flag() {
    let sandbox = Sandbox::with_pair();
    sandbox.write("a.pth", b"PK\x03\x04 and whatever a zip file holds");
    sandbox.refused(&["connect", "a.pth", "b.safetensors", "--endpoints-on-disk", "--out", "run"], &["--endpoints-on-disk", "safetensors"]);
}

/// Peak resident memory of a command that must succeed, in bytes.
#[cfg(target_os = "linux")]
fn peak_bytes(sandbox: &Sandbox, args: &[&str]) -> usize {
    let mut child = sandbox.command(args).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let high = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<usize>().ok());
        peak = peak.max(high.unwrap_or(0) * 1024);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{args:?}");
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Bend, momentum and gradient are what training a single network of this size takes as well, beside the executor; so the peak of training
/// is what the peak of connecting is held against.
#[cfg(target_os = "linux")]
#[test]
fn endpoints_on_disk_take_no_memory() {
    let sandbox = Sandbox::new();
    let model = "mlp:64-3072-2048-10";
    let vector_bytes = 4 * (64 * 3072 + 3072 + 3072 * 2048 + 2048 + 2048 * 10 + 10);
    let common = ["--epochs", "1", "--batch-size", "500", "--threads", "2"];
    let train = |out: &str| peak_bytes(&sandbox, &[&["train", "--model", model, "--out", out][..], &common].concat());
    let training = train("a.safetensors");
    train("b.safetensors");
    let connect = |more: &[&str]| {
        peak_bytes(&sandbox, &[&["connect", "a.safetensors", "b.safetensors", "--out", "run", "--force"][..], &common, more].concat())
    };
    let (in_memory, on_disk) = (connect(&[]), connect(&["--endpoints-on-disk"]));
    assert!(on_disk <= training + (64 << 20), "{} MiB on disk, {} MiB training", on_disk >> 20, training >> 20);
    assert!(on_disk + 2 * vector_bytes <= in_memory, "{} MiB on disk, {} MiB in memory", on_disk >> 20, in_memory >> 20);
}
