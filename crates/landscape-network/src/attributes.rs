//! A step's attributes as its kernel's shape struct.

use crate::lower::operand_dims;
use crate::step::{Program, Step};
use landscape_core::Seed;
use landscape_graph as graph;
use landscape_graph::{Op, WeightOrder};
use landscape_kernels::activation::{Gelu, Pointwise};
use landscape_kernels::attention::{AttentionShape, Mask};
use landscape_kernels::batch_norm::BatchNormShape;
use landscape_kernels::broadcast::BroadcastShape;
use landscape_kernels::conv2d::Conv2dShape;
use landscape_kernels::dropout::DropoutMask;
use landscape_kernels::embedding::EmbeddingShape;
use landscape_kernels::group_norm::GroupNormShape;
use landscape_kernels::layer_norm::LayerNormShape;
use landscape_kernels::linear::LinearShape;
use landscape_kernels::matmul::MatmulShape;
use landscape_kernels::pool::{AdaptiveShape, Padding, PoolShape};
use landscape_kernels::rope::{RopeShape, RopeStyle};
use landscape_kernels::shape::SliceShape;
use landscape_kernels::upsample::{UpsampleShape, Upsampling};

/// Channels, height and width of what a step reads first.
pub(crate) fn input_shape(program: &Program, step: &Step) -> [usize; 3] {
    program.steps[step.inputs[0]].shape
}

/// The shape of a convolution over `n` examples; `None` for other ops.
pub(crate) fn conv2d_shape(program: &Program, step: &Step, n: usize) -> Option<Conv2dShape> {
    let Op::Conv2d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, .. } = step.op else {
        return None;
    };
    let [_, h, w] = input_shape(program, step);
    Some(Conv2dShape {
        n,
        in_channels,
        in_size: [h, w],
        out_channels,
        kernel_size,
        stride,
        padding,
        dilation,
        groups,
        precision: program.precision,
    })
}

/// The convolution whose transpose a step is: from the step's result to what it reads; `None` for other ops.
pub(crate) fn transposed_shape(program: &Program, step: &Step, n: usize) -> Option<Conv2dShape> {
    let Op::ConvTranspose2d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, .. } = step.op else {
        return None;
    };
    let [_, h, w] = step.shape;
    Some(Conv2dShape {
        n,
        in_channels: out_channels,
        in_size: [h, w],
        out_channels: in_channels,
        kernel_size,
        stride,
        padding,
        dilation,
        groups,
        precision: program.precision,
    })
}

/// Rows and columns of the weight of a linear layer that lies transposed in the file, as the kernels want it.
pub(crate) fn transposed_weight(step: &Step) -> Option<[usize; 2]> {
    match step.op {
        Op::Linear { in_features, out_features, weight_order: WeightOrder::InOut, .. } => Some([out_features, in_features]),
        _ => None,
    }
}

pub(crate) fn linear_shape(program: &Program, step: &Step, n: usize) -> LinearShape {
    let Op::Linear { in_features, out_features, .. } = step.op else { unreachable!("only linear layers ask for their shape") };
    LinearShape { n_rows: n * step.n_elements() / out_features, in_features, out_features, precision: program.precision }
}

/// Rows and their length of a normalisation over the last axes.
pub(crate) fn row_norm_shape(step: &Step, normalized_shape: &[usize], n: usize) -> LayerNormShape {
    let len = normalized_shape.iter().product();
    LayerNormShape { n_rows: n * step.n_elements() / len, len }
}

pub(crate) fn group_norm_shape(step: &Step, num_groups: usize, n: usize) -> GroupNormShape {
    let [channels, h, w] = step.shape;
    GroupNormShape { n, pixels: h * w, channels, groups: num_groups }
}

pub(crate) fn embedding_shape(step: &Step, n: usize) -> EmbeddingShape {
    let Op::Embedding { num_embeddings, embedding_dim } = step.op else { unreachable!("only embeddings ask for their shape") };
    EmbeddingShape { n_tokens: n * step.n_elements() / embedding_dim, num_embeddings, embedding_dim }
}

pub(crate) fn attention_shape(program: &Program, step: &Step, n: usize) -> AttentionShape {
    let Op::Attention { causal, scale } = step.op else { unreachable!("only attention asks for its shape") };
    let [q, k] = [0, 1].map(|input| &program.steps[step.inputs[input]].dims);
    AttentionShape {
        n,
        q_len: q[1],
        kv_len: k[1],
        heads: q[0],
        kv_heads: k[0],
        head_dim: q[2],
        v_dim: step.dims[2],
        mask: if causal { Mask::Causal } else { Mask::None },
        scale,
    }
}

pub(crate) fn rope_shape(step: &Step, n: usize) -> RopeShape {
    let Op::Rope { base, rotary_dim, style } = step.op else { unreachable!("only rotary embeddings ask for their shape") };
    let style = match style {
        graph::RopeStyle::Half => RopeStyle::Half,
        graph::RopeStyle::Interleaved => RopeStyle::Interleaved,
    };
    RopeShape { n_rows: n, len: step.dims[1], heads: step.dims[0], head_dim: step.dims[2], rotary_dim, base, style }
}

pub(crate) fn matmul_shape(program: &Program, step: &Step, n: usize) -> MatmulShape {
    let a = &program.steps[step.inputs[0]].dims;
    let [m, k] = [a[a.len() - 2], a[a.len() - 1]];
    let cols = step.dims[step.dims.len() - 1];
    MatmulShape { n: n * step.n_elements() / (m * cols), m, k, cols }
}

pub(crate) fn upsample_shape(program: &Program, step: &Step, n: usize) -> UpsampleShape {
    let Op::Upsample { size, method } = step.op else { unreachable!("only upsampling asks for its shape") };
    let [channels, h, w] = input_shape(program, step);
    let method = match method {
        graph::Upsampling::Nearest => Upsampling::Nearest,
        graph::Upsampling::Bilinear => Upsampling::Bilinear { align_corners: false },
        graph::Upsampling::BilinearAlignCorners => Upsampling::Bilinear { align_corners: true },
    };
    UpsampleShape { n, channels, in_size: [h, w], out_size: size, method }
}

/// The axes of a sum or product and of its operands.
pub(crate) fn broadcast_shape(program: &Program, step: &Step, n: usize) -> BroadcastShape {
    let operand = |input: usize| operand_dims(program, step, step.inputs[input], n);
    BroadcastShape { dims: [&[n], step.stored_dims().as_slice()].concat(), a: operand(0), b: operand(1) }
}

/// The same of a result that repeats what it reads: a sum with one zero.
pub(crate) fn expand_shape(program: &Program, step: &Step, n: usize) -> BroadcastShape {
    let dims = [&[n], step.stored_dims().as_slice()].concat();
    BroadcastShape { a: operand_dims(program, step, step.inputs[0], n), b: vec![1; dims.len()], dims }
}

/// The lengths, as they are stored, of what a permutation reads, and which of its axes each axis of the result is; the batch first.
pub(crate) fn permutation(program: &Program, step: &Step, dims: &[usize], n: usize) -> (Vec<usize>, Vec<usize>) {
    let input = &program.steps[step.inputs[0]];
    let place = |axis: usize| input.order.iter().position(|&at| at == axis).expect("an order has every axis");
    let lens = [&[n], input.stored_dims().as_slice()].concat();
    (lens, std::iter::once(0).chain(step.order.iter().map(|&axis| 1 + place(dims[axis]))).collect())
}

/// How often an axis of `step`'s result comes, batch included, and how many numbers stand behind it.
pub(crate) fn around(step: &Step, dim: usize, n: usize) -> (usize, usize) {
    let place = step.order.iter().position(|&axis| axis == dim).expect("an order has every axis");
    let stored = step.stored_dims();
    (n * stored[..place].iter().product::<usize>(), stored[place + 1..].iter().product())
}

pub(crate) fn slice_shape(program: &Program, step: &Step, n: usize) -> SliceShape {
    let Op::Slice { dim, start, step: stride, .. } = step.op else { unreachable!("only slices ask for their shape") };
    let input = &program.steps[step.inputs[0]];
    let (outer, inner) = around(input, dim, n);
    SliceShape { outer, axis: input.dims[dim], inner, start, step: stride, len: step.dims[dim] }
}

/// Rows of a concatenation, and how many numbers of each row every input gives.
pub(crate) fn concat_rows(program: &Program, step: &Step, n: usize) -> (usize, Vec<usize>) {
    let Op::Concat { dim } = step.op else { unreachable!("only concatenations ask for their rows") };
    let (outer, inner) = around(step, dim, n);
    (outer, step.inputs.iter().map(|&input| program.steps[input].dims[dim] * inner).collect())
}

/// What stands before, in and behind the axes that a mean is over.
pub(crate) fn mean_axes(program: &Program, step: &Step, n: usize) -> [usize; 3] {
    let Op::Mean { start_dim, end_dim, .. } = step.op else { unreachable!("only means ask for their axes") };
    let input = &program.steps[step.inputs[0]];
    let len = input.dims[start_dim..=end_dim].iter().product::<usize>();
    let first = input.order.iter().position(|axis| (start_dim..=end_dim).contains(axis)).expect("an order has every axis");
    let outer = n * input.stored_dims()[..first].iter().product::<usize>();
    [outer, len, n * input.n_elements() / (outer * len)]
}

/// The kernel of an op on each number alone, if it is one of those that yield a number from what they read.
pub(crate) fn pointwise(op: &Op) -> Option<Pointwise> {
    Some(match *op {
        Op::Silu => Pointwise::Silu,
        Op::Sigmoid => Pointwise::Sigmoid,
        Op::Hardswish => Pointwise::HardSwish,
        Op::Hardsigmoid => Pointwise::HardSigmoid,
        Op::Tanh => Pointwise::Tanh,
        Op::LeakyRelu { negative_slope } => Pointwise::LeakyRelu { negative_slope },
        Op::Hardtanh { min_val, max_val } => Pointwise::HardTanh { min_val, max_val },
        Op::Elu { alpha } => Pointwise::Elu { alpha },
        Op::Softplus => Pointwise::Softplus,
        Op::Exp => Pointwise::Exp,
        Op::Affine { scale, shift } => Pointwise::Affine { scale, shift },
        Op::Power { exponent } => Pointwise::Power { exponent },
        _ => return None,
    })
}

pub(crate) fn norm_shape(step: &Step, n: usize) -> BatchNormShape {
    let [channels, h, w] = step.shape;
    BatchNormShape { n_rows: n * h * w, channels }
}

/// The window of a max or average pooling.
pub(crate) fn pool_shape(program: &Program, step: &Step, n: usize) -> PoolShape {
    let [channels, h, w] = input_shape(program, step);
    let (Op::MaxPool2d { kernel_size, stride, padding } | Op::AvgPool2d { kernel_size, stride, padding, .. }) = step.op else {
        unreachable!("only poolings with a window ask for one")
    };
    PoolShape { n, channels, in_size: [h, w], kernel_size, stride, padding }
}

/// The sizes of an adaptive or global average pooling.
pub(crate) fn adaptive_shape(program: &Program, step: &Step, n: usize) -> AdaptiveShape {
    let [channels, h, w] = input_shape(program, step);
    AdaptiveShape { n, channels, in_size: [h, w], out_size: [step.shape[1], step.shape[2]] }
}

pub(crate) fn average_padding(count_include_pad: bool) -> Padding {
    if count_include_pad { Padding::Counted } else { Padding::NotCounted }
}

pub(crate) fn gelu(approximate: graph::Gelu) -> Gelu {
    match approximate {
        graph::Gelu::None => Gelu::Erf,
        graph::Gelu::Tanh => Gelu::Tanh,
    }
}

/// The mask of a dropout in a pass: a function of the pass's seed, the node's name, and the position of example and feature.
pub(crate) fn dropout_mask(step: &Step, p: f64, dropout_seed: Option<u64>) -> Option<DropoutMask> {
    dropout_seed.map(|seed| DropoutMask { p, seed: Seed::new(seed).child(&step.name).value(), first_idx: 0 })
}
