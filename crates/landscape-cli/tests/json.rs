//! What `--json`, `--quiet` and `--help` promise: one document on stdout with the documented keys, nothing else anywhere.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MODEL, Sandbox, assert_same_tree, without_clock};
use serde_json::Value;
use std::collections::BTreeSet;

/// Every key; of a list the elements' keys, together. Values are left out, also whether they are null: ratios of zero errors are.
fn keys(value: &Value) -> String {
    fn collect(prefix: &str, value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| collect(&format!("{prefix}.{key}"), value, into)),
            Value::Array(items) => items.iter().for_each(|item| collect(&format!("{prefix}[]"), item, into)),
            _ => drop(into.insert(prefix.to_owned())),
        }
    }
    let mut all = BTreeSet::new();
    collect("", value, &mut all);
    all.into_iter().collect::<Vec<_>>().join("\n")
}

fn open(sandbox: &Sandbox, path: &Value) {
    let path = path.as_str().unwrap_or_else(|| panic!("expected a path, found {path}"));
    assert!(sandbox.path(path).exists(), "`{path}` does not open from the folder the command was started in");
}

#[test]
fn each_command_prints_one_document_with_the_documented_keys() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("sub")).unwrap();
    for (seed, out) in [("0", "sub/a.safetensors"), ("1", "sub/b.safetensors")] {
        let train = sandbox.json(&["train", "--model", MODEL, "--epochs", "2", "--seed", seed, "--out", out]);
        open(&sandbox, &train["checkpoint"]);
        insta::assert_snapshot!("train", keys(&train));
        let accuracy = train["test"]["accuracy"].as_f64().unwrap();
        assert!((accuracy + train["test"]["error"].as_f64().unwrap() - 1.0).abs() < 1e-12 && accuracy <= 1.0, "fractions");
        assert!(train["wall_seconds"].as_f64() <= train["total_seconds"].as_f64());
        assert!(train["train"]["loss"].as_f64() > train["train"]["nll"].as_f64(), "the loss has the L2 term");
    }
    let connect = sandbox.json(&["connect", "sub/a.safetensors", "sub/b.safetensors", "--epochs", "2"]);
    assert_eq!(connect["run"], "runs/0001-connect");
    open(&sandbox, &connect["run"]);
    connect["control_points"].as_array().unwrap().iter().for_each(|path| open(&sandbox, path));
    insta::assert_snapshot!("connect", keys(&connect));
    let run = connect["run"].as_str().unwrap();

    let profile = sandbox.json(&["profile", run, "--samples", "5", "--npz"]);
    insta::assert_snapshot!("profile", keys(&profile));
    let points = profile["points"].as_array().unwrap();
    assert_eq!((points.len(), points[0]["t"].as_f64(), points[4]["t"].as_f64()), (5, Some(0.0), Some(1.0)));
    let error = |point: &Value| point["test"]["error"].as_f64().unwrap();
    assert_eq!(profile["summary"]["test_error"]["start"].as_f64().unwrap(), error(&points[0]));
    let largest = points.iter().map(error).fold(0.0, f64::max);
    assert_eq!(profile["summary"]["test_error"]["max"].as_f64().unwrap(), largest);
    assert!(largest <= 1.0, "fractions, not percent");
    assert_eq!(serde_json::from_slice::<Value>(&sandbox.read(&format!("{run}/profile.json"))).unwrap(), profile, "as in the run's folder");
    assert!(sandbox.path(&format!("{run}/curve.npz")).is_file());

    let line = sandbox.json(&["profile", run, "--samples", "5", "--straight"]);
    assert_eq!(keys(&line), keys(&profile));
    let pair = sandbox.json(&["profile", "sub/a.safetensors", "sub/b.safetensors", "--samples", "5"]);
    open(&sandbox, &pair["run"]);
    for quantity in ["train_nll", "test_nll", "train_error", "test_error"] {
        assert_eq!(pair["summary"][quantity], line["summary"][quantity], "the same line, from a run and from its ends");
    }

    let point = sandbox.json(&["point", run, "--t", "0.25", "--out", "p.safetensors"]);
    open(&sandbox, &point["checkpoint"]);
    insta::assert_snapshot!("point", keys(&point));
    assert_eq!(point["test"]["nll"], points[1]["test"]["nll"], "the same point, as the profile has it");

    let inspect = sandbox.json(&["inspect", "p.safetensors"]);
    open(&sandbox, &inspect["file"]);
    insta::assert_snapshot!("inspect", keys(&inspect));

    let plane = sandbox.json(&["plane", run, "--grid", "3x2"]);
    insta::assert_snapshot!("plane", keys(&plane));
    assert_eq!(plane["train"]["loss"].as_array().unwrap().len(), 2, "one row per step of the second axis");
    assert_eq!(plane["train"]["loss"][0].as_array().unwrap().len(), 3);

    let report = sandbox.json(&["report", run]);
    open(&sandbox, &report["report"]);
    insta::assert_snapshot!("report", keys(&report));
}

#[test]
fn the_demo_prints_one_document() {
    let sandbox = Sandbox::new();
    let args = ["demo", "--model", MODEL, "--out", "demo"];
    let demo = sandbox.json(&args);
    insta::assert_snapshot!("demo", keys(&demo));
    for path in ["report", "figure", "run", "curve_run"] {
        open(&sandbox, &demo[path]);
    }
    demo["endpoints"].as_array().unwrap().iter().for_each(|endpoint| open(&sandbox, &endpoint["checkpoint"]));
    let rise = |path: &str| demo[path]["barriers"]["train_loss"]["above_worse_end"].as_f64().unwrap();
    assert!(rise("line") > 0.2 && rise("curve") < 0.1, "{} {}", rise("line"), rise("curve"));
    // A finished run is left as it is; with --force it is made anew, with another seed too.
    let before = sandbox.tree();
    assert_eq!(sandbox.json(&[&args[..], &["--resume"]].concat()), demo);
    assert_same_tree(&before, &sandbox.tree(), "a finished demo");
    sandbox.refused(&args, &["demo", "exists already", "--force"]);
    let again = sandbox.json(&[&args[..], &["--force"]].concat());
    assert_eq!(without_clock(again), without_clock(demo.clone()));
    // Killed on the way and resumed, it says the same.
    let killed = Sandbox::new();
    let mut child = killed.command(&[&args[..], &["--quiet"]].concat()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(without_clock(killed.json(&[&args[..], &["--resume"]].concat())), without_clock(demo));
}

#[test]
fn quiet_commands_say_nothing() {
    let sandbox = Sandbox::with_pair();
    for args in [
        &["train", "--model", MODEL, "--epochs", "1", "--out", "c.safetensors"][..],
        &["connect", "a.safetensors", "b.safetensors", "--epochs", "1", "--out", "run"],
        &["profile", "run", "--samples", "3"],
        &["point", "run", "--t", "0.5", "--out", "p.safetensors"],
        &["plane", "run", "--grid", "2x2"],
        &["report", "run"],
        &["inspect", "p.safetensors"],
    ] {
        let answer = sandbox.ok(&[args, &["--quiet"]].concat());
        assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("", ""), "{answer}");
    }
    let answer = sandbox.ok(&["inspect", "p.safetensors", "--quiet", "--json"]);
    assert!(answer.stderr.is_empty() && answer.stdout.starts_with('{'), "{answer}");
    // Errors are said all the same.
    assert!(!sandbox.refused(&["profile", "run", "--quiet"], &["profile.json"]).stderr.is_empty());
}

#[test]
fn every_command_has_help_and_completions() {
    let sandbox = Sandbox::new();
    let top = sandbox.ok(&["--help"]);
    for command in ["train", "connect", "profile", "point", "plane", "report", "inspect", "import", "demo", "completions"] {
        assert!(top.stdout.contains(command), "{top}");
        let help = sandbox.ok(&[command, "--help"]);
        assert!(help.stderr.is_empty() && help.stdout.lines().count() > 8 && help.stdout.contains("Usage: landscape"), "{help}");
        for flag in ["--seed", "--threads", "--device", "--json", "--out", "--force", "--quiet", "--resume", "--max-steps"] {
            assert!(help.stdout.contains(flag), "{command} has {flag}: {help}");
        }
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(sandbox.ok(&["completions", shell]).stdout.contains("landscape"));
    }
    assert!(sandbox.ok(&["--version"]).stdout.starts_with("landscape "));
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_failure() {
    use std::process::{Command, Stdio};
    let sandbox = Sandbox::with_pair();
    for args in [&["completions", "bash"][..], &["--help"], &["inspect", "a.safetensors", "--json"], &["inspect", "a.safetensors"]] {
        let mut child = sandbox.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Closed before anything can have been written.
        let mut reader = Command::new("true").stdin(child.stdout.take().unwrap()).spawn().unwrap();
        reader.wait().unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !stderr.contains("panicked"), "{args:?}: {:?} {stderr}", output.status);
    }
}
