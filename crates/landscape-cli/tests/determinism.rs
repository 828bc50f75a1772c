//! The same seed gives the same bits: between runs, between numbers of threads, and whether a run was left alone, stopped and
//! resumed, interrupted or killed.
#![allow(clippy::unwrap_used)]

mod common;

use common::{MODEL, Sandbox, assert_same_tree, without_clock};
use landscape_core::Seed;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// A folder without times: JSON loses its clocks and the number of threads, saved states hold clocks and are left out.
fn comparable(sandbox: &Sandbox) -> Tree {
    let strip = |bytes: &[u8]| {
        let mut value = without_clock(serde_json::from_slice(bytes).unwrap());
        if let Value::Object(map) = &mut value {
            map.remove("threads");
        }
        serde_json::to_vec(&value).unwrap()
    };
    let mut tree = sandbox.tree();
    tree.retain(|name, _| !name.ends_with("state.safetensors"));
    for (name, bytes) in &mut tree {
        let Some(bytes) = bytes else { continue };
        if name.ends_with(".json") {
            *bytes = strip(bytes);
        } else if name.ends_with(".jsonl") {
            *bytes = bytes.split_inclusive(|&b| b == b'\n').map(strip).collect::<Vec<_>>().join(&b'\n');
        }
    }
    tree
}

#[test]
fn runs_and_numbers_of_threads_agree_bit_for_bit() {
    for model in [MODEL, "cnn"] {
        let job = |threads: &str| {
            let sandbox = Sandbox::new();
            for (seed, out) in [("0", "a.safetensors"), ("1", "b.safetensors")] {
                sandbox.ok(&["train", "--model", model, "--epochs", "2", "--seed", seed, "--out", out, "--threads", threads]);
            }
            let connect = ["connect", "a.safetensors", "b.safetensors", "--epochs", "2", "--points", "4", "--out", "run"];
            sandbox.ok(&[&connect[..], &["--threads", threads]].concat());
            for refresh in [&["--npz"][..], &["--straight", "--refresh", "sequential"]] {
                sandbox.ok(&[&["profile", "run", "--samples", "3", "--threads", threads], refresh].concat());
            }
            sandbox.ok(&["point", "run", "--t", "0.4", "--out", "p.safetensors", "--threads", threads]);
            sandbox.ok(&["plane", "run", "--grid", "3x2", "--threads", threads]);
            sandbox
        };
        let first = comparable(&job("2"));
        assert!(first.len() > 20, "{:?}", first.keys());
        assert_same_tree(&first, &comparable(&job("2")), "between runs");
        assert_same_tree(&first, &comparable(&job("1")), "between numbers of threads");
    }
    // Another seed gives other bits, or nothing was compared.
    let pair = Sandbox::with_pair();
    assert!(pair.read("a.safetensors") != pair.read("b.safetensors"));
}

#[test]
fn a_run_that_stops_and_goes_on_equals_an_unbroken_one() {
    let train = |extra: &[&'static str]| [&["train", "--epochs", "3", "--out", "x.safetensors"], extra].concat();
    let connect =
        |extra: &[&'static str]| [&["connect", "a.safetensors", "b.safetensors", "--epochs", "3", "--out", "run"], extra].concat();
    let jobs: [Vec<&str>; 5] = [
        train(&["--model", MODEL]),
        train(&["--model", "cnn", "--optimizer", "adam", "--schedule", "cosine", "--eval-every", "2"]),
        connect(&[]),
        connect(&["--curve", "polychain", "--bends", "2", "--optimizer", "adamw", "--init", "random", "--batch-size", "100"]),
        connect(&["--free-start", "--free-end", "--decay-on", "control-points", "--init", "arc", "--schedule", "triangular:2/0.1"]),
    ];
    for job in jobs {
        let unbroken = Sandbox::with_pair();
        unbroken.ok(&job);
        let broken = Sandbox::with_pair();
        // In the middle of an epoch, at the end of one, nowhere new, and to the end; the number of threads may change.
        for extra in [&["--max-steps", "5"][..], &["--max-steps", "24", "--resume", "--threads", "1"], &["--max-steps", "24", "--resume"]] {
            broken.ok(&[&job[..], extra].concat());
            assert!(!broken.tree().keys().any(|name| name.ends_with("result.json")), "not finished yet");
        }
        broken.ok(&[&job[..], &["--resume"]].concat());
        assert_same_tree(&comparable(&unbroken), &comparable(&broken), &job.join(" "));
        assert!(!broken.tree().keys().any(|name| name.ends_with("state.safetensors")), "a finished run needs no state");
    }
}

#[test]
fn resume_starts_what_is_not_there_and_leaves_alone_what_is_finished() {
    let sandbox = Sandbox::with_pair();
    let jobs = [
        &["train", "--model", MODEL, "--epochs", "1", "--out", "x.safetensors", "--resume"][..],
        &["connect", "a.safetensors", "b.safetensors", "--epochs", "1", "--out", "run", "--resume"],
        &["profile", "a.safetensors", "b.safetensors", "--samples", "3", "--out", "line", "--resume"],
        &["profile", "run", "--samples", "3", "--resume"],
        &["plane", "run", "--grid", "2x2", "--resume"],
        &["point", "run", "--t", "0.5", "--out", "p.safetensors", "--resume"],
    ];
    for job in jobs {
        sandbox.ok(job);
    }
    let times = || -> BTreeMap<String, SystemTime> {
        let names = sandbox.tree().into_keys();
        names.map(|name| (name.clone(), std::fs::metadata(sandbox.path(&name)).unwrap().modified().unwrap())).collect()
    };
    let (tree, before) = (sandbox.tree(), times());
    for job in jobs {
        sandbox.ok(job);
        assert_same_tree(&tree, &sandbox.tree(), &job.join(" "));
    }
    sandbox.refused(&["point", "run", "--t", "0.6", "--out", "p.safetensors", "--resume"], &["p.safetensors", "t = 0.5", "0.6"]);
    let changed: Vec<String> =
        times().into_iter().filter(|(name, time)| before[name] != *time && !sandbox.path(name).is_dir()).map(|p| p.0).collect();
    assert!(changed.is_empty(), "written again: {changed:?}");
    // What only a killed run left counts as nothing.
    sandbox.write("new/.landscape-partial-0123456789abcdef-zzzzzz", b"half a file");
    sandbox.ok(&["connect", "a.safetensors", "b.safetensors", "--epochs", "1", "--out", "new", "--resume"]);
    assert!(sandbox.read("new/control_1.safetensors") == sandbox.read("run/control_1.safetensors"));
    check_no_temporaries(&sandbox);
}

fn check_no_temporaries(sandbox: &Sandbox) {
    let tree = sandbox.tree();
    let left: Vec<&String> = tree.keys().filter(|name| name.contains(".landscape-partial")).collect();
    assert!(left.is_empty(), "{left:?} stayed");
}

/// Only checkpoints and records: the result of an unfinished run is not written.
fn checkpoints_and_records(sandbox: &Sandbox) -> Tree {
    let mut tree = comparable(sandbox);
    tree.retain(|name, _| name.ends_with(".safetensors") || name.ends_with("records.jsonl"));
    tree
}

#[test]
fn killed_at_random_instants_and_resumed_the_files_are_those_of_an_unbroken_run() {
    const N_KILLS: usize = 20;
    let job = ["connect", "a.safetensors", "b.safetensors", "--epochs", "3000", "--out", "run", "--resume", "--quiet"];
    let unbroken = Sandbox::with_pair();
    unbroken.ok(&job);
    let expected = comparable(&unbroken);
    let mut random = Seed::new(20).child("kills").stream();
    let mut broken = Sandbox::with_pair();
    let (mut n_with_state, mut n_finished) = (0, 0);
    for kill_idx in 0..N_KILLS {
        // Half of them while the run starts, half around the first saving of the state, a second into the run.
        let share = random.uniform();
        let after = Duration::from_secs_f64(if kill_idx % 2 == 0 { 0.4 * share } else { 0.95 + 0.35 * share });
        let mut child = broken.command(&job).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(after);
        // Also where it ended by itself in the meantime.
        child.kill().unwrap();
        child.wait().unwrap();
        n_with_state += usize::from(broken.path("run/state.safetensors").is_file());
        if broken.path("run/result.json").is_file() {
            broken.ok(&job);
            assert_same_tree(&expected, &comparable(&broken), "after kills");
            n_finished += 1;
            broken = Sandbox::with_pair();
        }
    }
    broken.ok(&job);
    assert_same_tree(&expected, &comparable(&broken), "after the last kill");
    check_no_temporaries(&broken);
    assert!(n_with_state > 0 && n_finished < N_KILLS, "kills came after a state was saved ({n_with_state}) and before the end");
}

#[test]
fn many_networks_killed_on_the_way_and_resumed_are_those_of_an_unbroken_run() {
    let job = ["train", "--seeds", "0..4", "--model", MODEL, "--epochs", "400", "--out", "many", "--threads", "2", "--resume", "--quiet"];
    let unbroken = Sandbox::new();
    unbroken.ok(&job);
    let expected = comparable(&unbroken);
    assert!(expected.contains_key("many/seed-3.safetensors") && expected.contains_key("many/result.json"));
    let n_with =
        |sandbox: &Sandbox, file: &str| (0..4).filter(|seed| sandbox.path(&format!("many/seed-{seed}.run/{file}")).is_file()).count();
    let broken = Sandbox::new();
    // When the first two have begun, when a state was saved (after a second; or where all is faster than that, when one is done), when one
    // is done and two have not begun, and when the third is done.
    let instants: [&dyn Fn() -> bool; 4] = [
        &|| n_with(&broken, "records.jsonl") > 0,
        &|| n_with(&broken, "state.safetensors") + n_with(&broken, "result.json") > 0,
        &|| n_with(&broken, "result.json") > 0,
        &|| n_with(&broken, "result.json") > 2,
    ];
    for (idx, has_come) in instants.iter().enumerate() {
        let mut child = broken.command(&job).spawn().unwrap();
        while child.try_wait().unwrap().is_none() && !has_come() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(idx == 3 || !broken.path("many/result.json").is_file(), "the run was over before kill {idx}");
    }
    broken.ok(&job);
    assert_same_tree(&expected, &comparable(&broken), "after the last kill");
    check_no_temporaries(&broken);
}

#[cfg(unix)]
#[test]
fn interrupted_runs_say_how_to_go_on_and_do() {
    for (args, out, folder) in [
        (["connect", "a.safetensors", "b.safetensors", "--epochs", "1000000", "--out", "run"], "run", "run"),
        (["train", "--model", MODEL, "--epochs", "1000000", "--out", "x.safetensors"], "x.safetensors", "x.run"),
    ] {
        let broken = Sandbox::with_pair();
        let records = broken.path(folder).join("records.jsonl");
        let mut child = broken.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        while std::fs::metadata(&records).map_or(0, |m| m.len()) < 1000 {
            assert!(started.elapsed() < Duration::from_secs(60), "the run does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Twice at once, as `timeout` and some shells do.
        for _ in 0..2 {
            let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).output().unwrap();
            assert!(sent.status.success() || child.try_wait().unwrap().is_some(), "{sent:?}");
        }
        let answer = common::Answer::of(&args, child.wait_with_output().unwrap());
        assert_eq!(answer.code, Some(130), "{answer}");
        answer.check_message(&["interrupted", "saved", &format!("--resume --out {out}")]);
        assert!(answer.stdout.is_empty() && broken.path(folder).join("state.safetensors").is_file(), "{answer}");
        // On for another 30 steps, and the same from the beginning.
        let last = std::fs::read_to_string(&records).unwrap();
        let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
        let steps = (last["step"].as_u64().unwrap() + 30).to_string();
        broken.ok(&[&args[..], &["--resume", "--max-steps", &steps]].concat());
        let unbroken = Sandbox::with_pair();
        unbroken.ok(&[&args[..], &["--max-steps", &steps]].concat());
        assert_same_tree(&checkpoints_and_records(&unbroken), &checkpoints_and_records(&broken), &args.join(" "));
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_measurement_goes_on_where_it_stopped() {
    let sandbox = Sandbox::with_run();
    for (args, record) in [(&["profile", "run", "--samples", "801"][..], "profile"), (&["plane", "run", "--grid", "30x30"], "plane")] {
        let partial = sandbox.path(&format!("run/{record}.partial.jsonl"));
        let child = sandbox.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        while std::fs::metadata(&partial).map_or(0, |m| m.len()) < 5000 {
            assert!(started.elapsed() < Duration::from_secs(60), "the measurement does not begin");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        let answer = common::Answer::of(args, child.wait_with_output().unwrap());
        assert_eq!(answer.code, Some(130), "{answer}");
        answer.check_message(&["--resume"]);
        assert!(partial.is_file() && !sandbox.path(&format!("run/{record}.json")).exists(), "{answer}");
        let resumed = sandbox.json(&[args, &["--resume"]].concat());
        let unbroken = sandbox.json(&[args, &["--force"]].concat());
        assert_eq!(resumed, unbroken);
        assert!(!partial.exists());
    }
}
