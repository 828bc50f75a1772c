//! Launches of the reductions for GPUs, and the cut of a matrix into blocks that every kernel over rows of channels shares.

use crate::cuda::memory::scratch;
use crate::cuda::{Cuda, Grid, Source, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};

const KERNELS: Source = source!("reduce/kernels");

/// Threads of a block.
const THREADS: usize = 256;
/// Blocks that a sum is cut into at most; each leaves a partial sum per column.
const SUM_BLOCKS: usize = 512;
/// Blocks of a pass that leaves nothing behind.
const PASS_BLOCKS: usize = 4096;
/// Rows per thread below which another block costs more than it saves.
const ROWS_PER_THREAD: usize = 4;

/// A matrix `[n_rows, n_columns]` cut into blocks of columns by parts of rows, by its sizes alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowParts {
    pub grid: Grid,
    pub rows_per_part: usize,
    pub n_parts: usize,
}

impl RowParts {
    /// For sums over rows.
    pub fn for_sums(n_rows: usize, n_columns: usize) -> Self {
        Self::new(n_rows, n_columns, SUM_BLOCKS)
    }

    /// For a pass over all elements.
    pub fn for_pass(n_rows: usize, n_columns: usize) -> Self {
        Self::new(n_rows, n_columns, PASS_BLOCKS)
    }

    fn new(n_rows: usize, n_columns: usize, max_blocks: usize) -> Self {
        let width = n_columns.next_power_of_two().min(32);
        let depth = THREADS / width;
        let n_tiles = n_columns.div_ceil(width);
        let max_parts = (max_blocks / n_tiles.max(1)).clamp(1, max_blocks);
        let rows_per_part = n_rows.div_ceil(max_parts).max(depth * ROWS_PER_THREAD);
        let n_parts = n_rows.div_ceil(rows_per_part).max(1);
        let blocks = [u32::try_from(n_tiles).unwrap_or(u32::MAX), n_parts as u32, 1];
        RowParts { grid: Grid { blocks, threads: [width as u32, depth as u32, 1], shared_bytes: 0 }, rows_per_part, n_parts }
    }
}

/// Writes, or adds, the column sums of `x`.
pub(crate) fn store_column_sums<T: Real>(
    cuda: &Cuda,
    n_columns: usize,
    x: View<'_, T>,
    into: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    if n_columns == 0 {
        return Ok(());
    }
    let n_rows = x.len() / n_columns;
    let RowParts { grid, rows_per_part, n_parts } = RowParts::for_sums(n_rows, n_columns);
    let mut partials = scratch::<f64>(cuda, n_parts * n_columns)?;
    cuda.launch(&KERNELS, "column_sums", T::NAME, grid, &[&n_rows, &n_columns, &rows_per_part, &x, &partials.view_mut()])?;
    cuda.launch(&KERNELS, "finish_column_sums", T::NAME, Grid::over(n_columns), &[&n_columns, &n_parts, &partials.view(), &into, &mode])
}

/// Every row of `y` becomes `row`.
pub(crate) fn fill_rows<T: Real>(cuda: &Cuda, row: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let (n, n_columns) = (y.len(), row.len());
    cuda.launch(&KERNELS, "fill_rows", T::NAME, Grid::over(n), &[&n, &n_columns, &row, &y])
}

/// `n_parts` results of `into.len()` numbers each, added up in order.
pub(crate) fn sum_partials<T: Real>(cuda: &Cuda, n_parts: usize, partials: View<'_, T>, into: ViewMut<'_, T>) -> Result<()> {
    let n = into.len();
    cuda.launch(&KERNELS, "sum_partials", T::NAME, Grid::over(n), &[&n, &n_parts, &partials, &into])
}
