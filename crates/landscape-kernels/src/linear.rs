//! The linear layer y = x·Wᵀ + b on row-major matrices, W `[out_features, in_features]` as in PyTorch.
//!
//! The activation above and the relu below are fused to the products, and the bias's gradient comes by the way of the weight's.

#[cfg(feature = "cuda")]
mod cuda;

use crate::activation::Activation;
use crate::check::n_elements;
use crate::error::{Result, check_len};
use crate::gemm::{Dims, End, Fused, Strides, tiled_in};
use crate::memory::{Accumulate, Device, Real, View, ViewMut};
use crate::precision::Precision;
use crate::reduce::store_column_sums;

const OP: &str = "linear";

/// The sizes of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearShape {
    /// Examples.
    pub n_rows: usize,
    /// Columns of the input.
    pub in_features: usize,
    /// Columns of the output.
    pub out_features: usize,
    /// In what products are computed.
    pub precision: Precision,
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
/// use landscape_kernels::{Precision, linear::{LinearShape, forward}};
/// let shape = LinearShape { n_rows: 1, in_features: 2, out_features: 1, precision: Precision::F32 };
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
    forward_fused(shape, x, weight, bias, Activation::None, y)
}

/// y = activation(x·weightᵀ + bias), with the bits of [`forward`] followed by the activation.
///
/// # Shapes
/// As [`forward`].
///
/// # Errors
/// As [`forward`], and [`crate::Error::Shape`] for an activation on an accelerator.
pub fn forward_fused<T: Real>(
    shape: &LinearShape,
    x: View<'_, T>,
    weight: View<'_, T>,
    bias: Option<View<'_, T>>,
    activation: Activation,
    y: ViewMut<'_, T>,
) -> Result<()> {
    let &LinearShape { n_rows, in_features, out_features, precision } = shape;
    check_len(OP, "x", n_elements(OP, &[n_rows, in_features])?, x.len())?;
    check_len(OP, "weight", n_elements(OP, &[out_features, in_features])?, weight.len())?;
    check_len(OP, "y", n_elements(OP, &[n_rows, out_features])?, y.len())?;
    if let Some(bias) = bias {
        check_len(OP, "bias", out_features, bias.len())?;
    }
    precision.check_scalar::<T>()?;
    on_device!(OP, [x, weight, bias, y], gpu => match activation {
        Activation::None => cuda::forward(gpu, shape, x, weight, bias, y),
        Activation::Relu => Err(not_fused()),
    });
    precision.check::<T>(&Device::Cpu)?;
    let dims = Dims { m: n_rows, n: out_features, k: in_features };
    let finish = match activation {
        Activation::None => End::Store,
        Activation::Relu => End::Relu,
    };
    let fused = Fused { start: bias.map(View::host), add: false, finish, row_sums: None };
    let (x, weight) = ((x.host(), Strides::row_major(in_features)), (weight.host(), Strides::transposed(in_features)));
    tiled_in(precision, dims, x, weight, y.host(), fused);
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
    input_gradient(shape, weight, dy, dx, mode, None)
}

/// dx = dy·weight where `y_below` is positive, else 0: through the relu below as well, whose output is `y_below`.
///
/// # Shapes
/// As [`backward_input`]; `y_below` like `dx`.
///
/// # Errors
/// As [`backward_input`], and [`crate::Error::Shape`] on an accelerator.
pub fn backward_input_relu<T: Real>(
    shape: &LinearShape,
    weight: View<'_, T>,
    dy: View<'_, T>,
    y_below: View<'_, T>,
    dx: ViewMut<'_, T>,
) -> Result<()> {
    check_len(OP, "y_below", dx.len(), y_below.len())?;
    input_gradient(shape, weight, dy, dx, Accumulate::Overwrite, Some(y_below))
}

/// What a fused activation says on an accelerator, where it is an op of its own.
#[cfg(feature = "cuda")]
fn not_fused() -> crate::Error {
    crate::Error::Shape { op: OP, reason: "a fused relu must be on the processor, got one on an accelerator".to_owned() }
}

fn input_gradient<T: Real>(
    shape: &LinearShape,
    weight: View<'_, T>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
    gate: Option<View<'_, T>>,
) -> Result<()> {
    let &LinearShape { n_rows, in_features, out_features, precision } = shape;
    check_len(OP, "weight", n_elements(OP, &[out_features, in_features])?, weight.len())?;
    check_len(OP, "dy", n_elements(OP, &[n_rows, out_features])?, dy.len())?;
    check_len(OP, "dx", n_elements(OP, &[n_rows, in_features])?, dx.len())?;
    precision.check_scalar::<T>()?;
    on_device!(OP, [weight, dy, dx, gate], gpu => match gate {
        None => cuda::backward_input(gpu, shape, weight, dy, dx, mode),
        Some(_) => Err(not_fused()),
    });
    precision.check::<T>(&Device::Cpu)?;
    let dims = Dims { m: n_rows, n: in_features, k: out_features };
    let (dy, weight) = ((dy.host(), Strides::row_major(out_features)), (weight.host(), Strides::row_major(in_features)));
    let finish = gate.map_or(End::Store, |gate| End::Gate(gate.host()));
    tiled_in(precision, dims, dy, weight, dx.host(), Fused { start: None, add: mode == Accumulate::Add, finish, row_sums: None });
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
    let &LinearShape { n_rows, in_features, out_features, precision } = shape;
    check_len(OP, "x", n_elements(OP, &[n_rows, in_features])?, x.len())?;
    check_len(OP, "dy", n_elements(OP, &[n_rows, out_features])?, dy.len())?;
    check_len(OP, "dweight", n_elements(OP, &[out_features, in_features])?, dweight.len())?;
    if let Some(dbias) = &dbias {
        check_len(OP, "dbias", out_features, dbias.len())?;
    }
    precision.check_scalar::<T>()?;
    on_device!(OP, [x, dy, dweight, dbias], gpu => cuda::backward_weight(gpu, shape, x, dy, dweight, dbias, mode));
    precision.check::<T>(&Device::Cpu)?;
    let dims = Dims { m: out_features, n: in_features, k: n_rows };
    let mut row_sums = dbias.map(ViewMut::host);
    if precision == Precision::Bf16
        && let Some(dbias) = row_sums.take()
    {
        // Of the gradients as they are, before the product rounds them.
        store_column_sums(out_features, dy.host(), dbias, mode);
    }
    let (dy, x) = ((dy.host(), Strides::transposed(out_features)), (x.host(), Strides::row_major(in_features)));
    let fused = Fused { start: None, add: mode == Accumulate::Add, finish: End::Store, row_sums };
    tiled_in(precision, dims, dy, x, dweight.host(), fused);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::activation::{relu_backward, relu_forward};
    use crate::error::Error;
    use crate::naive::linear as naive;
    use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
    use crate::precision::round;
    use crate::simd::tests::at_every_level;
    use proptest::prelude::*;

    fn shape(n_rows: usize, in_features: usize, out_features: usize) -> LinearShape {
        LinearShape { n_rows, in_features, out_features, precision: Precision::F32 }
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
        let [x, w, b, unrounded] = operands::<T>(s).map(|v| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
        let [x, w, g] = [&x, &w, &unrounded].map(|v| match s.precision {
            Precision::Bf16 => v.iter().map(|&v| f64::from(round(v as f32))).collect(),
            _ => v.clone(),
        });
        let y = naive::forward(s, &x, &w, Some(&b));
        let transpose = |a: &[f64], rows: usize| -> Vec<f64> {
            let cols = a.len().checked_div(rows).unwrap_or(0);
            (0..a.len()).map(|i| a[i % rows * cols + i / rows]).collect()
        };
        // The two gradients are linear layers too: dx = dy·(Wᵀ)ᵀ, dW = dyᵀ·(xᵀ)ᵀ.
        let dx = naive::forward(&shape(s.n_rows, s.out_features, s.in_features), &g, &transpose(&w, s.out_features), None);
        let turned = shape(s.out_features, s.n_rows, s.in_features);
        let dw = naive::forward(&turned, &transpose(&g, s.n_rows), &transpose(&x, s.n_rows), None);
        // Of gradients that nobody rounds.
        let db: Vec<f64> = (0..s.out_features).map(|o| (0..s.n_rows).map(|i| unrounded[i * s.out_features + o]).sum()).collect();
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
            let s = shape(n, i, o);
            at_every_level(|| matches_naive::<f32>(&s));
            at_every_level(|| matches_naive::<f32>(&LinearShape { precision: Precision::Bf16, ..s }));
            at_every_level(|| matches_naive::<f64>(&s));
        }
    }

    #[test]
    fn equals_naive_where_tiles_meet() {
        at_every_level(|| {
            for s in [shape(300, 17, 150), shape(3, 300, 10), shape(1, 1, 1), shape(520, 5, 129)] {
                matches_naive::<f32>(&s);
                matches_naive::<f32>(&LinearShape { precision: Precision::Bf16, ..s });
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
        at_every_level(|| {
            for s in [shape(300, 40, 300), shape(128, 784, 512), shape(1100, 30, 70)] {
                on_pools(|| all::<f32>(&s).map(|v| bits(&v)));
            }
        });
    }

    #[test]
    fn fused_has_the_bits_of_unfused() {
        at_every_level(|| {
            for s in [shape(5, 3, 2), shape(128, 300, 100), shape(600, 33, 47)] {
                let [x, w, b, g] = operands::<f32>(&s);
                let half = |n: usize| vec![0.5_f32; n];
                let (mut y, mut relu, mut fused) = (half(g.len()), half(g.len()), half(g.len()));
                forward(&s, (&x).into(), (&w).into(), Some((&b).into()), (&mut y).into()).unwrap();
                relu_forward((&y).into(), (&mut relu).into()).unwrap();
                forward_fused(&s, (&x).into(), (&w).into(), Some((&b).into()), Activation::Relu, (&mut fused).into()).unwrap();
                assert_eq!(bits(&fused), bits(&relu));
                let (mut dx, mut gated, mut fused) = (half(x.len()), half(x.len()), half(x.len()));
                backward_input(&s, (&w).into(), (&g).into(), (&mut dx).into(), Accumulate::Overwrite).unwrap();
                relu_backward((&x).into(), (&dx).into(), (&mut gated).into(), Accumulate::Overwrite).unwrap();
                backward_input_relu(&s, (&w).into(), (&g).into(), (&x).into(), (&mut fused).into()).unwrap();
                assert_eq!(bits(&fused), bits(&gated));
            }
        });
    }

    #[test]
    fn relu_in_a_product_lets_nan_through_and_has_no_negative_zero() {
        at_every_level(|| {
            let s = shape(1, 1, 3);
            let mut y = [9.0_f32; 3];
            let w = [f32::NAN, -0.0, -1.0];
            forward_fused(&s, (&[1.0_f32][..]).into(), (&w[..]).into(), None, Activation::Relu, (&mut y[..]).into()).unwrap();
            assert!(y[0].is_nan() && y[1].to_bits() == 0 && y[2].to_bits() == 0, "{y:?}");
        });
    }

    #[test]
    fn nothing_in_nothing_out() {
        for precision in [Precision::F32, Precision::Bf16] {
            let s = LinearShape { precision, ..shape(0, 3, 2) };
            let [y, dx, dw, db] = all::<f32>(&s);
            assert!(y.is_empty() && dx.is_empty());
            assert_eq!((dw, db), (vec![0.5; 6], vec![0.5; 2]));
            let mut dw = vec![7.0_f32; 6];
            backward_weight(&s, (&[][..]).into(), (&[][..]).into(), (&mut dw).into(), None, Accumulate::Overwrite).unwrap();
            assert_eq!(dw, [0.0; 6]);
        }
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
