//! The only place that knows file names.
//!
//! A run folder holds the resolved configuration, records, checkpoints and figures of one run (`docs/FORMATS.md`). A run is
//! finished when its `result.json` says so; that file is written last. Every file is whole or absent.

use crate::args::Common;
use anyhow::{Context, bail};
use landscape_core::record::RecordWriter;
use landscape_core::whole::{self, Overwrite};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The folder of numbered runs where `--out` names none.
const RUNS: &str = "runs";
const CONFIG: &str = "config.json";
const RESULT: &str = "result.json";
const RECORDS: &str = "records.jsonl";
const STATE: &str = "state.safetensors";

/// Fields that say where something was found; what was found stands beside them as hashes, and that is what must not change.
const PLACES: [&str; 2] = ["checkpoints", "spec"];

/// A folder of one run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

/// What was found where a run wants to write.
pub enum Start {
    /// Nothing of this run is there yet.
    Fresh,
    /// The run stopped on the way.
    Unfinished,
    /// The run is done; this was its result.
    Finished(Value),
}

impl RunFolder {
    /// The folder of an existing run.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let folder = RunFolder { path: path.to_owned() };
        if !path.is_dir() {
            bail!("`{}` is not a run folder: there is no such folder", path.display());
        }
        if !folder.config_path().is_file() {
            bail!("`{}` is not a run folder: it has no `{CONFIG}`", path.display());
        }
        Ok(folder)
    }

    /// The folder that `--out` names, or a new numbered one.
    pub fn for_output(common: &Common, command: &str) -> anyhow::Result<Self> {
        match &common.out {
            Some(path) => Ok(RunFolder { path: path.clone() }),
            None if common.resume => bail!("`--resume` needs `--out`: which run is to go on?"),
            None => Ok(RunFolder { path: numbered(&format!("-{command}"))? }),
        }
    }

    /// The folder beside a checkpoint that `train` writes: `X.run` for `X.safetensors`. Any other ending belongs to the name, so
    /// that `net.1` and `net.2` have a folder each.
    pub fn beside(checkpoint: &Path) -> Self {
        if checkpoint.extension().is_some_and(|e| e == "safetensors") {
            return RunFolder { path: checkpoint.with_extension("run") };
        }
        let mut name = checkpoint.as_os_str().to_owned();
        name.push(".run");
        RunFolder { path: name.into() }
    }

    /// The folder of a run that is a part of another.
    pub fn in_folder(parent: &RunFolder, name: &str) -> Self {
        RunFolder { path: parent.file(name) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The k-th control point.
    pub fn control_point(&self, k: usize) -> PathBuf {
        self.file(&format!("control_{k}.safetensors"))
    }

    fn config_path(&self) -> PathBuf {
        self.file(CONFIG)
    }

    /// Prepares the folder for a run of this configuration: checks what is there against `--resume` and `--force`, and writes the
    /// configuration where the run is fresh.
    ///
    /// `product` is the file that the run leaves outside of its folder, if any.
    pub fn begin(&self, common: &Common, config: &Value, product: Option<&Path>) -> anyhow::Result<Start> {
        let found = self.found()?;
        let product_exists = product.is_some_and(Path::exists);
        let start = match found {
            Found::Run if common.force && !common.resume => {
                self.clear()?;
                Start::Fresh
            }
            Found::Run if !common.resume => {
                bail!("`{}` exists already; `--resume` goes on with it, `--force` replaces it", self.path.display())
            }
            Found::Run => {
                check_same_config(&self.config()?, config, &self.config_path())?;
                if self.file(RESULT).exists() { Start::Finished(self.read_json(RESULT)?) } else { Start::Unfinished }
            }
            Found::Other(_) if common.force && !common.resume => Start::Fresh,
            Found::Other(name) => bail!(
                "`{}` exists already and is no run folder: it holds `{name}` and no `{CONFIG}`; `--force` writes into it all the same",
                self.path.display()
            ),
            Found::Nothing if product_exists && !common.force => {
                let product = product.unwrap_or(&self.path);
                bail!("`{}` exists already and is not overwritten; `--force` replaces it", product.display())
            }
            Found::Nothing => Start::Fresh,
        };
        std::fs::create_dir_all(&self.path).map_err(|source| landscape_core::Error::Write { path: self.path.clone(), source })?;
        whole::remove_stale(&self.path)?;
        match start {
            Start::Fresh => self.write_json(CONFIG, config)?,
            // A kill may have come after the result and before the state was taken away.
            Start::Finished(_) => self.remove_state()?,
            Start::Unfinished => {}
        }
        Ok(start)
    }

    /// What the folder holds, temporary files of killed runs aside.
    fn found(&self) -> anyhow::Result<Found> {
        if self.config_path().exists() {
            return Ok(Found::Run);
        }
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error).with_context(|| format!("cannot use `{}` as a run folder", self.path.display())),
        };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.starts_with(whole::TEMPORARY_PREFIX) {
                return Ok(Found::Other(name));
            }
        }
        Ok(Found::Nothing)
    }

    /// [`RunFolder::clear`] where there is a run, nothing where there is none.
    pub fn clear_run(&self) -> anyhow::Result<()> {
        if self.path.is_dir() { self.clear() } else { Ok(()) }
    }

    /// Removes the files that runs write, and nothing else: a folder may hold what is not ours.
    fn clear(&self) -> anyhow::Result<()> {
        whole::remove_stale(&self.path)?;
        for entry in std::fs::read_dir(&self.path).with_context(|| format!("cannot list `{}`", self.path.display()))? {
            let path = entry?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if is_of_a_run(&name) && path.is_file() {
                std::fs::remove_file(&path).with_context(|| format!("cannot remove `{}`", path.display()))?;
            }
        }
        Ok(())
    }

    /// The resolved configuration.
    pub fn config(&self) -> anyhow::Result<Value> {
        self.read_json(CONFIG)
    }

    /// The result, if the run is finished.
    pub fn result(&self) -> anyhow::Result<Value> {
        self.read_json(RESULT)
    }

    /// Writes the result: the run is finished.
    pub fn finish(&self, result: &Value) -> anyhow::Result<()> {
        self.write_json(RESULT, result)?;
        self.remove_state()
    }

    fn remove_state(&self) -> anyhow::Result<()> {
        let state = self.file(STATE);
        if state.exists() {
            std::fs::remove_file(&state).with_context(|| format!("cannot remove `{}`", state.display()))?;
        }
        Ok(())
    }

    /// The state of an unfinished run.
    pub fn read_state(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.file(STATE);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        }
    }

    /// Where the state is, for messages.
    pub fn state_path(&self) -> PathBuf {
        self.file(STATE)
    }

    /// Replaces the state.
    pub fn write_state(&self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(whole::write(&self.file(STATE), bytes, Overwrite::Replace)?)
    }

    /// The records, cut back to `len_bytes`.
    pub fn records(&self, len_bytes: u64) -> anyhow::Result<RecordWriter> {
        Ok(RecordWriter::resume_at(&self.file(RECORDS), len_bytes)?)
    }

    /// Where the records are.
    pub fn records_path(&self) -> PathBuf {
        self.file(RECORDS)
    }

    /// Writes a JSON document of the run, replacing what was there.
    pub fn write_json(&self, name: &str, value: &Value) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        Ok(whole::write(&self.file(name), text.as_bytes(), Overwrite::Replace)?)
    }

    /// Reads a JSON document of the run.
    pub fn read_json(&self, name: &str) -> anyhow::Result<Value> {
        let path = self.file(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("`{}` is not JSON", path.display()))
    }
}

/// What stands where a run wants to write.
enum Found {
    Nothing,
    Run,
    /// What is not a run's, by the name of one file.
    Other(String),
}

/// Whether runs write files of this name.
fn is_of_a_run(name: &str) -> bool {
    let (stem, ending) = name.split_once('.').unwrap_or((name, ""));
    match stem {
        "profile" | "profile_line" | "plane" => ["json", "svg", "png", "html", "partial.jsonl"].contains(&ending),
        _ if ending == "safetensors" && stem.starts_with("control_") => stem["control_".len()..].bytes().all(|b| b.is_ascii_digit()),
        _ => [CONFIG, RESULT, RECORDS, STATE, "curve.npz", "line.npz", "report.html"].contains(&name),
    }
}

/// The next free `runs/NNNN` with this ending, as a path.
pub fn numbered(ending: &str) -> anyhow::Result<PathBuf> {
    let runs = Path::new(RUNS);
    let mut last = 0;
    if runs.is_dir() {
        for entry in std::fs::read_dir(runs).with_context(|| format!("cannot list `{RUNS}`"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
            last = last.max(digits.parse::<u32>().unwrap_or(0));
        }
    }
    Ok(runs.join(format!("{:04}{ending}", last + 1)))
}

/// Fails, naming the fields, unless a resumed run has the configuration it began with.
pub fn check_same_config(old: &Value, new: &Value, path: &Path) -> anyhow::Result<()> {
    let mut changed = Vec::new();
    differences("", old, new, &mut changed);
    if changed.is_empty() {
        return Ok(());
    }
    bail!("`--resume` with a changed configuration; `{}` has other values:\n  {}", path.display(), changed.join("\n  "))
}

fn differences(prefix: &str, old: &Value, new: &Value, changed: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys.into_iter().filter(|key| !PLACES.contains(&key.as_str())) {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                let null = Value::Null;
                differences(&name, a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null), changed);
            }
        }
        _ if old != new => changed.push(format!("`{prefix}` was {old}, got {new}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_changed_configuration_names_each_field() {
        let old = json!({"fit": {"epochs": 3, "lr": 0.1}, "data": "digits"});
        let new = json!({"fit": {"epochs": 4, "lr": 0.1}, "data": "mnist"});
        let message = check_same_config(&old, &new, Path::new("config.json")).unwrap_err().to_string();
        assert!(message.contains("`fit.epochs` was 3, got 4") && message.contains("`data` was \"digits\", got \"mnist\""), "{message}");
        assert!(!message.contains("lr"));
        assert!(check_same_config(&old, &old.clone(), Path::new("config.json")).is_ok());
    }
}
