//! The direct kernel in bf16: the same register blocks over vectors of pairs, on copies and weights that are pairs.
//!
//! For the outputs a pair is two neighbouring input channels, so a copy has half as many elements of 32 bits, and the weights
//! `[tap][pair][output]` too. For the weight gradient it is two neighbouring output pixels of a row, whose inputs are a stride apart:
//! every element of the copy holds itself and the element that many pixels on, and the output gradients are packed pixel pair by pixel
//! pair. An image is copied as for `f32` first, border, prologue and all, and then rounded to where it is read from.

use super::super::rows::Normalizer;
use super::super::shape::Conv2dShape;
use super::geometry::{Border, Geometry};
use super::gradient::{self, Gradients, PACKED, PIXELS, Target, run_block, three_runs, wasted, within};
use super::outputs::{self, all_outputs};
use super::taps::{Pixel, SHORT, WeightCut};
use super::vector::Vector;
use super::weights::Weights;
use crate::memory::{Accumulate, Real};
use crate::pairs::{LANES, add_products, adjacent, are_fast, columns, interleaved, mask};
use rayon::prelude::*;
use std::arch::x86_64::*;
use std::ops::Range;

/// A vector of sums in `f32`, whose factors are vectors of pairs.
#[derive(Clone, Copy)]
pub(super) struct Pairs(__m512);

impl Vector for Pairs {
    const LANES: usize = LANES;
    type Mask = __mmask16;

    #[inline(always)]
    unsafe fn mask(n: usize) -> __mmask16 {
        mask(n)
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: by the trait's condition, as everywhere here.
        unsafe { Pairs(_mm512_setzero_ps()) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: as above; the bits are those of a pair.
        unsafe { Pairs(_mm512_castsi512_ps(_mm512_set1_epi32(*from.cast::<i32>()))) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { Pairs(_mm512_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn load_masked(mask: __mmask16, from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { Pairs(_mm512_maskz_loadu_ps(mask, from)) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, mask: __mmask16, into: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_mask_storeu_ps(into, mask, self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { Pairs(_mm512_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        unsafe { Pairs(add_products(self.0, _mm512_castps_si512(a.0), _mm512_castps_si512(b.0))) }
    }
}

/// The convolution as the copies of the outputs' kernel have it: pairs of channels in place of channels.
pub(super) fn paired(s: &Conv2dShape) -> Conv2dShape {
    Conv2dShape { in_channels: s.in_channels.div_ceil(2), ..*s }
}

/// The channels of a block of pairs.
pub(super) fn channels(s: &Conv2dShape, pairs: &Range<usize>) -> Range<usize> {
    2 * pairs.start..s.in_channels.min(2 * pairs.end)
}

/// Which numbers are a pair in a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pairing {
    /// Neighbouring channels.
    Channels,
    /// Neighbouring output pixels.
    Pixels,
}

/// Copies a block of channels of some images as pairs, one after the other through `image`, which is as long as one of them in `f32` and
/// has its border where `border` says so.
#[expect(clippy::too_many_arguments, reason = "what is copied, through what, how, and to where")]
pub(super) fn fill<T: Real>(
    geometry: &Geometry,
    s: &Conv2dShape,
    x: &[T],
    normalizer: Option<&Normalizer<T>>,
    images: Range<usize>,
    channels: &Range<usize>,
    mut border: Border,
    pairing: Pairing,
    image: &mut [f32],
    copy: &mut [f32],
) {
    assert!(are_fast(), "pairs are chosen where they are fast");
    let (row_len, n_channels) = (geometry.row_pixels() * channels.len(), channels.len());
    let image = &mut image[..geometry.image_pixels() * n_channels];
    let len = match pairing {
        Pairing::Channels => geometry.image_pixels() * n_channels.div_ceil(2),
        Pairing::Pixels => image.len(),
    };
    for (idx, copy) in images.zip(copy.chunks_exact_mut(len)) {
        geometry.fill(s, x, normalizer, idx..idx + 1, channels, border, super::as_t(image));
        border = Border::Present;
        let into = copy.as_mut_ptr().cast();
        // SAFETY: the processor has the instructions (asserted above), and every row of pairs lies in `copy`.
        unsafe {
            match pairing {
                Pairing::Channels if n_channels % 2 == 0 => adjacent(image.as_ptr(), image.len(), into),
                Pairing::Channels => {
                    for (pixel, x) in image.chunks_exact(n_channels).enumerate() {
                        adjacent(x.as_ptr(), n_channels, into.add(pixel * n_channels.div_ceil(2)));
                    }
                }
                Pairing::Pixels => {
                    let step = geometry.pixel_step() * n_channels;
                    for (idx, row) in image.chunks_exact(row_len).enumerate() {
                        shifted(row, step, &mut copy[idx * row_len..(idx + 1) * row_len]);
                    }
                }
            }
        }
    }
}

/// out\[i\] = (row\[i\], row\[i + step\]), with zeros behind the end.
///
/// # Safety
/// AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn shifted(row: &[f32], step: usize, out: &mut [f32]) {
    let whole = row.len() / LANES * LANES;
    let n_second = row.len().saturating_sub(step);
    let mut last = [0_u32; LANES];
    // SAFETY: whole vectors end inside of `out`, and the rest goes by a vector of its own.
    unsafe {
        let second = row.as_ptr().wrapping_add(step);
        interleaved(row.as_ptr(), second, whole, n_second.min(whole), out.as_mut_ptr().cast());
        let rest = n_second.saturating_sub(whole);
        interleaved(row.as_ptr().add(whole), second.wrapping_add(whole), row.len() - whole, rest, last.as_mut_ptr());
    }
    for (out, last) in out[whole..].iter_mut().zip(last) {
        *out = f32::from_bits(last);
    }
}

/// Outputs that weights are turned by at a time.
const TURNED: usize = 16;

/// [`super::weights::reorder`] into pairs; `blocks` are of pairs.
pub(super) fn reorder(s: &Conv2dShape, blocks: &[Range<usize>], width: usize, weights: Weights<'_, f32>, out: &mut [f32]) {
    assert!(are_fast() && s.groups == 1, "pairs are chosen where they are fast");
    let (taps, inputs, outputs) = (s.n_taps(), s.in_channels, s.out_channels);
    out.par_chunks_mut(width * taps * inputs.div_ceil(2)).enumerate().for_each(|(idx, out)| {
        let first_output = idx * width;
        if first_output >= outputs {
            return;
        }
        let width = if outputs - first_output > width / 2 { width } else { width / 2 };
        let n = width.min(outputs - first_output);
        let mut rest = out;
        for (block, tap) in blocks.iter().flat_map(|b| (0..taps).map(move |tap| (b, tap))) {
            let channels = channels(s, block);
            let (out, behind) = std::mem::take(&mut rest).split_at_mut(block.len() * width);
            rest = behind;
            match weights {
                Weights::Packed(w) => {
                    for (pair, row) in out.chunks_exact_mut(width).enumerate() {
                        let i = channels.start + 2 * pair;
                        let first = &w[(tap * inputs + i) * outputs + first_output..][..n];
                        let second = if i + 1 < inputs { &w[(tap * inputs + i + 1) * outputs + first_output..][..n] } else { &[] };
                        // SAFETY: the processor has the instructions (asserted above), and a row is one or two whole vectors.
                        unsafe { interleaved(first.as_ptr(), second.as_ptr(), n, second.len(), row.as_mut_ptr().cast()) };
                        row[n.next_multiple_of(LANES).min(width)..].fill(0.0);
                    }
                }
                Weights::Flipped(w) => {
                    for first in (0..width).step_by(TURNED) {
                        let n_lanes = n.saturating_sub(first).min(TURNED);
                        let from = ((taps - 1 - tap) * outputs + first_output + first) * inputs;
                        let from = if n_lanes > 0 { &w[from..from + n_lanes * inputs] } else { &[] };
                        assert!(out.len() >= block.len() * width && first + TURNED <= width);
                        // SAFETY: as above; 16 pairs of every row of `out` are written, from numbers of `n_lanes` outputs.
                        unsafe {
                            let from = from.as_ptr().wrapping_add(channels.start);
                            columns(from, inputs, n_lanes, channels.len(), out.as_mut_ptr().add(first).cast(), width);
                        }
                    }
                }
            }
        }
    });
}

/// [`outputs::add_block`] on pairs.
pub(super) fn add_outputs(task: &outputs::Task<'_>, copy: &[f32], y: &mut [f32]) {
    /// # Safety
    /// AVX512-BF16; as [`all_outputs`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn body(task: &outputs::Task<'_>, copy: &[f32], y: &mut [f32]) {
        // SAFETY: by this function's own conditions.
        unsafe { all_outputs::<Pairs, 12, 12>(task, copy, y) }
    }
    assert!(are_fast(), "pairs are chosen where they are fast");
    outputs::check(task, copy);
    // SAFETY: the processor has the instructions, and what the kernel needs was checked.
    unsafe { body(task, copy, y) }
}

/// How the weight gradient of a block of inputs is summed, with pairs of pixels in place of pixels. Rows of the kernel leave out the border
/// above and below. Beside it, or behind the last output of a row, one pixel of a pair may be used and the other not: the other meets a zero, of
/// the border or of the gradient, so that what is no number there reaches a tap that `f32` keeps clean.
pub(super) fn weight_cut(s: &Conv2dShape, geometry: &Geometry, block: &Range<usize>) -> WeightCut {
    let whole_rows = |len: usize| len.max(s.kernel_size[1] * block.len());
    let mut cut = geometry.layout(block).weight_cut(s, geometry.images, whole_rows);
    let (width, step) = (s.out_size()[1], geometry.pixel_step() * block.len());
    for list in &mut cut.lists {
        let pairs = list.iter().map(|pixel| {
            let (row, column) = (pixel.index() / width, pixel.index() % width);
            Pixel::new(pixel.from() - column % 2 * step, row * width.div_ceil(2) + column / 2)
        });
        let mut pairs = pairs.collect::<Vec<_>>();
        pairs.dedup_by_key(|pair| pair.index());
        *list = pairs;
    }
    cut
}

/// [`gradient::add_block`] on pairs of pixels.
pub(super) fn add_gradient(
    s: &Conv2dShape,
    cut: &WeightCut,
    copy: &[f32],
    dy: &[f32],
    mode: Accumulate,
    partial: &mut [f32],
    packed: &mut [f32],
) {
    let [_, width] = s.out_size();
    let n_pairs = dy.len() / s.out_channels / width * width.div_ceil(2);
    assert!(are_fast(), "pairs are chosen where they are fast");
    let task = gradient::Task { cut, n_outputs: s.out_channels, copy, dy, mode };
    gradient::check(&task, n_pairs, partial, packed);
    // SAFETY: the processor has the instructions, and what the kernel needs was checked.
    unsafe { gradient_of_all(&task, width, n_pairs, partial, packed) }
}

/// As `gradient::all_outputs`, with the blocks of AVX-512.
///
/// # Safety
/// AVX512-BF16; the conditions that [`gradient::check`] asserts.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn gradient_of_all(task: &gradient::Task<'_>, image_width: usize, n_pairs: usize, partial: &mut [f32], packed: &mut [f32]) {
    let n_outputs = task.n_outputs;
    let (runs, lists) = (&task.cut.rows, &task.cut.lists);
    let few_rows = task.cut.together;
    let step = if few_rows { LANES } else { 2 * LANES };
    for first in (0..n_outputs).step_by(step) {
        let n = n_outputs - first;
        let width = if n > LANES && !few_rows { 2 * LANES } else { LANES };
        for first_pair in (0..n_pairs).step_by(PIXELS) {
            let chunk = first_pair..n_pairs.min(first_pair + PIXELS);
            let mode = if first_pair == 0 { task.mode } else { Accumulate::Add };
            // SAFETY: `packed` has `width` pairs per pair of pixels of the chunk; the rest as in `gradient::all_outputs`.
            unsafe {
                pack_gradients(task.dy, n_outputs, first, n.min(width), width, image_width, chunk.clone(), packed);
                let into = Target { into: partial.as_mut_ptr().add(first), n_outputs, mode };
                let dy = Gradients { dense: &packed[..chunk.len() * width], first: chunk.start };
                if few_rows {
                    let all = within(&lists[0], &chunk);
                    three_runs::<Pairs, SHORT>(task.copy, all, [runs[0].run, runs[1].run, runs[2].run], dy, into, mask(n));
                    continue;
                }
                for rows in runs {
                    let (run, pairs) = (rows.run, within(&lists[rows.list], &chunk));
                    if width == 2 * LANES {
                        let masks = [mask(LANES), mask(n - LANES)];
                        if wasted(run.len, 8) < wasted(run.len, 12) {
                            run_block::<Pairs, 8, 2>(task.copy, pairs, run, dy, into, masks);
                        } else {
                            run_block::<Pairs, 12, 2>(task.copy, pairs, run, dy, into, masks);
                        }
                    } else if wasted(run.len, 16) < wasted(run.len, 24) {
                        run_block::<Pairs, 16, 1>(task.copy, pairs, run, dy, into, [mask(n)]);
                    } else {
                        run_block::<Pairs, 24, 1>(task.copy, pairs, run, dy, into, [mask(n)]);
                    }
                }
            }
        }
    }
}

/// The output gradients of pairs of pixels, `n` channels from `first` on in `width` each; the last pixel of an odd row is beside zero.
///
/// # Safety
/// AVX512-BF16; `width` pairs to write for each of `pairs`, which are in `dy`.
#[inline]
#[expect(clippy::too_many_arguments, reason = "what is read, and how it lies")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_gradients(
    dy: &[f32],
    n_outputs: usize,
    first: usize,
    n: usize,
    width: usize,
    image_width: usize,
    pairs: Range<usize>,
    packed: &mut [f32],
) {
    let per_row = image_width.div_ceil(2);
    let n_padded = n.next_multiple_of(LANES);
    for (pair, out) in pairs.zip(packed.chunks_exact_mut(width)) {
        let (row, column) = (pair / per_row, pair % per_row * 2);
        let from = dy[(row * image_width + column) * n_outputs + first..].as_ptr();
        let n_second = if column + 1 < image_width { n } else { 0 };
        // SAFETY: `n` numbers of one or two pixels of `dy`, and whole vectors in `out`.
        unsafe { interleaved(from, from.wrapping_add(n_outputs), n, n_second, out.as_mut_ptr().cast()) };
        out[n_padded..].fill(0.0);
    }
}

/// The packed gradients of a chunk fit where those of `f32` do.
const _: () = assert!(PACKED >= PIXELS * 2 * LANES);
