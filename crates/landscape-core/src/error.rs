//! What can go wrong in weight space and its files.

use std::path::PathBuf;

/// The result of a call into this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in weight space and its files.
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
    /// Two sets of tensors that should be alike are not; every difference is listed.
    #[error("{left} and {right} do not have the same tensors:\n  {}", differences.join("\n  "))]
    Layout {
        /// The first set, by name.
        left: String,
        /// The second set, by name.
        right: String,
        /// One line per difference.
        differences: Vec<String>,
    },
    /// A tensor is not there.
    #[error("tensor `{tensor}` is missing from {place}")]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// Where it was looked for.
        place: String,
    },
    /// A tensor has another shape than was asked for.
    #[error("tensor `{tensor}` must have shape {expected:?}, got {got:?}")]
    TensorShape {
        /// The tensor.
        tensor: String,
        /// The shape asked for.
        expected: Vec<usize>,
        /// The shape found.
        got: Vec<usize>,
    },
    /// A tensor cannot be taken, read or written as it is.
    #[error("tensor `{tensor}`: {reason}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A weight is NaN or infinite.
    #[error("tensor `{tensor}` holds {value} at element {idx}: weights must be finite")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The element, counted row-major.
        idx: usize,
        /// The value found.
        value: f64,
    },
    /// A measurement was asked for while the batch-norm statistics belong to another point.
    #[error(
        "statistics are stale: the weights moved and the network has batch norm; call `refresh` or `set_buffers` before measuring with stored statistics"
    )]
    StaleStatistics,
    /// The objective has no gradient.
    #[error("this objective has no gradient")]
    NoGradient,
    /// A point was asked for outside the path.
    #[error("`t` must be between 0 and 1, got {0}")]
    OutsidePath(f64),
    /// A file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written; what was there before is untouched.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is there already.
    #[error("`{}` exists already and is not overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file does not hold what its format asks for.
    #[error("`{}`: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// The system gives no threads.
    #[error("cannot start threads: {0}")]
    Threads(String),
    /// An error of a user's own objective or callback.
    #[error("{0}")]
    Objective(String),
    /// A kernel was called wrongly.
    #[error(transparent)]
    Kernel(#[from] landscape_kernels::Error),
    /// A graph that cannot be.
    #[error(transparent)]
    Graph(#[from] landscape_graph::Error),
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
