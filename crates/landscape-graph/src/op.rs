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

/// What the numbers of an input are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// Any numbers.
    #[default]
    Float,
    /// Whole numbers from 0, such as tokens: what an embedding looks up. They are handed over as floating-point numbers, which hold
    /// them exactly (up to 2^24 in single precision).
    Int,
}

/// How the weight of a linear map lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightOrder {
    /// `[out_features, in_features]`: PyTorch's `Linear`.
    #[default]
    OutIn,
    /// `[in_features, out_features]`: Hugging Face's `Conv1D`, of GPT-2.
    InOut,
}

/// Which number of a head turns with which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeStyle {
    /// i with i + rotary_dim/2: Llama and GPT-NeoX.
    Half,
    /// 2i with 2i + 1: GPT-J.
    Interleaved,
}

/// How an image is made larger or smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upsampling {
    /// The nearest pixel.
    Nearest,
    /// Between the four nearest pixels; the images' corners lie on each other.
    Bilinear,
    /// Between the four nearest pixels; the centres of the corner pixels lie on each other (PyTorch's `align_corners`).
    BilinearAlignCorners,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One op of a network. Pairs of numbers are `[height, width]`; axes are counted without the batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Where a part of the example comes in. Inputs stand before all other nodes.
    Input {
        /// What its numbers are.
        #[serde(default, skip_serializing_if = "is_default")]
        dtype: Dtype,
    },
    /// y = W x + b along the last axis.
    Linear {
        /// The length of x.
        in_features: usize,
        /// The length of y.
        out_features: usize,
        /// Whether there is a b.
        bias: bool,
        /// How W lies in the file.
        #[serde(default, skip_serializing_if = "is_default")]
        weight_order: WeightOrder,
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
    /// The same over a signal `[channels, length]`; the weight is `[out_channels, in_channels / groups, kernel_size]`.
    Conv1d {
        /// Channels in.
        in_channels: usize,
        /// Channels out.
        out_channels: usize,
        /// The window.
        kernel_size: usize,
        /// The step between windows.
        stride: usize,
        /// Zeros on each side.
        padding: usize,
        /// The step between the taps of one window.
        dilation: usize,
        /// Into how many groups the channels fall that do not see each other.
        groups: usize,
        /// Whether a constant per channel is added.
        bias: bool,
    },
    /// The transpose of a convolution, as a map; the weight is `[in_channels, out_channels / groups, height, width]`.
    ConvTranspose2d {
        /// Channels in.
        in_channels: usize,
        /// Channels out.
        out_channels: usize,
        /// The window.
        kernel_size: [usize; 2],
        /// The step between windows, in the result.
        stride: [usize; 2],
        /// Rows and columns of the result that are cut off on each side.
        padding: [usize; 2],
        /// Rows and columns added to the result at the end.
        output_padding: [usize; 2],
        /// The step between the taps of one window.
        dilation: [usize; 2],
        /// Into how many groups the channels fall that do not see each other.
        groups: usize,
        /// Whether a constant per channel is added.
        bias: bool,
    },
    /// Normalisation per channel (the first axis) over batch and places.
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
    /// Normalisation of each example over its last axes.
    LayerNorm {
        /// The lengths of those axes.
        normalized_shape: Vec<usize>,
        /// Added to the variance.
        eps: f64,
        /// Whether a learned factor per number follows.
        elementwise_affine: bool,
        /// Whether a learned constant per number follows as well; only with the factor.
        bias: bool,
    },
    /// Division by the root of the mean square over the last axes.
    RmsNorm {
        /// The lengths of those axes.
        normalized_shape: Vec<usize>,
        /// Added to the mean square.
        eps: f64,
        /// Whether a learned factor per number follows.
        elementwise_affine: bool,
    },
    /// Normalisation of each example over groups of channels and all places.
    GroupNorm {
        /// Into how many groups the channels fall.
        num_groups: usize,
        /// The channels, which are the first axis.
        num_channels: usize,
        /// Added to the variance.
        eps: f64,
        /// Whether a learned factor and constant per channel follow.
        affine: bool,
    },
    /// A row of the weight for each whole number: `[...]` to `[..., embedding_dim]`. Reads an input of [`Dtype::Int`].
    Embedding {
        /// How many rows.
        num_embeddings: usize,
        /// How long they are.
        embedding_dim: usize,
    },
    /// softmax(scale · q kᵀ) v, head by head: q `[heads, q_len, head_dim]`, k `[kv_heads, kv_len, head_dim]`,
    /// v `[kv_heads, kv_len, v_dim]` to `[heads, q_len, v_dim]`. With fewer heads in k and v, neighbours of q share one.
    Attention {
        /// Whether place i sees places up to i alone.
        causal: bool,
        /// The factor; PyTorch's default is 1/√head_dim.
        scale: f64,
    },
    /// Rotary position embedding of `[heads, len, head_dim]`: pair i at place t turns by t · base^(−2i/rotary_dim).
    Rope {
        /// The base.
        base: f64,
        /// How many numbers of a head turn, from its first.
        rotary_dim: usize,
        /// Which turn together.
        style: RopeStyle,
    },
    /// The product of matrices, `[..., m, k]` and `[..., k, n]` to `[..., m, n]`.
    Matmul,
    /// exp(x_i) / Σ_j exp(x_j) along an axis.
    Softmax {
        /// The axis.
        dim: usize,
    },
    /// max(x, 0).
    Relu,
    /// The Gaussian error linear unit.
    Gelu {
        /// The formula.
        approximate: Gelu,
    },
    /// x · sigmoid(x).
    Silu,
    /// 1 / (1 + exp(−x)).
    Sigmoid,
    /// x · min(max(x + 3, 0), 6) / 6.
    Hardswish,
    /// min(max(x + 3, 0), 6) / 6.
    Hardsigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// x where it is positive, else a multiple of it.
    LeakyRelu {
        /// The factor.
        negative_slope: f64,
    },
    /// min(max(x, min_val), max_val); `ReLU6` is the one from 0 to 6.
    Hardtanh {
        /// The least value.
        min_val: f64,
        /// The greatest value.
        max_val: f64,
    },
    /// x where it is positive, else alpha · (exp(x) − 1).
    Elu {
        /// The factor.
        alpha: f64,
    },
    /// log(1 + exp(x)).
    Softplus,
    /// exp(x).
    Exp,
    /// scale · x + shift with constant numbers.
    Affine {
        /// The factor.
        scale: f64,
        /// What is added.
        shift: f64,
    },
    /// x to a constant power.
    Power {
        /// The exponent.
        exponent: f64,
    },
    /// The sum of two inputs; axes of length 1, or that one input does not have in front, are repeated.
    Add,
    /// The product, number by number, of two inputs; axes are repeated as in [`Op::Add`].
    Multiply,
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
    /// The mean over neighbouring axes.
    Mean {
        /// The first axis.
        start_dim: usize,
        /// The last axis.
        end_dim: usize,
        /// Whether they stay, of length 1.
        keepdim: bool,
    },
    /// An image of another size.
    Upsample {
        /// Its size.
        size: [usize; 2],
        /// Where its numbers come from.
        method: Upsampling,
    },
    /// All of the example in one axis, in the order of the axes.
    Flatten,
    /// The same numbers in the same order under other axes.
    Reshape {
        /// Their lengths.
        shape: Vec<usize>,
    },
    /// Axes in another order: axis i of the result is axis dims\[i\].
    Permute {
        /// The order.
        dims: Vec<usize>,
    },
    /// Axes of length 1 repeated, and new ones in front.
    Expand {
        /// The result's shape.
        shape: Vec<usize>,
    },
    /// The places start, start + step, ... below end of an axis.
    Slice {
        /// The axis.
        dim: usize,
        /// The first place.
        start: usize,
        /// Behind the last place.
        end: usize,
        /// From one place to the next.
        step: usize,
    },
    /// The inputs one after the other along an axis.
    Concat {
        /// The axis; the first, which is channels or features, unless said.
        #[serde(default, skip_serializing_if = "is_default")]
        dim: usize,
    },
    /// A learned tensor as it is, the same for every example; it has the node's name.
    Parameter {
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Numbers that are part of the network, the same for every example.
    Constant {
        /// Their shape.
        shape: Vec<usize>,
        /// The numbers, row-major.
        values: Vec<f64>,
    },
}

impl Op {
    /// The names of all ops, as a graph's JSON spells them.
    pub const NAMES: [&'static str; 45] = [
        "input",
        "linear",
        "conv2d",
        "conv1d",
        "conv_transpose2d",
        "batch_norm",
        "layer_norm",
        "rms_norm",
        "group_norm",
        "embedding",
        "attention",
        "rope",
        "matmul",
        "softmax",
        "relu",
        "gelu",
        "silu",
        "sigmoid",
        "hardswish",
        "hardsigmoid",
        "tanh",
        "leaky_relu",
        "hardtanh",
        "elu",
        "softplus",
        "exp",
        "affine",
        "power",
        "add",
        "multiply",
        "dropout",
        "max_pool2d",
        "avg_pool2d",
        "adaptive_avg_pool2d",
        "global_avg_pool",
        "mean",
        "upsample",
        "flatten",
        "reshape",
        "permute",
        "expand",
        "slice",
        "concat",
        "parameter",
        "constant",
    ];

    /// The name, as a graph's JSON spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Linear { .. } => "linear",
            Op::Conv2d { .. } => "conv2d",
            Op::Conv1d { .. } => "conv1d",
            Op::ConvTranspose2d { .. } => "conv_transpose2d",
            Op::BatchNorm { .. } => "batch_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::RmsNorm { .. } => "rms_norm",
            Op::GroupNorm { .. } => "group_norm",
            Op::Embedding { .. } => "embedding",
            Op::Attention { .. } => "attention",
            Op::Rope { .. } => "rope",
            Op::Matmul => "matmul",
            Op::Softmax { .. } => "softmax",
            Op::Relu => "relu",
            Op::Gelu { .. } => "gelu",
            Op::Silu => "silu",
            Op::Sigmoid => "sigmoid",
            Op::Hardswish => "hardswish",
            Op::Hardsigmoid => "hardsigmoid",
            Op::Tanh => "tanh",
            Op::LeakyRelu { .. } => "leaky_relu",
            Op::Hardtanh { .. } => "hardtanh",
            Op::Elu { .. } => "elu",
            Op::Softplus => "softplus",
            Op::Exp => "exp",
            Op::Affine { .. } => "affine",
            Op::Power { .. } => "power",
            Op::Add => "add",
            Op::Multiply => "multiply",
            Op::Dropout { .. } => "dropout",
            Op::MaxPool2d { .. } => "max_pool2d",
            Op::AvgPool2d { .. } => "avg_pool2d",
            Op::AdaptiveAvgPool2d { .. } => "adaptive_avg_pool2d",
            Op::GlobalAvgPool => "global_avg_pool",
            Op::Mean { .. } => "mean",
            Op::Upsample { .. } => "upsample",
            Op::Flatten => "flatten",
            Op::Reshape { .. } => "reshape",
            Op::Permute { .. } => "permute",
            Op::Expand { .. } => "expand",
            Op::Slice { .. } => "slice",
            Op::Concat { .. } => "concat",
            Op::Parameter { .. } => "parameter",
            Op::Constant { .. } => "constant",
        }
    }

    /// The fields of an op that a file may leave out, where they have their usual value.
    pub(crate) fn optional_fields(&self) -> &'static [&'static str] {
        match self {
            Op::Input { .. } => &["dtype"],
            Op::Linear { .. } => &["weight_order"],
            Op::Concat { .. } => &["dim"],
            _ => &[],
        }
    }

    /// The tensors the op owns, parameters first, then statistics, in PyTorch's order.
    ///
    /// # Shapes
    /// A scalar such as `num_batches_tracked` has the shape `[]`.
    pub fn tensors(&self) -> Vec<(Role, Vec<usize>)> {
        let mut tensors = Vec::new();
        let mut layer = |weight: Vec<usize>, bias: Option<usize>| {
            tensors.push((Role::Weight, weight));
            tensors.extend(bias.map(|len| (Role::Bias, vec![len])));
        };
        match self {
            &Op::Linear { in_features, out_features, bias, weight_order } => {
                let weight = match weight_order {
                    WeightOrder::OutIn => vec![out_features, in_features],
                    WeightOrder::InOut => vec![in_features, out_features],
                };
                layer(weight, bias.then_some(out_features));
            }
            &Op::Conv2d { in_channels, out_channels, kernel_size: [height, width], groups, bias, .. } => {
                layer(vec![out_channels, in_channels / groups.max(1), height, width], bias.then_some(out_channels));
            }
            &Op::Conv1d { in_channels, out_channels, kernel_size, groups, bias, .. } => {
                layer(vec![out_channels, in_channels / groups.max(1), kernel_size], bias.then_some(out_channels));
            }
            &Op::ConvTranspose2d { in_channels, out_channels, kernel_size: [height, width], groups, bias, .. } => {
                layer(vec![in_channels, out_channels / groups.max(1), height, width], bias.then_some(out_channels));
            }
            &Op::BatchNorm { num_features, affine, .. } => {
                if affine {
                    layer(vec![num_features], Some(num_features));
                }
                tensors.extend([
                    (Role::RunningMean, vec![num_features]),
                    (Role::RunningVar, vec![num_features]),
                    (Role::NumBatchesTracked, vec![]),
                ]);
            }
            Op::LayerNorm { normalized_shape, elementwise_affine: true, bias, .. } => {
                let roles = [Role::Weight, Role::Bias];
                tensors.extend(roles[..1 + usize::from(*bias)].iter().map(|&role| (role, normalized_shape.clone())));
            }
            Op::RmsNorm { normalized_shape, elementwise_affine: true, .. } => layer(normalized_shape.clone(), None),
            &Op::GroupNorm { num_channels, affine: true, .. } => layer(vec![num_channels], Some(num_channels)),
            &Op::Embedding { num_embeddings, embedding_dim } => layer(vec![num_embeddings, embedding_dim], None),
            Op::Parameter { shape } => tensors.push((Role::Parameter, shape.clone())),
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
    /// A learned tensor that is a node of its own.
    Parameter,
}

impl Role {
    /// The last part of the tensor's name in a PyTorch state dict; none for a tensor that is a node of its own.
    pub fn suffix(self) -> Option<&'static str> {
        match self {
            Role::Weight => Some("weight"),
            Role::Bias => Some("bias"),
            Role::RunningMean => Some("running_mean"),
            Role::RunningVar => Some("running_var"),
            Role::NumBatchesTracked => Some("num_batches_tracked"),
            Role::Parameter => None,
        }
    }

    /// Whether it is learned; the others are statistics, kept apart from the weights.
    pub fn is_parameter(self) -> bool {
        matches!(self, Role::Weight | Role::Bias | Role::Parameter)
    }
}
