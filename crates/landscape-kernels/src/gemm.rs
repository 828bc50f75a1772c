//! Matrix products on strided slices, by the `gemm` crate (AVX-512 where the processor has it).
//!
//! One call runs on one thread; callers cut the work themselves, by shape, so that bits never depend on the thread count.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::memory::{Accumulate, Real};

/// Length of the summed dimension that one sum goes over; longer ones are sums of sums, which round less.
const SEGMENT: usize = 256;

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
    unsafe { product(dims, (a.0.as_ptr(), a.1), (b.0.as_ptr(), b.1), (c.0.as_mut_ptr(), c.1), mode) }
}

/// The product itself, on pointers.
///
/// # Safety
/// Every element of `a` and `b` must be readable, every element of `c` writable and distinct, and nobody else may touch `c`'s.
pub(crate) unsafe fn product<T: Real>(dims: Dims, a: (*const T, Strides), b: (*const T, Strides), c: (*mut T, Strides), mode: Accumulate) {
    let mut mode = mode;
    // A product without a summed dimension still has to write its zeros.
    for start in (0..dims.k.max(1)).step_by(SEGMENT) {
        let a = (a.0.wrapping_add(start * a.1.col), a.1);
        let b = (b.0.wrapping_add(start * b.1.row), b.1);
        // SAFETY: the caller promises it of the whole, of which this is a part.
        unsafe { segment(Dims { k: SEGMENT.min(dims.k - start.min(dims.k)), ..dims }, a, b, c, mode) };
        mode = Accumulate::Add;
    }
}

/// The product over a part of the summed dimension.
///
/// # Safety
/// As [`product`].
unsafe fn segment<T: Real>(dims: Dims, a: (*const T, Strides), b: (*const T, Strides), c: (*mut T, Strides), mode: Accumulate) {
    // SAFETY: the caller promises it.
    unsafe {
        gemm::gemm(
            dims.m,
            dims.n,
            dims.k,
            c.0,
            c.1.col as isize,
            c.1.row as isize,
            mode == Accumulate::Add,
            a.0,
            a.1.col as isize,
            a.1.row as isize,
            b.0,
            b.1.col as isize,
            b.1.row as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The kernels that a matrix product chooses on this processor: `avx512`, `avx2` or `portable`.
///
/// Products round differently from one to another, so records of a run name it.
///
/// ```
/// assert!(["avx512", "avx2", "portable"].contains(&landscape_kernels::gemm::kernel_path()));
/// ```
pub fn kernel_path() -> &'static str {
    crate::simd::level().name()
}
