//! The vector registers of AVX2 and AVX-512.

use super::vector::{Vector, transpose_each};
use std::arch::x86_64::*;

/// A register by the names of its intrinsics.
macro_rules! vector {
    ($name:ident: $register:ty, $scalar:ty, $lanes:literal;
     $zero:ident, $set1:ident, $loadu:ident, $storeu:ident, $add:ident, $fmadd:ident;
     load_first: |$from:ident, $n_load:ident| $load_first:expr;
     store_first: |$value:ident, $into:ident, $n_store:ident| $store_first:expr;
     gated: |$gated:ident, $gate:ident| $gate_body:expr;
     transpose: $transpose:path;) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name($register);

        impl Vector for $name {
            type Scalar = $scalar;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller has the instruction set.
                $name(unsafe { $zero() })
            }
            #[inline(always)]
            unsafe fn splat(from: *const $scalar) -> Self {
                // SAFETY: the caller has the instruction set and promises the pointer.
                $name(unsafe { $set1(*from) })
            }
            #[inline(always)]
            unsafe fn load(from: *const $scalar) -> Self {
                // SAFETY: as above.
                $name(unsafe { $loadu(from) })
            }
            #[inline(always)]
            unsafe fn load_first($from: *const $scalar, $n_load: usize) -> Self {
                // SAFETY: as above; masked lanes touch nothing.
                $name(unsafe { $load_first })
            }
            #[inline(always)]
            unsafe fn store(self, into: *mut $scalar) {
                // SAFETY: as above.
                unsafe { $storeu(into, self.0) }
            }
            #[inline(always)]
            unsafe fn store_first(self, $into: *mut $scalar, $n_store: usize) {
                let $value = self.0;
                // SAFETY: as above; masked lanes touch nothing.
                unsafe { $store_first }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: the caller has the instruction set.
                $name(unsafe { $add(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn multiply_add(self, factor: Self, sum: Self) -> Self {
                // SAFETY: the caller has the instruction set.
                $name(unsafe { $fmadd(self.0, factor.0, sum.0) })
            }
            #[inline(always)]
            unsafe fn gated(self, gate: Self) -> Self {
                let ($gated, $gate) = (self.0, gate.0);
                // SAFETY: the caller has the instruction set.
                $name(unsafe { $gate_body })
            }
            #[inline(always)]
            unsafe fn transpose(from: *const $scalar, stride: usize, n_lanes: usize, n_rows: usize, into: *mut $scalar, row_len: usize) {
                // SAFETY: the caller has the instruction set and promises the pointers. The number of lanes is a constant where it can be.
                unsafe {
                    if n_lanes == $lanes {
                        $transpose(from, stride, $lanes, n_rows, into, row_len)
                    } else {
                        $transpose(from, stride, n_lanes, n_rows, into, row_len)
                    }
                }
            }
        }
    };
}

/// Lanes below `n` of 16.
#[inline(always)]
fn mask16(n: usize) -> __mmask16 {
    ((1_u32 << n.min(16)) - 1) as __mmask16
}

/// Lanes below `n` of 8.
#[inline(always)]
fn mask8(n: usize) -> __mmask8 {
    ((1_u32 << n.min(8)) - 1) as __mmask8
}

/// All bits in the lanes below `n` of 8, as AVX2 wants it.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn wide_mask(n: usize) -> __m256i {
    const BITS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: eight numbers from an offset of at most eight.
    unsafe { _mm256_loadu_si256(BITS.as_ptr().add(8 - n.min(8)).cast()) }
}

/// All bits in the lanes below `n` of 4.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn wide_mask_f64(n: usize) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { wide_mask(2 * n.min(4)) }
}

vector! {
    Avx512F32: __m512, f32, 16;
    _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps;
    load_first: |from, n| _mm512_maskz_loadu_ps(mask16(n), from);
    store_first: |value, into, n| _mm512_mask_storeu_ps(into, mask16(n), value);
    gated: |value, gate| _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(gate, _mm512_setzero_ps()), value);
    transpose: transpose_16;
}

vector! {
    Avx512F64: __m512d, f64, 8;
    _mm512_setzero_pd, _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_add_pd, _mm512_fmadd_pd;
    load_first: |from, n| _mm512_maskz_loadu_pd(mask8(n), from);
    store_first: |value, into, n| _mm512_mask_storeu_pd(into, mask8(n), value);
    gated: |value, gate| _mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_NLE_UQ>(gate, _mm512_setzero_pd()), value);
    transpose: each::<Avx512F64>;
}

vector! {
    Avx2F32: __m256, f32, 8;
    _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_fmadd_ps;
    load_first: |from, n| _mm256_maskload_ps(from, wide_mask(n));
    store_first: |value, into, n| _mm256_maskstore_ps(into, wide_mask(n), value);
    gated: |value, gate| _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(gate, _mm256_setzero_ps()), value);
    transpose: transpose_8;
}

vector! {
    Avx2F64: __m256d, f64, 4;
    _mm256_setzero_pd, _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_add_pd, _mm256_fmadd_pd;
    load_first: |from, n| _mm256_maskload_pd(from, wide_mask_f64(n));
    store_first: |value, into, n| _mm256_maskstore_pd(into, wide_mask_f64(n), value);
    gated: |value, gate| _mm256_and_pd(_mm256_cmp_pd::<_CMP_NLE_UQ>(gate, _mm256_setzero_pd()), value);
    transpose: each::<Avx2F64>;
}

/// One number at a time.
///
/// # Safety
/// As [`Vector::transpose`].
#[inline(always)]
unsafe fn each<V: Vector>(from: *const V::Scalar, stride: usize, n_lanes: usize, n_rows: usize, into: *mut V::Scalar, row_len: usize) {
    // SAFETY: the caller promises it.
    unsafe { transpose_each::<V>(from, stride, n_lanes, 0..n_rows, into, row_len) }
}

/// Squares of 16 in registers: quarters are gathered on loading, so that two of the four rounds of shuffles are left.
///
/// # Safety
/// AVX-512F, and as [`Vector::transpose`].
#[inline(always)]
unsafe fn transpose_16(from: *const f32, stride: usize, n_lanes: usize, n_rows: usize, into: *mut f32, row_len: usize) {
    let whole = n_rows / 16 * 16;
    for i in (0..whole).step_by(16) {
        for quarter in 0..4 {
            // SAFETY: the caller promises the lanes of `n_rows` numbers, and 16 rows to write.
            unsafe {
                let from = from.add(i + 4 * quarter);
                // Quad q of register r holds rows 4·quarter.. of lane 4q + r.
                let mut rows = [_mm512_setzero_ps(); 4];
                for (r, row) in rows.iter_mut().enumerate() {
                    let quad = |q: usize| _mm_loadu_ps(from.add((4 * q + r).min(n_lanes - 1) * stride));
                    let low = _mm512_castps128_ps512(quad(0));
                    let low = _mm512_mask_broadcast_f32x4(low, 0x00f0, quad(1));
                    let low = _mm512_mask_broadcast_f32x4(low, 0x0f00, quad(2));
                    *row = _mm512_mask_broadcast_f32x4(low, 0xf000, quad(3));
                }
                let [a, b, c, d] = rows;
                let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                let into = into.add((i + 4 * quarter) * row_len);
                _mm512_storeu_ps(into, _mm512_shuffle_ps::<0x44>(ab_low, cd_low));
                _mm512_storeu_ps(into.add(row_len), _mm512_shuffle_ps::<0xee>(ab_low, cd_low));
                _mm512_storeu_ps(into.add(2 * row_len), _mm512_shuffle_ps::<0x44>(ab_high, cd_high));
                _mm512_storeu_ps(into.add(3 * row_len), _mm512_shuffle_ps::<0xee>(ab_high, cd_high));
            }
        }
    }
    // SAFETY: the rest of what the caller promises.
    unsafe { transpose_each::<Avx512F32>(from, stride, n_lanes, whole..n_rows, into, row_len) }
}

/// The same in squares of eight lanes by four rows.
///
/// # Safety
/// AVX2, and as [`Vector::transpose`].
#[inline(always)]
unsafe fn transpose_8(from: *const f32, stride: usize, n_lanes: usize, n_rows: usize, into: *mut f32, row_len: usize) {
    let whole = n_rows / 4 * 4;
    for i in (0..whole).step_by(4) {
        // SAFETY: the caller promises the lanes of `n_rows` numbers, and four rows to write.
        unsafe {
            let from = from.add(i);
            let mut rows = [_mm256_setzero_ps(); 4];
            for (r, row) in rows.iter_mut().enumerate() {
                let low = _mm256_castps128_ps256(_mm_loadu_ps(from.add(r.min(n_lanes - 1) * stride)));
                *row = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(from.add((4 + r).min(n_lanes - 1) * stride)));
            }
            let [a, b, c, d] = rows;
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let into = into.add(i * row_len);
            _mm256_storeu_ps(into, _mm256_shuffle_ps::<0x44>(ab_low, cd_low));
            _mm256_storeu_ps(into.add(row_len), _mm256_shuffle_ps::<0xee>(ab_low, cd_low));
            _mm256_storeu_ps(into.add(2 * row_len), _mm256_shuffle_ps::<0x44>(ab_high, cd_high));
            _mm256_storeu_ps(into.add(3 * row_len), _mm256_shuffle_ps::<0xee>(ab_high, cd_high));
        }
    }
    // SAFETY: the rest of what the caller promises.
    unsafe { transpose_each::<Avx2F32>(from, stride, n_lanes, whole..n_rows, into, row_len) }
}
