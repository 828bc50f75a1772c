//! What may be done to the numbers of a convolution on their way in and out, so that they are touched while they are in the cache:
//! the normalisation before it as a prologue, statistics or the end of a residual block after it as an epilogue, and on the way back
//! the gate of the activation and the two sums that the gradient of batch normalisation begins with.

use super::shape::{Conv2dShape, OP};
use crate::activation::Activation;
use crate::error::{Error, Result, check_len};
use crate::memory::{Real, View, ViewMut};

/// What the convolution reads in place of x: x′ = activation((x − mean_c)·scale_c + shift_c); the padding stays zero.
///
/// The bits are those of [`crate::batch_norm::normalize`] and [`crate::activation::relu_forward`] one after the other, with the scale
/// from [`crate::batch_norm::scale`] and the norm's bias as shift.
#[derive(Debug, Clone, Copy)]
pub struct Prologue<'a, T> {
    /// Subtracted first, `[in_channels]`.
    pub mean: View<'a, T>,
    /// Multiplied with, `[in_channels]`.
    pub scale: View<'a, T>,
    /// Added last, `[in_channels]`.
    pub shift: View<'a, T>,
    /// Applied to the sum.
    pub activation: Activation,
}

/// What follows a forward convolution.
#[derive(Debug)]
pub enum Epilogue<'a, T> {
    /// Nothing.
    None,
    /// Mean and biased variance of every output channel over examples and pixels, as [`crate::batch_norm::statistics`] of y.
    Statistics {
        /// `[out_channels]`.
        mean: ViewMut<'a, T>,
        /// `[out_channels]`.
        var: ViewMut<'a, T>,
    },
    /// y = activation(x ∗ w + bias + residual).
    Pointwise {
        /// Like `y`.
        residual: Option<View<'a, T>>,
        /// Applied to the sum.
        activation: Activation,
    },
}

/// Where a gradient passes: it becomes zero elsewhere.
#[derive(Debug, Clone, Copy)]
pub enum Gate<'a, T> {
    /// Everywhere.
    Open,
    /// Where (x − mean_c)·scale_c + shift_c is above zero, computed anew as in [`Prologue`].
    Normalized {
        /// `[in_channels]`.
        scale: View<'a, T>,
        /// `[in_channels]`.
        shift: View<'a, T>,
    },
    /// Where a stored output of the activation is above zero.
    Stored {
        /// Like `dx`.
        y: View<'a, T>,
    },
}

/// What follows an input gradient: dx is gated, and the two sums are taken that the gradient of a batch normalisation needs first.
///
/// sums_c = Σ dx and products_c = Σ dx·(x − mean_c) over examples and pixels, of the gated dx.
#[derive(Debug)]
pub struct GradientEpilogue<'a, T> {
    /// What the normalisation read, like `dx`.
    pub x: View<'a, T>,
    /// Its mean, `[in_channels]`.
    pub mean: View<'a, T>,
    /// Where the gradient passes.
    pub gate: Gate<'a, T>,
    /// `[in_channels]`, overwritten.
    pub sums: ViewMut<'a, f64>,
    /// `[in_channels]`, overwritten.
    pub products: ViewMut<'a, f64>,
}

impl<T: Real> Prologue<'_, T> {
    pub(super) fn check(&self, s: &Conv2dShape) -> Result<()> {
        check_len(OP, "prologue mean", s.in_channels, self.mean.len())?;
        check_len(OP, "prologue scale", s.in_channels, self.scale.len())?;
        check_len(OP, "prologue shift", s.in_channels, self.shift.len())
    }
}

impl<T: Real> Epilogue<'_, T> {
    pub(super) fn check(&self, s: &Conv2dShape) -> Result<()> {
        match self {
            Epilogue::None => Ok(()),
            Epilogue::Statistics { mean, var } => {
                if s.n == 0 {
                    return Err(Error::Shape { op: OP, reason: "statistics need `n` of at least 1, got 0".to_owned() });
                }
                check_len(OP, "mean", s.out_channels, mean.len())?;
                check_len(OP, "var", s.out_channels, var.len())
            }
            Epilogue::Pointwise { residual, .. } => residual.map_or(Ok(()), |r| check_len(OP, "residual", s.out_len(), r.len())),
        }
    }
}

impl<T: Real> GradientEpilogue<'_, T> {
    pub(super) fn check(&self, s: &Conv2dShape) -> Result<()> {
        self.check_rows(s.in_channels, s.in_len())
    }

    fn check_rows(&self, channels: usize, len: usize) -> Result<()> {
        check_len(OP, "epilogue x", len, self.x.len())?;
        check_len(OP, "epilogue mean", channels, self.mean.len())?;
        check_len(OP, "sums", channels, self.sums.len())?;
        check_len(OP, "products", channels, self.products.len())?;
        match self.gate {
            Gate::Open => Ok(()),
            Gate::Normalized { scale, shift } => {
                check_len(OP, "gate scale", channels, scale.len())?;
                check_len(OP, "gate shift", channels, shift.len())
            }
            Gate::Stored { y } => check_len(OP, "gate y", len, y.len()),
        }
    }
}

/// The epilogue alone, of a gradient of whole rows of `channels`.
pub(crate) fn gate_and_sum_rows<T: Real>(channels: usize, dx: ViewMut<'_, T>, epilogue: GradientEpilogue<'_, T>) -> Result<()> {
    epilogue.check_rows(channels, dx.len())?;
    if channels > 0 {
        super::rows::with_gradient_epilogue(channels, Some(epilogue), |each| super::rows::for_all_parts(channels, dx.host(), each));
    }
    Ok(())
}
