//! Batch normalisation with running statistics, as candle-nn has it.

use super::host::{Float, error};
use super::images::{channels_first, channels_last};
use super::op::{Kernel, Operand, apply1, apply3, is_ours};
use crate::batch_norm::{BatchNormShape, backward_batch, backward_stored, normalize, statistics};
use crate::memory::{Accumulate, Real};
use candle_core::{DType, ModuleT, Result, Shape, Tensor, Var, bail};
use candle_nn::VarBuilder;

pub use candle_nn::batch_norm::*;

/// Batch normalisation of `[n, c, ..]` over all axes but the second: `candle_nn::BatchNorm`, faster.
///
/// As there, the running variance is the unbiased one, and the running statistics move by `momentum` at every forward pass in training.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    inner: candle_nn::BatchNorm,
    remove_mean: bool,
}

impl BatchNorm {
    fn wrap(inner: candle_nn::BatchNorm) -> Self {
        BatchNorm { inner, remove_mean: true }
    }

    /// Of statistics and parameters, all `[num_features]`.
    ///
    /// # Errors
    /// If a shape differs.
    pub fn new(num_features: usize, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor, eps: f64) -> Result<Self> {
        candle_nn::BatchNorm::new(num_features, running_mean, running_var, weight, bias, eps).map(Self::wrap)
    }

    /// Without a weight and a bias.
    ///
    /// # Errors
    /// As [`BatchNorm::new`].
    pub fn new_no_bias(num_features: usize, running_mean: Tensor, running_var: Tensor, eps: f64) -> Result<Self> {
        candle_nn::BatchNorm::new_no_bias(num_features, running_mean, running_var, eps).map(Self::wrap)
    }

    /// With another momentum than 0.1.
    ///
    /// # Errors
    /// As [`BatchNorm::new`].
    pub fn new_with_momentum(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: f64,
        momentum: f64,
    ) -> Result<Self> {
        candle_nn::BatchNorm::new_with_momentum(num_features, running_mean, running_var, weight, bias, eps, momentum).map(Self::wrap)
    }

    /// Without a weight and a bias, with another momentum than 0.1.
    ///
    /// # Errors
    /// As [`BatchNorm::new`].
    pub fn new_no_bias_with_momentum(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        eps: f64,
        momentum: f64,
    ) -> Result<Self> {
        candle_nn::BatchNorm::new_no_bias_with_momentum(num_features, running_mean, running_var, eps, momentum).map(Self::wrap)
    }

    /// The running mean.
    pub fn running_mean(&self) -> &Tensor {
        self.inner.running_mean()
    }

    /// The running variance.
    pub fn running_var(&self) -> &Tensor {
        self.inner.running_var()
    }

    /// ε.
    pub fn eps(&self) -> f64 {
        self.inner.eps()
    }

    /// The factors and what is added.
    pub fn weight_and_bias(&self) -> Option<(&Tensor, &Tensor)> {
        self.inner.weight_and_bias()
    }

    /// How much of a batch's statistics goes into the running ones.
    pub fn momentum(&self) -> f64 {
        self.inner.momentum()
    }

    /// Normalises by the batch's own statistics, and moves the running ones.
    ///
    /// # Errors
    /// If `x` has other channels, or nothing to take statistics of.
    pub fn forward_train(&self, x: &Tensor) -> Result<Tensor> {
        if !self.fits(x) {
            return self.inner.forward_train(x);
        }
        match x.dtype() {
            DType::F64 => self.train::<f64>(&x.contiguous()?),
            _ => self.train::<f32>(&x.contiguous()?),
        }
    }

    pub(super) fn inner(&self) -> &candle_nn::BatchNorm {
        &self.inner
    }

    /// Whether there are kernels for this input; what does not fit is candle's to refuse.
    fn fits(&self, x: &Tensor) -> bool {
        let mean = self.running_mean();
        let (weight, bias) = self.weight_and_bias().unwrap_or((mean, mean));
        self.remove_mean && x.rank() >= 2 && x.dims()[1] == mean.elem_count() && is_ours(&[x, mean, self.running_var(), weight, bias])
    }

    fn train<T: Float>(&self, x: &Tensor) -> Result<Tensor> {
        let (shape, dims) = sizes(x.dims())?;
        let [mut mean, mut var] = [(); 2].map(|()| vec![T::ZERO; shape.channels]);
        {
            let (storage, layout) = x.storage_and_layout();
            let x = channels_last(super::host::host::<T>(&storage, layout)?, dims)?;
            statistics(&shape, (&*x).into(), (&mut mean).into(), (&mut var).into()).map_err(error)?;
        }
        let n = shape.n_rows as f64;
        self.move_running(self.running_mean(), &mean, 1.0)?;
        // Without a variance, of one value, this is 0·∞: not a number, as in candle.
        self.move_running(self.running_var(), &var, n / (n - 1.0))?;
        self.apply(x, Statistics::Batch, [mean, var].map(wide))
    }

    /// running·(1 − momentum) + batch·factor·momentum, into the variable that the model and its owner share.
    fn move_running<T: Float>(&self, running: &Tensor, batch: &[T], factor: f64) -> Result<()> {
        let momentum = self.momentum();
        let moved = numbers::<T>(running)?.into_iter().zip(batch);
        let moved = moved.map(|(old, new)| <T as Real>::from_f64(old * (1.0 - momentum) + Real::to_f64(*new) * factor * momentum));
        Var::from_tensor(running)?.set(&Tensor::from_vec(moved.collect::<Vec<T>>(), running.shape(), running.device())?)
    }

    fn apply(&self, x: &Tensor, kind: Statistics, [mean, var]: [Vec<f64>; 2]) -> Result<Tensor> {
        let op = Normalise { kind, eps: self.eps(), mean, var };
        match self.weight_and_bias() {
            Some((weight, bias)) => apply3(op, x, weight, bias),
            None => apply1(op, x),
        }
    }
}

impl ModuleT for BatchNorm {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            return self.forward_train(x);
        }
        if !self.fits(x) {
            return self.inner.forward_t(x, false);
        }
        let stored = |tensor: &Tensor| match x.dtype() {
            DType::F64 => numbers::<f64>(tensor),
            _ => numbers::<f32>(tensor),
        };
        self.apply(x, Statistics::Stored, [stored(self.running_mean())?, stored(self.running_var())?])
    }
}

/// A [`BatchNorm`], its parameters and statistics named and begun as candle-nn does.
///
/// # Errors
/// If the builder has no such parameters, or `eps` is negative.
pub fn batch_norm<C: Into<BatchNormConfig>>(num_features: usize, config: C, vb: VarBuilder) -> Result<BatchNorm> {
    let config = config.into();
    Ok(BatchNorm { inner: candle_nn::batch_norm(num_features, config, vb)?, remove_mean: config.remove_mean })
}

/// Whose statistics normalise.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Statistics {
    Batch,
    Stored,
}

struct Normalise {
    kind: Statistics,
    eps: f64,
    mean: Vec<f64>,
    var: Vec<f64>,
}

impl Normalise {
    fn run<T: Float>(&self, x: Operand<'_, T>, affine: Option<[Operand<'_, T>; 2]>) -> Result<(Vec<T>, Shape)> {
        let (shape, dims) = sizes(x.dims)?;
        let (mut y, [mean, var]) = (vec![T::ZERO; x.values.len()], self.statistics::<T>());
        let (weight, bias) = affine.map(|[weight, bias]| (weight.values.into(), bias.values.into())).unzip();
        let rows = channels_last(x.values, dims)?;
        normalize(&shape, (&*rows).into(), (&mean).into(), (&var).into(), self.eps, weight, bias, (&mut y).into()).map_err(error)?;
        Ok((channels_first(y, dims)?, Shape::from(x.dims.to_vec())))
    }

    fn run_back<T: Float>(&self, x: Operand<'_, T>, weight: Option<Operand<'_, T>>, dy: &[T]) -> Result<[Vec<T>; 3]> {
        let (shape, dims) = sizes(x.dims)?;
        let [mut dweight, mut dbias] = [(); 2].map(|()| vec![T::ZERO; shape.channels]);
        let (mut dx, [mean, var]) = (vec![T::ZERO; x.values.len()], self.statistics::<T>());
        let (x, dy) = (channels_last(x.values, dims)?, channels_last(dy, dims)?);
        let backward = if self.kind == Statistics::Batch { backward_batch } else { backward_stored };
        backward(
            &shape,
            (&*x).into(),
            (&mean).into(),
            (&var).into(),
            self.eps,
            weight.map(|weight| weight.values.into()),
            (&*dy).into(),
            (&mut dx).into(),
            Accumulate::Overwrite,
            Some((&mut dweight).into()),
            Some((&mut dbias).into()),
            Accumulate::Overwrite,
        )
        .map_err(error)?;
        Ok([channels_first(dx, dims)?, dweight, dbias])
    }

    fn statistics<T: Float>(&self) -> [Vec<T>; 2] {
        [&self.mean, &self.var].map(|values| values.iter().map(|v| <T as Real>::from_f64(*v)).collect())
    }
}

impl Kernel<1> for Normalise {
    const NAME: &'static str = "batch_norm";

    fn forward<T: Float>(&self, [x]: [Operand<'_, T>; 1]) -> Result<(Vec<T>, Shape)> {
        self.run(x, None)
    }

    fn backward<T: Float>(&self, [x]: [Operand<'_, T>; 1], _: [bool; 1], _: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; 1]> {
        let [dx, _, _] = self.run_back(x, None, dy)?;
        Ok([Some(dx)])
    }
}

impl Kernel<3> for Normalise {
    const NAME: &'static str = "batch_norm";

    fn forward<T: Float>(&self, [x, weight, bias]: [Operand<'_, T>; 3]) -> Result<(Vec<T>, Shape)> {
        self.run(x, Some([weight, bias]))
    }

    fn backward<T: Float>(&self, [x, weight, _]: [Operand<'_, T>; 3], asked: [bool; 3], _: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; 3]> {
        let mut asked = asked.into_iter();
        Ok(self.run_back(x, Some(weight), dy)?.map(|gradient| asked.next().unwrap_or(false).then_some(gradient)))
    }
}

/// `[n, c, ..]` as rows, and as images of one column.
fn sizes(dims: &[usize]) -> Result<(BatchNormShape, [usize; 4])> {
    let [n, channels, pixels @ ..] = dims else { bail!("`batch_norm`: `x` must have at least 2 axes, got {dims:?}") };
    let pixels = pixels.iter().product::<usize>();
    Ok((BatchNormShape { n_rows: n * pixels, channels: *channels }, [*n, *channels, pixels, 1]))
}

fn numbers<T: Float>(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(wide(tensor.to_vec1::<T>()?))
}

fn wide<T: Float>(values: Vec<T>) -> Vec<f64> {
    values.into_iter().map(Real::to_f64).collect()
}
