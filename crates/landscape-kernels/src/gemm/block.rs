//! The packed product on one thread.
//!
//! The summed dimension is cut into segments. For each, panels of the right operand (as wide as a register block) are copied together on
//! the stack, so that the inner loop reads them in order; the left operand is read where it lies if its rows are contiguous, else copied
//! in the order in which blocks read it. A register block keeps its sums in registers over a segment and then adds them to the result:
//! a sum of sums rounds less than one long sum. Which block an element falls into never changes the order of its sum.

use super::vector::{Lanes, Vector};
#[cfg(target_arch = "x86_64")]
use super::vector_x86::{Avx2F32, Avx2F64, Avx512F32, Avx512F64};
use super::{Dims, Strides};
use crate::memory::Real;
use crate::parallel::split_range;
use std::mem::MaybeUninit;

/// Length of the summed dimension that one sum goes over at most.
pub(super) const SEGMENT: usize = 256;
/// Rows of a left operand that is copied: its copy of a segment stays in the second-level cache.
pub(super) const COPIED_ROWS: usize = 128;
/// Rows of a left operand that is read where it lies.
pub(super) const READ_ROWS: usize = 512;
/// Columns of the widest panel.
const PANEL: usize = 32;
/// Rows of the longest block.
const MAX_ROWS: usize = 12;

/// What the result starts from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<T> {
    /// Nothing: what was there is replaced.
    Zero,
    /// What is there.
    Result,
    /// One row of `n` numbers, the same for every row.
    Row(*const T),
}

/// What is done with a finished element.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Finish<T> {
    /// It is stored.
    Store,
    /// max(·, 0).
    Relu,
    /// Zero where this matrix, which lies like the result, is at most zero.
    Gate(*const T),
}

/// Sums of the left operand's rows over the summed dimension, which come by the way where it is copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSums<T> {
    /// One number per row of the left operand.
    pub into: *mut T,
    /// Whether they are added to what is there.
    pub add: bool,
}

/// One product: `c = finish(start + a·b)`, with `c`'s rows `c_row` apart and its columns next to each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<T> {
    pub dims: Dims,
    pub a: (*const T, Strides),
    pub b: (*const T, Strides),
    pub c: (*mut T, usize),
    pub start: Start<T>,
    pub finish: Finish<T>,
    pub row_sums: Option<RowSums<T>>,
}

/// A register block of `P` rows and `W` vectors over one segment.
pub(super) struct Block<T> {
    k: usize,
    a: *const T,
    a_row: usize,
    panel: *const T,
    c: *mut T,
    c_row: usize,
    n_columns: usize,
    start: Start<T>,
    finish: Finish<T>,
}

/// An instruction set's vector and its functions.
pub(super) trait Kernel {
    /// The register.
    type Vector: Vector;
    /// Rows of a block beside two vectors.
    const ROWS: usize;
    /// Runs a block of `rows` rows and `width` vectors.
    ///
    /// # Safety
    /// The processor has the instruction set, and every pointer reaches as far as the block's sizes say.
    unsafe fn block(rows: usize, width: usize, copied: bool, block: &Block<Scalar<Self>>);
    /// Runs a task.
    ///
    /// # Safety
    /// As [`run`], and the processor has the instruction set.
    unsafe fn task(task: &Task<Scalar<Self>>);
}

type Scalar<K> = <<K as Kernel>::Vector as Vector>::Scalar;

/// The body of a block; `COPIED` tells the order of the left operand: `[k][P]` or rows of `a_row`.
///
/// # Safety
/// As [`Kernel::block`].
#[inline(always)]
#[allow(clippy::needless_range_loop)] // Indices are the names of registers here.
unsafe fn block<V: Vector, const P: usize, const W: usize, const COPIED: bool>(block: &Block<V::Scalar>) {
    // SAFETY: the caller promises the instruction set and the pointers.
    unsafe {
        let mut sums = [[V::zero(); W]; P];
        let mut at = [block.a; P];
        for p in 0..P {
            at[p] = at[p].wrapping_add(p * if COPIED { 1 } else { block.a_row });
        }
        let mut panel = block.panel;
        let mut i = 0;
        macro_rules! step {
            ($i:expr) => {
                let mut right = [V::zero(); W];
                for v in 0..W {
                    right[v] = V::load(panel.add(v * V::LANES));
                }
                for p in 0..P {
                    let left = V::splat(if COPIED { block.a.add($i * P + p) } else { at[p].add($i) });
                    for v in 0..W {
                        sums[p][v] = left.multiply_add(right[v], sums[p][v]);
                    }
                }
                panel = panel.add(W * V::LANES);
            };
        }
        while i < block.k {
            step!(i);
            i += 1;
        }
        // Choices stand outside the loops: these must be short enough to be unrolled, or the sums would not stay in registers.
        let is_whole = block.n_columns >= W * V::LANES;
        let lanes = |v: usize| block.n_columns.saturating_sub(v * V::LANES).min(V::LANES);
        let at = |p: usize, v: usize| p * block.c_row + v * V::LANES;
        macro_rules! each {
            (|$p:ident, $v:ident, $sum:ident| $new:expr) => {
                for $p in 0..P {
                    for $v in 0..W {
                        let $sum = sums[$p][$v];
                        sums[$p][$v] = $new;
                    }
                }
            };
        }
        match block.start {
            Start::Zero => {}
            Start::Result if is_whole => each!(|p, v, sum| V::load(block.c.add(at(p, v))).add(sum)),
            Start::Result => each!(|p, v, sum| V::load_first(block.c.wrapping_add(at(p, v)), lanes(v)).add(sum)),
            Start::Row(row) => {
                let mut from = [V::zero(); W];
                for v in 0..W {
                    from[v] = V::load_first(row.wrapping_add(v * V::LANES), lanes(v));
                }
                each!(|p, v, sum| from[v].add(sum));
            }
        }
        match block.finish {
            Finish::Store => {}
            Finish::Relu => each!(|p, v, sum| sum.gated(sum)),
            Finish::Gate(gate) => each!(|p, v, sum| sum.gated(V::load_first(gate.wrapping_add(at(p, v)), lanes(v)))),
        }
        for p in 0..P {
            for v in 0..W {
                if is_whole {
                    sums[p][v].store(block.c.add(at(p, v)));
                } else {
                    sums[p][v].store_first(block.c.wrapping_add(at(p, v)), lanes(v));
                }
            }
        }
    }
}

/// Memory on the stack, as aligned as a cache line.
#[repr(align(64))]
struct Buffer<T, const N: usize>([MaybeUninit<T>; N]);

impl<T, const N: usize> Buffer<T, N> {
    #[inline(always)]
    fn new() -> Self {
        Buffer([const { MaybeUninit::uninit() }; N])
    }

    #[inline(always)]
    fn start(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }
}

impl<T> Task<T> {
    /// Whether the left operand is copied before it is read.
    pub(super) fn copies_left(&self) -> bool {
        self.a.1.col != 1 || self.row_sums.is_some()
    }
}

/// A product, panel by panel.
///
/// # Safety
/// As [`run`]; to be inlined where the instruction set is enabled.
#[inline(always)]
unsafe fn body<K: Kernel>(task: &Task<Scalar<K>>) {
    let Dims { m, n, k } = task.dims;
    let copied = task.copies_left();
    let mut panel = Buffer::<Scalar<K>, { PANEL * SEGMENT }>::new();
    // A copied row ends with a whole vector: the last one reaches behind the others, and is read so far by their sums.
    let mut left = Buffer::<Scalar<K>, { COPIED_ROWS * SEGMENT + PANEL }>::new();
    let (panel, left) = (panel.start(), left.start());
    let lanes = K::Vector::LANES;
    let n_segments = k.div_ceil(SEGMENT).max(1);
    let chunk = if copied { COPIED_ROWS } else { READ_ROWS };
    for first_row in (0..m).step_by(chunk) {
        let rows = chunk.min(m - first_row);
        let n_blocks = rows.div_ceil(K::ROWS);
        let mut totals = [0.0_f64; COPIED_ROWS];
        for segment in 0..n_segments {
            let range = split_range(k, n_segments, segment);
            let (from, k) = (range.start, range.len());
            let a = task.a.0.wrapping_add(first_row * task.a.1.row + from * task.a.1.col);
            if copied {
                for idx in 0..n_blocks {
                    let block_rows = split_range(rows, n_blocks, idx);
                    // SAFETY: at most `COPIED_ROWS` rows of at most `SEGMENT` numbers; the rows are in `a`, the caller promises.
                    unsafe {
                        let into = left.add(block_rows.start * k);
                        copy_left::<K::Vector>(a.wrapping_add(block_rows.start * task.a.1.row), task.a.1, block_rows.len(), k, into);
                        if task.row_sums.is_some() {
                            add_rows::<K>(into, k, &mut totals[block_rows]);
                        }
                    }
                }
            }
            for first in (0..n).step_by(2 * lanes) {
                let n_columns = (n - first).min(2 * lanes);
                let width = n_columns.div_ceil(lanes);
                let b = task.b.0.wrapping_add(from * task.b.1.row + first * task.b.1.col);
                // SAFETY: a panel is at most `PANEL` wide and `SEGMENT` long; the caller promises the operands.
                unsafe { copy_right::<K::Vector>(b, task.b.1, k, n_columns, width, panel) };
                for idx in 0..n_blocks {
                    let block_rows = split_range(rows, n_blocks, idx);
                    let at = (first_row + block_rows.start) * task.c.1 + first;
                    let block = Block {
                        k,
                        a: if copied { left.wrapping_add(block_rows.start * k) } else { a.wrapping_add(block_rows.start * task.a.1.row) },
                        a_row: task.a.1.row,
                        panel,
                        c: task.c.0.wrapping_add(at),
                        c_row: task.c.1,
                        n_columns,
                        start: match task.start {
                            _ if segment > 0 => Start::Result,
                            Start::Row(row) => Start::Row(row.wrapping_add(first)),
                            start => start,
                        },
                        finish: match task.finish {
                            _ if segment + 1 < n_segments => Finish::Store,
                            Finish::Gate(gate) => Finish::Gate(gate.wrapping_add(at)),
                            finish => finish,
                        },
                    };
                    // SAFETY: the block lies inside the three matrices, as the caller promises, and inside the copies made above.
                    unsafe { K::block(block_rows.len(), width, copied, &block) };
                }
            }
        }
        if let Some(sums) = task.row_sums {
            for (row, &total) in totals[..rows].iter().enumerate() {
                // SAFETY: the caller promises one number per row.
                unsafe {
                    let into = sums.into.add(first_row + row);
                    let total = Scalar::<K>::from_f64(total);
                    *into = if sums.add { *into + total } else { total };
                }
            }
        }
    }
}

/// Copies `rows` rows and `k` columns of the left operand to `[k][rows]`, and up to a vector of anything behind it.
///
/// # Safety
/// `a` can be read that far, `into` be written.
#[inline(always)]
unsafe fn copy_left<V: Vector>(a: *const V::Scalar, strides: Strides, rows: usize, k: usize, into: *mut V::Scalar) {
    for i in 0..k {
        // SAFETY: the caller promises it; a row's end is written over by the next one.
        unsafe {
            if strides.row == 1 {
                let from = a.add(i * strides.col);
                for first in (0..rows).step_by(V::LANES) {
                    V::load_first(from.add(first), rows - first).store(into.add(i * rows + first));
                }
            } else {
                for row in 0..rows {
                    *into.add(i * rows + row) = *a.add(row * strides.row + i * strides.col);
                }
            }
        }
    }
}

/// totals\[row\] += Σ_i copy\[i\]\[row\].
///
/// # Safety
/// `copy` holds `k` times as many numbers as there are totals, at most `K::ROWS`, and may be read that far behind its end.
#[inline(always)]
unsafe fn add_rows<K: Kernel>(copy: *const Scalar<K>, k: usize, totals: &mut [f64]) {
    let mut sums = [0.0; MAX_ROWS];
    for i in 0..k {
        // As many as a block may have: a loop of constant length over what may belong to the next row.
        for (row, sum) in sums[..K::ROWS].iter_mut().enumerate() {
            // SAFETY: the caller promises it.
            *sum += unsafe { *copy.add(i * totals.len() + row) }.to_f64();
        }
    }
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total += sum;
    }
}

/// Copies `k` rows and `n_columns` columns of the right operand to `[k][width vectors]`, with zeros at the end of a row.
///
/// # Safety
/// `b` can be read that far, `into` be written.
#[inline(always)]
unsafe fn copy_right<V: Vector>(b: *const V::Scalar, strides: Strides, k: usize, n_columns: usize, width: usize, into: *mut V::Scalar) {
    let row_len = width * V::LANES;
    for v in 0..width {
        let lanes = (n_columns - v * V::LANES).min(V::LANES);
        let (from, into) = (b.wrapping_add(v * V::LANES * strides.col), into.wrapping_add(v * V::LANES));
        // SAFETY: the caller promises it.
        unsafe {
            if strides.col == 1 && lanes == V::LANES {
                for i in 0..k {
                    V::load(from.add(i * strides.row)).store(into.add(i * row_len));
                }
            } else if strides.col == 1 {
                for i in 0..k {
                    V::load_first(from.add(i * strides.row), lanes).store(into.add(i * row_len));
                }
            } else if strides.row == 1 {
                V::transpose(from, strides.col, lanes, k, into, row_len);
            } else {
                for i in 0..k {
                    for lane in 0..V::LANES {
                        let value = if lane < lanes { *from.add(i * strides.row + lane * strides.col) } else { V::Scalar::ZERO };
                        *into.add(i * row_len + lane) = value;
                    }
                }
            }
        }
    }
}

/// An instruction set: its name here, its vector, its features and how many rows its blocks have.
macro_rules! kernel {
    ($name:ident, $vector:ty, [$($rows:literal)*], $max:literal $(, $features:literal)?) => {
        pub(super) struct $name;

        impl Kernel for $name {
            type Vector = $vector;
            const ROWS: usize = $max;

            unsafe fn block(rows: usize, width: usize, copied: bool, block: &Block<Scalar<Self>>) {
                $(#[target_feature(enable = $features)])?
                unsafe fn one<const P: usize, const W: usize, const COPIED: bool>(this: &Block<Scalar<$name>>) {
                    // SAFETY: the caller promises it.
                    unsafe { super::block::block::<$vector, P, W, COPIED>(this) }
                }
                // SAFETY: the caller promises it.
                unsafe {
                    match (rows, width, copied) {
                        $(
                            ($rows, 1, false) => one::<$rows, 1, false>(block),
                            ($rows, 1, true) => one::<$rows, 1, true>(block),
                            ($rows, _, false) => one::<$rows, 2, false>(block),
                            ($rows, _, true) => one::<$rows, 2, true>(block),
                        )*
                        _ => unreachable!("a block has at most {} rows", $max),
                    }
                }
            }

            unsafe fn task(task: &Task<Scalar<Self>>) {
                $(#[target_feature(enable = $features)])?
                unsafe fn whole(task: &Task<Scalar<$name>>) {
                    // SAFETY: the caller promises it.
                    unsafe { body::<$name>(task) }
                }
                // SAFETY: the caller promises it.
                unsafe { whole(task) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(Avx512Single, Avx512F32, [1 2 3 4 5 6 7 8 9 10 11 12], 12, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
#[cfg(target_arch = "x86_64")]
kernel!(Avx512Double, Avx512F64, [1 2 3 4 5 6 7 8 9 10 11 12], 12, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
#[cfg(target_arch = "x86_64")]
kernel!(Avx2Single, Avx2F32, [1 2 3 4 5 6], 6, "avx2,fma");
#[cfg(target_arch = "x86_64")]
kernel!(Avx2Double, Avx2F64, [1 2 3 4 5 6], 6, "avx2,fma");
kernel!(PortableSingle, Lanes<f32, 4>, [1 2 3 4 5 6], 6);
kernel!(PortableDouble, Lanes<f64, 2>, [1 2 3 4 5 6], 6);
