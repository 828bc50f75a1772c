//! What can go wrong in a kernel call.

use crate::precision::Precision;
use crate::simd::Level;

/// The result of a kernel call.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in a kernel call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice is shorter or longer than the shape beside it asks for.
    #[error("`{op}`: `{operand}` must have {expected} elements, got {got}")]
    Length {
        /// The kernel that was called.
        op: &'static str,
        /// Which of its operands.
        operand: &'static str,
        /// Elements that the shape asks for.
        expected: usize,
        /// Elements that were given.
        got: usize,
    },
    /// An attribute of the shape is out of its range.
    #[error("`{op}`: {reason}")]
    Shape {
        /// The kernel that was called.
        op: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
    /// A class label that is no class.
    #[error("`{op}`: label {label} of row {row} must be below {n_classes}")]
    Label {
        /// The kernel that was called.
        op: &'static str,
        /// The row it stands in.
        row: usize,
        /// The label found.
        label: u32,
        /// How many classes there are.
        n_classes: usize,
    },
    /// A number that is no row of an embedding.
    #[error("`{op}`: token {value} at position {position} must be a whole number below {num_embeddings}")]
    Token {
        /// The kernel that was called.
        op: &'static str,
        /// Where it stands among the tokens.
        position: usize,
        /// The number found.
        value: f64,
        /// How many rows there are.
        num_embeddings: usize,
    },
    /// A device that this build has no kernels for.
    #[error("device `{0}` is not in this build: build it with `--features cuda`")]
    NotBuilt(String),
    /// A device name that cannot be read.
    #[error("device must be `cpu`, `cuda:N` or `cuda:N,M,…`, got `{0}`")]
    UnknownDevice(String),
    /// A name of an instruction set that cannot be read.
    #[error("kernels must be `avx512`, `avx2` or `portable`, got `{0}`")]
    UnknownLevel(String),
    /// A name of a precision that cannot be read.
    #[error("precision must be `f32`, `bf16` or `tf32`, got `{0}`")]
    UnknownPrecision(String),
    /// A precision that there are no kernels in.
    #[error("there are no kernels in `{precision}` for {what}")]
    NoPrecision {
        /// What was asked for.
        precision: Precision,
        /// The scalar or device.
        what: String,
    },
    /// An instruction set that this processor lacks.
    #[error("this processor has no `{wanted}`: the best that it has is `{best}`")]
    LevelMissing {
        /// What was asked for.
        wanted: Level,
        /// What there is.
        best: Level,
    },
    /// Kernels have run at another level already.
    #[error("kernels cannot change to `{wanted}`: this process runs `{fixed}` already")]
    LevelFixed {
        /// What was asked for.
        wanted: Level,
        /// What runs.
        fixed: Level,
    },
    /// More devices than one where one is wanted.
    #[error("device must be one, got `{0}`")]
    SeveralDevices(String),
    /// A GPU that is not there.
    #[error("device `{device}` cannot be opened: {reason}")]
    NoDevice {
        /// Its name.
        device: String,
        /// Why.
        reason: String,
    },
    /// Operands of one call stand on different devices.
    #[error("`{op}`: `{operand}` must be on {expected}, got one on {got}")]
    Place {
        /// The kernel that was called.
        op: &'static str,
        /// The first operand that stands elsewhere.
        operand: &'static str,
        /// Where the operands before it stand.
        expected: String,
        /// Where it stands.
        got: String,
    },
    /// An accelerator failed, now or in work that it was given before.
    #[error("`{op}` failed on {device}: {reason}")]
    Device {
        /// What was being done.
        op: &'static str,
        /// Where.
        device: String,
        /// What the driver or the library says.
        reason: String,
    },
    /// There are no kernels of an op for this scalar or this device.
    #[error("`{op}` has no kernels for {what}")]
    NoKernel {
        /// The kernel that was called.
        op: &'static str,
        /// The scalar or device.
        what: String,
    },
}

/// Fails unless `got` elements are what the shape asks for.
pub(crate) fn check_len(op: &'static str, operand: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Length { op, operand, expected, got }) }
}
