//! The product against the `gemm` crate and against plain sums, at every level.

use super::*;
use crate::naive::tools::{assert_close, bits, on_pools, values};
use crate::simd::tests::at_every_level;

const SIZES: [[usize; 3]; 14] = [
    [1, 1, 1],
    [1, 33, 5],
    [12, 32, 256],
    [13, 31, 257],
    [5, 16, 3],
    [128, 10, 512],
    [128, 64, 784],
    [97, 100, 300],
    [600, 40, 17],
    [10, 512, 128],
    [300, 50, 130],
    [7, 3, 1030],
    [25, 47, 19],
    [33, 17, 48],
];

/// Every order of both operands and of the result.
fn orders([m, n, k]: [usize; 3]) -> impl Iterator<Item = [Strides; 3]> {
    let of = move |rows: usize, cols: usize, turned: bool| if turned { Strides::transposed(rows) } else { Strides::row_major(cols) };
    (0..8).map(move |i| [of(m, k, i & 1 > 0), of(k, n, i & 2 > 0), of(m, n, i & 4 > 0)])
}

/// Σ_l a_il·b_lj by the `gemm` crate, added to what `c` holds.
fn by_the_crate<T: Real>([m, n, k]: [usize; 3], a: (&[T], Strides), b: (&[T], Strides), c: (&mut [T], Strides)) {
    let s = |s: Strides| (s.col as isize, s.row as isize);
    // SAFETY: the matrices have no gaps, so every element lies in its slice.
    unsafe {
        let (a, (acs, ars)) = (a.0.as_ptr(), s(a.1));
        let (b, (bcs, brs)) = (b.0.as_ptr(), s(b.1));
        let (c, (ccs, crs)) = (c.0.as_mut_ptr(), s(c.1));
        let none = gemm::Parallelism::None;
        gemm::gemm(m, n, k, c, ccs, crs, true, a, acs, ars, b, bcs, brs, T::ONE, T::ONE, false, false, false, none);
    }
}

fn equals_the_crate<T: Real>(size: [usize; 3]) {
    let [m, n, k] = size;
    let (a, b, c) = (values::<T>(m * k, 1), values::<T>(k * n, 2), values::<T>(m * n, 3));
    for [sa, sb, sc] in orders(size) {
        for mode in [Accumulate::Overwrite, Accumulate::Add] {
            let mut got = c.clone();
            gemm(Dims { m, n, k }, (&a, sa), (&b, sb), (&mut got, sc), mode);
            let mut expected = if mode == Accumulate::Add { c.clone() } else { vec![T::ZERO; m * n] };
            by_the_crate(size, (&a, sa), (&b, sb), (&mut expected, sc));
            assert_close(&got, &expected, 8.0 * (k as f64).sqrt());
        }
    }
}

#[test]
fn equals_the_gemm_crate_at_every_level() {
    at_every_level(|| {
        for size in SIZES {
            equals_the_crate::<f32>(size);
            equals_the_crate::<f64>(size);
        }
    });
}

#[test]
fn levels_agree_where_nothing_rounds() {
    // Small whole numbers: every order of the sum gives the same.
    let whole = |n, seed| values::<f32>(n, seed).into_iter().map(|v| (v * 8.0).round()).collect::<Vec<_>>();
    for size in SIZES {
        let [m, n, k] = size;
        let (a, b) = (whole(m * k, 1), whole(k * n, 2));
        for [sa, sb, sc] in orders(size) {
            let mut expected = vec![0.0; m * n];
            for (i, j, l) in (0..m).flat_map(|i| (0..n).flat_map(move |j| (0..k).map(move |l| (i, j, l)))) {
                expected[i * sc.row + j * sc.col] += a[i * sa.row + l * sa.col] * b[l * sb.row + j * sb.col];
            }
            at_every_level(|| {
                let mut got = vec![f32::NAN; m * n];
                gemm(Dims { m, n, k }, (&a, sa), (&b, sb), (&mut got, sc), Accumulate::Overwrite);
                assert_eq!(got, expected, "{size:?}");
            });
        }
    }
}

#[test]
fn a_part_of_a_matrix_is_read_and_written_alone() {
    at_every_level(|| {
        // A 5x7 result inside rows of 11, from operands inside rows of 9 and 8.
        let (a, b) = (values::<f32>(5 * 9, 1), values::<f32>(6 * 8, 2));
        let mut c = vec![9.0; 5 * 11];
        let strides = Strides::row_major;
        gemm(Dims { m: 5, n: 7, k: 6 }, (&a, strides(9)), (&b, strides(8)), (&mut c, strides(11)), Accumulate::Overwrite);
        for (idx, &got) in c.iter().enumerate() {
            let (i, j) = (idx / 11, idx % 11);
            let expected = if j < 7 { (0..6).map(|l| a[i * 9 + l] * b[l * 8 + j]).sum() } else { 9.0 };
            assert!((got - expected).abs() < 1e-5, "({i}, {j}): {got} for {expected}");
        }
    });
}

#[test]
fn an_element_has_the_same_bits_wherever_blocks_begin() {
    at_every_level(|| {
        let (m, n, k) = (40, 70, 300);
        let (a, b) = (values::<f32>(m * k, 1), values::<f32>(k * n, 2));
        let product = |rows: std::ops::Range<usize>, cols: std::ops::Range<usize>| {
            let dims = Dims { m: rows.len(), n: cols.len(), k };
            let mut c = vec![0.0; dims.m * dims.n];
            let (a, b) = ((&a[rows.start * k..], Strides::row_major(k)), (&b[cols.start..], Strides::row_major(n)));
            gemm(dims, a, b, (&mut c, Strides::row_major(dims.n)), Accumulate::Overwrite);
            c
        };
        let whole = product(0..m, 0..n);
        for (rows, cols) in [(3..4, 0..70), (7..29, 5..44), (0..40, 69..70)] {
            let expected: Vec<f32> = rows.clone().flat_map(|i| whole[i * n..][cols.clone()].to_vec()).collect();
            assert_eq!(bits(&product(rows, cols)), bits(&expected));
        }
    });
}

#[test]
fn tiles_have_the_bits_of_the_whole_for_any_number_of_threads() {
    at_every_level(|| {
        for [m, n, k] in [[128, 512, 100], [700, 96, 64], [512, 300, 128], [1, 1, 1], [3, 900, 700]] {
            let (a, b, start, gate) = (values::<f32>(m * k, 1), values::<f32>(k * n, 2), values::<f32>(n, 3), values::<f32>(m * n, 4));
            for sa in [Strides::row_major(k), Strides::transposed(m)] {
                let sb = Strides::transposed(k);
                let mut expected = vec![0.0; m * n];
                let dims = Dims { m, n, k };
                gemm(dims, (&a, sa), (&b, sb), (&mut expected, Strides::row_major(n)), Accumulate::Overwrite);
                on_pools(|| {
                    let mut c = vec![0.0; m * n];
                    let fused = Fused { start: None, add: false, finish: End::Gate(&gate), row_sums: None };
                    tiled(dims, (&a, sa), (&b, sb), &mut c, fused);
                    let gated = expected.iter().zip(&gate).map(|(&v, &g)| if g <= 0.0 { 0.0 } else { v });
                    assert_eq!(bits(&c), bits(&gated.collect::<Vec<_>>()));
                    let fused = Fused { start: Some(&start), add: false, finish: End::Relu, row_sums: None };
                    tiled(dims, (&a, sa), (&b, sb), &mut c, fused);
                    bits(&c)
                });
            }
        }
    });
}

#[test]
#[should_panic(expected = "left operand of a matrix product is too short")]
fn a_short_operand_is_refused() {
    let strides = Strides::row_major(2);
    gemm(Dims { m: 2, n: 2, k: 2 }, (&[0.0_f32; 3], strides), (&[0.0; 4], strides), (&mut [0.0; 4], strides), Accumulate::Add);
}
