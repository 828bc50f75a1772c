//! From candle tensors to control points and back: any candle model can be measured along a path, without gradients and without a
//! change to the model.
//!
//! ```
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
//! # Ok::<(), landscape_core::Error>(())
//! ```
//!
//! # When not to use it
//! A network with batch norm has statistics that belong to one point; between the ends, those of an end are wrong. Recompute them in
//! the closure, or bind the model with `landscape_train::Bound`, which does.

mod buffers;
mod points;
mod tally;
mod evaluate;

pub use buffers::{BufferNames, BufferPolicy};
pub use evaluate::profile;
pub use points::TensorPoints;
