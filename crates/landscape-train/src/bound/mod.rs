//! Any candle model behind the seam: measured along a path, and trained on one, without a change to the model.
//!
//! [`Bound`] builds the model once, by its own constructor, on variables that it then writes in place; with a loss and batches it is a
//! [`Task`], which the training loop and every path algorithm know as an [`Objective`](landscape_core::Objective). [`connect`] joins two
//! `VarMap`s by a curve and gives a [`Run`].
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use candle_nn::{Linear, Module, VarBuilder, linear};
//! use landscape_train::bound::{Bound, connect, train};
//! use landscape_train::{Connect, FitConfig, Optimizer};
//!
//! struct Net(Linear, Linear);
//! impl Net {
//!     fn new(vb: VarBuilder) -> candle_core::Result<Self> {
//!         Ok(Net(linear(2, 16, vb.pp("fc1"))?, linear(16, 2, vb.pp("fc2"))?))
//!     }
//!     fn forward_t(&self, x: &Tensor, _train: bool) -> candle_core::Result<Tensor> {
//!         self.1.forward(&self.0.forward(x)?.relu()?)
//!     }
//! }
//!
//! # fn main() -> landscape_train::Result<()> {
//! let dev = Device::Cpu;
//! let x = Tensor::new(&[[0.0f32, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], &dev)?;
//! let y = Tensor::new(&[0u32, 1, 1, 0], &dev)?;
//! let batches = vec![(x, y)];
//! let mut task = Bound::new(&dev, |vb| Net::new(vb), |net, x, train| net.forward_t(x, train))?.classes(batches);
//!
//! // Two networks; yours may come from anywhere.
//! let (varmap_a, varmap_b) = (task.model().new_varmap(1)?, task.model().new_varmap(2)?);
//! let endpoint = FitConfig { epochs: 200, optimizer: Optimizer::adam(0.02), ..Connect::garipov2018().fit };
//! train(&mut task, &varmap_a, &endpoint, 1)?;
//! train(&mut task, &varmap_b, &endpoint, 2)?;
//!
//! let run = connect(&mut task, &varmap_a, &varmap_b, Connect { points: 3, ..Connect::garipov2018() })?;
//! let profile = run.profile(11)?;
//! assert_eq!(profile.summary.train_error.unwrap().start, 0.0);
//! run.write_into(&varmap_a, 0.5)?; // a model on these variables now stands in the middle of the curve
//! # Ok(())
//! # }
//! ```
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
mod join;

pub use check::GradientCheck;
pub use join::{Run, connect, connect_chain, train};
pub use model::Bound;
pub use task::{Task, TensorBatch};
pub use tensors::NamedTensors;
