//! One training loop for endpoints, curves and simplexes: schedules, optimisers on flat rows, connecting two endpoints,
//! state that survives a kill, and [`Bound`](bound::Bound) for any candle model.
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
