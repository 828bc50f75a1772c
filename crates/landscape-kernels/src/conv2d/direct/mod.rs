//! Direct convolution for `f32`, and for pairs in bf16: no columns, only a copy of a few images with their zero border, which the prologue is applied to on
//! the way.
//!
//! A block of output pixels times one or two vectors of output channels stays in registers while all taps and up to 64 input channels
//! pass: per input channel one load per vector and one broadcast per pixel. Pixels are found by a list of offsets, so any stride and
//! dilation is the same loop, and blocks run across rows and images; pixels beside the border leave out the taps that fall outside. More input channels are further passes over the group's outputs,
//! each over a dense copy of its own, because pixels that are a large power of two apart evict each other from the cache. The weight
//! gradient is the same idea with the input channels in place of the pixels. What follows a convolution is done group by group, while
//! the outputs are in the second-level cache.
//!
//! Each output is summed in one order (blocks of inputs, taps, inputs) wherever its pixel falls in a block, so bits depend on neither
//! the batch nor the threads.

mod geometry;
mod taps;
mod vector;
mod weights;
mod outputs;
mod gradient;
#[cfg(target_arch = "x86_64")]
mod bf16;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_bf16.rs"]
mod bf16;

pub(super) use weights::Weights;

use super::rows::Normalizer;
use super::shape::Conv2dShape;
use crate::memory::{Accumulate, Real};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::precision::Precision;
use crate::simd::{as_f32, as_f32_mut};
use bf16::Pairing;
use geometry::{Border, Geometry};
use rayon::prelude::*;
use std::any::TypeId;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Numbers of the longest vector: what the reordered weights are aligned to.
const LANES: usize = 16;
const CHECKED: &str = "the direct convolution is chosen for f32 only";

/// Whether the shape can be computed here.
pub(super) fn fits(s: &Conv2dShape) -> bool {
    s.groups == 1 && Geometry::new(s).fits()
}

/// Elements of scratch memory for the forward convolution.
pub(super) fn forward_scratch_len(s: &Conv2dShape) -> usize {
    let read = as_read(s);
    let geometry = Geometry::new(&read);
    weights::reordered_len(&read) + geometry.splits() * (geometry.copy_len() + image_len(s, &geometry, 2)) + LANES
}

/// Elements of scratch memory for the weight gradient.
pub(super) fn weight_scratch_len(s: &Conv2dShape) -> usize {
    let geometry = Geometry::for_weight(s);
    let n_blocks = s.in_channels.div_ceil(geometry.inputs);
    let partial_len = s.n_taps() * geometry.inputs * s.out_channels;
    let memory_len = geometry.copy_len() + gradient::PACKED + image_len(s, &geometry, 1);
    n_blocks * weight_splits(s, &geometry, n_blocks) * (partial_len + memory_len) + LANES
}

/// The convolution as the copies have it: in bf16 an element is a pair of channels.
fn as_read(s: &Conv2dShape) -> Conv2dShape {
    match s.precision {
        Precision::F32 | Precision::Tf32 => *s,
        Precision::Bf16 => bf16::paired(s),
    }
}

/// Elements of a copy of one image in `f32`, of `times` as many channels as the geometry's blocks have, which bf16 is made from.
fn image_len(s: &Conv2dShape, geometry: &Geometry, times: usize) -> usize {
    match s.precision {
        Precision::F32 | Precision::Tf32 => 0,
        Precision::Bf16 => (geometry.image_pixels() * geometry.inputs * times).next_multiple_of(LANES),
    }
}

/// `scratch` from its first address that is a multiple of 64 bytes.
fn aligned(scratch: &mut [f32]) -> &mut [f32] {
    let skip = scratch.as_ptr().align_offset(64).min(LANES);
    &mut scratch[skip..]
}

/// A forward convolution; `T` must be `f32`, the shape one that [`fits`].
pub(super) struct Forward<'a, T> {
    pub(super) s: &'a Conv2dShape,
    pub(super) x: &'a [T],
    pub(super) normalizer: Option<Normalizer<T>>,
    pub(super) weights: Weights<'a, T>,
    pub(super) bias: Option<&'a [T]>,
    /// With [`Accumulate::Add`] there is no bias.
    pub(super) mode: Accumulate,
}

/// y = x ∗ w + bias, or y += x ∗ w; then `part` of every group of whole images of y, with the place of its first element and what `part`
/// gathered from the groups of the same task before. Returns what the tasks gathered, in order.
pub(super) fn forward<T: Real, R: Default + Send>(
    call: &Forward<'_, T>,
    y: &mut [T],
    scratch: &mut [T],
    part: impl Fn(&mut R, usize, &mut [T]) + Sync,
) -> Vec<R> {
    let s = call.s;
    if s.n == 0 {
        return Vec::new();
    }
    let read = as_read(s);
    let geometry = Geometry::new(&read);
    let (reordered, copies) = aligned(as_f32_mut(scratch).expect(CHECKED)).split_at_mut(weights::reordered_len(&read));
    let weights = match call.weights {
        Weights::Packed(w) => Weights::Packed(as_f32(w).expect(CHECKED)),
        Weights::Flipped(w) => Weights::Flipped(as_f32(w).expect(CHECKED)),
    };
    let blocks = geometry.blocks(&read);
    match s.precision {
        Precision::F32 | Precision::Tf32 => weights::reorder(s, &blocks, outputs::block_width(), weights, reordered),
        Precision::Bf16 => bf16::reorder(s, &blocks, outputs::block_width(), weights, reordered),
    }
    // Groups have so many images or, where the batch does not divide, one fewer; blocks have so many inputs, but for the last.
    let n_pixels = |n_images: usize| n_images * s.out_size().iter().product::<usize>();
    let n_sizes = if s.n.is_multiple_of(geometry.n_groups) { 1 } else { 2 };
    let sizes = (0..n_sizes).map(|fewer| geometry.images - fewer);
    let parts_of = |block: &Range<usize>| sizes.clone().map(|n| geometry.layout(block).parts(&read, n)).collect::<Vec<_>>();
    let mut parts = vec![parts_of(&blocks[0])];
    parts.extend(blocks.last().filter(|last| last.len() != blocks[0].len()).map(parts_of));
    let start = match (call.bias, call.mode) {
        (None, Accumulate::Add) => None,
        (bias, _) => {
            let mut wide = bias.map_or(Vec::new(), |b| as_f32(b).expect(CHECKED).to_vec());
            wide.resize(s.out_channels.next_multiple_of(weights::GRAIN), 0.0);
            Some(wide)
        }
    };
    let x = as_f32(call.x).expect(CHECKED);
    let n_splits = geometry.splits();
    let memory_len = geometry.copy_len() + image_len(s, &geometry, 2);
    let copies = Mutex::new(copies.chunks_exact_mut(memory_len).take(n_splits).collect::<Vec<_>>());
    let (image_in, image_out) = (s.in_len() / s.n, s.out_len() / s.n);
    let mut rest = y;
    let mut tasks = Vec::with_capacity(n_splits);
    for split in 0..n_splits {
        let groups = geometry.groups_of(split, n_splits);
        let n_images: usize = groups.clone().map(|g| geometry.images_of(s, g).len()).sum();
        let (y, behind) = std::mem::take(&mut rest).split_at_mut(n_images * image_out);
        rest = behind;
        tasks.push((groups, y));
    }
    tasks
        .into_par_iter()
        .map(|(groups, mut y)| {
            let memory = take(&copies);
            let (copy, image) = memory.split_at_mut(geometry.copy_len());
            let (mut border, mut filled) = (Border::Missing, 0);
            let mut gathered = R::default();
            for group in groups {
                let images = geometry.images_of(s, group);
                let (out, behind) = std::mem::take(&mut y).split_at_mut(images.len() * image_out);
                y = behind;
                let mut k_before = 0;
                for (idx, block) in blocks.iter().enumerate() {
                    // Zeros lie elsewhere around a block with another number of channels.
                    let channels = match s.precision {
                        Precision::F32 | Precision::Tf32 => block.clone(),
                        Precision::Bf16 => bf16::channels(s, block),
                    };
                    if channels.len() != filled {
                        border = Border::Missing;
                        filled = channels.len();
                    }
                    let (normalizer, of) = (call.normalizer.as_ref(), images.clone());
                    match s.precision {
                        Precision::F32 | Precision::Tf32 => geometry.fill(s, call.x, normalizer, of, &channels, border, as_t(copy)),
                        Precision::Bf16 => {
                            bf16::fill(&geometry, s, call.x, normalizer, of, &channels, border, Pairing::Channels, image, copy);
                        }
                    }
                    border = Border::Present;
                    let next = (images.end * image_in).min(x.len())..(images.end * image_in + images.len() * image_in).min(x.len());
                    let task = outputs::Task {
                        n_outputs: s.out_channels,
                        n_pixels: n_pixels(images.len()),
                        parts: &parts[usize::from(block.len() != blocks[0].len())][geometry.images - images.len()],
                        weights: reordered,
                        k: read.k(),
                        k_before,
                        k_here: s.n_taps() * block.len(),
                        start: if idx == 0 { start.as_deref() } else { None },
                        next: if blocks.len() == 1 { &x[next] } else { &[] },
                    };
                    match s.precision {
                        Precision::F32 | Precision::Tf32 => outputs::add_block(&task, copy, as_f32_mut(out).expect(CHECKED)),
                        Precision::Bf16 => bf16::add_outputs(&task, copy, as_f32_mut(out).expect(CHECKED)),
                    }
                    k_before += s.n_taps() * block.len();
                }
                part(&mut gathered, images.start * image_out, out);
            }
            give_back(&copies, memory);
            gathered
        })
        .collect()
}

/// A weight gradient; `T` must be `f32`, the shape one that [`fits`].
pub(super) struct BackwardWeight<'a, T> {
    pub(super) s: &'a Conv2dShape,
    pub(super) x: &'a [T],
    pub(super) normalizer: Option<Normalizer<T>>,
    pub(super) dy: &'a [T],
}

/// The gradient of the packed weight.
pub(super) fn backward_weight<T: Real>(call: &BackwardWeight<'_, T>, dpacked: &mut [T], scratch: &mut [T]) {
    let s = call.s;
    let dy = as_f32(call.dy).expect(CHECKED);
    let dpacked = as_f32_mut(dpacked).expect(CHECKED);
    if s.n == 0 {
        dpacked.fill(0.0);
        return;
    }
    let geometry = Geometry::for_weight(s);
    let blocks = geometry.blocks(s);
    let cut_of = |block: &Range<usize>| match s.precision {
        Precision::F32 | Precision::Tf32 => geometry.layout(block).weight_cut(s, geometry.images, gradient::rows_computed),
        Precision::Bf16 => bf16::weight_cut(s, &geometry, block),
    };
    let mut cuts = vec![cut_of(&blocks[0])];
    cuts.extend(blocks.last().filter(|last| last.len() != blocks[0].len()).map(cut_of));
    let splits = weight_splits(s, &geometry, blocks.len());
    let partial_len = s.n_taps() * geometry.inputs * s.out_channels;
    let n_tasks = blocks.len() * splits;
    let (partials, rest) = aligned(as_f32_mut(scratch).expect(CHECKED)).split_at_mut(n_tasks * partial_len);
    let memory_len = geometry.copy_len() + gradient::PACKED + image_len(s, &geometry, 1);
    let memories = Mutex::new(rest.chunks_exact_mut(memory_len).take(n_tasks).collect::<Vec<_>>());
    let image_out = s.out_len() / s.n;
    partials.par_chunks_mut(partial_len).enumerate().for_each(|(task, partial)| {
        let block = &blocks[task / splits];
        let partial = &mut partial[..s.n_taps() * block.len() * s.out_channels];
        let cut = &cuts[usize::from(block.len() != blocks[0].len())];
        let memory = take(&memories);
        let (copy, rest) = memory.split_at_mut(geometry.copy_len());
        let (packed, image) = rest.split_at_mut(gradient::PACKED);
        let (mut border, mut mode) = (Border::Missing, Accumulate::Overwrite);
        for group in geometry.groups_of(task % splits, splits) {
            let images = geometry.images_of(s, group);
            let dy = &dy[images.start * image_out..images.end * image_out];
            let normalizer = call.normalizer.as_ref();
            match s.precision {
                Precision::F32 | Precision::Tf32 => {
                    geometry.fill(s, call.x, normalizer, images, block, border, as_t(copy));
                    gradient::add_block(cut, s.out_channels, copy, dy, mode, partial, packed);
                }
                Precision::Bf16 => {
                    bf16::fill(&geometry, s, call.x, normalizer, images, block, border, Pairing::Pixels, image, copy);
                    bf16::add_gradient(s, cut, copy, dy, mode, partial, packed);
                }
            }
            (border, mode) = (Border::Present, Accumulate::Add);
        }
        give_back(&memories, memory);
    });
    // Rows of the weight stand by taps, then inputs; those of a partial gradient by taps, then the inputs of its block.
    let rows = (CHUNK / s.out_channels).max(1);
    for_each_chunk_mut(dpacked, rows * s.out_channels, |idx, out| {
        for (row, out) in out.chunks_exact_mut(s.out_channels).enumerate() {
            let (tap, input) = ((idx * rows + row) / s.in_channels, (idx * rows + row) % s.in_channels);
            let (block, within) = (input / geometry.inputs, input % geometry.inputs);
            let place = block * splits * partial_len + (tap * blocks[block].len() + within) * s.out_channels;
            for split in 0..splits {
                let values = &partials[place + split * partial_len..][..s.out_channels];
                match split {
                    0 => out.copy_from_slice(values),
                    _ => out.iter_mut().zip(values).for_each(|(o, &v)| *o += v),
                }
            }
        }
    });
}

/// How many partial gradients a block of inputs has, each of some groups of images: enough tasks for many threads, but few for large
/// weights, so that adding them up stays cheap.
fn weight_splits(s: &Conv2dShape, geometry: &Geometry, n_blocks: usize) -> usize {
    geometry.splits().min(16_usize.div_ceil(n_blocks)).min(((1 << 22) / s.weight_len()).max(1))
}

/// The memory that was given back last, which is the one that is still in a cache.
fn take<'a>(memories: &Mutex<Vec<&'a mut [f32]>>) -> &'a mut [f32] {
    memories.lock().unwrap_or_else(PoisonError::into_inner).pop().expect("there are as many memories as tasks")
}

fn give_back<'a>(memories: &Mutex<Vec<&'a mut [f32]>>, memory: &'a mut [f32]) {
    memories.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
}

/// The same numbers as `T`, which is `f32`.
fn as_t<T: Real>(values: &mut [f32]) -> &mut [T] {
    assert!(TypeId::of::<T>() == TypeId::of::<f32>(), "{CHECKED}");
    // SAFETY: `T` is `f32`, so only the name of the type changes; the borrow is exclusive and passes on.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}
