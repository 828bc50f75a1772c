//! A folder to try the command in, and what the command answered.
#![allow(dead_code, reason = "every test file is a program of its own and uses a part of this")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The smallest network that learns the digits.
pub const MODEL: &str = "mlp:64-16-10";

/// An empty folder in which commands are run.
pub struct Sandbox {
    folder: TempDir,
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    pub asked: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    pub fn new() -> Self {
        Sandbox { folder: tempfile::tempdir().unwrap() }
    }

    /// With two trained networks, `a.safetensors` and `b.safetensors`.
    pub fn with_pair() -> Self {
        static PAIR: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
        let pair = PAIR.get_or_init(|| {
            let sandbox = Sandbox::new();
            ["0", "1"].map(|seed| {
                sandbox.ok(&["train", "--model", MODEL, "--epochs", "2", "--seed", seed, "--out", "x.safetensors", "--force"]);
                sandbox.read("x.safetensors")
            })
        });
        let sandbox = Sandbox::new();
        sandbox.write("a.safetensors", &pair[0]);
        sandbox.write("b.safetensors", &pair[1]);
        sandbox
    }

    /// With the pair and `run`, a finished run of `connect`.
    pub fn with_run() -> Self {
        let sandbox = Sandbox::with_pair();
        sandbox.ok(&["connect", "a.safetensors", "b.safetensors", "--epochs", "1", "--out", "run"]);
        sandbox
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The command, ready to be started in the folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("landscape"));
        command.current_dir(self.folder()).args(args).stdin(Stdio::null());
        for name in ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "RUST_LOG", "RAYON_NUM_THREADS"] {
            command.env_remove(name);
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Answer {
        Answer::of(args, self.command(args).output().unwrap())
    }

    /// Runs what must succeed.
    pub fn ok(&self, args: &[&str]) -> Answer {
        let answer = self.run(args);
        assert_eq!(answer.code, Some(0), "{answer}");
        answer
    }

    /// Runs what must succeed, with `--json`: exactly one document.
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let answer = self.ok(&args);
        serde_json::from_str(&answer.stdout).unwrap_or_else(|e| panic!("{e}: {answer}"))
    }

    /// Runs what must be refused as a wrong request: exit code 2, a message that holds all of `needles`, no panic, nothing on
    /// stdout, and not a byte changed in the folder.
    pub fn refused(&self, args: &[&str], needles: &[&str]) -> Answer {
        let before = self.tree();
        let answer = self.run(args);
        assert_eq!(answer.code, Some(2), "{answer}");
        answer.check_message(needles);
        assert_eq!(answer.stdout, "", "{answer}");
        assert_same_tree(&before, &self.tree(), &answer.to_string());
        answer
    }

    /// Every file with its bytes, every folder without.
    pub fn tree(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut tree = BTreeMap::new();
        collect(self.folder(), "", &mut tree);
        tree
    }
}

fn collect(folder: &Path, prefix: &str, tree: &mut BTreeMap<String, Option<Vec<u8>>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{name}/"), tree);
            tree.insert(name, None);
        } else {
            tree.insert(name, Some(std::fs::read(entry.path()).unwrap()));
        }
    }
}

/// Fails with the names that differ, which say more than the bytes.
pub fn assert_same_tree(expected: &BTreeMap<String, Option<Vec<u8>>>, found: &BTreeMap<String, Option<Vec<u8>>>, context: &str) {
    let names: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differing: Vec<&&String> = names.iter().filter(|name| expected.get(**name) != found.get(**name)).collect();
    assert!(differing.is_empty(), "these differ: {differing:?}\n{context}");
}

impl Answer {
    pub fn of(args: &[&str], output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Answer { asked: args.join(" "), code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The message holds all of `needles` and is one for people.
    pub fn check_message(&self, needles: &[&str]) {
        for needle in needles {
            assert!(self.stderr.contains(needle), "expected `{needle}`: {self}");
        }
        for internal in ["panicked", "backtrace", "unwrap", "RUST_"] {
            assert!(!self.stderr.contains(internal), "{self}");
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "landscape {}\nexit code {:?}\nstdout: {}\nstderr: {}", self.asked, self.code, self.stdout, self.stderr)
    }
}

/// A JSON document without the fields that hold times.
pub fn without_clock(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|key, _| !key.ends_with("_seconds"));
                map.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut value);
    value
}
