//! The vectors that register blocks are written over: 16, 8 or 4 single-precision numbers.
//!
//! Everything is inlined into a function that is compiled for the instruction set in question; nothing here is called from anywhere
//! else, which is what makes the intrinsics sound (see [`Vector`]).

/// Numbers of a line of the cache.
pub(super) const LINE: usize = 16;

/// A vector register of single-precision numbers.
///
/// # Safety
/// Every function needs the instruction set of the implementor on the running processor; pointers must be good for `LANES` numbers,
/// or for the lanes of the mask, or for one number where it says so.
pub(super) trait Vector: Copy {
    /// Numbers of a vector, at most 16.
    const LANES: usize;
    /// Which lanes to touch.
    type Mask: Copy;
    /// The first `n` lanes.
    unsafe fn mask(n: usize) -> Self::Mask;
    /// Zeros.
    unsafe fn zero() -> Self;
    /// One number in every lane.
    unsafe fn splat(from: *const f32) -> Self;
    /// `LANES` numbers.
    unsafe fn load(from: *const f32) -> Self;
    /// The lanes of the mask, zeros elsewhere.
    unsafe fn load_masked(mask: Self::Mask, from: *const f32) -> Self;
    /// Stores the lanes of the mask.
    unsafe fn store_masked(self, mask: Self::Mask, into: *mut f32);
    /// self + other.
    unsafe fn add(self, other: Self) -> Self;
    /// self + a·b, fused where the processor can.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
}

/// Asks for the line at `address`, which is going to be written.
#[inline(always)]
pub(super) fn prefetch_to_write(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint touches nothing, whatever the address; processors without it do nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks for the line at `address` in the second-level cache.
#[inline(always)]
pub(super) fn prefetch_to_read(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint touches nothing, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    impl Vector for __m512 {
        const LANES: usize = 16;
        type Mask = __mmask16;

        #[inline(always)]
        unsafe fn mask(n: usize) -> __mmask16 {
            ((1_u32 << n) - 1) as __mmask16
        }
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: by the trait's condition, as everywhere in these two implementations.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_set1_ps(*from) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn load_masked(mask: __mmask16, from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_maskz_loadu_ps(mask, from) }
        }
        #[inline(always)]
        unsafe fn store_masked(self, mask: __mmask16, into: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm512_mask_storeu_ps(into, mask, self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_fmadd_ps(a, b, self) }
        }
    }

    impl Vector for __m256 {
        const LANES: usize = 8;
        type Mask = __m256i;

        #[inline(always)]
        unsafe fn mask(n: usize) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
        }
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as above.
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_set1_ps(*from) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn load_masked(mask: __m256i, from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_maskload_ps(from, mask) }
        }
        #[inline(always)]
        unsafe fn store_masked(self, mask: __m256i, into: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm256_maskstore_ps(into, mask, self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_fmadd_ps(a, b, self) }
        }
    }
}

/// Four numbers as an array, which the compiler keeps in whatever registers the target has.
#[derive(Clone, Copy)]
pub(super) struct Four([f32; 4]);

impl Vector for Four {
    const LANES: usize = 4;
    type Mask = usize;

    #[inline(always)]
    unsafe fn mask(n: usize) -> usize {
        n
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        Four([0.0; 4])
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: by the trait's condition, as below.
        Four([unsafe { *from }; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above; an array of numbers may be read from any address that is good for them.
        Four(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_masked(n: usize, from: *const f32) -> Self {
        if n == 4 {
            // SAFETY: as above.
            return unsafe { Self::load(from) };
        }
        let mut out = [0.0; 4];
        for (i, v) in out.iter_mut().enumerate().take(n) {
            // SAFETY: as above.
            *v = unsafe { *from.add(i) };
        }
        Four(out)
    }
    #[inline(always)]
    unsafe fn store_masked(self, n: usize, into: *mut f32) {
        if n == 4 {
            // SAFETY: as above.
            return unsafe { into.cast::<[f32; 4]>().write_unaligned(self.0) };
        }
        for (i, &v) in self.0.iter().enumerate().take(n) {
            // SAFETY: as above.
            unsafe { *into.add(i) = v };
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        Four([a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]])
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        let (s, a, b) = (self.0, a.0, b.0);
        Four([s[0] + a[0] * b[0], s[1] + a[1] * b[1], s[2] + a[2] * b[2], s[3] + a[3] * b[3]])
    }
}
