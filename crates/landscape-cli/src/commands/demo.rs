//! `landscape demo`: the whole job on the embedded digits. Two networks from two seeds, the line and a trained curve between
//! them, the plane through all three, and the report.

use super::{connect, plane, profile, report, train};
use crate::args::{AtOnceArgs, Common, DataArgs, DemoArgs, RefreshArgs, RefreshName};
use crate::failure::Interrupted;
use crate::job::{self, Data};
use crate::output;
use crate::path::MeasuredPath;
use crate::run_folder::{RunFolder, Start};
use landscape_core::barrier::Thresholds;
use landscape_train::{Connect, DecayOn, FitConfig, Optimizer, Schedule};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// Epochs of each endpoint: enough for a training loss near zero.
const ENDPOINT_EPOCHS: u64 = 40;
/// Epochs of the curve.
const CURVE_EPOCHS: u64 = 300;
const BATCH_SIZE: usize = 128;
const N_SAMPLES: usize = 61;

pub fn run(common: &Common, args: &DemoArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let data_args = DataArgs { data: Some("digits".to_owned()), normalize: None, loss: None };
    let data = Data::open(&data_args, None, None)?;
    data.check_graph(&landscape_zoo::models::build(&args.model, &data.dataset.input_shape, data.dataset.n_outputs())?)?;
    let folder = RunFolder::for_output(common, "demo")?;
    let mut config = json!({"schema": "landscape-run/1", "command": "demo", "model": args.model, "seed": common.seed});
    common.record_computation(&mut config);
    if let Start::Finished(result) = folder.begin(common, &config, None)? {
        return output::result(common, &result, &describe(&result));
    }
    let result = parts(common, args, &data_args, data, &folder, started).map_err(|error| of_whole(error, &folder))?;
    output::result(common, &result, &describe(&result))
}

/// A part that was interrupted is resumed with the whole.
fn of_whole(error: anyhow::Error, folder: &RunFolder) -> anyhow::Error {
    if !error.is::<Interrupted>() {
        return error;
    }
    Interrupted { resume_hint: format!("the same command with `--resume --out {}` goes on", folder.path().display()) }.into()
}

/// Trains, joins, measures and reports; gives the JSON result.
fn parts(
    common: &Common,
    args: &DemoArgs,
    data_args: &DataArgs,
    data: Data,
    folder: &RunFolder,
    started: Instant,
) -> anyhow::Result<Value> {
    // Every part goes on by itself where an earlier sitting left it; with `--force` alone, all begin anew.
    let anew = common.force && !common.resume;
    let part = |seed: u64| Common { seed, resume: !anew, force: anew, max_steps: None, out: None, ..common.clone() };
    let mut endpoints = Vec::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for (idx, name) in ["a", "b"].into_iter().enumerate() {
        let seed = common.seed.wrapping_mul(2).wrapping_add(idx as u64);
        output::note(common, &format!("training network {name} (seed {seed})"));
        let job = train::Job {
            model: Some(args.model.clone()),
            data: Data::open(data_args, None, None)?,
            fit: endpoint_fit(),
            batch_size: BATCH_SIZE,
            augment: false,
            init_from: None,
            eval_every: ENDPOINT_EPOCHS,
        };
        let file = folder.file(&format!("{name}.safetensors"));
        endpoints.push(train::train(&part(seed), &common.device()?, &job, &file, Instant::now())?);
        files.push(file);
    }
    output::note(common, "training a Bézier curve between them");
    let quiet = part(common.seed);
    let loaded = job::load_endpoints(common, &files, None, &data)?;
    let job = connect::Job {
        checkpoints: files.clone(),
        endpoints: loaded,
        data,
        connect: Connect { fit: curve_fit(), seed: common.seed, ..Connect::garipov2018() },
        batch_size: BATCH_SIZE,
        augment: false,
    };
    let curve_folder = RunFolder::in_folder(folder, "curve");
    connect::connect_run(&quiet, &job, &curve_folder, Instant::now())?;
    output::note(common, "measuring the line, the curve and the plane");
    let refresh = RefreshArgs { refresh: RefreshName::BatchAverage, refresh_augmented: false };
    let at_once = AtOnceArgs::default();
    let mut measured = Vec::new();
    for name in ["profile_line", "profile"] {
        let mut path = MeasuredPath::of_run(&quiet, curve_folder.path(), data_args)?;
        let weight_decay = path.weight_decay;
        if name == "profile_line" {
            path = path.straight(job.connect.points)?;
        }
        let measurement = profile::Measurement {
            path: &path,
            refresh: &refresh,
            n_samples: N_SAMPLES,
            weight_decay,
            thresholds: Thresholds::PROJECT,
            name,
            at_once: &at_once,
        };
        measured.push(measurement.write(&quiet, &curve_folder, false)?);
    }
    let path = MeasuredPath::of_run(&quiet, curve_folder.path(), data_args)?;
    plane::measure_run(&quiet, &path, &curve_folder, &refresh, [21, 21], &at_once)?;
    let report_path = report::write(folder, std::slice::from_ref(&curve_folder), common)?;
    let numbers = |document: &Value| json!({"summary": document["summary"], "barriers": document["barriers"], "verdicts": document["verdicts"], "length": document["length"]});
    let result = json!({
        "schema": "landscape-demo/1",
        "run": folder.path(),
        "endpoints": endpoints.iter().map(|e| json!({"train": e["train"], "test": e["test"], "checkpoint": e["checkpoint"]})).collect::<Vec<_>>(),
        "line": numbers(&measured[0]),
        "curve": numbers(&measured[1]),
        "curve_run": curve_folder.path(),
        "figure": curve_folder.file("profile.png"),
        "report": report_path,
        "total_seconds": started.elapsed().as_secs_f64(),
    });
    folder.finish(&result)?;
    Ok(result)
}

fn endpoint_fit() -> FitConfig {
    FitConfig {
        epochs: ENDPOINT_EPOCHS,
        optimizer: Optimizer::sgd(0.05),
        schedule: Schedule::Garipov2018,
        weight_decay: 5e-4,
        decay_on: DecayOn::ControlPoints,
    }
}

fn curve_fit() -> FitConfig {
    FitConfig {
        epochs: CURVE_EPOCHS,
        optimizer: Optimizer::sgd(0.05),
        schedule: Schedule::Garipov2018,
        weight_decay: 5e-4,
        decay_on: DecayOn::Point,
    }
}

fn describe(result: &Value) -> String {
    let number = |path: &Value| path.as_f64().unwrap_or(f64::NAN);
    let row = |name: &str, part: &Value| {
        let (loss, error) = (&part["summary"]["train_loss"], &part["summary"]["test_error"]);
        format!(
            "{name:<8} train loss: ends {:.3} and {:.3}, highest {:.3}   test error: ends {:.1} % and {:.1} %, highest {:.1} %",
            number(&loss["start"]),
            number(&loss["end"]),
            number(&loss["max"]),
            100.0 * number(&error["start"]),
            100.0 * number(&error["end"]),
            100.0 * number(&error["max"]),
        )
    };
    let barrier = |part: &Value| number(&part["barriers"]["train_loss"]["above_worse_end"]);
    format!(
        "{}\n{}\nThe straight line rises {:.3} above the worse network; the curve {:.3}.\nfigure {}\nreport {}\n{:.0} s in all",
        row("line", &result["line"]),
        row("curve", &result["curve"]),
        barrier(&result["line"]),
        barrier(&result["curve"]),
        result["figure"].as_str().unwrap_or_default(),
        result["report"].as_str().unwrap_or_default(),
        number(&result["total_seconds"]),
    )
}
