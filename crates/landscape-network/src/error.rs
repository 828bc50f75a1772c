//! What can go wrong in running a network.

/// The result of a call into this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in running a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A batch without examples.
    #[error("a batch must have at least one example, got none")]
    EmptyBatch,
    /// The inputs of a batch are too few or too many.
    #[error("the inputs of {n_examples} examples of shape {shape:?} must be {expected} numbers, got {got}")]
    InputLength {
        /// Examples in the batch.
        n_examples: usize,
        /// The shape of one.
        shape: Vec<usize>,
        /// How many numbers that makes.
        expected: usize,
        /// How many there were.
        got: usize,
    },
    /// The targets of a batch are not what the loss works on.
    #[error("loss `{loss}`: targets must be {expected}, got {got}")]
    Targets {
        /// The loss.
        loss: &'static str,
        /// What it works on.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A training pass cannot be run in so little memory.
    #[error(
        "activations and gradients of {n_examples} examples take at least {least_bytes} bytes, however much is computed again, got a limit of {max_bytes}"
    )]
    ActivationMemory {
        /// Examples in the batch.
        n_examples: usize,
        /// The limit.
        max_bytes: usize,
        /// What is possible.
        least_bytes: usize,
    },
    /// There is no node of that name.
    #[error("the graph has no node `{node}`")]
    NoSuchNode {
        /// The name asked for.
        node: String,
    },
    /// Batch statistics of a single value have no variance.
    #[error("node `{node}`: batch statistics need more than one value per channel, got one; use a larger batch or stored statistics")]
    SingleValue {
        /// The batch norm.
        node: String,
    },
    /// A gradient was asked for without the activations that it needs.
    #[error("`backward` must follow `forward` on the same weights: there are no activations to go back through")]
    NoForward,
    /// Replaced activations of the wrong size.
    #[error("node `{node}`: an activation must be replaced by {expected} numbers, got {got}")]
    Replacement {
        /// The node.
        node: String,
        /// How many numbers its activation has.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// The first layer cannot be shared among points.
    #[error("a first layer is shared where the network begins with a linear map or a convolution and goes on after it; this one does not")]
    NoFirstLayer,
    /// Statistics were to be taken over no batches.
    #[error("statistics cannot be refreshed over no batches")]
    NoBatches,
    /// An error of weight space.
    #[error(transparent)]
    Core(#[from] landscape_core::Error),
    /// A kernel was called wrongly.
    #[error(transparent)]
    Kernel(#[from] landscape_kernels::Error),
}

impl From<Error> for landscape_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => error,
            Error::Kernel(error) => landscape_core::Error::Kernel(error),
            other => landscape_core::Error::Objective(other.to_string()),
        }
    }
}
