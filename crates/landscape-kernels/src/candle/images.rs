//! candle's images, channels first, as our kernels take them.

use super::host::{Float, error};
use crate::shape::{nchw_to_nhwc, nhwc_to_nchw};
use candle_core::Result;
use std::borrow::Cow;

/// `[n, c, h, w]` to `[n, h, w, c]`; where that is no change it is no copy.
pub(super) fn channels_last<T: Float>(x: &[T], [n, c, h, w]: [usize; 4]) -> Result<Cow<'_, [T]>> {
    if c == 1 || h * w == 1 {
        return Ok(Cow::Borrowed(x));
    }
    let mut y = vec![T::ZERO; x.len()];
    nchw_to_nhwc(n, c, h, w, x.into(), (&mut y).into()).map_err(error)?;
    Ok(Cow::Owned(y))
}

/// `[n, h, w, c]` back to `[n, c, h, w]`.
pub(super) fn channels_first<T: Float>(x: Vec<T>, [n, c, h, w]: [usize; 4]) -> Result<Vec<T>> {
    if c == 1 || h * w == 1 {
        return Ok(x);
    }
    let mut y = vec![T::ZERO; x.len()];
    nhwc_to_nchw(n, c, h, w, (&x).into(), (&mut y).into()).map_err(error)?;
    Ok(y)
}

/// Four sizes of a tensor, or an error that names the op.
pub(super) fn four(op: &str, operand: &str, dims: &[usize]) -> Result<[usize; 4]> {
    match *dims {
        [a, b, c, d] => Ok([a, b, c, d]),
        _ => candle_core::bail!("`{op}`: `{operand}` must have 4 axes, got {dims:?}"),
    }
}
