//! Maximum and average pooling of `[n, c, h, w]`, with the arguments of candle's methods.

use super::host::{Float, error};
use super::images::{channels_first, channels_last, four};
use super::op::{Kernel, Operand, apply1, is_ours};
use crate::memory::Accumulate;
use crate::pool::{Padding, PoolShape, average_backward, average_forward, max_backward, max_forward};
use candle_core::{Result, Shape, Tensor, ToUsize2, bail};
use std::sync::OnceLock;

/// The maximum of every window of `sz`, side by side: `x.max_pool2d(sz)`, with the gradient where the maximum is.
///
/// The gradient goes to the first of equals.
///
/// # Shapes
/// `[n, c, h, w]` to `[n, c, ⌊h/sz⌋, ⌊w/sz⌋]`.
///
/// # Errors
/// If `xs` has not four axes, or a window does not fit.
///
/// ```
/// use candle_core::{Device, Var};
/// use landscape_kernels::candle::max_pool2d;
/// let x = Var::new(&[[[[1.0, 2.0], [3.0, 4.0]]]], &Device::Cpu)?;
/// let gradient = max_pool2d(&x, 2)?.sum_all()?.backward()?.get(&x).unwrap().flatten_all()?;
/// assert_eq!(gradient.to_vec1::<f64>()?, [0.0, 0.0, 0.0, 1.0]); // candle 0.11.1 says 0.25
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn max_pool2d<T: ToUsize2>(xs: &Tensor, sz: T) -> Result<Tensor> {
    let sz = sz.to_usize2();
    max_pool2d_with_stride(xs, sz, sz)
}

/// The maximum of every window, `stride` apart: `x.max_pool2d_with_stride(kernel_size, stride)`.
///
/// # Errors
/// As [`max_pool2d`].
pub fn max_pool2d_with_stride<T: ToUsize2>(xs: &Tensor, kernel_size: T, stride: T) -> Result<Tensor> {
    let windows = Windows::new(kernel_size, stride);
    if is_ours(&[xs]) {
        return apply1(Maximum { windows, argmax: OnceLock::new() }, xs);
    }
    // One of the pixels at a time, so that of equals only the first gets the gradient.
    let mut pixels = windows.pixels(xs)?.into_iter();
    let Some(first) = pixels.next() else { bail!("`max_pool2d`: a window must have a pixel") };
    pixels.try_fold(first, |largest, pixel| pixel.gt(&largest)?.where_cond(&pixel, &largest))
}

/// The mean of every window of `sz`, side by side: `x.avg_pool2d(sz)`, with a gradient that is right for every size.
///
/// # Shapes
/// `[n, c, h, w]` to `[n, c, ⌊h/sz⌋, ⌊w/sz⌋]`.
///
/// # Errors
/// If `xs` has not four axes, or a window does not fit.
pub fn avg_pool2d<T: ToUsize2>(xs: &Tensor, sz: T) -> Result<Tensor> {
    let sz = sz.to_usize2();
    avg_pool2d_with_stride(xs, sz, sz)
}

/// The mean of every window, `stride` apart: `x.avg_pool2d_with_stride(kernel_size, stride)`.
///
/// # Errors
/// As [`avg_pool2d`].
pub fn avg_pool2d_with_stride<T: ToUsize2>(xs: &Tensor, kernel_size: T, stride: T) -> Result<Tensor> {
    let windows = Windows::new(kernel_size, stride);
    if is_ours(&[xs]) {
        return apply1(Average(windows), xs);
    }
    let pixels = windows.pixels(xs)?;
    Tensor::stack(&pixels, 0)?.mean(0)
}

/// Sizes as candle takes them: without padding.
struct Windows {
    kernel_size: [usize; 2],
    stride: [usize; 2],
}

impl Windows {
    fn new<T: ToUsize2>(kernel_size: T, stride: T) -> Self {
        Windows { kernel_size: kernel_size.to_usize2().into(), stride: stride.to_usize2().into() }
    }

    fn shape(&self, dims: &[usize]) -> Result<PoolShape> {
        let [n, channels, h, w] = four("pool2d", "xs", dims)?;
        let &Windows { kernel_size, stride } = self;
        let shape = PoolShape { n, channels, in_size: [h, w], kernel_size, stride, padding: [0; 2] };
        shape.check().map_err(error)?;
        Ok(shape)
    }

    /// The first pixel of every window, the second of every window, and so on: pooling by ops that every device has.
    fn pixels(&self, xs: &Tensor) -> Result<Vec<Tensor>> {
        let out = self.shape(xs.dims())?.out_size();
        let along = |xs: &Tensor, axis: usize, first: usize| {
            let places: Vec<u32> = (0..out[axis]).map(|i| (i * self.stride[axis] + first) as u32).collect();
            xs.contiguous()?.index_select(&Tensor::new(places, xs.device())?, 2 + axis)
        };
        let mut pixels = Vec::new();
        for row in 0..self.kernel_size[0] {
            let rows = along(xs, 0, row)?;
            for column in 0..self.kernel_size[1] {
                pixels.push(along(&rows, 1, column)?);
            }
        }
        Ok(pixels)
    }
}

fn in_dims(shape: &PoolShape) -> [usize; 4] {
    [shape.n, shape.channels, shape.in_size[0], shape.in_size[1]]
}

fn out_dims(shape: &PoolShape) -> [usize; 4] {
    let [h, w] = shape.out_size();
    [shape.n, shape.channels, h, w]
}

struct Maximum {
    windows: Windows,
    /// Where the maxima are, channels last, after the forward pass.
    argmax: OnceLock<Vec<u32>>,
}

impl Kernel<1> for Maximum {
    const NAME: &'static str = "max_pool2d";

    fn forward<T: Float>(&self, [x]: [Operand<'_, T>; 1]) -> Result<(Vec<T>, Shape)> {
        let shape = self.windows.shape(x.dims)?;
        let out = out_dims(&shape);
        let n: usize = out.iter().product();
        let (mut y, mut argmax) = (vec![T::ZERO; n], vec![0; n]);
        let x = channels_last(x.values, in_dims(&shape))?;
        max_forward(&shape, (&*x).into(), (&mut y).into(), (&mut argmax).into()).map_err(error)?;
        self.argmax.get_or_init(|| argmax);
        Ok((channels_first(y, out)?, Shape::from(out.to_vec())))
    }

    fn backward<T: Float>(&self, [x]: [Operand<'_, T>; 1], _: [bool; 1], _: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; 1]> {
        let Some(argmax) = self.argmax.get() else { bail!("`max_pool2d`: backward before forward") };
        let shape = self.windows.shape(x.dims)?;
        let dy = channels_last(dy, out_dims(&shape))?;
        let mut dx = vec![T::ZERO; x.values.len()];
        max_backward(&shape, argmax.into(), (&*dy).into(), (&mut dx).into(), Accumulate::Overwrite).map_err(error)?;
        Ok([Some(channels_first(dx, in_dims(&shape))?)])
    }
}

struct Average(Windows);

impl Kernel<1> for Average {
    const NAME: &'static str = "avg_pool2d";

    fn forward<T: Float>(&self, [x]: [Operand<'_, T>; 1]) -> Result<(Vec<T>, Shape)> {
        let shape = self.0.shape(x.dims)?;
        let out = out_dims(&shape);
        let mut y = vec![T::ZERO; out.iter().product()];
        let x = channels_last(x.values, in_dims(&shape))?;
        average_forward(&shape, Padding::Counted, (&*x).into(), (&mut y).into()).map_err(error)?;
        Ok((channels_first(y, out)?, Shape::from(out.to_vec())))
    }

    fn backward<T: Float>(&self, [x]: [Operand<'_, T>; 1], _: [bool; 1], _: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; 1]> {
        let shape = self.0.shape(x.dims)?;
        let dy = channels_last(dy, out_dims(&shape))?;
        let mut dx = vec![T::ZERO; x.values.len()];
        average_backward(&shape, Padding::Counted, (&*dy).into(), (&mut dx).into(), Accumulate::Overwrite).map_err(error)?;
        Ok([Some(channels_first(dx, in_dims(&shape))?)])
    }
}
