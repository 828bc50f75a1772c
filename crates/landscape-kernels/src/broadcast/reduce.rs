//! Gradients of broadcasts: dy, or dy times the other operand, added up along the axes on which an operand is repeated.
//!
//! The axes up to the first repeated one are kept, so what stands below them is computed apart. Where that leaves few tasks, the repeated
//! axis is cut into fixed splits whose sums are added in order.

use super::rows;
use crate::axes::{Axis, Walk};
use crate::memory::{Accumulate, Real};
use crate::parallel::{CHUNK, for_each_chunk_mut, map_splits, n_splits};
use crate::simd::multiversion;

/// Kept blocks from which on they are tasks enough.
const MANY: usize = 16;
/// Elements per split below which another task costs more than it saves.
const MIN_SPLIT: usize = 32 * 1024;

/// dx = Σ dy, or Σ dy·other; `axes` walk over dy with the positions of dx and of `other`.
pub(super) fn sums<T: Real>(axes: &[Axis<2>], dy: &[T], other: Option<&[T]>, dx: &mut [T], mode: Accumulate) {
    if dx.is_empty() {
        return;
    }
    if dy.is_empty() {
        return store(&vec![0.0; dx.len()], dx, mode);
    }
    let n_kept = axes.iter().position(|axis| axis.strides[0] == 0).unwrap_or(axes.len());
    let (kept, below) = axes.split_at(n_kept);
    if below.is_empty() {
        let (outer, inner) = rows(axes);
        for_each_chunk_mut(dx, CHUNK, |idx, dx| {
            let start = idx * CHUNK;
            products(outer, inner, start, &dy[start..start + dx.len()], other, dx, mode);
        });
        return;
    }
    let n_blocks: usize = kept.iter().map(|axis| axis.size).product();
    let (block_len, width) = (dy.len() / n_blocks, dx.len() / n_blocks);
    let (first, deeper) = (below[0], &below[1..]);
    // Sums from `range` of the block's first repeated axis.
    let add = |block: usize, range: std::ops::Range<usize>, sums: &mut [f64]| {
        let below_len = block_len / first.size;
        let place = Walk::new(kept, block).at()[1] + range.start * first.strides[1];
        let mut axes = vec![Axis { size: range.len(), ..first }];
        axes.extend(deeper);
        let dy = &dy[block * block_len + range.start * below_len..][..range.len() * below_len];
        add_block(&axes, dy, other, place, sums);
    };
    let splits = if n_blocks >= MANY { 1 } else { n_splits(block_len, MIN_SPLIT).min(first.size) };
    if splits == 1 {
        let blocks_per_task = (CHUNK / block_len).max(1);
        for_each_chunk_mut(dx, blocks_per_task * width, |idx, dx| {
            let mut sums = vec![0.0; width];
            for (i, dx) in dx.chunks_exact_mut(width).enumerate() {
                sums.fill(0.0);
                add(idx * blocks_per_task + i, 0..first.size, &mut sums);
                store(&sums, dx, mode);
            }
        });
        return;
    }
    for (block, dx) in dx.chunks_exact_mut(width).enumerate() {
        let partials = map_splits(first.size, splits, |range| {
            let mut sums = vec![0.0; width];
            add(block, range, &mut sums);
            sums
        });
        let mut partials = partials.into_iter();
        let mut sums = partials.next().unwrap_or_default();
        for partial in partials {
            sums.iter_mut().zip(partial).for_each(|(sum, part)| *sum += part);
        }
        store(&sums, dx, mode);
    }
}

fn store<T: Real>(sums: &[f64], dx: &mut [T], mode: Accumulate) {
    for (dx, &sum) in dx.iter_mut().zip(sums) {
        *dx = match mode {
            Accumulate::Overwrite => T::from_f64(sum),
            Accumulate::Add => *dx + T::from_f64(sum),
        };
    }
}

multiversion! {
    /// Where nothing is repeated: dx = dy·other, element by element from `start` on.
    fn products<T>(outer: &[Axis<2>], inner: Axis<2>, start: usize, dy: &[T], other: Option<&[T]>, dx: &mut [T], mode: Accumulate) {
        let Some(other) = other else {
            match mode {
                Accumulate::Overwrite => dx.copy_from_slice(dy),
                Accumulate::Add => dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy),
            }
            return;
        };
        let mut walk = Walk::new(outer, start / inner.size);
        let (mut column, mut done) = (start % inner.size, 0);
        while done < dx.len() {
            let n = (inner.size - column).min(dx.len() - done);
            let (dx, dy) = (&mut dx[done..done + n], &dy[done..done + n]);
            let from = walk.at()[1];
            let pairs = dx.iter_mut().zip(dy);
            match (inner.strides[1], mode) {
                (0, Accumulate::Overwrite) => {
                    let other = other[from];
                    for (dx, &dy) in pairs {
                        *dx = dy * other;
                    }
                }
                (0, Accumulate::Add) => {
                    let other = other[from];
                    for (dx, &dy) in pairs {
                        *dx += dy * other;
                    }
                }
                (_, Accumulate::Overwrite) => {
                    for ((dx, &dy), &other) in pairs.zip(&other[from + column..][..n]) {
                        *dx = dy * other;
                    }
                }
                (_, Accumulate::Add) => {
                    for ((dx, &dy), &other) in pairs.zip(&other[from + column..][..n]) {
                        *dx += dy * other;
                    }
                }
            }
            done += n;
            column = 0;
            walk.step();
        }
    }
}

multiversion! {
    /// sums += dy·other over a walk of all of `dy`; the other operand's positions begin at `place`.
    fn add_block<T>(axes: &[Axis<2>], dy: &[T], other: Option<&[T]>, place: usize, sums: &mut [f64]) {
        let (outer, inner) = rows(axes);
        let mut walk = Walk::new(outer, 0);
        for row in dy.chunks_exact(inner.size) {
            let [to, from] = walk.at();
            let from = from + place;
            match (inner.strides, other) {
                ([0, _], None) => sums[to] += sum_of(row.len(), |i| row[i].to_f64()),
                ([0, 0], Some(other)) => sums[to] += sum_of(row.len(), |i| row[i].to_f64()) * other[from].to_f64(),
                ([0, _], Some(other)) => {
                    let other = &other[from..][..row.len()];
                    sums[to] += sum_of(row.len(), |i| row[i].to_f64() * other[i].to_f64());
                }
                ([_, _], None) => {
                    let sums = &mut sums[to..][..row.len()];
                    for (sum, dy) in sums.iter_mut().zip(row) {
                        *sum += dy.to_f64();
                    }
                }
                ([_, 0], Some(other)) => {
                    let (sums, other) = (&mut sums[to..][..row.len()], other[from].to_f64());
                    for (sum, dy) in sums.iter_mut().zip(row) {
                        *sum += dy.to_f64() * other;
                    }
                }
                ([_, _], Some(other)) => {
                    let (sums, other) = (&mut sums[to..][..row.len()], &other[from..][..row.len()]);
                    for ((sum, dy), other) in sums.iter_mut().zip(row).zip(other) {
                        *sum += dy.to_f64() * other.to_f64();
                    }
                }
            }
            walk.step();
        }
    }
}

/// Σ_i f(i), in eight interleaved sums that are then added in order.
#[inline(always)]
fn sum_of(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [0.0; LANES];
    let whole = n / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    for i in whole..n {
        lanes[i - whole] += f(i);
    }
    lanes.iter().sum()
}
