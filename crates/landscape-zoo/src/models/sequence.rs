//! Steps that sequences need, named as the builder's own.

use crate::error::Result;
use landscape_graph::{GraphBuilder, NodeId, Op};

/// More steps of a builder.
pub(super) trait Sequence {
    /// Adds layer norm over the last axis, with factor and constant.
    fn layer_norm(&mut self, name: &str, x: NodeId, eps: f64) -> Result<NodeId>;
    /// Adds another order of the axes: axis i of the result is axis dims\[i\].
    fn permute(&mut self, name: &str, x: NodeId, dims: &[usize]) -> Result<NodeId>;
    /// Adds other axes over the same numbers in the same order.
    fn reshape(&mut self, name: &str, x: NodeId, shape: &[usize]) -> Result<NodeId>;
}

impl Sequence for GraphBuilder {
    fn layer_norm(&mut self, name: &str, x: NodeId, eps: f64) -> Result<NodeId> {
        let normalized_shape = self.shape(x)?.last().copied().into_iter().collect();
        Ok(self.push(name, Op::LayerNorm { normalized_shape, eps, elementwise_affine: true, bias: true }, &[x])?)
    }

    fn permute(&mut self, name: &str, x: NodeId, dims: &[usize]) -> Result<NodeId> {
        Ok(self.push(name, Op::Permute { dims: dims.to_vec() }, &[x])?)
    }

    fn reshape(&mut self, name: &str, x: NodeId, shape: &[usize]) -> Result<NodeId> {
        Ok(self.push(name, Op::Reshape { shape: shape.to_vec() }, &[x])?)
    }
}
