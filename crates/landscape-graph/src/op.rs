//! The ops of a network and their attributes. Each does what the PyTorch module of the same name does.

use serde::{Deserialize, Serialize};

/// What an op yields per example, without the batch dimension: an image `[channels, height, width]` or features `[n]`.
pub type Shape = Vec<usize>;

/// Which formula [`Op::Gelu`] uses; the names are PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gelu {
    /// x/2 · (1 + erf(x/√2)).
    None,
    /// The approximation by a hyperbolic tangent.
    Tanh,
}

/// Whether a linear map or a convolution adds a learned constant per output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// With a bias.
    On,
    /// Without: batch norm follows, which would take it out again.
    Off,
}

/// One op of a network. Pairs of numbers are `[height, width]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Where the example comes in; the first node, and the only one of its kind.
    Input,
    /// y = W x + b on features; `W` is `[out_features, in_features]`.
    Linear {
        /// The length of x.
        in_features: usize,
        /// The length of y.
        out_features: usize,
        /// Whether there is a b.
        bias: bool,
    },
    /// Cross-correlation with zero padding; the weight is `[out_channels, in_channels / groups, height, width]`.
    Conv2d {
        /// Channels in.
        in_channels: usize,
        /// Channels out.
        out_channels: usize,
        /// The window.
        kernel_size: [usize; 2],
        /// The step between windows.
        stride: [usize; 2],
        /// Rows and columns of zeros on each side.
        padding: [usize; 2],
        /// The step between the taps of one window.
        dilation: [usize; 2],
        /// Into how many groups the channels fall that do not see each other.
        groups: usize,
        /// Whether a constant per channel is added.
        bias: bool,
    },
    /// Normalisation per channel over batch, height and width.
    BatchNorm {
        /// The channels (of an image) or features.
        num_features: usize,
        /// Added to the variance.
        eps: f64,
        /// The share of the newest batch in the running statistics.
        momentum: f64,
        /// Whether a learned factor and constant per channel follow.
        affine: bool,
    },
    /// max(x, 0).
    Relu,
    /// The Gaussian error linear unit.
    Gelu {
        /// The formula.
        approximate: Gelu,
    },
    /// The sum of two inputs of the same shape.
    Add,
    /// In training, sets each value to zero with probability p and scales the others by 1/(1 − p).
    Dropout {
        /// The probability.
        p: f64,
    },
    /// The largest value of each window; outside the image is −∞.
    MaxPool2d {
        /// The window.
        kernel_size: [usize; 2],
        /// The step between windows.
        stride: [usize; 2],
        /// Rows and columns added on each side.
        padding: [usize; 2],
    },
    /// The mean of each window; outside the image is 0.
    AvgPool2d {
        /// The window.
        kernel_size: [usize; 2],
        /// The step between windows.
        stride: [usize; 2],
        /// Rows and columns added on each side.
        padding: [usize; 2],
        /// Whether the padding counts in the divisor.
        count_include_pad: bool,
    },
    /// Means over windows chosen so that the result has the given size.
    AdaptiveAvgPool2d {
        /// The size of the result.
        output_size: [usize; 2],
    },
    /// The mean over the image: `[c, h, w]` to `[c, 1, 1]`.
    GlobalAvgPool,
    /// An image as features, in the order channel, height, width.
    Flatten,
    /// The inputs one after the other, along channels or features.
    Concat,
}

impl Op {
    /// The names of all ops, as a graph's JSON spells them.
    pub const NAMES: [&'static str; 14] = [
        "input",
        "linear",
        "conv2d",
        "batch_norm",
        "relu",
        "gelu",
        "add",
        "dropout",
        "max_pool2d",
        "avg_pool2d",
        "adaptive_avg_pool2d",
        "global_avg_pool",
        "flatten",
        "concat",
    ];

    /// The name, as a graph's JSON spells it.
    pub fn name(&self) -> &'static str {
        let idx = match self {
            Op::Input => 0,
            Op::Linear { .. } => 1,
            Op::Conv2d { .. } => 2,
            Op::BatchNorm { .. } => 3,
            Op::Relu => 4,
            Op::Gelu { .. } => 5,
            Op::Add => 6,
            Op::Dropout { .. } => 7,
            Op::MaxPool2d { .. } => 8,
            Op::AvgPool2d { .. } => 9,
            Op::AdaptiveAvgPool2d { .. } => 10,
            Op::GlobalAvgPool => 11,
            Op::Flatten => 12,
            Op::Concat => 13,
        };
        Self::NAMES[idx]
    }

    /// The tensors the op owns, parameters first, then statistics, in PyTorch's order.
    ///
    /// # Shapes
    /// A scalar such as `num_batches_tracked` has the shape `[]`.
    pub fn tensors(&self) -> Vec<(Role, Vec<usize>)> {
        let mut tensors = Vec::new();
        match *self {
            Op::Linear { in_features, out_features, bias } => {
                tensors.push((Role::Weight, vec![out_features, in_features]));
                if bias {
                    tensors.push((Role::Bias, vec![out_features]));
                }
            }
            Op::Conv2d { in_channels, out_channels, kernel_size: [height, width], groups, bias, .. } => {
                tensors.push((Role::Weight, vec![out_channels, in_channels / groups.max(1), height, width]));
                if bias {
                    tensors.push((Role::Bias, vec![out_channels]));
                }
            }
            Op::BatchNorm { num_features, affine, .. } => {
                if affine {
                    tensors.extend([(Role::Weight, vec![num_features]), (Role::Bias, vec![num_features])]);
                }
                tensors.extend([
                    (Role::RunningMean, vec![num_features]),
                    (Role::RunningVar, vec![num_features]),
                    (Role::NumBatchesTracked, vec![]),
                ]);
            }
            _ => {}
        }
        tensors
    }
}

/// What a tensor is to the op that owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A learned factor.
    Weight,
    /// A learned constant.
    Bias,
    /// Batch norm's mean over the data.
    RunningMean,
    /// Batch norm's variance over the data.
    RunningVar,
    /// How many batches the two have seen; a whole number.
    NumBatchesTracked,
}

impl Role {
    /// The last part of the tensor's name in a PyTorch state dict.
    pub fn suffix(self) -> &'static str {
        match self {
            Role::Weight => "weight",
            Role::Bias => "bias",
            Role::RunningMean => "running_mean",
            Role::RunningVar => "running_var",
            Role::NumBatchesTracked => "num_batches_tracked",
        }
    }

    /// Whether it is learned; the others are statistics, kept apart from the weights.
    pub fn is_parameter(self) -> bool {
        matches!(self, Role::Weight | Role::Bias)
    }
}
