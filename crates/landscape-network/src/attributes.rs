//! A step's attributes as its kernel's shape struct.

use crate::step::{Program, Step};
use landscape_core::Seed;
use landscape_graph as graph;
use landscape_graph::Op;
use landscape_kernels::activation::Gelu;
use landscape_kernels::batch_norm::BatchNormShape;
use landscape_kernels::conv2d::Conv2dShape;
use landscape_kernels::dropout::DropoutMask;
use landscape_kernels::linear::LinearShape;
use landscape_kernels::pool::{AdaptiveShape, Padding, PoolShape};

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

pub(crate) fn linear_shape(program: &Program, step: &Step, n: usize) -> LinearShape {
    LinearShape { n_rows: n, in_features: input_shape(program, step)[0], out_features: step.shape[0], precision: program.precision }
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

/// Channels of each input of a concatenation.
pub(crate) fn concat_widths(program: &Program, step: &Step) -> Vec<usize> {
    step.inputs.iter().map(|&input| program.steps[input].shape[0]).collect()
}

/// Whether a flatten moves nothing: channels last and channels first are the same for images of one pixel or one channel.
pub(crate) fn is_plain_flatten(program: &Program, step: &Step) -> bool {
    let [c, h, w] = input_shape(program, step);
    c == 1 || h * w == 1
}
