//! A network: nodes in the order of declaration, which is also an order of execution, and the tensors they own.

use crate::cost::{self, Cost};
use crate::op::{Op, Role, Shape};
use std::collections::BTreeMap;

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
    /// Tensors of the op whose names are not the node's with the role's suffix; a name that stands at several nodes is one tensor, which
    /// they share.
    pub tensor_names: BTreeMap<Role, String>,
}

impl Node {
    /// The name of one of the op's tensors in a PyTorch state dict.
    pub fn tensor_name(&self, role: Role) -> String {
        match (self.tensor_names.get(&role), role.suffix()) {
            (Some(name), _) => name.clone(),
            (None, Some(suffix)) => format!("{}.{suffix}", self.name),
            (None, None) => self.name.clone(),
        }
    }

    /// How many numbers come out, per example.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A tensor that a node owns; of those that share one, the first.
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
/// The inputs stand first, every node leads to an output, and the order of the nodes is one in which they can be executed; in graphs of
/// the zoo also that in which PyTorch registers the modules. What is trained and measured is the first output.
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
    outputs: Vec<NodeId>,
    tensors: Vec<TensorDecl>,
    cost: Cost,
}

impl Graph {
    /// Takes nodes that the builder has checked.
    pub(crate) fn of_checked(nodes: Vec<Node>, outputs: Vec<NodeId>, tensors: Vec<TensorDecl>, cost: Cost) -> Self {
        Graph { nodes, outputs, tensors, cost }
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

    /// The nodes that the parts of an example come in at, in order.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = NodeId> + use<> {
        let n_inputs = self.nodes.iter().take_while(|node| matches!(node.op, Op::Input { .. })).count();
        (0..n_inputs).map(NodeId)
    }

    /// The first input.
    pub fn input(&self) -> NodeId {
        NodeId(0)
    }

    /// The nodes whose results are the network's.
    pub fn outputs(&self) -> &[NodeId] {
        &self.outputs
    }

    /// The first output: what is trained and measured.
    pub fn output(&self) -> NodeId {
        self.outputs[0]
    }

    /// What an example looks like at the first input.
    pub fn input_shape(&self) -> &Shape {
        &self.nodes[0].shape
    }

    /// How many numbers an example has, at all inputs together.
    pub fn n_input_elements(&self) -> usize {
        self.inputs().map(|input| self.node(input).n_elements()).sum()
    }

    /// What comes out at the first output, per example.
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
        cost::of_node(&self.nodes, id.0, &self.tensors).expect("costs were checked when the graph was made")
    }

    fn tensors(&self, wanted: impl Fn(Role) -> bool) -> Vec<TensorDecl> {
        self.tensors.iter().filter(|tensor| wanted(tensor.role)).cloned().collect()
    }
}
