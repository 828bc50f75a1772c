//! What can be wrong with an ONNX file.

use std::path::PathBuf;

/// The result of a call into this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with an ONNX file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file, or one with its weights, cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The bytes are not those of an ONNX file, or of one that was cut off.
    #[error("not an ONNX file, or one that was cut off: {0}")]
    Decode(String),
    /// A file that contradicts itself, or is of a version that is not read.
    #[error("{0}")]
    Model(String),
    /// A tensor that contradicts itself, or whose numbers are not there.
    #[error("tensor `{tensor}`: {reason}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An input that examples cannot be handed to.
    #[error("input `{input}`: {reason}")]
    Input {
        /// Its name.
        input: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Ops that no network here can do; all of them.
    #[error("{} of the file cannot be imported:{}", count(problems), lines(problems))]
    Unsupported {
        /// One entry per op.
        problems: Vec<Problem>,
    },
    /// What was made of the file is no network.
    #[error(transparent)]
    Graph(#[from] landscape_graph::Error),
    /// A tensor that cannot be written.
    #[error(transparent)]
    Core(#[from] landscape_core::Error),
}

/// An op of the file that was not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The op, as ONNX calls it.
    pub op: String,
    /// The node, as the file calls it; what it yields where it has no name.
    pub node: String,
    /// Why not.
    pub reason: String,
}

fn count(problems: &[Problem]) -> String {
    if problems.len() == 1 { "an op".to_owned() } else { format!("{} ops", problems.len()) }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|Problem { op, node, reason }| format!("\n  {op} `{node}`: {reason}")).collect()
}
