//! Building a network node by node, each checked as it is added.

use crate::cost;
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, NodeId};
use crate::op::{Bias, Gelu, Op, Shape};
use crate::shape;
use std::collections::BTreeSet;

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
    /// Begins with the input, named `input`.
    ///
    /// # Shapes
    /// `[channels, height, width]` or `[features]`, without the batch; a wrong one is reported by the next call.
    pub fn new(input_shape: impl Into<Shape>) -> Self {
        Self::with_input("input", input_shape.into())
    }

    pub(crate) fn with_input(name: &str, shape: Shape) -> Self {
        let input = Node { name: name.to_owned(), op: Op::Input, inputs: Vec::new(), shape };
        GraphBuilder { nodes: vec![input], names: BTreeSet::from([name.to_owned()]) }
    }

    /// The input.
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
        self.check_input()?;
        check_name(name)?;
        if self.names.contains(name) {
            return Err(Error::DuplicateName { name: name.to_owned() });
        }
        let shapes = inputs.iter().map(|&id| self.shape(id)).collect::<Result<Vec<_>>>()?;
        let shape = shape::infer(name, &op, &shapes)?;
        self.names.insert(name.to_owned());
        self.nodes.push(Node { name: name.to_owned(), op, inputs: inputs.to_vec(), shape });
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// Adds an affine map of features; `in_features` is what comes in.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn linear(&mut self, name: &str, x: NodeId, out_features: usize, bias: Bias) -> Result<NodeId> {
        let in_features = match self.shape(x)?.as_slice() {
            [n] => *n,
            other => {
                let expected = "features (flatten the image first)".to_owned();
                return Err(Error::Shape { node: name.to_owned(), op: "linear", expected, got: format!("{other:?}") });
            }
        };
        self.push(name, Op::Linear { in_features, out_features, bias: bias == Bias::On }, &[x])
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

    /// Adds a concatenation along channels or features.
    ///
    /// # Errors
    /// As [`GraphBuilder::push`].
    pub fn concat(&mut self, name: &str, inputs: &[NodeId]) -> Result<NodeId> {
        self.push(name, Op::Concat, inputs)
    }

    /// Ends with that node as the output.
    ///
    /// # Errors
    /// If a node does not lead to the output, or the whole is too large.
    pub fn finish(self, output: NodeId) -> Result<Graph> {
        self.check_input()?;
        self.shape(output)?;
        let mut leads = vec![false; self.nodes.len()];
        leads[output.0] = true;
        for (idx, node) in self.nodes.iter().enumerate().rev() {
            if !leads[idx] {
                let output = self.nodes[output.0].name.clone();
                return Err(Error::DeadNode { node: node.name.clone(), output });
            }
            for input in &node.inputs {
                leads[input.0] = true;
            }
        }
        let cost = cost::of_nodes(&self.nodes)?;
        Ok(Graph::of_checked(self.nodes, cost))
    }

    /// What [`GraphBuilder::new`] leaves open.
    fn check_input(&self) -> Result<()> {
        check_name(&self.nodes[0].name)?;
        shape::check_input(&self.nodes[0].name, &self.nodes[0].shape)
    }
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
