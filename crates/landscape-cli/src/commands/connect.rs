//! `landscape connect`: two checkpoints, or a chain of more, to a trained curve.

use super::train::optimizer;
use super::training::Run;
use crate::args::{Common, ConnectArgs, CurveName, DecayOnName, InitName};
use crate::failure::NoNumbers;
use crate::job::{self, Data, Endpoint, Keep};
use crate::output;
use crate::run_folder::{RunFolder, Start};
use anyhow::{Context, bail};
use landscape_core::checkpoint::{Checkpoint, Metadata};
use landscape_core::curve::CurveKind;
use landscape_core::init::BendInit;
use landscape_core::whole::Overwrite;
use landscape_core::{Buffers, ControlPoints, Row, Seed, Stateful};
use landscape_kernels::Device;
use landscape_network::{NetworkObjective, init};
use landscape_train::{Connect, DecayOn, FitConfig, FreeEnds, UniformOn};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// More control points than any curve needs; a mistake in `--points` must not fill the memory.
const MAX_POINTS: usize = 1000;

/// A connecting job with everything resolved.
pub struct Job {
    pub checkpoints: Vec<PathBuf>,
    pub endpoints: Vec<Endpoint>,
    pub data: Data,
    pub connect: Connect,
    pub batch_size: usize,
    pub augment: bool,
}

pub fn run(common: &Common, args: &ConnectArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let points = match (args.points, args.bends) {
        (Some(points), _) if !(2..=MAX_POINTS).contains(&points) => {
            bail!("`--points` must be at least 2 (both endpoints count) and at most {MAX_POINTS}, got {points}")
        }
        (Some(points), _) => points,
        (None, Some(bends)) if bends > MAX_POINTS - 2 => bail!("`--bends` must be at most {}, got {bends}", MAX_POINTS - 2),
        (None, Some(bends)) => bends + 2,
        (None, None) => 3,
    };
    let connect = Connect {
        curve: match args.curve {
            CurveName::Bezier => CurveKind::Bezier,
            CurveName::Polychain => CurveKind::PolyChain,
        },
        points,
        init: match args.init {
            InitName::Line => BendInit::Line,
            InitName::Arc => BendInit::Arc,
            InitName::Random => BendInit::Random,
        },
        free_ends: match (args.free_start, args.free_end) {
            (false, false) => FreeEnds::Neither,
            (true, false) => FreeEnds::Start,
            (false, true) => FreeEnds::End,
            (true, true) => FreeEnds::Both,
        },
        fit: FitConfig {
            epochs: args.epochs,
            optimizer: optimizer(args.optimizer, args.lr, 0.05),
            schedule: args.schedule.parse()?,
            weight_decay: args.weight_decay,
            decay_on: match args.decay_on {
                DecayOnName::Point => DecayOn::Point,
                DecayOnName::ControlPoints => DecayOn::ControlPoints,
            },
        },
        seed: common.seed,
    };
    connect.fit.check()?;
    let keep = if args.endpoints_on_disk { Keep::OnDisk } else { Keep::InMemory };
    let first = job::open_checkpoint(&args.checkpoints[0], keep)?;
    let data = Data::open(&args.data, first.metadata.as_ref(), Some(&args.checkpoints[0]))?;
    drop(first);
    let endpoints = job::keep_endpoints(common, &args.checkpoints, args.model.model.as_deref(), &data, keep)?;
    let augment = !args.no_augment && data.augments();
    let checkpoints = args.checkpoints.clone();
    let job = Job { checkpoints, endpoints, data, connect, batch_size: args.batch_size, augment };
    let folder = RunFolder::for_output(common, "connect")?;
    let result = connect_run(common, &job, &folder, started)?;
    let run = folder.path().display();
    let nll = result["train_nll_along_curve"].as_f64().map(|nll| format!(", last epoch at nll {nll:.4} along the curve"));
    let text = format!(
        "{} steps in {:.1} s{}\nwrote {run}\nnext: landscape profile {run}",
        result["steps"],
        result["wall_seconds"].as_f64().unwrap_or(f64::NAN),
        nll.unwrap_or_default(),
    );
    output::result(common, &result, &text)
}

/// Trains the curve and writes the control points into `folder`; gives the JSON result. On a finished run it changes nothing.
pub fn connect_run(common: &Common, job: &Job, folder: &RunFolder, started: Instant) -> anyhow::Result<Value> {
    let seed = Seed::new(common.seed);
    let n_endpoints = job.endpoints.len();
    let curve = job.connect.path(n_endpoints)?;
    let first = &job.endpoints[0];
    let mut config = json!({
        "schema": "landscape-run/1",
        "command": "connect",
        "checkpoints": job.checkpoints,
        "content": job.endpoints.iter().map(|e| job::content_hash(&e.checkpoint)).collect::<anyhow::Result<Vec<_>>>()?,
        "graph": serde_json::from_str::<Value>(&first.graph.to_json())?,
        "names": first.names,
        "n_endpoints": n_endpoints,
        "data": job.data.to_json(),
        "connect": job.connect,
        "batch_size": job.batch_size,
        "augment": job.augment,
        "seed": common.seed,
    });
    common.record_computation(&mut config);
    let device = common.device()?;
    let mut objective = NetworkObjective::<f32>::in_precision(first.graph.clone(), &device, job.data.loss(), common.precision)?;
    objective.limit_activations(common.max_activation_bytes());
    job::check_memory(&first.graph, curve.n_points().saturating_mul(3), "--points")?;
    let ends: Vec<Row<f32>> = job.endpoints.iter().map(|e| e.row.clone()).collect();
    let mut random = |bend_idx: usize| {
        let seed = seed.child("bend").child_idx(bend_idx as u64);
        init::initialise(&first.graph, init::Init::usual(&first.graph), seed, &Device::Cpu)
            .map_err(|e| landscape_core::Error::Objective(e.to_string()))
    };
    let mut points = job.connect.control_points(&ends, &mut random)?.on_device(&device)?;
    let batches = job.data.training_batches(job.batch_size, seed.child("batches"), job.augment)?;
    if let Start::Finished(result) = folder.begin(common, &config, None)? {
        return Ok(result);
    }
    for (path, endpoint) in job.checkpoints.iter().zip(&job.endpoints) {
        check_endpoint(common, &job.data, &mut objective, &path.display().to_string(), endpoint)?;
    }
    objective.set_buffers(&Buffers::of_graph(&first.graph)?)?;
    let run = Run { common, folder, out: folder.path(), name: "connect", fit: &job.connect.fit, seed };
    let mut last_nll = None;
    let driven = run.drive(&mut objective, &mut points, &UniformOn(curve.as_ref()), &batches, &mut |_, _, report| {
        last_nll = Some(report.epoch.nll());
        Ok(json!({}))
    })?;
    write_control_points(common, job, folder, &points)?;
    let result = json!({
        "schema": "landscape-connect/1",
        "run": folder.path(),
        "curve": curve.name(),
        "n_points": points.n_points(),
        "control_points": (0..points.n_points()).map(|k| folder.control_point(k)).collect::<Vec<_>>(),
        "train_nll_along_curve": last_nll,
        "steps": driven.steps,
        "finished": driven.finished,
        "wall_seconds": driven.wall_seconds,
        "total_seconds": driven.total_seconds.max(started.elapsed().as_secs_f64()),
        "threads": rayon::current_num_threads(),
        "kernel_path": common.kernel_path(),
        "precision": common.precision.name(),
    });
    if driven.finished {
        folder.finish(&result)?;
    }
    Ok(result)
}

/// Warns where an endpoint, as stored, is hardly better than guessing.
pub fn check_endpoint(
    common: &Common,
    data: &Data,
    objective: &mut NetworkObjective<f32>,
    name: &str,
    endpoint: &Endpoint,
) -> anyhow::Result<()> {
    job::stand_at(objective, endpoint)?;
    let tally = data.measure_test(objective)?;
    job::warn_near_chance(common, name, tally.accuracy(), data);
    Ok(())
}

/// Endpoints keep their own statistics and dtypes; a bend is no network on the curve, so it gets those of a new one.
fn write_control_points(common: &Common, job: &Job, folder: &RunFolder, points: &ControlPoints<f32>) -> anyhow::Result<()> {
    let first = &job.endpoints[0];
    let n_bends = job.connect.points - 1;
    let fresh = Buffers::of_graph(&first.graph)?;
    for k in 0..points.n_points() {
        match &points.rows()[k] {
            // These were checked when they were opened.
            Row::Frozen(_) | Row::Stored(_) => {}
            Row::Free(point) => point.check_finite().context(NoNumbers)?,
        }
        let metadata = Metadata { seed: Some(common.seed), ..job.data.metadata(&first.graph) };
        let checkpoint = if k.is_multiple_of(n_bends) {
            let endpoint = &job.endpoints[k / n_bends];
            let dtypes = if points.is_free(k) { Default::default() } else { endpoint.checkpoint.dtypes() };
            match &points.rows()[k] {
                Row::Stored(stored) => Checkpoint::from_stored(&first.graph, stored, &endpoint.buffers, &dtypes, Some(metadata))?,
                row => Checkpoint::from_parts(&first.graph, &row.point(), &endpoint.buffers, &dtypes, Some(metadata))?,
            }
        } else {
            Checkpoint::from_parts(&first.graph, &points.point(k), &fresh, &Default::default(), Some(metadata))?
        };
        checkpoint.write(&folder.control_point(k), Overwrite::Replace)?;
    }
    Ok(())
}
