//! Convolutions in one and two dimensions, as candle-nn has them.

use super::BatchNorm;
use super::host::{Float, error};
use super::images::{channels_first, channels_last, four};
use super::op::{Kernel, Operand, apply2, apply3, is_ours, is_tracked};
use crate::Precision;
use crate::conv2d::{Conv2dShape, backward_input, backward_weight, forward, pack_weight, unpack_gradient};
use crate::memory::Accumulate;
use candle_core::{Module, Result, Shape, Tensor, bail};
use candle_nn::VarBuilder;

pub use candle_nn::conv::*;

/// A convolution over `[n, in, length]`: `candle_nn::Conv1d` with a gradient of its weight that is right.
#[derive(Clone, Debug)]
pub struct Conv1d(candle_nn::Conv1d);

impl Conv1d {
    /// Of a weight `[out, in/groups, k]` and a bias `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: Conv1dConfig) -> Self {
        Conv1d(candle_nn::Conv1d::new(weight, bias, config))
    }

    /// Padding, stride, dilation, groups.
    pub fn config(&self) -> &Conv1dConfig {
        self.0.config()
    }

    /// `[out, in/groups, k]`.
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias()
    }
}

impl Module for Conv1d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (config, (_, _, length), (_, _, k)) = (self.config(), x.dims3()?, self.weight().dims3()?);
        // Images of one row. Their weight's gradient is right in candle too, where the windows reach to the last pixel.
        let weight = self.weight().unsqueeze(2)?;
        if let Some(operands) = Operands::ours(x, self.weight(), self.bias())? {
            let op = Convolution {
                padding: [0, config.padding],
                stride: [1, config.stride],
                dilation: [1, config.dilation],
                groups: config.groups,
            };
            return op.apply(&x.unsqueeze(2)?, &weight, operands.bias)?.squeeze(2);
        }
        if !is_tracked(&[x, self.weight(), self.bias().unwrap_or(x)]) {
            return self.0.forward(x);
        }
        let reach = config.dilation * k.saturating_sub(1) + 1;
        let Some(room) = (length + 2 * config.padding).checked_sub(reach) else {
            bail!("`conv1d`: the kernel must fit in the padded input: it reaches over {reach}, got {}", length + 2 * config.padding)
        };
        let used = room / config.stride.max(1) * config.stride + reach;
        let x = x.pad_with_zeros(2, config.padding, config.padding)?.narrow(2, 0, used)?.unsqueeze(2)?;
        let y = x.conv2d_with_algo(&weight, 0, config.stride, config.dilation, config.groups, config.cudnn_fwd_algo)?.squeeze(2)?;
        match self.bias() {
            Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1))?),
            None => Ok(y),
        }
    }
}

/// A convolution over `[n, in, h, w]`: `candle_nn::Conv2d`, faster.
#[derive(Clone, Debug)]
pub struct Conv2d(candle_nn::Conv2d);

impl Conv2d {
    /// Of a weight `[out, in/groups, kh, kw]` and a bias `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: Conv2dConfig) -> Self {
        Conv2d(candle_nn::Conv2d::new(weight, bias, config))
    }

    /// Padding, stride, dilation, groups.
    pub fn config(&self) -> &Conv2dConfig {
        self.0.config()
    }

    /// `[out, in/groups, kh, kw]`.
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias()
    }

    /// This convolution and the normalisation by stored statistics that follows it, as one convolution.
    ///
    /// # Errors
    /// If the normalisation has no weight and bias, or candle fails.
    pub fn absorb_bn(&self, bn: &BatchNorm) -> Result<Self> {
        self.0.absorb_bn(bn.inner()).map(Conv2d)
    }
}

impl Module for Conv2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Some(operands) = Operands::ours(x, self.weight(), self.bias())? else { return self.0.forward(x) };
        let config = self.config();
        let op =
            Convolution { padding: [config.padding; 2], stride: [config.stride; 2], dilation: [config.dilation; 2], groups: config.groups };
        op.apply(x, self.weight(), operands.bias)
    }
}

/// A [`Conv1d`] with a bias, its parameters named and begun as candle-nn does.
///
/// # Errors
/// If the builder has no such parameters.
pub fn conv1d(in_channels: usize, out_channels: usize, kernel_size: usize, cfg: Conv1dConfig, vb: VarBuilder) -> Result<Conv1d> {
    candle_nn::conv1d(in_channels, out_channels, kernel_size, cfg, vb).map(Conv1d)
}

/// A [`Conv1d`] without a bias.
///
/// # Errors
/// As [`conv1d`].
pub fn conv1d_no_bias(in_channels: usize, out_channels: usize, kernel_size: usize, cfg: Conv1dConfig, vb: VarBuilder) -> Result<Conv1d> {
    candle_nn::conv1d_no_bias(in_channels, out_channels, kernel_size, cfg, vb).map(Conv1d)
}

/// A [`Conv2d`] with a bias, its parameters named and begun as candle-nn does.
///
/// # Errors
/// If the builder has no such parameters.
pub fn conv2d(in_channels: usize, out_channels: usize, kernel_size: usize, cfg: Conv2dConfig, vb: VarBuilder) -> Result<Conv2d> {
    candle_nn::conv2d(in_channels, out_channels, kernel_size, cfg, vb).map(Conv2d)
}

/// A [`Conv2d`] without a bias.
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_no_bias(in_channels: usize, out_channels: usize, kernel_size: usize, cfg: Conv2dConfig, vb: VarBuilder) -> Result<Conv2d> {
    candle_nn::conv2d_no_bias(in_channels, out_channels, kernel_size, cfg, vb).map(Conv2d)
}

/// That there are kernels for the operands of a layer, and its bias.
struct Operands<'a> {
    bias: Option<&'a Tensor>,
}

impl<'a> Operands<'a> {
    fn ours(x: &Tensor, weight: &Tensor, bias: Option<&'a Tensor>) -> Result<Option<Self>> {
        bias.map_or(Ok(0), Tensor::dims1)?;
        Ok(is_ours(&[x, weight, bias.unwrap_or(weight)]).then_some(Operands { bias }))
    }
}

/// The op: pairs are (height, width).
struct Convolution {
    padding: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
}

impl Convolution {
    fn apply(self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        match bias {
            Some(bias) => apply3(self, x, weight, bias),
            None => apply2(self, x, weight),
        }
    }

    fn shape(&self, x: &[usize], weight: &[usize]) -> Result<Conv2dShape> {
        let ([n, in_channels, h, w], [out_channels, in_group, kh, kw]) = (four("conv2d", "x", x)?, four("conv2d", "weight", weight)?);
        if in_group.checked_mul(self.groups) != Some(in_channels) {
            bail!("`conv2d`: `x` must have {in_group} channels for each of {} groups, got {in_channels}", self.groups);
        }
        let &Convolution { padding, stride, dilation, groups } = self;
        let shape = Conv2dShape {
            n,
            in_channels,
            in_size: [h, w],
            out_channels,
            kernel_size: [kh, kw],
            stride,
            padding,
            dilation,
            groups,
            precision: Precision::F32,
        };
        shape.check().map_err(error)?;
        Ok(shape)
    }

    fn run<T: Float>(&self, x: Operand<'_, T>, weight: Operand<'_, T>, bias: Option<Operand<'_, T>>) -> Result<(Vec<T>, Shape)> {
        let shape = self.shape(x.dims, weight.dims)?;
        let mut packed = vec![T::ZERO; weight.values.len()];
        pack_weight(&shape, weight.values.into(), (&mut packed).into()).map_err(error)?;
        let (mut y, mut scratch) = (vec![T::ZERO; shape.out_len()], vec![T::ZERO; shape.scratch_len()]);
        let x = channels_last(x.values, in_dims(&shape))?;
        let bias = bias.map(|bias| bias.values.into());
        forward(&shape, (&*x).into(), (&packed).into(), bias, (&mut y).into(), (&mut scratch).into()).map_err(error)?;
        let out = out_dims(&shape);
        Ok((channels_first(y, out)?, Shape::from(out.to_vec())))
    }

    /// The gradients of x, the weight and the bias.
    fn run_back<T: Float>(&self, x: Operand<'_, T>, weight: Operand<'_, T>, asked: [bool; 3], dy: &[T]) -> Result<[Option<Vec<T>>; 3]> {
        let shape = self.shape(x.dims, weight.dims)?;
        let mut scratch = vec![T::ZERO; shape.scratch_len()];
        let dy = channels_last(dy, out_dims(&shape))?;
        let mut gradients = [None, None, None];
        if asked[0] {
            let (mut packed, mut dx) = (vec![T::ZERO; weight.values.len()], vec![T::ZERO; shape.in_len()]);
            pack_weight(&shape, weight.values.into(), (&mut packed).into()).map_err(error)?;
            let overwrite = Accumulate::Overwrite;
            backward_input(&shape, (&packed).into(), (&*dy).into(), (&mut dx).into(), overwrite, (&mut scratch).into()).map_err(error)?;
            gradients[0] = Some(channels_first(dx, in_dims(&shape))?);
        }
        if asked[1] || asked[2] {
            let [mut dpacked, mut dweight] = [vec![T::ZERO; weight.values.len()], vec![T::ZERO; weight.values.len()]];
            let mut dbias = asked[2].then(|| vec![T::ZERO; shape.out_channels]);
            let x = channels_last(x.values, in_dims(&shape))?;
            backward_weight(
                &shape,
                (&*x).into(),
                (&*dy).into(),
                (&mut dpacked).into(),
                dbias.as_mut().map(|dbias| dbias.into()),
                Accumulate::Overwrite,
                (&mut scratch).into(),
            )
            .map_err(error)?;
            unpack_gradient(&shape, (&dpacked).into(), (&mut dweight).into(), Accumulate::Overwrite).map_err(error)?;
            gradients[1] = asked[1].then_some(dweight);
            gradients[2] = dbias;
        }
        Ok(gradients)
    }
}

impl Kernel<2> for Convolution {
    const NAME: &'static str = "conv2d";

    fn forward<T: Float>(&self, [x, weight]: [Operand<'_, T>; 2]) -> Result<(Vec<T>, Shape)> {
        self.run(x, weight, None)
    }

    fn backward<T: Float>(&self, [x, weight]: [Operand<'_, T>; 2], [a, b]: [bool; 2], _: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; 2]> {
        let [dx, dweight, _] = self.run_back(x, weight, [a, b, false], dy)?;
        Ok([dx, dweight])
    }
}

impl Kernel<3> for Convolution {
    const NAME: &'static str = "conv2d";

    fn forward<T: Float>(&self, [x, weight, bias]: [Operand<'_, T>; 3]) -> Result<(Vec<T>, Shape)> {
        self.run(x, weight, Some(bias))
    }

    fn backward<T: Float>(&self, [x, weight, _]: [Operand<'_, T>; 3], asked: [bool; 3], _: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; 3]> {
        self.run_back(x, weight, asked, dy)
    }
}

fn in_dims(shape: &Conv2dShape) -> [usize; 4] {
    [shape.n, shape.in_channels, shape.in_size[0], shape.in_size[1]]
}

fn out_dims(shape: &Conv2dShape) -> [usize; 4] {
    let [h, w] = shape.out_size();
    [shape.n, shape.out_channels, h, w]
}
