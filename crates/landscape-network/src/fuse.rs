//! Which nodes run as one step, so that numbers are touched while they are in the cache, and not stored where they can be made again.
//!
//! - A convolution or linear layer takes the relu that alone reads it.
//! - *Folded* (an evaluation by stored statistics): a convolution also takes the batch norm that alone reads it, as other weights and
//!   another bias, and the sum and relu after that as the end of its own pass.
//! - *Lazy* (any pass by batch statistics, and every pass that is gone back through): a batch norm, with its relu, that only convolutions
//!   read is never stored: they apply it to what they read, and its gate and sums to the gradient that they write. Any other batch norm
//!   takes the sum and the relu that follow it into its own pass. Statistics come from the convolution before, where there is one.
//!
//! A step runs where its last node stands: by then all that its nodes read is there.

use crate::step::Program;
use landscape_graph::Op;
use landscape_kernels::activation::Activation;

/// How much is fused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fusion {
    /// Nothing: a step per node.
    None,
    /// Batch norms are part of the weights.
    Folded,
    /// Batch norms are applied by their readers.
    Lazy,
}

/// What a step does at its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// The op as it stands.
    Node,
    /// A convolution or linear layer.
    Product {
        /// The batch norm whose statistics it takes.
        statistics: Option<usize>,
    },
    /// A convolution whose weights and bias hold a batch norm.
    Folded {
        /// The batch norm.
        norm: usize,
    },
    /// A batch norm that is stored.
    Norm,
    /// A batch norm that its readers apply.
    Lazy,
}

/// Nodes that run as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FusedStep {
    /// What is done.
    pub work: Work,
    /// The node that it is done for, the first of the step's.
    pub node: usize,
    /// What is added to the result.
    pub residual: Option<usize>,
    /// What is applied at the end.
    pub activation: Activation,
    /// The node whose result it yields, the last of the step's.
    pub out: usize,
}

impl FusedStep {
    /// A node by itself.
    pub fn of_node(node: usize) -> Self {
        FusedStep { work: Work::Node, node, residual: None, activation: Activation::None, out: node }
    }

    /// The nodes whose results it reads.
    pub fn reads<'a>(&self, program: &'a Program) -> impl Iterator<Item = usize> + use<'a> {
        program.steps[self.node].inputs.iter().copied().chain(self.residual)
    }
}

/// The steps of a program, in the order in which they run.
pub(crate) fn fuse(program: &Program, fusion: Fusion) -> Vec<FusedStep> {
    if fusion == Fusion::None {
        return (0..program.steps.len()).map(FusedStep::of_node).collect();
    }
    let mut fuser = Fuser { program, readers: readers(program), taken: vec![false; program.steps.len()] };
    let mut steps: Vec<FusedStep> = Vec::new();
    for node in 0..program.steps.len() {
        if !fuser.taken[node] {
            steps.push(fuser.step(node, fusion));
        }
    }
    steps.sort_by_key(|step| step.out);
    steps
}

/// The nodes that read each node, once per time that they read it.
fn readers(program: &Program) -> Vec<Vec<usize>> {
    let mut readers = vec![Vec::new(); program.steps.len()];
    for (idx, step) in program.steps.iter().enumerate() {
        for &input in &step.inputs {
            readers[input].push(idx);
        }
    }
    readers
}

struct Fuser<'a> {
    program: &'a Program,
    readers: Vec<Vec<usize>>,
    /// Nodes that belong to the step of an earlier one.
    taken: Vec<bool>,
}

impl Fuser<'_> {
    fn op(&self, node: usize) -> &Op {
        &self.program.steps[node].op
    }

    /// Whether a node's result is wanted outside.
    fn is_output(&self, node: usize) -> bool {
        self.program.outputs.contains(&node)
    }

    /// The only reader of a node, if no step has it yet.
    fn only_reader(&self, node: usize) -> Option<usize> {
        match self.readers[node][..] {
            [reader] if !self.taken[reader] && !self.is_output(node) => Some(reader),
            _ => None,
        }
    }

    fn is_plain_sum(&self, node: usize) -> bool {
        matches!(self.op(node), Op::Add) && self.program.is_plain_sum(&self.program.steps[node])
    }

    fn is_norm(&self, node: usize) -> bool {
        matches!(self.op(node), Op::BatchNorm { .. })
    }

    /// The step that begins at `node`.
    fn step(&mut self, node: usize, fusion: Fusion) -> FusedStep {
        let mut step = FusedStep::of_node(node);
        match self.op(node) {
            Op::Conv2d { .. } | Op::Linear { .. } => {
                let is_conv = matches!(self.op(node), Op::Conv2d { .. });
                let norm = self.readers[node].iter().copied().find(|&reader| is_conv && self.is_norm(reader));
                step.work = Work::Product { statistics: norm };
                match norm {
                    None => self.take_relu(&mut step),
                    Some(norm) if fusion == Fusion::Folded => {
                        step.work = Work::Product { statistics: None };
                        if self.only_reader(node) == Some(norm) {
                            step.work = Work::Folded { norm };
                            self.taken[norm] = true;
                            step.out = norm;
                            self.take_sum(&mut step);
                            self.take_relu(&mut step);
                        }
                    }
                    Some(_) => {}
                }
            }
            Op::BatchNorm { .. } => {
                step.work = Work::Norm;
                if fusion == Fusion::Lazy && self.take_lazily(&mut step) {
                    step.work = Work::Lazy;
                } else {
                    self.take_sum(&mut step);
                    self.take_relu(&mut step);
                }
            }
            _ => {}
        }
        step
    }

    /// Takes the relu that alone reads the result.
    fn take_relu(&mut self, step: &mut FusedStep) {
        if let Some(relu) = self.only_reader(step.out).filter(|&reader| matches!(self.op(reader), Op::Relu)) {
            self.taken[relu] = true;
            step.activation = Activation::Relu;
            step.out = relu;
        }
    }

    /// Takes the sum that alone reads the result, unless it adds what the step begins with: one gradient could not be shared and read.
    fn take_sum(&mut self, step: &mut FusedStep) {
        let Some(sum) = self.only_reader(step.out).filter(|&reader| self.is_plain_sum(reader)) else {
            return;
        };
        let other = self.program.steps[sum].inputs.iter().copied().find(|&input| input != step.out);
        if let Some(other) = other.filter(|other| !self.program.steps[step.node].inputs.contains(other)) {
            self.taken[sum] = true;
            step.residual = Some(other);
            step.out = sum;
        }
    }

    /// Whether only convolutions read the batch norm, or its relu; the relu is then taken.
    fn take_lazily(&mut self, step: &mut FusedStep) -> bool {
        let before = *step;
        self.take_relu(step);
        let readers = &self.readers[step.out];
        let lazy =
            !readers.is_empty() && !self.is_output(step.out) && readers.iter().all(|&reader| matches!(self.op(reader), Op::Conv2d { .. }));
        if !lazy && before.out != step.out {
            self.taken[step.out] = false;
            *step = before;
        }
        lazy
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use landscape_core::{Buffers, ParamLayout};
    use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder};

    fn described(graph: &Graph, fusion: Fusion) -> Vec<String> {
        let program = Program::new(graph, &ParamLayout::of_graph(graph).unwrap(), &Buffers::of_graph(graph).unwrap());
        let name = |node: usize| program.steps[node].name.clone();
        let describe = |step: &FusedStep| {
            let work = match step.work {
                Work::Node => "node".to_owned(),
                Work::Product { statistics: None } => "product".to_owned(),
                Work::Product { statistics: Some(norm) } => format!("product for {}", name(norm)),
                Work::Folded { norm } => format!("folded {}", name(norm)),
                Work::Norm => "norm".to_owned(),
                Work::Lazy => "lazy".to_owned(),
            };
            let residual = step.residual.map_or(String::new(), |residual| format!(" + {}", name(residual)));
            let relu = if step.activation == Activation::Relu { " relu" } else { "" };
            format!("{work} {}{residual}{relu} -> {}", name(step.node), name(step.out))
        };
        fuse(&program, fusion).iter().map(describe).collect()
    }

    /// A block of a residual network whose shortcut stands after the main branch, and a head.
    fn block() -> Graph {
        let mut b = GraphBuilder::new([2, 4, 4]);
        let conv = |channels| Conv2d { padding: [1, 1], bias: Bias::Off, ..Conv2d::new(channels, 3) };
        let x = b.conv2d("conv1", b.input(), conv(3)).unwrap();
        let x = b.batch_norm("bn1", x).unwrap();
        let stem = b.relu("relu1", x).unwrap();
        let x = b.conv2d("conv2", stem, conv(4)).unwrap();
        let x = b.batch_norm("bn2", x).unwrap();
        let short = b.conv2d("conv3", stem, conv(4)).unwrap();
        let short = b.batch_norm("bn3", short).unwrap();
        let x = b.add("add", x, short).unwrap();
        let x = b.relu("relu2", x).unwrap();
        let x = b.flatten("flatten", x).unwrap();
        let x = b.linear("fc1", x, 5, Bias::On).unwrap();
        let x = b.relu("relu3", x).unwrap();
        let x = b.linear("fc2", x, 2, Bias::On).unwrap();
        b.finish(x).unwrap()
    }

    #[test]
    fn an_evaluation_has_no_norms_left() {
        let expected = [
            "node input -> input",
            "folded bn1 conv1 relu -> relu1",
            "folded bn3 conv3 -> bn3",
            "folded bn2 conv2 + bn3 relu -> relu2",
            "node flatten -> flatten",
            "product fc1 relu -> relu3",
            "product fc2 -> fc2",
        ];
        assert_eq!(described(&block(), Fusion::Folded), expected);
    }

    #[test]
    fn a_training_pass_stores_what_convolutions_yield_and_the_ends_of_blocks() {
        let expected = [
            "node input -> input",
            "product for bn1 conv1 -> conv1",
            "lazy bn1 relu -> relu1",
            "product for bn2 conv2 -> conv2",
            "product for bn3 conv3 -> conv3",
            "norm bn3 -> bn3",
            "norm bn2 + bn3 relu -> relu2",
            "node flatten -> flatten",
            "product fc1 relu -> relu3",
            "product fc2 -> fc2",
        ];
        assert_eq!(described(&block(), Fusion::Lazy), expected);
    }

    #[test]
    fn what_others_read_is_not_taken() {
        let mut b = GraphBuilder::new([3, 4, 4]);
        let conv = b.conv2d("conv", b.input(), Conv2d { padding: [1, 1], ..Conv2d::new(3, 3) }).unwrap();
        let norm = b.batch_norm("bn", conv).unwrap();
        let own = b.add("own", norm, conv).unwrap();
        let relu = b.relu("relu", own).unwrap();
        let again = b.batch_norm("bn2", own).unwrap();
        let twice = b.add("twice", again, again).unwrap();
        let x = b.concat("all", &[relu, twice]).unwrap();
        let x = b.flatten("flatten", x).unwrap();
        let graph = b.finish(x).unwrap();
        let norms = ["norm bn -> bn", "node own -> own", "node relu -> relu", "norm bn2 -> bn2", "node twice -> twice"];
        let rest = ["node all -> all", "node flatten -> flatten"];
        let expected = |conv| [&["node input -> input", conv], &norms[..], &rest].concat();
        assert_eq!(described(&graph, Fusion::Lazy), expected("product for bn conv -> conv"));
        assert_eq!(described(&graph, Fusion::Folded), expected("product conv -> conv"));
        assert_eq!(described(&graph, Fusion::None).len(), 9);
    }
}
