//! A network cut in two after its first layer, which is the part that is linear in the weights for a given example.

use crate::build::GraphBuilder;
use crate::error::Result;
use crate::graph::{Graph, Node, NodeId};
use crate::op::{Dtype, Op};

/// A network in two parts. A graph's parameters stand in the order of its nodes, so those of `head` and then those of `tail` are those
/// of the whole.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitGraph {
    /// From the input to the first layer, as features in the order channel, height, width.
    pub head: Graph,
    /// What follows; its input has the name and the shape of the first layer's output.
    pub tail: Graph,
}

impl Graph {
    /// Cuts the network after its first layer: a linear map or a convolution that alone reads the example, as it is or flattened. None if
    /// it does not begin with one, or ends with it; nor for networks with several inputs or outputs, or with tensors that nodes share or
    /// that are nodes.
    ///
    /// ```
    /// use landscape_graph::{Bias, GraphBuilder};
    /// let mut b = GraphBuilder::new([1, 2, 2]);
    /// let x = b.flatten("flatten", b.input())?;
    /// let x = b.linear("fc1", x, 8, Bias::On)?;
    /// let x = b.relu("relu1", x)?;
    /// let x = b.linear("fc2", x, 3, Bias::On)?;
    /// let parts = b.finish(x)?.split_first_layer().unwrap();
    /// assert_eq!((parts.head.n_parameters(), parts.tail.n_parameters()), (4 * 8 + 8, 8 * 3 + 3));
    /// assert_eq!((parts.head.output_shape().as_slice(), parts.tail.input_shape().as_slice()), (&[8][..], &[8][..]));
    /// # Ok::<(), landscape_graph::Error>(())
    /// ```
    pub fn split_first_layer(&self) -> Option<SplitGraph> {
        let is_plain = |node: &Node| node.tensor_names.is_empty() && !matches!(node.op, Op::Parameter { .. } | Op::Constant { .. });
        let of_images = matches!(self.input_shape().len(), 1 | 3);
        if self.inputs().len() != 1 || self.outputs().len() != 1 || !of_images || !self.nodes().iter().all(is_plain) {
            return None;
        }
        Some(self.cut_after(self.first_layer()?).expect("a part of a graph that was checked is one that would be"))
    }

    fn cut_after(&self, layer: NodeId) -> Result<SplitGraph> {
        let mut head = GraphBuilder::with_input(&self.node(self.input()).name, self.input_shape().clone(), Dtype::Float);
        for node in &self.nodes()[1..=layer.0] {
            head.push(&node.name, node.op.clone(), &node.inputs)?;
        }
        let first = self.node(layer);
        let taken = [&self.node(self.input()).name, &first.name];
        let free = ["flatten", "features", "output"].into_iter().find(|name| taken.iter().all(|taken| taken != name));
        let output = match (first.shape.len(), free) {
            // The head of an image has no nodes but these two, so one of three names is free.
            (3, Some(name)) => head.flatten(name, layer)?,
            _ => layer,
        };
        let mut tail = GraphBuilder::with_input(&first.name, first.shape.clone(), Dtype::Float);
        for node in &self.nodes()[layer.0 + 1..] {
            let inputs: Vec<NodeId> = node.inputs.iter().map(|input| NodeId(input.0 - layer.0)).collect();
            tail.push(&node.name, node.op.clone(), &inputs)?;
        }
        let last = NodeId(self.nodes().len() - 1 - layer.0);
        Ok(SplitGraph { head: head.finish(output)?, tail: tail.finish(last)? })
    }

    /// The node of the first layer. Up to it every node reads the one before it and is read by the one after it alone, so no node
    /// stands between them.
    fn first_layer(&self) -> Option<NodeId> {
        let mut at = self.input();
        loop {
            let mut readers = self.nodes().iter().enumerate().filter(|(_, node)| node.inputs.contains(&at));
            let (idx, reader) = readers.next()?;
            if readers.next().is_some() {
                return None;
            }
            at = NodeId(idx);
            match reader.op {
                Op::Flatten => {}
                Op::Linear { .. } if reader.shape.len() != 1 => return None,
                Op::Linear { .. } | Op::Conv2d { .. } => return (at != self.output()).then_some(at),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::build::Conv2d;
    use crate::op::Bias;

    /// A convolution, and a residual block behind it.
    fn residual() -> Graph {
        let mut b = GraphBuilder::new([2, 5, 5]);
        let stem = b.conv2d("conv1", b.input(), Conv2d { padding: [1, 1], ..Conv2d::new(3, 3) }).unwrap();
        let x = b.conv2d("conv2", stem, Conv2d { padding: [1, 1], ..Conv2d::new(3, 3) }).unwrap();
        let x = b.batch_norm("bn2", x).unwrap();
        let x = b.add("add", x, stem).unwrap();
        let x = b.flatten("flatten", x).unwrap();
        let x = b.linear("fc", x, 4, Bias::Off).unwrap();
        b.finish(x).unwrap()
    }

    #[test]
    fn the_parts_hold_the_tensors_of_the_whole_in_their_order() {
        let graph = residual();
        let SplitGraph { head, tail } = graph.split_first_layer().unwrap();
        assert_eq!((head.output_shape().as_slice(), tail.input_shape().as_slice()), (&[75][..], &[3, 5, 5][..]));
        assert_eq!(tail.output_shape(), graph.output_shape());
        let tensors = |graph: &Graph| graph.state_dict().into_iter().map(|t| (t.name, t.shape)).collect::<Vec<_>>();
        assert_eq!([tensors(&head), tensors(&tail)].concat(), tensors(&graph));
        assert_eq!(Graph::from_json(&head.to_json()).unwrap(), head);
        assert_eq!(Graph::from_json(&tail.to_json()).unwrap(), tail);
    }

    #[test]
    fn a_network_that_does_not_begin_with_one_layer_stays_whole() {
        let mut only = GraphBuilder::new([4]);
        let x = only.linear("fc", only.input(), 3, Bias::On).unwrap();
        assert_eq!(only.finish(x).unwrap().split_first_layer(), None);

        let mut normalised = GraphBuilder::new([4]);
        let x = normalised.batch_norm("bn", normalised.input()).unwrap();
        let x = normalised.linear("fc1", x, 3, Bias::On).unwrap();
        assert_eq!(normalised.finish(x).unwrap().split_first_layer(), None);

        let mut two = GraphBuilder::new([4]);
        let a = two.linear("a", two.input(), 3, Bias::On).unwrap();
        let b = two.linear("b", two.input(), 3, Bias::On).unwrap();
        let x = two.add("add", a, b).unwrap();
        assert_eq!(two.finish(x).unwrap().split_first_layer(), None);
    }
}
