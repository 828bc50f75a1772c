//! The transpose of one matrix.
//!
//! Few rows, or few columns, are woven together or taken apart in one loop. Others move in squares of which both sides stay in L1; within
//! them, in single precision, blocks of 8 by 8 numbers turn in registers.

use crate::memory::{Accumulate, Real};
use crate::simd::multiversion;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Level, as_f32, as_f32_mut, level};

/// Side of the square that is moved at once.
const SQUARE: usize = 16;

/// y = xᵀ, or y += xᵀ; `x` is `[n_rows, n_columns]`.
pub(super) fn transpose<T: Real>(n_rows: usize, n_columns: usize, x: &[T], y: &mut [T], mode: Accumulate) {
    if n_rows == 1 || n_columns == 1 {
        match mode {
            Accumulate::Overwrite => y.copy_from_slice(x),
            Accumulate::Add => y.iter_mut().zip(x).for_each(|(y, &x)| *y += x),
        }
        return;
    }
    match (mode, n_rows, n_columns) {
        (Accumulate::Overwrite, 2..=4, _) => return weave(n_rows, x, y),
        (Accumulate::Overwrite, _, 2..=4) => return unweave(n_columns, x, y),
        _ => {}
    }
    #[cfg(target_arch = "x86_64")]
    if let (Accumulate::Overwrite, Some(x), Some(_)) = (mode, as_f32(x), as_f32(y))
        && level() != Level::Portable
    {
        let y = as_f32_mut(y).expect("the type was asked for above");
        // SAFETY: the level says that the processor has these instructions.
        return unsafe { transpose_avx2(n_rows, n_columns, x, y) };
    }
    for_each_square(n_rows, n_columns, |rows, columns| move_each(n_rows, n_columns, rows, columns, x, y, mode));
}

/// Calls `f` for squares of rows and columns that cover the matrix.
#[inline(always)]
fn for_each_square(n_rows: usize, n_columns: usize, mut f: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>)) {
    for row in (0..n_rows).step_by(SQUARE) {
        for column in (0..n_columns).step_by(SQUARE) {
            f(row..(row + SQUARE).min(n_rows), column..(column + SQUARE).min(n_columns));
        }
    }
}

/// One number after the other.
#[inline(always)]
fn move_each<T: Real>(
    n_rows: usize,
    n_columns: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    x: &[T],
    y: &mut [T],
    mode: Accumulate,
) {
    for column in columns {
        let out = &mut y[column * n_rows..][rows.clone()];
        for (out, row) in out.iter_mut().zip(rows.clone()) {
            let value = x[row * n_columns + column];
            *out = match mode {
                Accumulate::Overwrite => value,
                Accumulate::Add => *out + value,
            };
        }
    }
}

multiversion! {
    /// The transpose of two to four rows.
    fn weave<T>(n_rows: usize, x: &[T], y: &mut [T]) {
        match n_rows {
            2 => weave_rows::<T, 2>(x, y),
            3 => weave_rows::<T, 3>(x, y),
            _ => weave_rows::<T, 4>(x, y),
        }
    }
}

#[inline(always)]
fn weave_rows<T: Real, const N: usize>(x: &[T], y: &mut [T]) {
    let n_columns = x.len() / N;
    let rows: [&[T]; N] = std::array::from_fn(|row| &x[row * n_columns..][..n_columns]);
    for (column, out) in y.chunks_exact_mut(N).enumerate() {
        for row in 0..N {
            out[row] = rows[row][column];
        }
    }
}

multiversion! {
    /// The transpose of two to four columns.
    fn unweave<T>(n_columns: usize, x: &[T], y: &mut [T]) {
        match n_columns {
            2 => unweave_columns::<T, 2>(x, y),
            3 => unweave_columns::<T, 3>(x, y),
            _ => unweave_columns::<T, 4>(x, y),
        }
    }
}

#[inline(always)]
fn unweave_columns<T: Real, const N: usize>(x: &[T], y: &mut [T]) {
    for (column, out) in y.chunks_exact_mut(x.len() / N).enumerate() {
        for (out, row) in out.iter_mut().zip(x.chunks_exact(N)) {
            *out = row[column];
        }
    }
}

/// [`transpose`] in blocks of eight by eight.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn transpose_avx2(n_rows: usize, n_columns: usize, x: &[f32], y: &mut [f32]) {
    assert!(x.len() == n_rows * n_columns && y.len() == x.len(), "lengths were checked");
    for_each_square(n_rows, n_columns, |rows, columns| {
        let (whole_rows, whole_columns) = (rows.len() / 8 * 8, columns.len() / 8 * 8);
        for row in (rows.start..rows.start + whole_rows).step_by(8) {
            for column in (columns.start..columns.start + whole_columns).step_by(8) {
                // SAFETY: the block's rows and columns are inside the matrix, whose length was asserted.
                unsafe { turn(x.as_ptr().add(row * n_columns + column), n_columns, y.as_mut_ptr().add(column * n_rows + row), n_rows) };
            }
        }
        let (rest_rows, rest_columns) = (rows.start + whole_rows..rows.end, columns.start + whole_columns..columns.end);
        move_each(n_rows, n_columns, rest_rows, columns.clone(), x, y, Accumulate::Overwrite);
        move_each(n_rows, n_columns, rows.start..rows.start + whole_rows, rest_columns, x, y, Accumulate::Overwrite);
    });
}

/// Eight rows of eight numbers, `stride` apart, to as many columns, `out_stride` apart.
///
/// # Safety
/// AVX2; `from` can be read and `to` be written so far.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn turn(from: *const f32, stride: usize, to: *mut f32, out_stride: usize) {
    use std::arch::x86_64::*;
    // SAFETY: the caller promises the pointers.
    unsafe {
        // Register r holds columns 0..4 of row r below and of row 4 + r above, then columns 4..8 of the same.
        let half = |r: usize, column: usize| {
            let low = _mm256_castps128_ps256(_mm_loadu_ps(from.add(r * stride + column)));
            _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(from.add((4 + r) * stride + column)))
        };
        for column in [0, 4] {
            let [a, b, c, d] = [half(0, column), half(1, column), half(2, column), half(3, column)];
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let to = to.add(column * out_stride);
            _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(ab_low, cd_low));
            _mm256_storeu_ps(to.add(out_stride), _mm256_shuffle_ps::<0xee>(ab_low, cd_low));
            _mm256_storeu_ps(to.add(2 * out_stride), _mm256_shuffle_ps::<0x44>(ab_high, cd_high));
            _mm256_storeu_ps(to.add(3 * out_stride), _mm256_shuffle_ps::<0xee>(ab_high, cd_high));
        }
    }
}
