//! Matrix products on strided slices: packed register blocks for AVX-512 and AVX2, plain loops for any other processor.
//!
//! [`gemm`] runs on one thread; callers cut the work themselves, by shape, so that bits never depend on the thread count.

mod vector;
#[cfg(target_arch = "x86_64")]
mod vector_x86;
mod block;
mod tiles;
mod bf16;
#[cfg(test)]
mod tests;

use tiles::{Cut, tiled, tiled_by};

pub(crate) use bf16::{gemm_in, tiled_in};
pub(crate) use tiles::{End, Fused};

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::memory::{Accumulate, Real};
use crate::precision::Precision;
use crate::simd::Level;
use block::{Finish, Kernel, Start, Task};
use std::any::TypeId;

/// A matrix inside a slice: element (i, j) stands at `offset + i·row_stride + j·col_stride`.
#[derive(Debug, Clone, Copy)]
pub struct Strides {
    /// Distance from a row to the next.
    pub row: usize,
    /// Distance from a column to the next.
    pub col: usize,
}

impl Strides {
    /// Row-major with `n_cols` columns.
    pub const fn row_major(n_cols: usize) -> Self {
        Strides { row: n_cols, col: 1 }
    }

    /// The transpose of a row-major matrix whose rows have `n_cols` elements.
    pub const fn transposed(n_cols: usize) -> Self {
        Strides { row: 1, col: n_cols }
    }
}

/// The sizes of a product: `[m, k] x [k, n] -> [m, n]`.
#[derive(Debug, Clone, Copy)]
pub struct Dims {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// The summed dimension.
    pub k: usize,
}

/// c = a·b, or c += a·b, on the calling thread.
///
/// # Panics
/// If a matrix reaches past the end of its slice.
pub fn gemm<T: Real>(dims: Dims, a: (&[T], Strides), b: (&[T], Strides), c: (&mut [T], Strides), mode: Accumulate) {
    gemm_by(dims, a, b, c, mode, run::<T>);
}

/// [`gemm`] by another kernel than that of the scalar.
fn gemm_by<T: Real>(
    dims: Dims,
    a: (&[T], Strides),
    b: (&[T], Strides),
    c: (&mut [T], Strides),
    mode: Accumulate,
    run: unsafe fn(&Task<T>),
) {
    let Dims { m, n, k } = dims;
    if m == 0 || n == 0 {
        return;
    }
    let reach = |s: Strides, rows: usize, cols: usize| (rows - 1) * s.row + (cols - 1) * s.col + 1;
    assert!(c.0.len() >= reach(c.1, m, n), "result of a matrix product is too short");
    if k > 0 {
        assert!(a.0.len() >= reach(a.1, m, k), "left operand of a matrix product is too short");
        assert!(b.0.len() >= reach(b.1, k, n), "right operand of a matrix product is too short");
    }
    // SAFETY: the three matrices lie inside their slices (asserted above), the destination is borrowed exclusively, and
    // its elements are distinct because both strides come from row-major layouts.
    unsafe { product(dims, (a.0.as_ptr(), a.1), (b.0.as_ptr(), b.1), (c.0.as_mut_ptr(), c.1), mode, run) }
}

/// The product itself, on pointers.
///
/// # Safety
/// Every element of `a` and `b` must be readable, every element of `c` writable and distinct, and nobody else may touch `c`'s.
///
/// # Panics
/// If neither rows nor columns of the result are contiguous.
unsafe fn product<T: Real>(
    dims: Dims,
    a: (*const T, Strides),
    b: (*const T, Strides),
    c: (*mut T, Strides),
    mode: Accumulate,
    run: unsafe fn(&Task<T>),
) {
    if dims.m == 0 || dims.n == 0 {
        return;
    }
    let start = match mode {
        Accumulate::Overwrite => Start::Zero,
        Accumulate::Add => Start::Result,
    };
    let task = if c.1.col == 1 {
        Task { dims, a, b, c: (c.0, c.1.row), start, finish: Finish::Store, row_sums: None }
    } else {
        // The transpose of the result is the product of the transposes.
        assert_eq!(c.1.row, 1, "a result has contiguous rows or contiguous columns");
        let turned = |s: Strides| Strides { row: s.col, col: s.row };
        let dims = Dims { m: dims.n, n: dims.m, k: dims.k };
        let (a, b) = ((b.0, turned(b.1)), (a.0, turned(a.1)));
        Task { dims, a, b, c: (c.0, c.1.col), start, finish: Finish::Store, row_sums: None }
    };
    // SAFETY: the caller promises it.
    unsafe { run(&task) }
}

/// Runs a task on this thread, at the level of [`crate::simd::level`].
///
/// # Safety
/// As [`product`] for the task's operands; a row that the result starts from, a gate and the sums of rows reach as far as the result does.
pub(crate) unsafe fn run<T: Real>(task: &Task<T>) {
    // SAFETY: the level says that the processor has the instructions, a task is cast to the scalar that it has already, and the caller
    // promises the rest.
    unsafe {
        if TypeId::of::<T>() == TypeId::of::<f32>() {
            let task = &*std::ptr::from_ref(task).cast();
            match crate::simd::level() {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => block::Avx512Single::task(task),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => block::Avx2Single::task(task),
                _ => block::PortableSingle::task(task),
            }
        } else {
            let task = &*std::ptr::from_ref(task).cast();
            match crate::simd::level() {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => block::Avx512Double::task(task),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => block::Avx2Double::task(task),
                _ => block::PortableDouble::task(task),
            }
        }
    }
}

/// The kernels that products in this precision choose on this processor: `avx512-bf16`, `avx512`, `avx2` or `portable`.
///
/// Products round differently from one to another, so records of a run name it.
///
/// ```
/// use landscape_kernels::{Precision, gemm::kernel_path};
/// assert!(["avx512", "avx2", "portable"].contains(&kernel_path(Precision::F32)));
/// ```
pub fn kernel_path(precision: Precision) -> &'static str {
    if precision == Precision::Bf16 && crate::pairs::are_fast() { "avx512-bf16" } else { crate::simd::level().name() }
}
