//! Points measured at once, and networks trained at once: the files are those of one after the other.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Sandbox, assert_same_tree};

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
    assert!(expected.contains_key("run/profile.json") && expected.contains_key("run/plane.json") && expected.contains_key("line/result.json"));
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
