//! Two-dimensional convolution on channels-last activations, forward and backward.
//!
//! In bf16 ([`Precision::Bf16`](crate::Precision::Bf16)) operands are rounded and sums are f32: the direct kernel and the products have paths
//! of their own where the processor has AVX512-BF16; otherwise the kernels below run on rounded copies.
//!
//! Four ways to one result: matrix products on gathered columns (any shape, any scalar), the same without gathering for 1x1 kernels,
//! loops over channels for depthwise kernels, and for `f32` a direct kernel on padded images. Which one runs depends on the shape and
//! the scalar, by a table of measurements, never on the number of threads or on timing; each runs on every instruction set.
//!
//! The fused functions take the normalisation before a convolution and what follows it into the same pass over the numbers.

mod shape;
mod pack;
mod fuse;
mod rows;
mod choice;
mod column;
mod depthwise;
mod direct;
mod rounded;
#[cfg(feature = "cuda")]
mod cuda;

pub(crate) use fuse::gate_and_sum_rows;
pub use fuse::{Epilogue, Gate, GradientEpilogue, Prologue};
pub use pack::{pack_weight, unpack_gradient};
pub use shape::Conv2dShape;

use crate::error::{Error, Result, check_len};
use crate::memory::{Accumulate, Device, Real, View, ViewMut};
use crate::parallel::for_each_chunk_mut;
use crate::reduce::store_column_sums;
use choice::{Kernel, kernel};
use rows::Normalizer;
use shape::OP;

/// What a GPU says to a prologue or an epilogue.
#[cfg(feature = "cuda")]
const NOT_FUSED: &str = "kernels for GPUs take no prologue and no epilogue: call the ops one by one";

/// y = x ∗ weight + bias (cross-correlation, as in PyTorch).
///
/// `y[n,i,j,o] = bias[o] + Σ_{r,s,c} x[n, i·stride + r·dilation − padding, j·stride + s·dilation − padding, c] · weight[o,c,r,s]`,
/// with zeros outside of x.
///
/// # Shapes
/// `x` `[n, h, w, in_channels]`, `packed` from [`pack_weight`], `bias` `[out_channels]`, `y` `[n, h′, w′, out_channels]`; `scratch`
/// at least `scratch_len`, whatever it holds (a GPU needs none).
///
/// # Errors
/// As [`Conv2dShape::check`]; [`Error::Length`] where an operand does not fit.
///
/// ```
/// use landscape_kernels::{Precision, conv2d::{Conv2dShape, forward, pack_weight}};
/// let shape = Conv2dShape {
///     n: 1, in_channels: 1, in_size: [1, 3], out_channels: 1, kernel_size: [1, 2],
///     stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1, precision: Precision::F32,
/// };
/// let (mut packed, mut y, mut scratch) = ([0.0; 2], [0.0; 2], vec![0.0; shape.scratch_len()]);
/// pack_weight(&shape, (&[1.0, -1.0][..]).into(), (&mut packed[..]).into())?;
/// forward(&shape, (&[1.0, 2.0, 5.0][..]).into(), (&packed[..]).into(), None, (&mut y[..]).into(), (&mut scratch).into())?;
/// assert_eq!(y, [-1.0, -3.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(
    shape: &Conv2dShape,
    x: View<'_, T>,
    packed: View<'_, T>,
    bias: Option<View<'_, T>>,
    y: ViewMut<'_, T>,
    scratch: ViewMut<'_, T>,
) -> Result<()> {
    on_device!(OP, [x, packed, bias, y], gpu => cuda::forward(gpu, shape, x, packed, bias, y));
    forward_fused(shape, x, None, packed, bias, y, Epilogue::None, scratch)
}

/// [`forward`] on x′ of the prologue, followed by the epilogue.
///
/// # Shapes
/// As [`forward`]; `scratch` at least `fused_scratch_len` where there is a prologue.
///
/// # Errors
/// As [`forward`]; [`Error::Shape`] for statistics of no examples.
#[allow(clippy::too_many_arguments)]
pub fn forward_fused<T: Real>(
    shape: &Conv2dShape,
    x: View<'_, T>,
    prologue: Option<Prologue<'_, T>>,
    packed: View<'_, T>,
    bias: Option<View<'_, T>>,
    y: ViewMut<'_, T>,
    epilogue: Epilogue<'_, T>,
    scratch: ViewMut<'_, T>,
) -> Result<()> {
    check(shape, ("x", x.len()), packed.len(), ("y", y.len()), scratch.len(), prologue.as_ref())?;
    if let Some(bias) = bias {
        check_len(OP, "bias", shape.out_channels, bias.len())?;
    }
    epilogue.check(shape)?;
    on_device!(OP, [x, packed, bias, y], gpu => Err(gpu.failure(OP, NOT_FUSED)));
    let (x, packed, bias, y, scratch) = (x.host(), packed.host(), bias.map(View::host), y.host(), scratch.host());
    let mut normalizer = prologue.as_ref().map(Normalizer::new);
    let (plain, (x, packed, scratch)) = if choice::rounds_first(shape) {
        (rounded::plain(shape), rounded::copies(shape, x, normalizer.take().as_ref(), packed, scratch))
    } else {
        (*shape, (x, packed, scratch))
    };
    let shape = &plain;
    rows::with_epilogue(shape.out_channels, epilogue, |each| {
        match kernel::<T>(shape) {
            Kernel::Direct => {
                let weights = direct::Weights::Packed(packed);
                let call = direct::Forward { s: shape, x, normalizer, weights, bias, mode: Accumulate::Overwrite };
                return direct::forward(&call, y, scratch, each);
            }
            Kernel::Depthwise => {
                let (x, _) = read_through(shape, x, normalizer.as_ref(), scratch);
                depthwise::forward(shape, x, packed, bias, y);
            }
            Kernel::Column => column::forward(shape, x, normalizer.as_ref(), packed, bias, y, Accumulate::Overwrite, scratch),
        }
        rows::for_all_parts(shape.out_channels, y, each)
    });
    Ok(())
}

/// The gradient of the input: each output gradient, spread over the taps it came from.
///
/// # Shapes
/// As [`forward`]; `dy` like `y`, `dx` like `x`.
///
/// # Errors
/// As [`forward`].
pub fn backward_input<T: Real>(
    shape: &Conv2dShape,
    packed: View<'_, T>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
    scratch: ViewMut<'_, T>,
) -> Result<()> {
    on_device!(OP, [packed, dy, dx], gpu => cuda::backward_input(gpu, shape, packed, dy, dx, mode));
    backward_input_fused(shape, packed, dy, dx, mode, None, scratch)
}

/// [`backward_input`], followed by the epilogue: with [`Accumulate::Add`] the gate and the sums see what was there and what is added.
///
/// # Shapes
/// As [`backward_input`].
///
/// # Errors
/// As [`forward`].
pub fn backward_input_fused<T: Real>(
    shape: &Conv2dShape,
    packed: View<'_, T>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
    epilogue: Option<GradientEpilogue<'_, T>>,
    scratch: ViewMut<'_, T>,
) -> Result<()> {
    check::<T>(shape, ("dx", dx.len()), packed.len(), ("dy", dy.len()), scratch.len(), None)?;
    epilogue.as_ref().map_or(Ok(()), |e| e.check(shape))?;
    on_device!(OP, [packed, dy, dx], gpu => Err(gpu.failure(OP, NOT_FUSED)));
    let (packed, dy, dx, scratch) = (packed.host(), dy.host(), dx.host(), scratch.host());
    let (plain, (dy, packed, scratch)) = if choice::rounds_first(shape) {
        (rounded::plain(shape), rounded::copies(shape, dy, None, packed, scratch))
    } else {
        (*shape, (dy, packed, scratch))
    };
    let shape = &plain;
    rows::with_gradient_epilogue(shape.in_channels, epilogue, |each| {
        match shape.transposed() {
            _ if shape.is_depthwise() => depthwise::backward_input(shape, packed, dy, dx, mode),
            Some(transposed) if kernel::<T>(&transposed) == Kernel::Direct => {
                let weights = direct::Weights::Flipped(packed);
                let call = direct::Forward { s: &transposed, x: dy, normalizer: None, weights, bias: None, mode };
                return direct::forward(&call, dx, scratch, each);
            }
            Some(transposed) if !shape.is_pointwise() => {
                column::backward_input_stride_one(shape, &transposed, packed, dy, dx, mode, scratch);
            }
            _ => column::backward_input(shape, packed, dy, dx, mode, scratch),
        }
        rows::for_all_parts(shape.in_channels, dx, each)
    });
    Ok(())
}

/// The gradients of the packed weight (always overwritten) and of the bias (by `mode`).
///
/// # Shapes
/// As [`forward`]; `dpacked` like `packed` (bring it back by [`unpack_gradient`]), `dbias` like `bias`.
///
/// # Errors
/// As [`forward`].
pub fn backward_weight<T: Real>(
    shape: &Conv2dShape,
    x: View<'_, T>,
    dy: View<'_, T>,
    dpacked: ViewMut<'_, T>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
    scratch: ViewMut<'_, T>,
) -> Result<()> {
    on_device!(OP, [x, dy, dpacked, dbias], gpu => cuda::backward_weight(gpu, shape, x, dy, dpacked, dbias, mode));
    backward_weight_fused(shape, x, None, dy, dpacked, dbias, mode, scratch)
}

/// [`backward_weight`] for the convolution that read x through the prologue.
///
/// # Shapes
/// As [`backward_weight`]; `scratch` at least `fused_scratch_len` where there is a prologue.
///
/// # Errors
/// As [`forward`].
#[allow(clippy::too_many_arguments)]
pub fn backward_weight_fused<T: Real>(
    shape: &Conv2dShape,
    x: View<'_, T>,
    prologue: Option<Prologue<'_, T>>,
    dy: View<'_, T>,
    dpacked: ViewMut<'_, T>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
    scratch: ViewMut<'_, T>,
) -> Result<()> {
    check(shape, ("x", x.len()), dpacked.len(), ("dy", dy.len()), scratch.len(), prologue.as_ref())?;
    on_device!(OP, [x, dy, dpacked], gpu => Err(gpu.failure(OP, NOT_FUSED)));
    let (x, dy, dpacked, scratch) = (x.host(), dy.host(), dpacked.host(), scratch.host());
    let mut normalizer = prologue.as_ref().map(Normalizer::new);
    if let Some(dbias) = dbias {
        check_len(OP, "dbias", shape.out_channels, dbias.len())?;
        store_column_sums(shape.out_channels, dy, dbias.host(), mode);
    }
    let (plain, (x, dy, scratch)) = if choice::rounds_first(shape) {
        (rounded::plain(shape), rounded::copies(shape, x, normalizer.take().as_ref(), dy, scratch))
    } else {
        (*shape, (x, dy, scratch))
    };
    let shape = &plain;
    match kernel::<T>(shape) {
        Kernel::Direct => direct::backward_weight(&direct::BackwardWeight { s: shape, x, normalizer, dy }, dpacked, scratch),
        Kernel::Depthwise => {
            let (x, scratch) = read_through(shape, x, normalizer.as_ref(), scratch);
            depthwise::backward_weight(shape, x, dy, dpacked, scratch);
        }
        Kernel::Column => column::backward_weight(shape, x, normalizer.as_ref(), dy, dpacked, scratch),
    }
    Ok(())
}

/// Checks the shape and the operands that every function has.
fn check<T: Real>(
    shape: &Conv2dShape,
    input: (&'static str, usize),
    packed: usize,
    output: (&'static str, usize),
    scratch: usize,
    prologue: Option<&Prologue<'_, T>>,
) -> Result<()> {
    shape.check()?;
    shape.precision.check::<T>(&Device::Cpu)?;
    check_len(OP, input.0, shape.in_len(), input.1)?;
    check_len(OP, "packed weight", shape.weight_len(), packed)?;
    check_len(OP, output.0, shape.out_len(), output.1)?;
    // One scratch memory serves many layers, so more than enough is fine.
    let expected = if prologue.is_some() { shape.fused_scratch_len() } else { shape.scratch_len() };
    if scratch < expected {
        return Err(Error::Length { op: OP, operand: "scratch", expected, got: scratch });
    }
    prologue.map_or(Ok(()), |p| p.check(shape))
}

/// The input as a depthwise kernel reads it, and the scratch memory that is left: through a prologue it is a copy at the end.
fn read_through<'a, T: Real>(
    shape: &Conv2dShape,
    x: &'a [T],
    normalizer: Option<&Normalizer<T>>,
    scratch: &'a mut [T],
) -> (&'a [T], &'a mut [T]) {
    let Some(normalizer) = normalizer else { return (x, scratch) };
    let (scratch, copy) = scratch.split_at_mut(shape.scratch_len());
    let copy = &mut copy[..shape.in_len()];
    rows::normalize_all(normalizer, shape.in_channels, x, copy);
    (copy, scratch)
}

/// Adds up partial results that stand at the end of chunks of `scratch`, in order, into `out`.
fn sum_partials<T: Real>(scratch: &[T], chunk: usize, n_partials: usize, out: &mut [T]) {
    let len = out.len();
    for_each_chunk_mut(out, 4096, |idx, out| {
        for partial in 0..n_partials {
            let start = (partial + 1) * chunk - len + idx * 4096;
            let values = &scratch[start..start + out.len()];
            if partial == 0 {
                out.copy_from_slice(values);
            } else {
                out.iter_mut().zip(values).for_each(|(o, &v)| *o += v);
            }
        }
    });
}

/// How many partial weight gradients are kept: at most `n_splits`, fewer for large weights, so that adding them up stays cheap.
fn n_weight_partials(shape: &Conv2dShape, n_splits: usize) -> usize {
    n_splits.min(((1 << 22) / shape.weight_len()).max(4))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fused_tests;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod bf16_tests;
