//! What a job is asked to do: the JSON argument of `landscape-bench-job` and of every peer.

use landscape_kernels::Precision;
use serde::{Deserialize, Deserializer, de::Error};
use std::path::PathBuf;

/// One job, with what all jobs share.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// Threads to compute on.
    pub threads: usize,
    /// Repetitions in a block.
    pub repetitions: usize,
    /// Seed of weights and data.
    pub seed: u64,
    /// What to do.
    #[serde(flatten)]
    pub job: Job,
}

/// The jobs.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case")]
pub enum Job {
    /// Steps of training: forward, loss, gradient, SGD with momentum 0.9 and L2 of the point. One control point is an endpoint's
    /// training, more are a Bézier curve's, with the t of each step given beforehand.
    Step {
        /// The network, as `landscape_zoo::models::build` names it.
        model: String,
        /// Examples per step.
        batch: usize,
        /// Control points.
        points: usize,
        /// What products are computed in.
        #[serde(default, deserialize_with = "precision")]
        precision: Precision,
    },
    /// A batch's loss with stored statistics.
    Evaluate {
        /// The network.
        model: String,
        /// Examples.
        batch: usize,
        /// What products are computed in.
        #[serde(default, deserialize_with = "precision")]
        precision: Precision,
    },
    /// A point of a Bézier curve of three points as a profile measures it: blend, statistics taken anew over the training batches,
    /// loss over training and test batches.
    ProfilePoint {
        /// The network.
        model: String,
        /// Examples per batch.
        batch: usize,
        /// Batches to train with.
        n_train_batches: usize,
        /// Batches to test with.
        n_test_batches: usize,
    },
    /// One convolution, and one of its three passes.
    Convolution {
        /// Which pass.
        pass: ConvolutionPass,
        /// Examples.
        batch: usize,
        /// Input and output channels.
        channels: [usize; 2],
        /// Height and width of the input.
        size: usize,
        /// Height and width of the kernel; it is padded by half of that.
        kernel: usize,
        /// Stride.
        stride: usize,
        /// Groups of channels; as many as channels is depthwise.
        #[serde(default = "one")]
        groups: usize,
    },
    /// An operation on control points.
    WeightSpace {
        /// Which operation.
        operation: WeightSpace,
        /// P.
        parameters: usize,
        /// K.
        points: usize,
    },
    /// a = b + s·c on as many numbers, the measure of the machine's bandwidth.
    Triad {
        /// Numbers in each of the three vectors.
        parameters: usize,
    },
    /// Nothing timed: the files that a whole command works on.
    Files {
        /// The network of the three checkpoints.
        model: String,
        /// Examples to train with.
        n_train: usize,
        /// Examples to test with.
        n_test: usize,
        /// The folder to write them to.
        folder: PathBuf,
    },
    /// Nothing timed: the embedded digits as files, for peers that cannot read our executable.
    Digits {
        /// The folder to write them to.
        folder: PathBuf,
    },
}

impl Job {
    /// What products are computed in.
    pub fn precision(&self) -> Precision {
        match self {
            Job::Step { precision, .. } | Job::Evaluate { precision, .. } => *precision,
            _ => Precision::F32,
        }
    }
}

/// A pass of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConvolutionPass {
    /// y from x and w.
    Forward,
    /// dx from dy and w.
    InputGradient,
    /// dw from dy and x.
    WeightGradient,
}

/// An operation on control points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightSpace {
    /// w = Σ c_k θ_k.
    Blend,
    /// One free row steps by SGD with momentum along c_k·(g + wd·w).
    SpreadSgd,
    /// One free row steps by Adam along c_k·(g + wd·w).
    SpreadAdam,
}

fn one() -> usize {
    1
}

fn precision<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Precision, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
