//! Building a network node by node, each checked as it is added.

use crate::cost;
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, NodeId, TensorDecl};
use crate::op::{Bias, Dtype, Gelu, Op, Role, Shape, WeightOrder};
use crate::shape;
use std::collections::{BTreeMap, BTreeSet};

/// The attributes of a convolution; the number of input channels is read off what comes in.
///
/// ```
/// use landscape_graph::{Bias, Conv2d};
/// let conv = Conv2d { stride: [2, 2], padding: [1, 1], bias: Bias::Off, ..Conv2d::new(16, 3) };
/// assert_eq!(conv.kernel_size, [3, 3]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Channels out.
    pub out_channels: usize,
    /// The window, `[height, width]`.
    pub kernel_size: [usize; 2],
    /// The step between windows.
    pub stride: [usize; 2],
    /// Rows and columns of zeros on each side.
    pub padding: [usize; 2],
    /// The step between the taps of one window.
    pub dilation: [usize; 2],
    /// Into how many groups the channels fall.
    pub groups: usize,
    /// Whether a constant per channel is added.
    pub bias: Bias,
}

impl Conv2d {
    /// PyTorch's defaults: a square window, stride 1, no padding, no dilation, one group, a bias.
    pub fn new(out_channels: usize, kernel_size: usize) -> Self {
        Conv2d { out_channels, kernel_size: [kernel_size; 2], stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1, bias: Bias::On }
    }
}

/// Builds a [`Graph`]; the order of the calls is the order of the state dict.
#[derive(Debug, Clone)]
pub struct GraphBuilder {
    nodes: Vec<Node>,
    names: BTreeSet<String>,
}

impl GraphBuilder {
    /// Begins with an input of any numbers, named `input`.
    ///
    /// # Shapes
    /// `[channels, height, width]`, `[features]` or any other, without the batch; a wrong one is reported by the next call.
    pub fn new(input_shape: impl Into<Shape>) -> Self {
        Self::with_input("input", input_shape.into(), Dtype::Float)
    }

    /// Begins with an input of that name and kind; [`GraphBuilder::add_input`] adds more.
    pub fn with_input(name: &str, shape: impl Into<Shape>, dtype: Dtype) -> Self {
        let op = Op::Input { dtype };
        let input = Node { name: name.to_owned(), op, inputs: Vec::new(), shape: shape.into(), tensor_names: BTreeMap::new() };
        GraphBuilder { nodes: vec![input], names: BTreeSet::from([name.to_owned()]) }
    }

    /// Adds another input; only other inputs may stand before it. In a batch the numbers of an example stand input after input.
    ///
    /// # Errors
    /// If the name is taken or unfit, another op stands before it, or the shape is none.
    pub fn add_input(&mut self, name: &str, shape: impl Into<Shape>, dtype: Dtype) -> Result<NodeId> {
        self.check_new(name)?;
        let shape = shape.into();
        shape::check_input(name, &shape)?;
        if let Some(node) = self.nodes.iter().find(|node| !matches!(node.op, Op::Input { .. })) {
            let before = &node.name;
            return Err(Error::Input(format!("node `{name}`: inputs stand before all other nodes, and `{before}` stands before it")));
        }
        Ok(self.add_node(name, Op::Input { dtype }, &[], shape))
    }

    /// The first input.
    pub fn input(&self) -> NodeId {
        NodeId(0)
    }

    /// The shape of what a node yields.
    ///
    /// # Errors
    /// If the node is of another builder.
    pub fn shape(&self, id: NodeId) -> Result<&Shape> {
        let n_nodes = self.nodes.len();
        self.nodes.get(id.0).map(|n| &n.shape).ok_or(Error::NoSuchNode { idx: id.0, n_nodes })
    }

    /// Adds any op.
    ///
    /// # Errors
    /// If the name is taken or unfit, an attribute is out of its range, or the shapes do not fit.
    pub fn push(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId> {
        self.check_new(name)?;
        let shapes = inputs.iter().map(|&id| self.shape(id)).collect::<Result<Vec<_>>>()?;
        let shape = shape::infer(name, &op, &shapes)?;
        if let Op::Embedding { .. } = op
            && !self.is_of_whole_numbers(inputs[0])
        {
            let got = format!("the result of `{}`", self.nodes[inputs[0].0].name);
            let expected = "whole numbers: an input of `dtype` `int`, or a constant".to_owned();
            return Err(Error::Shape { node: name.to_owned(), op: "embedding", expected, got });
        }
        Ok(self.add_node(name, op, inputs, shape))
    }

    /// Gives a learned tensor of a node another name than the usual one; tensors of one name are shared.
    ///
    /// # Errors
    /// If the node is of another builder, has no such learned tensor, or the name is unfit.
    ///
    /// ```
    /// use landscape_graph::{Bias, Dtype, GraphBuilder, Op, Role};
    /// let mut b = GraphBuilder::with_input("tokens", [8], Dtype::Int);
    /// let x = b.push("wte", Op::Embedding { num_embeddings: 11, embedding_dim: 4 }, &[b.input()])?;
    /// let logits = b.linear("lm_head", x, 11, Bias::Off)?;
    /// b.name_tensor(logits, Role::Weight, "wte.weight")?;
    /// assert_eq!(b.finish(logits)?.n_parameters(), 11 * 4);
    /// # Ok::<(), landscape_graph::Error>(())
    /// ```
    pub fn name_tensor(&mut self, id: NodeId, role: Role, tensor: &str) -> Result<()> {
        self.shape(id)?;
        check_name(tensor)?;
        let node = &mut self.nodes[id.0];
        if !role.is_parameter() || !node.op.tensors().iter().any(|&(owned, _)| owned == role) {
            return Err(Error::NoSuchTensor { node: node.name.clone(), op: node.op.name(), role });
        }
        if node.tensor_name(role) != tensor {
            node.tensor_names.insert(role, tensor.to_owned());
        }
        Ok(())
    }

    /// Adds an affine map along the last axis; `in_features` is what comes in.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn linear(&mut self, name: &str, x: NodeId, out_features: usize, bias: Bias) -> Result<NodeId> {
        let in_features = self.shape(x)?.last().copied().unwrap_or(0);
        self.push(name, Op::Linear { in_features, out_features, bias: bias == Bias::On, weight_order: WeightOrder::OutIn }, &[x])
    }

    /// Adds a convolution; `in_channels` is what comes in.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn conv2d(&mut self, name: &str, x: NodeId, conv: Conv2d) -> Result<NodeId> {
        let in_channels = self.shape(x)?.first().copied().unwrap_or(0);
        let Conv2d { out_channels, kernel_size, stride, padding, dilation, groups, bias } = conv;
        let bias = bias == Bias::On;
        self.push(name, Op::Conv2d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias }, &[x])
    }

    /// Adds batch norm with PyTorch's defaults: eps 1e-5, momentum 0.1, affine.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn batch_norm(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        let num_features = self.shape(x)?.first().copied().unwrap_or(0);
        self.push(name, Op::BatchNorm { num_features, eps: 1e-5, momentum: 0.1, affine: true }, &[x])
    }

    /// Adds max(x, 0).
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn relu(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        self.push(name, Op::Relu, &[x])
    }

    /// Adds a Gaussian error linear unit.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn gelu(&mut self, name: &str, x: NodeId, approximate: Gelu) -> Result<NodeId> {
        self.push(name, Op::Gelu { approximate }, &[x])
    }

    /// Adds a sum.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn add(&mut self, name: &str, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.push(name, Op::Add, &[a, b])
    }

    /// Adds dropout.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn dropout(&mut self, name: &str, x: NodeId, p: f64) -> Result<NodeId> {
        self.push(name, Op::Dropout { p }, &[x])
    }

    /// Adds max pooling without padding over square windows.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn max_pool2d(&mut self, name: &str, x: NodeId, kernel_size: usize, stride: usize) -> Result<NodeId> {
        self.push(name, Op::MaxPool2d { kernel_size: [kernel_size; 2], stride: [stride; 2], padding: [0, 0] }, &[x])
    }

    /// Adds average pooling without padding over square windows.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn avg_pool2d(&mut self, name: &str, x: NodeId, kernel_size: usize, stride: usize) -> Result<NodeId> {
        let op = Op::AvgPool2d { kernel_size: [kernel_size; 2], stride: [stride; 2], padding: [0, 0], count_include_pad: true };
        self.push(name, op, &[x])
    }

    /// Adds average pooling to a given size.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn adaptive_avg_pool2d(&mut self, name: &str, x: NodeId, output_size: [usize; 2]) -> Result<NodeId> {
        self.push(name, Op::AdaptiveAvgPool2d { output_size }, &[x])
    }

    /// Adds the mean over the image: `[c, h, w]` to `[c, 1, 1]`.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn global_avg_pool(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        self.push(name, Op::GlobalAvgPool, &[x])
    }

    /// Adds the step from an image to features.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn flatten(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        self.push(name, Op::Flatten, &[x])
    }

    /// Adds a concatenation along the first axis: channels or features.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn concat(&mut self, name: &str, inputs: &[NodeId]) -> Result<NodeId> {
        self.push(name, Op::Concat { dim: 0 }, inputs)
    }

    /// Ends with that node as the output.
    ///
    /// # Errors
    /// If a node does not lead to the output, tensors of one name differ, or the whole is too large.
    pub fn finish(self, output: NodeId) -> Result<Graph> {
        self.finish_with(&[output])
    }

    /// Ends with several outputs, of which the first is what is trained and measured.
    ///
    /// # Errors
    /// As [`GraphBuilder::finish`]; if there is no output, or one comes twice.
    pub fn finish_with(self, outputs: &[NodeId]) -> Result<Graph> {
        self.check_input()?;
        let mut leads = vec![false; self.nodes.len()];
        for &output in outputs {
            self.shape(output)?;
            if std::mem::replace(&mut leads[output.0], true) {
                return Err(Error::Output(format!("node `{}` is an output twice", self.nodes[output.0].name)));
            }
        }
        let first = *outputs.first().ok_or_else(|| Error::Output("there is no output: expected at least one".to_owned()))?;
        for (idx, node) in self.nodes.iter().enumerate().rev() {
            if !leads[idx] {
                let output = self.nodes[first.0].name.clone();
                return Err(Error::DeadNode { node: node.name.clone(), output });
            }
            for input in &node.inputs {
                leads[input.0] = true;
            }
        }
        let tensors = declared(&self.nodes)?;
        let cost = cost::of_nodes(&self.nodes, &tensors)?;
        Ok(Graph::of_checked(self.nodes, outputs.to_vec(), tensors, cost))
    }

    /// What [`GraphBuilder::new`] leaves open.
    fn check_input(&self) -> Result<()> {
        check_name(&self.nodes[0].name)?;
        shape::check_input(&self.nodes[0].name, &self.nodes[0].shape)
    }

    fn check_new(&self, name: &str) -> Result<()> {
        self.check_input()?;
        check_name(name)?;
        if self.names.contains(name) { Err(Error::DuplicateName { name: name.to_owned() }) } else { Ok(()) }
    }

    fn add_node(&mut self, name: &str, op: Op, inputs: &[NodeId], shape: Shape) -> NodeId {
        self.names.insert(name.to_owned());
        self.nodes.push(Node { name: name.to_owned(), op, inputs: inputs.to_vec(), shape, tensor_names: BTreeMap::new() });
        NodeId(self.nodes.len() - 1)
    }

    /// Whether a node yields whole numbers: an input of them, constants, and what only moves those.
    fn is_of_whole_numbers(&self, id: NodeId) -> bool {
        // From the front, not by following inputs back: of those there may be twice as many at every step.
        let mut whole: Vec<bool> = Vec::with_capacity(id.0 + 1);
        for node in &self.nodes[..=id.0] {
            whole.push(match &node.op {
                Op::Input { dtype } => *dtype == Dtype::Int,
                Op::Constant { values, .. } => values.iter().all(|v| v.fract() == 0.0 && *v >= 0.0),
                Op::Flatten | Op::Reshape { .. } | Op::Permute { .. } | Op::Expand { .. } | Op::Slice { .. } | Op::Concat { .. } => {
                    node.inputs.iter().all(|input| whole[input.0])
                }
                _ => false,
            });
        }
        whole[id.0]
    }
}

/// The tensors of all nodes, each once, at the first node that names it.
fn declared(nodes: &[Node]) -> Result<Vec<TensorDecl>> {
    let mut tensors: Vec<TensorDecl> = Vec::new();
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    for (idx, node) in nodes.iter().enumerate() {
        for (role, shape) in node.op.tensors() {
            let name = node.tensor_name(role);
            let Some(&first) = by_name.get(&name) else {
                by_name.insert(name.clone(), tensors.len());
                tensors.push(TensorDecl { name, shape, node: NodeId(idx), role });
                continue;
            };
            let first = &tensors[first];
            let kinds = [role, first.role].map(Role::is_parameter);
            if first.shape != shape || kinds != [true; 2] || first.node.0 == idx {
                let shapes = format!("{shape:?} and {:?}", first.shape);
                return Err(Error::SharedTensor { tensor: name, node: node.name.clone(), first: nodes[first.node.0].name.clone(), shapes });
            }
        }
    }
    Ok(tensors)
}

fn check_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > 256 {
        "it is longer than 256 bytes"
    } else if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "it contains white space or control characters"
    } else if name.split('.').any(str::is_empty) {
        "a part between dots is empty"
    } else {
        return Ok(());
    };
    Err(Error::Name { name: name.chars().take(64).collect(), reason })
}
