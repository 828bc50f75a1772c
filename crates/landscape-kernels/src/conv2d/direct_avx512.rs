//! The register blocks of the direct convolution.
#![allow(clippy::needless_range_loop)] // Indices are the names of registers here.

use super::{Conv2dShape, Forward, LANES, Run, Start, block_width};
use crate::simd::{Level, level};
use std::arch::x86_64::*;

/// Output pixels of a block: beside two vectors 24 of the 32 registers hold sums, and the pixels' addresses still fit in the other
/// registers, which is why a block of one vector is no longer.
const PIXELS: usize = 12;
/// Rows of a block of the weight gradient; they are neighbours and need one address.
const ROWS: usize = 12;
/// The same beside one vector, where the run is a multiple of it.
const LONG_ROWS: usize = 24;
/// Steps of the summed dimension per turn of the inner loop.
const UNROLL: usize = 4;
/// Steps that are summed before the sum is added to the total: a sum of sums rounds less than one long sum, and the totals, which are
/// in memory, are touched seldom.
const SEGMENT: usize = 128;

/// y = start + x ∗ w for the images in `padded`.
pub(super) fn forward(task: &Forward<'_>, padded: &[f32], y: &mut [f32]) {
    assert!(level() == Level::Avx512, "the direct convolution needs AVX-512");
    let n_pixels = y.len() / task.s.out_channels;
    let reach = task.blocks.iter().flat_map(|b| &b.runs).map(|r| r.offset + r.len).max().unwrap_or(0);
    let furthest = task.offsets[..n_pixels].iter().max().copied().unwrap_or(0);
    assert!(padded.len() >= furthest + reach, "the padded images hold every tap of every pixel");
    let width = block_width(task.s);
    assert!(task.weights.len() >= task.s.out_channels.div_ceil(width) * width * task.s.k(), "weights are reordered");
    for (block, first) in (0..task.s.out_channels).step_by(width).enumerate() {
        let weights = &task.weights[block * width * task.s.k()..];
        for (idx, inputs) in task.blocks.iter().enumerate() {
            let start = match (&task.start, idx) {
                (Start::Bias(bias), 0) => Some(&bias[first..first + width]),
                _ => None,
            };
            let weights = &weights[inputs.weight * width..];
            // SAFETY: the processor has AVX-512, every tap of every pixel lies in `padded` and every weight in `weights` (asserted
            // above), `start` has a block's width, and stores are masked to the outputs that there are.
            unsafe {
                if width == LANES {
                    output_block::<PIXELS, 1>(
                        padded,
                        &task.offsets[..n_pixels],
                        &inputs.runs,
                        weights,
                        start,
                        y,
                        task.s.out_channels,
                        first,
                    );
                } else {
                    output_block::<PIXELS, 2>(
                        padded,
                        &task.offsets[..n_pixels],
                        &inputs.runs,
                        weights,
                        start,
                        y,
                        task.s.out_channels,
                        first,
                    );
                }
            }
        }
    }
}

/// The lanes of vector `v` of a block that starts at output `first` of `outputs`.
fn mask(outputs: usize, first: usize, v: usize) -> __mmask16 {
    let n = outputs.saturating_sub(first + v * LANES).min(LANES);
    ((1_u32 << n) - 1) as __mmask16
}

/// One block of output channels for all pixels of a group.
///
/// # Safety
/// AVX-512F; `offsets` plus `runs` inside `x`; `V · 16` weights per step of the runs; `y` holds `outputs` per pixel.
#[target_feature(enable = "avx512f")]
#[allow(clippy::too_many_arguments)]
unsafe fn output_block<const P: usize, const V: usize>(
    x: &[f32],
    offsets: &[usize],
    runs: &[Run],
    weights: &[f32],
    start: Option<&[f32]>,
    y: &mut [f32],
    outputs: usize,
    first: usize,
) {
    let masks: [__mmask16; V] = std::array::from_fn(|v| mask(outputs, first, v));
    let mut pixel = 0;
    while pixel < offsets.len() {
        // The last block repeats its last pixel and does not store the copies.
        let n = P.min(offsets.len() - pixel);
        // SAFETY: by this function's own conditions; `first` is below `outputs`, and masked lanes touch nothing.
        unsafe {
            let y = y.as_mut_ptr().add(pixel * outputs + first);
            let mut totals = [[_mm512_setzero_ps(); V]; P];
            for p in 0..P {
                for v in 0..V {
                    totals[p][v] = match start {
                        Some(start) => _mm512_loadu_ps(start.as_ptr().add(v * LANES)),
                        None => _mm512_maskz_loadu_ps(masks[v], y.add(p.min(n - 1) * outputs).wrapping_add(v * LANES)),
                    };
                }
            }
            let mut sums = [[_mm512_setzero_ps(); V]; P];
            let (mut w, mut n_steps) = (weights.as_ptr(), 0);
            for run in runs {
                let at: [*const f32; P] = std::array::from_fn(|p| x.as_ptr().add(offsets[pixel + p.min(n - 1)] + run.offset));
                let mut i = 0;
                while i + UNROLL <= run.len {
                    for u in 0..UNROLL {
                        step(&mut sums, &at, i + u, w.add(u * V * LANES));
                    }
                    i += UNROLL;
                    w = w.add(UNROLL * V * LANES);
                }
                while i < run.len {
                    step(&mut sums, &at, i, w);
                    i += 1;
                    w = w.add(V * LANES);
                }
                n_steps += run.len;
                if n_steps >= SEGMENT {
                    add_sums(&mut totals, &mut sums);
                    n_steps = 0;
                }
            }
            add_sums(&mut totals, &mut sums);
            for p in 0..P {
                if p < n {
                    for v in 0..V {
                        _mm512_mask_storeu_ps(y.add(p * outputs).wrapping_add(v * LANES), masks[v], totals[p][v]);
                    }
                }
            }
        }
        pixel += P;
    }
}

/// One step of the summed dimension: every pixel's value number `i` times `V` vectors of weights.
///
/// # Safety
/// AVX-512F; `V · 16` weights at `w`, and `i + 1` values at every pixel.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn step<const P: usize, const V: usize>(sums: &mut [[__m512; V]; P], at: &[*const f32; P], i: usize, w: *const f32) {
    // SAFETY: by this function's own conditions.
    unsafe {
        let vectors: [__m512; V] = std::array::from_fn(|v| _mm512_loadu_ps(w.add(v * LANES)));
        for p in 0..P {
            let value = _mm512_set1_ps(*at[p].add(i));
            for v in 0..V {
                sums[p][v] = _mm512_fmadd_ps(value, vectors[v], sums[p][v]);
            }
        }
    }
}

/// totals += sums, and the sums start again.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_sums<const P: usize, const V: usize>(totals: &mut [[__m512; V]; P], sums: &mut [[__m512; V]; P]) {
    for p in 0..P {
        for v in 0..V {
            totals[p][v] = _mm512_add_ps(totals[p][v], sums[p][v]);
            sums[p][v] = _mm512_setzero_ps();
        }
    }
}

/// partial += xᵀ·dy for the images in `padded`; `partial` is packed `[tap][input][output]`.
pub(super) fn weight_gradient(s: &Conv2dShape, padded: &[f32], offsets: &[usize], runs: &[Run], dy: &[f32], partial: &mut [f32]) {
    assert!(level() == Level::Avx512, "the direct convolution needs AVX-512");
    let outputs = s.out_channels;
    let offsets = &offsets[..dy.len() / outputs];
    let reach = runs.iter().map(|r| r.offset + r.len).max().unwrap_or(0) + LONG_ROWS;
    let furthest = offsets.iter().max().copied().unwrap_or(0);
    assert!(padded.len() >= furthest + reach, "the padded images hold every tap of every pixel, and some more");
    assert!(partial.len() == runs.iter().map(|r| r.len).sum::<usize>() * outputs, "the partial gradient is as long as the weight");
    for first in (0..outputs).step_by(block_width(s)) {
        let mut row = 0;
        for run in runs {
            // SAFETY: the processor has AVX-512; every read of `x` lies in `padded` and every stored row in `partial` (asserted above).
            unsafe {
                if block_width(s) == 2 * LANES {
                    gradient_block::<ROWS, 2>(padded, offsets, *run, dy, outputs, first, row, partial);
                } else if run.len % LONG_ROWS == 0 {
                    gradient_block::<LONG_ROWS, 1>(padded, offsets, *run, dy, outputs, first, row, partial);
                } else {
                    gradient_block::<ROWS, 1>(padded, offsets, *run, dy, outputs, first, row, partial);
                }
            }
            row += run.len;
        }
    }
}

/// The rows of one run and one block of output channels, `P` rows at a time.
///
/// # Safety
/// AVX-512F; `offsets` plus the run plus `P` inside `x`; `partial` has `run.len` rows of `outputs` from `row` on.
#[target_feature(enable = "avx512f")]
#[allow(clippy::too_many_arguments)]
unsafe fn gradient_block<const P: usize, const V: usize>(
    x: &[f32],
    offsets: &[usize],
    run: Run,
    dy: &[f32],
    outputs: usize,
    first: usize,
    row: usize,
    partial: &mut [f32],
) {
    let masks: [__mmask16; V] = std::array::from_fn(|v| mask(outputs, first, v));
    for i in (0..run.len).step_by(P) {
        // SAFETY: by this function's own conditions; masked lanes touch nothing, and rows past the run are read but never stored.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); V]; P];
            let mut gradient = dy.as_ptr().add(first);
            let base = x.as_ptr().add(run.offset + i);
            for &offset in offsets {
                let at = base.add(offset);
                let mut vectors = [_mm512_setzero_ps(); V];
                for v in 0..V {
                    vectors[v] = _mm512_maskz_loadu_ps(masks[v], gradient.wrapping_add(v * LANES));
                }
                for p in 0..P {
                    let value = _mm512_set1_ps(*at.add(p));
                    for v in 0..V {
                        sums[p][v] = _mm512_fmadd_ps(value, vectors[v], sums[p][v]);
                    }
                }
                gradient = gradient.wrapping_add(outputs);
            }
            for p in 0..P.min(run.len - i) {
                let into = partial.as_mut_ptr().add((row + i + p) * outputs + first);
                for v in 0..V {
                    let into = into.wrapping_add(v * LANES);
                    _mm512_mask_storeu_ps(into, masks[v], _mm512_add_ps(_mm512_maskz_loadu_ps(masks[v], into), sums[p][v]));
                }
            }
        }
    }
}
