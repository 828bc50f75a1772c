//! Sums over the rows of a `[n_rows, n_columns]` matrix, in double precision, over fixed splits.
//!
//! Narrow matrices are read as if several rows were one wide row, so that the inner loop is long enough for vectors; the
//! copies of a column are added at the end, in order.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{map_splits, n_splits};
use crate::simd::multiversion;

/// Elements per wide row that are enough for the inner loop.
const WIDE: usize = 128;
/// Elements per split below which another task costs more than it saves.
const MIN_SPLIT: usize = 32 * 1024;

/// How many rows of `n_columns` make one wide row.
pub(crate) fn rows_per_wide_row(n_columns: usize) -> usize {
    (WIDE / n_columns.max(1)).max(1)
}

/// `values` repeated `times` times.
pub(crate) fn tile<T: Copy>(values: &[T], times: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len() * times);
    for _ in 0..times {
        out.extend_from_slice(values);
    }
    out
}

/// Writes sums that were taken in double precision, or adds them.
///
/// # Errors
/// [`crate::Error::Length`] where lengths differ.
pub fn store_sums<T: Real>(sums: View<'_, f64>, into: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    check_len("store_sums", "sums", into.len(), sums.len())?;
    store(sums.host(), into.host(), mode);
    Ok(())
}

fn store<T: Real>(sums: &[f64], into: &mut [T], mode: Accumulate) {
    for (out, &sum) in into.iter_mut().zip(sums) {
        *out = match mode {
            Accumulate::Overwrite => T::from_f64(sum),
            Accumulate::Add => *out + T::from_f64(sum),
        };
    }
}

/// Writes column sums, or adds them.
pub(crate) fn store_column_sums<T: Real>(n_columns: usize, x: &[T], into: &mut [T], mode: Accumulate) {
    store(&column_sums(n_columns, x), into, mode);
}

/// Column sums Σ_i x_ij.
pub(crate) fn column_sums<T: Real>(n_columns: usize, x: &[T]) -> Vec<f64> {
    let [sums] = reduce_rows(n_columns, x.len(), |range, [sums]| add_values(&x[range], sums));
    sums
}

/// Σ_i (x_ij − shift_j) and Σ_i (x_ij − shift_j)².
pub(crate) fn shifted_moments<T: Real>(n_columns: usize, x: &[T], shift: &[f64]) -> [Vec<f64>; 2] {
    let shift = tile(shift, rows_per_wide_row(n_columns));
    reduce_rows(n_columns, x.len(), |range, [sums, squares]| add_moments(&x[range], &shift, sums, squares))
}

/// Σ_i dy_ij and Σ_i dy_ij·(x_ij − mean_j).
pub(crate) fn gradient_moments<T: Real>(n_columns: usize, x: &[T], mean: &[f64], dy: &[T]) -> [Vec<f64>; 2] {
    let mean = tile(mean, rows_per_wide_row(n_columns));
    reduce_rows(n_columns, x.len(), |range, [sums, products]| {
        add_gradient_moments(&x[range.clone()], &mean, &dy[range], sums, products);
    })
}

/// Cuts `len` elements into splits of whole rows, adds each up with `add` into wide accumulators, and folds them in order.
fn reduce_rows<const K: usize>(
    n_columns: usize,
    len: usize,
    add: impl Fn(std::ops::Range<usize>, [&mut [f64]; K]) + Sync + Send,
) -> [Vec<f64>; K] {
    let mut totals = [(); K].map(|()| vec![0.0; n_columns]);
    if n_columns == 0 {
        return totals;
    }
    let width = n_columns * rows_per_wide_row(n_columns);
    let n_wide_rows = len.div_ceil(width);
    let splits = n_splits(n_wide_rows, MIN_SPLIT.div_ceil(width));
    let partials = map_splits(n_wide_rows, splits, |rows| {
        let mut sums = [(); K].map(|()| vec![0.0; width]);
        add(rows.start * width..(rows.end * width).min(len), sums.each_mut().map(Vec::as_mut_slice));
        sums
    });
    for partial in &partials {
        for (total, sums) in totals.iter_mut().zip(partial) {
            for row in sums.chunks_exact(n_columns) {
                for (t, s) in total.iter_mut().zip(row) {
                    *t += s;
                }
            }
        }
    }
    totals
}

multiversion! {
    fn add_values<T>(x: &[T], sums: &mut [f64]) {
        for row in x.chunks(sums.len()) {
            for (s, v) in sums.iter_mut().zip(row) {
                *s += v.to_f64();
            }
        }
    }
}

multiversion! {
    pub(crate) fn add_moments<T>(x: &[T], shift: &[f64], sums: &mut [f64], squares: &mut [f64]) {
        for row in x.chunks(sums.len()) {
            for (((s, q), v), k) in sums.iter_mut().zip(squares.iter_mut()).zip(row).zip(shift) {
                let d = v.to_f64() - k;
                *s += d;
                *q += d * d;
            }
        }
    }
}

multiversion! {
    fn add_gradient_moments<T>(x: &[T], mean: &[f64], dy: &[T], sums: &mut [f64], products: &mut [f64]) {
        let width = sums.len();
        for (x_row, dy_row) in x.chunks(width).zip(dy.chunks(width)) {
            for ((((s, q), v), g), m) in sums.iter_mut().zip(products.iter_mut()).zip(x_row).zip(dy_row).zip(mean) {
                let g = g.to_f64();
                *s += g;
                *q += g * (v.to_f64() - m);
            }
        }
    }
}
