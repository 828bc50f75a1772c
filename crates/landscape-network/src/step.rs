//! A graph's nodes, with everything that running them needs looked up once.

use crate::error::{Error, Result};
use landscape_core::{Buffers, ParamLayout};
use landscape_graph::{Graph, Node, Op, Role};
use landscape_kernels::Precision;
use std::ops::Range;

/// Channels, height and width of an example as the kernels see it: features are an image of one pixel.
pub(crate) fn image(shape: &[usize]) -> [usize; 3] {
    match *shape {
        [c, h, w] => [c, h, w],
        _ => [shape.iter().product(), 1, 1],
    }
}

/// One node, ready to run.
#[derive(Debug)]
pub(crate) struct Step {
    /// The op.
    pub op: Op,
    /// The name, for errors and taps.
    pub name: String,
    /// The nodes it reads.
    pub inputs: Vec<usize>,
    /// Channels, height and width of its result.
    pub shape: [usize; 3],
    /// Where its weight stands in the flat vector.
    pub weight: Option<Range<usize>>,
    /// Where its bias stands in the flat vector.
    pub bias: Option<Range<usize>>,
    /// Which batch norm it is, if it is one.
    pub norm_idx: Option<usize>,
}

impl Step {
    /// Numbers per example of the result.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it learns anything.
    pub fn has_parameters(&self) -> bool {
        self.weight.is_some() || self.bias.is_some()
    }
}

/// Where the statistics of one batch norm stand in the buffers.
#[derive(Debug)]
pub(crate) struct NormSlots {
    /// Its node.
    pub node: usize,
    /// Channels.
    pub channels: usize,
    /// The running mean.
    pub mean: Range<usize>,
    /// The running variance.
    pub var: Range<usize>,
    /// The count of batches.
    pub count: usize,
    /// The share of the newest batch.
    pub momentum: f64,
}

/// All nodes and all batch norms of a graph.
#[derive(Debug)]
pub(crate) struct Program {
    pub steps: Vec<Step>,
    pub norms: Vec<NormSlots>,
    /// In what products are computed.
    pub precision: Precision,
}

impl Program {
    /// Looks everything up.
    pub fn new(graph: &Graph, layout: &ParamLayout, buffers: &Buffers) -> Result<Self> {
        let output = graph.node(graph.output());
        if let [_, h, w] = output.shape[..]
            && h * w != 1
        {
            return Err(Error::Output { node: output.name.clone(), shape: output.shape.clone() });
        }
        let range_of = |layout: &ParamLayout, node: &Node, role: Role| layout.get(&node.tensor_name(role)).map(|spec| spec.range());
        let mut program = Program { steps: Vec::new(), norms: Vec::new(), precision: Precision::F32 };
        for (idx, node) in graph.nodes().iter().enumerate() {
            let mut norm_idx = None;
            if let Op::BatchNorm { num_features, momentum, .. } = node.op {
                let buffer = |role| range_of(buffers.layout(), node, role).expect("every batch norm declares its statistics");
                norm_idx = Some(program.norms.len());
                program.norms.push(NormSlots {
                    node: idx,
                    channels: num_features,
                    mean: buffer(Role::RunningMean),
                    var: buffer(Role::RunningVar),
                    count: buffer(Role::NumBatchesTracked).start,
                    momentum,
                });
            }
            let owns = |wanted| node.op.tensors().iter().any(|&(role, _)| role == wanted);
            program.steps.push(Step {
                op: node.op.clone(),
                name: node.name.clone(),
                inputs: node.inputs.iter().map(|id| id.0).collect(),
                shape: image(&node.shape),
                weight: owns(Role::Weight).then(|| range_of(layout, node, Role::Weight)).flatten(),
                bias: owns(Role::Bias).then(|| range_of(layout, node, Role::Bias)).flatten(),
                norm_idx,
            });
        }
        Ok(program)
    }

    /// The nodes that lead to one of `targets`, themselves included.
    pub fn ancestors(&self, targets: &[usize]) -> Vec<bool> {
        let mut needed = vec![false; self.steps.len()];
        for &target in targets {
            needed[target] = true;
        }
        for idx in (0..self.steps.len()).rev() {
            if needed[idx] {
                for &input in &self.steps[idx].inputs {
                    needed[input] = true;
                }
            }
        }
        needed
    }
}
