//! A path to measure: a run's curve, or the line between two checkpoints.

use crate::args::{Common, DataArgs};
use crate::job::{self, Data, Endpoint};
use crate::run_folder::RunFolder;
use anyhow::{Context, bail};
use landscape_core::checkpoint::Checkpoint;
use landscape_core::curve::{Chain, Segment};
use landscape_core::{ControlPoints, Curve};
use landscape_graph::Graph;
use landscape_train::Connect;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A path with its ends and its data.
pub struct MeasuredPath {
    pub curve: Box<dyn Curve>,
    pub points: ControlPoints<f32>,
    /// All control points of a run, or the two checkpoints; endpoints have their stored statistics.
    pub endpoints: Vec<Endpoint>,
    pub data: Data,
    /// The L2 term of the run.
    pub weight_decay: f64,
    /// The run, where the path is one's.
    pub folder: Option<RunFolder>,
    /// The names that the first endpoint's file gave to our tensors, where they differed.
    pub names: BTreeMap<String, String>,
}

impl MeasuredPath {
    /// The curve of a run.
    pub fn of_run(common: &Common, path: &Path, data_args: &DataArgs) -> anyhow::Result<Self> {
        let folder = RunFolder::open(path)?;
        let config = folder.config()?;
        if config["command"] != "connect" {
            bail!("`{}` is a run of `{}`, expected one of `connect`", path.display(), config["command"].as_str().unwrap_or("?"));
        }
        let field = |name: &str| format!("`{}`: `{name}`", folder.file("config.json").display());
        let connect: Connect = serde_json::from_value(config["connect"].clone()).with_context(|| field("connect"))?;
        let n_endpoints = config["n_endpoints"].as_u64().with_context(|| field("n_endpoints"))? as usize;
        let graph = Graph::from_json(&config["graph"].to_string()).with_context(|| field("graph"))?;
        let curve = connect.path(n_endpoints)?;
        let first = folder.control_point(0);
        if !first.is_file() {
            bail!("`{}` has no control points yet; finish it with `landscape connect --resume --out {0}`", path.display());
        }
        let metadata = Checkpoint::read(&first)?.metadata;
        let data = Data::open(data_args, metadata.as_ref(), Some(&first))?;
        let mut endpoints = Vec::new();
        for k in 0..curve.n_points() {
            let path = folder.control_point(k);
            endpoints.push(job::endpoint(common, &path, Checkpoint::read(&path)?, graph.clone())?);
        }
        data.check_graph(&graph)?;
        let names = serde_json::from_value(config["names"].clone()).with_context(|| field("names"))?;
        let points = frozen(&endpoints)?;
        Ok(MeasuredPath { curve, points, endpoints, data, weight_decay: connect.fit.weight_decay, folder: Some(folder), names })
    }

    /// The straight line through checkpoints.
    pub fn through(common: &Common, paths: &[PathBuf], data_args: &DataArgs, model: Option<&str>) -> anyhow::Result<Self> {
        let first = job::read_checkpoint(&paths[0])?;
        Self::between(common, paths, Data::open(data_args, first.metadata.as_ref(), Some(&paths[0]))?, model)
    }

    /// The same, on data that are open.
    pub fn between(common: &Common, paths: &[PathBuf], data: Data, model: Option<&str>) -> anyhow::Result<Self> {
        let endpoints = job::load_endpoints(common, paths, model, &data)?;
        let points = frozen(&endpoints)?;
        let curve: Box<dyn Curve> = Box::new(Chain::new(Box::new(Segment), paths.len() - 1)?);
        let names = endpoints[0].names.clone();
        Ok(MeasuredPath { curve, points, endpoints, data, weight_decay: 0.0, folder: None, names })
    }

    /// The straight line between the path's ends (through the endpoints of a chain).
    pub fn straight(mut self, n_points_per_segment: usize) -> anyhow::Result<Self> {
        let step = n_points_per_segment - 1;
        let mut k = 0;
        self.endpoints.retain(|_| {
            k += 1;
            (k - 1) % step == 0
        });
        self.points = frozen(&self.endpoints)?;
        self.curve = Box::new(Chain::new(Box::new(Segment), self.endpoints.len() - 1)?);
        Ok(self)
    }

    /// The hash of every point's content, in order: a measurement is of these and no others.
    pub fn content(&self) -> anyhow::Result<Vec<String>> {
        self.endpoints.iter().map(|e| job::content_hash(&e.checkpoint)).collect()
    }

    /// K of one segment of a run's curve.
    pub fn points_per_segment(&self) -> anyhow::Result<usize> {
        let Some(folder) = &self.folder else { return Ok(2) };
        let config: Value = folder.config()?;
        Ok(config["connect"]["points"].as_u64().context("`config.json`: `connect.points`")? as usize)
    }
}

fn frozen(endpoints: &[Endpoint]) -> anyhow::Result<ControlPoints<f32>> {
    Ok(ControlPoints::new(endpoints.iter().map(|e| e.row.clone()).collect())?)
}
