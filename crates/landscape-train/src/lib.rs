//! One training loop for endpoints, curves and simplexes: schedules, optimisers on flat rows, connecting two endpoints,
//! state that survives a kill, and `Bound` for any candle model.
//!
//! Two candle models of the same architecture, whatever it is, joined by a curve of low loss:
//! ```
//! # #[cfg(feature = "candle")]
//! # fn main() -> landscape_train::Result<()> {
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
//! # #[cfg(not(feature = "candle"))]
//! # fn main() {}
//! ```
//!
//! [`fit()`] is what stands behind it: any objective of `landscape-core`, any control points, any rule for the point of each step; a
//! network of `landscape-network` trains by it, and so does an analytic surface.
//!
//! Features: `candle` (on by default) adds `bound`; without it the crate has no candle in its tree.
//!
//! Use something else to train a single large network as fast as can be: one process, one device, and no mixed precision.
#![warn(missing_docs)]

pub mod error;

pub mod schedule;
pub mod optimizer;
pub mod sampler;
pub mod fit;
pub mod connect;
pub mod resume;

#[cfg(feature = "candle")]
pub mod bound;

#[cfg(feature = "candle")]
pub use bound::{Bound, connect};
pub use connect::{Connect, FreeEnds};
pub use error::{Error, Result};
pub use fit::{Control, DecayOn, FitConfig, FitState, Moment, Outcome, StepReport, fit};
pub use optimizer::{Moments, Optimizer, RowStep};
pub use sampler::{Endpoint, Given, Sampler, UniformOn};
pub use schedule::{Progress, Schedule};

/// The crate whose types stand in this one's interface, so that one dependency is enough.
pub use landscape_core;
