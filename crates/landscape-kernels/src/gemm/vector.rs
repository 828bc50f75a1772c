//! Vectors of the register blocks: what a product needs of an instruction set, and no more.
//!
//! Functions are inlined into callers that have the instruction set enabled; on their own they would be slow and, where the processor
//! lacks it, undefined.

use crate::memory::Real;

/// A vector register.
///
/// # Safety
/// Of every function: the processor has the instruction set, and pointers are good for what is read or written.
pub(super) trait Vector: Copy {
    /// What it holds.
    type Scalar: Real;
    /// How many of them.
    const LANES: usize;

    /// All zero.
    unsafe fn zero() -> Self;
    /// One number in every lane.
    unsafe fn splat(from: *const Self::Scalar) -> Self;
    /// All lanes from memory.
    unsafe fn load(from: *const Self::Scalar) -> Self;
    /// The first `n` lanes from memory, the others zero.
    unsafe fn load_first(from: *const Self::Scalar, n: usize) -> Self;
    /// All lanes to memory.
    unsafe fn store(self, into: *mut Self::Scalar);
    /// The first `n` lanes to memory.
    unsafe fn store_first(self, into: *mut Self::Scalar, n: usize);
    /// self + other.
    unsafe fn add(self, other: Self) -> Self;
    /// self·factor + sum, rounded once where the instruction set can.
    unsafe fn multiply_add(self, factor: Self, sum: Self) -> Self;
    /// Zero in the lanes where `gate` is at most zero.
    unsafe fn gated(self, gate: Self) -> Self;
    /// Writes `n_rows` rows of `LANES` numbers, `row_len` apart: number `lane` of row `i` is `from[lane · stride + i]` for lanes below
    /// `n_lanes`, and any of these behind.
    unsafe fn transpose(from: *const Self::Scalar, stride: usize, n_lanes: usize, n_rows: usize, into: *mut Self::Scalar, row_len: usize);
}

/// [`Vector::transpose`] one number at a time, for some of the rows.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn transpose_each<V: Vector>(
    from: *const V::Scalar,
    stride: usize,
    n_lanes: usize,
    rows: std::ops::Range<usize>,
    into: *mut V::Scalar,
    row_len: usize,
) {
    for i in rows {
        for lane in 0..V::LANES {
            // SAFETY: the caller promises it.
            unsafe {
                *into.add(i * row_len + lane) = *from.add(lane.min(n_lanes - 1) * stride + i);
            }
        }
    }
}

/// Plain numbers, for any processor.
#[derive(Clone, Copy)]
pub(super) struct Lanes<T, const N: usize>([T; N]);

impl<T: Real, const N: usize> Lanes<T, N> {
    #[inline(always)]
    fn each(mut self, f: impl Fn(T, usize) -> T) -> Self {
        for lane in 0..N {
            self.0[lane] = f(self.0[lane], lane);
        }
        self
    }
}

impl<T: Real, const N: usize> Vector for Lanes<T, N> {
    type Scalar = T;
    const LANES: usize = N;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Lanes([T::ZERO; N])
    }
    #[inline(always)]
    unsafe fn splat(from: *const T) -> Self {
        // SAFETY: the caller promises it.
        Lanes([unsafe { *from }; N])
    }
    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller promises it; arrays are as aligned as their elements.
        Lanes(unsafe { *from.cast() })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const T, n: usize) -> Self {
        // SAFETY: the caller promises it.
        Lanes([T::ZERO; N]).each(|zero, lane| if lane < n { unsafe { *from.add(lane) } } else { zero })
    }
    #[inline(always)]
    unsafe fn store(self, into: *mut T) {
        // SAFETY: the caller promises it; arrays are as aligned as their elements.
        unsafe { *into.cast() = self.0 }
    }
    #[inline(always)]
    unsafe fn store_first(self, into: *mut T, n: usize) {
        for lane in 0..n.min(N) {
            // SAFETY: the caller promises it.
            unsafe { *into.add(lane) = self.0[lane] }
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.each(|value, lane| value + other.0[lane])
    }
    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, sum: Self) -> Self {
        sum.each(|sum, lane| sum + self.0[lane] * factor.0[lane])
    }
    #[inline(always)]
    unsafe fn gated(self, gate: Self) -> Self {
        self.each(|value, lane| if gate.0[lane] <= T::ZERO { T::ZERO } else { value })
    }
    #[inline(always)]
    unsafe fn transpose(from: *const T, stride: usize, n_lanes: usize, n_rows: usize, into: *mut T, row_len: usize) {
        // SAFETY: the caller promises it.
        unsafe { transpose_each::<Self>(from, stride, n_lanes, 0..n_rows, into, row_len) }
    }
}
