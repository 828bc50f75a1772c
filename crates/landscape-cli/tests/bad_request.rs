//! Flags, outputs and run folders that must be refused: each with exit code 2, a message that names what is wrong, and no byte
//! changed.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MODEL, Sandbox};
use serde_json::Value;

const A: &str = "a.safetensors";
const B: &str = "b.safetensors";

/// A GPU that no machine has, and what must be said of it: builds without the feature name that.
const NO_GPU: &str = "cuda:60000";
const NO_GPU_SAYS: &[&str] = if cfg!(feature = "cuda") { &["cuda:60000"] } else { &["cuda:60000", "--features cuda"] };

#[test]
fn flags_out_of_range_are_named() {
    let sandbox = Sandbox::with_run();
    let train = |flags: &[&'static str]| [&["train", "--out", "new.safetensors"], flags].concat();
    for (flags, needles) in [
        (&["--model", "nope"][..], &["nope", "mlp", "cnn", "resnet20"][..]),
        (&["--model", "mlp:64"], &["mlp:64", "mlp:784-512-10"]),
        (&["--model", "mlp:64-x-10"], &["mlp:64-x-10"]),
        (&["--model", "mlp:64-0-10"], &["mlp:64-0-10"]),
        (&["--model", "mlp:64-99999999999-10"], &["too large"]),
        (&["--model", "mlp:64-99999999999999999999-10"], &["mlp:64-99999999999999999999-10"]),
        (&["--model", "mlp:65-10"], &["65", "64"]),
        (&["--model", "mlp:64-11"], &["11", "10"]),
        (&["--data", "nope"], &["nope", "digits", "mnist:DIR", "cifar10:DIR", "npz:FILE"]),
        (&["--schedule", "nope"], &["schedule", "nope", "cosine", "garipov"]),
        (&["--schedule", "step:2/0.1"], &["milestones", "2"]),
        (&["--schedule", "triangular:0/0.1"], &["cycle_epochs", "0"]),
        (&["--optimizer", "nope"], &["--optimizer", "nope", "sgd", "adam"]),
        (&["--lr", "-1"], &["lr", "-1"]),
        (&["--lr", "0"], &["lr", "0"]),
        (&["--lr", "nan"], &["lr", "NaN"]),
        (&["--lr", "fast"], &["--lr", "fast"]),
        (&["--weight-decay", "-1"], &["weight_decay", "-1"]),
        (&["--weight-decay", "inf"], &["weight_decay", "inf"]),
        (&["--epochs", "0"], &["epochs", "0"]),
        (&["--epochs", "-3"], &["--epochs", "-3"]),
        (&["--batch-size", "0"], &["batch_size", "0"]),
        (&["--eval-every", "0"], &["--eval-every", "0"]),
        (&["--normalize", "0.5"], &["--normalize", "0.5"]),
        (&["--normalize", "0.5/0"], &["--normalize", "0.5/0"]),
        (&["--normalize", "-1,2/1"], &["--normalize", "-1,2/1"]),
        (&["--normalize", "1,2/1,1"], &["normalization", "2"]),
        (&["--threads", "0"], &["--threads", "0"]),
        (&["--threads", "100000"], &["--threads", "100000"]),
        (&["--seed", "-1"], &["--seed", "-1"]),
        (&["--max-steps", "x"], &["--max-steps", "x"]),
        (&["--device", NO_GPU], NO_GPU_SAYS),
        (&["--device", "cuda:0,0"], &["cuda:0,0"]),
        (&["--device", "cuda:"], &["cuda:"]),
        (&["--device", "tpu"], &["tpu", "cpu"]),
        (&["--algorithms", "any"], &["--algorithms any", "--device cpu"]),
        (&["--colour", "red"], &["--colour"]),
        (&["extra"], &["extra"]),
    ] {
        let args: Vec<&str> = train(flags);
        sandbox.refused(&args, needles);
    }
    for (flags, needles) in [
        (&["--points", "1"][..], &["--points", "at least 2", "1"][..]),
        (&["--points", "0"], &["--points", "at least 2", "0"]),
        (&["--points", "-3"], &["--points", "-3"]),
        (&["--bends", "18446744073709551615"], &["--bends"]),
        (&["--points", "1000000000000000"], &["--points", "at most", "1000000000000000"]),
        (&["--points", "3", "--bends", "1"], &["--points", "--bends"]),
        (&["--curve", "spline"], &["--curve", "spline", "bezier", "polychain"]),
        (&["--init", "nope"], &["--init", "nope", "arc"]),
        (&["--decay-on", "nope"], &["--decay-on", "nope"]),
        (&["--epochs", "0"], &["epochs", "0"]),
        (&["--batch-size", "0"], &["batch_size", "0"]),
        (&["--device", NO_GPU], NO_GPU_SAYS),
    ] {
        sandbox.refused(&[&["connect", A, B, "--out", "new"], flags].concat(), needles);
        sandbox.refused(&[&["connect", A, B], flags].concat(), needles);
    }
    sandbox.refused(&["connect", A], &["CHECKPOINT", "2 values"]);
    for args in [&["profile", "run"][..], &["profile", A, B]] {
        for (flags, needles) in [
            (&["--samples", "0"][..], &["samples", "at least 2", "0"][..]),
            (&["--samples", "1"], &["samples", "at least 2", "1"]),
            (&["--samples", "100000000000000"], &["--samples", "100000000000000"]),
            (&["--samples", "-1"], &["--samples", "-1"]),
            (&["--batch-size", "0"], &["batch_size", "0"]),
            (&["--weight-decay", "-0.1"], &["--weight-decay", "-0.1"]),
            (&["--weight-decay", "nan"], &["--weight-decay", "NaN"]),
            (&["--lmc-fraction", "-1"], &["lmc_fraction", "-1"]),
            (&["--connected-ratio", "nan"], &["connected_ratio", "NaN"]),
            (&["--refresh", "nope"], &["--refresh", "nope", "batch-average", "sequential"]),
            (&["--device", NO_GPU], NO_GPU_SAYS),
        ] {
            sandbox.refused(&[args, flags].concat(), needles);
        }
    }
    for (flags, needles) in [
        (&["--t", "1.5"][..], &["--t", "between 0 and 1", "1.5"][..]),
        (&["--t", "-0.5"], &["--t", "between 0 and 1", "-0.5"]),
        (&["--t", "nan"], &["--t", "between 0 and 1", "NaN"]),
        (&["--t", "half"], &["--t", "half"]),
        (&["--t", "0.5", "--batch-size", "0"], &["batch_size", "0"]),
        (&[], &["--t"]),
    ] {
        sandbox.refused(&[&["point", "run", "--out", "new.safetensors"], flags].concat(), needles);
    }
    sandbox.refused(&["point", "run", "--t", "0.5"], &["point", "--out"]);
    for args in [&["plane", "run"][..], &["plane", A, B, "run/control_1.safetensors"]] {
        for (flags, needles) in [
            (&["--grid", "0x3"][..], &["--grid", "0x3"][..]),
            (&["--grid", "3x0"], &["--grid", "3x0"]),
            (&["--grid", "0"], &["--grid", "`0`"]),
            (&["--grid", "1x1"], &["--grid", "1"]),
            (&["--grid", "18446744073709551615x18446744073709551615"], &["--grid"]),
            (&["--fraction", "0"], &["--fraction", "0"]),
            (&["--fraction", "1.5"], &["--fraction", "1.5"]),
            (&["--fraction", "nan"], &["--fraction", "NaN"]),
            (&["--margin", "nan"], &["--margin", "NaN"]),
            (&["--margin", "-7"], &["--margin", "-7"]),
            (&["--batch-size", "0"], &["batch_size", "0"]),
            (&["--device", NO_GPU], NO_GPU_SAYS),
        ] {
            sandbox.refused(&[args, flags].concat(), needles);
        }
    }
    sandbox.refused(&["plane", A, B], &["three checkpoints", "2"]);
    sandbox.refused(&["plane", A, A, A], &["plane"]);
    sandbox.refused(&["demo", "--model", "nope", "--out", "demo"], &["nope"]);
    sandbox.refused(&["demo", "--device", NO_GPU, "--out", "demo"], NO_GPU_SAYS);
    sandbox.refused(&["nothing"], &["nothing"]);
    sandbox.refused(&[], &["Usage"]);
    assert!(!sandbox.path("runs").exists());
}

#[test]
fn only_training_ends_after_some_steps() {
    let sandbox = Sandbox::with_run();
    for args in [
        &["profile", "run"][..],
        &["plane", "run"],
        &["point", "run", "--t", "0.5", "--out", "p.safetensors"],
        &["report", "run"],
        &["inspect", A],
        &["demo"],
        &["completions", "bash"],
    ] {
        sandbox.refused(&[args, &["--max-steps", "3"]].concat(), &["--max-steps", "`train`", "`connect`"]);
    }
}

#[test]
fn outputs_that_are_there_are_not_overwritten() {
    let sandbox = Sandbox::with_run();
    sandbox.write("mine", b"a file of mine");
    sandbox.write("notes/profile_of_me.json", b"no run");
    let train = ["train", "--model", MODEL, "--epochs", "1", "--out"];
    let with_out = |out: &'static str| [&train[..], &[out]].concat();
    // A finished file, a file that is not ours, a folder.
    sandbox.refused(&with_out(A), &[A, "exists already", "--force"]);
    sandbox.refused(&with_out("mine"), &["mine", "exists already", "--force"]);
    sandbox.refused(&[&with_out("mine")[..], &["--resume"]].concat(), &["mine", "exists already", "--force"]);
    for flags in [&[][..], &["--force"], &["--resume"]] {
        sandbox.refused(&[&with_out("notes")[..], flags].concat(), &["notes", "folder", "name of a file"]);
        sandbox.refused(&[&with_out("..")[..], flags].concat(), &["..", "folder"]);
    }
    let connect = |out: &'static str| ["connect", A, B, "--epochs", "1", "--out", out];
    sandbox.refused(&connect("run"), &["run", "exists already", "--resume", "--force"]);
    sandbox.refused(&connect("mine"), &["mine"]);
    for flags in [&[][..], &["--resume"]] {
        sandbox.refused(&[&connect("notes")[..], flags].concat(), &["notes", "profile_of_me.json", "--force"]);
    }
    sandbox.ok(&["point", "run", "--t", "0.5", "--out", "p.safetensors"]);
    sandbox.refused(&["point", "run", "--t", "0.5", "--out", "p.safetensors"], &["p.safetensors", "exists already", "--force"]);
    sandbox.refused(&["point", "run", "--t", "0.5", "--out", "notes", "--force"], &["notes", "folder"]);
    sandbox.ok(&["profile", "run", "--samples", "3"]);
    sandbox.refused(&["profile", "run", "--samples", "3"], &["run/profile.json", "exists already", "--force"]);
    sandbox.refused(&["profile", A, B, "--samples", "3", "--out", "run"], &["run", "exists already", "--force"]);
    sandbox.ok(&["plane", "run", "--grid", "2x2"]);
    sandbox.refused(&["plane", "run", "--grid", "2x2"], &["run/plane.json", "exists already", "--force"]);
    // With --force they are, and what is not the run's stays.
    sandbox.ok(&[&connect("notes")[..], &["--force"]].concat());
    assert_eq!(sandbox.read("notes/profile_of_me.json"), b"no run");
    sandbox.ok(&[&connect("run")[..], &["--force", "--seed", "5"]].concat());
    assert!(!sandbox.path("run/profile.json").exists() && !sandbox.path("run/plane.json").exists(), "those were of the old run");
    sandbox.ok(&[&with_out("mine")[..], &["--force"]].concat());
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let sandbox = Sandbox::with_run();
    sandbox.write("file", b"");
    for place in ["file/x", "/proc/nowhere/x"] {
        sandbox.refused(&["train", "--model", MODEL, "--epochs", "1", "--out", place], &[place]);
        sandbox.refused(&["connect", A, B, "--epochs", "1", "--out", place], &[place]);
        sandbox.refused(&["point", "run", "--t", "0.5", "--out", place], &[place]);
        sandbox.refused(&["profile", A, B, "--samples", "2", "--out", place], &[place]);
    }
    sandbox.refused(&["point", "run", "--t", "0.5", "--out", "absent/x"], &["absent/x", "no folder `absent`"]);
    sandbox.refused(&["profile", "run", "--out", "elsewhere"], &["`run`", "--out elsewhere"]);
    sandbox.refused(&["plane", "run", "--out", "elsewhere"], &["`run`", "--out elsewhere"]);
    sandbox.refused(&["train", "--model", MODEL, "--out", ""], &["--out"]);
}

#[test]
fn names_with_dots_have_a_run_folder_each() {
    let sandbox = Sandbox::new();
    for out in ["net.1", "net.2", "net.run"] {
        sandbox.ok(&["train", "--model", MODEL, "--epochs", "1", "--out", out]);
    }
    for folder in ["net.1.run", "net.2.run", "net.run.run"] {
        assert!(sandbox.path(folder).join("result.json").is_file(), "{folder}");
    }
}

#[test]
fn resume_names_every_field_that_changed() {
    let sandbox = Sandbox::with_pair();
    let train = ["train", "--model", MODEL, "--epochs", "3", "--out", "x.safetensors"];
    sandbox.ok(&[&train[..], &["--max-steps", "5"]].concat());
    let resume = |flags: &[&'static str]| [&train[..], &["--resume"], flags].concat();
    sandbox.refused(&["train", "--model", MODEL, "--epochs", "4", "--out", "x.safetensors", "--resume"], &["`fit.epochs` was 3, got 4"]);
    sandbox.refused(
        &resume(&["--lr", "0.5", "--seed", "9", "--batch-size", "64"]),
        &["x.run/config.json", "lr", "0.5", "`seed` was 0, got 9", "`batch_size` was 128, got 64"],
    );
    sandbox.refused(&resume(&["--normalize", "0.5/0.5"]), &["data.normalization"]);
    sandbox.refused(&resume(&["--optimizer", "adam"]), &["optimizer"]);
    sandbox.refused(&resume(&["--init-from", A]), &["init_from"]);
    sandbox.ok(&resume(&["--threads", "1", "--quiet", "--json"]));
    let connect = |b: &'static str, flags: &[&'static str]| [&["connect", A, b, "--epochs", "2", "--out", "r"], flags].concat();
    sandbox.ok(&connect(B, &["--max-steps", "3"]));
    sandbox.refused(&connect(B, &["--resume", "--points", "4"]), &["r/config.json", "`connect.points` was 3, got 4"]);
    sandbox.refused(&connect(B, &["--resume", "--curve", "polychain"]), &["connect.curve"]);
    sandbox.refused(&connect(A, &["--resume"]), &["content"]);
    // Where the files were found may change, what they hold may not.
    std::fs::rename(sandbox.path(B), sandbox.path("moved.safetensors")).unwrap();
    sandbox.ok(&connect("moved.safetensors", &["--resume"]));
    std::fs::rename(sandbox.path("moved.safetensors"), sandbox.path(B)).unwrap();
    sandbox.refused(&connect(B, &["--resume", "--points", "4"]), &["`connect.points` was 3, got 4"]);
    sandbox.ok(&["profile", "r", "--samples", "3"]);
    sandbox.refused(&["profile", "r", "--samples", "4", "--resume"], &["r/profile.json", "n_samples", "3", "4"]);
    sandbox.ok(&["profile", "r", "--samples", "3", "--resume"]);
    for args in [&["train", "--resume"][..], &["connect", A, B, "--resume"], &["demo", "--resume"]] {
        sandbox.refused(args, &["--resume", "--out"]);
    }
}

#[test]
fn a_measurement_of_an_older_curve_does_not_pass_for_one_of_the_newer() {
    let sandbox = Sandbox::with_pair();
    let connect = ["connect", A, B, "--epochs", "4", "--out", "r"];
    sandbox.ok(&[&connect[..], &["--max-steps", "2"]].concat());
    sandbox.ok(&["profile", "r", "--samples", "3"]);
    sandbox.ok(&["plane", "r", "--grid", "2x2"]);
    sandbox.ok(&[&connect[..], &["--resume"]].concat());
    sandbox.refused(&["profile", "r", "--samples", "3", "--resume"], &["r/profile.json", "content"]);
    sandbox.refused(&["plane", "r", "--grid", "2x2", "--resume"], &["r/plane.json", "content"]);
    let old: Value = serde_json::from_slice(&sandbox.read("r/profile.json")).unwrap();
    let new = sandbox.json(&["profile", "r", "--samples", "3", "--force"]);
    assert_ne!(old["points"], new["points"]);
}

#[test]
fn damaged_run_folders_are_refused() {
    let sandbox = Sandbox::with_pair();
    let connect = ["connect", A, B, "--epochs", "3", "--out", "r"];
    let resume = [&connect[..], &["--resume"]].concat();
    sandbox.ok(&[&connect[..], &["--max-steps", "15"]].concat());
    let good = sandbox.tree();
    let restore = || good.iter().for_each(|(name, bytes)| bytes.iter().for_each(|bytes| sandbox.write(name, bytes)));
    for (name, bytes) in [
        ("r/state.safetensors", sandbox.read("r/state.safetensors")[..300].to_vec()),
        ("r/state.safetensors", Vec::new()),
        ("r/state.safetensors", sandbox.read(A)),
        ("r/records.jsonl", Vec::new()),
        ("r/config.json", b"{".to_vec()),
        ("r/config.json", Vec::new()),
        ("r/config.json", b"{}".to_vec()),
    ] {
        sandbox.write(name, bytes);
        sandbox.refused(&resume, &[name]);
        restore();
    }
    sandbox.ok(&resume);
    for (name, bytes, needles) in [
        ("r/config.json", b"{".to_vec(), &["config.json"][..]),
        ("r/config.json", b"[]".to_vec(), &["r"]),
        ("r/config.json", b"{\"command\": \"connect\"}".to_vec(), &["config.json", "connect"]),
        ("r/control_1.safetensors", sandbox.read("r/control_1.safetensors")[..2000].to_vec(), &["control_1.safetensors"]),
        ("r/control_2.safetensors", Vec::new(), &["control_2.safetensors"]),
    ] {
        let whole = sandbox.read(name);
        sandbox.write(name, bytes);
        for args in [&["profile", "r"][..], &["point", "r", "--t", "0.5", "--out", "new.safetensors"], &["plane", "r"]] {
            sandbox.refused(args, needles);
        }
        sandbox.write(name, whole);
    }
    std::fs::remove_file(sandbox.path("r/control_1.safetensors")).unwrap();
    sandbox.refused(&["profile", "r"], &["control_1.safetensors"]);
    for (input, needles) in [("absent", &["absent", "run folder"][..]), (A, &[A, "run folder"]), (".", &[".", "run folder", "config.json"])]
    {
        for args in [&["profile", input][..], &["plane", input], &["report", input], &["point", input, "--t", "0", "--out", "new"]] {
            sandbox.refused(args, needles);
        }
    }
    sandbox.ok(&["train", "--model", MODEL, "--epochs", "1", "--out", "t.safetensors"]);
    sandbox.refused(&["profile", "t.run"], &["t.run", "train", "connect"]);
}

#[test]
fn a_diverging_run_fails_with_exit_code_1() {
    let sandbox = Sandbox::new();
    let before = sandbox.tree();
    let args = ["train", "--model", MODEL, "--epochs", "5", "--lr", "1e30", "--out", "x.safetensors"];
    let answer = sandbox.run(&args);
    assert_eq!(answer.code, Some(1), "{answer}");
    answer.check_message(&["diverged", "lr"]);
    let after = sandbox.tree();
    assert!(!after.contains_key("x.safetensors") && before.len() < after.len(), "the run's records stay: {:?}", after.keys());
}
