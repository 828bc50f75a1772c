//! The linear layer y = x·Wᵀ + b on row-major matrices, W `[out_features, in_features]` as in PyTorch.
//!
//! The result is cut into fixed tiles, each one product on one thread: no sum ever crosses tasks, so nothing is reduced.

#[cfg(feature = "cuda")]
mod cuda;

use crate::check::n_elements;
use crate::error::{Result, check_len};
use crate::gemm::{Dims, Strides, product};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::reduce::column_sums;
use rayon::prelude::*;

const OP: &str = "linear";
/// Rows of a tile: enough to pay for packing the right operand.
const TILE_ROWS: usize = 256;
/// Columns of a tile: a batch of 128 over a layer of 512 still gives four tasks.
const TILE_COLS: usize = 128;

/// The sizes of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearShape {
    /// Examples.
    pub n_rows: usize,
    /// Columns of the input.
    pub in_features: usize,
    /// Columns of the output.
    pub out_features: usize,
}

/// y = x·weightᵀ + bias.
///
/// # Shapes
/// `x` `[n_rows, in_features]`, `weight` `[out_features, in_features]`, `bias` `[out_features]`, `y` `[n_rows, out_features]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit, [`crate::Error::Shape`] for sizes whose product overflows.
///
/// ```
/// use landscape_kernels::linear::{LinearShape, forward};
/// let shape = LinearShape { n_rows: 1, in_features: 2, out_features: 1 };
/// let mut y = [0.0_f64];
/// forward(&shape, (&[1.0, 2.0][..]).into(), (&[3.0, 4.0][..]).into(), Some((&[5.0][..]).into()), (&mut y[..]).into())?;
/// assert_eq!(y, [16.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(
    shape: &LinearShape,
    x: View<'_, T>,
    weight: View<'_, T>,
    bias: Option<View<'_, T>>,
    y: ViewMut<'_, T>,
) -> Result<()> {
    let &LinearShape { n_rows, in_features, out_features } = shape;
    check_len(OP, "x", n_elements(OP, &[n_rows, in_features])?, x.len())?;
    check_len(OP, "weight", n_elements(OP, &[out_features, in_features])?, weight.len())?;
    check_len(OP, "y", n_elements(OP, &[n_rows, out_features])?, y.len())?;
    if let Some(bias) = bias {
        check_len(OP, "bias", out_features, bias.len())?;
    }
    on_device!(OP, [x, weight, bias, y], gpu => cuda::forward(gpu, shape, x, weight, bias, y));
    let y = y.host();
    let mut mode = Accumulate::Overwrite;
    if let Some(bias) = bias {
        let bias = bias.host();
        if out_features > 0 {
            y.chunks_exact_mut(out_features).for_each(|row| row.copy_from_slice(bias));
        }
        mode = Accumulate::Add;
    }
    let dims = Dims { m: n_rows, n: out_features, k: in_features };
    tiled(dims, (x.host(), Strides::row_major(in_features)), (weight.host(), Strides::transposed(in_features)), y, mode);
    Ok(())
}

/// dx = dy·weight.
///
/// # Shapes
/// As [`forward`]; `dy` like `y`, `dx` like `x`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit, [`crate::Error::Shape`] for sizes whose product overflows.
pub fn backward_input<T: Real>(
    shape: &LinearShape,
    weight: View<'_, T>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let &LinearShape { n_rows, in_features, out_features } = shape;
    check_len(OP, "weight", n_elements(OP, &[out_features, in_features])?, weight.len())?;
    check_len(OP, "dy", n_elements(OP, &[n_rows, out_features])?, dy.len())?;
    check_len(OP, "dx", n_elements(OP, &[n_rows, in_features])?, dx.len())?;
    on_device!(OP, [weight, dy, dx], gpu => cuda::backward_input(gpu, shape, weight, dy, dx, mode));
    let dims = Dims { m: n_rows, n: in_features, k: out_features };
    tiled(dims, (dy.host(), Strides::row_major(out_features)), (weight.host(), Strides::row_major(in_features)), dx.host(), mode);
    Ok(())
}

/// dweight = dyᵀ·x and dbias = Σ_rows dy.
///
/// # Shapes
/// As [`forward`]; `dweight` like `weight`, `dbias` like `bias`; `mode` is for both.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit, [`crate::Error::Shape`] for sizes whose product overflows.
pub fn backward_weight<T: Real>(
    shape: &LinearShape,
    x: View<'_, T>,
    dy: View<'_, T>,
    dweight: ViewMut<'_, T>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    let &LinearShape { n_rows, in_features, out_features } = shape;
    check_len(OP, "x", n_elements(OP, &[n_rows, in_features])?, x.len())?;
    check_len(OP, "dy", n_elements(OP, &[n_rows, out_features])?, dy.len())?;
    check_len(OP, "dweight", n_elements(OP, &[out_features, in_features])?, dweight.len())?;
    if let Some(dbias) = &dbias {
        check_len(OP, "dbias", out_features, dbias.len())?;
    }
    on_device!(OP, [x, dy, dweight, dbias], gpu => cuda::backward_weight(gpu, shape, x, dy, dweight, dbias, mode));
    let (x, dy) = (x.host(), dy.host());
    if let Some(dbias) = dbias {
        store_column_sums(out_features, dy, dbias.host(), mode);
    }
    let dims = Dims { m: out_features, n: in_features, k: n_rows };
    tiled(dims, (dy, Strides::transposed(out_features)), (x, Strides::row_major(in_features)), dweight.host(), mode);
    Ok(())
}

/// Writes, or adds, the column sums of `dy` to `dbias`.
pub(crate) fn store_column_sums<T: Real>(n_columns: usize, dy: &[T], dbias: &mut [T], mode: Accumulate) {
    for (out, sum) in dbias.iter_mut().zip(column_sums(n_columns, dy)) {
        *out = match mode {
            Accumulate::Overwrite => T::from_f64(sum),
            Accumulate::Add => *out + T::from_f64(sum),
        };
    }
}

/// A place in the result that a task starts to write at.
#[derive(Clone, Copy)]
struct Start<T>(*mut T);

// SAFETY: tasks write disjoint tiles through it, and the result outlives them.
unsafe impl<T: Send> Send for Start<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Start<T> {}

impl<T> Start<T> {
    /// The place `offset` elements on; a method, so that a closure captures the whole of `self` and not the bare pointer.
    fn at(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

/// c = a·b, or c += a·b, tile by tile in parallel; `c` is row-major and exactly `m·n` long.
fn tiled<T: Real>(dims: Dims, a: (&[T], Strides), b: (&[T], Strides), c: &mut [T], mode: Accumulate) {
    let Dims { m, n, k } = dims;
    assert!(c.len() == m * n && a.0.len() == m * k && b.0.len() == k * n, "operands of a tiled product were checked by the caller");
    let (n_row_tiles, n_col_tiles) = (m.div_ceil(TILE_ROWS), n.div_ceil(TILE_COLS));
    // Widths are multiples of 16 numbers, one vector, apart from the last.
    let rows = m.div_ceil(n_row_tiles.max(1));
    let cols = n.div_ceil(n_col_tiles.max(1)).next_multiple_of(16);
    let start = Start(c.as_mut_ptr());
    let tile = |idx: usize| {
        let (i, j) = (idx / n_col_tiles * rows, idx % n_col_tiles * cols);
        if i >= m || j >= n {
            return;
        }
        let dims = Dims { m: rows.min(m - i), n: cols.min(n - j), k };
        // SAFETY: the tile lies inside the three matrices (lengths asserted above), and tiles do not overlap.
        unsafe {
            let a = (a.0.as_ptr().wrapping_add(i * a.1.row), a.1);
            let b = (b.0.as_ptr().wrapping_add(j * b.1.col), b.1);
            product(dims, a, b, (start.at(i * n + j), Strides::row_major(n)), mode);
        }
    };
    match n_row_tiles * n_col_tiles {
        1 => tile(0),
        n_tiles => (0..n_tiles).into_par_iter().for_each(tile),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::naive::linear as naive;
    use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
    use crate::simd::tests::at_every_level;
    use proptest::prelude::*;

    fn shape(n_rows: usize, in_features: usize, out_features: usize) -> LinearShape {
        LinearShape { n_rows, in_features, out_features }
    }

    /// Input, weight, bias and output gradient.
    fn operands<T: Real>(s: &LinearShape) -> [Vec<T>; 4] {
        let [x, w, b, g] = [s.n_rows * s.in_features, s.in_features * s.out_features, s.out_features, s.n_rows * s.out_features];
        [values(x, 1), values(w, 2), values(b, 3), values(g, 4)]
    }

    /// y, dx, dweight and dbias; gradients are added to 0.5.
    fn all<T: Real>(s: &LinearShape) -> [Vec<T>; 4] {
        let [x, w, b, g] = operands::<T>(s);
        let half = |n| vec![T::from_f64(0.5); n];
        let (mut y, mut dx, mut dw, mut db) = (half(g.len()), half(x.len()), half(w.len()), half(b.len()));
        forward(s, (&x).into(), (&w).into(), Some((&b).into()), (&mut y).into()).unwrap();
        backward_input(s, (&w).into(), (&g).into(), (&mut dx).into(), Accumulate::Add).unwrap();
        backward_weight(s, (&x).into(), (&g).into(), (&mut dw).into(), Some((&mut db).into()), Accumulate::Add).unwrap();
        [y, dx, dw, db]
    }

    fn matches_naive<T: Real>(s: &LinearShape) {
        let [x, w, b, g] = operands::<T>(s).map(|v| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
        let y = naive::forward(s, &x, &w, Some(&b));
        let transpose = |a: &[f64], rows: usize| -> Vec<f64> {
            let cols = a.len().checked_div(rows).unwrap_or(0);
            (0..a.len()).map(|i| a[i % rows * cols + i / rows]).collect()
        };
        // The two gradients are linear layers too: dx = dy·(Wᵀ)ᵀ, dW = dyᵀ·(xᵀ)ᵀ.
        let dx = naive::forward(&shape(s.n_rows, s.out_features, s.in_features), &g, &transpose(&w, s.out_features), None);
        let turned = shape(s.out_features, s.n_rows, s.in_features);
        let dw = naive::forward(&turned, &transpose(&g, s.n_rows), &transpose(&x, s.n_rows), None);
        let db: Vec<f64> = (0..s.out_features).map(|o| (0..s.n_rows).map(|i| g[i * s.out_features + o]).sum()).collect();
        let add_half = |v: Vec<f64>| v.into_iter().map(|v| v + 0.5).collect::<Vec<f64>>();
        let expected = [y, add_half(dx), add_half(dw), add_half(db)];
        for (got, expected) in all::<T>(s).iter().zip(expected) {
            assert_close(got, &expected.into_iter().map(T::from_f64).collect::<Vec<_>>(), 200.0);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn equals_naive(n in 1_usize..70, i in 1_usize..60, o in 1_usize..60) {
            matches_naive::<f32>(&shape(n, i, o));
            matches_naive::<f64>(&shape(n, i, o));
        }
    }

    #[test]
    fn equals_naive_where_tiles_meet() {
        at_every_level(|| {
            for s in [shape(300, 17, 150), shape(3, 300, 10), shape(1, 1, 1), shape(520, 5, 129)] {
                matches_naive::<f32>(&s);
                matches_naive::<f64>(&s);
            }
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn gradients_are_those_of_the_forward_pass(n in 1_usize..6, i in 1_usize..9, o in 1_usize..9) {
            let s = shape(n, i, o);
            let [x, w, b, g] = operands::<f64>(&s);
            let [_, dx, dw, db] = all::<f64>(&s).map(|v| v.iter().map(|v| v - 0.5).collect::<Vec<_>>());
            let f = |x: &[f64], w: &[f64], b: &[f64]| dot(&naive::forward(&s, x, w, Some(b)), &g);
            check_gradient(&x, &dx, |x| f(x, &w, &b));
            check_gradient(&w, &dw, |w| f(&x, w, &b));
            check_gradient(&b, &db, |b| f(&x, &w, b));
        }
    }

    #[test]
    fn threads_do_not_change_bits() {
        on_pools(|| all::<f32>(&shape(300, 40, 300)).map(|v| bits(&v)));
    }

    #[test]
    fn nothing_in_nothing_out() {
        let s = shape(0, 3, 2);
        let [y, dx, dw, db] = all::<f32>(&s);
        assert!(y.is_empty() && dx.is_empty());
        assert_eq!((dw, db), (vec![0.5; 6], vec![0.5; 2]));
        let mut dw = vec![7.0_f32; 6];
        backward_weight(&s, (&[][..]).into(), (&[][..]).into(), (&mut dw).into(), None, Accumulate::Overwrite).unwrap();
        assert_eq!(dw, [0.0; 6]);
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let s = shape(2, 3, 4);
        let (x, w, b, mut y) = ([0.0_f32; 6], [0.0; 12], [0.0; 4], [0.0; 8]);
        let err = forward(&s, (&x[..5]).into(), (&w[..]).into(), None, (&mut y[..]).into()).unwrap_err();
        assert_eq!(err.to_string(), "`linear`: `x` must have 6 elements, got 5");
        assert!(forward(&s, (&x[..]).into(), (&w[..11]).into(), None, (&mut y[..]).into()).is_err());
        assert!(forward(&s, (&x[..]).into(), (&w[..]).into(), Some((&b[..3]).into()), (&mut y[..]).into()).is_err());
        assert!(forward(&s, (&x[..]).into(), (&w[..]).into(), None, (&mut y[..7]).into()).is_err());
        let huge = shape(usize::MAX, 3, 4);
        let err = forward(&huge, (&x[..]).into(), (&w[..]).into(), None, (&mut y[..]).into()).unwrap_err();
        assert!(matches!(err, Error::Shape { .. }), "{err}");
        let mut dx = [0.0; 5];
        let result = backward_input(&s, (&w[..]).into(), (&y[..]).into(), (&mut dx[..]).into(), Accumulate::Add);
        assert!(matches!(result, Err(Error::Length { operand: "dx", expected: 6, got: 5, .. })));
        let mut db = [0.0; 5];
        let mut dw = [0.0; 12];
        let result =
            backward_weight(&s, (&x[..]).into(), (&y[..]).into(), (&mut dw[..]).into(), Some((&mut db[..]).into()), Accumulate::Add);
        assert!(matches!(result, Err(Error::Length { operand: "dbias", expected: 4, got: 5, .. })));
    }
}
