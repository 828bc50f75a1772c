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
use std::marker::PhantomData;

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

    /// How far a matrix of at least one row and one column reaches.
    fn reach(self, rows: usize, cols: usize) -> usize {
        (rows - 1) * self.row + (cols - 1) * self.col + 1
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
    if dims.m == 0 || dims.n == 0 {
        return;
    }
    assert!(c.0.len() >= c.1.reach(dims.m, dims.n), "result of a matrix product is too short");
    // SAFETY: the result lies inside its slice (asserted above), which is borrowed exclusively, and
    // its elements are distinct because both strides come from row-major layouts.
    unsafe { gemm_into(dims, a, b, (c.0.as_mut_ptr(), c.1), mode, run) }
}

/// [`gemm_by`] into a matrix between whose elements others may write.
///
/// # Safety
/// Every element of `c` must be writable and distinct, and nobody else may touch them.
///
/// # Panics
/// If an operand reaches past the end of its slice.
unsafe fn gemm_into<T: Real>(
    dims: Dims,
    a: (&[T], Strides),
    b: (&[T], Strides),
    c: (*mut T, Strides),
    mode: Accumulate,
    run: unsafe fn(&Task<T>),
) {
    let Dims { m, n, k } = dims;
    if m > 0 && n > 0 && k > 0 {
        assert!(a.0.len() >= a.1.reach(m, k), "left operand of a matrix product is too short");
        assert!(b.0.len() >= b.1.reach(k, n), "right operand of a matrix product is too short");
    }
    // SAFETY: the operands lie inside their slices (asserted above); the caller promises the result.
    unsafe { product(dims, (a.0.as_ptr(), a.1), (b.0.as_ptr(), b.1), c, mode, run) }
}

/// A slice that several threads write matrices into, no two of them the same element.
pub(crate) struct Scattered<'a, T> {
    values: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: whoever writes promises that nobody else touches those elements.
unsafe impl<T: Send> Sync for Scattered<'_, T> {}

impl<'a, T: Real> Scattered<'a, T> {
    pub fn new(values: &'a mut [T]) -> Self {
        Scattered { values: values.as_mut_ptr(), len: values.len(), borrow: PhantomData }
    }

    /// c = a·b, or c += a·b, on the calling thread; `c` begins at `at` and has contiguous rows.
    ///
    /// # Safety
    /// Nobody else may touch these elements of the slice meanwhile, and the rows of `c` must not overlap.
    ///
    /// # Panics
    /// If a matrix reaches past the end of its slice.
    pub unsafe fn gemm(&self, dims: Dims, a: (&[T], Strides), b: (&[T], Strides), (at, row): (usize, usize), mode: Accumulate) {
        if dims.m == 0 || dims.n == 0 {
            return;
        }
        let strides = Strides::row_major(row);
        assert!(at <= self.len && self.len - at >= strides.reach(dims.m, dims.n), "result of a matrix product is too short");
        // SAFETY: the result lies inside the slice (asserted above); the caller promises that its elements are its own and distinct.
        unsafe { gemm_into(dims, a, b, (self.values.add(at), strides), mode, run::<T>) }
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// Nobody else may touch it while it is borrowed.
    ///
    /// # Panics
    /// If it reaches past the end.
    #[allow(clippy::mut_from_ref)] // The caller promises what the borrow checker cannot see.
    pub unsafe fn part(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at <= self.len && self.len - at >= len, "a part lies inside of its slice");
        // SAFETY: it lies inside the slice (asserted above); the caller promises that it is its own.
        unsafe { std::slice::from_raw_parts_mut(self.values.add(at), len) }
    }
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
