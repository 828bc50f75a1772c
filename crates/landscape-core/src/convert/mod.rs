//! From candle tensors to control points and back: any candle model can be measured along a path, without gradients and without a
//! change to the model.
//! [`TensorPoints`] are control points that were candle tensors and become such again, [`profile`] measures along them; the crate's
//! page shows both.
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
