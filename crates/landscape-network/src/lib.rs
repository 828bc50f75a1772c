//! The executor: a graph run forward and in reverse over landscape-kernels, with buffers planned once.
//!
//! A [`landscape_graph::Graph`] says what is computed, a [`landscape_core::Flat`] at which weights; [`Executor`] runs it on batches
//! and writes the gradient of every parameter straight into a flat vector. [`NetworkObjective`] puts a loss on top and stands behind
//! the seam that curves, profiles and the training loop know. There is no autograd and no variable per parameter.
//!
//! - [`init`]: weights from a seed;
//! - [`refresh`]: batch-norm statistics taken anew at a point;
//! - [`tap`]: see or change a named activation, or stop there.
//!
//! ```
//! use landscape_core::{Examples, Objective, Pass, Seed, Stateful, Targets};
//! use landscape_graph::{Bias, GraphBuilder};
//! use landscape_kernels::{Accumulate, Device};
//! use landscape_network::{Loss, NetworkObjective, init};
//! use std::sync::Arc;
//!
//! let mut b = GraphBuilder::new([2]);
//! let x = b.linear("fc1", b.input(), 8, Bias::On)?;
//! let x = b.relu("relu1", x)?;
//! let x = b.linear("fc2", x, 2, Bias::On)?;
//! let graph = Arc::new(b.finish(x)?);
//! let mut objective = NetworkObjective::<f32>::new(graph.clone(), &Device::Cpu, Loss::CrossEntropy)?;
//! let mut point = init::initialise(&graph, init::Init::PyTorch, Seed::new(0), &Device::Cpu)?;
//! let xor = Examples { inputs: vec![0., 0., 0., 1., 1., 0., 1., 1.], n_examples: 4, targets: Targets::Classes(vec![0, 1, 1, 0]) };
//! let mut gradient = point.clone();
//! for _ in 0..200 {
//!     objective.set_point(&point)?;
//!     objective.gradient(&xor, Pass::train(0), &mut gradient, Accumulate::Overwrite)?;
//!     for (w, g) in point.view_mut().host().iter_mut().zip(gradient.view().host()) {
//!         *w -= 0.5 * g;
//!     }
//! }
//! assert_eq!(objective.measure(&xor, Pass::EVALUATE)?.n_wrong, Some(0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Use something else for networks whose shape depends on the data.
#![warn(missing_docs)]

pub mod error;

mod staging;
mod order;
mod step;
mod lower;
mod attributes;
mod fuse;
mod plan;
mod segments;
mod arena;
mod pack;
mod kept;
mod norm;
mod forward;
mod compute;
mod backward;
mod gradients;
mod executor;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod naive;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod naive_tensors;

pub mod tap;
pub mod init;
pub mod refresh;
mod objective;
pub mod shared_first_layer;

pub use error::{Error, Result};
pub use executor::Executor;
pub use objective::{Loss, NetworkObjective};
