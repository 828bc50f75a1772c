//! Checkpoints, data and the objective of a command: opened, checked against each other, ready to measure.

use crate::args::{Common, DataArgs, LossName, RefreshArgs, RefreshName};
use crate::output;
use crate::run_folder::RunFolder;
use anyhow::{Context, bail};
use landscape_core::checkpoint::{Checkpoint, DataIdentity, Metadata, Normalization};
use landscape_core::foreign;
use landscape_core::{
    Batches, Buffers, Coefficients, ControlPoints, Examples, NormRefresh, Objective, ParamLayout, Pass, Row, Seed, Stateful, StoredPoint,
    Tally,
};
use landscape_graph::Graph;
use landscape_network::{Loss, NetworkObjective};
use landscape_zoo::data::batches::{Augmentation, BatchConfig, SeededBatches};
use landscape_zoo::data::{self, Dataset, Split, SplitTargets};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Weights, moments and gradients of one run may take this much; a mistyped width must not bring the machine down.
const MAX_WEIGHT_BYTES: usize = 64 << 30;

/// Examples per forward pass where only the result counts.
pub const EVALUATION_BATCH: usize = 500;

/// The loss that a run's configuration names, as it is not what the targets suggest.
const BINARY_CROSS_ENTROPY: &str = "binary_cross_entropy";

/// A data set as a command uses it.
pub struct Data {
    /// What `--data` said or would have said.
    pub spec: String,
    pub dataset: Dataset,
    pub normalization: Option<Normalization>,
    pub batch_size: usize,
    loss: Loss,
    train_subset: Arc<Split>,
    test_subset: Arc<Split>,
}

impl Data {
    /// The data that `--data` names, else those the checkpoint was trained on: embedded, or found by the configuration of the run
    /// beside it, after checking the content's hash.
    pub fn open(args: &DataArgs, metadata: Option<&Metadata>, checkpoint: Option<&Path>) -> anyhow::Result<Self> {
        let known = metadata.and_then(|m| m.data.as_ref());
        let spec = match (&args.data, known) {
            (Some(spec), _) => spec.clone(),
            (None, None) => "digits".to_owned(),
            (None, Some(identity)) if identity.name == "digits" => "digits".to_owned(),
            (None, Some(identity)) => spec_beside(checkpoint).with_context(|| {
                format!(
                    "`{}` was trained on `{}`, and where that is cannot be told from here; name it with `--data`",
                    checkpoint.unwrap_or(Path::new("the checkpoint")).display(),
                    identity.name
                )
            })?,
        };
        let dataset = match (&args.data, checkpoint) {
            (None, Some(checkpoint)) => data::open(&spec).with_context(|| {
                format!(
                    "`{}` was trained on `{spec}`, by the run beside it (name the data with `--data` where they moved)",
                    checkpoint.display()
                )
            })?,
            _ => data::open(&spec)?,
        };
        if let (None, Some(identity)) = (&args.data, known)
            && identity.sha256 != dataset.sha256
        {
            bail!(
                "`{spec}` is not what the checkpoint was trained on: its content has hash {}, expected {}; name the data with `--data`",
                dataset.sha256,
                identity.sha256
            );
        }
        let normalization = match (args.normalize.as_deref(), metadata) {
            (Some(text), _) => parse_normalization(text)?,
            (None, Some(metadata)) if metadata.data.is_some() => metadata.normalization.clone(),
            _ => dataset.normalization.clone(),
        };
        let (train_subset, test_subset) = (dataset.train.clone(), dataset.test.clone());
        let loss = loss(args, &dataset, checkpoint)?;
        let data = Data { spec, dataset, normalization, batch_size: EVALUATION_BATCH, loss, train_subset, test_subset };
        data.training_batches(1, Seed::new(0), false)?;
        Ok(data)
    }

    /// Sets the examples per forward pass where only the result counts.
    pub fn measure_in_batches_of(&mut self, batch_size: usize) -> anyhow::Result<()> {
        self.batch_size = batch_size;
        self.train_batches().map(|_| ())
    }

    /// Measures on a seeded, stratified share of the data; statistics are refreshed on the same share.
    pub fn take_fraction(&mut self, fraction: f64, seed: Seed) -> anyhow::Result<()> {
        self.train_subset = Arc::new(self.dataset.train.subset_stratified(fraction, seed.child("train"))?);
        self.test_subset = Arc::new(self.dataset.test.subset_stratified(fraction, seed.child("test"))?);
        Ok(())
    }

    /// What the configuration keeps.
    pub fn to_json(&self) -> Value {
        let normalization = self.normalization.as_ref().map(|n| json!({"mean": n.mean, "std": n.std}));
        let mut json = json!({"spec": self.spec, "name": self.dataset.name, "sha256": self.dataset.sha256, "normalization": normalization});
        if self.loss == Loss::BinaryCrossEntropy {
            json["loss"] = json!(BINARY_CROSS_ENTROPY);
        }
        if let Some(n_places) = self.n_places() {
            json["n_places"] = json!(n_places);
        }
        json
    }

    /// The part of a checkpoint's metadata that tells of graph and data.
    pub fn metadata(&self, graph: &Graph) -> Metadata {
        Metadata {
            graph: Some(graph.clone()),
            data: Some(DataIdentity { name: self.dataset.name.clone(), sha256: self.dataset.sha256.clone() }),
            normalization: self.normalization.clone(),
            ..Metadata::default()
        }
    }

    /// Whether training augments these data unless told otherwise.
    pub fn augments(&self) -> bool {
        self.dataset.augmentation != Augmentation::None
    }

    /// What is measured.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// Labels per example, where every place has one; the loss is then told as perplexity too.
    pub fn n_places(&self) -> Option<usize> {
        match self.dataset.train.targets {
            SplitTargets::Places { n_places, .. } => Some(n_places),
            _ => None,
        }
    }

    /// Fails unless the graph takes these inputs and gives these outputs.
    pub fn check_graph(&self, graph: &Graph) -> anyhow::Result<()> {
        let (takes, has) = (graph.input_shape(), &self.dataset.input_shape);
        let n_numbers: usize = has.iter().product();
        // The parts of an example with several inputs stand one after the other.
        let fits = if graph.inputs().len() == 1 { takes == has } else { graph.n_input_elements() == n_numbers };
        if !fits {
            let all: Vec<_> = graph.inputs().map(|input| format!("{:?}", graph.node(input).shape)).collect();
            bail!("the network takes inputs of shape {}, and `{}` has {has:?}", all.join(" and "), self.spec);
        }
        if let (Some(n_places), [places, n_classes]) = (self.n_places(), graph.output_shape().as_slice()) {
            // A network may know more tokens than a text has.
            if *places != n_places || *n_classes < self.dataset.n_outputs() {
                let wanted = self.dataset.n_outputs();
                bail!("the network predicts {n_classes} tokens at {places} places, and `{}` asks for {wanted} at {n_places}", self.spec);
            }
            return Ok(());
        }
        let n_outputs: usize = graph.output_shape().iter().product();
        if n_outputs != self.dataset.n_outputs() || self.n_places().is_some() {
            let wanted = match self.n_places() {
                Some(n_places) => format!("[{n_places}, {}]", self.dataset.n_outputs()),
                None => self.dataset.n_outputs().to_string(),
            };
            bail!("the network has {n_outputs} outputs, and `{}` asks for {wanted}", self.spec);
        }
        Ok(())
    }

    fn batches(&self, split: &Arc<Split>, config: BatchConfig) -> anyhow::Result<SeededBatches<f32>> {
        Ok(SeededBatches::new(split.clone(), BatchConfig { normalization: self.normalization.clone(), ..config })?)
    }

    /// Shuffled batches to train with.
    pub fn training_batches(&self, batch_size: usize, seed: Seed, augment: bool) -> anyhow::Result<SeededBatches<f32>> {
        let augmentation = if augment { self.dataset.augmentation } else { Augmentation::None };
        self.batches(&self.dataset.train, BatchConfig::training(batch_size, seed, augmentation, None))
    }

    /// The training examples in fixed order, as they are.
    pub fn train_batches(&self) -> anyhow::Result<SeededBatches<f32>> {
        self.batches(&self.train_subset, BatchConfig::evaluation(self.batch_size, None))
    }

    /// The test examples in fixed order, as they are.
    pub fn test_batches(&self) -> anyhow::Result<SeededBatches<f32>> {
        self.batches(&self.test_subset, BatchConfig::evaluation(self.batch_size, None))
    }

    /// What statistics are taken over.
    pub fn refresh_batches(&self, args: &RefreshArgs, seed: Seed) -> anyhow::Result<SeededBatches<f32>> {
        let mut config = BatchConfig::evaluation(self.batch_size, None);
        if args.refresh_augmented {
            config.augmentation = self.dataset.augmentation;
            config.seed = seed.child("refresh");
        }
        self.batches(&self.train_subset, config)
    }

    /// Measures all training examples with the stored statistics.
    pub fn measure_train(&self, objective: &mut NetworkObjective<f32>) -> anyhow::Result<Tally> {
        measure(objective, &self.train_batches()?)
    }

    /// Measures all test examples with the stored statistics.
    pub fn measure_test(&self, objective: &mut NetworkObjective<f32>) -> anyhow::Result<Tally> {
        measure(objective, &self.test_batches()?)
    }

    /// Accuracy that guessing gives, where there are classes.
    pub fn chance(&self) -> Option<f64> {
        self.dataset.n_classes.map(|n| 1.0 / n as f64)
    }
}

/// Measures epoch 0 of `batches` with the stored statistics.
pub fn measure(objective: &mut NetworkObjective<f32>, batches: &SeededBatches<f32>) -> anyhow::Result<Tally> {
    let mut sum = Tally::default();
    for idx in 0..batches.n_batches() {
        let batch: Examples<f32> = batches.batch(0, idx)?;
        sum += objective.measure(&batch, Pass::EVALUATE.later())?;
    }
    objective.collect(&mut |tally| sum += tally)?;
    Ok(sum)
}

/// What `--loss` says, or the checkpoint's run said, or the targets suggest.
fn loss(args: &DataArgs, dataset: &Dataset, checkpoint: Option<&Path>) -> anyhow::Result<Loss> {
    let beside = || config_beside(checkpoint).is_some_and(|config| config["data"]["loss"] == BINARY_CROSS_ENTROPY);
    let of_classes = dataset.n_classes.is_some();
    let (loss, wants_classes) = match args.loss {
        Some(LossName::CrossEntropy) => (Loss::CrossEntropy, true),
        Some(LossName::SquaredError) => (Loss::SquaredError, false),
        Some(LossName::BinaryCrossEntropy) => (Loss::BinaryCrossEntropy, false),
        None if of_classes => return Ok(Loss::CrossEntropy),
        None if beside() => return Ok(Loss::BinaryCrossEntropy),
        None => return Ok(Loss::SquaredError),
    };
    if wants_classes != of_classes {
        let found = if of_classes { "class labels" } else { "numbers" };
        bail!("`--loss` does not fit the data, whose targets are {found}");
    }
    Ok(loss)
}

/// The configuration of the run that a checkpoint is of.
fn config_beside(checkpoint: Option<&Path>) -> Option<Value> {
    let path = checkpoint?;
    let own = RunFolder::beside(path).config();
    let of_folder = || path.parent().and_then(|folder| RunFolder::open(folder).ok()?.config().ok());
    own.ok().or_else(of_folder)
}

/// Where the data of a checkpoint's run are, by the configuration beside it.
fn spec_beside(checkpoint: Option<&Path>) -> Option<String> {
    Some(config_beside(checkpoint)?["data"]["spec"].as_str()?.to_owned())
}

/// Reads `MEAN/STD` or `none`.
fn parse_normalization(text: &str) -> anyhow::Result<Option<Normalization>> {
    if text == "none" {
        return Ok(None);
    }
    let numbers = |list: &str| list.split(',').map(|n| n.trim().parse::<f64>().ok().filter(|n| n.is_finite())).collect::<Option<Vec<_>>>();
    let parsed = text.split_once('/').and_then(|(mean, std)| Some(Normalization { mean: numbers(mean)?, std: numbers(std)? }));
    match parsed {
        Some(n) if n.mean.len() == n.std.len() && n.std.iter().all(|&s| s > 0.0) => Ok(Some(n)),
        _ => bail!(
            "`--normalize` must be `none` or MEAN/STD with as many positive deviations as means (`.49,.48,.45/.25,.24,.26`), got `{text}`"
        ),
    }
}

/// Mean loss with the L2 term, without it, and the share of wrong answers, as JSON has them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    pub loss: f64,
    pub nll: f64,
    pub error: Option<f64>,
    pub accuracy: Option<f64>,
    /// exp(nll), where tokens are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
}

impl Numbers {
    /// `l2_term` is ½·wd·‖w‖².
    pub fn new(data: &Data, tally: &Tally, l2_term: f64) -> Self {
        let nll = tally.nll();
        let perplexity = data.n_places().map(|_| nll.exp());
        Numbers { loss: nll + l2_term, nll, error: tally.error(), accuracy: tally.accuracy(), perplexity }
    }

    /// As metrics of a checkpoint.
    pub fn named(&self, split: &str) -> BTreeMap<String, f64> {
        let all = [("loss", Some(self.loss)), ("nll", Some(self.nll)), ("error", self.error), ("perplexity", self.perplexity)];
        all.into_iter().filter_map(|(name, value)| Some((format!("{split}_{name}"), value?))).collect()
    }
}

/// Where the weights of an endpoint are while it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    InMemory,
    /// In its file, which is read where it is.
    OnDisk,
}

/// A checkpoint with the network it is for.
pub struct Endpoint {
    pub graph: Arc<Graph>,
    /// Its weights, in memory or on disk.
    pub row: Row<f32>,
    pub buffers: Buffers,
    pub checkpoint: Checkpoint,
    /// The file's own name of each of our tensors, where they differ.
    pub names: BTreeMap<String, String>,
}

/// Fails where a checkpoint cannot be written because of what is there, before any work is done for it.
pub fn check_output_file(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() || path.file_name().is_none() {
        bail!("`--out {}` is a folder, expected the name of a file", path.display());
    }
    Ok(())
}

/// Reads a checkpoint of ours, or a foreign state dict.
pub fn read_checkpoint(path: &Path) -> anyhow::Result<Checkpoint> {
    Ok(foreign::read_state_dict(path)?)
}

/// [`read_checkpoint`], with its tensors left on disk where that is wanted.
pub fn open_checkpoint(path: &Path, keep: Keep) -> anyhow::Result<Checkpoint> {
    match keep {
        Keep::InMemory => read_checkpoint(path),
        Keep::OnDisk => foreign::map_state_dict(path).context("`--endpoints-on-disk` needs safetensors files that can be mapped"),
    }
}

/// The network that `--model` names: one of the zoo for these data, or that of a graph's JSON file.
pub fn build(spec: &str, data: &Data) -> anyhow::Result<Graph> {
    if !spec.ends_with(".json") {
        return Ok(landscape_zoo::models::build(spec, &data.dataset.input_shape, data.dataset.n_outputs())?);
    }
    let text = std::fs::read_to_string(spec).with_context(|| format!("`--model {spec}`"))?;
    Graph::from_json(&text).with_context(|| format!("`--model {spec}`"))
}

/// Reads a checkpoint and finds its network: the one it describes, or `--model`'s, with names matched.
pub fn load_endpoint(common: &Common, path: &Path, model: Option<&str>, data: &Data) -> anyhow::Result<Endpoint> {
    keep_endpoint(common, path, model, data, Keep::InMemory)
}

fn keep_endpoint(common: &Common, path: &Path, model: Option<&str>, data: &Data, keep: Keep) -> anyhow::Result<Endpoint> {
    let checkpoint = open_checkpoint(path, keep)?;
    let own_graph = checkpoint.metadata.as_ref().and_then(|m| m.graph.clone());
    let graph = match (own_graph, model) {
        (Some(graph), _) => graph,
        (None, Some(spec)) => build(spec, data)?,
        (None, None) => {
            bail!("`{}` does not say which network it is for; name it with `--model`, for example `--model resnet20`", path.display())
        }
    };
    take_endpoint(common, path, checkpoint, graph, keep)
}

/// Takes a checkpoint as one of `graph`: matches names, checks shapes and that every weight is finite.
pub fn endpoint(common: &Common, path: &Path, checkpoint: Checkpoint, graph: Graph) -> anyhow::Result<Endpoint> {
    take_endpoint(common, path, checkpoint, graph, Keep::InMemory)
}

fn take_endpoint(common: &Common, path: &Path, checkpoint: Checkpoint, graph: Graph, keep: Keep) -> anyhow::Result<Endpoint> {
    let context = || format!("`{}`", path.display());
    let mapping = foreign::match_names(&graph, &checkpoint).with_context(context)?;
    let mut names = BTreeMap::new();
    for (theirs, ours) in &mapping.pairs {
        if theirs != ours {
            names.insert(ours.clone(), theirs.clone());
        }
    }
    if !names.is_empty() {
        output::note(common, &format!("{}: names matched by order and shape:", path.display()));
        for (ours, theirs) in &names {
            output::note(common, &format!("  {theirs} -> {ours}"));
        }
    }
    let checkpoint = checkpoint.renamed(&mapping)?;
    let layout = Arc::new(ParamLayout::of_graph(&graph)?);
    let row = match keep {
        Keep::InMemory => {
            let params = checkpoint.params::<f32>(&layout).with_context(context)?;
            params.check_finite().with_context(context)?;
            Row::Frozen(Arc::new(params))
        }
        Keep::OnDisk => {
            let stored = StoredPoint::new(&checkpoint, &layout).with_context(context)?;
            stored.check_finite().with_context(context)?;
            Row::Stored(Arc::new(stored))
        }
    };
    let buffers = checkpoint.buffers(&graph).with_context(context)?;
    Ok(Endpoint { graph: Arc::new(graph), row, buffers, checkpoint, names })
}

/// The hash of a checkpoint's tensors, names and metadata.
pub fn content_hash(checkpoint: &Checkpoint) -> anyhow::Result<String> {
    Ok(checkpoint.sha256_hex()?)
}

/// A checkpoint under the names that `names` gives for ours.
pub fn with_names(checkpoint: &Checkpoint, names: &BTreeMap<String, String>) -> anyhow::Result<Checkpoint> {
    let theirs = |ours: &String| names.get(ours).unwrap_or(ours).clone();
    let pairs = checkpoint.tensors.iter().map(|(name, _)| (name.clone(), theirs(name))).collect();
    Ok(checkpoint.renamed(&foreign::Mapping { pairs, how: foreign::How::ByName })?)
}

/// All endpoints of a path, which must be of one network; every difference is named.
pub fn load_endpoints(common: &Common, paths: &[impl AsRef<Path>], model: Option<&str>, data: &Data) -> anyhow::Result<Vec<Endpoint>> {
    keep_endpoints(common, paths, model, data, Keep::InMemory)
}

/// [`load_endpoints`], with a say in where their weights are.
pub fn keep_endpoints(
    common: &Common,
    paths: &[impl AsRef<Path>],
    model: Option<&str>,
    data: &Data,
    keep: Keep,
) -> anyhow::Result<Vec<Endpoint>> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let endpoint = keep_endpoint(common, path, model, data, keep)?;
        if let Some(first) = endpoints.first() {
            let (a, b) = (format!("`{}`", paths[0].as_ref().display()), format!("`{}`", path.display()));
            first.row.layout().check_same(&a, endpoint.row.layout(), &b)?;
            if first.graph != endpoint.graph {
                bail!("{a} and {b} are of different networks, though their tensors have the same names and shapes");
            }
        }
        note_other_training(common, path, &endpoint.checkpoint, data);
        endpoints.push(endpoint);
    }
    if let Some(first) = endpoints.first() {
        data.check_graph(&first.graph)?;
    }
    Ok(endpoints)
}

/// Says so where a checkpoint was trained on other data, or in another normalisation, than it is used with here.
fn note_other_training(common: &Common, path: &Path, checkpoint: &Checkpoint, data: &Data) {
    let Some((metadata, identity)) = checkpoint.metadata.as_ref().and_then(|m| Some((m, m.data.as_ref()?))) else { return };
    let path = path.display();
    if identity.sha256 != data.dataset.sha256 {
        output::note(common, &format!("note: `{path}` was trained on other data (`{}`) than `{}`", identity.name, data.spec));
    } else if metadata.normalization != data.normalization {
        output::note(common, &format!("note: `{path}` was trained with another normalisation than it is used with here"));
    }
}

/// Fails before memory is taken that no machine of this kind has: `n_vectors` vectors as long as the network has parameters.
pub fn check_memory(graph: &Graph, n_vectors: usize, flag: &str) -> anyhow::Result<()> {
    let bytes = graph.n_parameters().saturating_mul(size_of::<f32>()).saturating_mul(n_vectors);
    if bytes > MAX_WEIGHT_BYTES {
        bail!(
            "`{flag}` asks for {n_vectors} vectors of {} parameters, {:.0} GiB; at most {} GiB are taken",
            graph.n_parameters(),
            bytes as f64 / (1u64 << 30) as f64,
            MAX_WEIGHT_BYTES >> 30
        );
    }
    Ok(())
}

/// Goes to an endpoint with the statistics it came with.
pub fn stand_at(objective: &mut NetworkObjective<f32>, endpoint: &Endpoint) -> anyhow::Result<()> {
    let point = ControlPoints::new(vec![endpoint.row.clone()])?.on_device(&objective.weights().device())?;
    objective.move_to(&point, &Coefficients::one_hot(0, 1)?)?;
    Ok(objective.set_buffers(&endpoint.buffers)?)
}

/// Goes to the last weights with the running statistics that training left, as a PyTorch module stands after its last step.
pub fn keep_statistics(objective: &mut NetworkObjective<f32>, points: &ControlPoints<f32>) -> anyhow::Result<()> {
    let buffers = objective.buffers().clone();
    objective.move_to(points, &Coefficients::one_hot(0, points.n_points())?)?;
    Ok(objective.set_buffers(&buffers)?)
}

/// Asks about the preprocessing when an endpoint is hardly better than guessing.
pub fn warn_near_chance(common: &Common, name: &str, accuracy: Option<f64>, data: &Data) {
    let (Some(accuracy), Some(chance)) = (accuracy, data.chance()) else { return };
    if accuracy < chance + 0.1 * (1.0 - chance) {
        let normalization = data.normalization.as_ref().map_or("none".to_owned(), |n| format!("{:?}/{:?}", n.mean, n.std));
        output::note(
            common,
            &format!(
                "warning: {name} has an accuracy of {:.1} % on `{}`, near chance ({:.1} %): does the preprocessing match its training? (normalisation: {normalization}; see `--normalize`, and `--model` for a file of others)",
                100.0 * accuracy,
                data.spec,
                100.0 * chance
            ),
        );
    }
}

/// The refresh of the command line.
pub fn norm_refresh(name: RefreshName) -> NormRefresh {
    match name {
        RefreshName::BatchAverage => NormRefresh::BatchAverage,
        RefreshName::TorchCumulative => NormRefresh::TorchCumulative,
        RefreshName::Pooled => NormRefresh::Pooled,
        RefreshName::Sequential => NormRefresh::Sequential,
    }
}
