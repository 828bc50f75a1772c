//! A network: nodes in the order of declaration, which is also an order of execution, and the tensors they own.

use crate::cost::{self, Cost};
use crate::op::{Op, Role, Shape};

/// A node's place in [`Graph::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// One op, what it reads and what comes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The path of the PyTorch module, such as `layer1.0.conv1`; no other node has it.
    pub name: String,
    /// What is done.
    pub op: Op,
    /// What it is done to; all stand before this node.
    pub inputs: Vec<NodeId>,
    /// What comes out, per example.
    pub shape: Shape,
}

impl Node {
    /// How many numbers come out, per example.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A tensor that a node owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorDecl {
    /// Its name in a PyTorch state dict, such as `fc1.weight`.
    pub name: String,
    /// Its shape there; a scalar has none: `[]`.
    pub shape: Vec<usize>,
    /// The owner.
    pub node: NodeId,
    /// What it is to the owner.
    pub role: Role,
}

impl TensorDecl {
    /// How many numbers it has.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A network as data: checked when it was built or read, and unchangeable since.
///
/// The first node is the input, the last one the output, every node leads to the output, and the order of the nodes is the order
/// in which PyTorch registers the modules and in which they can be executed.
///
/// ```
/// use landscape_graph::{Bias, GraphBuilder};
/// let mut b = GraphBuilder::new([4]);
/// let x = b.input();
/// let x = b.linear("fc1", x, 8, Bias::On)?;
/// let x = b.relu("relu1", x)?;
/// let x = b.linear("fc2", x, 3, Bias::On)?;
/// let graph = b.finish(x)?;
/// assert_eq!(graph.output_shape(), &[3]);
/// assert_eq!(graph.n_parameters(), 4 * 8 + 8 + 8 * 3 + 3);
/// let names: Vec<_> = graph.params().into_iter().map(|t| t.name).collect();
/// assert_eq!(names, ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]);
/// # Ok::<(), landscape_graph::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    cost: Cost,
}

impl Graph {
    /// Takes nodes that the builder has checked.
    pub(crate) fn of_checked(nodes: Vec<Node>, cost: Cost) -> Self {
        Graph { nodes, cost }
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node.
    ///
    /// # Panics
    /// If `id` is of another, larger graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The node of that name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|n| n.name == name).map(NodeId)
    }

    /// The node that the example comes in at.
    pub fn input(&self) -> NodeId {
        NodeId(0)
    }

    /// The node whose result is the network's.
    pub fn output(&self) -> NodeId {
        NodeId(self.nodes.len() - 1)
    }

    /// What an example looks like.
    pub fn input_shape(&self) -> &Shape {
        &self.nodes[0].shape
    }

    /// What comes out, per example.
    pub fn output_shape(&self) -> &Shape {
        &self.node(self.output()).shape
    }

    /// What is learned, in state-dict order.
    pub fn params(&self) -> Vec<TensorDecl> {
        self.tensors(|role| role.is_parameter())
    }

    /// The statistics, in state-dict order.
    pub fn buffers(&self) -> Vec<TensorDecl> {
        self.tensors(|role| !role.is_parameter())
    }

    /// All tensors as PyTorch's `state_dict()` lists them: per module the parameters, then the statistics.
    pub fn state_dict(&self) -> Vec<TensorDecl> {
        self.tensors(|_| true)
    }

    /// How many numbers are learned.
    pub fn n_parameters(&self) -> usize {
        usize::try_from(self.cost.n_parameters).expect("a parameter count was checked to fit")
    }

    /// What the network costs, per example.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// What one node costs, per example.
    ///
    /// # Panics
    /// If `id` is of another, larger graph.
    pub fn node_cost(&self, id: NodeId) -> Cost {
        cost::of_node(self.node(id)).expect("costs were checked when the graph was made")
    }

    fn tensors(&self, wanted: impl Fn(Role) -> bool) -> Vec<TensorDecl> {
        let mut tensors = Vec::new();
        for (idx, node) in self.nodes.iter().enumerate() {
            for (role, shape) in node.op.tensors().into_iter().filter(|&(role, _)| wanted(role)) {
                tensors.push(TensorDecl { name: format!("{}.{}", node.name, role.suffix()), shape, node: NodeId(idx), role });
            }
        }
        tensors
    }
}
