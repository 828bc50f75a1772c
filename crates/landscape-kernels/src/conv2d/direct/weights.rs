//! Weights in the order in which the register blocks read them.

use super::super::shape::Conv2dShape;
use super::geometry::INPUTS;
use crate::parallel::CHUNK;
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
/// Outputs that are exchanged with inputs at a time: a line of the cache.
const TILE: usize = 16;
/// The distance of a tile's rows: not a power of two, so that a column's numbers do not evict each other.
const ROW: usize = INPUTS + 16;

/// Elements of the reordered weights.
pub(super) fn reordered_len(s: &Conv2dShape) -> usize {
    s.out_channels.next_multiple_of(GRAIN) * s.k()
}

/// Brings the weights into the order `[block of outputs][block of inputs][tap][input][output of the block]`, with zeros for missing
/// outputs; a block has `pair` outputs, or half as many where no more are left.
pub(super) fn reorder(s: &Conv2dShape, blocks: &[Range<usize>], pair: usize, weights: Weights<'_, f32>, out: &mut [f32]) {
    let (taps, inputs, outputs) = (s.n_taps(), s.in_channels, s.out_channels);
    // A task is a tap of a block of inputs: what it reads lies together, and is read in order.
    let places: Vec<(&Range<usize>, usize)> = blocks.iter().flat_map(|block| (0..taps).map(move |tap| (block, tap))).collect();
    let mut tasks: Vec<Vec<&mut [f32]>> = places.iter().map(|_| Vec::with_capacity(outputs.div_ceil(pair))).collect();
    let mut rest = out;
    for first in (0..outputs).step_by(pair) {
        let width = if outputs - first > pair / 2 { pair } else { pair / 2 };
        for ((block, _), pieces) in places.iter().zip(&mut tasks) {
            let (piece, behind) = std::mem::take(&mut rest).split_at_mut(block.len() * width);
            rest = behind;
            pieces.push(piece);
        }
    }
    let few = (CHUNK / (blocks[0].len() * outputs)).max(1);
    tasks.into_par_iter().zip(places).with_min_len(few).for_each(|(pieces, (block, tap))| match weights {
        Weights::Packed(w) => deal_rows(outputs, pair, &w[(tap * inputs + block.start) * outputs..][..block.len() * outputs], pieces),
        Weights::Flipped(w) => {
            let w = &w[(taps - 1 - tap) * outputs * inputs..][..outputs * inputs];
            let pieces = pieces.into_iter().zip(w.chunks(pair * inputs));
            pieces.for_each(|(piece, w)| exchange(inputs, block, w, piece));
        }
    });
}

/// Rows of one input each, cut into the pieces of the blocks of outputs.
fn deal_rows(outputs: usize, pair: usize, rows: &[f32], mut pieces: Vec<&mut [f32]>) {
    let n_rows = rows.len() / outputs;
    for (i, row) in rows.chunks_exact(outputs).enumerate() {
        for (piece, values) in pieces.iter_mut().zip(row.chunks(pair)) {
            let width = piece.len() / n_rows;
            let out = &mut piece[i * width..][..width];
            out[..values.len()].copy_from_slice(values);
            out[values.len()..].fill(0.0);
        }
    }
}

/// Rows of one output each, whose inputs of a block become the rows of the piece.
fn exchange(inputs: usize, block: &Range<usize>, w: &[f32], piece: &mut [f32]) {
    let (width, n) = (piece.len() / block.len(), w.len() / inputs);
    if n < width {
        piece.fill(0.0);
    }
    let mut tile = [0.0; TILE * ROW];
    for (idx, w) in w.chunks(TILE * inputs).enumerate() {
        let n = w.len() / inputs;
        for (row, w) in tile.chunks_exact_mut(ROW).zip(w.chunks_exact(inputs)) {
            row[..block.len()].copy_from_slice(&w[block.clone()]);
        }
        for (i, out) in piece.chunks_exact_mut(width).enumerate() {
            let column = tile[i..].iter().step_by(ROW);
            out[idx * TILE..][..n].iter_mut().zip(column).for_each(|(to, from)| *to = *from);
        }
    }
}
