//! The register block of the weight gradient: some input channels, which are neighbours in the copy, times one or two vectors of
//! output channels, while all pixels pass.
#![allow(clippy::needless_range_loop)] // Indices are the names of registers here.

use super::taps::{Pixel, Rows, Run, SHORT, WeightCut};
use super::vector::{Four, LINE, Vector, prefetch_to_write};
use crate::memory::Accumulate;
use crate::simd::{Level, level};
use std::ops::Range;

/// Pixels that are summed at a time: their output gradients stay in the first-level cache, and the sum is a sum of sums.
pub(super) const PIXELS: usize = 192;
/// Rows of a register block at most: numbers behind the copy that may be read.
const REACH: usize = 28;
/// Output channels that are packed together at most.
const WIDE: usize = 32;

/// Elements that [`add_block`] packs output gradients into.
pub(super) const PACKED: usize = PIXELS * WIDE;

/// The rows that are computed for `len` rows of a run beside two vectors of the widest instruction set.
pub(super) fn rows_computed(len: usize) -> usize {
    len.next_multiple_of(12).min(len.next_multiple_of(8))
}

/// partial = xᵀ·dy, or partial += xᵀ·dy, for one block of inputs of a group of images; `partial` is `[tap][input of the block][output]` and
/// `packed` memory for its use.
pub(super) fn add_block(
    cut: &WeightCut,
    n_outputs: usize,
    copy: &[f32],
    dy: &[f32],
    mode: Accumulate,
    partial: &mut [f32],
    packed: &mut [f32],
) {
    let task = Task { cut, n_outputs, copy, dy, mode };
    check(&task, dy.len() / n_outputs, partial, packed);
    match level() {
        // SAFETY: the level says that the processor has these instructions; all that is read lies in `copy`, and all that is stored
        // in `partial` (checked above).
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512(&task, partial, packed) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2(&task, partial, packed) },
        // SAFETY: as above, and no instructions beyond the target's.
        _ => unsafe { all_outputs::<Four, 4, 4, 4, 4>(&task, partial, packed) },
    }
}

/// Asserts what the kernel needs for the first `n_steps` pixels: what is read lies in the copy, and what is stored in the partial
/// gradient.
pub(super) fn check(task: &Task<'_>, n_steps: usize, partial: &[f32], packed: &[f32]) {
    for Rows { run, list } in &task.cut.rows {
        let pixels = &task.cut.lists[*list];
        let pixels = &pixels[..pixels.partition_point(|p| p.index() < n_steps)];
        let furthest = pixels.iter().map(|p| p.from()).max().unwrap_or(0);
        assert!(task.copy.len() >= furthest + run.offset + run.len + REACH, "the copy holds every tap of every pixel, and some more");
        assert!(partial.len() >= (run.first + run.len) * task.n_outputs, "the partial gradient is as long as the block's weights");
    }
    assert!(packed.len() >= PACKED, "packed output gradients have their memory");
}

/// What a call is about.
pub(super) struct Task<'a> {
    pub(super) cut: &'a WeightCut,
    pub(super) n_outputs: usize,
    pub(super) copy: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) mode: Accumulate,
}

/// # Safety
/// AVX-512F; the conditions that [`check`] asserts.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(task: &Task<'_>, partial: &mut [f32], packed: &mut [f32]) {
    // SAFETY: by this function's own conditions.
    unsafe { all_outputs::<std::arch::x86_64::__m512, 12, 8, 24, 16>(task, partial, packed) }
}

/// # Safety
/// AVX2 and FMA; the conditions that [`check`] asserts.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(task: &Task<'_>, partial: &mut [f32], packed: &mut [f32]) {
    // SAFETY: by this function's own conditions.
    unsafe { all_outputs::<std::arch::x86_64::__m256, 6, 4, 12, 8>(task, partial, packed) }
}

/// All blocks of output channels, some pixels at a time. Beside two vectors `A` or `B` rows of a run at once, beside one `C` or `D`,
/// whichever leaves fewer rows over; of the widest instruction set three short runs (the first layer of a network) at once.
///
/// # Safety
/// The instruction set of `S`; the conditions that [`check`] asserts.
#[inline(always)]
unsafe fn all_outputs<S: Vector, const A: usize, const B: usize, const C: usize, const D: usize>(
    task: &Task<'_>,
    partial: &mut [f32],
    packed: &mut [f32],
) {
    let n_outputs = task.n_outputs;
    let n_pixels = task.dy.len() / n_outputs;
    let (runs, lists) = (&task.cut.rows, &task.cut.lists);
    let few_rows = task.cut.together && S::LANES == 16;
    let step = if few_rows { S::LANES } else { 2 * S::LANES };
    for first in (0..n_outputs).step_by(step) {
        let n = n_outputs - first;
        let width = if n > S::LANES && !few_rows { 2 * S::LANES } else { S::LANES };
        // The outputs outside, so that their part of the gradient stays in the cache while the pixels pass.
        for first_pixel in (0..n_pixels).step_by(PIXELS) {
            let chunk = first_pixel..n_pixels.min(first_pixel + PIXELS);
            let dy = &task.dy[chunk.start * n_outputs..chunk.end * n_outputs];
            let mode = if first_pixel == 0 { task.mode } else { Accumulate::Add };
            // SAFETY: rows that are read lie in the copy or the reach behind it, `dense` has `width` numbers per pixel of the chunk, and
            // only rows of the runs and the first `n` lanes are stored, which lie in `partial`.
            unsafe {
                let into = Target { into: partial.as_mut_ptr().add(first), n_outputs, mode };
                let dy = Gradients { dense: dense(dy, n_outputs, first, width, packed), first: chunk.start };
                if few_rows {
                    let all = within(&lists[0], &chunk);
                    three_runs::<S, SHORT>(task.copy, all, [runs[0].run, runs[1].run, runs[2].run], dy, into, S::mask(n.min(S::LANES)));
                    continue;
                }
                for rows in runs {
                    let (run, pixels) = (rows.run, within(&lists[rows.list], &chunk));
                    if width == 2 * S::LANES {
                        let masks = [S::mask(S::LANES), S::mask((n - S::LANES).min(S::LANES))];
                        if wasted(run.len, B) < wasted(run.len, A) {
                            run_block::<S, B, 2>(task.copy, pixels, run, dy, into, masks);
                        } else {
                            run_block::<S, A, 2>(task.copy, pixels, run, dy, into, masks);
                        }
                    } else {
                        let masks = [S::mask(n.min(S::LANES))];
                        if wasted(run.len, D) < wasted(run.len, C) {
                            run_block::<S, D, 1>(task.copy, pixels, run, dy, into, masks);
                        } else {
                            run_block::<S, C, 1>(task.copy, pixels, run, dy, into, masks);
                        }
                    }
                }
            }
        }
    }
}

/// The pixels of a list, which is in order, that belong to a chunk.
pub(super) fn within<'a>(list: &'a [Pixel], chunk: &Range<usize>) -> &'a [Pixel] {
    let from = list.partition_point(|p| p.index() < chunk.start);
    let n = list[from..].partition_point(|p| p.index() < chunk.end);
    &list[from..from + n]
}

/// Rows that are computed and not stored, in blocks of `block`.
pub(super) fn wasted(rows: usize, block: usize) -> usize {
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

/// Output gradients of a block of channels: a whole number of vectors for each pixel of a chunk.
#[derive(Clone, Copy)]
pub(super) struct Gradients<'a> {
    pub(super) dense: &'a [f32],
    /// The chunk's first pixel.
    pub(super) first: usize,
}

impl Gradients<'_> {
    /// The numbers of a pixel, `width` of them.
    #[inline(always)]
    fn at(&self, pixel: Pixel, width: usize) -> *const f32 {
        self.dense.as_ptr().wrapping_add((pixel.index() - self.first) * width)
    }
}

/// Where the gradient goes: its first row.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) into: *mut f32,
    pub(super) n_outputs: usize,
    pub(super) mode: Accumulate,
}

/// The rows of one run, `P` at a time.
///
/// # Safety
/// The instruction set of `S`; `pixels` plus the run plus `P` inside `x`; `V` vectors of `dy` per pixel; the lanes of `masks` writable at
/// every row.
#[inline(always)]
pub(super) unsafe fn run_block<S: Vector, const P: usize, const V: usize>(
    x: &[f32],
    pixels: &[Pixel],
    run: Run,
    dy: Gradients<'_>,
    target: Target,
    masks: [S::Mask; V],
) {
    for i in (0..run.len).step_by(P) {
        // SAFETY: by this function's own conditions; rows past the run are read but never stored.
        unsafe {
            let target = Target { into: target.into.add((run.first + i) * target.n_outputs), ..target };
            let n = P.min(run.len - i);
            for p in 0..n {
                let into = target.into.add(p * target.n_outputs);
                prefetch_to_write(into);
                if V * S::LANES > LINE {
                    prefetch_to_write(into.wrapping_add(LINE));
                }
            }
            let mut sums = [[S::zero(); V]; P];
            let base = x.as_ptr().add(run.offset + i);
            for &pixel in pixels {
                let (at, gradient) = (base.add(pixel.from()), dy.at(pixel, V * S::LANES));
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
            }
            add_rows::<S, P, V>(&sums, n, target, masks);
        }
    }
}

/// The rows of three short runs at once, up to `P` of each, beside one vector.
///
/// # Safety
/// As [`run_block`] for each of the three.
#[inline(always)]
pub(super) unsafe fn three_runs<S: Vector, const P: usize>(
    x: &[f32],
    pixels: &[Pixel],
    runs: [Run; 3],
    dy: Gradients<'_>,
    target: Target,
    mask: S::Mask,
) {
    // SAFETY: by this function's own conditions; rows past a run are read but never stored.
    unsafe {
        let mut sums = [[[S::zero(); 1]; P]; 3];
        let bases = runs.map(|run| x.as_ptr().add(run.offset));
        for &pixel in pixels {
            let vector = S::load(dy.at(pixel, S::LANES));
            for r in 0..3 {
                let at = bases[r].add(pixel.from());
                for p in 0..P {
                    sums[r][p][0] = sums[r][p][0].add_product(S::splat(at.add(p)), vector);
                }
            }
        }
        for r in 0..3 {
            let target = Target { into: target.into.add(runs[r].first * target.n_outputs), ..target };
            add_rows::<S, P, 1>(&sums[r], runs[r].len, target, [mask]);
        }
    }
}

/// Adds the first `n` sums to their rows.
///
/// # Safety
/// The instruction set of `S`; the lanes of `masks` writable at every row.
#[inline(always)]
unsafe fn add_rows<S: Vector, const P: usize, const V: usize>(sums: &[[S; V]; P], n: usize, target: Target, masks: [S::Mask; V]) {
    for p in 0..P {
        if p < n {
            for v in 0..V {
                // SAFETY: by this function's own conditions.
                unsafe {
                    let into = target.into.add(p * target.n_outputs).wrapping_add(v * S::LANES);
                    let sum = match target.mode {
                        Accumulate::Overwrite => sums[p][v],
                        Accumulate::Add => S::load_masked(masks[v], into).add(sums[p][v]),
                    };
                    sum.store_masked(masks[v], into);
                }
            }
        }
    }
}
