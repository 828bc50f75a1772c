//! `landscape profile`: loss and error along a run's curve, or along the line between two checkpoints.

use crate::args::{AtOnceArgs, Common, ProfileArgs, RefreshArgs};
use crate::figures;
use crate::job::{self, Endpoint};
use crate::measure::Points;
use crate::output;
use crate::partial::{self, Partial};
use crate::path::MeasuredPath;
use crate::run_folder::{RunFolder, Start, check_same_config};
use anyhow::{Context, bail};
use landscape_core::Objective;
use landscape_core::barrier::Thresholds;
use landscape_core::length::uniform_ts;
use landscape_core::profile::{self, Measured, Profile, Sample, Values};
use landscape_network::NetworkObjective;
use serde_json::{Value, json};
use std::path::PathBuf;

/// More samples than any figure shows; a mistake in `--samples` must not fill the memory.
const MAX_SAMPLES: usize = 1_000_000;

/// What is measured, and how.
pub struct Measurement<'a> {
    pub path: &'a MeasuredPath,
    pub refresh: &'a RefreshArgs,
    pub n_samples: usize,
    pub weight_decay: f64,
    pub thresholds: Thresholds,
    /// What the path is called in progress, and the start of the names of its files.
    pub name: &'a str,
    pub at_once: &'a AtOnceArgs,
}

pub fn run(common: &Common, args: &ProfileArgs) -> anyhow::Result<()> {
    let mut path = match args.inputs.as_slice() {
        [run] if run.is_dir() => MeasuredPath::of_run(common, run, &args.data)?,
        [file] => bail!("`{}` is not a run folder; a profile needs one, or two checkpoints", file.display()),
        pair => MeasuredPath::through(common, pair, &args.data, args.model.model.as_deref())?,
    };
    path.data.measure_in_batches_of(args.batch_size)?;
    let straight = args.straight || args.inputs.len() > 1;
    if args.straight && args.inputs.len() == 1 {
        let per_segment = path.points_per_segment()?;
        path = path.straight(per_segment)?;
    }
    let name = if straight { "profile_line" } else { "profile" };
    let thresholds = Thresholds { lmc_fraction: args.lmc_fraction, connected_ratio: args.connected_ratio };
    thresholds.check()?;
    let weight_decay = args.weight_decay.unwrap_or(path.weight_decay);
    if !(weight_decay.is_finite() && weight_decay >= 0.0) {
        bail!("`--weight-decay` must not be negative, got {weight_decay}");
    }
    if args.samples > MAX_SAMPLES {
        bail!("`--samples` must be at most {MAX_SAMPLES}, got {}", args.samples);
    }
    uniform_ts(args.samples)?;
    let folder = match &path.folder {
        Some(folder) => {
            if let Some(out) = &common.out {
                bail!("the profile of a run goes into its folder `{}`, got `--out {}`", folder.path().display(), out.display());
            }
            folder.clone()
        }
        None => {
            let folder = RunFolder::for_output(common, "profile")?;
            let mut config = json!({
                "schema": "landscape-run/1",
                "command": "profile",
                "checkpoints": args.inputs,
                "content": path.content()?,
                "data": path.data.to_json(),
                "samples": args.samples,
                "weight_decay": weight_decay,
                "refresh": format!("{:?}", args.refresh),
                "seed": common.seed,
            });
            args.at_once.record(&mut config);
            common.record_computation(&mut config);
            if let Start::Finished(result) = folder.begin(common, &config, None)? {
                return output::result(common, &result, &describe(&result));
            }
            folder
        }
    };
    let measurement = Measurement {
        path: &path,
        refresh: &args.refresh,
        n_samples: args.samples,
        weight_decay,
        thresholds,
        name,
        at_once: &args.at_once,
    };
    let document = measurement.write(common, &folder, args.npz)?;
    if path.folder.is_none() {
        folder.finish(&document)?;
    }
    output::result(common, &document, &describe(&document))
}

impl Measurement<'_> {
    /// Measures, and adds profile, figures and npz to the folder; gives the JSON document.
    pub fn write(&self, common: &Common, folder: &RunFolder, npz: bool) -> anyhow::Result<Value> {
        let file = format!("{}.json", self.name);
        let settings = self.settings(common)?;
        if folder.file(&file).exists() && !common.force {
            let old = folder.read_json(&file)?;
            if !common.resume {
                bail!("`{}` exists already; `--force` replaces it", folder.file(&file).display());
            }
            check_same_config(&old["settings"], &settings, &folder.file(&file))?;
            // A kill may have come after the document and before what follows it.
            partial::discard(&self.partial_path(folder))?;
            if !figures::profile::is_drawn(folder) {
                figures::profile::draw_run(folder)?;
            }
            return Ok(old);
        }
        let profile = self.measure(common, folder, &settings)?;
        let mut document = serde_json::to_value(&profile)?;
        document["schema"] = json!("landscape-profile/1");
        document["settings"] = settings;
        document["run"] = json!(folder.path());
        if npz {
            let name = format!("{}.npz", if self.name == "profile" { "curve" } else { "line" });
            figures::npz::write_curve(&folder.file(&name), &profile)?;
        }
        figures::profile::discard(folder)?;
        folder.write_json(&file, &document)?;
        partial::discard(&self.partial_path(folder))?;
        figures::profile::draw_run(folder)?;
        Ok(document)
    }

    fn settings(&self, common: &Common) -> anyhow::Result<Value> {
        let mut settings = json!({
            "content": self.path.content()?,
            "n_samples": self.n_samples,
            "weight_decay": self.weight_decay,
            "refresh": format!("{:?}", self.refresh.refresh),
            "refresh_augmented": self.refresh.refresh_augmented,
            "batch_size": self.path.data.batch_size,
            "data": self.path.data.to_json(),
            "seed": common.seed,
            "thresholds": self.thresholds,
        });
        self.at_once.record(&mut settings);
        common.record_computation(&mut settings);
        Ok(settings)
    }

    fn measure(&self, common: &Common, folder: &RunFolder, settings: &Value) -> anyhow::Result<Profile> {
        let path = self.path;
        let ts = uniform_ts(self.n_samples)?;
        let coefficients = ts.iter().map(|&t| path.curve.coefficients(t)).collect::<landscape_core::Result<Vec<_>>>()?;
        let mut partial: Partial<Measured> = Partial::open(&self.partial_path(folder), settings, common.resume)?;
        let points = Points {
            control: &path.points,
            coefficients: &coefficients,
            graph: &path.endpoints[0].graph,
            data: &path.data,
            refresh: self.refresh,
            weight_decay: self.weight_decay,
            at_once: self.at_once,
        };
        points.measure(common, self.name, &mut partial)?;
        let samples = profile::samples(&path.points, path.curve.as_ref(), &ts, &partial.done)?;
        let mut profile = Profile::of(samples, path.curve.as_ref(), self.weight_decay, self.thresholds)?;
        let device = common.devices()?.swap_remove(0);
        let mut objective =
            NetworkObjective::<f32>::in_precision(path.endpoints[0].graph.clone(), &device, path.data.loss(), common.precision)?;
        let (first, last) = (path.endpoints.first(), path.endpoints.last());
        for (name, endpoint, sample) in [("the start", first, profile.points.first()), ("the end", last, profile.points.last())] {
            let (Some(endpoint), Some(sample)) = (endpoint, sample) else { continue };
            let stored = self.stored(&mut objective, endpoint)?;
            job::warn_near_chance(common, name, stored.test.and_then(|t| t.error).map(|e| 1.0 - e), &path.data);
            profile.endpoints.push(profile::Endpoint { stored, refreshed: measured_of(sample) });
        }
        Ok(profile)
    }

    fn partial_path(&self, folder: &RunFolder) -> PathBuf {
        folder.file(&format!("{}.partial.jsonl", self.name))
    }

    fn stored(&self, objective: &mut NetworkObjective<f32>, endpoint: &Endpoint) -> anyhow::Result<Measured> {
        job::stand_at(objective, endpoint)?;
        self.measured(objective)
    }

    fn measured(&self, objective: &mut NetworkObjective<f32>) -> anyhow::Result<Measured> {
        let squared_norm = objective.weights().squared_norm();
        let train = self.path.data.measure_train(objective)?;
        let test = self.path.data.measure_test(objective)?;
        let values = |tally| Values::new(tally, self.weight_decay, squared_norm);
        Ok(Measured { train: values(&train), test: Some(values(&test)) })
    }
}

fn measured_of(sample: &Sample) -> Measured {
    Measured { train: sample.train, test: sample.test }
}

/// The table for people.
pub fn describe(document: &Value) -> String {
    let Ok(profile) = serde_json::from_value::<Profile>(document.clone()).context("profile") else {
        return document.to_string();
    };
    let mut text =
        format!("{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>12}\n", "", "start", "end", "min", "max", "at t", "mean", "barrier (A)");
    for quantity in profile::Quantity::ALL {
        let (Some(s), Some(b)) = (profile.summary.get(quantity), profile.barriers.get(quantity)) else { continue };
        text += &format!(
            "{:<12}{:>10.4}{:>10.4}{:>10.4}{:>10.4}{:>10.3}{:>10.4}{:>12.4}\n",
            quantity.name(),
            s.start,
            s.end,
            s.min,
            s.max,
            s.t_max,
            s.mean,
            b.above_line
        );
    }
    if document["settings"]["data"]["n_places"].is_u64() {
        // exp is monotonic, so the least and greatest perplexity are those of the least and greatest loss.
        for quantity in [profile::Quantity::TrainNll, profile::Quantity::TestNll] {
            let Some(s) = profile.summary.get(quantity) else { continue };
            let name = quantity.name().replace("nll", "ppl");
            let [start, end, min, max] = [s.start, s.end, s.min, s.max].map(f64::exp);
            text += &format!("{name:<12}{start:>10.3}{end:>10.3}{min:>10.3}{max:>10.3}{:>10.3}\n", s.t_max);
        }
    }
    let n_bad = profile.points.iter().filter(|p| !p.train.nll.is_finite()).count();
    if n_bad > 0 {
        text += &format!("{n_bad} of {} points are NaN or infinite\n", profile.points.len());
    }
    text += &format!(
        "length {:.3}; linearly mode connected: {}; connected: {}\nwrote {}",
        profile.length,
        if profile.verdicts.is_lmc { "yes" } else { "no" },
        if profile.verdicts.is_connected { "yes" } else { "no" },
        document["run"].as_str().unwrap_or_default()
    );
    text
}
