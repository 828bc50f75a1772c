//! Geometry of weight space: control points and the curves, planes and profiles between them; checkpoints and the files they
//! come from; the seam ([`Objective`]) by which path algorithms know what they move through.
//!
//! Every point visited is a linear combination of K control points, w = Σ_k c_k θ_k; a [`Curve`] is a rule for the
//! [`Coefficients`] c. [`ControlPoints::blend`] goes there and [`ControlPoints::spread`] brings a gradient back.
//!
//! A profile of two candle models of the same architecture along the line between them, whatever the architecture:
//! ```
//! # #[cfg(feature = "candle")]
//! # fn main() -> landscape_core::Result<()> {
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{Linear, Module, VarBuilder, VarMap, linear};
//! use landscape_core::{Buffers, ControlPoints, Segment, Tally, profile};
//!
//! struct Net(Linear, Linear);
//! impl Net {
//!     fn new(vb: VarBuilder) -> candle_core::Result<Self> {
//!         Ok(Net(linear(2, 8, vb.pp("fc1"))?, linear(8, 2, vb.pp("fc2"))?))
//!     }
//!     fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
//!         self.1.forward(&self.0.forward(x)?.relu()?)
//!     }
//! }
//!
//! # fn trained(dev: &Device) -> candle_core::Result<std::collections::HashMap<String, Tensor>> {
//! #     let vars = VarMap::new();
//! #     Net::new(VarBuilder::from_varmap(&vars, DType::F32, dev))?;
//! #     Ok(vars.data().lock().unwrap().iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect())
//! # }
//! let dev = Device::Cpu;
//! let (a, b) = (trained(&dev)?, trained(&dev)?); // two HashMap<String, Tensor>, as safetensors::load gives them
//! let x = Tensor::new(&[[0.0f32, 1.0], [1.0, 0.0], [1.0, 1.0]], &dev)?;
//! let y = Tensor::new(&[0u32, 1, 1], &dev)?;
//!
//! let p = profile(&ControlPoints::from_tensors([&a, &b], Buffers::named(["running_mean", "running_var"]))?, &Segment, 25, |w| {
//!     Tally::classes(&Net::new(VarBuilder::from_tensors(w, DType::F32, &dev))?.forward(&x)?, &y)
//! })?;
//! assert_eq!(p.points.len(), 25);
//! assert!(p.barriers.train_loss.above_line >= 0.0);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "candle"))]
//! # fn main() {}
//! ```
//!
//! # When not to use it
//! There is no network, no data set and no training here: see `landscape-network`, `landscape-zoo` and `landscape-train`.
//!
//! # Features
//! `candle` (on by default): the module `convert`, from and to candle tensors and `VarMap`s. Without it candle is not built.
#![warn(missing_docs)]

pub mod error;
pub mod seed;

pub mod layout;
pub mod params;
pub mod coefficients;
pub mod stored;
pub mod control;
pub mod curve;
pub mod init;
pub mod gram;
pub mod length;
pub mod plane;

pub mod tally;
pub mod batch;
pub mod prefetch;
pub mod objective;
pub mod parallel_points;

pub mod hash;
pub mod whole;
pub mod tensor;
pub mod metadata;
mod mapped;
pub mod container;
pub mod checkpoint;
pub mod pth;
pub mod foreign;
pub mod record;

mod number;
pub mod barrier;
pub mod profile;
pub mod toy;

#[cfg(feature = "candle")]
pub mod convert;

pub use batch::{Batches, Examples, Targets};
pub use coefficients::Coefficients;
pub use control::{ControlPoints, Row};
#[cfg(feature = "candle")]
pub use convert::{BufferNames, BufferPolicy, TensorPoints, profile};
pub use curve::{Bezier, Curve, CurveKind, PolyChain, Segment};
pub use error::{Error, Result};
pub use layout::{ParamLayout, TensorSpec};
pub use objective::{Norm, NormRefresh, Objective, Pass, Stateful, Tell};
pub use parallel_points::Fork;
pub use params::{Buffers, Flat};
pub use seed::Seed;
pub use stored::StoredPoint;
pub use tally::Tally;
