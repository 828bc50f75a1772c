//! Layer and RMS normalisation over the last axis, as candle-nn has them, with gradients.

use super::host::{Float, error};
use super::op::{Kernel, Operand, apply2, apply3, is_ours, is_tracked};
use crate::layer_norm::{self as kernels, LayerNormShape};
use crate::memory::Accumulate;
use crate::rms_norm as rms_kernels;
use candle_core::{Module, Result, Shape, Tensor};
use candle_nn::VarBuilder;

pub use candle_nn::layer_norm::*;

/// y = (x − μ)/√(σ² + ε)·weight + bias over the last axis: `candle_nn::LayerNorm` with a gradient.
#[derive(Clone, Debug)]
pub struct LayerNorm(candle_nn::LayerNorm);

impl LayerNorm {
    /// Of a weight and a bias, both as long as the last axis.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        LayerNorm(candle_nn::LayerNorm::new(weight, bias, eps))
    }

    /// Without a bias.
    pub fn new_no_bias(weight: Tensor, eps: f64) -> Self {
        LayerNorm(candle_nn::LayerNorm::new_no_bias(weight, eps))
    }

    /// Without a bias and without taking off the mean.
    pub fn rms_norm(weight: Tensor, eps: f64) -> Self {
        LayerNorm(candle_nn::LayerNorm::rms_norm(weight, eps))
    }

    /// The factors.
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// What is added.
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias()
    }

    /// ε.
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }

    /// Whether the mean is taken off.
    pub fn remove_mean(&self) -> bool {
        self.0.remove_mean()
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (weight, bias, eps) = (self.weight(), self.bias(), self.eps());
        let all = [x, weight, bias.unwrap_or(weight)];
        let len = x.dims().last().copied();
        let fits = all[1..].iter().all(|t| t.rank() == 1 && t.dims().first().copied() == len);
        if !fits || !is_ours(&all) {
            return match bias {
                // candle takes the op without a gradient here.
                Some(bias) if self.remove_mean() && is_tracked(&all) => candle_nn::ops::layer_norm_slow(x, weight, bias, eps as f32),
                _ => self.0.forward(x),
            };
        }
        match (self.remove_mean(), bias) {
            (true, Some(bias)) => apply3(Normalise { eps }, x, weight, bias),
            (true, None) => apply2(Normalise { eps }, x, weight),
            (false, Some(bias)) => apply2(Scale { eps }, x, weight)?.broadcast_add(bias),
            (false, None) => apply2(Scale { eps }, x, weight),
        }
    }
}

/// y = x/√(mean(x²) + ε)·weight over the last axis: `candle_nn::RmsNorm` with a gradient.
#[derive(Clone, Debug)]
pub struct RmsNorm(LayerNorm);

impl RmsNorm {
    /// Of a weight as long as the last axis.
    pub fn new(weight: Tensor, eps: f64) -> Self {
        RmsNorm(LayerNorm::rms_norm(weight, eps))
    }

    /// The layer norm that this is.
    pub fn into_inner(self) -> LayerNorm {
        self.0
    }

    /// The factors.
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// ε.
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }

    /// The same as `forward`, which in candle-nn has no gradient.
    ///
    /// # Errors
    /// If the weight does not fit.
    pub fn forward_diff(&self, xs: &Tensor) -> Result<Tensor> {
        self.0.forward(xs)
    }
}

impl Module for RmsNorm {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.0.forward(xs)
    }
}

/// A [`LayerNorm`], its parameters named and begun as candle-nn does (`weight` or `gamma`, `bias` or `beta`).
///
/// # Errors
/// If the builder has no such parameters.
pub fn layer_norm<C: Into<LayerNormConfig>>(size: usize, config: C, vb: VarBuilder) -> Result<LayerNorm> {
    candle_nn::layer_norm(size, config, vb).map(LayerNorm)
}

/// A [`LayerNorm`] without a bias.
///
/// # Errors
/// As [`layer_norm`].
pub fn layer_norm_no_bias(size: usize, eps: f64, vb: VarBuilder) -> Result<LayerNorm> {
    candle_nn::layer_norm_no_bias(size, eps, vb).map(LayerNorm)
}

/// An [`RmsNorm`].
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm(size: usize, eps: f64, vb: VarBuilder) -> Result<RmsNorm> {
    candle_nn::rms_norm(size, eps, vb).map(|norm| RmsNorm(LayerNorm(norm.into_inner())))
}

/// Layer norm.
pub(super) struct Normalise {
    pub eps: f64,
}

/// RMS norm.
pub(super) struct Scale {
    pub eps: f64,
}

fn rows(dims: &[usize]) -> LayerNormShape {
    match dims {
        [leading @ .., len] => LayerNormShape { n_rows: leading.iter().product(), len: *len },
        [] => LayerNormShape { n_rows: 1, len: 1 },
    }
}

fn zeros<T: Float>(asked: bool, like: &[T]) -> Option<Vec<T>> {
    asked.then(|| vec![T::ZERO; like.len()])
}

impl Normalise {
    fn run<T: Float>(&self, x: Operand<'_, T>, weight: Operand<'_, T>, bias: Option<Operand<'_, T>>) -> Result<(Vec<T>, Shape)> {
        let mut y = vec![T::ZERO; x.values.len()];
        let (weight, bias) = (Some(weight.values.into()), bias.map(|bias| bias.values.into()));
        kernels::forward(&rows(x.dims), self.eps, x.values.into(), weight, bias, (&mut y).into()).map_err(error)?;
        Ok((y, Shape::from(x.dims.to_vec())))
    }

    fn run_back<T: Float>(&self, x: Operand<'_, T>, weight: Operand<'_, T>, asked: [bool; 3], dy: &[T]) -> Result<[Option<Vec<T>>; 3]> {
        let [mut dx, mut dweight, mut dbias] = [zeros(asked[0], x.values), zeros(asked[1], weight.values), zeros(asked[2], weight.values)];
        kernels::backward(
            &rows(x.dims),
            self.eps,
            x.values.into(),
            Some(weight.values.into()),
            dy.into(),
            dx.as_mut().map(|dx| (dx.into(), Accumulate::Overwrite)),
            dweight.as_mut().map(|dweight| dweight.into()),
            dbias.as_mut().map(|dbias| dbias.into()),
            Accumulate::Overwrite,
        )
        .map_err(error)?;
        Ok([dx, dweight, dbias])
    }
}

impl Kernel<3> for Normalise {
    const NAME: &'static str = "layer_norm";

    fn forward<T: Float>(&self, [x, weight, bias]: [Operand<'_, T>; 3]) -> Result<(Vec<T>, Shape)> {
        self.run(x, weight, Some(bias))
    }

    fn backward<T: Float>(&self, [x, weight, _]: [Operand<'_, T>; 3], asked: [bool; 3], _: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; 3]> {
        self.run_back(x, weight, asked, dy)
    }
}

impl Kernel<2> for Normalise {
    const NAME: &'static str = "layer_norm";

    fn forward<T: Float>(&self, [x, weight]: [Operand<'_, T>; 2]) -> Result<(Vec<T>, Shape)> {
        self.run(x, weight, None)
    }

    fn backward<T: Float>(&self, [x, weight]: [Operand<'_, T>; 2], [a, b]: [bool; 2], _: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; 2]> {
        let [dx, dweight, _] = self.run_back(x, weight, [a, b, false], dy)?;
        Ok([dx, dweight])
    }
}

impl Kernel<2> for Scale {
    const NAME: &'static str = "rms_norm";

    fn forward<T: Float>(&self, [x, weight]: [Operand<'_, T>; 2]) -> Result<(Vec<T>, Shape)> {
        let mut y = vec![T::ZERO; x.values.len()];
        rms_kernels::forward(&rows(x.dims), self.eps, x.values.into(), Some(weight.values.into()), (&mut y).into()).map_err(error)?;
        Ok((y, Shape::from(x.dims.to_vec())))
    }

    fn backward<T: Float>(&self, [x, weight]: [Operand<'_, T>; 2], asked: [bool; 2], _: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; 2]> {
        let [mut dx, mut dweight] = [zeros(asked[0], x.values), zeros(asked[1], weight.values)];
        rms_kernels::backward(
            &rows(x.dims),
            self.eps,
            x.values.into(),
            Some(weight.values.into()),
            dy.into(),
            dx.as_mut().map(|dx| (dx.into(), Accumulate::Overwrite)),
            dweight.as_mut().map(|dweight| dweight.into()),
            Accumulate::Overwrite,
        )
        .map_err(error)?;
        Ok([dx, dweight])
    }
}
