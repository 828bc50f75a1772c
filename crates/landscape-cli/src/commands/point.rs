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
use serde_json::json;

pub fn run(common: &Common, args: &PointArgs) -> anyhow::Result<()> {
    if !(0.0..=1.0).contains(&args.t) {
        bail!("`--t` must be between 0 and 1, got {}", args.t);
    }
    let out = common.out.clone().context("`point` needs `--out FILE`: which file is to be written?")?;
    job::check_output_file(&out)?;
    if out.exists() && !common.force {
        if common.resume {
            return output::result(common, &json!({"schema": "landscape-point/1", "checkpoint": out}), "nothing to do");
        }
        bail!("`{}` exists already and is not overwritten; `--force` replaces it", out.display());
    }
    whole::remove_stale_of(&out)?;
    let mut path = MeasuredPath::of_run(common, &args.run, &args.data)?;
    path.data.measure_in_batches_of(args.batch_size)?;
    let device = landscape_kernels::Device::parse(&common.device)?;
    let mut objective = NetworkObjective::<f32>::new(path.endpoints[0].graph.clone(), &device, path.data.loss())?;
    objective.move_to(&path.points, &path.curve.coefficients(args.t)?)?;
    let batches = path.data.refresh_batches(&args.refresh, Seed::new(common.seed))?;
    objective.refresh(job::norm_refresh(args.refresh.refresh), &batches)?;
    let l2_term = 0.5 * path.weight_decay * objective.weights().squared_norm();
    let train = Numbers::new(&path.data.measure_train(&mut objective)?, l2_term);
    let test = Numbers::new(&path.data.measure_test(&mut objective)?, l2_term);
    let first = &path.endpoints[0];
    let metadata = Metadata {
        seed: Some(common.seed),
        metrics: train.named("train").into_iter().chain(test.named("test")).collect(),
        point: Some(PointOrigin { curve: path.curve.name().to_owned(), n_points: path.curve.n_points(), t: args.t }),
        ..path.data.metadata(&first.graph)
    };
    let checkpoint =
        Checkpoint::from_parts(&first.graph, objective.weights(), objective.buffers(), &first.checkpoint.dtypes(), Some(metadata))?;
    let overwrite = if common.force { Overwrite::Replace } else { Overwrite::Refuse };
    job::with_names(&checkpoint, &path.names)?.write(&out, overwrite)?;
    let result = json!({"schema": "landscape-point/1", "checkpoint": out, "t": args.t, "train": train, "test": test});
    let percent = |e: Option<f64>| e.map(|e| format!(", error {:.2} %", 100.0 * e)).unwrap_or_default();
    let text = format!(
        "t = {}: train nll {:.4}{}, test nll {:.4}{}\nwrote {}",
        args.t,
        train.nll,
        percent(train.error),
        test.nll,
        percent(test.error),
        out.display()
    );
    output::result(common, &result, &text)
}
