//! `landscape point`: any point of a run's curve as an ordinary checkpoint, with the names and dtypes of the first endpoint.

use crate::args::{Common, PointArgs};
use crate::job::{self, Numbers};
use crate::output;
use crate::path::MeasuredPath;
use anyhow::{Context, bail};
use landscape_core::checkpoint::{Checkpoint, Metadata, PointOrigin};
use landscape_core::whole::{self, Overwrite};
use landscape_core::{Objective, Seed, Stateful};
use landscape_network::NetworkObjective;
use serde_json::{Value, json};
use std::path::Path;

pub fn run(common: &Common, args: &PointArgs) -> anyhow::Result<()> {
    if !(0.0..=1.0).contains(&args.t) {
        bail!("`--t` must be between 0 and 1, got {}", args.t);
    }
    let out = common.out.clone().context("`point` needs `--out FILE`: which file is to be written?")?;
    job::check_output_file(&out)?;
    if out.exists() && !common.force {
        if common.resume {
            let result = existing(&out, args.t)?;
            return output::result(common, &result, &describe(&result));
        }
        bail!("`{}` exists already and is not overwritten; `--force` replaces it", out.display());
    }
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        bail!("cannot write `{}`: there is no folder `{}`", out.display(), folder.display());
    }
    whole::remove_stale_of(&out)?;
    let mut path = MeasuredPath::of_run(common, &args.run, &args.data)?;
    path.data.measure_in_batches_of(args.batch_size)?;
    let device = common.device()?;
    let mut objective =
        NetworkObjective::<f32>::in_precision(path.endpoints[0].graph.clone(), &device, path.data.loss(), common.precision)?;
    objective.move_to(&path.points.clone().on_device(&device)?, &path.curve.coefficients(args.t)?)?;
    let batches = path.data.refresh_batches(&args.refresh, Seed::new(common.seed))?;
    objective.refresh(job::norm_refresh(args.refresh.refresh), &batches)?;
    let first = &path.endpoints[0];
    let metadata = Metadata {
        seed: Some(common.seed),
        point: Some(PointOrigin { curve: path.curve.name().to_owned(), n_points: path.curve.n_points(), t: args.t }),
        ..path.data.metadata(&first.graph)
    };
    let mut checkpoint =
        Checkpoint::from_parts(&first.graph, objective.weights(), objective.buffers(), &first.checkpoint.dtypes(), Some(metadata))?;
    // In half precision the file holds other numbers than the curve does: those that are written are measured.
    let written = checkpoint.params::<f32>(first.row.layout())?;
    objective.set_point(&written)?;
    objective.set_buffers(&checkpoint.buffers(&first.graph)?)?;
    let l2_term = 0.5 * path.weight_decay * objective.weights().squared_norm();
    let train = Numbers::new(&path.data, &path.data.measure_train(&mut objective)?, l2_term);
    let test = Numbers::new(&path.data, &path.data.measure_test(&mut objective)?, l2_term);
    if let Some(metadata) = &mut checkpoint.metadata {
        metadata.metrics = train.named("train").into_iter().chain(test.named("test")).collect();
    }
    let overwrite = if common.force { Overwrite::Replace } else { Overwrite::Refuse };
    job::with_names(&checkpoint, &path.names)?.write(&out, overwrite)?;
    let mut result = document(&out, args.t, &train, &test);
    common.record_computation(&mut result);
    output::result(common, &result, &describe(&result))
}

fn document(out: &Path, t: f64, train: &Numbers, test: &Numbers) -> Value {
    json!({"schema": "landscape-point/1", "checkpoint": out, "t": t, "train": train, "test": test})
}

/// What an earlier run wrote, if it was this point.
fn existing(out: &Path, t: f64) -> anyhow::Result<Value> {
    let metadata = Checkpoint::read(out)?.metadata.unwrap_or_default();
    match metadata.point {
        Some(point) if point.t == t => {}
        Some(point) => bail!("`{}` is the point t = {}, got `--t {t}`; `--force` replaces it", out.display(), point.t),
        None => bail!("`{}` exists already and is no point of a curve; `--force` replaces it", out.display()),
    }
    let numbers = |split: &str| {
        let metric = |name: &str| metadata.metrics.get(&format!("{split}_{name}")).copied();
        let error = metric("error");
        Numbers {
            loss: metric("loss").unwrap_or(f64::NAN),
            nll: metric("nll").unwrap_or(f64::NAN),
            error,
            accuracy: error.map(|e| 1.0 - e),
            perplexity: metric("perplexity"),
        }
    };
    Ok(document(out, t, &numbers("train"), &numbers("test")))
}

fn describe(result: &Value) -> String {
    let split = |name: &str| {
        let error = result[name]["error"].as_f64().map(|e| format!(", error {:.2} %", 100.0 * e)).unwrap_or_default();
        let perplexity = result[name]["perplexity"].as_f64().map(|p| format!(", perplexity {p:.3}")).unwrap_or_default();
        format!("{name} nll {:.4}{perplexity}{error}", result[name]["nll"].as_f64().unwrap_or(f64::NAN))
    };
    let file = result["checkpoint"].as_str().unwrap_or_default();
    format!("t = {}: {}, {}\nwrote {file}", result["t"], split("train"), split("test"))
}
