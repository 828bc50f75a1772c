//! Any candle model behind the seam: measured along a path, and trained on one, without a change to the model.
//!
//! [`Bound`] builds the model once, by its own constructor, on variables that it then writes in place; with a loss and batches it is a
//! [`Task`], which the training loop and every path algorithm know as an [`Objective`](landscape_core::Objective). [`connect`] joins two
//! `VarMap`s by a curve and gives a [`Run`].
//! The crate's own page shows it at work.
//!
//! # When not to use it
//! candle's convolutions are many times slower on the CPU than the executor of `landscape-network`, and some of its gradients are wrong
//! or missing in 0.11.1; those are found before training and refused, naming the parameter. candle's dropout draws from a generator that
//! cannot be seeded on the CPU, so a model with dropout gives no repeatable run.

mod leaves;
mod tensors;
mod model;
mod loss;
mod check;
mod refresh;
mod task;
mod shuffled;
mod join;

pub use check::GradientCheck;
pub use join::{Run, connect, connect_chain, train};
pub use model::Bound;
pub use shuffled::Shuffled;
pub use task::{Task, TensorBatch};
pub use tensors::NamedTensors;
