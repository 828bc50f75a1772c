//! The command line.

use crate::commands::Seeds;
use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use landscape_kernels::simd::Level;
use landscape_kernels::{Algorithms, Device, DeviceKind, Precision};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Join trained networks by curves of low loss, and look at what lies between them.
#[derive(Debug, Parser)]
#[command(name = "landscape", version, max_term_width = 110, propagate_version = true)]
#[command(
    after_help = "Start with `landscape demo`. Exit codes: 0 done, 1 the run failed, 2 the request or an input is wrong, 130 interrupted (state saved)."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub common: Common,
}

impl Common {
    /// The one device of work that takes one, and whether there are kernels in `--precision` for it.
    pub fn device(&self) -> anyhow::Result<Device> {
        let mut devices = self.devices()?;
        match devices.len() {
            1 => Ok(devices.swap_remove(0)),
            _ => {
                bail!("one device trains one network, got `--device {}`; `profile`, `plane` and `train --seeds` take several", self.device)
            }
        }
    }

    /// All devices, a worker for each; opened by the first call.
    pub fn devices(&self) -> anyhow::Result<Vec<Device>> {
        if let Some(devices) = self.opened.get() {
            return Ok(devices.clone());
        }
        let devices = Device::parse_list_for(&self.device, self.algorithms.into())?;
        for device in &devices {
            self.precision.check::<f32>(device).with_context(|| format!("`--precision {}`", self.precision))?;
        }
        Ok(self.opened.get_or_init(|| devices).clone())
    }

    /// Checks what is said of devices as far as that goes without opening any.
    pub fn check_device(&self) -> anyhow::Result<()> {
        if Device::kind_of_list(&self.device)? == DeviceKind::Cpu {
            self.precision.check::<f32>(&Device::Cpu).with_context(|| format!("`--precision {}`", self.precision))?;
            if self.algorithms == AlgorithmsName::Any {
                bail!("`--algorithms any` is for GPUs, got `--device {}`", self.device);
            }
        }
        Ok(())
    }

    fn device_kind(&self) -> DeviceKind {
        // Names that cannot be read were refused before.
        Device::kind_of_list(&self.device).unwrap_or(DeviceKind::Cpu)
    }

    /// Whose kernels compute: an instruction set of the processor, or `cuda`.
    pub fn kernel_path(&self) -> &'static str {
        match self.device_kind() {
            DeviceKind::Cpu => landscape_kernels::gemm::kernel_path(self.precision),
            other => other.name(),
        }
    }

    /// The limit on activations in bytes.
    pub fn max_activation_bytes(&self) -> Option<usize> {
        self.activation_mib.map(|mib| mib.get().saturating_mul(1 << 20))
    }

    /// Says in a run's or a measurement's settings what its numbers depend on; nothing where it is the default.
    pub fn record_computation(&self, settings: &mut serde_json::Value) {
        if self.device_kind() != DeviceKind::Cpu {
            settings["device"] = self.device_kind().name().into();
        }
        if self.precision != Precision::F32 {
            settings["precision"] = self.precision.name().into();
        }
        if self.algorithms == AlgorithmsName::Any {
            settings["algorithms"] = "any".into();
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train one network from scratch or from a checkpoint
    Train(TrainArgs),
    /// Join two checkpoints (or a chain of them) by a trained curve of low loss
    Connect(ConnectArgs),
    /// Measure loss and error along a run's curve, or along the line between two checkpoints
    Profile(ProfileArgs),
    /// Write one point of a run's curve as an ordinary checkpoint
    Point(PointArgs),
    /// Measure the plane through three checkpoints, or through a run's curve
    Plane(PlaneArgs),
    /// Put runs into one self-contained HTML report
    Report(ReportArgs),
    /// Say whether two checkpoints can be averaged or joined: distance, straight line, answers, and what to do next
    Compare(CompareArgs),
    /// Say what is in a checkpoint, and whether anything is wrong with it
    Inspect(InspectArgs),
    /// Make a checkpoint with its network of an ONNX file, for every command that takes checkpoints
    Import(ImportArgs),
    /// The whole job on embedded data: two networks, the line, the curve, the report
    Demo(DemoArgs),
    /// Print the Python script that writes a PyTorch module as a graph and weights (it needs nothing but torch)
    ExportScript,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What every command takes.
#[derive(Debug, Args, Clone)]
pub struct Common {
    /// Seed of everything random
    #[arg(long, global = true, default_value_t = 0, value_name = "N", help_heading = "Common options", allow_negative_numbers = true)]
    pub seed: u64,
    /// Threads to use; results do not depend on it [default: all cores]
    #[arg(long, global = true, value_name = "N", help_heading = "Common options", allow_negative_numbers = true)]
    pub threads: Option<NonZeroUsize>,
    /// Instruction set of the kernels: `avx512`, `avx2` or `portable` [default: the best of this processor]
    #[arg(long, global = true, value_name = "SET", help_heading = "Common options")]
    pub kernels: Option<Level>,
    /// What matrix products and convolutions are computed in: `f32`, `bf16` with sums in f32, or on GPUs `tf32`; weights, statistics and all else stay f32
    #[arg(long, global = true, default_value_t = Precision::F32, value_name = "PRECISION", help_heading = "Common options")]
    pub precision: Precision,
    /// Where to compute: `cpu`, `cuda:N`, or `cuda:N,M,...` with a worker for each (`profile`, `plane`, `train --seeds`)
    #[arg(long, global = true, default_value = "cpu", value_name = "DEVICE", help_heading = "Common options")]
    pub device: String,
    /// Which algorithms of cuDNN a GPU may use: those that give the same bits every time, or any
    #[arg(long, global = true, value_enum, default_value = "deterministic", value_name = "WHICH", help_heading = "Common options")]
    pub algorithms: AlgorithmsName,
    /// Print exactly one JSON document on stdout, everything else on stderr
    #[arg(long, global = true, help_heading = "Common options")]
    pub json: bool,
    /// The file (`train`, `point`, `import`) or run folder to write [default: a new numbered folder under `runs/`]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Common options")]
    pub out: Option<PathBuf>,
    /// Replace an output that exists already
    #[arg(long, global = true, help_heading = "Common options")]
    pub force: bool,
    /// Print errors only
    #[arg(long, global = true, help_heading = "Common options")]
    pub quiet: bool,
    /// Go on with the run in `--out` where it stopped; start it if it never began
    #[arg(long, global = true, help_heading = "Common options")]
    pub resume: bool,
    /// End training (`train`, `connect`) after that many steps in all; `--resume` takes it further
    #[arg(long, global = true, value_name = "N", help_heading = "Common options", allow_negative_numbers = true)]
    pub max_steps: Option<u64>,
    /// What activations and gradients of a training step may take (`train`, `connect`; MiB): what does not fit is computed again on the way
    /// back; results do not depend on it [default: no limit]
    #[arg(long, global = true, value_name = "MIB", help_heading = "Common options", allow_negative_numbers = true)]
    pub activation_mib: Option<NonZeroUsize>,
    /// What `--device` names, once it was opened; shared by clones.
    #[arg(skip)]
    pub opened: Arc<OnceLock<Vec<Device>>>,
}

/// Which data, and how it is normalised.
#[derive(Debug, Args, Clone)]
pub struct DataArgs {
    /// `digits` (embedded), `mnist:DIR`, `fashion:DIR`, `cifar10:DIR`, `cifar100:DIR`, `npz:FILE`, or `text:FILE` and `bytes:FILE`, whose
    /// next character or byte is predicted over 64 places, or as many as in `text:FILE@128`
    /// [default: what the checkpoint says; `digits` for a new network]
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,
    /// Normalisation `MEAN/STD` (comma lists: one per channel) or `none` [default: the checkpoint's, else the data's own]
    #[arg(long, value_name = "MEAN/STD", allow_hyphen_values = true)]
    pub normalize: Option<String>,
    /// What is measured [default: the checkpoint's run's, else cross-entropy for classes and squared error for numbers]
    #[arg(long, value_enum)]
    pub loss: Option<LossName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LossName {
    /// Of classes, or of tokens.
    CrossEntropy,
    /// Of numbers.
    SquaredError,
    /// Of numbers from 0 to 1, each a label of its own.
    BinaryCrossEntropy,
}

/// What a file without our metadata holds.
#[derive(Debug, Args, Clone)]
pub struct ModelArgs {
    /// Architecture of checkpoints that do not say it, with options: `mlp:784-512-10`, `resnet20:width=2,norm=layer`, `vgg16_bn`,
    /// `resnet50`, `vit_b_16`, `gpt:layers=4,width=128`; an unknown one is answered with the list of all. Or a graph's
    /// file `FILE.json`
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AlgorithmsName {
    Deterministic,
    Any,
}

impl From<AlgorithmsName> for Algorithms {
    fn from(name: AlgorithmsName) -> Self {
        match name {
            AlgorithmsName::Deterministic => Algorithms::Deterministic,
            AlgorithmsName::Any => Algorithms::Any,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OptimizerName {
    Sgd,
    Adam,
    Adamw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CurveName {
    Bezier,
    Polychain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InitName {
    Line,
    Arc,
    Random,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DecayOnName {
    Point,
    ControlPoints,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RefreshName {
    /// The reference: sample-weighted averages of batch statistics
    BatchAverage,
    /// torch.optim.swa_utils.update_bn: every batch counts the same
    TorchCumulative,
    /// The statistics of all examples pooled, in one pass
    Pooled,
    /// Layer by layer: independent of batching and order
    Sequential,
}

/// How batch-norm statistics are taken anew at each point.
#[derive(Debug, Args, Clone)]
pub struct RefreshArgs {
    /// How batch-norm statistics are taken anew at each point
    #[arg(long, value_enum, default_value = "batch-average", value_name = "HOW")]
    pub refresh: RefreshName,
    /// Take statistics over augmented data, as the reference does [default: plain data in fixed order]
    #[arg(long)]
    pub refresh_augmented: bool,
}

/// How points are measured at once.
#[derive(Debug, Args, Clone)]
pub struct AtOnceArgs {
    /// Points are measured at once, one per thread, while their weights and activations take at most this much (MiB); results do not
    /// depend on it
    #[arg(long, default_value_t = DEFAULT_MEMORY_MIB, value_name = "MIB", allow_negative_numbers = true)]
    pub memory_mib: NonZeroUsize,
    /// Compute the first layer's products with the control points once for all points: faster for multilayer perceptrons, numbers agree
    /// to 1e-5 with those without, and the record says so
    #[arg(long)]
    pub shared_first_layer: bool,
}

impl Default for AtOnceArgs {
    fn default() -> Self {
        AtOnceArgs { memory_mib: DEFAULT_MEMORY_MIB, shared_first_layer: false }
    }
}

/// What [`AtOnceArgs::memory_mib`] is unless said otherwise.
pub const DEFAULT_MEMORY_MIB: NonZeroUsize = NonZeroUsize::new(2048).expect("a constant above 0");

impl AtOnceArgs {
    /// Says in a measurement's settings what its numbers depend on.
    pub fn record(&self, settings: &mut serde_json::Value) {
        if self.shared_first_layer {
            settings["shared_first_layer"] = true.into();
        }
    }

    /// The memory in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_mib.get().saturating_mul(1 << 20)
    }
}

#[derive(Debug, Args, Clone)]
pub struct TrainArgs {
    /// Architecture, with options: `mlp`, `mlp:784-512-10`, `cnn`, `resnet20:width=2,norm=layer`, `vgg16_bn`, `resnet50`, `vit_tiny`,
    /// `gpt:layers=4,width=128`; an unknown one is answered with the list of all. Or a graph's file `FILE.json` [default: `mlp`, or that of `--init-from`]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    #[command(flatten)]
    pub data: DataArgs,
    /// Passes over the training data
    #[arg(long, default_value_t = 20, value_name = "N", allow_negative_numbers = true)]
    pub epochs: u64,
    /// Examples per step
    #[arg(long, default_value_t = 128, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: usize,
    /// Base learning rate [default: 0.05 for sgd, 0.001 for adam and adamw]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Optimiser
    #[arg(long, value_enum, default_value = "sgd")]
    pub optimizer: OptimizerName,
    /// `constant`, `cosine`, `garipov` (the reference's piecewise linear), `step:SHARE,SHARE/GAMMA` or `triangular:EPOCHS/LOW`
    #[arg(long, default_value = "garipov")]
    pub schedule: String,
    /// Strength of the L2 term (adamw: decoupled decay)
    #[arg(long, default_value_t = 5e-4, value_name = "WD", allow_negative_numbers = true)]
    pub weight_decay: f64,
    /// Train on the images as they are [default: random crop and flip for CIFAR]
    #[arg(long)]
    pub no_augment: bool,
    /// Start from this checkpoint's weights
    #[arg(long, value_name = "FILE")]
    pub init_from: Option<PathBuf>,
    /// Measure on the test split every N epochs, and at the end
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    pub eval_every: u64,
    /// Train a network for each seed from FIRST up to, and without, END, one per thread, into the folder `--out`; each is what
    /// `--seed` alone would give
    #[arg(long, value_name = "FIRST..END", conflicts_with = "seed", allow_hyphen_values = true)]
    pub seeds: Option<Seeds>,
}

#[derive(Debug, Args, Clone)]
pub struct ConnectArgs {
    /// Two checkpoints, or a chain of more
    #[arg(required = true, num_args = 2.., value_name = "CHECKPOINT")]
    pub checkpoints: Vec<PathBuf>,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Family of curves
    #[arg(long, value_enum, default_value = "bezier")]
    pub curve: CurveName,
    /// Control points, both endpoints counted as the reference counts them [default: 3]
    #[arg(long, value_name = "K", conflicts_with = "bends", allow_negative_numbers = true)]
    pub points: Option<usize>,
    /// Control points between the endpoints: K - 2
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub bends: Option<usize>,
    /// Where the bends start: on the line (the reference), on an arc, or at random networks
    #[arg(long, value_enum, default_value = "line")]
    pub init: InitName,
    /// Let the first endpoint move too
    #[arg(long)]
    pub free_start: bool,
    /// Let the last endpoint move too
    #[arg(long)]
    pub free_end: bool,
    /// What weight decay acts on: the visited point (the reference) or each control point
    #[arg(long, value_enum, default_value = "point")]
    pub decay_on: DecayOnName,
    /// Passes over the training data (the reference: 200 to 600); for a chain they are shared among its segments
    #[arg(long, default_value_t = 100, value_name = "N", allow_negative_numbers = true)]
    pub epochs: u64,
    /// Examples per step
    #[arg(long, default_value_t = 128, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: usize,
    /// Base learning rate [default: 0.05 for sgd, 0.001 for adam and adamw]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Optimiser
    #[arg(long, value_enum, default_value = "sgd")]
    pub optimizer: OptimizerName,
    /// `constant`, `cosine`, `garipov` (the reference's piecewise linear), `step:SHARE,SHARE/GAMMA` or `triangular:EPOCHS/LOW`
    #[arg(long, default_value = "garipov")]
    pub schedule: String,
    /// Strength of the L2 term (the reference's default)
    #[arg(long, default_value_t = 1e-4, value_name = "WD", allow_negative_numbers = true)]
    pub weight_decay: f64,
    /// Read the endpoints from their files (safetensors) while training instead of holding them in memory; the same numbers
    #[arg(long)]
    pub endpoints_on_disk: bool,
    /// Train on the images as they are [default: random crop and flip for CIFAR]
    #[arg(long)]
    pub no_augment: bool,
}

#[derive(Debug, Args, Clone)]
pub struct ProfileArgs {
    /// A run folder of `connect`, or two checkpoints
    #[arg(required = true, num_args = 1..=2, value_name = "RUN | A B")]
    pub inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub refresh: RefreshArgs,
    /// Equally spaced points, both ends included
    #[arg(long, default_value_t = 61, value_name = "N", allow_negative_numbers = true)]
    pub samples: usize,
    /// The straight line between the ends instead of the curve (without effect for two checkpoints)
    #[arg(long)]
    pub straight: bool,
    /// Strength of the L2 term in `loss` [default: the run's own, else 0]
    #[arg(long, value_name = "WD", allow_negative_numbers = true)]
    pub weight_decay: Option<f64>,
    /// Linearly mode connected: barrier A under this share of the larger end
    #[arg(long, default_value_t = 0.1, value_name = "SHARE", allow_negative_numbers = true)]
    pub lmc_fraction: f64,
    /// Connected: max over max of the ends under this ratio
    #[arg(long, default_value_t = 1.1, value_name = "RATIO", allow_negative_numbers = true)]
    pub connected_ratio: f64,
    /// Also write the keys and percentages of the reference's `curve.npz`
    #[arg(long)]
    pub npz: bool,
    /// Examples per forward pass
    #[arg(long, default_value_t = 500, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: usize,
    #[command(flatten)]
    pub at_once: AtOnceArgs,
}

#[derive(Debug, Args, Clone)]
pub struct PointArgs {
    /// A run folder of `connect`
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Where on the curve, from 0 to 1
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub t: f64,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub refresh: RefreshArgs,
    /// Examples per forward pass
    #[arg(long, default_value_t = 500, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: usize,
}

#[derive(Debug, Args, Clone)]
pub struct PlaneArgs {
    /// Three checkpoints, or a run folder of `connect`
    #[arg(required = true, num_args = 1..=3, value_name = "A B C | RUN")]
    pub inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub refresh: RefreshArgs,
    /// Cells along the first and the second axis
    #[arg(long, default_value = "21x21", value_name = "NXxNY")]
    pub grid: String,
    /// Margin around the three points, as a share of each side
    #[arg(long, default_value_t = 0.2, value_name = "SHARE", allow_negative_numbers = true)]
    pub margin: f64,
    /// Share of the data to measure on: a seeded, stratified subset
    #[arg(long, default_value_t = 1.0, value_name = "SHARE", allow_negative_numbers = true)]
    pub fraction: f64,
    /// Strength of the L2 term in `loss` [default: the run's own, else 0]
    #[arg(long, value_name = "WD", allow_negative_numbers = true)]
    pub weight_decay: Option<f64>,
    /// Examples per forward pass
    #[arg(long, default_value_t = 500, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: usize,
    #[command(flatten)]
    pub at_once: AtOnceArgs,
}

#[derive(Debug, Args, Clone)]
pub struct ReportArgs {
    /// Run folders
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
}

#[derive(Debug, Args, Clone)]
pub struct CompareArgs {
    /// A checkpoint
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// Another one
    #[arg(value_name = "B")]
    pub b: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub refresh: RefreshArgs,
    /// Examples of the larger split to measure on, and as large a share of the other: a seeded, stratified subset
    #[arg(long, default_value_t = 2000, value_name = "N", allow_negative_numbers = true)]
    pub examples: usize,
    /// Examples per forward pass
    #[arg(long, default_value_t = 500, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: usize,
}

#[derive(Debug, Args, Clone)]
pub struct InspectArgs {
    /// A checkpoint: safetensors or PyTorch
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Debug, Args, Clone)]
pub struct ImportArgs {
    /// An ONNX file; weights that it keeps in other files are read from beside it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, Args, Clone)]
pub struct DemoArgs {
    /// Architecture of the two networks, on the embedded digits
    #[arg(long, default_value = "mlp:64-256-256-10", value_name = "MODEL")]
    pub model: String,
}
