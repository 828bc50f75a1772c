//! The register block of the weight gradient: some input channels, which are neighbours in the copy, times one or two vectors of
//! output channels, while all pixels pass.
#![allow(clippy::needless_range_loop)] // Indices are the names of registers here.

use super::geometry::{InputBlock, Run};
use super::vector::{Four, LINE, Vector, prefetch_to_write};
use crate::memory::Accumulate;
use crate::simd::{Level, level};

/// Pixels that are summed at a time: their output gradients stay in the first-level cache, and the sum is a sum of sums.
const PIXELS: usize = 192;
/// Rows of a register block at most: numbers behind the copy that may be read.
const REACH: usize = 28;
/// Output channels that are packed together at most.
const WIDE: usize = 32;

/// Elements that [`add_block`] packs output gradients into.
pub(super) const PACKED: usize = PIXELS * WIDE;

/// partial = xᵀ·dy, or partial += xᵀ·dy, for one block of inputs of a group of images; `partial` is `[tap][input of the block][output]` and
/// `packed` memory for its use.
pub(super) fn add_block(
    block: &InputBlock,
    n_outputs: usize,
    copy: &[f32],
    dy: &[f32],
    mode: Accumulate,
    partial: &mut [f32],
    packed: &mut [f32],
) {
    let n_pixels = dy.len() / n_outputs;
    let offsets = &block.offsets[..n_pixels];
    let reach = block.runs.iter().map(|r| r.offset + r.len).max().unwrap_or(0) + REACH;
    let furthest = offsets.iter().max().copied().unwrap_or(0);
    assert!(copy.len() >= furthest + reach, "the copy holds every tap of every pixel, and some more");
    let rows: usize = block.runs.iter().map(|r| r.len).sum();
    assert!(partial.len() == rows * n_outputs && packed.len() >= PACKED, "the partial gradient is as long as the block's weights");
    let task = Task { block, n_outputs, copy, dy, mode };
    match level() {
        // SAFETY: the level says that the processor has these instructions; all that is read lies in `copy`, and all that is stored
        // in `partial` (asserted above).
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512(&task, partial, packed) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2(&task, partial, packed) },
        // SAFETY: as above, and no instructions beyond the target's.
        _ => unsafe { all_outputs::<Four, 4, 4, 4, 4, 3>(&task, partial, packed) },
    }
}

struct Task<'a> {
    block: &'a InputBlock,
    n_outputs: usize,
    copy: &'a [f32],
    dy: &'a [f32],
    mode: Accumulate,
}

/// # Safety
/// AVX-512F; the conditions that [`add_block`] asserts.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(task: &Task<'_>, partial: &mut [f32], packed: &mut [f32]) {
    // SAFETY: by this function's own conditions.
    unsafe { all_outputs::<std::arch::x86_64::__m512, 12, 8, 24, 16, 9>(task, partial, packed) }
}

/// # Safety
/// AVX2 and FMA; the conditions that [`add_block`] asserts.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(task: &Task<'_>, partial: &mut [f32], packed: &mut [f32]) {
    // SAFETY: by this function's own conditions.
    unsafe { all_outputs::<std::arch::x86_64::__m256, 6, 4, 12, 8, 3>(task, partial, packed) }
}

/// All blocks of output channels, some pixels at a time. Beside two vectors `A` or `B` rows of a run at once, beside one `C` or `D`,
/// whichever leaves fewer rows over; where three runs have `E` rows or fewer (the first layer of a network), all of them at once.
///
/// # Safety
/// The instruction set of `S`; the conditions that [`add_block`] asserts.
#[inline(always)]
unsafe fn all_outputs<S: Vector, const A: usize, const B: usize, const C: usize, const D: usize, const E: usize>(
    task: &Task<'_>,
    partial: &mut [f32],
    packed: &mut [f32],
) {
    let n_outputs = task.n_outputs;
    let n_pixels = task.dy.len() / n_outputs;
    let runs = &task.block.runs;
    let few_rows = runs.len() == 3 && runs[0].len <= E && S::LANES == 16;
    let step = if few_rows { S::LANES } else { 2 * S::LANES };
    for first in (0..n_outputs).step_by(step) {
        let n = n_outputs - first;
        let width = if n > S::LANES && !few_rows { 2 * S::LANES } else { S::LANES };
        // The outputs outside, so that their part of the gradient stays in the cache while the pixels pass.
        for first_pixel in (0..n_pixels).step_by(PIXELS) {
            let pixels = first_pixel..n_pixels.min(first_pixel + PIXELS);
            let offsets = &task.block.offsets[pixels.clone()];
            let dy = &task.dy[pixels.start * n_outputs..pixels.end * n_outputs];
            let mode = if first_pixel == 0 { task.mode } else { Accumulate::Add };
            // SAFETY: rows that are read lie in the copy or the reach behind it, `dense` has `width` numbers per pixel, and only rows
            // of the runs and the first `n` lanes are stored, which lie in `partial`.
            unsafe {
                let mut rows = Rows { run: runs[0], first: 0, into: partial.as_mut_ptr().add(first), n_outputs, mode };
                let dense = dense(dy, n_outputs, first, width, packed);
                if few_rows {
                    three_runs::<S, E>(task.copy, offsets, runs, dense, rows, S::mask(n.min(S::LANES)));
                    continue;
                }
                for &run in runs {
                    rows.run = run;
                    if width == 2 * S::LANES {
                        let masks = [S::mask(S::LANES), S::mask((n - S::LANES).min(S::LANES))];
                        if wasted(run.len, B) < wasted(run.len, A) {
                            run_block::<S, B, 2>(task.copy, offsets, rows, dense, masks);
                        } else {
                            run_block::<S, A, 2>(task.copy, offsets, rows, dense, masks);
                        }
                    } else {
                        let masks = [S::mask(n.min(S::LANES))];
                        if wasted(run.len, D) < wasted(run.len, C) {
                            run_block::<S, D, 1>(task.copy, offsets, rows, dense, masks);
                        } else {
                            run_block::<S, C, 1>(task.copy, offsets, rows, dense, masks);
                        }
                    }
                    rows.into = rows.into.wrapping_add(run.len * n_outputs);
                }
            }
        }
    }
}

/// Rows that are computed and not stored, in blocks of `block`.
fn wasted(rows: usize, block: usize) -> usize {
    rows.next_multiple_of(block) - rows
}

/// The output gradients of a block of channels as they stand, or packed one behind the other: `width` per pixel, zeros for channels
/// that there are not.
fn dense<'a>(dy: &'a [f32], n_outputs: usize, first: usize, width: usize, packed: &'a mut [f32]) -> &'a [f32] {
    if width == n_outputs {
        return dy;
    }
    let n = width.min(n_outputs - first);
    for (out, dy) in packed.chunks_exact_mut(width).zip(dy.chunks_exact(n_outputs)) {
        out[..n].copy_from_slice(&dy[first..first + n]);
        out[n..].fill(0.0);
    }
    packed
}

/// Rows of the gradient: those of a run, of which `first` is the next, at `into`.
#[derive(Clone, Copy)]
struct Rows {
    run: Run,
    first: usize,
    into: *mut f32,
    n_outputs: usize,
    mode: Accumulate,
}

/// The rows of one run, `P` at a time.
///
/// # Safety
/// The instruction set of `S`; `offsets` plus the run plus `P` inside `x`; `V` vectors of `dy` per pixel; the lanes of `masks` writable at
/// every row.
#[inline(always)]
unsafe fn run_block<S: Vector, const P: usize, const V: usize>(x: &[f32], offsets: &[usize], rows: Rows, dy: &[f32], masks: [S::Mask; V]) {
    for i in (0..rows.run.len).step_by(P) {
        // SAFETY: by this function's own conditions; rows past the run are read but never stored.
        unsafe {
            for p in 0..P.min(rows.run.len - i) {
                let into = rows.into.add((i + p) * rows.n_outputs);
                prefetch_to_write(into);
                if V * S::LANES > LINE {
                    prefetch_to_write(into.wrapping_add(LINE));
                }
            }
            let mut sums = [[S::zero(); V]; P];
            let mut gradient = dy.as_ptr();
            let base = x.as_ptr().add(rows.run.offset + i);
            for &offset in offsets {
                let at = base.add(offset);
                let mut vectors = [S::zero(); V];
                for v in 0..V {
                    vectors[v] = S::load(gradient.add(v * S::LANES));
                }
                for p in 0..P {
                    let value = S::splat(at.add(p));
                    for v in 0..V {
                        sums[p][v] = sums[p][v].add_product(value, vectors[v]);
                    }
                }
                gradient = gradient.add(V * S::LANES);
            }
            add_rows::<S, P, V>(&sums, Rows { first: i, ..rows }, masks);
        }
    }
}

/// The rows of three short runs at once, up to `P` of each, beside one vector.
///
/// # Safety
/// As [`run_block`] for each of the three.
#[inline(always)]
unsafe fn three_runs<S: Vector, const P: usize>(x: &[f32], offsets: &[usize], runs: &[Run], dy: &[f32], rows: Rows, mask: S::Mask) {
    // SAFETY: by this function's own conditions; rows past a run are read but never stored.
    unsafe {
        let mut sums = [[[S::zero(); 1]; P]; 3];
        let mut gradient = dy.as_ptr();
        let bases = [x.as_ptr().add(runs[0].offset), x.as_ptr().add(runs[1].offset), x.as_ptr().add(runs[2].offset)];
        for &offset in offsets {
            let vector = S::load(gradient);
            for r in 0..3 {
                let at = bases[r].add(offset);
                for p in 0..P {
                    sums[r][p][0] = sums[r][p][0].add_product(S::splat(at.add(p)), vector);
                }
            }
            gradient = gradient.add(S::LANES);
        }
        let mut into = rows.into;
        for r in 0..3 {
            add_rows::<S, P, 1>(&sums[r], Rows { run: runs[r], first: 0, into, ..rows }, [mask]);
            into = into.add(runs[r].len * rows.n_outputs);
        }
    }
}

/// Adds sums to their rows.
///
/// # Safety
/// The instruction set of `S`; the lanes of `masks` writable at every row of the run.
#[inline(always)]
unsafe fn add_rows<S: Vector, const P: usize, const V: usize>(sums: &[[S; V]; P], rows: Rows, masks: [S::Mask; V]) {
    for p in 0..P {
        if rows.first + p < rows.run.len {
            for v in 0..V {
                // SAFETY: by this function's own conditions.
                unsafe {
                    let into = rows.into.add((rows.first + p) * rows.n_outputs).wrapping_add(v * S::LANES);
                    let sum = match rows.mode {
                        Accumulate::Overwrite => sums[p][v],
                        Accumulate::Add => S::load_masked(masks[v], into).add(sums[p][v]),
                    };
                    sum.store_masked(masks[v], into);
                }
            }
        }
    }
}
