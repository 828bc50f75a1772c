//! A disk that fills up, played by a limit on the size of files: the run fails with exit code 1 and names the file, leaves no partial
//! or temporary one, and what was there before is untouched. With room again, `--resume` ends with the bytes of an unbroken run.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod common;

use common::{Answer, MODEL, Sandbox};
use std::process::Command;

/// Runs the command where no file may grow beyond `n_blocks` of 512 bytes. Without the trap the signal would kill the process.
fn limited(sandbox: &Sandbox, n_blocks: u64, args: &[&str]) -> Answer {
    let mut command = Command::new("sh");
    command.current_dir(sandbox.folder()).arg("-c").arg(format!("trap '' XFSZ; ulimit -f {n_blocks}; exec \"$@\"")).arg("sh");
    command.arg(assert_cmd::cargo::cargo_bin!("landscape")).args(args);
    Answer::of(args, command.output().unwrap())
}

fn check_failed(sandbox: &Sandbox, answer: &Answer, out: &str) {
    assert_eq!(answer.code, Some(1), "{answer}");
    let stem = out.trim_end_matches(".safetensors");
    answer.check_message(&[&format!("cannot write `{stem}"), "File too large"]);
    assert_eq!(answer.stdout, "", "{answer}");
    check_no_temporaries(sandbox, answer);
}

fn check_no_temporaries(sandbox: &Sandbox, context: &Answer) {
    let tree = sandbox.tree();
    let partial: Vec<&String> = tree.keys().filter(|name| name.contains("partial")).collect();
    assert!(partial.is_empty(), "{partial:?} stayed\n{context}");
}

#[test]
fn train_on_a_full_disk() {
    let args = ["train", "--model", MODEL, "--epochs", "12", "--out", "x.safetensors"];
    let unbroken = Sandbox::new();
    unbroken.ok(&args);
    let expected = unbroken.read("x.safetensors");
    // From the configuration over records and state to the checkpoint itself.
    for n_blocks in [0, 1, 2, 3, 4, 5, 8, 11] {
        let sandbox = Sandbox::new();
        let answer = limited(&sandbox, n_blocks, &args);
        check_failed(&sandbox, &answer, "x.safetensors");
        assert!(!sandbox.path("x.safetensors").exists(), "{answer}");
        sandbox.ok(&[&args[..], &["--resume"]].concat());
        assert!(sandbox.read("x.safetensors") == expected, "{n_blocks} blocks");

        let sandbox = Sandbox::new();
        sandbox.write("x.safetensors", b"an older file");
        let answer = limited(&sandbox, n_blocks, &[&args[..], &["--force"]].concat());
        check_failed(&sandbox, &answer, "x.safetensors");
        assert_eq!(sandbox.read("x.safetensors"), b"an older file");
        sandbox.ok(&[&args[..], &["--force", "--resume"]].concat());
        assert!(sandbox.read("x.safetensors") == expected, "{n_blocks} blocks");
    }
    let sandbox = Sandbox::new();
    assert_eq!(limited(&sandbox, 1000, &args).code, Some(0));
    assert!(sandbox.read("x.safetensors") == expected);
}

#[test]
fn a_state_that_does_not_fit_leaves_the_run_resumable() {
    let args = ["train", "--model", MODEL, "--epochs", "3", "--out", "x.safetensors"];
    let unbroken = Sandbox::new();
    unbroken.ok(&args);
    let sandbox = Sandbox::new();
    sandbox.ok(&[&args[..], &["--max-steps", "5"]].concat());
    let state = sandbox.read("x.run/state.safetensors");
    let n_blocks = state.len() as u64 / 512;
    let answer = limited(&sandbox, n_blocks, &[&args[..], &["--resume", "--max-steps", "17"]].concat());
    check_failed(&sandbox, &answer, "x.safetensors");
    answer.check_message(&["x.run/state.safetensors"]);
    assert!(sandbox.read("x.run/state.safetensors") == state, "the older state is untouched");
    sandbox.ok(&[&args[..], &["--resume"]].concat());
    assert!(sandbox.read("x.safetensors") == unbroken.read("x.safetensors"));
}

#[test]
fn connect_profile_and_point_on_a_full_disk() {
    let connect = ["connect", "a.safetensors", "b.safetensors", "--epochs", "3", "--out", "run"];
    let unbroken = Sandbox::with_pair();
    unbroken.ok(&connect);
    for n_blocks in [0, 2, 5, 10] {
        let sandbox = Sandbox::with_pair();
        let answer = limited(&sandbox, n_blocks, &connect);
        check_failed(&sandbox, &answer, "run");
        sandbox.ok(&[&connect[..], &["--resume"]].concat());
        for k in 0..3 {
            let name = format!("run/control_{k}.safetensors");
            assert!(sandbox.read(&name) == unbroken.read(&name), "{name} after {n_blocks} blocks");
        }
    }
    let profile = ["profile", "run", "--samples", "9"];
    for n_blocks in [0, 3, 12] {
        let answer = limited(&unbroken, n_blocks, &profile);
        assert_eq!(answer.code, Some(1), "{answer}");
        answer.check_message(&["cannot write `run/profile", "File too large"]);
        assert!(!unbroken.path("run/profile.json").exists(), "{answer}");
        assert!(!unbroken.tree().keys().any(|name| name.contains(".landscape-partial")), "{answer}");
    }
    unbroken.ok(&[&profile[..], &["--resume"]].concat());
    check_no_temporaries(&unbroken, &limited(&unbroken, 0, &["--version"]));
    let point = ["point", "run", "--t", "0.5", "--out", "p.safetensors"];
    for n_blocks in [0, 5, 10] {
        let answer = limited(&unbroken, n_blocks, &point);
        check_failed(&unbroken, &answer, "p.safetensors");
        assert!(!unbroken.path("p.safetensors").exists());
    }
    unbroken.ok(&point);
    let old = unbroken.read("p.safetensors");
    let answer = limited(&unbroken, 5, &["point", "run", "--t", "0.7", "--out", "p.safetensors", "--force"]);
    check_failed(&unbroken, &answer, "p.safetensors");
    assert!(unbroken.read("p.safetensors") == old, "the older output is untouched");
}
