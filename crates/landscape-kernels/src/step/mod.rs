//! Optimiser steps on flat rows: SGD, Adam and AdamW with PyTorch's formulas, alone or fused with `spread`.
//!
//! The fused steps form the gradient of a control point, c_k·(g + wd·w), number by number in the very loop of the plain step: one pass
//! over memory, and the same bits as `spread` followed by the step.

mod adam;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod gradient;
mod sgd;

pub use adam::{Adam, Decay, adam_step, spread_adam_step};
pub use sgd::{Nesterov, Sgd, sgd_step, spread_sgd_step};

use crate::check::shape_error;
use crate::error::Result;

/// Fails unless a hyper-parameter lies in its range.
fn check_range(op: &'static str, name: &str, value: f64, range: std::ops::Range<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let top = if range.end.is_finite() { format!("below {}", range.end) } else { "finite".to_owned() };
    Err(shape_error(op, format!("`{name}` must be at least {} and {top}, got {value}", range.start)))
}

#[cfg(test)]
mod tests;
