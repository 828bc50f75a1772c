//! From a graph's nodes to steps: which order each result is stored in, with a copy where an op needs another one than it gets.

use crate::order::{self, Order, aligned, beside, channels_last, is_row_major, row_major};
use crate::step::{NormSlots, Program, Step, image};
use landscape_core::{Buffers, ParamLayout};
use landscape_graph::{Graph, Node, Op, Role};
use landscape_kernels::Precision;
use std::collections::BTreeMap;
use std::ops::Range;

/// The steps of a graph.
pub(crate) fn lower(graph: &Graph, layout: &ParamLayout, buffers: &Buffers) -> Program {
    let mut lowering = Lowering { layout, buffers, steps: Vec::new(), norms: Vec::new(), step_of: Vec::new(), copies: BTreeMap::new() };
    for node in graph.nodes() {
        lowering.add(node);
    }
    // The outside wants its own order.
    let outputs = graph.outputs().iter().map(|output| {
        let step = lowering.step_of[output.0];
        lowering.in_order(step, row_major(graph.node(*output).shape.len()))
    });
    let outputs: Vec<usize> = outputs.collect();
    let mut program = Program { steps: lowering.steps, norms: lowering.norms, outputs, unwritten: Vec::new(), precision: Precision::F32 };
    program.find_sharing(layout);
    program
}

struct Lowering<'a> {
    layout: &'a ParamLayout,
    buffers: &'a Buffers,
    steps: Vec<Step>,
    norms: Vec<NormSlots>,
    /// The step that yields each node's result.
    step_of: Vec<usize>,
    /// Results that were copied into another order.
    copies: BTreeMap<(usize, Order), usize>,
}

impl Lowering<'_> {
    fn add(&mut self, node: &Node) {
        let inputs: Vec<usize> = node.inputs.iter().map(|id| self.step_of[id.0]).collect();
        let (wanted, order) = {
            let reads: Vec<Read<'_>> =
                inputs.iter().map(|&step| Read { dims: &self.steps[step].dims, order: &self.steps[step].order }).collect();
            orders(node, &reads)
        };
        let inputs = inputs.into_iter().zip(wanted).map(|(step, order)| self.in_order(step, order)).collect();
        let mut norm_idx = None;
        if let Op::BatchNorm { num_features, momentum, .. } = node.op {
            let buffer = |role| self.range(self.buffers.layout(), node, role).expect("every batch norm declares its statistics");
            norm_idx = Some(self.norms.len());
            self.norms.push(NormSlots {
                node: self.steps.len(),
                channels: num_features,
                mean: buffer(Role::RunningMean),
                var: buffer(Role::RunningVar),
                count: buffer(Role::NumBatchesTracked).start,
                momentum,
            });
        }
        let of_role =
            |role| node.op.tensors().iter().any(|&(owned, _)| owned == role).then(|| self.range(self.layout, node, role)).flatten();
        let step = Step {
            op: as_image_op(&node.op),
            name: node.name.clone(),
            inputs,
            shape: image(&node.shape),
            dims: node.shape.clone(),
            order,
            weight: of_role(Role::Weight).or_else(|| of_role(Role::Parameter)),
            bias: of_role(Role::Bias),
            weight_again: false,
            bias_again: false,
            norm_idx,
        };
        self.step_of.push(self.steps.len());
        self.steps.push(step);
    }

    fn range(&self, layout: &ParamLayout, node: &Node, role: Role) -> Option<Range<usize>> {
        layout.get(&node.tensor_name(role)).map(|spec| spec.range())
    }

    /// The step whose result is that of `step` in that order.
    fn in_order(&mut self, step: usize, order: Order) -> usize {
        let Step { dims, order: own, .. } = &self.steps[step];
        if order::is_same(dims, own, &order) {
            return step;
        }
        if let Some(&copy) = self.copies.get(&(step, order.clone())) {
            return copy;
        }
        let dims = dims.clone();
        self.steps.push(Step {
            op: Op::Permute { dims: row_major(dims.len()) },
            // No tap can ask for it.
            name: String::new(),
            inputs: vec![step],
            shape: image(&dims),
            dims,
            order: order.clone(),
            weight: None,
            bias: None,
            weight_again: false,
            bias_again: false,
            norm_idx: None,
        });
        let copy = self.steps.len() - 1;
        self.copies.insert((step, order), copy);
        copy
    }
}

/// A convolution over signals is one over images of height 1.
fn as_image_op(op: &Op) -> Op {
    match *op {
        Op::Conv1d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias } => Op::Conv2d {
            in_channels,
            out_channels,
            kernel_size: [1, kernel_size],
            stride: [1, stride],
            padding: [0, padding],
            dilation: [1, dilation],
            groups,
            bias,
        },
        _ => op.clone(),
    }
}

/// What a node reads.
struct Read<'a> {
    dims: &'a [usize],
    order: &'a [usize],
}

impl Read<'_> {
    /// Its own order if the last `n_axes` stand last, as they are; else that of the axes.
    fn with_rows_of(&self, n_axes: usize) -> Order {
        let rank = self.dims.len();
        let last: Order = (rank - n_axes..rank).collect();
        if self.order.ends_with(&last) { self.order.to_vec() } else { row_major(rank) }
    }
}

/// The orders in which a node wants what it reads, and the order of its result.
fn orders(node: &Node, reads: &[Read<'_>]) -> (Vec<Order>, Order) {
    let rank = node.shape.len();
    let all = |order: Order| (vec![order.clone(); reads.len()], order);
    match &node.op {
        Op::Input { .. } if rank == 3 => (Vec::new(), channels_last(rank)),
        Op::Input { .. } | Op::Parameter { .. } | Op::Constant { .. } => (Vec::new(), row_major(rank)),
        Op::Conv2d { .. }
        | Op::Conv1d { .. }
        | Op::ConvTranspose2d { .. }
        | Op::BatchNorm { .. }
        | Op::GroupNorm { .. }
        | Op::MaxPool2d { .. }
        | Op::AvgPool2d { .. }
        | Op::AdaptiveAvgPool2d { .. }
        | Op::GlobalAvgPool
        | Op::Upsample { .. } => all(channels_last(rank)),
        Op::Linear { .. } => all(reads[0].with_rows_of(1)),
        Op::LayerNorm { normalized_shape, .. } | Op::RmsNorm { normalized_shape, .. } => all(reads[0].with_rows_of(normalized_shape.len())),
        Op::Embedding { .. } => {
            let own = reads[0].order.to_vec();
            let order = own.iter().copied().chain([rank - 1]).collect();
            (vec![own], order)
        }
        // Places before heads, as the linear layers around them have it.
        Op::Attention { .. } | Op::Rope { .. } => all(vec![1, 0, 2]),
        Op::Matmul => all(row_major(rank)),
        Op::Softmax { dim } if reads[0].order.last() != Some(dim) => all((0..rank).filter(|axis| axis != dim).chain([*dim]).collect()),
        Op::Softmax { .. }
        | Op::Relu
        | Op::Gelu { .. }
        | Op::Silu
        | Op::Sigmoid
        | Op::Hardswish
        | Op::Hardsigmoid
        | Op::Tanh
        | Op::LeakyRelu { .. }
        | Op::Hardtanh { .. }
        | Op::Elu { .. }
        | Op::Softplus
        | Op::Exp
        | Op::Affine { .. }
        | Op::Power { .. }
        | Op::Dropout { .. }
        | Op::Slice { .. }
        | Op::Concat { .. } => all(reads[0].order.to_vec()),
        Op::Add | Op::Multiply => {
            let order = match reads.iter().find(|read| read.dims == node.shape) {
                Some(whole) => whole.order.to_vec(),
                None => row_major(rank),
            };
            (reads.iter().map(|read| beside(read.dims, read.order, &order)).collect(), order)
        }
        Op::Mean { start_dim, end_dim, keepdim } => {
            let (read, n_axes) = (&reads[0], end_dim + 1 - start_dim);
            let mean_axes = |axis: usize| (*start_dim..=*end_dim).contains(&axis);
            // The axes must be neighbours in memory too.
            let first = read.order.iter().position(|&axis| mean_axes(axis)).unwrap_or(0);
            let together = read.order[first..].iter().take_while(|&&axis| mean_axes(axis)).count() == n_axes;
            let own = if together { read.order.to_vec() } else { row_major(read.dims.len()) };
            let left = |axis: usize| if axis > *end_dim { axis - n_axes } else { axis };
            let order = if *keepdim { own.clone() } else { own.iter().copied().filter(|&a| !mean_axes(a)).map(left).collect() };
            (vec![own], order)
        }
        Op::Flatten => {
            let read = &reads[0];
            let image = read.dims.len() == 3 && order::is_same(read.dims, read.order, &channels_last(3));
            (vec![if image { read.order.to_vec() } else { row_major(read.dims.len()) }], row_major(1))
        }
        Op::Reshape { shape } => {
            let read = &reads[0];
            let keeps_channels = shape[0] == read.dims[0] && order::is_same(read.dims, read.order, &channels_last(read.dims.len()));
            if keeps_channels && !is_row_major(read.dims, read.order) {
                (vec![read.order.to_vec()], channels_last(rank))
            } else {
                (vec![row_major(read.dims.len())], row_major(rank))
            }
        }
        Op::Permute { dims } => {
            let place = |axis: &usize| dims.iter().position(|dim| dim == axis).expect("a permutation has every axis");
            (vec![reads[0].order.to_vec()], reads[0].order.iter().map(place).collect())
        }
        Op::Expand { .. } => {
            let new_axes = rank - reads[0].dims.len();
            let order = (0..new_axes).chain(reads[0].order.iter().map(|axis| axis + new_axes)).collect();
            (vec![reads[0].order.to_vec()], order)
        }
    }
}

impl Program {
    /// Marks the tensors that a later step writes the gradient of first, and those that no step does.
    fn find_sharing(&mut self, layout: &ParamLayout) {
        let leads = self.ancestors(&self.outputs[..1]);
        let mut written: BTreeMap<usize, ()> = BTreeMap::new();
        for (step, _) in self.steps.iter_mut().zip(&leads).rev().filter(|(_, leads)| **leads) {
            let mut again = |range: &Option<Range<usize>>| range.as_ref().is_some_and(|range| written.insert(range.start, ()).is_some());
            step.weight_again = again(&step.weight);
            step.bias_again = again(&step.bias);
        }
        self.unwritten = layout.tensors().iter().map(|spec| spec.range()).filter(|range| !written.contains_key(&range.start)).collect();
    }
}

/// An operand's axes beside those of a sum or product, as they are stored, the batch first.
pub(crate) fn operand_dims(program: &Program, step: &Step, input: usize, n: usize) -> Vec<usize> {
    [&[n], aligned(&program.steps[input].dims, &step.order).as_slice()].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use landscape_graph::{Bias, Conv2d, GraphBuilder, NodeId};

    fn program(b: GraphBuilder, output: NodeId) -> Program {
        let graph = b.finish(output).unwrap();
        lower(&graph, &ParamLayout::of_graph(&graph).unwrap(), &Buffers::of_graph(&graph).unwrap())
    }

    fn n_copies(program: &Program) -> usize {
        program.steps.iter().filter(|step| step.name.is_empty()).count()
    }

    /// Patches as tokens, and heads apart and together again: what a vision transformer moves about.
    #[test]
    fn a_vision_transformer_copies_nothing() {
        let mut b = GraphBuilder::new([3, 8, 8]);
        let x = b.conv2d("conv_proj", b.input(), Conv2d { stride: [4, 4], ..Conv2d::new(6, 4) }).unwrap();
        let x = b.push("patches", Op::Reshape { shape: vec![6, 4] }, &[x]).unwrap();
        let x = b.push("tokens", Op::Permute { dims: vec![1, 0] }, &[x]).unwrap();
        let mut heads = |name: &str| {
            let x = b.linear(name, x, 6, Bias::On).unwrap();
            let x = b.push(&format!("{name}.split"), Op::Reshape { shape: vec![4, 2, 3] }, &[x]).unwrap();
            b.push(&format!("{name}.heads"), Op::Permute { dims: vec![1, 0, 2] }, &[x]).unwrap()
        };
        let (q, k, v) = (heads("q"), heads("k"), heads("v"));
        let x = b.push("attention", Op::Attention { causal: false, scale: 1.0 }, &[q, k, v]).unwrap();
        let x = b.push("together", Op::Permute { dims: vec![1, 0, 2] }, &[x]).unwrap();
        let x = b.push("joined", Op::Reshape { shape: vec![4, 6] }, &[x]).unwrap();
        let x = b.linear("out", x, 6, Bias::On).unwrap();
        let program = program(b, x);
        assert_eq!(n_copies(&program), 0);
        assert_eq!(program.steps[program.outputs[0]].order, [0, 1]);
    }

    #[test]
    fn an_op_that_needs_another_order_gets_one_copy_for_all_readers() {
        let mut b = GraphBuilder::new([2, 3, 4]);
        let x = b.conv2d("conv", b.input(), Conv2d::new(2, 1)).unwrap();
        let y = b.push("a", Op::Softmax { dim: 2 }, &[x]).unwrap();
        let z = b.linear("b", x, 4, Bias::Off).unwrap();
        let x = b.push("product", Op::Multiply, &[y, z]).unwrap();
        let program = program(b, x);
        // `a` reads the rows of the image; so does `b`, and their results stand alike.
        assert_eq!(n_copies(&program), 1);
        assert_eq!(program.steps[program.outputs[0]].order, [0, 1, 2]);
    }
}
