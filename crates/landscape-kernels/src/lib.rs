//! Ops for neural networks that are correct and fast, forward and backward, as functions on slices with shapes beside them,
//! and the weight-space kernels of mode connectivity: `blend`, `spread` and the optimiser step.
//!
//! Everything is generic over the sealed [`Real`] (`f32`, `f64`), takes [`View`]s of [`Memory`], and gives the same bits
//! for any number of rayon threads: work is cut by shape alone and partial sums are added in a fixed order.
//! Activations are channels last (`[n, h, w, c]`), matrices row-major.
//!
//! For candle users the feature `candle` has layers whose gradients are right under candle-nn's names, and the weight-space kernels as ops on
//! lists of candle tensors; `candle-cuda` has the latter on candle's GPUs. Without them there is no candle here.
//!
//! # When not to use it
//! There is no autograd and no tensor type here; for those see candle. A graph of these ops is run by `landscape-network`.
#![warn(missing_docs)]

pub mod error;
pub mod memory;
pub mod precision;

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(not(feature = "cuda"))]
mod no_cuda;

mod axes;
mod check;
mod pairs;
mod vector_math;
#[macro_use]
mod dispatch;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod naive;

mod exp;
pub mod gemm;
pub mod parallel;
pub mod simd;
pub mod reduce;

pub mod linear;
pub mod matmul;
pub mod conv2d;
pub mod batch_norm;
pub mod group_norm;
pub mod layer_norm;
pub mod rms_norm;
pub mod activation;
pub mod broadcast;
pub mod embedding;
pub mod dropout;
pub mod pool;
pub mod shape;
pub mod upsample;
pub mod loss;
pub mod softmax;
pub mod rope;
pub mod attention;

pub mod blend;
pub mod bytes;
pub mod step;
#[cfg(feature = "candle")]
pub mod candle;

pub use error::{Error, Result};
pub use memory::{Accumulate, Algorithms, Device, DeviceKind, Element, Memory, Real, View, ViewMut};
pub use precision::Precision;
