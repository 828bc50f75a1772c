//! Geometry of weight space: control points and the curves, planes and profiles between them; checkpoints and the files they
//! come from; the seam ([`Objective`]) by which path algorithms know what they move through.
//!
//! Every point visited is a linear combination of K control points, w = Σ_k c_k θ_k; a [`Curve`] is a rule for the
//! [`Coefficients`] c. [`ControlPoints::blend`] goes there and [`ControlPoints::spread`] brings a gradient back.
#![warn(missing_docs)]

pub mod error;
pub mod seed;

pub mod layout;
pub mod params;
pub mod coefficients;
pub mod control;
pub mod curve;
pub mod init;
pub mod gram;
pub mod length;
pub mod plane;

pub mod tally;
pub mod batch;
pub mod objective;

pub mod hash;
pub mod whole;
pub mod tensor;
pub mod metadata;
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
pub use objective::{Norm, NormRefresh, Objective, Pass, Stateful};
pub use params::{Buffers, Flat};
pub use seed::Seed;
pub use tally::Tally;
