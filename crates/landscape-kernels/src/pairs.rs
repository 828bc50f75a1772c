//! Pairs of numbers rounded to bf16, as `vdpbf16ps` takes them: 32 bits, the first of the pair in the lower half.

/// Whether this process computes on pairs: its level has the instructions, and the processor AVX512-BF16 too.
#[inline]
pub(crate) fn are_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        crate::simd::level() == crate::simd::Level::Avx512 && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::*;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    /// Pairs of a vector.
    pub(crate) const LANES: usize = 16;

    /// Lanes below `n` of 16.
    #[inline(always)]
    pub(crate) fn mask(n: usize) -> __mmask16 {
        ((1_u32 << n.min(LANES)) - 1) as __mmask16
    }

    /// sums + the products of both halves of `a` and `b`: the second halves first.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(crate) fn add_products(sums: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: only the names of the types change.
        let (a, b) = unsafe { (transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b)) };
        _mm512_dpbf16_ps(sums, a, b)
    }

    /// 32 numbers, the first 16 of them in `low`, rounded.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn rounded(low: __m512, high: __m512) -> __m512i {
        let both: __m512bh = _mm512_cvtne2ps_pbh(high, low);
        // SAFETY: only the name of the type changes.
        unsafe { transmute(both) }
    }

    /// into\[i\] = (first\[i\], second\[i\]) for `i` below `n`, a multiple of 16 or less than 16 behind: zeros up to a whole vector; the second
    /// of a pair is zero from `n_second` on.
    ///
    /// # Safety
    /// The instructions; `n` and `n_second` numbers to read, `n` up to a whole vector to write.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(crate) unsafe fn interleaved(first: *const f32, second: *const f32, n: usize, n_second: usize, into: *mut u32) {
        const ORDER: [u16; 32] = {
            let mut order = [0; 32];
            let mut i = 0;
            while i < 32 {
                order[i] = (i / 2 + i % 2 * 16) as u16;
                i += 1;
            }
            order
        };
        // SAFETY: masked lanes are not touched; the rest is promised by the caller.
        unsafe {
            let order = _mm512_loadu_si512(ORDER.as_ptr().cast());
            let mut i = 0;
            while i < n {
                let low = _mm512_maskz_loadu_ps(mask(n - i), first.wrapping_add(i));
                let high = _mm512_maskz_loadu_ps(mask(n_second.saturating_sub(i)), second.wrapping_add(i));
                let pairs = _mm512_permutexvar_epi16(order, rounded(low, high));
                _mm512_storeu_si512(into.add(i).cast(), pairs);
                i += LANES;
            }
        }
    }

    /// into\[i\] = (from\[2i\], from\[2i + 1\]) for `n` numbers, with zero at the end of an odd number of them.
    ///
    /// # Safety
    /// The instructions; `n` numbers to read, half as many pairs, rounded up, to write.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(crate) unsafe fn adjacent(from: *const f32, n: usize, into: *mut u32) {
        // SAFETY: masked lanes are not touched; the rest is promised by the caller.
        unsafe {
            let mut i = 0;
            while i + 2 * LANES <= n {
                let pairs = rounded(_mm512_loadu_ps(from.add(i)), _mm512_loadu_ps(from.add(i + LANES)));
                _mm512_storeu_si512(into.add(i / 2).cast(), pairs);
                i += 2 * LANES;
            }
            if i < n {
                let low = _mm512_maskz_loadu_ps(mask(n - i), from.add(i));
                let high = _mm512_maskz_loadu_ps(mask((n - i).saturating_sub(LANES)), from.wrapping_add(i + LANES));
                _mm512_mask_storeu_epi32(into.add(i / 2).cast(), mask((n - i).div_ceil(2)), rounded(low, high));
            }
        }
    }

    /// into\[i · row_len + lane\] = (from\[lane · stride + 2i\], from\[lane · stride + 2i + 1\]) for 16 lanes, zeros from `n_lanes` on and at the
    /// end of an odd `n`.
    ///
    /// # Safety
    /// The instructions; `n` numbers of each of `n_lanes` lanes to read, half as many rows, rounded up, of 16 pairs to write.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(crate) unsafe fn columns(from: *const f32, stride: usize, n_lanes: usize, n: usize, into: *mut u32, row_len: usize) {
        let mut i = 0;
        while i < n {
            let mut rows = [_mm512_setzero_si512(); LANES];
            for (lane, row) in rows.iter_mut().enumerate() {
                if lane < n_lanes {
                    // SAFETY: masked lanes are not touched; the rest is promised by the caller.
                    unsafe {
                        let from = from.add(lane * stride + i);
                        let low = _mm512_maskz_loadu_ps(mask(n - i), from);
                        let high = _mm512_maskz_loadu_ps(mask((n - i).saturating_sub(LANES)), from.wrapping_add(LANES));
                        *row = rounded(low, high);
                    }
                }
            }
            let columns = transposed(rows);
            for (row, column) in columns.iter().enumerate().take((n - i).div_ceil(2)) {
                // SAFETY: the caller promises 16 pairs in every row.
                unsafe { _mm512_storeu_si512(into.add((i / 2 + row) * row_len).cast(), *column) };
            }
            i += 2 * LANES;
        }
    }

    /// A square of 16 turned: four rounds, of neighbours, pairs, quarters and halves.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
        let mut a = rows;
        for i in (0..16).step_by(2) {
            (a[i], a[i + 1]) = (_mm512_unpacklo_epi32(rows[i], rows[i + 1]), _mm512_unpackhi_epi32(rows[i], rows[i + 1]));
        }
        // Row 4q + c now holds lanes 4q.. of columns c, c + 4, c + 8 and c + 12, one in each quarter.
        let mut b = a;
        for i in (0..16).step_by(4) {
            b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
            b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
            b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
            b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
        }
        let mut out = b;
        for c in 0..4 {
            let low_01 = _mm512_shuffle_i32x4::<0x88>(b[c], b[4 + c]);
            let low_23 = _mm512_shuffle_i32x4::<0x88>(b[8 + c], b[12 + c]);
            let high_01 = _mm512_shuffle_i32x4::<0xdd>(b[c], b[4 + c]);
            let high_23 = _mm512_shuffle_i32x4::<0xdd>(b[8 + c], b[12 + c]);
            out[c] = _mm512_shuffle_i32x4::<0x88>(low_01, low_23);
            out[8 + c] = _mm512_shuffle_i32x4::<0xdd>(low_01, low_23);
            out[4 + c] = _mm512_shuffle_i32x4::<0x88>(high_01, high_23);
            out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(high_01, high_23);
        }
        out
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
#[allow(clippy::unwrap_used, clippy::print_stderr)]
mod tests {
    use super::*;
    use crate::naive::tools::values;
    use crate::precision::round_to_bits;
    use std::arch::x86_64::*;

    fn pair(first: f32, second: f32) -> u32 {
        u32::from(round_to_bits(first)) | u32::from(round_to_bits(second)) << 16
    }

    /// Numbers of all sizes, with every special one among them.
    fn any(n: usize, seed: u64) -> Vec<f32> {
        const SPECIAL: [f32; 8] = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.0, 1e-40, -1e-40, f32::MAX, f32::MIN_POSITIVE];
        let scales = values::<f32>(n, seed + 100);
        let value = |(i, v): (usize, f32)| if i % 37 == 5 { SPECIAL[i / 37 % 8] } else { v * (100.0 * scales[i]).exp2() };
        values::<f32>(n, seed).into_iter().enumerate().map(value).collect()
    }

    #[test]
    fn pairs_are_rounded_and_stand_where_they_should() {
        if !are_fast() {
            eprintln!("skipped: this processor has no AVX512-BF16");
            return;
        }
        for n in [1, 2, 15, 16, 17, 31, 32, 33, 64, 95, 100] {
            let (a, b) = (any(n, 1), any(n, 2));
            for n_second in [0, n / 2, n] {
                let mut into = vec![7_u32; n.next_multiple_of(16)];
                // SAFETY: the processor has the instructions, and the vectors are as long as asked for.
                unsafe { interleaved(a.as_ptr(), b.as_ptr(), n, n_second, into.as_mut_ptr()) };
                let expected = (0..n).map(|i| pair(a[i], if i < n_second { b[i] } else { 0.0 }));
                assert!(into.iter().copied().eq(expected.chain(vec![0; into.len() - n])));
            }
            let mut into = vec![7_u32; n.div_ceil(2)];
            // SAFETY: as above.
            unsafe { adjacent(a.as_ptr(), n, into.as_mut_ptr()) };
            assert!(into.iter().enumerate().all(|(i, &p)| p == pair(a[2 * i], a.get(2 * i + 1).copied().unwrap_or(0.0))));
            for n_lanes in [1, 5, 16] {
                let (stride, row_len, n_rows) = (n + 3, 19, n.div_ceil(2));
                let from = any(16 * stride, 3);
                let mut into = vec![7_u32; n_rows * row_len];
                // SAFETY: as above.
                unsafe { columns(from.as_ptr(), stride, n_lanes, n, into.as_mut_ptr(), row_len) };
                for (i, row) in into.chunks_exact(row_len).enumerate() {
                    for (lane, &got) in row.iter().enumerate() {
                        let at = |j: usize| if j < n && lane < n_lanes { from[lane * stride + j] } else { 0.0 };
                        assert_eq!(got, if lane < 16 { pair(at(2 * i), at(2 * i + 1)) } else { 7 });
                    }
                }
            }
        }
    }

    /// What the documentation of the precision says of `vdpbf16ps`, by numbers: the order of the two sums, and what becomes zero.
    #[test]
    fn the_instruction_adds_the_second_product_first_and_rounds_each_sum() {
        if !are_fast() {
            eprintln!("skipped: this processor has no AVX512-BF16");
            return;
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
        fn by_instruction(sum: f32, a: u32, b: u32) -> f32 {
            _mm512_cvtss_f32(add_products(_mm512_set1_ps(sum), _mm512_set1_epi32(a as i32), _mm512_set1_epi32(b as i32)))
        }
        let flushed = |v: f32| if v.is_subnormal() { 0.0_f32.copysign(v) } else { v };
        let halves = |p: u32| [p << 16, p & 0xffff_0000].map(|bits| flushed(f32::from_bits(bits)));
        let bits: Vec<u32> = (0..3).flat_map(|seed| any(60_000, seed + 7)).map(f32::to_bits).collect();
        for three in bits.chunks_exact(3) {
            let (sum, a, b) = (f32::from_bits(three[0]), three[1], three[2] ^ three[0] >> 16);
            let ([a0, a1], [b0, b1]) = (halves(a), halves(b));
            let expected = flushed(a0.mul_add(b0, flushed(a1.mul_add(b1, flushed(sum)))));
            // SAFETY: the processor has the instructions.
            let got = unsafe { by_instruction(sum, a, b) };
            assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{got} for {expected}");
        }
    }
}
