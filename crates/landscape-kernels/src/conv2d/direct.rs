//! Direct convolution for `f32` on AVX-512: no columns, only a copy of a few images with their zero border.
//!
//! A block of 12 output pixels times one or two vectors of 16 output channels stays in registers while all taps and input
//! channels pass: per input channel one load per vector and one broadcast per pixel. Pixels are found by a list of offsets, so any
//! stride and dilation is the same loop, and blocks run across rows and images. The weight gradient is the same idea with the input
//! channels in place of the pixels. Weights are reordered into blocks of at most 64 input channels, which fit in the cache.
//!
//! Each output is summed in one order (blocks of inputs, taps, inputs) wherever its pixel falls in a block, so bits depend on neither
//! the batch nor the threads.

use super::shape::Conv2dShape;
use super::{n_weight_partials, sum_partials};
use crate::memory::{Accumulate, Real};
use crate::parallel::n_splits;
use crate::simd::{Level, as_f32, as_f32_mut, level};
use rayon::prelude::*;
use std::any::TypeId;
use std::ops::Range;

/// Numbers of a vector.
const LANES: usize = 16;
/// Input channels of a block of weights.
const INPUTS: usize = 64;
/// Elements of the padded images that one group of images aims at, so that they stay in the second-level cache.
const GROUP: usize = 48 * 1024;
/// Elements of a padded image above which columns are used, which cut an image into rows.
const MAX_IMAGE: usize = 256 * 1024;
/// Elements behind the images that a block may read without using them.
const SLACK: usize = 32;

/// Where the weights come from.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a, T> {
    /// Packed for this convolution.
    Packed(&'a [T]),
    /// Packed for the convolution whose input gradient this is: taps flipped, channels exchanged.
    Flipped(&'a [T]),
}

/// Whether the shape suits the direct kernel; says nothing about the processor.
pub(super) fn fits(s: &Conv2dShape) -> bool {
    s.groups == 1 && !s.is_pointwise() && Padded::new(s).image_len <= MAX_IMAGE
}

/// Whether the direct kernel is the way to compute this convolution here.
pub(super) fn applies<T: Real>(s: &Conv2dShape) -> bool {
    TypeId::of::<T>() == TypeId::of::<f32>() && level() == Level::Avx512 && s.out_channels >= LANES / 2 && fits(s)
}

/// Elements of scratch memory for the three functions; the input gradient has a shape of its own.
pub(super) fn scratch_len(s: &Conv2dShape) -> usize {
    let forward = |s: &Conv2dShape| {
        let padded = Padded::new(s);
        block_width(s) * s.out_channels.div_ceil(block_width(s)) * s.k() + padded.splits() * padded.buffer_len()
    };
    let padded = Padded::new(s);
    let weight = n_weight_partials(s, padded.splits()) * (padded.buffer_len() + s.weight_len());
    let transposed = s.transposed().filter(fits).map_or(0, |t| forward(&t));
    forward(s).max(weight).max(transposed) + LANES
}

/// Output channels of a block: one or two vectors.
fn block_width(s: &Conv2dShape) -> usize {
    if s.out_channels <= LANES { LANES } else { 2 * LANES }
}

/// Images with a border of zeros, and how many of them are worked on together.
struct Padded {
    size: [usize; 2],
    image_len: usize,
    /// Images of a group.
    images: usize,
    n_groups: usize,
}

impl Padded {
    fn new(s: &Conv2dShape) -> Self {
        let size = [0, 1].map(|d| s.in_size[d] + 2 * s.padding[d]);
        let image_len = size[0] * size[1] * s.in_channels;
        let [height, width] = s.out_size();
        let images = (GROUP / image_len).max(96_usize.div_ceil(height * width)).clamp(1, s.n.max(1));
        Padded { size, image_len, images, n_groups: s.n.div_ceil(images) }
    }

    fn splits(&self) -> usize {
        n_splits(self.n_groups, 1)
    }

    /// Elements of one group, a multiple of the vector length.
    fn buffer_len(&self) -> usize {
        (self.images * self.image_len + SLACK).next_multiple_of(LANES)
    }

    /// Where the first tap of every output pixel of a group lies.
    fn pixel_offsets(&self, s: &Conv2dShape) -> Vec<usize> {
        let [height, width] = s.out_size();
        let mut offsets = Vec::with_capacity(self.images * height * width);
        for image in 0..self.images {
            for i in 0..height {
                let line = image * self.image_len + i * s.stride[0] * self.size[1] * s.in_channels;
                offsets.extend((0..width).map(|j| line + j * s.stride[1] * s.in_channels));
            }
        }
        offsets
    }

    /// Copies images into the buffer with their border.
    fn fill(&self, s: &Conv2dShape, x: &[f32], images: Range<usize>, buffer: &mut [f32]) {
        let (row, padded_row) = (s.in_size[1] * s.in_channels, self.size[1] * s.in_channels);
        let left = s.padding[1] * s.in_channels;
        for (image, out) in images.zip(buffer.chunks_exact_mut(self.image_len)) {
            let x = &x[image * s.in_size[0] * row..(image + 1) * s.in_size[0] * row];
            let (top, rest) = out.split_at_mut(s.padding[0] * padded_row);
            let (middle, bottom) = rest.split_at_mut(s.in_size[0] * padded_row);
            top.fill(0.0);
            bottom.fill(0.0);
            for (out, x) in middle.chunks_exact_mut(padded_row).zip(x.chunks_exact(row)) {
                out[..left].fill(0.0);
                out[left..left + row].copy_from_slice(x);
                out[left + row..].fill(0.0);
            }
        }
    }
}

/// Numbers that lie next to each other in the padded image and in the weight.
#[derive(Clone, Copy)]
struct Run {
    offset: usize,
    len: usize,
}

/// A block of input channels: where its weights start (for one output channel), and its runs.
struct InputBlock {
    weight: usize,
    runs: Vec<Run>,
}

/// The runs of every block of at most `max_inputs` input channels.
fn input_blocks(s: &Conv2dShape, padded: &Padded, max_inputs: usize) -> Vec<InputBlock> {
    let c = s.in_channels;
    let tap = |r: usize, t: usize| (r * s.dilation[0] * padded.size[1] + t * s.dilation[1]) * c;
    let [kh, kw] = s.kernel_size;
    (0..c)
        .step_by(max_inputs)
        .map(|first| {
            let len = max_inputs.min(c - first);
            let runs = if len == c && s.dilation[1] == 1 {
                (0..kh).map(|r| Run { offset: tap(r, 0), len: kw * c }).collect()
            } else {
                (0..kh).flat_map(|r| (0..kw).map(move |t| (r, t))).map(|(r, t)| Run { offset: tap(r, t) + first, len }).collect()
            };
            InputBlock { weight: first * s.n_taps(), runs }
        })
        .collect()
}

/// Brings the weights into the order `[block of outputs][block of inputs][tap][input][output of the block]`, zeros for missing outputs.
fn reorder(s: &Conv2dShape, weights: Weights<'_, f32>, out: &mut [f32]) {
    let (taps, inputs, outputs, width) = (s.n_taps(), s.in_channels, s.out_channels, block_width(s));
    out.par_chunks_exact_mut(width * taps * inputs).enumerate().for_each(|(block, out)| {
        let first_output = block * width;
        let n = width.min(outputs - first_output);
        let mut rows = out.chunks_exact_mut(width);
        for first in (0..inputs).step_by(INPUTS) {
            for tap in 0..taps {
                for (i, row) in (first..inputs.min(first + INPUTS)).zip(rows.by_ref()) {
                    row[n..].fill(0.0);
                    match weights {
                        Weights::Packed(w) => row[..n].copy_from_slice(&w[(tap * inputs + i) * outputs + first_output..][..n]),
                        Weights::Flipped(w) => {
                            let from = ((taps - 1 - tap) * outputs + first_output) * inputs + i;
                            row[..n].iter_mut().enumerate().for_each(|(o, v)| *v = w[from + o * inputs]);
                        }
                    }
                }
            }
        }
    });
}

/// `scratch` from its first address that is a multiple of 64 bytes.
fn aligned(scratch: &mut [f32]) -> &mut [f32] {
    let skip = scratch.as_ptr().align_offset(64).min(LANES);
    &mut scratch[skip..]
}

/// y = x ∗ w + bias, or y += x ∗ w (then without bias). `T` must be `f32` and the processor have AVX-512 ([`applies`]).
pub(super) fn forward<T: Real>(
    s: &Conv2dShape,
    x: &[T],
    weights: Weights<'_, T>,
    bias: Option<&[T]>,
    y: &mut [T],
    mode: Accumulate,
    scratch: &mut [T],
) {
    const CHECKED: &str = "the direct convolution is chosen for f32 only";
    let weights = match weights {
        Weights::Packed(w) => Weights::Packed(as_f32(w).expect(CHECKED)),
        Weights::Flipped(w) => Weights::Flipped(as_f32(w).expect(CHECKED)),
    };
    let bias = bias.map(|b| as_f32(b).expect(CHECKED));
    let (x, y) = (as_f32(x).expect(CHECKED), as_f32_mut(y).expect(CHECKED));
    if s.n == 0 {
        return;
    }
    let padded = Padded::new(s);
    let width = block_width(s);
    let n_blocks = s.out_channels.div_ceil(width);
    let (reordered, buffers) = aligned(as_f32_mut(scratch).expect(CHECKED)).split_at_mut(n_blocks * width * s.k());
    reorder(s, weights, reordered);
    let start = match (bias, mode) {
        (Some(bias), _) => {
            let mut wide = bias.to_vec();
            wide.resize(n_blocks * width, 0.0);
            Start::Bias(wide)
        }
        (None, Accumulate::Overwrite) => Start::Bias(vec![0.0; n_blocks * width]),
        (None, Accumulate::Add) => Start::Result,
    };
    let task = Forward { s, offsets: padded.pixel_offsets(s), blocks: input_blocks(s, &padded, INPUTS), weights: reordered, start };
    let image_out = s.out_len() / s.n;
    let images_per_split = padded.n_groups.div_ceil(padded.splits()) * padded.images;
    y.par_chunks_mut(images_per_split * image_out).zip(buffers.par_chunks_mut(padded.buffer_len())).enumerate().for_each(
        |(idx, (y, buffer))| {
            for (group, y) in y.chunks_mut(padded.images * image_out).enumerate() {
                let first = idx * images_per_split + group * padded.images;
                padded.fill(s, x, first..first + y.len() / image_out, buffer);
                kernel::forward(&task, buffer, y);
            }
        },
    );
}

/// What a block of outputs starts from.
enum Start {
    /// The bias, or zeros, for every output channel up to a multiple of the block.
    Bias(Vec<f32>),
    /// What is there already.
    Result,
}

/// All that the groups of images share.
struct Forward<'a> {
    s: &'a Conv2dShape,
    offsets: Vec<usize>,
    blocks: Vec<InputBlock>,
    weights: &'a [f32],
    start: Start,
}

/// The gradient of the packed weight; conditions as for [`forward`].
pub(super) fn backward_weight<T: Real>(s: &Conv2dShape, x: &[T], dy: &[T], dpacked: &mut [T], scratch: &mut [T]) {
    const CHECKED: &str = "the direct convolution is chosen for f32 only";
    let (x, dy) = (as_f32(x).expect(CHECKED), as_f32(dy).expect(CHECKED));
    let dpacked = as_f32_mut(dpacked).expect(CHECKED);
    if s.n == 0 {
        dpacked.fill(0.0);
        return;
    }
    let scratch = aligned(as_f32_mut(scratch).expect(CHECKED));
    let padded = Padded::new(s);
    let offsets = padded.pixel_offsets(s);
    let block = input_blocks(s, &padded, s.in_channels).swap_remove(0);
    let splits = n_weight_partials(s, padded.splits());
    let groups_per_split = padded.n_groups.div_ceil(splits);
    let splits = padded.n_groups.div_ceil(groups_per_split);
    let chunk = padded.buffer_len() + s.weight_len();
    let image_out = s.out_len() / s.n;
    scratch[..splits * chunk].par_chunks_mut(chunk).enumerate().for_each(|(idx, scratch)| {
        let (buffer, partial) = scratch.split_at_mut(padded.buffer_len());
        partial.fill(0.0);
        for group in idx * groups_per_split..((idx + 1) * groups_per_split).min(padded.n_groups) {
            let images = group * padded.images..((group + 1) * padded.images).min(s.n);
            let dy = &dy[images.start * image_out..images.end * image_out];
            padded.fill(s, x, images, buffer);
            kernel::weight_gradient(s, buffer, &offsets, &block.runs, dy, partial);
        }
    });
    sum_partials(scratch, chunk, splits, dpacked);
}

#[cfg(target_arch = "x86_64")]
#[path = "direct_avx512.rs"]
mod kernel;

#[cfg(not(target_arch = "x86_64"))]
mod kernel {
    //! Never called: [`super::applies`] is false without AVX-512.
    use super::{Conv2dShape, Forward, Run};

    pub(super) fn forward(_: &Forward<'_>, _: &[f32], _: &mut [f32]) {
        unreachable!("the direct convolution needs AVX-512");
    }

    pub(super) fn weight_gradient(_: &Conv2dShape, _: &[f32], _: &[usize], _: &[Run], _: &[f32], _: &mut [f32]) {
        unreachable!("the direct convolution needs AVX-512");
    }
}
