//! Network architecture as data: ops, shapes, parameter names, cost, JSON. No numbers, no tensors, no candle.
//!
//! A [`Graph`] is a list of nodes in the order in which PyTorch would register the modules. One declaration gives an executor what
//! to run, a checkpoint its tensor names, a file a description of itself, and a reader the cost.
//!
//! ```
//! use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder};
//! let mut b = GraphBuilder::new([3, 8, 8]);
//! let x = b.conv2d("conv1", b.input(), Conv2d { padding: [1, 1], bias: Bias::Off, ..Conv2d::new(16, 3) })?;
//! let x = b.batch_norm("bn1", x)?;
//! let x = b.relu("relu1", x)?;
//! let x = b.global_avg_pool("pool", x)?;
//! let x = b.flatten("flatten", x)?;
//! let x = b.linear("fc", x, 10, Bias::On)?;
//! let graph = b.finish(x)?;
//! assert_eq!(graph.n_parameters(), 16 * 3 * 9 + 2 * 16 + 16 * 10 + 10);
//! assert_eq!(graph.buffers()[0].name, "bn1.running_mean");
//! assert_eq!(Graph::from_json(&graph.to_json())?, graph);
//! # Ok::<(), landscape_graph::Error>(())
//! ```
//!
//! Use something else for networks whose shape depends on the data: a graph is static.

mod error;
mod op;
mod graph;
mod shape;
mod build;
mod cost;
mod json;
mod split;

pub use build::{Conv2d, GraphBuilder};
pub use cost::Cost;
pub use error::{Error, Result};
pub use graph::{Graph, Node, NodeId, TensorDecl};
pub use json::FORMAT_VERSION;
pub use op::{Bias, Dtype, Gelu, Op, Role, RopeStyle, Shape, Upsampling, WeightOrder};
pub use shape::{MAX_ELEMENTS, MAX_RANK, broadcast, infer};
pub use split::SplitGraph;
