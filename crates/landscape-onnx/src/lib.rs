//! ONNX files as networks: a [`Graph`] that is trained, measured and joined like any other, and the weights as a [`Checkpoint`] that
//! describes itself.
//!
//! Tensors keep the names they have in the file, which are PyTorch's where PyTorch's exporter wrote it. The first axis of every input
//! is the batch; all other lengths must be fixed in the file. What is written out in several ops becomes the op it is: gelu, silu,
//! layer norm, RMS norm, linear layers with their bias, attention without a mask or with the causal one. Batch norm stays as it is,
//! with its statistics. What cannot be imported is listed, all at once, with the reason.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mlp.onnx");
//! let imported = landscape_onnx::import(std::path::Path::new(file))?;
//! assert_eq!(imported.graph.input_shape(), &[6]);
//! let names: Vec<_> = imported.checkpoint.tensors.iter().map(|(name, _)| name.as_str()).collect();
//! assert_eq!(names, ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]);
//! # Ok(())
//! # }
//! ```
//!
//! Which tensors are parameters: those that PyTorch's newer exporter calls so. Files that say nothing have, as parameters, the
//! weights of linear layers, convolutions, norms and embeddings, and all other tensors of floating-point numbers with at least one
//! axis.
//!
//! # When not to use it
//! For what computes differently from number to number: control flow, shapes that depend on the input. And where PyTorch is at hand,
//! its own networks lose less on the way through `landscape export-script`: exporters to ONNX fold batch norms into convolutions
//! (`optimize=False`, or `training=TrainingMode.PRESERVE`, keeps them) and may rename weights that they transpose.
#![warn(missing_docs)]

mod error;
mod number;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all)]
mod proto;
mod store;
mod value;
mod ir;
mod fuse;
mod fold;
mod lower;
mod emit;
mod model;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod bad_files;

pub use error::{Error, Problem, Result};

use bytes::Bytes;
use landscape_core::checkpoint::Checkpoint;
use landscape_graph::Graph;
use prost::Message;
use std::ops::RangeInclusive;
use std::path::Path;
use store::{Reader, read_file};

/// The versions of ONNX's ops that are read.
pub const OPSETS: RangeInclusive<i64> = 13..=23;

/// A network from a file.
#[derive(Debug, Clone)]
pub struct Imported {
    /// What it computes.
    pub graph: Graph,
    /// Its weights and statistics, in the order of the graph's state dict and with the graph in the metadata.
    pub checkpoint: Checkpoint,
}

/// Reads a file, and the files beside it that it has weights in.
///
/// # Errors
/// [`Error::Unsupported`] lists every op that no network here can do. All other errors are of files that are truncated, contradict
/// themselves, or lack what they refer to.
pub fn import(path: &Path) -> Result<Imported> {
    import_from(read_file(path, None)?, Some(path.parent().unwrap_or(Path::new(""))))
}

/// Reads a file that is in memory and has its weights in it.
///
/// # Errors
/// As [`import`].
pub fn import_bytes(bytes: impl Into<Bytes>) -> Result<Imported> {
    import_from(bytes.into(), None)
}

fn import_from(bytes: Bytes, folder: Option<&Path>) -> Result<Imported> {
    let n_bytes = bytes.len();
    let model = proto::ModelProto::decode(bytes).map_err(|e| Error::Decode(e.to_string()))?;
    model::import(&model, Reader::new(folder), n_bytes)
}
