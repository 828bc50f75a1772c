//! `landscape train --seeds A..B`: many networks in one process, one per thread, each with the bits of its own `train --seed`.

use super::train::{Job, train};
use crate::args::Common;
use crate::failure::{self, Interrupted, SomeFailed};
use crate::interrupt;
use crate::output;
use crate::progress::Progress;
use crate::run_folder::{RunFolder, Start};
use anyhow::{Context, bail};
use landscape_core::parallel_points::in_order;
use landscape_kernels::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

/// More networks than anyone trains at once; a mistake in `--seeds` must not fill the disk.
const MAX_NETWORKS: u64 = 1_000_000;

/// Seeds from the first up to, and without, the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    first: u64,
    end: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let both = text.split_once("..").and_then(|(first, end)| Some((first.trim().parse().ok()?, end.trim().parse().ok()?)));
        match both {
            Some((first, end)) if first < end && end - first <= MAX_NETWORKS => Ok(Seeds { first, end }),
            _ => Err(format!(
                "expected FIRST..END with FIRST below END, at most {MAX_NETWORKS} apart, such as `0..100` for the seeds 0 to 99"
            )),
        }
    }
}

impl Seeds {
    fn indices(self) -> Range<usize> {
        0..(self.end - self.first) as usize
    }

    fn seed(self, idx: usize) -> u64 {
        self.first + idx as u64
    }
}

impl std::fmt::Display for Seeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.first, self.end)
    }
}

/// How one network ended.
enum Ended {
    /// With this result.
    Trained(Value),
    /// With weights that are no numbers; the others go on.
    Diverged(String),
}

/// Trains a network for each seed into the folder `--out`: `seed-N.safetensors`, with the run beside it as `train` leaves it.
pub fn run(common: &Common, job: &Job, seeds: Seeds) -> anyhow::Result<()> {
    let started = Instant::now();
    let Some(out) = &common.out else { bail!("`--seeds` needs `--out`: which folder are the networks to be written to?") };
    if out.is_file() {
        bail!("`--out {}` is a file, expected the name of a folder", out.display());
    }
    let folder = RunFolder::for_output(common, "train")?;
    let mut config = job.config(common, &*job.graph(common)?)?;
    config["command"] = json!("train-seeds");
    config["seeds"] = json!(seeds.to_string());
    let file = |idx: usize| folder.file(&format!("seed-{}.safetensors", seeds.seed(idx)));
    if common.force && !common.resume {
        // Before the configuration is: a later `--resume` must not meet networks of another one.
        for checkpoint in seeds.indices().map(file) {
            RunFolder::beside(&checkpoint).clear_run()?;
            crate::partial::discard(&checkpoint)?;
        }
    }
    let resumed = match folder.begin(common, &config, None)? {
        Start::Finished(result) => return answer(common, &result),
        Start::Unfinished => true,
        Start::Fresh => false,
    };
    let n_networks = seeds.indices().len();
    let mut progress = Progress::new(common, "train", n_networks as u64, 0);
    let one = |device: &Device, idx: usize| -> anyhow::Result<Ended> {
        let checkpoint = file(idx);
        let common =
            Common { seed: seeds.seed(idx), out: Some(checkpoint.clone()), resume: resumed, quiet: true, json: false, ..common.clone() };
        match train(&common, device, job, &checkpoint, Instant::now()) {
            Ok(result) => Ok(Ended::Trained(result)),
            Err(error) if failure::is_divergence(&error) => Ok(Ended::Diverged(failure::message(&error))),
            Err(error) => Err(error).with_context(|| format!("seed {}", seeds.seed(idx))),
        }
    };
    let (mut networks, mut diverged) = (Vec::new(), Vec::new());
    let mut workers = match common.devices()? {
        devices if devices == [Device::Cpu] => vec![Device::Cpu; rayon::current_num_threads()],
        // One network keeps a GPU busy.
        gpus => gpus,
    };
    workers.truncate(n_networks);
    let all = in_order(
        &mut workers,
        seeds.indices(),
        |device, idx| one(device, idx),
        |idx, ended| {
            let seed = seeds.seed(idx);
            match ended {
                Ended::Trained(result) => networks.push(network(seed, &result)),
                Ended::Diverged(why) => diverged.push(json!({"seed": seed, "error": why})),
            }
            progress.update(idx as u64 + 1, String::new);
            if interrupt::asked() && idx + 1 < n_networks {
                return Err(interrupted(&folder));
            }
            Ok(())
        },
    );
    // A network that was interrupted says how it goes on by itself; here all of them do.
    all.map_err(|error| if error.chain().any(|cause| cause.is::<Interrupted>()) { interrupted(&folder) } else { error })?;
    progress.finish();
    let finished = networks.iter().all(|network| network["finished"] == true);
    let result = json!({
        "schema": "landscape-train-seeds/1",
        "run": folder.path(),
        "seeds": seeds.to_string(),
        "train": spread_of(&networks, "train"),
        "test": spread_of(&networks, "test"),
        "networks": networks,
        "diverged": diverged,
        "finished": finished,
        "total_seconds": started.elapsed().as_secs_f64(),
        "threads": rayon::current_num_threads(),
        "kernel_path": common.kernel_path(),
        "precision": common.precision.name(),
    });
    if finished {
        folder.finish(&result)?;
    }
    answer(common, &result)
}

fn interrupted(folder: &RunFolder) -> anyhow::Error {
    Interrupted { resume_hint: format!("the same command with `--resume --out {}` goes on", folder.path().display()) }.into()
}

/// The result, and a failure where a network diverged.
fn answer(common: &Common, result: &Value) -> anyhow::Result<()> {
    output::result(common, result, &describe(result))?;
    let diverged = result["diverged"].as_array().map_or(0, Vec::len);
    if diverged > 0 {
        return Err(SomeFailed { n_failed: diverged, n_networks: diverged + result["networks"].as_array().map_or(0, Vec::len) }.into());
    }
    Ok(())
}

/// What the summary keeps of one network's result.
fn network(seed: u64, result: &Value) -> Value {
    let mut kept = json!({"seed": seed});
    for key in ["checkpoint", "train", "test", "steps", "finished"] {
        kept[key] = result[key].clone();
    }
    kept
}

/// Mean, standard deviation, least and greatest of a number over networks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Spread {
    mean: f64,
    /// Of the networks as a sample: divided by n − 1; 0 for one network.
    std: f64,
    min: f64,
    max: f64,
}

/// The spread of each number that all networks have on a split.
fn spread_of(networks: &[Value], split: &str) -> Value {
    let mut found = json!({});
    for key in ["loss", "nll", "error"] {
        let values: Option<Vec<f64>> = networks.iter().map(|network| network[split][key].as_f64()).collect();
        let Some(values) = values.filter(|values| !values.is_empty()) else { continue };
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let std = if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
        let (min, max) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), &v| (min.min(v), max.max(v)));
        found[key] = json!(Spread { mean, std, min, max });
    }
    found
}

fn describe(result: &Value) -> String {
    let row = |split: &str| {
        let number = |key: &str, scale: f64| {
            let spread: Option<Spread> = serde_json::from_value(result[split][key].clone()).ok();
            spread.map(|s| format!("{:.4} ± {:.4} (from {:.4} to {:.4})", scale * s.mean, scale * s.std, scale * s.min, scale * s.max))
        };
        let nll = number("nll", 1.0).unwrap_or_default();
        let error = number("error", 100.0).map(|e| format!(", error {e} %")).unwrap_or_default();
        format!("{split:<6} nll {nll}{error}")
    };
    format!(
        "{}\n{}\n{} networks in {:.1} s\nwrote {}",
        row("train"),
        row("test"),
        result["networks"].as_array().map_or(0, Vec::len),
        result["total_seconds"].as_f64().unwrap_or(f64::NAN),
        PathBuf::from(result["run"].as_str().unwrap_or_default()).display()
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_half_open_range() {
        let seeds: Seeds = "3..7".parse().unwrap();
        assert_eq!(seeds.indices().map(|idx| seeds.seed(idx)).collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!(seeds.to_string(), "3..7");
        let last: Seeds = "18446744073709551614..18446744073709551615".parse().unwrap();
        assert_eq!(last.seed(0), u64::MAX - 1);
        for wrong in ["", "5", "5..2", "0..0", "0..=3", "-1..3", "a..b", "0..3..5", "0..1000001", "0..18446744073709551616"] {
            assert!(wrong.parse::<Seeds>().unwrap_err().contains("`0..100`"), "{wrong}");
        }
    }

    #[test]
    fn the_spread_is_that_of_a_sample() {
        let of = |values: &[Option<f64>]| {
            let networks: Vec<Value> = values.iter().map(|v| json!({"test": {"nll": v}})).collect();
            spread_of(&networks, "test")
        };
        assert_eq!(of(&[Some(1.0), Some(2.0), Some(6.0)])["nll"], json!({"mean": 3.0, "std": 7f64.sqrt(), "min": 1.0, "max": 6.0}));
        assert_eq!(of(&[Some(4.0)])["nll"], json!({"mean": 4.0, "std": 0.0, "min": 4.0, "max": 4.0}));
        assert_eq!(of(&[Some(1.0), None]), json!({}), "not where one has none");
        assert_eq!(of(&[]), json!({}));
    }
}
