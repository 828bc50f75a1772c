//! What can go wrong in training.

use std::path::PathBuf;

/// The result of a call into this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is out of its range.
    #[error("`{field}` must be {expected}, got {got}")]
    Config {
        /// The field or argument.
        field: &'static str,
        /// The range.
        expected: String,
        /// What was given.
        got: String,
    },
    /// The loss or a weight stopped being a number.
    #[error("training diverged at step {step}: the loss is {loss_nats}; try a smaller `lr`")]
    Diverged {
        /// The step, counted from zero.
        step: u64,
        /// The loss found.
        loss_nats: f64,
    },
    /// A saved state does not fit what is to be resumed.
    #[error("`{}`: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A candle model whose gradients candle gets wrong.
    #[error("parameter `{parameter}`: {reason}; the model can be evaluated but not trained through candle's autograd")]
    Gradient {
        /// The parameter.
        parameter: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// An error of weight space.
    #[error(transparent)]
    Core(#[from] landscape_core::Error),
    /// A kernel was called wrongly.
    #[error(transparent)]
    Kernel(#[from] landscape_kernels::Error),
    /// An error of candle.
    #[cfg(feature = "candle")]
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// An option out of its range.
    pub fn config(field: &'static str, expected: impl Into<String>, got: impl ToString) -> Self {
        Error::Config { field, expected: expected.into(), got: got.to_string() }
    }
}
