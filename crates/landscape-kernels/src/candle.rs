//! What candle users need of this crate (feature `candle`; on a GPU with `candle-cuda`): layers whose gradients are right, and the weight-space
//! kernels as ops on lists of tensors.
//!
//! # Layers
//! This module is candle-nn with some of it replaced, under the same names and with the same arguments: a model is repaired by its `use` lines,
//! `use candle_nn::{Conv2d, conv2d, linear, ..}` becoming `use landscape_kernels::candle::{Conv2d, conv2d, linear, ..}`.
//!
//! | here | candle-nn 0.11.1 |
//! |---|---|
//! | [`LayerNorm`], [`RmsNorm`], [`ops::layer_norm`], [`ops::rms_norm`] | no gradient, and no error, for contiguous input |
//! | [`ops::softmax_last_dim`], [`rotary_emb::rope`], [`rotary_emb::rope_i`], [`rotary_emb::rope_thd`] | the same |
//! | [`Conv1d`] | wrong gradient of the weight |
//! | [`max_pool2d()`], [`max_pool2d_with_stride`] in place of the methods of `Tensor` | gradient divided by the window's size; windows that overlap are refused |
//! | [`avg_pool2d()`], [`avg_pool2d_with_stride`] in place of the methods | wrong where the size is no multiple of the window |
//! | [`Conv2d`], [`BatchNorm`], [`ops::softmax`] over the last axis | right, and slow |
//!
//! Names, shapes and first values of parameters are candle's own, so checkpoints fit. Methods of `Tensor` cannot be replaced by a `use` line:
//! `x.max_pool2d(2)?` becomes `max_pool2d(&x, 2)?`. Everything else of candle-nn is handed through as it is; of that, transposed
//! convolutions in one dimension, `ops::sdpa` and the fused attentions still have no gradient.
//!
//! On the processor, in f32 and f64, these are this crate's kernels, on tensors of any strides. Other types (f16, bf16) and candle's GPUs take
//! candle's own differentiable ops, composed where the fused one has no gradient: right, not faster. Gradients are of first order, as
//! all of candle's custom ops have them.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use landscape_kernels::candle::{Conv2dConfig, Module, VarBuilder, VarMap, conv2d, layer_norm, max_pool2d};
//! let (vars, dev) = (VarMap::new(), Device::Cpu);
//! let vb = VarBuilder::from_varmap(&vars, DType::F32, &dev);
//! let (conv, norm) = (conv2d(1, 4, 3, Conv2dConfig::default(), vb.pp("conv"))?, layer_norm(16, 1e-5, vb.pp("norm"))?);
//! let x = Tensor::arange(0f32, 72.0, &dev)?.reshape((2, 1, 6, 6))?;
//! let y = norm.forward(&max_pool2d(&conv.forward(&x)?.relu()?, 2)?.flatten_from(1)?)?;
//! assert!(y.sqr()?.sum_all()?.backward()?.get(conv.weight()).is_some());
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # Weight space
//! A point of weight space is here what candle users have: a list of tensors, one per parameter. All writing is in place, into
//! [`Var`](candle_core::Var)s, which a model built on them sees at once. On a GPU every call is one launch (a few for lists of over a hundred)
//! on candle's own stream and storage, however many tensors there are; on the processor tensors are taken in turn, each by all threads.
//!
//! candle does not notice that a variable changes between its forward and its backward pass: blend, run forward, run backward, step, in this
//! order.
//!
//! # When not to use it
//! `landscape-train`'s `Bound` does the blending and stepping for a whole model, and checks candle's gradients besides. A network that need not be
//! candle's runs faster on `landscape-network`.

// What is named below takes the place of candle-nn's.
pub use candle_nn::*;

mod host;
mod lists;
mod blend;
mod step;
#[cfg(feature = "candle-cuda")]
mod cuda;

mod op;
mod images;
pub mod conv;
pub mod pool;
pub mod batch_norm;
pub mod layer_norm;
pub mod ops;
pub mod rotary_emb;
#[cfg(test)]
mod tests;

pub use batch_norm::{BatchNorm, BatchNormConfig, batch_norm};
pub use blend::{Blend, add_to, blend, spread, write};
pub use conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, conv1d, conv1d_no_bias, conv2d, conv2d_no_bias};
pub use host::AsTensor;
pub use layer_norm::{LayerNorm, LayerNormConfig, RmsNorm, layer_norm, layer_norm_no_bias, rms_norm};
pub use pool::{avg_pool2d, avg_pool2d_with_stride, max_pool2d, max_pool2d_with_stride};
pub use step::{Spread, adam_step, sgd_step};
