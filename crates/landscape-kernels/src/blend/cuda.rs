//! Launches of the weight-space kernels for GPUs; counts and lengths were checked.

use super::Row;
use crate::cuda::args::Plain;
use crate::cuda::place::Place;
use crate::cuda::{Cuda, Grid, Placed, Source, place, source};
use crate::error::Result;
use crate::memory::{Accumulate, Real, View, ViewMut};
use cudarc::driver::DeviceRepr;

/// `blend_*` and `spread_*`, which take a [`Table`].
pub(crate) const KERNELS: Source = source!("blend/kernels");

pub(crate) const MAX_ROWS: usize = 32;
const MAX_PIECES: usize = 160;
const MAX_POINTERS: usize = 640;
/// Bytes that a block writes: 256 threads, four vectors of 16 bytes each.
pub(crate) const BLOCK_BYTES: usize = 256 * 4 * 16;

/// What one launch works on, as `blend/kernels.cu` declares it: pieces of memory, each with a pointer per row and one for the point.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Table {
    pointer: [u64; MAX_POINTERS],
    c: [f64; MAX_ROWS],
    len: [i64; MAX_PIECES],
    first_block: [u32; MAX_PIECES + 1],
    n_rows: u32,
    n_pieces: u32,
    narrow: u32,
}

// SAFETY: plain numbers in C's layout, as the kernel declares them.
unsafe impl DeviceRepr for Table {}

impl Table {
    /// A table of rows with these coefficients, at most [`MAX_ROWS`]; bit k of `narrow` says that row k is of bf16.
    pub fn new(c: &[f64], narrow: u32) -> Self {
        let mut table = Table {
            pointer: [0; MAX_POINTERS],
            c: [0.0; MAX_ROWS],
            len: [0; MAX_PIECES],
            first_block: [0; MAX_PIECES + 1],
            n_rows: c.len() as u32,
            n_pieces: 0,
            narrow,
        };
        table.c[..c.len()].copy_from_slice(c);
        table
    }

    /// Adds a piece: the pointers of its rows, then that of the point; `scalar_bytes` is the size of the working type. Says whether there
    /// was room.
    pub fn push(&mut self, pointers: impl Iterator<Item = u64>, len: usize, scalar_bytes: usize) -> bool {
        let (piece, per_piece) = (self.n_pieces as usize, self.n_rows as usize + 1);
        if piece == MAX_PIECES || (piece + 1) * per_piece > MAX_POINTERS {
            return false;
        }
        for (place, pointer) in self.pointer[piece * per_piece..][..per_piece].iter_mut().zip(pointers) {
            *place = pointer;
        }
        self.len[piece] = len as i64;
        self.first_block[piece + 1] = self.first_block[piece] + (len * scalar_bytes).div_ceil(BLOCK_BYTES) as u32;
        self.n_pieces += 1;
        true
    }

    /// The blocks that the launch needs, of 256 threads.
    pub fn n_blocks(&self) -> usize {
        self.first_block[self.n_pieces as usize] as usize
    }
}

impl<'a, T> Placed<'a> for Row<'a, T> {
    fn place(&self) -> Place<'a> {
        match self {
            Row::Plain(row) => row.place(),
            Row::Bf16(row) => row.place(),
        }
    }
}

/// One row of a launch.
#[derive(Clone, Copy)]
struct Term {
    c: f64,
    pointer: u64,
    is_narrow: bool,
}

impl Term {
    fn of<T>(c: f64, row: &Row<'_, T>) -> Self {
        match row {
            Row::Plain(row) => Term { c, pointer: *pointer(row), is_narrow: false },
            Row::Bf16(row) => Term { c, pointer: *pointer(row), is_narrow: true },
        }
    }
}

pub(super) fn blend<T: Real>(cuda: &Cuda, c: &[f64], rows: &[Row<'_, T>], mut out: ViewMut<'_, T>) -> Result<()> {
    for row in rows {
        place("blend", &[("out", out.place()), ("row", row.place())])?;
    }
    let n = out.len();
    // Rows whose coefficient is zero are not read.
    let read: Vec<(f64, &Row<'_, T>)> = c.iter().copied().zip(rows).filter(|(c, _)| *c != 0.0).collect();
    match read.as_slice() {
        [] => return out.fill(T::ZERO),
        [(1.0, Row::Plain(row))] => return out.copy_from(*row),
        _ => {}
    }
    let terms: Vec<Term> = read.into_iter().map(|(c, row)| Term::of(c, row)).collect();
    // More rows than a table holds are added group by group, in the same order of sums: the sum so far is the first row of the next.
    let own = *pointer_mut(&mut out);
    let mut sum_so_far = None;
    let mut rest = terms.as_slice();
    while !rest.is_empty() {
        let (group, after) = rest.split_at(rest.len().min(MAX_ROWS - usize::from(sum_so_far.is_some())));
        let group: Vec<Term> = sum_so_far.into_iter().chain(group.iter().copied()).collect();
        (sum_so_far, rest) = (Some(Term { c: 1.0, pointer: own, is_narrow: false }), after);
        let c: Vec<f64> = group.iter().map(|term| term.c).collect();
        let narrow = group.iter().enumerate().map(|(k, term)| u32::from(term.is_narrow) << k).sum();
        let mut table = Table::new(&c, narrow);
        table.push(group.iter().map(|term| term.pointer).chain([own]), n, size_of::<T>());
        cuda.launch(&KERNELS, "blend", T::NAME, Grid::blocks(table.n_blocks(), Grid::THREADS), &[&Plain(table)])?;
    }
    Ok(())
}

pub(super) fn spread<T: Real>(cuda: &Cuda, c: &[f64], g: View<'_, T>, rows: &mut [Option<ViewMut<'_, T>>], mode: Accumulate) -> Result<()> {
    for row in rows.iter() {
        place("spread", &[("g", g.place()), ("row", row.place())])?;
    }
    let written: Vec<(f64, u64)> = c.iter().zip(rows).filter_map(|(c, row)| row.as_mut().map(|row| (*c, *pointer_mut(row)))).collect();
    for group in written.chunks(MAX_ROWS) {
        let (c, pointers): (Vec<f64>, Vec<u64>) = group.iter().copied().unzip();
        let mut table = Table::new(&c, 0);
        table.push(pointers.into_iter().chain([*pointer(&g)]), g.len(), size_of::<T>());
        cuda.launch(&KERNELS, "spread", T::NAME, Grid::blocks(table.n_blocks(), Grid::THREADS), &[&Plain(table), &mode])?;
    }
    Ok(())
}

/// Where a view begins on the device.
pub(crate) fn pointer<'v, T>(view: &'v View<'_, T>) -> &'v u64 {
    match view {
        View::Host(_) => unreachable!("operands of a launch are on the device: `place` saw to it"),
        View::Device(view) => view.pointer(),
    }
}

pub(crate) fn pointer_mut<'v, T>(view: &'v mut ViewMut<'_, T>) -> &'v u64 {
    match view {
        ViewMut::Host(_) => unreachable!("operands of a launch are on the device: `place` saw to it"),
        ViewMut::Device(view) => view.pointer(),
    }
}
