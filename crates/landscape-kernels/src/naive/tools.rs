//! What the tests of the kernels share: values by a formula, bits, thread pools, finite differences.

use crate::memory::Real;
use crate::parallel::CHUNK;
use crate::simd::level;
use crate::simd::tests::pool_at;
use std::fmt::Debug;

/// Lengths about which element-wise kernels may go wrong: none, one, vector tails, one chunk and a bit more.
pub(crate) const LENGTHS: [usize; 9] = [0, 1, 2, 7, 33, 257, 2049, CHUNK, CHUNK + 5];

/// `n` values in [-1, 1), by a hash of `seed` and the position.
pub(crate) fn values<T: Real>(n: usize, seed: u64) -> Vec<T> {
    (0..n as u64)
        .map(|i| {
            let mut z = (seed << 32 | i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z ^= z >> 32;
            T::from_f64((z >> 11) as f64 / (1_u64 << 52) as f64 - 1.0)
        })
        .collect()
}

/// The bits of every value: equality that tells -0 from 0 and accepts NaN.
pub(crate) fn bits<T: Real>(values: &[T]) -> Vec<u64> {
    values.iter().map(|v| v.to_f64().to_bits()).collect()
}

/// Runs `f` on pools of 1, 2 and 3 threads, at the caller's level; fails unless the results are equal.
pub(crate) fn on_pools<R: PartialEq + Debug + Send>(f: impl Fn() -> R + Sync) {
    let run = |n_threads| pool_at(level(), n_threads).install(&f);
    let one = run(1);
    for n_threads in [2, 3] {
        assert!(run(n_threads) == one, "{n_threads} threads give other bits than 1");
    }
}

/// Fails unless `gradient` is that of `f` at `x`, by central differences.
pub(crate) fn check_gradient(x: &[f64], gradient: &[f64], f: impl Fn(&[f64]) -> f64) {
    assert_eq!(x.len(), gradient.len());
    let h = 1e-5;
    for i in 0..x.len() {
        let at = |d: f64| {
            let mut moved = x.to_vec();
            moved[i] += d;
            f(&moved)
        };
        let expected = (at(h) - at(-h)) / (2.0 * h);
        let tolerance = 1e-7 * (1.0 + expected.abs());
        assert!((expected - gradient[i]).abs() <= tolerance, "element {i}: {} for {expected}", gradient[i]);
    }
}

/// Fails unless every |a − b| is at most `n_ulps`·eps·(1 + |b|).
pub(crate) fn assert_close<T: Real>(a: &[T], b: &[T], n_ulps: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let tolerance = n_ulps * T::EPSILON.to_f64() * (1.0 + b.to_f64().abs());
        assert!((a.to_f64() - b.to_f64()).abs() <= tolerance, "element {i}: {a} for {b}");
    }
}

/// Fails unless every sum of `n_terms` terms is as near to the exact one as sums in `f32` are in any order; `magnitudes` are the sums of the
/// terms' absolute values. A sum below 2⁻¹²⁶ may have been taken for zero.
pub(crate) fn assert_sums(got: &[f32], exact: &[f64], magnitudes: &[f64], n_terms: usize) {
    assert!(got.len() == exact.len() && got.len() == magnitudes.len());
    let n = n_terms as f64;
    for (i, ((&got, exact), magnitude)) in got.iter().zip(exact).zip(magnitudes).enumerate() {
        let tolerance = n * (2.0_f64.powi(-24) * magnitude + 2.0_f64.powi(-126));
        assert!((f64::from(got) - exact).abs() <= tolerance, "element {i}: {got} for {exact}, at most {tolerance} off");
    }
}

/// Σ_i a_i·b_i.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
