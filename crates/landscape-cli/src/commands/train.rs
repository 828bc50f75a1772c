//! `landscape train`: one network, from scratch or from a checkpoint.

use super::seeds;
use super::training::Run;
use crate::args::{Common, OptimizerName, TrainArgs};
use crate::failure::NoNumbers;
use crate::job::{self, Data, Numbers};
use crate::output;
use crate::run_folder::{self, RunFolder, Start};
use anyhow::{Context, bail};
use landscape_core::checkpoint::{Checkpoint, Metadata};
use landscape_core::whole::{self, Overwrite};
use landscape_core::{Buffers, ControlPoints, Seed, Stateful};
use landscape_graph::Graph;
use landscape_kernels::Device;
use landscape_network::{NetworkObjective, init};
use landscape_train::{DecayOn, Endpoint, FitConfig, Optimizer};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// A training job with everything resolved.
pub struct Job {
    pub model: Option<String>,
    pub data: Data,
    pub fit: FitConfig,
    pub batch_size: usize,
    pub augment: bool,
    pub init_from: Option<PathBuf>,
    pub eval_every: u64,
}

/// The optimiser of the command line, with its own default rate.
pub fn optimizer(name: OptimizerName, lr: Option<f64>, sgd_lr: f64) -> Optimizer {
    match name {
        OptimizerName::Sgd => Optimizer::sgd(lr.unwrap_or(sgd_lr)),
        OptimizerName::Adam => Optimizer::adam(lr.unwrap_or(1e-3)),
        OptimizerName::Adamw => Optimizer::adamw(lr.unwrap_or(1e-3)),
    }
}

pub fn run(common: &Common, args: &TrainArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let job = Job::of_args(args)?;
    if let Some(seeds) = args.seeds {
        return seeds::run(common, &job, seeds);
    }
    let out = match &common.out {
        Some(path) => path.clone(),
        None if common.resume => bail!("`--resume` needs `--out`: which run is to go on?"),
        None => run_folder::numbered(".safetensors")?,
    };
    job::check_output_file(&out)?;
    let result = train(common, &common.device()?, &job, &out, started)?;
    output::result(common, &result, &describe(&result))
}

/// Trains and writes the checkpoint `out`; gives the JSON result. On a finished run it changes nothing.
pub fn train(common: &Common, device: &Device, job: &Job, out: &Path, started: Instant) -> anyhow::Result<Value> {
    let seed = Seed::new(common.seed);
    let (graph, from) = job.start(common)?;
    let mut config = job.config(common, &graph)?;
    config["seed"] = json!(common.seed);
    let mut objective = NetworkObjective::<f32>::in_precision(graph.clone(), device, job.data.loss(), common.precision)?;
    objective.limit_activations(common.max_activation_bytes());
    let (weights, buffers) = match &from {
        Some(endpoint) => (endpoint.row.point().into_owned(), endpoint.buffers.clone()),
        None => (init::initialise(&graph, init::Init::usual(&graph), seed.child("init"), device)?, Buffers::of_graph(&graph)?),
    };
    objective.set_buffers(&buffers)?;
    let mut points = ControlPoints::single(weights).on_device(device)?;
    let batches = job.data.training_batches(job.batch_size, seed.child("batches"), job.augment)?;
    let folder = RunFolder::beside(out);
    match folder.begin(common, &config, Some(out))? {
        Start::Finished(result) if out.is_file() => return Ok(result),
        _ => whole::remove_stale_of(out)?,
    }
    let run = Run { common, folder: &folder, out, name: "train", fit: &job.fit, seed };
    let driven = run.drive(&mut objective, &mut points, &Endpoint, &batches, &mut |objective, points, report| {
        let epoch = report.progress.step / report.progress.steps_per_epoch;
        if !epoch.is_multiple_of(job.eval_every) && !report.ends_run() {
            return Ok(json!({}));
        }
        job::keep_statistics(objective, points)?;
        let test = job.data.measure_test(objective)?;
        Ok(json!({"test_nll": test.nll(), "test_error": test.error()}))
    })?;
    job::keep_statistics(&mut objective, &points)?;
    let weights = points.point(0);
    weights.check_finite().context(NoNumbers)?;
    let half_norm = 0.5 * job.fit.weight_decay * weights.squared_norm();
    let train = Numbers::new(&job.data, &job.data.measure_train(&mut objective)?, half_norm);
    let test = Numbers::new(&job.data, &job.data.measure_test(&mut objective)?, half_norm);
    let checkpoint = job.checkpoint(common, &graph, &points, objective.buffers(), &train, &test)?;
    checkpoint.write(out, Overwrite::Replace)?;
    let result = json!({
        "schema": "landscape-train/1",
        "checkpoint": out,
        "train": train,
        "test": test,
        "steps": driven.steps,
        "finished": driven.finished,
        "wall_seconds": driven.wall_seconds,
        "total_seconds": (driven.total_seconds).max(started.elapsed().as_secs_f64()),
        "threads": rayon::current_num_threads(),
        "kernel_path": common.kernel_path(),
        "precision": common.precision.name(),
    });
    if driven.finished {
        folder.finish(&result)?;
    }
    Ok(result)
}

impl Job {
    /// What the command line asks for.
    fn of_args(args: &TrainArgs) -> anyhow::Result<Self> {
        if args.eval_every == 0 {
            bail!("`--eval-every` must be at least 1, got 0");
        }
        let from = args.init_from.as_deref().map(job::read_checkpoint).transpose()?;
        let data = Data::open(&args.data, from.as_ref().and_then(|c| c.metadata.as_ref()), args.init_from.as_deref())?;
        let fit = FitConfig {
            epochs: args.epochs,
            optimizer: optimizer(args.optimizer, args.lr, 0.05),
            schedule: args.schedule.parse()?,
            weight_decay: args.weight_decay,
            decay_on: DecayOn::ControlPoints,
        };
        fit.check()?;
        Ok(Job {
            model: args.model.clone(),
            augment: !args.no_augment && data.augments(),
            data,
            fit,
            batch_size: args.batch_size,
            init_from: args.init_from.clone(),
            eval_every: args.eval_every,
        })
    }

    /// The network: that of `--init-from`, or a new one.
    pub fn graph(&self, common: &Common) -> anyhow::Result<Arc<Graph>> {
        Ok(self.start(common)?.0)
    }

    /// The network and, where training starts from a checkpoint, that.
    fn start(&self, common: &Common) -> anyhow::Result<(Arc<Graph>, Option<job::Endpoint>)> {
        let from = self.init_from.as_deref().map(|path| job::load_endpoint(common, path, self.model.as_deref(), &self.data)).transpose()?;
        let graph = match &from {
            Some(endpoint) => endpoint.graph.clone(),
            None => {
                let spec = self.model.as_deref().unwrap_or("mlp");
                Arc::new(job::build(spec, &self.data)?)
            }
        };
        self.data.check_graph(&graph)?;
        job::check_memory(&graph, 5, "--model")?;
        Ok((graph, from))
    }

    /// What the run folder keeps, apart from the seed.
    pub fn config(&self, common: &Common, graph: &Graph) -> anyhow::Result<Value> {
        let mut config = json!({
            "schema": "landscape-run/1",
            "command": "train",
            "model": self.model,
            "graph": serde_json::from_str::<Value>(&graph.to_json())?,
            "data": self.data.to_json(),
            "fit": self.fit,
            "batch_size": self.batch_size,
            "augment": self.augment,
            "init_from": self.init_from,
            "eval_every": self.eval_every,
        });
        common.record_computation(&mut config);
        Ok(config)
    }

    fn checkpoint(
        &self,
        common: &Common,
        graph: &Graph,
        points: &ControlPoints<f32>,
        buffers: &Buffers,
        train: &Numbers,
        test: &Numbers,
    ) -> anyhow::Result<Checkpoint> {
        let metadata = Metadata {
            seed: Some(common.seed),
            metrics: train.named("train").into_iter().chain(test.named("test")).collect(),
            ..self.data.metadata(graph)
        };
        Ok(Checkpoint::from_parts(graph, &points.point(0), buffers, &Default::default(), Some(metadata))?)
    }
}

fn describe(result: &Value) -> String {
    let line = |split: &str| {
        let n = &result[split];
        let accuracy = n["accuracy"].as_f64().map(|a| format!(", accuracy {:.2} %", 100.0 * a)).unwrap_or_default();
        let perplexity = n["perplexity"].as_f64().map(|p| format!(", perplexity {p:.3}")).unwrap_or_default();
        format!("{split:<6} nll {:.4}{perplexity}{accuracy}", n["nll"].as_f64().unwrap_or(f64::NAN))
    };
    format!(
        "{}\n{}\n{} steps in {:.1} s\nwrote {}",
        line("train"),
        line("test"),
        result["steps"],
        result["wall_seconds"].as_f64().unwrap_or(f64::NAN),
        result["checkpoint"].as_str().unwrap_or_default()
    )
}
