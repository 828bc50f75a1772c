//! Batched matrix products of two activations: y = a·b for each of `n` pairs.

#[cfg(feature = "cuda")]
mod cuda;

use crate::check::n_elements;
use crate::error::{Result, check_len};
use crate::gemm::{Dims, End, Fused, Strides, tiled_in};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::precision::Precision;
use rayon::prelude::*;

const OP: &str = "matmul";

/// The sizes of a batch of products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatmulShape {
    /// Products.
    pub n: usize,
    /// Rows of the left operand and of the result.
    pub m: usize,
    /// The summed dimension.
    pub k: usize,
    /// Columns of the right operand and of the result.
    pub cols: usize,
}

impl MatmulShape {
    /// Elements of the left operand, the right one and the result.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if a product of the sizes overflows.
    pub fn lens(&self) -> Result<[usize; 3]> {
        let &MatmulShape { n, m, k, cols } = self;
        Ok([n_elements(OP, &[n, m, k])?, n_elements(OP, &[n, k, cols])?, n_elements(OP, &[n, m, cols])?])
    }
}

/// y = a·b.
///
/// # Shapes
/// `a` `[n, m, k]`, `b` `[n, k, cols]`, `y` `[n, m, cols]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit, [`crate::Error::Shape`] for sizes whose product overflows.
///
/// ```
/// use landscape_kernels::matmul::{MatmulShape, forward};
/// let shape = MatmulShape { n: 2, m: 1, k: 2, cols: 1 };
/// let mut y = [0.0_f64; 2];
/// forward(&shape, (&[1.0, 2.0, 3.0, 4.0][..]).into(), (&[5.0, 6.0, 7.0, 8.0][..]).into(), (&mut y[..]).into())?;
/// assert_eq!(y, [17.0, 53.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(shape: &MatmulShape, a: View<'_, T>, b: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let [a_len, b_len, y_len] = shape.lens()?;
    check_len(OP, "a", a_len, a.len())?;
    check_len(OP, "b", b_len, b.len())?;
    check_len(OP, "y", y_len, y.len())?;
    let &MatmulShape { m, k, cols, .. } = shape;
    let dims = Dims { m, n: cols, k };
    let (a_strides, b_strides) = (Strides::row_major(k), Strides::row_major(cols));
    on_device!(OP, [a, b, y], gpu => cuda::products(gpu, shape.n, dims, (a, a_strides), (b, b_strides), y, Accumulate::Overwrite));
    products(shape.n, dims, (a.host(), a_strides), (b.host(), b_strides), y.host(), Accumulate::Overwrite);
    Ok(())
}

/// da = dy·bᵀ.
///
/// # Shapes
/// As [`forward`]; `dy` like `y`, `da` like `a`.
///
/// # Errors
/// As [`forward`].
pub fn backward_a<T: Real>(shape: &MatmulShape, b: View<'_, T>, dy: View<'_, T>, da: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let [a_len, b_len, y_len] = shape.lens()?;
    check_len(OP, "b", b_len, b.len())?;
    check_len(OP, "dy", y_len, dy.len())?;
    check_len(OP, "da", a_len, da.len())?;
    let &MatmulShape { m, k, cols, .. } = shape;
    let dims = Dims { m, n: k, k: cols };
    let (dy_strides, b_strides) = (Strides::row_major(cols), Strides::transposed(cols));
    on_device!(OP, [b, dy, da], gpu => cuda::products(gpu, shape.n, dims, (dy, dy_strides), (b, b_strides), da, mode));
    products(shape.n, dims, (dy.host(), dy_strides), (b.host(), b_strides), da.host(), mode);
    Ok(())
}

/// db = aᵀ·dy.
///
/// # Shapes
/// As [`forward`]; `dy` like `y`, `db` like `b`.
///
/// # Errors
/// As [`forward`].
pub fn backward_b<T: Real>(shape: &MatmulShape, a: View<'_, T>, dy: View<'_, T>, db: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let [a_len, b_len, y_len] = shape.lens()?;
    check_len(OP, "a", a_len, a.len())?;
    check_len(OP, "dy", y_len, dy.len())?;
    check_len(OP, "db", b_len, db.len())?;
    let &MatmulShape { m, k, cols, .. } = shape;
    let dims = Dims { m: k, n: cols, k: m };
    let (a_strides, dy_strides) = (Strides::transposed(k), Strides::row_major(cols));
    on_device!(OP, [a, dy, db], gpu => cuda::products(gpu, shape.n, dims, (a, a_strides), (dy, dy_strides), db, mode));
    products(shape.n, dims, (a.host(), a_strides), (dy.host(), dy_strides), db.host(), mode);
    Ok(())
}

/// `n` products of matrices that stand one after another; each is cut into tiles if it is large.
fn products<T: Real>(n: usize, dims: Dims, a: (&[T], Strides), b: (&[T], Strides), c: &mut [T], mode: Accumulate) {
    let Dims { m, n: cols, k } = dims;
    if c.is_empty() {
        return;
    }
    let one = |idx: usize, c: &mut [T]| {
        let (a, b) = ((&a.0[idx * m * k..][..m * k], a.1), (&b.0[idx * k * cols..][..k * cols], b.1));
        let fused = Fused { start: None, add: mode == Accumulate::Add, finish: End::Store, row_sums: None };
        tiled_in(Precision::F32, dims, a, b, c, fused);
    };
    if n == 1 {
        one(0, c);
    } else {
        c.par_chunks_mut(m * cols).enumerate().for_each(|(idx, c)| one(idx, c));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::naive::matmul as naive;
    use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
    use crate::simd::tests::at_every_level;

    const SHAPES: [[usize; 4]; 8] =
        [[1, 1, 1, 1], [3, 5, 7, 9], [2, 33, 17, 40], [1, 130, 70, 90], [4, 0, 3, 2], [0, 2, 3, 4], [2, 3, 0, 4], [2, 3, 4, 0]];

    fn shape([n, m, k, cols]: [usize; 4]) -> MatmulShape {
        MatmulShape { n, m, k, cols }
    }

    /// a, b and dy.
    fn operands<T: Real>(s: &MatmulShape) -> [Vec<T>; 3] {
        let [a, b, y] = s.lens().unwrap();
        [values(a, 1), values(b, 2), values(y, 3)]
    }

    /// y, and both gradients, added to 0.5.
    fn run<T: Real>(s: &MatmulShape) -> [Vec<T>; 3] {
        let [a, b, dy] = operands::<T>(s);
        let [mut da, mut db, mut y] = [&a, &b, &dy].map(|v| vec![T::from_f64(0.5); v.len()]);
        forward(s, (&a).into(), (&b).into(), (&mut y).into()).unwrap();
        backward_a(s, (&b).into(), (&dy).into(), (&mut da).into(), Accumulate::Add).unwrap();
        backward_b(s, (&a).into(), (&dy).into(), (&mut db).into(), Accumulate::Add).unwrap();
        [y, da, db]
    }

    fn matches_naive<T: Real>(s: &MatmulShape) {
        let [a, b, dy] = operands::<T>(s).map(|v| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
        let [y, mut da, mut db] = naive::all(s, &a, &b, &dy);
        da.iter_mut().chain(&mut db).for_each(|v| *v += 0.5);
        for (got, expected) in run::<T>(s).iter().zip([y, da, db]) {
            assert_close(got, &expected.into_iter().map(T::from_f64).collect::<Vec<_>>(), 100.0);
        }
    }

    #[test]
    fn equals_naive() {
        at_every_level(|| {
            for s in SHAPES.map(shape) {
                matches_naive::<f32>(&s);
                matches_naive::<f64>(&s);
            }
        });
    }

    #[test]
    fn gradients_are_those_of_the_forward_pass() {
        let s = shape([2, 3, 4, 5]);
        let [a, b, dy] = operands::<f64>(&s);
        let [_, da, db] = run::<f64>(&s).map(|v| v.iter().map(|v| v - 0.5).collect::<Vec<_>>());
        check_gradient(&a, &da, |a| dot(&naive::all(&s, a, &b, &dy)[0], &dy));
        check_gradient(&b, &db, |b| dot(&naive::all(&s, &a, b, &dy)[0], &dy));
    }

    #[test]
    fn threads_do_not_change_bits() {
        at_every_level(|| {
            for s in [[7, 33, 17, 40], [2, 300, 100, 150]].map(shape) {
                on_pools(|| run::<f32>(&s).map(|v| bits(&v)));
            }
        });
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let (a, mut y) = ([0.0_f32; 6], [0.0_f32; 4]);
        let error = forward(&shape([1, 2, 3, 2]), (&a[..]).into(), (&a[..5]).into(), (&mut y[..]).into()).unwrap_err();
        assert_eq!(error.to_string(), "`matmul`: `b` must have 6 elements, got 5");
        assert!(backward_a(&shape([usize::MAX, 2, 3, 2]), (&a[..]).into(), (&a[..]).into(), (&mut y[..]).into(), Accumulate::Add).is_err());
    }
}
