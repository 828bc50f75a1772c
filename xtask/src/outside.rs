//! The packages outside the workspace: each has its own lock file and uses one crate of ours.

use crate::shell;
use anyhow::{Context, bail};
use std::process::Command;

/// Runs the tests of every package in `tests/outside`, sharing the workspace's target folder.
pub fn run() -> anyhow::Result<()> {
    let folder = shell::root().join("tests/outside");
    let mut packages = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list `{}`", folder.display()))? {
        let path = entry?.path();
        if path.join("Cargo.toml").is_file() {
            packages.push(path);
        }
    }
    packages.sort();
    if packages.is_empty() {
        bail!("there are no packages in `{}`", folder.display());
    }
    for package in packages {
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| shell::root().join("target").into_os_string());
        shell::run(Command::new("cargo").args(["test", "--locked"]).current_dir(&package).env("CARGO_TARGET_DIR", target))?;
    }
    Ok(())
}
