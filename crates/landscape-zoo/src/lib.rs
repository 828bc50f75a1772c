//! Architectures as graphs with PyTorch parameter names, and data sets.

mod error;
pub mod models;
pub mod data;

pub use error::{Error, Result};
