//! The register block of the forward pass: some output pixels times one or two vectors of output channels, while all taps and inputs
//! of a block pass.
#![allow(clippy::needless_range_loop)] // Indices are the names of registers here.

use super::taps::{FEWEST, Part, Pixel, Run};
use super::vector::{Four, LINE, Vector, prefetch_to_read, prefetch_to_write};
use crate::simd::{Level, level};

/// Steps of the summed dimension per turn of the inner loop.
const UNROLL: usize = 4;
/// Elements of weights above which they come from beyond the second-level cache: 512 KiB.
const FAR: usize = 128 * 1024;

/// One block of inputs for a group of images.
pub(super) struct Task<'a> {
    /// Of a pixel of y.
    pub(super) n_outputs: usize,
    /// Pixels of the group.
    pub(super) n_pixels: usize,
    /// All of them.
    pub(super) parts: &'a [Part],
    /// All weights, as [`super::weights::reorder`] leaves them.
    pub(super) weights: &'a [f32],
    /// Taps times all inputs.
    pub(super) k: usize,
    /// Taps times the inputs of the blocks before.
    pub(super) k_before: usize,
    /// Taps times the inputs of this block.
    pub(super) k_here: usize,
    /// What the outputs start from, for every output channel up to a multiple of 16; without it, from what is there.
    pub(super) start: Option<&'a [f32]>,
    /// What is going to be read after this.
    pub(super) next: &'a [f32],
}

/// Output channels of a block: two vectors.
pub(super) fn block_width() -> usize {
    match level() {
        Level::Avx512 => 32,
        Level::Avx2 => 16,
        Level::Portable => 8,
    }
}

/// y = start + x ∗ w for the pixels of a group, over one block of inputs.
pub(super) fn add_block(task: &Task<'_>, copy: &[f32], y: &mut [f32]) {
    check(task, copy);
    match level() {
        // SAFETY: the level says that the processor has these instructions; all pixels, weights and outputs that are touched lie in
        // their slices (checked above).
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512(task, copy, y) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2(task, copy, y) },
        // SAFETY: as above, and no instructions beyond the target's.
        _ => unsafe { all_outputs::<Four, 4, 4>(task, copy, y) },
    }
}

/// Asserts what the kernel needs: all pixels, weights and outputs that it touches lie in their slices, of which `y` is split off by
/// whole pixels.
pub(super) fn check(task: &Task<'_>, copy: &[f32]) {
    for part in task.parts {
        let reach = part.runs.iter().map(|r| r.offset + r.len).max().unwrap_or(0);
        let furthest = part.pixels.iter().map(|p| p.from()).max().unwrap_or(0);
        let last = part.pixels.iter().map(|p| p.index()).max().unwrap_or(0);
        assert!(copy.len() >= furthest + reach && last < task.n_pixels, "the copy holds every tap of every pixel");
        assert!(part.runs.iter().all(|r| task.k_before + r.first + r.len <= task.k), "the weights hold every run");
    }
    let wide = task.n_outputs.next_multiple_of(LINE);
    assert!(task.weights.len() >= wide * task.k && task.start.is_none_or(|s| s.len() >= wide), "weights and starts are whole blocks");
}

/// Two vectors leave 24 of 32 registers to sums, and the addresses of 12 pixels still fit in the other registers.
///
/// # Safety
/// AVX-512F; the conditions that [`check`] asserts.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(task: &Task<'_>, copy: &[f32], y: &mut [f32]) {
    // SAFETY: by this function's own conditions.
    unsafe { all_outputs::<std::arch::x86_64::__m512, 12, 12>(task, copy, y) }
}

/// Of 16 registers 12 hold sums.
///
/// # Safety
/// AVX2 and FMA; the conditions that [`check`] asserts.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(task: &Task<'_>, copy: &[f32], y: &mut [f32]) {
    // SAFETY: by this function's own conditions.
    unsafe { all_outputs::<std::arch::x86_64::__m256, 6, 12>(task, copy, y) }
}

/// All blocks of output channels: `P2` pixels beside two vectors, `P1` beside one.
///
/// # Safety
/// The instruction set of `S`; the conditions that [`check`] asserts.
#[inline(always)]
pub(super) unsafe fn all_outputs<S: Vector, const P2: usize, const P1: usize>(task: &Task<'_>, copy: &[f32], y: &mut [f32]) {
    let n_blocks = task.parts.iter().map(|p| p.pixels.len().div_ceil(P2)).sum::<usize>();
    let mut images = Ahead::new(task.next, n_blocks);
    for first in (0..task.n_outputs).step_by(2 * S::LANES) {
        let n = task.n_outputs - first;
        let mut ahead = [std::mem::take(&mut images), Ahead::new(task.weights_after(first, 2 * S::LANES), n_blocks)];
        let start = match task.start {
            Some(start) => start[first..].as_ptr(),
            None => std::ptr::null(),
        };
        // SAFETY: `first` is below the outputs, weights are whole blocks; the rest by this function's own conditions.
        unsafe {
            let into = y.as_mut_ptr().add(first);
            let weights = task.weights.as_ptr().add(first * task.k);
            if n > S::LANES {
                let weights = weights.add(task.k_before * 2 * S::LANES);
                let masks = [S::mask(S::LANES), S::mask((n - S::LANES).min(S::LANES))];
                for part in task.parts {
                    output_block::<S, P2, 2>(copy.as_ptr(), part, weights, start, into, task.n_outputs, masks, &mut ahead);
                }
            } else {
                let weights = weights.add(task.k_before * S::LANES);
                for part in task.parts {
                    output_block::<S, P1, 1>(copy.as_ptr(), part, weights, start, into, task.n_outputs, [S::mask(n)], &mut ahead);
                }
            }
        }
    }
}

impl Task<'_> {
    /// The weights that are read after those of the outputs from `first` on: of the next outputs, or of the first ones for the next
    /// block of inputs. None where all are near anyway.
    fn weights_after(&self, first: usize, width: usize) -> &[f32] {
        let (outputs, k) = if first + width < self.n_outputs { (first + width, self.k_before) } else { (0, self.k_before + self.k_here) };
        let from = outputs * self.k + k * width;
        match self.weights.get(from..) {
            Some(weights) if self.weights.len() > FAR => &weights[..weights.len().min(self.k_here * width)],
            _ => &[],
        }
    }
}

/// What is asked for in advance, spread over the blocks of pixels, so that it is there when it is needed.
#[derive(Default)]
struct Ahead<'a> {
    next: &'a [f32],
    at: usize,
    /// Per block of pixels.
    lines: usize,
}

impl<'a> Ahead<'a> {
    fn new(next: &'a [f32], n_blocks: usize) -> Self {
        Ahead { next, at: 0, lines: next.len().div_ceil(LINE).div_ceil(n_blocks.max(1)) }
    }

    #[inline(always)]
    fn ask(&mut self) {
        for _ in 0..self.lines {
            prefetch_to_read(self.next.as_ptr().wrapping_add(self.at));
            self.at += LINE;
        }
    }
}

/// One block of output channels for the pixels of a part.
///
/// # Safety
/// The instruction set of `S`; the pixels of `part` plus its runs readable from `x` on, `V` vectors of weights per step of the runs, `V`
/// vectors at `start` unless it is null; the lanes of `masks` at every pixel of `y`, which are `n_outputs` apart.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn output_block<S: Vector, const P: usize, const V: usize>(
    x: *const f32,
    part: &Part,
    weights: *const f32,
    start: *const f32,
    y: *mut f32,
    n_outputs: usize,
    masks: [S::Mask; V],
    ahead: &mut [Ahead<'_>; 2],
) {
    // SAFETY: by this function's own conditions.
    unsafe {
        for pixels in part.pixels.chunks(P) {
            for pixel in pixels {
                let y = y.add(pixel.index() * n_outputs);
                prefetch_to_write(y);
                if V * S::LANES > LINE {
                    prefetch_to_write(y.wrapping_add(LINE));
                }
            }
            ahead.iter_mut().for_each(Ahead::ask);
            // What is left of a part is mostly a multiple of the smallest block.
            match pixels.len() {
                ..=FEWEST => pixel_block::<S, FEWEST, V>(x, pixels, &part.runs, weights, start, y, n_outputs, masks),
                ..=TWICE if P > TWICE => pixel_block::<S, TWICE, V>(x, pixels, &part.runs, weights, start, y, n_outputs, masks),
                _ => pixel_block::<S, P, V>(x, pixels, &part.runs, weights, start, y, n_outputs, masks),
            }
        }
    }
}

/// Twice the smallest register block.
const TWICE: usize = 2 * FEWEST;

/// One block of output channels for up to `P` pixels.
///
/// # Safety
/// As [`output_block`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn pixel_block<S: Vector, const P: usize, const V: usize>(
    x: *const f32,
    pixels: &[Pixel],
    runs: &[Run],
    weights: *const f32,
    start: *const f32,
    y: *mut f32,
    n_outputs: usize,
    masks: [S::Mask; V],
) {
    // SAFETY: by this function's own conditions; addresses of pixels past the last are those of the last, and are not stored.
    unsafe {
        let n = pixels.len();
        let mut totals = [[S::zero(); V]; P];
        for p in 0..P {
            let y = y.add(pixels[p.min(n - 1)].index() * n_outputs);
            for v in 0..V {
                totals[p][v] =
                    if start.is_null() { S::load_masked(masks[v], y.wrapping_add(v * S::LANES)) } else { S::load(start.add(v * S::LANES)) };
            }
        }
        sum_runs::<S, P, V>(x, pixels, runs, weights, &mut totals);
        for p in 0..P {
            if p < n {
                let y = y.add(pixels[p].index() * n_outputs);
                for v in 0..V {
                    totals[p][v].store_masked(masks[v], y.wrapping_add(v * S::LANES));
                }
            }
        }
    }
}

/// totals += x ∗ w, segment by segment.
///
/// # Safety
/// As [`output_block`], for up to `P` pixels.
#[inline(always)]
unsafe fn sum_runs<S: Vector, const P: usize, const V: usize>(
    x: *const f32,
    pixels: &[Pixel],
    runs: &[Run],
    weights: *const f32,
    totals: &mut [[S; V]; P],
) {
    // SAFETY: by this function's own conditions.
    unsafe {
        let mut sums = [[S::zero(); V]; P];
        let mut segment = 0;
        for run in runs {
            if run.segment != segment {
                add_sums::<S, P, V>(totals, &mut sums);
                segment = run.segment;
            }
            let mut at = [x; P];
            for p in 0..P {
                at[p] = x.add(pixels[p.min(pixels.len() - 1)].from() + run.offset);
            }
            let mut w = weights.add(run.first * V * S::LANES);
            let mut i = 0;
            while i + UNROLL <= run.len {
                for u in 0..UNROLL {
                    step::<S, P, V>(&mut sums, &at, i + u, w.add(u * V * S::LANES));
                }
                i += UNROLL;
                w = w.add(UNROLL * V * S::LANES);
            }
            while i < run.len {
                step::<S, P, V>(&mut sums, &at, i, w);
                i += 1;
                w = w.add(V * S::LANES);
            }
        }
        add_sums::<S, P, V>(totals, &mut sums);
    }
}

/// One step of the summed dimension: every pixel's value number `i` times `V` vectors of weights.
///
/// # Safety
/// The instruction set of `S`; `V` vectors at `w`, and `i + 1` values at every pixel.
#[inline(always)]
unsafe fn step<S: Vector, const P: usize, const V: usize>(sums: &mut [[S; V]; P], at: &[*const f32; P], i: usize, w: *const f32) {
    // SAFETY: by this function's own conditions.
    unsafe {
        let mut vectors = [S::zero(); V];
        for v in 0..V {
            vectors[v] = S::load(w.add(v * S::LANES));
        }
        for p in 0..P {
            let value = S::splat(at[p].add(i));
            for v in 0..V {
                sums[p][v] = sums[p][v].add_product(value, vectors[v]);
            }
        }
    }
}

/// totals += sums, and the sums start again.
///
/// # Safety
/// The instruction set of `S`.
#[inline(always)]
unsafe fn add_sums<S: Vector, const P: usize, const V: usize>(totals: &mut [[S; V]; P], sums: &mut [[S; V]; P]) {
    for p in 0..P {
        for v in 0..V {
            // SAFETY: by this function's own condition.
            unsafe {
                totals[p][v] = totals[p][v].add(sums[p][v]);
                sums[p][v] = S::zero();
            }
        }
    }
}
