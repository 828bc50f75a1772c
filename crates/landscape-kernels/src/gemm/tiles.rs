//! Products over all threads: the result is cut into tiles by shape alone, each of them one product on one thread, so no sum ever
//! crosses tasks and nothing is reduced.

use super::block::{COPIED_ROWS, Finish, READ_ROWS, RowSums, Start, Task};
use super::{Dims, Strides, run};
use crate::memory::Real;
use rayon::prelude::*;

/// Multiplications that a tile has at least, where there is a choice: some µs.
const MIN_TILE: usize = 256 * 1024;
/// The same for more than two tiles of a product whose operands both are copied: every tile copies again.
const MIN_COPIED_TILE: usize = 12 * 1024 * 1024;
/// Tiles at most, where there is a choice: enough for many cores, few enough for the copies that each makes.
const MAX_TILES: usize = 16;
/// Rows and columns of a tile at least.
const MIN_SIDE: usize = 32;

/// How a result is cut: tiles of `rows` and `cols`, `n_cols` of them beside each other.
pub(super) struct Cut {
    rows: usize,
    cols: usize,
    n_col_tiles: usize,
    n_tiles: usize,
}

impl Cut {
    fn new(Dims { m, n, k }: Dims, copied: bool) -> Self {
        let work = m.saturating_mul(n).saturating_mul(k.max(1));
        let wanted = (work / MIN_TILE).clamp(1, MAX_TILES);
        let most = |side: usize| side.div_ceil(MIN_SIDE).max(1);
        let (n_row_tiles, n_col_tiles) = if !copied && m <= READ_ROWS {
            // Columns first: the left operand is only read, and each panel of the right one is copied once.
            let cols = wanted.min(most(n));
            (wanted.div_ceil(cols).min(most(m)), cols)
        } else {
            // Rows first: each row of the left operand is copied, or comes from memory, once.
            let longest = if copied { COPIED_ROWS } else { READ_ROWS / 2 };
            let wanted = if copied { wanted.min(2).max((work / MIN_COPIED_TILE).min(MAX_TILES)) } else { wanted };
            let rows = wanted.min(m.div_ceil(longest / 2).max(1)).max(m.div_ceil(longest));
            (rows, wanted.div_ceil(rows).min(most(n)))
        };
        Self::into([m, n], [n_row_tiles, n_col_tiles])
    }

    /// For a kernel that copies both operands, the right one again for every `max_rows` rows: as many tiles as for one that copies, of the
    /// shape with the fewest copies.
    pub(super) fn copying(Dims { m, n, k }: Dims, max_rows: usize) -> Self {
        let work = m.saturating_mul(n).saturating_mul(k.max(1));
        let wanted = (work / MIN_TILE).clamp(1, 2).max((work / MIN_COPIED_TILE).min(MAX_TILES));
        let most = |side: usize| side.div_ceil(MIN_SIDE).max(1);
        let n_col_tiles = |n_row_tiles: usize| wanted.div_ceil(n_row_tiles).min(most(n));
        let copies = |n_row_tiles: &usize| m * n_col_tiles(*n_row_tiles) + n * (*n_row_tiles).max(m.div_ceil(max_rows));
        let n_row_tiles = (1..=wanted.min(most(m))).min_by_key(copies).unwrap_or(1);
        Self::into([m, n], [n_row_tiles, n_col_tiles(n_row_tiles)])
    }

    fn into([m, n]: [usize; 2], [n_row_tiles, n_col_tiles]: [usize; 2]) -> Self {
        let rows = m.div_ceil(n_row_tiles).max(1);
        // Whole panels, apart from the last.
        let cols = n.div_ceil(n_col_tiles).next_multiple_of(MIN_SIDE).max(MIN_SIDE);
        let n_col_tiles = n.div_ceil(cols).max(1);
        Cut { rows, cols, n_col_tiles, n_tiles: m.div_ceil(rows) * n_col_tiles }
    }
}

/// A task that threads may take: its tiles write disjoint parts of the result.
struct Shared<T>(Task<T>);

// SAFETY: the operands are only read and the parts of the result that tasks write are disjoint; all outlive the call.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// The tile that begins at row `i` and column `j` and has at most so many rows and columns.
    fn tile(&self, [i, j]: [usize; 2], [rows, cols]: [usize; 2]) -> Task<T> {
        let Task { dims: Dims { m, n, k }, a, b, c, .. } = self.0;
        let at = i * c.1 + j;
        Task {
            dims: Dims { m: rows.min(m - i), n: cols.min(n - j), k },
            a: (a.0.wrapping_add(i * a.1.row), a.1),
            b: (b.0.wrapping_add(j * b.1.col), b.1),
            c: (c.0.wrapping_add(at), c.1),
            start: match self.0.start {
                Start::Row(row) => Start::Row(row.wrapping_add(j)),
                start => start,
            },
            finish: match self.0.finish {
                Finish::Gate(gate) => Finish::Gate(gate.wrapping_add(at)),
                finish => finish,
            },
            row_sums: self.0.row_sums.filter(|_| j == 0).map(|sums| RowSums { into: sums.into.wrapping_add(i), ..sums }),
        }
    }
}

/// What the result of [`tiled`] starts from and ends as; rows and gates are slices here.
pub(crate) struct Fused<'a, T> {
    /// What a row starts from: a bias.
    pub start: Option<&'a [T]>,
    /// Whether the product is added to what is there; not beside `start`.
    pub add: bool,
    /// What is done at the end.
    pub finish: End<'a, T>,
    /// Where sums of the left operand's rows go; `add` holds for them too.
    pub row_sums: Option<&'a mut [T]>,
}

/// The end of an element.
#[derive(Clone, Copy)]
pub(crate) enum End<'a, T> {
    /// As it is.
    Store,
    /// max(·, 0).
    Relu,
    /// Zero where this, which lies like the result, is at most zero.
    Gate(&'a [T]),
}

/// c = a·b with what is fused to it; `c` is row-major and exactly `m·n` long, `a` and `b` have no gaps.
pub(crate) fn tiled<T: Real>(dims: Dims, a: (&[T], Strides), b: (&[T], Strides), c: &mut [T], fused: Fused<'_, T>) {
    tiled_by(dims, a, b, c, fused, |task| Cut::new(dims, task.copies_left()), run::<T>);
}

/// [`tiled`] by another kernel than that of the scalar: `run` computes a task, in tiles that `cut` says.
pub(super) fn tiled_by<T: Real>(
    dims: Dims,
    a: (&[T], Strides),
    b: (&[T], Strides),
    c: &mut [T],
    fused: Fused<'_, T>,
    cut: impl FnOnce(&Task<T>) -> Cut,
    run: unsafe fn(&Task<T>),
) {
    let Dims { m, n, k } = dims;
    // Nothing to write, however large the other side claims to be.
    if m == 0 || n == 0 && fused.row_sums.is_none() {
        return;
    }
    assert!(c.len() == m * n && a.0.len() == m * k && b.0.len() == k * n, "operands of a tiled product were checked by the caller");
    assert!(fused.start.is_none_or(|row| row.len() == n) && fused.row_sums.as_ref().is_none_or(|sums| sums.len() == m));
    let start = match fused.start {
        Some(row) => Start::Row(row.as_ptr()),
        None if fused.add => Start::Result,
        None => Start::Zero,
    };
    let finish = match fused.finish {
        End::Store => Finish::Store,
        End::Relu => Finish::Relu,
        End::Gate(gate) => {
            assert_eq!(gate.len(), c.len(), "a gate lies like the result");
            Finish::Gate(gate.as_ptr())
        }
    };
    let row_sums = fused.row_sums.map(|sums| RowSums { into: sums.as_mut_ptr(), add: fused.add });
    let whole = Shared(Task { dims, a: (a.0.as_ptr(), a.1), b: (b.0.as_ptr(), b.1), c: (c.as_mut_ptr(), n), start, finish, row_sums });
    let cut = cut(&whole.0);
    let tile = |idx: usize| {
        let begin = [idx / cut.n_col_tiles * cut.rows, idx % cut.n_col_tiles * cut.cols];
        // SAFETY: the tile lies inside the matrices (lengths asserted above), and tiles do not overlap.
        unsafe { run(&whole.tile(begin, [cut.rows, cut.cols])) };
    };
    match cut.n_tiles {
        1 => tile(0),
        n_tiles => (0..n_tiles).into_par_iter().for_each(tile),
    }
}
