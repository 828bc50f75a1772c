//! What a network costs: parameters, operations, bytes.

use crate::error::{Error, Result};
use crate::graph::{Node, TensorDecl};
use crate::op::{Op, Shape};
use crate::shape::MAX_ELEMENTS;

/// What a network, or one node of it, costs per example.
///
/// Floating-point operations follow the literature: a multiply-add counts two, and only linear maps, convolutions and the products of
/// matrices, those in attention included, count (without biases); norms, activations and pooling are not in it. A causal attention
/// counts as one that sees everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Numbers that are learned.
    pub n_parameters: u64,
    /// Numbers that are statistics.
    pub n_buffers: u64,
    /// Numbers that come out of all nodes together, the input included.
    pub n_activations: u64,
    /// Multiply-adds of the forward pass.
    pub forward_macs: u64,
    /// Operations of the forward pass: twice the multiply-adds.
    pub forward_flops: u64,
    /// Operations of forward and backward pass: a layer that reads the input itself needs no gradient of what it reads and costs
    /// twice its forward pass, every other layer three times.
    pub training_flops: u64,
}

impl Cost {
    /// The bytes of the weights for numbers of that size.
    pub fn weight_bytes(&self, scalar_bytes: u64) -> u64 {
        self.n_parameters * scalar_bytes
    }

    /// The bytes of all activations of one example for numbers of that size, if none shares its memory.
    pub fn activation_bytes(&self, scalar_bytes: u64) -> u64 {
        self.n_activations * scalar_bytes
    }

    fn checked_add(&self, other: &Cost) -> Option<Cost> {
        Some(Cost {
            n_parameters: self.n_parameters.checked_add(other.n_parameters).filter(|&n| n <= MAX_ELEMENTS)?,
            n_buffers: self.n_buffers.checked_add(other.n_buffers).filter(|&n| n <= MAX_ELEMENTS)?,
            n_activations: self.n_activations.checked_add(other.n_activations).filter(|&n| n <= MAX_ELEMENTS)?,
            forward_macs: self.forward_macs.checked_add(other.forward_macs)?,
            forward_flops: self.forward_flops.checked_add(other.forward_flops)?,
            training_flops: self.training_flops.checked_add(other.training_flops)?,
        })
    }
}

/// Multiply-adds of one node, `None` if they overflow.
fn forward_macs(node: &Node, inputs: &[&Shape]) -> Option<u64> {
    let product = |factors: &[usize]| factors.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
    let n_elements = node.n_elements();
    match node.op {
        Op::Linear { in_features, .. } => product(&[n_elements, in_features]),
        Op::Conv2d { in_channels, kernel_size: [h, w], groups, .. } => product(&[n_elements, in_channels / groups, h, w]),
        Op::Conv1d { in_channels, kernel_size, groups, .. } => product(&[n_elements, in_channels / groups, kernel_size]),
        // Each number that comes in is multiplied by the weights of its group.
        Op::ConvTranspose2d { out_channels, kernel_size: [h, w], groups, .. } => {
            product(&[inputs[0].iter().product(), out_channels / groups, h, w])
        }
        Op::Matmul => product(&[n_elements, *inputs[0].last()?]),
        Op::Attention { .. } => {
            let [heads, q_len, head_dim] = <[usize; 3]>::try_from(inputs[0].as_slice()).ok()?;
            let [_, kv_len, v_dim] = <[usize; 3]>::try_from(inputs[2].as_slice()).ok()?;
            product(&[heads, q_len, kv_len, head_dim.checked_add(v_dim)?])
        }
        _ => Some(0),
    }
}

/// The cost of one node of `nodes` without its tensors, `None` if it overflows.
fn of_run(nodes: &[Node], node: &Node) -> Option<Cost> {
    let inputs: Vec<&Shape> = node.inputs.iter().map(|input| &nodes[input.0].shape).collect();
    let forward_macs = forward_macs(node, &inputs)?;
    let reads_input = !node.inputs.is_empty() && node.inputs.iter().all(|input| matches!(nodes[input.0].op, Op::Input { .. }));
    let passes = if reads_input { 2 } else { 3 };
    Some(Cost {
        n_activations: node.n_elements() as u64,
        forward_macs,
        forward_flops: forward_macs.checked_mul(2)?,
        training_flops: forward_macs.checked_mul(2 * passes)?,
        ..Cost::default()
    })
}

/// The cost of one node with the tensors that it is the first to name, `None` if it overflows.
pub(crate) fn of_node(nodes: &[Node], idx: usize, tensors: &[TensorDecl]) -> Option<Cost> {
    let mut cost = of_run(nodes, &nodes[idx])?;
    for tensor in tensors.iter().filter(|tensor| tensor.node.0 == idx) {
        let n_elements = tensor.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))?;
        let total = if tensor.role.is_parameter() { &mut cost.n_parameters } else { &mut cost.n_buffers };
        *total = total.checked_add(n_elements)?;
    }
    Some(cost)
}

/// The cost of all nodes together.
///
/// # Errors
/// Names the node at which it grows beyond any machine.
pub(crate) fn of_nodes(nodes: &[Node], tensors: &[TensorDecl]) -> Result<Cost> {
    nodes.iter().enumerate().try_fold(Cost::default(), |total, (idx, node)| {
        of_node(nodes, idx, tensors).and_then(|cost| total.checked_add(&cost)).ok_or_else(|| Error::TooLarge {
            node: node.name.clone(),
            what: "the network up to here",
            limit: MAX_ELEMENTS,
        })
    })
}
