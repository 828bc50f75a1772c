//! Sums of rows in single precision with registers named: lines of 16 numbers, a store past the caches where the result is large.
//!
//! A plain store first fetches the line that it will overwrite; one past the caches (non-temporal) does not, which is a fourth of the traffic
//! of a sum of three rows. Products and sums are rounded one by one, as everywhere here, so the bits are those of the plain loop.

use super::Stores;
use half::bf16;
use std::arch::x86_64::*;

/// Numbers of a line: 64 bytes, what caches and memory exchange.
const LINE: usize = 16;

/// One row as this file reads it.
#[derive(Clone, Copy)]
pub(super) enum Piece<'a> {
    /// As it is.
    F32(&'a [f32]),
    /// To be widened.
    Bf16(&'a [bf16]),
}

impl Piece<'_> {
    fn len(&self) -> usize {
        match self {
            Piece::F32(values) => values.len(),
            Piece::Bf16(values) => values.len(),
        }
    }

    fn at(&self, idx: usize) -> f32 {
        match self {
            Piece::F32(values) => values[idx],
            Piece::Bf16(values) => values[idx].to_f32(),
        }
    }
}

/// A line in registers.
///
/// # Safety
/// Every function needs the instructions of its type; pointers are good for a line, `stream`'s is at a multiple of 64 bytes.
trait Line: Copy {
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn widen(from: *const bf16) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn stream(self, to: *mut f32);
}

impl Line for __m512 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn widen(from: *const bf16) -> Self {
        // A bf16 is the upper half of an f32.
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())))) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe { _mm512_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe { _mm512_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe { _mm512_stream_ps(to, self) }
    }
}

/// Half a line in each of two registers.
#[derive(Clone, Copy)]
struct Pair(__m256, __m256);

impl Line for Pair {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the contract of the trait is that of the intrinsics.
        let value = unsafe { _mm256_set1_ps(value) };
        Pair(value, value)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe { Pair(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn widen(from: *const bf16) -> Self {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe {
            let half =
                |from: *const bf16| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()))));
            Pair(half(from), half(from.add(8)))
        }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe { Pair(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe { Pair(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: the contract of the trait is that of the intrinsics.
        unsafe {
            _mm256_stream_ps(to, self.0);
            _mm256_stream_ps(to.add(8), self.1);
        }
    }
}

/// What a sum of rows begins with.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// Its first term; adding that to zero would turn -0 into 0.
    FirstTerm,
    /// These numbers, as many as the output has.
    From(&'a [f32]),
    /// What the output holds.
    Output,
}

/// Most rows that are read at once: more streams than the processor follows are slower than another pass over the sum.
pub(super) const GROUP: usize = 8;

/// out = start + Σ_k c_k row_k for at most [`GROUP`] rows, in order.
///
/// # Safety
/// The processor has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) unsafe fn add_rows_avx512(c: &[f32], rows: &[Piece<'_>], start: Start<'_>, out: &mut [f32], stores: Stores) {
    // SAFETY: passed on.
    unsafe { add_rows::<__m512>(c, rows, start, out, stores) }
}

/// The same with AVX2.
///
/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn add_rows_avx2(c: &[f32], rows: &[Piece<'_>], start: Start<'_>, out: &mut [f32], stores: Stores) {
    // SAFETY: passed on.
    unsafe { add_rows::<Pair>(c, rows, start, out, stores) }
}

#[inline(always)]
unsafe fn add_rows<V: Line>(c: &[f32], rows: &[Piece<'_>], start: Start<'_>, out: &mut [f32], stores: Stores) {
    assert!(c.len() == rows.len() && rows.iter().all(|row| row.len() == out.len()), "rows are as long as the output");
    assert!(!matches!(start, Start::From(values) if values.len() != out.len()), "the start is as long as the output");
    // SAFETY: the processor has what `V` needs; lengths were checked.
    unsafe {
        match rows.len() {
            1 => add_n::<V, 1>(c, rows, start, out, stores),
            2 => add_n::<V, 2>(c, rows, start, out, stores),
            3 => add_n::<V, 3>(c, rows, start, out, stores),
            4 => add_n::<V, 4>(c, rows, start, out, stores),
            5 => add_n::<V, 5>(c, rows, start, out, stores),
            6 => add_n::<V, 6>(c, rows, start, out, stores),
            7 => add_n::<V, 7>(c, rows, start, out, stores),
            _ => add_n::<V, GROUP>(c, rows, start, out, stores),
        }
    }
}

#[inline(always)]
unsafe fn add_n<V: Line, const N: usize>(c: &[f32], rows: &[Piece<'_>], start: Start<'_>, out: &mut [f32], stores: Stores) {
    let one = |idx: usize, out: &mut [f32]| {
        let mut sum = match start {
            Start::FirstTerm => c[0] * rows[0].at(idx),
            Start::From(values) => values[idx] + c[0] * rows[0].at(idx),
            Start::Output => out[idx] + c[0] * rows[0].at(idx),
        };
        for k in 1..N {
            sum += c[k] * rows[k].at(idx);
        }
        out[idx] = sum;
    };
    let n = out.len();
    // Number by number up to the first whole line of the output, and after its last.
    let head = out.as_ptr().align_offset(64).min(n);
    let whole = head + (n - head) / LINE * LINE;
    (0..head).for_each(|idx| one(idx, out));
    let is_mixed = rows.iter().any(|row| matches!(row, Piece::Bf16(_)));
    // SAFETY: `head..whole` is within the output and therefore within all that is as long; it begins at a multiple of 64 bytes.
    unsafe {
        match (stores, is_mixed) {
            (Stores::Cached, false) => lines::<V, N, false, false>(c, rows, start, out, head..whole),
            (Stores::Cached, true) => lines::<V, N, true, false>(c, rows, start, out, head..whole),
            (Stores::Streamed, false) => lines::<V, N, false, true>(c, rows, start, out, head..whole),
            (Stores::Streamed, true) => lines::<V, N, true, true>(c, rows, start, out, head..whole),
        }
    }
    (whole..n).for_each(|idx| one(idx, out));
}

/// The lines of `range`; `MIXED` says whether rows may be of bf16.
#[inline(always)]
unsafe fn lines<V: Line, const N: usize, const MIXED: bool, const STREAM: bool>(
    c: &[f32],
    rows: &[Piece<'_>],
    start: Start<'_>,
    out: &mut [f32],
    range: std::ops::Range<usize>,
) {
    // SAFETY: see the caller; a fence makes streamed stores visible before anything that follows.
    unsafe {
        let c: [V; N] = std::array::from_fn(|k| V::splat(c[k]));
        let is_bf16: [bool; N] = std::array::from_fn(|k| matches!(rows[k], Piece::Bf16(_)));
        let rows: [*const u8; N] = std::array::from_fn(|k| match rows[k] {
            Piece::F32(values) => values.as_ptr().cast(),
            Piece::Bf16(values) => values.as_ptr().cast(),
        });
        let to = out.as_mut_ptr();
        let before: *const f32 = match start {
            Start::FirstTerm => std::ptr::null(),
            Start::From(values) => values.as_ptr(),
            Start::Output => to,
        };
        for idx in range.step_by(LINE) {
            let term = |k: usize| {
                let line =
                    if MIXED && is_bf16[k] { V::widen(rows[k].cast::<bf16>().add(idx)) } else { V::load(rows[k].cast::<f32>().add(idx)) };
                c[k].mul(line)
            };
            let mut sum = if before.is_null() { term(0) } else { V::load(before.add(idx)).add(term(0)) };
            for k in 1..N {
                sum = sum.add(term(k));
            }
            if STREAM { sum.stream(to.add(idx)) } else { sum.store(to.add(idx)) }
        }
        if STREAM {
            _mm_sfence();
        }
    }
}
