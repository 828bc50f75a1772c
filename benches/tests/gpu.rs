//! The program of `cargo xtask gpu` where there is no GPU: it says so, ends well, and leaves no table.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn without_a_gpu_it_says_so_and_leaves_no_table() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landscape-gpu"));
        let output = command.current_dir(folder.path()).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    // No machine has that many, so this one says the same with a GPU and without.
    for args in [&["cuda:60000"][..], &["--part", "bandwidth", "cuda:60000"], &["--inside", "errors", "cuda:60000"]] {
        let (code, said, errors) = run(args);
        assert_eq!(code, Some(0), "{said}{errors}");
        assert!(said.contains("nothing was run and no table written") && said.contains("cuda:60000"), "{said}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    for args in [&["--part", "nothing"][..], &["--nothing"], &["--out"]] {
        let (code, _, errors) = run(args);
        assert!(code != Some(0) && errors.contains(args[0]), "{errors}");
    }
}
