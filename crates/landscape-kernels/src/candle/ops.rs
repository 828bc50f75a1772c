//! candle-nn's functions, those over the last axis with gradients.

use super::host::{Float, error};
use super::layer_norm::{Normalise, Scale};
use super::op::{Kernel, Operand, apply1, apply2, apply3, is_ours, is_tracked};
use crate::memory::Accumulate;
use crate::softmax as kernels;
use candle_core::shape::Dim;
use candle_core::{D, Result, Shape, Tensor, bail};

pub use candle_nn::ops::*;

/// Softmax over the last axis.
///
/// # Errors
/// If `xs` has no axes.
///
/// ```
/// use candle_core::{Device, Var};
/// use landscape_kernels::candle::ops::softmax_last_dim;
/// let x = Var::new(&[0.0, 1.0], &Device::Cpu)?;
/// assert!(softmax_last_dim(&x)?.max(0)?.backward()?.get(&x).is_some()); // candle-nn 0.11.1 gives none
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn softmax_last_dim(xs: &Tensor) -> Result<Tensor> {
    if is_ours(&[xs]) {
        apply1(Softmax, xs)
    } else if is_tracked(&[xs]) {
        candle_nn::ops::softmax(xs, D::Minus1)
    } else {
        candle_nn::ops::softmax_last_dim(&xs.contiguous()?)
    }
}

/// Softmax over an axis: [`softmax_last_dim`] if it is the last, else candle-nn's.
///
/// # Errors
/// If there is no such axis.
pub fn softmax<A: Dim>(xs: &Tensor, dim: A) -> Result<Tensor> {
    let dim = dim.to_index(xs.shape(), "softmax")?;
    if dim + 1 == xs.rank() { softmax_last_dim(xs) } else { candle_nn::ops::softmax(xs, dim) }
}

/// (x − μ)/√(σ² + ε)·alpha + beta over the last axis.
///
/// # Shapes
/// `alpha`, `beta` as long as the last axis.
///
/// # Errors
/// If they are not.
pub fn layer_norm(xs: &Tensor, alpha: &Tensor, beta: &Tensor, eps: f32) -> Result<Tensor> {
    check("layer_norm", xs, &[alpha, beta])?;
    if is_ours(&[xs, alpha, beta]) {
        apply3(Normalise { eps: f64::from(eps) }, xs, alpha, beta)
    } else if is_tracked(&[xs, alpha, beta]) {
        layer_norm_slow(xs, alpha, beta, eps)
    } else {
        candle_nn::ops::layer_norm(&xs.contiguous()?, alpha, beta, eps)
    }
}

/// x/√(mean(x²) + ε)·alpha over the last axis.
///
/// # Shapes
/// `alpha` as long as the last axis.
///
/// # Errors
/// If it is not.
pub fn rms_norm(xs: &Tensor, alpha: &Tensor, eps: f32) -> Result<Tensor> {
    check("rms_norm", xs, &[alpha])?;
    if is_ours(&[xs, alpha]) {
        apply2(Scale { eps: f64::from(eps) }, xs, alpha)
    } else if is_tracked(&[xs, alpha]) {
        rms_norm_slow(xs, alpha, eps)
    } else {
        candle_nn::ops::rms_norm(&xs.contiguous()?, alpha, eps)
    }
}

fn check(op: &str, xs: &Tensor, parameters: &[&Tensor]) -> Result<()> {
    let len = xs.dim(D::Minus1)?;
    match parameters.iter().find(|parameter| parameter.dims() != [len]) {
        Some(other) => bail!("`{op}`: parameters must be [{len}] for an input {:?}, got {:?}", xs.shape(), other.shape()),
        None => Ok(()),
    }
}

struct Softmax;

/// Rows, and their length.
fn rows(dims: &[usize]) -> Result<[usize; 2]> {
    match dims {
        [leading @ .., len] => Ok([leading.iter().product(), *len]),
        [] => bail!("`softmax_last_dim`: `xs` must have an axis"),
    }
}

impl Kernel<1> for Softmax {
    const NAME: &'static str = "softmax_last_dim";

    fn forward<T: Float>(&self, [x]: [Operand<'_, T>; 1]) -> Result<(Vec<T>, Shape)> {
        let ([n_rows, len], mut y) = (rows(x.dims)?, vec![T::ZERO; x.values.len()]);
        kernels::forward(n_rows, len, x.values.into(), (&mut y).into()).map_err(error)?;
        Ok((y, Shape::from(x.dims.to_vec())))
    }

    fn backward<T: Float>(&self, [x]: [Operand<'_, T>; 1], _: [bool; 1], y: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; 1]> {
        let ([n_rows, len], mut dx) = (rows(x.dims)?, vec![T::ZERO; x.values.len()]);
        kernels::backward(n_rows, len, y.into(), dy.into(), (&mut dx).into(), Accumulate::Overwrite).map_err(error)?;
        Ok([Some(dx)])
    }
}
