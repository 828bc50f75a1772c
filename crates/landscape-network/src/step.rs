//! A graph's nodes, with everything that running them needs looked up once.

use crate::lower::lower;
use crate::order::{self, Order};
use landscape_core::{Buffers, ParamLayout};
use landscape_graph::{Graph, Op};
use landscape_kernels::Precision;
use std::ops::Range;

/// Channels, height and width of an example as the kernels for images see it: signals are an image of height 1, features of one pixel.
pub(crate) fn image(shape: &[usize]) -> [usize; 3] {
    match *shape {
        [c, h, w] => [c, h, w],
        [c, len] => [c, 1, len],
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
    /// The axes of its result.
    pub dims: Vec<usize>,
    /// In which order they are stored.
    pub order: Order,
    /// Where its weight, or what it learns instead, stands in the flat vector.
    pub weight: Option<Range<usize>>,
    /// Where its bias stands in the flat vector.
    pub bias: Option<Range<usize>>,
    /// Whether the weight is also a later step's, which is gone back through before.
    pub weight_again: bool,
    /// The same of the bias.
    pub bias_again: bool,
    /// Which batch norm it is, if it is one.
    pub norm_idx: Option<usize>,
}

impl Step {
    /// Numbers per example of the result.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The lengths of its result's axes as they are stored.
    pub fn stored_dims(&self) -> Vec<usize> {
        order::stored(&self.dims, &self.order)
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

/// All steps and all batch norms of a graph.
#[derive(Debug)]
pub(crate) struct Program {
    pub steps: Vec<Step>,
    pub norms: Vec<NormSlots>,
    /// The steps whose results are the network's; the first is what is gone back from.
    pub outputs: Vec<usize>,
    /// Where in the flat vector the tensors stand that the first output does not depend on.
    pub unwritten: Vec<Range<usize>>,
    /// In what products are computed.
    pub precision: Precision,
}

impl Program {
    /// Looks everything up.
    pub fn new(graph: &Graph, layout: &ParamLayout, buffers: &Buffers) -> Self {
        lower(graph, layout, buffers)
    }

    /// The step whose result is measured.
    pub fn output(&self) -> usize {
        self.outputs[0]
    }

    /// Whether a sum repeats neither operand.
    pub fn is_plain_sum(&self, step: &Step) -> bool {
        step.inputs.iter().all(|&input| self.steps[input].n_elements() == step.n_elements())
    }

    /// Whether a step only says that the numbers before it have other axes.
    pub fn moves_nothing(&self, step: &Step) -> bool {
        let input = || &self.steps[step.inputs[0]];
        match &step.op {
            Op::Flatten => order::is_row_major(&input().dims, &input().order),
            // They are lowered so.
            Op::Reshape { .. } => true,
            Op::Permute { dims } => {
                let came_from: Order = step.order.iter().map(|&axis| dims[axis]).collect();
                order::is_same(&input().dims, &input().order, &came_from)
            }
            Op::Expand { .. } => input().n_elements() == step.n_elements(),
            _ => false,
        }
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
