//! The packed product by `vdpbf16ps`: the loops of [`super::super::block`], with pairs in place of numbers and both operands copied.

use super::ROWS;
use crate::gemm::Strides;
use crate::gemm::block::{Finish, Start, Task};
use crate::pairs::{LANES, add_products, adjacent, columns, interleaved, mask};
use crate::parallel::split_range;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Pairs of the summed dimension that one sum goes over at most: with them a panel and a block's rows fit in the first-level cache.
const SEGMENT: usize = 192;
/// Vectors of a panel.
const WIDTH: usize = 2;
/// Rows of a block: 24 sums leave registers for two vectors and a broadcast.
const BLOCK: usize = 12;
/// From a row of the left copy to the next, where it is copied row by row: not a power of two, so that rows do not evict each other.
const ROW_LEN: usize = SEGMENT + LANES;

/// Memory on the stack, as aligned as a cache line.
#[repr(align(64))]
struct Buffer<const N: usize>([MaybeUninit<u32>; N]);

/// How the left operand's copy lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// `[row][ROW_LEN]`: from rows that are contiguous.
    ByRow,
    /// `[pair][ROWS]`: from columns that are.
    ByPair,
}

/// A register block over one segment.
struct Block<'a> {
    n_pairs: usize,
    left: *const u32,
    panel: *const u32,
    c: *mut f32,
    at: usize,
    first: usize,
    n_columns: usize,
    is_first: bool,
    is_last: bool,
    task: &'a Task<f32>,
}

/// Runs a task.
///
/// # Safety
/// AVX512-BF16 and the AVX-512 of [`crate::simd::Level`]; as [`crate::gemm::run`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn run(task: &Task<f32>) {
    let (m, n, k) = (task.dims.m, task.dims.n, task.dims.k);
    let mut panel = Buffer::<{ WIDTH * LANES * SEGMENT }>([const { MaybeUninit::uninit() }; _]);
    let mut left = Buffer::<{ ROWS * ROW_LEN }>([const { MaybeUninit::uninit() }; _]);
    let (panel, left): (*mut u32, *mut u32) = (panel.0.as_mut_ptr().cast(), left.0.as_mut_ptr().cast());
    let order = if task.a.1.col == 1 { Left::ByRow } else { Left::ByPair };
    let n_segments = k.div_ceil(2 * SEGMENT).max(1);
    for first_row in (0..m).step_by(ROWS) {
        let rows = ROWS.min(m - first_row);
        let n_blocks = rows.div_ceil(BLOCK);
        for segment in 0..n_segments {
            let pairs = split_range(k.div_ceil(2), n_segments, segment);
            let (from, k) = (2 * pairs.start, k.min(2 * pairs.end) - (2 * pairs.start).min(k));
            let a = task.a.0.wrapping_add(first_row * task.a.1.row + from * task.a.1.col);
            // SAFETY: the part of the operand that is copied lies in it, and fits into the copy.
            unsafe { copy_left(order, a, task.a.1, rows, k, left) };
            for first in (0..n).step_by(WIDTH * LANES) {
                let n_columns = (n - first).min(WIDTH * LANES);
                let width = n_columns.div_ceil(LANES);
                let b = task.b.0.wrapping_add(from * task.b.1.row + first * task.b.1.col);
                // SAFETY: as above.
                unsafe { copy_right(b, task.b.1, k, n_columns, width, panel) };
                for idx in 0..n_blocks {
                    let block_rows = split_range(rows, n_blocks, idx);
                    let at = (first_row + block_rows.start) * task.c.1 + first;
                    let block = Block {
                        n_pairs: pairs.len(),
                        left: left.wrapping_add(block_rows.start * if order == Left::ByRow { ROW_LEN } else { 1 }),
                        panel,
                        c: task.c.0.wrapping_add(at),
                        at,
                        first,
                        n_columns,
                        is_first: segment == 0,
                        is_last: segment + 1 == n_segments,
                        task,
                    };
                    // SAFETY: the block lies inside the result, as the caller promises, and inside the copies made above.
                    unsafe { run_block(block_rows.len(), width, order, &block) };
                }
            }
        }
    }
}

/// Chooses the block of this size.
///
/// # Safety
/// As [`run`]; pointers reach as far as the sizes say.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn run_block(rows: usize, width: usize, order: Left, this: &Block<'_>) {
    macro_rules! choose {
        ($($rows:literal)*) => {
            match (rows, width, order) {
                $(
                    ($rows, 1, Left::ByRow) => block::<$rows, 1, true>(this),
                    ($rows, 1, Left::ByPair) => block::<$rows, 1, false>(this),
                    ($rows, _, Left::ByRow) => block::<$rows, 2, true>(this),
                    ($rows, _, Left::ByPair) => block::<$rows, 2, false>(this),
                )*
                _ => unreachable!("a block has at most {BLOCK} rows"),
            }
        };
    }
    // SAFETY: the caller promises it.
    unsafe { choose!(1 2 3 4 5 6 7 8 9 10 11 12) }
}

/// The block: `P` rows and `W` vectors.
///
/// # Safety
/// As [`run_block`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
#[allow(clippy::needless_range_loop)] // Indices are the names of registers here.
unsafe fn block<const P: usize, const W: usize, const BY_ROW: bool>(block: &Block<'_>) {
    // SAFETY: the caller promises the pointers; masked lanes are not touched.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); W]; P];
        let mut panel = block.panel;
        for i in 0..block.n_pairs {
            let mut right = [_mm512_setzero_si512(); W];
            for v in 0..W {
                right[v] = _mm512_loadu_si512(panel.add(v * LANES).cast());
            }
            for p in 0..P {
                let left = *block.left.add(if BY_ROW { p * ROW_LEN + i } else { i * ROWS + p });
                let left = _mm512_set1_epi32(left as i32);
                for v in 0..W {
                    sums[p][v] = add_products(sums[p][v], left, right[v]);
                }
            }
            panel = panel.add(W * LANES);
        }
        let c_row = block.task.c.1;
        let lanes = |v: usize| mask(block.n_columns.saturating_sub(v * LANES));
        // Choices stand outside the loops: these must be short enough to be unrolled, or the sums would not stay in registers.
        match block.task.start {
            _ if !block.is_first => add_result(&mut sums, block),
            Start::Zero => {}
            Start::Result => add_result(&mut sums, block),
            Start::Row(row) => {
                for v in 0..W {
                    let from = _mm512_maskz_loadu_ps(lanes(v), row.wrapping_add(block.first + v * LANES));
                    for p in 0..P {
                        sums[p][v] = _mm512_add_ps(from, sums[p][v]);
                    }
                }
            }
        }
        match block.task.finish {
            _ if !block.is_last => {}
            Finish::Store => {}
            Finish::Relu => {
                for p in 0..P {
                    for v in 0..W {
                        sums[p][v] = gated(sums[p][v], sums[p][v]);
                    }
                }
            }
            Finish::Gate(gate) => {
                for p in 0..P {
                    for v in 0..W {
                        let gate = _mm512_maskz_loadu_ps(lanes(v), gate.wrapping_add(block.at + p * c_row + v * LANES));
                        sums[p][v] = gated(sums[p][v], gate);
                    }
                }
            }
        }
        for p in 0..P {
            for v in 0..W {
                _mm512_mask_storeu_ps(block.c.wrapping_add(p * c_row + v * LANES), lanes(v), sums[p][v]);
            }
        }
    }
}

/// sums += what is there.
///
/// # Safety
/// As [`run_block`].
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(clippy::needless_range_loop)]
unsafe fn add_result<const P: usize, const W: usize>(sums: &mut [[__m512; W]; P], block: &Block<'_>) {
    for p in 0..P {
        for v in 0..W {
            let lanes = mask(block.n_columns.saturating_sub(v * LANES));
            // SAFETY: masked lanes are not touched; the caller promises the others.
            let there = unsafe { _mm512_maskz_loadu_ps(lanes, block.c.wrapping_add(p * block.task.c.1 + v * LANES)) };
            sums[p][v] = _mm512_add_ps(there, sums[p][v]);
        }
    }
}

/// Zero in the lanes where `gate` is at most zero.
#[inline]
#[target_feature(enable = "avx512f")]
fn gated(value: __m512, gate: __m512) -> __m512 {
    _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(gate, _mm512_setzero_ps()), value)
}

/// Copies `rows` rows and `k` columns of the left operand.
///
/// # Safety
/// As [`run`]; `a` can be read that far.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn copy_left(order: Left, a: *const f32, strides: Strides, rows: usize, k: usize, into: *mut u32) {
    // SAFETY: the caller promises it, and the copy has room for `ROWS` rows of `2 * SEGMENT` numbers in either order.
    unsafe {
        match order {
            Left::ByRow => {
                for row in 0..rows {
                    adjacent(a.add(row * strides.row), k, into.add(row * ROW_LEN));
                }
            }
            Left::ByPair => copy_rows(a, strides.col, k, rows, into, ROWS),
        }
    }
}

/// Copies `k` rows and `n_columns` columns of the right operand to `[pair][width vectors]`, with zeros at the end of a row.
///
/// # Safety
/// As [`run`]; `b` can be read that far.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn copy_right(b: *const f32, strides: Strides, k: usize, n_columns: usize, width: usize, into: *mut u32) {
    let row_len = width * LANES;
    // SAFETY: the caller promises it, and the copy has room for a panel.
    unsafe {
        if strides.col == 1 {
            copy_rows(b, strides.row, k, n_columns, into, row_len);
        } else {
            for v in 0..width {
                let n_lanes = (n_columns - v * LANES).min(LANES);
                columns(b.add(v * LANES * strides.col), strides.col, n_lanes, k, into.add(v * LANES), row_len);
            }
        }
    }
}

/// Pairs of `k` contiguous rows of `n` numbers, with zeros up to a whole vector.
///
/// # Safety
/// As [`interleaved`] for every pair of rows, `into_row` apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn copy_rows(from: *const f32, row: usize, k: usize, n: usize, into: *mut u32, into_row: usize) {
    for pair in 0..k.div_ceil(2) {
        let n_second = if 2 * pair + 1 < k { n } else { 0 };
        // SAFETY: the caller promises it.
        unsafe { interleaved(from.add(2 * pair * row), from.wrapping_add((2 * pair + 1) * row), n, n_second, into.add(pair * into_row)) };
    }
}
