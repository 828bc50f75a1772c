//! Batch normalisation together with what follows it, and its gradient in two passes, so that a convolution can do the first.

use super::{BatchNormShape, OP, batch_gradient_rows, check_channels, check_rows, scales, store, stored_gradient_rows};
use crate::activation::Activation;
use crate::conv2d::{GradientEpilogue, Prologue, gate_and_sum_rows};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::reduce::{rows_per_wide_row, tile};
use crate::simd::multiversion;

/// Whether mean and variance depend on the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// They are those of the batch.
    Batch,
    /// They are constants.
    Stored,
}

/// Which gradient [`backward_input`] starts from.
#[derive(Debug, Clone, Copy)]
pub enum Incoming<'a, T> {
    /// The one that stands in `dx`.
    InPlace,
    /// One that is kept: `dx` is overwritten or added to.
    From(View<'a, T>, Accumulate),
}

/// y = activation((x − mean)·scale + shift + residual), one pass with the bits of [`super::normalize`],
/// [`crate::activation::add`] and [`crate::activation::relu_forward`] one after the other.
///
/// # Shapes
/// `x`, `residual`, `y` `[n_rows, channels]`; the numbers of `norm` `[channels]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit.
///
/// ```
/// use landscape_kernels::View;
/// use landscape_kernels::batch_norm::{BatchNormShape, normalize_fused};
/// use landscape_kernels::{activation::Activation, conv2d::Prologue};
/// let one = |v| View::Host(v);
/// let norm = Prologue { mean: one(&[1.0]), scale: one(&[2.0]), shift: one(&[0.5]), activation: Activation::Relu };
/// let mut y = [0.0_f64; 2];
/// normalize_fused(&BatchNormShape { n_rows: 2, channels: 1 }, one(&[0.0, 3.0]), &norm, Some(one(&[1.0, 1.0])), (&mut y[..]).into())?;
/// assert_eq!(y, [0.0, 5.5]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn normalize_fused<T: Real>(
    shape: &BatchNormShape,
    x: View<'_, T>,
    norm: &Prologue<'_, T>,
    residual: Option<View<'_, T>>,
    y: ViewMut<'_, T>,
) -> Result<()> {
    check_len(OP, "x", shape.n_elements()?, x.len())?;
    check_len(OP, "y", shape.n_elements()?, y.len())?;
    residual.map_or(Ok(()), |r| check_len(OP, "residual", y.len(), r.len()))?;
    for (operand, values) in [("mean", norm.mean), ("scale", norm.scale), ("shift", norm.shift)] {
        check_len(OP, operand, shape.channels, values.len())?;
    }
    if shape.channels == 0 {
        return Ok(());
    }
    let times = rows_per_wide_row(shape.channels);
    let [mean, scale, shift] = [norm.mean, norm.scale, norm.shift].map(|v| tile(v.host(), times));
    let (x, residual, activation) = (x.host(), residual.map(View::host), norm.activation);
    let chunk = (CHUNK / mean.len()).max(1) * mean.len();
    for_each_chunk_mut(y.host(), chunk, |idx, y| {
        let range = idx * chunk..idx * chunk + y.len();
        match residual {
            None => finish_rows(&x[range], &mean, &scale, &shift, activation, y),
            Some(residual) => finish_sum_rows(&x[range.clone()], &mean, &scale, &shift, &residual[range], activation, y),
        }
    });
    Ok(())
}

/// The first pass of the gradient: `dx` is gated, and its sums are taken, as a convolution's epilogue would.
///
/// # Shapes
/// `dx` and what the epilogue says is like it `[n_rows, channels]`; the epilogue's other numbers `[channels]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit.
pub fn gate_and_sum<T: Real>(shape: &BatchNormShape, dx: ViewMut<'_, T>, epilogue: GradientEpilogue<'_, T>) -> Result<()> {
    check_len(OP, "dx", shape.n_elements()?, dx.len())?;
    gate_and_sum_rows(shape.channels, dx, epilogue)
}

/// dγ = Σ dy·(x − μ)/√(σ² + ε) and dβ = Σ dy from the sums of the first pass.
///
/// # Shapes
/// All `[channels]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit.
pub fn backward_parameters<T: Real>(
    var: View<'_, T>,
    eps: f64,
    sums: View<'_, f64>,
    products: View<'_, f64>,
    dweight: Option<ViewMut<'_, T>>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) -> Result<()> {
    check_len(OP, "sums", var.len(), sums.len())?;
    check_len(OP, "products", var.len(), products.len())?;
    for (operand, values) in [("dweight", &dweight), ("dbias", &dbias)] {
        values.as_ref().map_or(Ok(()), |values| check_len(OP, operand, var.len(), values.len()))?;
    }
    if dweight.is_some() {
        let dgamma: Vec<f64> = products.host().iter().zip(scales(var, eps, None)).map(|(p, s)| p * s).collect();
        store(&dgamma, dweight, mode);
    }
    store(sums.host(), dbias, mode);
    Ok(())
}

/// The second pass of the gradient, from the gated gradient dy and its sums: as [`super::backward_batch`] and
/// [`super::backward_stored`], to which it has the same bits.
///
/// dx = γ/√(σ² + ε) · (dy − Σdy/n − (x − μ)·Σdy·(x − μ)/((σ² + ε)·n)), without the last two terms for [`Through::Stored`].
///
/// # Shapes
/// `x`, `dy`, `dx` `[n_rows, channels]`; `mean`, `var`, `weight`, `sums`, `products` `[channels]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit; [`crate::Error::Shape`] if there are no rows or the sizes overflow.
#[allow(clippy::too_many_arguments)]
pub fn backward_input<T: Real>(
    shape: &BatchNormShape,
    through: Through,
    x: View<'_, T>,
    mean: View<'_, T>,
    var: View<'_, T>,
    eps: f64,
    weight: Option<View<'_, T>>,
    sums: View<'_, f64>,
    products: View<'_, f64>,
    incoming: Incoming<'_, T>,
    dx: ViewMut<'_, T>,
) -> Result<()> {
    check_len(OP, "x", shape.n_elements()?, x.len())?;
    check_len(OP, "dx", shape.n_elements()?, dx.len())?;
    if let Incoming::From(dy, _) = incoming {
        check_len(OP, "dy", dx.len(), dy.len())?;
    }
    check_channels(shape, mean, var, weight)?;
    check_len(OP, "sums", shape.channels, sums.len())?;
    check_len(OP, "products", shape.channels, products.len())?;
    check_rows(shape)?;
    if shape.channels == 0 {
        return Ok(());
    }
    let (x, sums, products) = (x.host(), sums.host(), products.host());
    let (scale, inv_std) = (scales(var, eps, weight), scales(var, eps, None));
    let n = shape.n_rows as f64;
    let times = rows_per_wide_row(shape.channels);
    let wide = |f: &dyn Fn(usize) -> f64| tile(&(0..shape.channels).map(|c| T::from_f64(f(c))).collect::<Vec<_>>(), times);
    let a = wide(&|c| scale[c]);
    let chunk = (CHUNK / a.len()).max(1) * a.len();
    match through {
        Through::Batch => {
            let b = wide(&|c| -scale[c] * inv_std[c] * (products[c] * inv_std[c]) / n);
            let shift = wide(&|c| -scale[c] * sums[c] / n);
            let mean = tile(mean.host(), times);
            for_each_chunk_mut(dx.host(), chunk, |idx, dx| {
                let range = idx * chunk..idx * chunk + dx.len();
                match incoming {
                    Incoming::InPlace => batch_gradient_in_place(&x[range], &mean, &a, &b, &shift, dx),
                    Incoming::From(dy, mode) => {
                        batch_gradient_rows(&x[range.clone()], &mean, &dy.host()[range], &a, &b, &shift, dx, mode);
                    }
                }
            });
        }
        Through::Stored => for_each_chunk_mut(dx.host(), chunk, |idx, dx| match incoming {
            Incoming::InPlace => stored_gradient_in_place(&a, dx),
            Incoming::From(dy, mode) => stored_gradient_rows(&dy.host()[idx * chunk..idx * chunk + dx.len()], &a, dx, mode),
        }),
    }
    Ok(())
}

multiversion! {
    fn finish_rows<T>(x: &[T], mean: &[T], scale: &[T], shift: &[T], activation: Activation, y: &mut [T]) {
        let width = mean.len();
        for (x_row, y_row) in x.chunks(width).zip(y.chunks_mut(width)) {
            let rows = y_row.iter_mut().zip(x_row).zip(mean).zip(scale).zip(shift);
            match activation {
                Activation::None => rows.for_each(|((((y, &x), &m), &s), &b)| *y = (x - m) * s + b),
                Activation::Relu => rows.for_each(|((((y, &x), &m), &s), &b)| {
                    let v = (x - m) * s + b;
                    *y = if v <= T::ZERO { T::ZERO } else { v };
                }),
            }
        }
    }
}

multiversion! {
    fn finish_sum_rows<T>(x: &[T], mean: &[T], scale: &[T], shift: &[T], residual: &[T], activation: Activation, y: &mut [T]) {
        let width = mean.len();
        for ((x_row, r_row), y_row) in x.chunks(width).zip(residual.chunks(width)).zip(y.chunks_mut(width)) {
            let rows = y_row.iter_mut().zip(x_row).zip(r_row).zip(mean).zip(scale).zip(shift);
            match activation {
                Activation::None => rows.for_each(|(((((y, &x), &r), &m), &s), &b)| *y = (x - m) * s + b + r),
                Activation::Relu => rows.for_each(|(((((y, &x), &r), &m), &s), &b)| {
                    let v = (x - m) * s + b + r;
                    *y = if v <= T::ZERO { T::ZERO } else { v };
                }),
            }
        }
    }
}

multiversion! {
    fn batch_gradient_in_place<T>(x: &[T], mean: &[T], a: &[T], b: &[T], c: &[T], dx: &mut [T]) {
        let width = mean.len();
        for (x_row, dx_row) in x.chunks(width).zip(dx.chunks_mut(width)) {
            for (((((dx, &x), &m), &a), &b), &c) in dx_row.iter_mut().zip(x_row).zip(mean).zip(a).zip(b).zip(c) {
                *dx = a * *dx + (b * (x - m) + c);
            }
        }
    }
}

multiversion! {
    fn stored_gradient_in_place<T>(a: &[T], dx: &mut [T]) {
        for dx_row in dx.chunks_mut(a.len()) {
            dx_row.iter_mut().zip(a).for_each(|(dx, &a)| *dx = a * *dx);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{backward_batch, backward_stored, normalize, scale, statistics};
    use super::*;
    use crate::activation::{add, relu_backward, relu_forward};
    use crate::conv2d::Gate;
    use crate::error::Error;
    use crate::naive::tools::{assert_close, bits, on_pools, values};
    use proptest::prelude::*;

    const EPS: f64 = 1e-5;

    struct Case<T> {
        shape: BatchNormShape,
        x: Vec<T>,
        residual: Vec<T>,
        dy: Vec<T>,
        mean: Vec<T>,
        var: Vec<T>,
        weight: Vec<T>,
        shift: Vec<T>,
        scale: Vec<T>,
    }

    impl<T: Real> Case<T> {
        fn new(n_rows: usize, channels: usize) -> Self {
            let shape = BatchNormShape { n_rows, channels };
            let x = values::<T>(n_rows * channels, 1);
            let (mut mean, mut var, mut factors) = (vec![T::ZERO; channels], vec![T::ZERO; channels], vec![T::ZERO; channels]);
            statistics(&shape, (&x).into(), (&mut mean).into(), (&mut var).into()).unwrap();
            let weight = values(channels, 4);
            scale((&var).into(), EPS, Some((&weight).into()), (&mut factors).into()).unwrap();
            let n = x.len();
            Case { shape, x, residual: values(n, 2), dy: values(n, 3), mean, var, weight, shift: values(channels, 5), scale: factors }
        }

        fn norm(&self, activation: Activation) -> Prologue<'_, T> {
            Prologue { mean: (&self.mean).into(), scale: (&self.scale).into(), shift: (&self.shift).into(), activation }
        }

        fn fused(&self, residual: Option<&[T]>, activation: Activation) -> Vec<T> {
            let mut y = vec![T::from_f64(f64::NAN); self.x.len()];
            normalize_fused(&self.shape, (&self.x).into(), &self.norm(activation), residual.map(View::from), (&mut y).into()).unwrap();
            y
        }

        fn unfused(&self, residual: Option<&[T]>, activation: Activation) -> Vec<T> {
            let mut y = vec![T::ZERO; self.x.len()];
            let (mean, var, weight, shift) = ((&self.mean).into(), (&self.var).into(), (&self.weight).into(), (&self.shift).into());
            normalize(&self.shape, (&self.x).into(), mean, var, EPS, Some(weight), Some(shift), (&mut y).into()).unwrap();
            if let Some(residual) = residual {
                let before = y.clone();
                add((&before).into(), residual.into(), (&mut y).into()).unwrap();
            }
            if activation == Activation::Relu {
                let before = y.clone();
                relu_forward((&before).into(), (&mut y).into()).unwrap();
            }
            y
        }

        /// dx, the gated dy, dweight, dbias by two passes; dx is added to `start` unless it is in place.
        fn two_passes(&self, through: Through, gate: Gate<'_, T>, start: Option<&[T]>) -> [Vec<T>; 4] {
            let channels = self.shape.channels;
            let mut g = self.dy.clone();
            let (mut sums, mut products) = (vec![f64::NAN; channels], vec![f64::NAN; channels]);
            let (x, mean, var) = (View::from(&self.x), View::from(&self.mean), View::from(&self.var));
            let epilogue = GradientEpilogue { x, mean, gate, sums: (&mut sums).into(), products: (&mut products).into() };
            gate_and_sum(&self.shape, (&mut g).into(), epilogue).unwrap();
            let (mut dweight, mut dbias) = (vec![T::ONE; channels], vec![T::ONE; channels]);
            let (sums, products) = (View::from(&sums), View::from(&products));
            let add = Accumulate::Add;
            backward_parameters(var, EPS, sums, products, Some((&mut dweight).into()), Some((&mut dbias).into()), add).unwrap();
            let mut dx = start.map_or_else(|| g.clone(), <[T]>::to_vec);
            let incoming = if start.is_some() { Incoming::From((&g).into(), Accumulate::Add) } else { Incoming::InPlace };
            let weight = Some((&self.weight).into());
            backward_input(&self.shape, through, x, mean, var, EPS, weight, sums, products, incoming, (&mut dx).into()).unwrap();
            [dx, g, dweight, dbias]
        }

        /// The same by one call after the other; `y` is what the relu yielded.
        fn one_pass(&self, through: Through, y: Option<&[T]>, start: Option<&[T]>) -> [Vec<T>; 4] {
            let channels = self.shape.channels;
            let mut g = self.dy.clone();
            if let Some(y) = y {
                relu_backward(y.into(), (&self.dy).into(), (&mut g).into(), Accumulate::Overwrite).unwrap();
            }
            let (mut dweight, mut dbias) = (vec![T::ONE; channels], vec![T::ONE; channels]);
            let mut dx = start.map_or_else(|| vec![T::ZERO; g.len()], <[T]>::to_vec);
            let dx_mode = if start.is_some() { Accumulate::Add } else { Accumulate::Overwrite };
            let f = if through == Through::Batch { backward_batch } else { backward_stored };
            let (x, mean, var, weight) = ((&self.x).into(), (&self.mean).into(), (&self.var).into(), Some((&self.weight).into()));
            let (dw, db) = (Some((&mut dweight).into()), Some((&mut dbias).into()));
            f(&self.shape, x, mean, var, EPS, weight, (&g).into(), (&mut dx).into(), dx_mode, dw, db, Accumulate::Add).unwrap();
            [dx, g, dweight, dbias]
        }
    }

    fn same<T: Real>(n_rows: usize, channels: usize) {
        let case = Case::<T>::new(n_rows, channels);
        for activation in [Activation::None, Activation::Relu] {
            for residual in [None, Some(&case.residual[..])] {
                assert_eq!(bits(&case.fused(residual, activation)), bits(&case.unfused(residual, activation)));
            }
        }
        let y = case.unfused(None, Activation::Relu);
        let (scale, shift) = ((&case.scale).into(), (&case.shift).into());
        let gates =
            [(Gate::Open, None), (Gate::Stored { y: (&y).into() }, Some(&y[..])), (Gate::Normalized { scale, shift }, Some(&y[..]))];
        for through in [Through::Batch, Through::Stored] {
            for (gate, y) in gates {
                for start in [None, Some(&case.residual[..])] {
                    let (got, expected) = (case.two_passes(through, gate, start), case.one_pass(through, y, start));
                    // The sums are cut elsewhere, in double precision.
                    for (got, expected) in got.iter().zip(&expected) {
                        assert_close(got, expected, 64.0);
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn two_passes_equal_one_call_after_the_other(n_rows in 1_usize..40, channels in 1_usize..150) {
            same::<f32>(n_rows, channels);
            same::<f64>(n_rows, channels);
        }
    }

    #[test]
    fn two_passes_equal_where_work_is_cut() {
        for (n_rows, channels) in [(5000, 7), (2100, 16), (3, 40_000)] {
            same::<f32>(n_rows, channels);
        }
    }

    #[test]
    fn threads_do_not_change_bits() {
        on_pools(|| {
            let case = Case::<f32>::new(5000, 16);
            let y = case.fused(Some(&case.residual), Activation::Relu);
            let gate = Gate::Stored { y: (&y).into() };
            case.two_passes(Through::Batch, gate, None).map(|v| bits(&v))
        });
    }

    #[test]
    fn wrong_lengths_are_errors() {
        let case = Case::<f32>::new(2, 3);
        let mut y = [0.0; 5];
        let result = normalize_fused(&case.shape, (&case.x).into(), &case.norm(Activation::None), None, (&mut y[..]).into());
        assert!(matches!(result, Err(Error::Length { operand: "y", expected: 6, got: 5, .. })));
        let mut y = [0.0; 6];
        let short = Some((&y[..5]).into());
        let mut out = [0.0; 6];
        let result = normalize_fused(&case.shape, (&case.x).into(), &case.norm(Activation::None), short, (&mut out[..]).into());
        assert!(matches!(result, Err(Error::Length { operand: "residual", expected: 6, got: 5, .. })));
        let (mut sums, mut products) = ([0.0; 2], [0.0; 3]);
        let (x, mean) = ((&case.x).into(), (&case.mean).into());
        let epilogue = GradientEpilogue { x, mean, gate: Gate::Open, sums: (&mut sums[..]).into(), products: (&mut products[..]).into() };
        assert!(gate_and_sum(&case.shape, (&mut y[..]).into(), epilogue).is_err());
    }
}
