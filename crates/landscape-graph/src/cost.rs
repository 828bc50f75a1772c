//! What a network costs: parameters, operations, bytes.

use crate::error::{Error, Result};
use crate::graph::{Node, NodeId};
use crate::op::Op;
use crate::shape::MAX_ELEMENTS;

/// What a network, or one node of it, costs per example.
///
/// Floating-point operations follow the literature: a multiply-add counts two, and only linear maps and convolutions count
/// (without their bias); batch norm, activations and pooling are not in it.
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

/// The cost of one node, `None` if it overflows.
pub(crate) fn of_node(node: &Node) -> Option<Cost> {
    let n_elements = node.n_elements() as u64;
    let macs_per_element = match node.op {
        Op::Linear { in_features, .. } => in_features as u64,
        Op::Conv2d { in_channels, kernel_size: [h, w], groups, .. } => {
            [h, w].iter().try_fold((in_channels / groups) as u64, |n, &d| n.checked_mul(d as u64))?
        }
        _ => 0,
    };
    let forward_macs = n_elements.checked_mul(macs_per_element)?;
    let passes = if node.inputs == [NodeId(0)] { 2 } else { 3 };
    let mut cost = Cost {
        n_activations: n_elements,
        forward_macs,
        forward_flops: forward_macs.checked_mul(2)?,
        training_flops: forward_macs.checked_mul(2 * passes)?,
        ..Cost::default()
    };
    for (role, shape) in node.op.tensors() {
        let n_elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))?;
        let total = if role.is_parameter() { &mut cost.n_parameters } else { &mut cost.n_buffers };
        *total = total.checked_add(n_elements)?;
    }
    Some(cost)
}

/// The cost of all nodes together.
///
/// # Errors
/// Names the node at which it grows beyond any machine.
pub(crate) fn of_nodes(nodes: &[Node]) -> Result<Cost> {
    nodes.iter().try_fold(Cost::default(), |total, node| {
        of_node(node).and_then(|cost| total.checked_add(&cost)).ok_or_else(|| Error::TooLarge {
            node: node.name.clone(),
            what: "the network up to here",
            limit: MAX_ELEMENTS,
        })
    })
}
