//! Gradients of broadcasts: dy, or dy times the other operand, added up along the axes on which an operand is repeated.
//!
//! The axes up to the first repeated one are kept, so what stands below them is computed apart. Where that leaves few tasks, the repeated
//! axis is cut into fixed splits whose sums are added in order.

use super::{NARROW, Op, forward_piece, rows};
use crate::axes::{Axis, Walk};
use crate::memory::{Accumulate, Real};
use crate::parallel::{CHUNK, for_each_chunk_mut, map_splits, n_splits};
use crate::reduce::{rows_per_wide_row, tile};
use crate::simd::multiversion;

/// Kept blocks from which on they are tasks enough.
const MANY: usize = 16;
/// Elements per split below which another task costs more than it saves.
const MIN_SPLIT: usize = 32 * 1024;

/// Columns of a task, and how many there must be to be cut so.
const COLUMNS: usize = 1024;
const MIN_COLUMNS: usize = 4 * COLUMNS;

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
        for_each_chunk_mut(dx, CHUNK, |idx, dx| match (other, mode) {
            (Some(other), Accumulate::Overwrite) => forward_piece(Op::Multiply, outer, inner, idx * CHUNK, dy, other, dx),
            _ => add_products(outer, inner, idx * CHUNK, &dy[idx * CHUNK..][..dx.len()], other, dx, mode),
        });
        return;
    }
    let n_blocks: usize = kept.iter().map(|axis| axis.size).product();
    let (block_len, width) = (dy.len() / n_blocks, dx.len() / n_blocks);
    let (first, deeper) = (below[0], &below[1..]);
    if let ([rows, columns], true) = (below, n_blocks < MANY && width >= MIN_COLUMNS) {
        // Wide rows are cut into columns, which need no sums of sums.
        for (block, dx) in dx.chunks_exact_mut(width).enumerate() {
            let dy = &dy[block * block_len..][..block_len];
            let place = Walk::new(kept, block).at()[1];
            for_each_chunk_mut(dx, COLUMNS, |idx, dx| {
                let mut sums = vec![0.0; dx.len()];
                add_columns([*rows, *columns], idx * COLUMNS, dy, other, place, &mut sums);
                store(&sums, dx, mode);
            });
        }
        return;
    }
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
    fn add_products<T>(outer: &[Axis<2>], inner: Axis<2>, start: usize, dy: &[T], other: Option<&[T]>, dx: &mut [T], mode: Accumulate) {
        let Some(other) = other else {
            match mode {
                Accumulate::Overwrite => dx.copy_from_slice(dy),
                Accumulate::Add => {
                    for (dx, &dy) in dx.iter_mut().zip(dy) {
                        *dx += dy;
                    }
                }
            }
            return;
        };
        let mut walk = Walk::new(outer, start / inner.size);
        let (mut column, mut done) = (start % inner.size, 0);
        while done < dx.len() {
            let n = (inner.size - column).min(dx.len() - done);
            let from = walk.at()[1];
            let pairs = dx[done..done + n].iter_mut().zip(&dy[done..done + n]);
            if inner.strides[1] == 0 {
                let other = other[from];
                for (dx, &dy) in pairs {
                    *dx += dy * other;
                }
            } else {
                for ((dx, &dy), &other) in pairs.zip(&other[from + column..][..n]) {
                    *dx += dy * other;
                }
            }
            done += n;
            column = 0;
            walk.step();
        }
    }
}

multiversion! {
    /// sums += dy·other over rows of which all are added to the same sums, from column `first` on; the other operand's positions begin at
    /// `place`.
    fn add_columns<T>(axes: [Axis<2>; 2], first: usize, dy: &[T], other: Option<&[T]>, place: usize, sums: &mut [f64]) {
        let [rows, columns] = axes;
        for row in 0..rows.size {
            let dy = &dy[row * columns.size + first..][..sums.len()];
            let from = place + row * rows.strides[1] + first * columns.strides[1];
            match other {
                None => {
                    for (sum, dy) in sums.iter_mut().zip(dy) {
                        *sum += dy.to_f64();
                    }
                }
                Some(other) if columns.strides[1] == 0 => {
                    let other = other[from].to_f64();
                    for (sum, dy) in sums.iter_mut().zip(dy) {
                        *sum += dy.to_f64() * other;
                    }
                }
                Some(other) => {
                    for ((sum, dy), other) in sums.iter_mut().zip(dy).zip(&other[from..][..dy.len()]) {
                        *sum += dy.to_f64() * other.to_f64();
                    }
                }
            }
        }
    }
}

multiversion! {
    /// sums += dy·other over a walk of all of `dy`; the other operand's positions begin at `place`.
    fn add_block<T>(axes: &[Axis<2>], dy: &[T], other: Option<&[T]>, place: usize, sums: &mut [f64]) {
        if let [above, Axis { size: width @ ..NARROW, strides: [1, stride] }] = *axes
            && (other.is_none() || (stride, above.strides[1]) == (1, width))
        {
            // Several narrow rows at once, into as many sums of each column.
            let other = other.map(|other| &other[place..][..dy.len()]);
            return add_narrow_rows(dy, other, width, sums);
        }
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

#[inline(always)]
fn add_narrow_rows<T: Real>(dy: &[T], other: Option<&[T]>, width: usize, sums: &mut [f64]) {
    let mut wide = tile(&[0.0], width * rows_per_wide_row(width));
    match other {
        None => {
            for row in dy.chunks(wide.len()) {
                for (sum, dy) in wide.iter_mut().zip(row) {
                    *sum += dy.to_f64();
                }
            }
        }
        Some(other) => {
            for (row, other) in dy.chunks(wide.len()).zip(other.chunks(wide.len())) {
                for ((sum, dy), other) in wide.iter_mut().zip(row).zip(other) {
                    *sum += dy.to_f64() * other.to_f64();
                }
            }
        }
    }
    for row in wide.chunks_exact(width) {
        for (sum, part) in sums.iter_mut().zip(row) {
            *sum += part;
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
