//! One convolution alone, on activations and weights as the executor holds them: channels last, weights packed.

use crate::request::ConvolutionPass;
use crate::values::{stream, symmetric};
use crate::worker::{Cost, Work};
use landscape_kernels::Accumulate;
use landscape_kernels::conv2d::{self, Conv2dShape};

/// A convolution and all it reads and writes.
pub struct Convolution {
    pass: ConvolutionPass,
    shape: Conv2dShape,
    x: Vec<f32>,
    packed: Vec<f32>,
    y: Vec<f32>,
    scratch: Vec<f32>,
}

/// A square kernel, padded by half its size.
pub fn shape(n: usize, channels: [usize; 2], size: usize, kernel: usize, stride: usize, groups: usize) -> Conv2dShape {
    Conv2dShape {
        n,
        in_channels: channels[0],
        in_size: [size; 2],
        out_channels: channels[1],
        kernel_size: [kernel; 2],
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        dilation: [1; 2],
        groups,
        precision: landscape_kernels::Precision::F32,
    }
}

impl Convolution {
    /// Its operands, by the seed.
    ///
    /// # Errors
    /// If the sizes make no convolution.
    pub fn new(pass: ConvolutionPass, shape: Conv2dShape, seed: u64) -> anyhow::Result<Self> {
        shape.check()?;
        let oihw = symmetric(stream(seed, "weight", 0), shape.weight_len(), 0.1);
        let mut packed = vec![0.0; shape.weight_len()];
        conv2d::pack_weight(&shape, (&oihw).into(), (&mut packed).into())?;
        let x = symmetric(stream(seed, "x", 0), shape.in_len(), 1.0);
        let y = symmetric(stream(seed, "dy", 0), shape.out_len(), 1.0);
        let scratch = vec![0.0; shape.scratch_len()];
        Ok(Convolution { pass, shape, x, packed, y, scratch })
    }

    /// Runs the pass once; what it writes is the array that it gives.
    fn once(&mut self) -> anyhow::Result<&[f32]> {
        let Convolution { pass, shape, x, packed, y, scratch } = self;
        let (mode, scratch) = (Accumulate::Overwrite, scratch.into());
        Ok(match pass {
            ConvolutionPass::Forward => {
                conv2d::forward(shape, (&*x).into(), (&*packed).into(), None, y.into(), scratch)?;
                &self.y
            }
            ConvolutionPass::InputGradient => {
                conv2d::backward_input(shape, (&*packed).into(), (&*y).into(), x.into(), mode, scratch)?;
                &self.x
            }
            ConvolutionPass::WeightGradient => {
                conv2d::backward_weight(shape, (&*x).into(), (&*y).into(), packed.into(), None, mode, scratch)?;
                &self.packed
            }
        })
    }
}

impl Work for Convolution {
    /// The sum of the squares of what the pass writes.
    fn answer(&mut self) -> anyhow::Result<Vec<f64>> {
        Ok(vec![self.once()?.iter().map(|&v| f64::from(v).powi(2)).sum()])
    }

    fn run(&mut self, n: usize) -> anyhow::Result<Vec<f64>> {
        super::time(n, || {
            std::hint::black_box(self.once()?);
            Ok(())
        })
    }

    fn cost(&self) -> Cost {
        let s = &self.shape;
        let n_products = s.out_len() * (s.in_channels / s.groups) * s.kernel_size[0] * s.kernel_size[1];
        Cost { bytes: None, flops: Some(2 * n_products as u64) }
    }
}
