//! Sizes multiplied without wrapping: a shape from a file may hold any numbers.

use crate::error::{Error, Result};

/// The product of `sizes`.
///
/// # Errors
/// [`Error::Shape`] if it does not fit a `usize`.
pub(crate) fn n_elements(op: &'static str, sizes: &[usize]) -> Result<usize> {
    sizes
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .ok_or_else(|| Error::Shape { op, reason: format!("the product of the sizes {sizes:?} does not fit in memory") })
}

/// An [`Error::Shape`] with this reason.
pub(crate) fn shape_error(op: &'static str, reason: impl Into<String>) -> Error {
    Error::Shape { op, reason: reason.into() }
}
