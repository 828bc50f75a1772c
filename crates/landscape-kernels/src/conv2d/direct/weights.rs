//! Weights in the order in which the register blocks read them.

use super::super::shape::Conv2dShape;
use rayon::prelude::*;
use std::ops::Range;

/// Where the weights come from.
#[derive(Clone, Copy)]
pub(in super::super) enum Weights<'a, T> {
    /// Packed for this convolution.
    Packed(&'a [T]),
    /// Packed for the convolution whose input gradient this is: taps flipped, channels exchanged.
    Flipped(&'a [T]),
}

/// Output channels that every block is a multiple of, whatever the vectors.
pub(super) const GRAIN: usize = 16;
/// Outputs that are exchanged with inputs at a time: the lines that are read stay in the first-level cache.
const TILE: usize = 16;

/// Elements of the reordered weights.
pub(super) fn reordered_len(s: &Conv2dShape) -> usize {
    s.out_channels.next_multiple_of(GRAIN) * s.k()
}

/// Brings the weights into the order `[block of outputs][block of inputs][tap][input][output of the block]`, with zeros for missing
/// outputs; a block has `pair` outputs, or half as many where no more are left.
pub(super) fn reorder(s: &Conv2dShape, blocks: &[Range<usize>], pair: usize, weights: Weights<'_, f32>, out: &mut [f32]) {
    let (taps, inputs, outputs) = (s.n_taps(), s.in_channels, s.out_channels);
    out.par_chunks_mut(pair * s.k()).enumerate().for_each(|(idx, out)| {
        let first_output = idx * pair;
        if first_output >= outputs {
            return;
        }
        let width = if outputs - first_output > pair / 2 { pair } else { pair / 2 };
        let n = width.min(outputs - first_output);
        let mut rest = out;
        for (block, tap) in blocks.iter().flat_map(|b| (0..taps).map(move |tap| (b, tap))) {
            let channels = block.clone();
            let (out, behind) = std::mem::take(&mut rest).split_at_mut(channels.len() * width);
            rest = behind;
            match weights {
                Weights::Packed(w) => {
                    for (i, row) in channels.zip(out.chunks_exact_mut(width)) {
                        row[..n].copy_from_slice(&w[(tap * inputs + i) * outputs + first_output..][..n]);
                        row[n..].fill(0.0);
                    }
                }
                Weights::Flipped(w) => {
                    if n < width {
                        out.fill(0.0);
                    }
                    let from = ((taps - 1 - tap) * outputs + first_output) * inputs;
                    for first in (0..n).step_by(TILE) {
                        for (i, row) in channels.clone().zip(out.chunks_exact_mut(width)) {
                            for (o, v) in row[..n].iter_mut().enumerate().skip(first).take(TILE) {
                                *v = w[from + o * inputs + i];
                            }
                        }
                    }
                }
            }
        }
    });
}
