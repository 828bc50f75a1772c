//! Running programs.

use anyhow::{Context, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// The target folder of the cargos that are started here, which is in the workspace's root: a relative one counts from there.
pub fn target() -> PathBuf {
    target_of(std::env::var_os("CARGO_TARGET_DIR"))
}

fn target_of(said: Option<OsString>) -> PathBuf {
    root().join(said.unwrap_or_else(|| "target".into()))
}

/// Runs a command and fails unless it succeeds.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Runs a command and reads the one JSON document that it prints.
pub fn json(command: &mut Command) -> anyhow::Result<serde_json::Value> {
    let output = command.stderr(std::process::Stdio::inherit()).output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} did not print one JSON document"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_folder_is_that_of_a_cargo_in_the_root() {
        assert_eq!(target_of(None), root().join("target"));
        assert_eq!(target_of(Some("elsewhere".into())), root().join("elsewhere"));
        assert_eq!(target_of(Some("/elsewhere".into())), Path::new("/elsewhere"));
    }
}
