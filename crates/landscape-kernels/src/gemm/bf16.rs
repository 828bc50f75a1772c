//! Products of matrices in bf16: operands are rounded while they are copied together, pairs along the summed dimension side by side, and
//! `vdpbf16ps` adds the products of a pair to sums in f32. Where the processor has no such instruction, copies of the operands are
//! rounded and the kernels for `f32` run on them.

#[cfg(target_arch = "x86_64")]
mod pairs;

use super::{Cut, Dims, Fused, Strides, Task, gemm, tiled, tiled_by};
use crate::memory::{Accumulate, Real};
use crate::pairs::are_fast;
use crate::precision::{Precision, round_all};

/// Rows of a left operand that are copied at a time: they stay in the second-level cache.
const ROWS: usize = 192;

/// [`tiled`] in `precision`; sums of rows are not taken in bf16, where they would be of rounded numbers.
pub(crate) fn tiled_in<T: Real>(
    precision: Precision,
    dims: Dims,
    a: (&[T], Strides),
    b: (&[T], Strides),
    c: &mut [T],
    fused: Fused<'_, T>,
) {
    // The ops refuse TF32, which GPUs alone have.
    if precision != Precision::Bf16 {
        return tiled(dims, a, b, c, fused);
    }
    assert!(fused.row_sums.is_none(), "sums of rows are taken before their rounding");
    if are_fast() {
        return tiled_by(dims, a, b, c, fused, |_| Cut::copying(dims, ROWS), run::<T>);
    }
    let rounded = |values: &[T]| {
        let mut copy = vec![T::ZERO; values.len()];
        round_all(values, &mut copy);
        copy
    };
    tiled(dims, (&rounded(a.0), a.1), (&rounded(b.0), b.1), c, fused);
}

/// [`gemm`] in `precision`, bf16 only where pairs are fast and into rows that are contiguous.
pub(crate) fn gemm_in<T: Real>(
    precision: Precision,
    dims: Dims,
    a: (&[T], Strides),
    b: (&[T], Strides),
    c: (&mut [T], Strides),
    mode: Accumulate,
) {
    match precision {
        Precision::F32 | Precision::Tf32 => gemm(dims, a, b, c, mode),
        Precision::Bf16 => super::gemm_by(dims, a, b, c, mode, run::<T>),
    }
}

/// Runs a task of `f32` in bf16 on this thread.
///
/// # Safety
/// As [`super::run`].
unsafe fn run<T: Real>(task: &Task<T>) {
    assert!(are_fast() && std::any::TypeId::of::<T>() == std::any::TypeId::of::<f32>(), "operands were rounded where pairs are not fast");
    assert!([task.a.1, task.b.1].iter().all(|s| s.row == 1 || s.col == 1), "operands have contiguous rows or columns");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the processor has the instructions, a task is cast to the scalar that it has already, and the caller promises the rest.
    unsafe {
        pairs::run(&*std::ptr::from_ref(task).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = task;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::End;
    use crate::naive::tools::{assert_sums, bits, on_pools, values};
    use crate::precision::round;
    use crate::simd::tests::at_every_level;

    const SIZES: [[usize; 3]; 12] = [
        [1, 1, 1],
        [1, 33, 5],
        [12, 32, 384],
        [13, 31, 385],
        [5, 16, 3],
        [128, 10, 512],
        [200, 64, 784],
        [40, 1, 9],
        [3, 70, 2],
        [2, 2, 0],
        [25, 47, 19],
        [193, 40, 1001],
    ];

    /// c + a·b on rounded operands in double precision, and the same of magnitudes.
    fn exact([m, n, k]: [usize; 3], a: (&[f32], Strides), b: (&[f32], Strides), c: &[f32]) -> [Vec<f64>; 2] {
        let mut sums = [c.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), c.iter().map(|&v| f64::from(v.abs())).collect()];
        for (i, j, l) in (0..m).flat_map(|i| (0..n).flat_map(move |j| (0..k).map(move |l| (i, j, l)))) {
            let at = |v: (&[f32], Strides), i: usize, j: usize| f64::from(round(v.0[i * v.1.row + j * v.1.col]));
            let product = at(a, i, l) * at(b, l, j);
            sums[0][i * n + j] += product;
            sums[1][i * n + j] += product.abs();
        }
        sums
    }

    #[test]
    fn equals_naive_on_rounded_operands() {
        at_every_level(|| {
            for size in SIZES {
                let [m, n, k] = size;
                let (a, b, start, gate) = (values::<f32>(m * k, 1), values::<f32>(k * n, 2), values::<f32>(n, 3), values::<f32>(m * n, 4));
                for order in 0..4 {
                    let of = |rows: usize, cols: usize, turned| if turned { Strides::transposed(rows) } else { Strides::row_major(cols) };
                    let (a, b) = ((&a[..], of(m, k, order & 1 > 0)), (&b[..], of(k, n, order & 2 > 0)));
                    let dims = Dims { m, n, k };
                    let rows: Vec<f32> = (0..m * n).map(|i| start[i % n]).collect();
                    let [expected, magnitudes] = exact(size, a, b, &rows);
                    let mut c = vec![f32::NAN; m * n];
                    tiled_in(
                        Precision::Bf16,
                        dims,
                        a,
                        b,
                        &mut c,
                        Fused { start: Some(&start), add: false, finish: End::Store, row_sums: None },
                    );
                    assert_sums(&c, &expected, &magnitudes, k + 1);
                    let mut relu = vec![f32::NAN; m * n];
                    tiled_in(
                        Precision::Bf16,
                        dims,
                        a,
                        b,
                        &mut relu,
                        Fused { start: Some(&start), add: false, finish: End::Relu, row_sums: None },
                    );
                    assert!(relu.iter().zip(&c).all(|(r, c)| *r == c.max(0.0)));
                    let [expected, magnitudes] = exact(size, a, b, &gate);
                    let mut c = gate.clone();
                    tiled_in(Precision::Bf16, dims, a, b, &mut c, Fused { start: None, add: true, finish: End::Store, row_sums: None });
                    assert_sums(&c, &expected, &magnitudes, k + 1);
                    let mut gated = gate.clone();
                    tiled_in(
                        Precision::Bf16,
                        dims,
                        a,
                        b,
                        &mut gated,
                        Fused { start: None, add: true, finish: End::Gate(&gate), row_sums: None },
                    );
                    assert!(gated.iter().zip(&c).zip(&gate).all(|((r, c), g)| *r == if *g <= 0.0 { 0.0 } else { *c }));
                    if are_fast() {
                        let mut alone = gate.clone();
                        gemm_in(Precision::Bf16, dims, a, b, (&mut alone, Strides::row_major(n)), Accumulate::Add);
                        assert_eq!(bits(&alone), bits(&c), "a product on one thread has the bits of tiles");
                    }
                }
            }
        });
    }

    #[test]
    fn tiles_have_the_same_bits_for_any_number_of_threads() {
        at_every_level(|| {
            for [m, n, k] in [[128, 512, 100], [700, 96, 65], [512, 300, 1400]] {
                let (a, b) = (values::<f32>(m * k, 1), values::<f32>(k * n, 2));
                on_pools(|| {
                    let mut c = vec![0.0; m * n];
                    let (a, b) = ((&a[..], Strides::transposed(m)), (&b[..], Strides::transposed(k)));
                    let fused = Fused { start: None, add: false, finish: End::Store, row_sums: None };
                    tiled_in(Precision::Bf16, Dims { m, n, k }, a, b, &mut c, fused);
                    bits(&c)
                });
            }
        });
    }
}
