//! Architectures as graphs with PyTorch parameter names, and data sets.
//!
//! [`models::build`] makes a network's graph from a name and the shape of the data; [`data::open`] reads a data set whole, checked,
//! and identified by the hash of its content; [`data::batches`] makes batches of it by seed.
//!
//! ```
//! use landscape_core::{Batches, Seed};
//! use landscape_zoo::data::{self, batches::{Augmentation, BatchConfig, SeededBatches}};
//! use landscape_zoo::models;
//!
//! let digits = data::open("digits")?; // embedded: no file, no download
//! let graph = models::build("cnn", &digits.input_shape, digits.n_outputs())?;
//! assert_eq!(graph.params()[0].name, "conv1.weight");
//! let config = BatchConfig::training(128, Seed::new(1), Augmentation::None, digits.normalization.clone());
//! let batch = SeededBatches::<f32>::new(digits.train.clone(), config)?.batch(0, 0)?;
//! assert_eq!(batch.inputs.len(), 128 * 8 * 8);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When not to use it
//! Data sets stand in memory whole, as the files hold them (a byte stays a byte): what does not fit is not read.
//! Own data come in by [`data::npz`], own architectures by `landscape_graph::GraphBuilder`; neither needs a change here.

mod error;
pub mod models;
pub mod data;

pub use error::{Error, Result};
