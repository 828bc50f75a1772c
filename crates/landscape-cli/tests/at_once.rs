//! Points measured at once, and networks trained at once: the files are those of one after the other.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MODEL, Sandbox, assert_same_tree, without_clock};
use serde_json::{Value, json};

#[test]
fn threads_and_budgets_do_not_change_a_measurement() {
    let files = |threads: &str, memory_mib: &str| {
        let sandbox = Sandbox::with_run();
        let at_once = ["--threads", threads, "--memory-mib", memory_mib];
        sandbox.ok(&[&["profile", "run", "--samples", "7", "--batch-size", "100"][..], &at_once].concat());
        sandbox.ok(&[&["plane", "run", "--grid", "4x3"][..], &at_once].concat());
        sandbox.ok(&[&["profile", "a.safetensors", "b.safetensors", "--samples", "5", "--out", "line"][..], &at_once].concat());
        let mut tree = sandbox.tree();
        tree.remove("run/result.json");
        tree.remove("run/records.jsonl");
        tree
    };
    let expected = files("1", "2048");
    assert!(
        expected.contains_key("run/profile.json") && expected.contains_key("run/plane.json") && expected.contains_key("line/result.json")
    );
    for (threads, memory_mib) in [("2", "2048"), ("2", "1"), ("3", "2048"), ("3", "1")] {
        assert_same_tree(&expected, &files(threads, memory_mib), &format!("--threads {threads} --memory-mib {memory_mib}"));
    }
}

#[test]
fn a_budget_of_nothing_is_refused() {
    let sandbox = Sandbox::with_run();
    for command in ["profile", "plane"] {
        for budget in ["0", "-1", "much"] {
            sandbox.refused(&[command, "run", "--memory-mib", budget], &["--memory-mib", budget]);
        }
    }
}

/// A record as text without its clocks and the number of threads.
fn without_clocks(bytes: &[u8]) -> String {
    let lines = String::from_utf8(bytes.to_vec()).unwrap();
    let documents: Vec<Value> = serde_json::Deserializer::from_str(&lines).into_iter().map(|v| without_clock(v.unwrap())).collect();
    let strip = |mut value: Value| {
        value.as_object_mut().unwrap().retain(|key, _| key != "threads" && key != "checkpoint");
        value.to_string()
    };
    documents.into_iter().map(strip).collect::<Vec<_>>().join("\n")
}

/// The networks in `many/` are those that `train --seed` gives, file for file.
fn check_networks(sandbox: &Sandbox, alone: &Sandbox, seeds: std::ops::Range<u64>, flags: &[&str]) {
    for seed in seeds {
        let (seed_text, out) = (seed.to_string(), format!("seed-{seed}.safetensors"));
        if !alone.path(&out).exists() {
            alone.ok(&[&["train", "--seed", &seed_text, "--out", &out][..], flags].concat());
        }
        assert!(sandbox.read(&format!("many/{out}")) == alone.read(&out), "seed {seed}");
        for file in ["config.json", "records.jsonl", "result.json"] {
            let name = format!("seed-{seed}.run/{file}");
            assert_eq!(without_clocks(&sandbox.read(&format!("many/{name}"))), without_clocks(&alone.read(&name)), "{name}");
        }
    }
}

#[test]
fn networks_trained_at_once_are_those_trained_alone() {
    for flags in [
        &["--model", MODEL, "--epochs", "3"][..],
        &["--model", "cnn", "--epochs", "1", "--optimizer", "adam", "--batch-size", "200", "--eval-every", "2"],
    ] {
        let alone = Sandbox::new();
        for threads in ["1", "2", "3"] {
            let sandbox = Sandbox::new();
            let args = [&["train", "--seeds", "3..7", "--out", "many", "--threads", threads][..], flags].concat();
            let result = sandbox.json(&args);
            check_networks(&sandbox, &alone, 3..7, flags);
            assert_eq!(
                result["networks"].as_array().unwrap().iter().map(|n| n["seed"].as_u64().unwrap()).collect::<Vec<_>>(),
                [3, 4, 5, 6]
            );
            assert_eq!((&result["finished"], &result["diverged"]), (&json!(true), &json!([])));
            let errors: Vec<f64> = result["networks"].as_array().unwrap().iter().map(|n| n["test"]["error"].as_f64().unwrap()).collect();
            assert!((result["test"]["error"]["mean"].as_f64().unwrap() - errors.iter().sum::<f64>() / 4.0).abs() < 1e-15);
            assert!(errors.iter().any(|e| *e != errors[0]), "different seeds give different networks");
            let before = sandbox.tree();
            assert_eq!(sandbox.json(&[&args[..], &["--resume"]].concat()), result, "finished is finished");
            assert_same_tree(&before, &sandbox.tree(), "resumed");
        }
    }
}

#[test]
fn networks_that_stopped_on_the_way_go_on_and_those_that_are_done_stay() {
    let flags = ["--model", MODEL, "--epochs", "3"];
    let (sandbox, alone) = (Sandbox::new(), Sandbox::new());
    let args = [&["train", "--seeds", "0..4", "--out", "many"][..], &flags].concat();
    let stopped = sandbox.json(&[&args[..], &["--max-steps", "17"]].concat());
    assert_eq!(stopped["finished"], false);
    assert!(!sandbox.path("many/result.json").exists() && sandbox.path("many/seed-2.run/state.safetensors").is_file());
    // As if a kill had come when one was done and another had not begun.
    sandbox.ok(&[&["train", "--seed", "1", "--out", "many/seed-1.safetensors", "--resume"][..], &flags].concat());
    std::fs::remove_dir_all(sandbox.path("many/seed-3.run")).unwrap();
    std::fs::remove_file(sandbox.path("many/seed-3.safetensors")).unwrap();
    sandbox.ok(&[&args[..], &["--resume"]].concat());
    check_networks(&sandbox, &alone, 0..4, &flags);
    // Another configuration is another run, and replaces this one as a whole if asked to.
    sandbox.refused(&[&args[..], &["--resume", "--lr", "0.5"]].concat(), &["changed", "fit.optimizer.lr", "0.5"]);
    sandbox.refused(
        &["train", "--seeds", "0..5", "--out", "many", "--resume", "--model", MODEL, "--epochs", "3"],
        &["`seeds`", "0..4", "0..5"],
    );
    sandbox.refused(&args, &["many", "--resume", "--force"]);
    let other = ["--model", MODEL, "--epochs", "1"];
    sandbox.ok(&[&["train", "--seeds", "0..4", "--out", "many", "--force"][..], &other].concat());
    check_networks(&sandbox, &Sandbox::new(), 0..4, &other);
}

#[test]
fn networks_that_diverge_are_named_and_the_others_are_trained() {
    let sandbox = Sandbox::new();
    let args = ["train", "--seeds", "0..3", "--out", "many", "--model", MODEL, "--epochs", "2", "--lr", "1e30", "--json"];
    let first = sandbox.run(&args);
    assert_eq!(first.code, Some(1), "{first}");
    first.check_message(&["3 of 3 networks diverged", "--lr"]);
    let result: Value = serde_json::from_str(&first.stdout).unwrap();
    assert_eq!(result["diverged"].as_array().map(Vec::len), Some(3));
    assert_eq!(result["networks"], json!([]));
}

#[test]
fn seeds_that_are_no_range_and_places_that_are_taken_are_refused() {
    let sandbox = Sandbox::with_run();
    for seeds in ["5..2", "0..0", "7", "-1..2", "0..99999999999", "a..b", ""] {
        sandbox.refused(&["train", "--seeds", seeds, "--out", "many"], &["--seeds", "FIRST..END"]);
    }
    sandbox.refused(&["train", "--seeds", "0..2", "--seed", "3", "--out", "many"], &["--seeds", "--seed"]);
    sandbox.refused(&["train", "--seeds", "0..2"], &["--seeds", "--out"]);
    sandbox.refused(&["train", "--seeds", "0..2", "--out", "a.safetensors"], &["a.safetensors", "folder"]);
    sandbox.refused(&["train", "--seeds", "0..2", "--out", "run"], &["run", "--resume"]);
    sandbox.write("full/notes.txt", "mine");
    sandbox.refused(&["train", "--seeds", "0..2", "--out", "full"], &["full", "notes.txt", "--force"]);
    sandbox.refused(&["train", "--seeds", "0..2", "--out", "many", "--epochs", "0"], &["epochs", "0"]);
}

/// All numbers of a document, in order.
fn numbers(value: &Value, into: &mut Vec<f64>) {
    match value {
        Value::Number(number) => into.push(number.as_f64().unwrap()),
        Value::Array(items) => items.iter().for_each(|item| numbers(item, into)),
        Value::Object(map) => map.values().for_each(|item| numbers(item, into)),
        _ => {}
    }
}

#[test]
fn a_shared_first_layer_gives_the_same_numbers_to_rounding_and_says_so() {
    let sandbox = Sandbox::with_run();
    for (args, file, key) in [
        (&["profile", "run", "--samples", "7"][..], "run/profile.json", "points"),
        (&["plane", "run", "--grid", "4x3"], "run/plane.json", "train"),
    ] {
        let plain = sandbox.json(args);
        let shared: Vec<&str> = args.iter().copied().chain(["--shared-first-layer", "--force"]).collect();
        sandbox.refused(&[args, &["--shared-first-layer", "--resume"]].concat(), &["shared_first_layer", "true"]);
        let found = sandbox.json(&shared);
        assert_eq!((&plain["settings"]["shared_first_layer"], &found["settings"]["shared_first_layer"]), (&Value::Null, &json!(true)));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        numbers(&plain[key], &mut a);
        numbers(&found[key], &mut b);
        assert!(a.len() == b.len() && a.len() > 20);
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{a} {b}");
        }
        let first = sandbox.read(file);
        for flags in [&["--threads", "1"][..], &["--threads", "3"], &["--memory-mib", "1"]] {
            sandbox.ok(&[&shared[..], flags].concat());
            assert!(sandbox.read(file) == first, "{flags:?}");
        }
    }
    // 1,797 examples, 3 control points, 16 numbers: 337 KiB fit into a MiB; with 256 they do not.
    for (seed, out) in [("0", "c.safetensors"), ("1", "d.safetensors")] {
        sandbox.ok(&["train", "--model", "mlp:64-256-10", "--epochs", "1", "--seed", seed, "--out", out]);
    }
    let wide = ["profile", "c.safetensors", "d.safetensors", "--samples", "3", "--shared-first-layer", "--out", "line"];
    sandbox.ok(&wide);
    let answer = sandbox.run(&["profile", "c.safetensors", "d.safetensors", "--shared-first-layer", "--memory-mib", "1", "--out", "other"]);
    assert_eq!(answer.code, Some(2), "{answer}");
    answer.check_message(&["--shared-first-layer", "4 MiB", "--memory-mib", "allows 1"]);
    sandbox.ok(&["train", "--model", "mlp:64-10", "--epochs", "1", "--out", "e.safetensors"]);
    let only = sandbox.run(&["profile", "e.safetensors", "e.safetensors", "--shared-first-layer", "--out", "only"]);
    assert_eq!(only.code, Some(2), "{only}");
    only.check_message(&["first layer"]);
}
