//! Which memory each activation and gradient lives in, decided once per graph.
//!
//! Idea: number the forward and reverse steps in time; every activation and gradient is a *value* that lives from the step that
//! writes it to the last one that reads it; values that do not overlap share a slot. Sizes are per example, so one plan serves all
//! batch sizes and slots only grow. Which reverse step is the first to write a gradient is known here too: it overwrites, the later
//! ones add, and nothing is ever cleared. A sum hands its gradient on to one of its inputs by sharing the slot instead of copying;
//! element-wise steps and batch norms work in the slot that they read, forward and in reverse, where nobody needs it afterwards.
//! The last step to write a gradient is known as well: a convolution gates it and adds it up for the batch norm before.

use crate::arena::Arena;
use crate::attributes::pointwise;
use crate::fuse::{FusedStep, Fusion, Work, fuse};
use crate::segments::{Segments, Visit};
use crate::step::{Program, Step};
use landscape_graph::Op;
use landscape_kernels::activation::Activation;
use landscape_kernels::{Accumulate, Real};

/// What a reverse step does to the gradient of one of the nodes that it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GradientWrite {
    /// Nothing upstream learns.
    Skip,
    /// Compute it and write or add it.
    Compute(Accumulate),
    /// Compute it where the step's own is, which nobody needs afterwards.
    InPlace,
    /// It is there already: it shares the slot of the step's own.
    Shared,
}

/// What the last step to write a gradient does to it for the step whose result's it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finished {
    /// Nothing.
    No,
    /// A linear layer has let it through the relu.
    Gated,
    /// A convolution has let it through the relu, if there is one, and added it up.
    Summed,
}

/// A place for activations and gradients.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What runs, in order.
    pub steps: Vec<FusedStep>,
    /// The slot of each node's activation; of a node that is not stored, any number.
    pub activation: Vec<usize>,
    /// The same on the way back, where activations may have been computed again.
    pub revisited: Vec<usize>,
    /// The way back, in order.
    pub visits: Vec<Visit>,
    /// Which nodes are applied by their readers, and by which step of the plan.
    pub lazy: Vec<Option<usize>>,
    /// Which nodes have parameters in them or before them; the others are not gone back through.
    pub learns: Vec<bool>,
    /// The slot of each node's gradient, where it has one.
    pub gradient: Vec<Option<usize>>,
    /// Per step and node that it reads, what the reverse step does.
    pub writes: Vec<Vec<GradientWrite>>,
    /// Per step, the earlier step whose gate, and sums, its input gradient ends with.
    pub finishes: Vec<Option<usize>>,
    /// Per step, what a later one has done to its gradient.
    pub finished: Vec<Finished>,
    /// Which index memory a max pooling writes to.
    pub argmax: Vec<Option<usize>>,
    /// Indices per example that each index memory holds.
    pub argmax_sizes: Vec<usize>,
    /// Numbers per example that each slot holds.
    pub slot_sizes: Vec<usize>,
}

/// The plans of one program.
#[derive(Debug)]
pub(crate) struct Plans {
    /// Every activation is there for a moment: for passes with taps.
    pub plain: Plan,
    /// Stored statistics.
    pub evaluation: Plan,
    /// Batch statistics, or statistics that are taken.
    pub statistics: Plan,
    /// Passes that are gone back through.
    pub training: Plan,
    /// How much of them is fused.
    pub fusion: Fusion,
}

impl Plans {
    /// With everything fused that can be.
    pub fn fused(program: &Program) -> Self {
        Plans {
            plain: Plan::forward(program, Fusion::None),
            evaluation: Plan::forward(program, Fusion::Folded),
            statistics: Plan::forward(program, Fusion::Lazy),
            training: Plan::training(program, Fusion::Lazy),
            fusion: Fusion::Lazy,
        }
    }

    /// With a step per node.
    pub fn unfused(program: &Program) -> Self {
        let forward = || Plan::forward(program, Fusion::None);
        let training = Plan::training(program, Fusion::None);
        Plans { plain: forward(), evaluation: forward(), statistics: forward(), training, fusion: Fusion::None }
    }
}

/// What a value needs: its size per example, and the first and last step that touch it.
struct Value {
    size: usize,
    first: usize,
    last: usize,
}

/// Which of the stored nodes that a step reads it needs again in reverse, and whether its own result.
pub(crate) fn reads_again(program: &Program, step: &FusedStep) -> (bool, bool) {
    let op = &program.steps[step.node].op;
    let gates = step.activation == Activation::Relu;
    match step.work {
        Work::Node => (reads_input_again(op), matches!(op, Op::Relu | Op::Softmax { .. })),
        Work::Lazy => (true, false),
        Work::Product { .. } | Work::Folded { .. } | Work::Norm => (true, gates),
    }
}

fn reads_input_again(op: &Op) -> bool {
    match op {
        Op::Linear { .. }
        | Op::Conv2d { .. }
        | Op::ConvTranspose2d { .. }
        | Op::BatchNorm { .. }
        | Op::LayerNorm { .. }
        | Op::RmsNorm { .. }
        | Op::GroupNorm { .. }
        | Op::Embedding { .. }
        | Op::Attention { .. }
        | Op::Matmul
        | Op::Multiply
        | Op::Gelu { .. } => true,
        // Its gradient is a multiple.
        Op::Affine { .. } => false,
        _ => pointwise(op).is_some(),
    }
}

/// Whether the forward step can work in the slot of what it reads first.
fn works_in_place(program: &Program, fusion: Fusion, step: &FusedStep) -> bool {
    if fusion == Fusion::None {
        return false;
    }
    let node = &program.steps[step.node];
    match node.op {
        Op::Relu | Op::Dropout { .. } => true,
        Op::Add => step.work == Work::Node && node.inputs[0] != node.inputs[1] && program.is_plain_sum(node),
        _ => program.moves_nothing(node),
    }
}

/// Whether the reverse step can: its input's gradient is a function of its own, number by number.
fn goes_back_in_place(program: &Program, fusion: Fusion, step: &FusedStep) -> bool {
    match step.work {
        Work::Norm | Work::Lazy => true,
        Work::Node if fusion == Fusion::None => false,
        Work::Node => matches!(program.steps[step.node].op, Op::Relu | Op::Dropout { .. }),
        Work::Product { .. } | Work::Folded { .. } => false,
    }
}

impl Plan {
    /// For forward passes alone: an activation lives until its last reader has run.
    pub fn forward(program: &Program, fusion: Fusion) -> Self {
        let steps = fuse(program, fusion);
        let lazy = lazy(program, &steps);
        let (value_of, _, values) = activations(program, fusion, &steps, &lazy, None);
        let (slots, slot_sizes) = assign(&values);
        let n_nodes = program.steps.len();
        // Nobody reads the indices, so all poolings write to the same memory.
        let argmax: Vec<_> = program.steps.iter().map(|s| matches!(s.op, Op::MaxPool2d { .. }).then_some(0)).collect();
        let longest = argmax_lens(program).max();
        let activation: Vec<usize> = value_of.iter().map(|value| value.map_or(0, |v| slots[v])).collect();
        Plan {
            revisited: activation.clone(),
            activation,
            visits: Vec::new(),
            lazy,
            learns: vec![false; n_nodes],
            gradient: vec![None; n_nodes],
            writes: vec![Vec::new(); steps.len()],
            finishes: vec![None; steps.len()],
            finished: vec![Finished::No; steps.len()],
            argmax,
            argmax_sizes: longest.into_iter().collect(),
            slot_sizes,
            steps,
        }
    }

    /// For a forward pass and its reverse, in whose way back nothing is computed again.
    pub fn training(program: &Program, fusion: Fusion) -> Self {
        Self::in_segments(program, fusion, 1)
    }

    /// For a forward pass and its reverse whose activations and gradients take at most `max_bytes` for `n_examples`, with as few segments
    /// as that needs; the least that any number of segments takes where it cannot be done.
    pub fn training_within<T: Real>(program: &Program, fusion: Fusion, n_examples: usize, max_bytes: usize) -> Result<Self, usize> {
        let mut least = usize::MAX;
        let mut n_segments = 1;
        while n_segments <= program.steps.len().max(1) {
            let plan = Self::in_segments(program, fusion, n_segments);
            let bytes = Arena::<T>::bytes_for(&[&plan], n_examples, 0);
            if bytes <= max_bytes {
                return Ok(plan);
            }
            least = least.min(bytes);
            n_segments += n_segments.div_ceil(4);
        }
        Err(least)
    }

    /// For a forward pass and its reverse in that many segments.
    pub fn in_segments(program: &Program, fusion: Fusion, n_segments: usize) -> Self {
        let steps = fuse(program, fusion);
        let lazy = lazy(program, &steps);
        let (n_nodes, n_steps) = (program.steps.len(), steps.len());
        let learns = learns(program);
        // Forward steps are 0..n, step n writes the gradient of the output, then comes the way back.
        let segments = Segments::new(program, &steps, &lazy, &learns, n_segments);
        let reverse = |idx: usize| segments.back[idx];
        let (activation_of, revisited_of, mut values) = activations(program, fusion, &steps, &lazy, Some((&segments, &learns)));
        let step_of = |node: usize| steps.iter().position(|step| step.out == node).expect("every node that is read is a step's result");
        let mut value_of: Vec<Option<usize>> = vec![None; n_nodes];
        let mut last_writer: Vec<Option<(usize, GradientWrite)>> = vec![None; n_nodes];
        let mut writes: Vec<Vec<GradientWrite>> = vec![Vec::new(); n_steps];
        let output = program.output();
        if learns[output] {
            value_of[output] = Some(values.len());
            values.push(Value { size: program.steps[output].n_elements(), first: n_steps, last: reverse(step_of(output)) });
        }
        for (idx, step) in steps.iter().enumerate().rev() {
            let node = &program.steps[step.node];
            let own = |value_of: &[Option<usize>]| value_of[step.out].expect("every reader that learns has written this gradient");
            let mut can_share = match (step.work, &node.op) {
                (Work::Node, Op::Add) => node.inputs[0] != node.inputs[1] && program.is_plain_sum(node),
                (Work::Node, _) if program.moves_nothing(node) => fusion != Fusion::None,
                _ => step.residual.is_some(),
            };
            let mut can_stay = goes_back_in_place(program, fusion, step);
            let mut write_to = |input: usize, can_share: bool, can_stay: bool, value_of: &mut Vec<Option<usize>>| {
                // The kernel of a batch norm by itself yields its input's gradient in any case, so that gets a place even where nobody
                // reads it.
                let wanted = learns[input] || matches!((step.work, &node.op), (Work::Node, Op::BatchNorm { .. }));
                if !(learns[step.out] && wanted) {
                    return GradientWrite::Skip;
                }
                let until = reverse(step_of(input));
                let write = if let Some(value) = value_of[input] {
                    values[value].last = values[value].last.max(until);
                    GradientWrite::Compute(Accumulate::Add)
                } else if can_share || can_stay {
                    let value = own(value_of);
                    values[value].last = values[value].last.max(until);
                    value_of[input] = Some(value);
                    if can_share { GradientWrite::Shared } else { GradientWrite::InPlace }
                } else {
                    value_of[input] = Some(values.len());
                    values.push(Value { size: program.steps[input].n_elements(), first: reverse(idx), last: until });
                    GradientWrite::Compute(Accumulate::Overwrite)
                };
                last_writer[input] = Some((idx, write));
                write
            };
            // What is added takes the gradient as it is, so the slot is its before the batch norm could work in it.
            let of_residual = step.residual.map(|residual| write_to(residual, can_share, false, &mut value_of));
            if of_residual == Some(GradientWrite::Shared) {
                can_stay = false;
            }
            can_share &= step.residual.is_none();
            for &input in &node.inputs {
                let write = write_to(input, can_share, can_stay, &mut value_of);
                can_share &= write != GradientWrite::Shared;
                writes[idx].push(write);
            }
            writes[idx].extend(of_residual);
        }
        let (mut finishes, mut finished) = (vec![None; n_steps], vec![Finished::No; n_steps]);
        for (idx, step) in steps.iter().enumerate() {
            let Some((writer, GradientWrite::Compute(mode))) = last_writer[step.out] else {
                continue;
            };
            finished[idx] = finished_by(program, &steps[writer], mode, step);
            if finished[idx] != Finished::No {
                finishes[writer] = Some(idx);
            }
        }
        let (slots, slot_sizes) = assign(&values);
        let mut n_pools = 0;
        let argmax = program.steps.iter().map(|s| {
            matches!(s.op, Op::MaxPool2d { .. }).then(|| {
                n_pools += 1;
                n_pools - 1
            })
        });
        Plan {
            argmax: argmax.collect(),
            argmax_sizes: argmax_lens(program).collect(),
            activation: activation_of.iter().map(|value| value.map_or(0, |v| slots[v])).collect(),
            revisited: revisited_of.iter().map(|value| value.map_or(0, |v| slots[v])).collect(),
            visits: segments.visits,
            lazy,
            gradient: value_of.into_iter().map(|value| value.map(|v| slots[v])).collect(),
            writes,
            finishes,
            finished,
            learns,
            slot_sizes,
            steps,
        }
    }

    /// Whether an attention's gradients are computed aside: one tensor may be read more than once, or not learn.
    pub fn goes_back_aside(&self, idx: usize) -> bool {
        self.writes[idx].iter().any(|write| *write != GradientWrite::Compute(Accumulate::Overwrite))
    }

    /// The node whose stored activation stands for `node`: itself, or what a batch norm that is applied by its readers reads.
    pub fn stored(&self, program: &Program, node: usize) -> usize {
        stored(program, &self.steps, &self.lazy, node)
    }
}

/// What `writer`, the last to write the gradient of what `step` yields, can do to it on the way.
fn finished_by(program: &Program, writer: &FusedStep, mode: Accumulate, step: &FusedStep) -> Finished {
    let gates = step.activation == Activation::Relu;
    match (step.work, writer.work, &program.steps[writer.node].op) {
        (Work::Norm | Work::Lazy, Work::Product { .. }, Op::Conv2d { .. }) => Finished::Summed,
        (Work::Product { .. }, Work::Product { .. }, Op::Conv2d { .. }) if gates => Finished::Summed,
        (Work::Product { .. }, Work::Product { .. }, Op::Linear { .. }) if gates && mode == Accumulate::Overwrite => Finished::Gated,
        _ => Finished::No,
    }
}

/// Which steps stand for nodes that are not stored.
fn lazy(program: &Program, steps: &[FusedStep]) -> Vec<Option<usize>> {
    let mut lazy = vec![None; program.steps.len()];
    for (idx, step) in steps.iter().enumerate() {
        if step.work == Work::Lazy {
            lazy[step.out] = Some(idx);
        }
    }
    lazy
}

pub(crate) fn stored(program: &Program, steps: &[FusedStep], lazy: &[Option<usize>], node: usize) -> usize {
    lazy[node].map_or(node, |idx| program.steps[steps[idx].node].inputs[0])
}

/// Indices per example of each max pooling.
fn argmax_lens(program: &Program) -> impl Iterator<Item = usize> + '_ {
    program.steps.iter().filter(|s| matches!(s.op, Op::MaxPool2d { .. })).map(Step::n_elements)
}

/// Which nodes have parameters in them or before them, and lead to what is gone back from: the others get no gradient.
fn learns(program: &Program) -> Vec<bool> {
    let leads = program.ancestors(&[program.output()]);
    let mut learns: Vec<bool> = Vec::new();
    for step in &program.steps {
        learns.push(step.has_parameters() || step.inputs.iter().any(|&input| learns[input]));
    }
    learns.iter().zip(leads).map(|(learns, leads)| *learns && leads).collect()
}

/// The activations that are stored, as values: which one is each node's on the way forward, and on the way back.
fn activations(
    program: &Program,
    fusion: Fusion,
    steps: &[FusedStep],
    lazy: &[Option<usize>],
    back: Option<(&Segments, &[bool])>,
) -> (Vec<Option<usize>>, Vec<Option<usize>>, Vec<Value>) {
    let n_nodes = program.steps.len();
    let mut maker = vec![0; n_nodes];
    steps.iter().enumerate().for_each(|(idx, step)| maker[step.out] = idx);
    let again = |idx: usize| back.and_then(|(segments, _)| segments.again[idx]);
    // When each node's activation, and the one that is computed again, is touched for the last time.
    let (mut last, mut last_again) = (vec![0; n_nodes], vec![0; n_nodes]);
    for (idx, step) in steps.iter().enumerate() {
        let (input_again, output_again) = reads_again(program, step);
        let reverse = back.and_then(|(segments, learns)| learns[step.out].then(|| segments.back[idx]));
        let mut touch = |node: usize, time: usize| {
            let of_node = if again(maker[node]).is_some() { &mut last_again[node] } else { &mut last[node] };
            *of_node = time.max(*of_node);
        };
        for input in step.reads(program) {
            let input = stored(program, steps, lazy, input);
            again(idx).into_iter().for_each(|time| touch(input, time));
            reverse.filter(|_| input_again && Some(input) != step.residual).into_iter().for_each(|time| touch(input, time));
        }
        again(idx).into_iter().for_each(|time| touch(step.out, time));
        reverse.filter(|_| output_again).into_iter().for_each(|time| touch(step.out, time));
        for node in step.reads(program).map(|input| stored(program, steps, lazy, input)).chain([step.out]) {
            last[node] = last[node].max(idx);
        }
    }
    // The outputs can be looked at afterwards.
    for &output in &program.outputs {
        last[output] = usize::MAX;
    }
    let mut values: Vec<Value> = Vec::new();
    let mut add = |step: &FusedStep, time: usize, last: &[usize], value_of: &mut Vec<Option<usize>>| {
        let in_place =
            works_in_place(program, fusion, step).then(|| program.steps[step.node].inputs[0]).filter(|&input| last[input] == time);
        let value = in_place.and_then(|input| value_of[input]).unwrap_or_else(|| {
            values.push(Value { size: program.steps[step.out].n_elements(), first: time, last: time });
            values.len() - 1
        });
        values[value].last = values[value].last.max(last[step.out]);
        value_of[step.out] = Some(value);
    };
    let is_stored = |step: &FusedStep| step.work != Work::Lazy;
    let mut value_of: Vec<Option<usize>> = vec![None; n_nodes];
    for (idx, step) in steps.iter().enumerate().filter(|(_, step)| is_stored(step)) {
        add(step, idx, &last, &mut value_of);
    }
    // Only what is computed again counts here, so that a step works in place of nothing that was kept.
    let mut recomputed: Vec<Option<usize>> = vec![None; n_nodes];
    for (idx, step) in steps.iter().enumerate().filter(|(_, step)| is_stored(step)) {
        if let Some(time) = again(idx) {
            add(step, time, &last_again, &mut recomputed);
        }
    }
    let revisited = recomputed.iter().zip(&value_of).map(|(again, first)| again.or(*first)).collect();
    (value_of, revisited, values)
}

/// Gives each value a slot that no other one alive at the same time has: the smallest that is large enough, else the largest,
/// which then grows, else a new one.
fn assign(values: &[Value]) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&v| values[v].first);
    let mut slots = vec![0; values.len()];
    let mut sizes: Vec<usize> = Vec::new();
    let mut busy_until: Vec<usize> = Vec::new();
    for v in order {
        let value = &values[v];
        let free = || (0..sizes.len()).filter(|&s| busy_until[s] < value.first);
        let fitting = free().filter(|&s| sizes[s] >= value.size).min_by_key(|&s| sizes[s]);
        let slot = fitting.or_else(|| free().max_by_key(|&s| sizes[s])).unwrap_or_else(|| {
            sizes.push(0);
            busy_until.push(0);
            sizes.len() - 1
        });
        sizes[slot] = sizes[slot].max(value.size);
        busy_until[slot] = value.last;
        slots[v] = slot;
    }
    // Largest first: so that the plans of one program, which use the same memory in turn, have their large slots in common.
    let mut by_size: Vec<usize> = (0..sizes.len()).collect();
    by_size.sort_by_key(|&slot| std::cmp::Reverse(sizes[slot]));
    let mut rank = vec![0; sizes.len()];
    by_size.iter().enumerate().for_each(|(at, &slot)| rank[slot] = at);
    (slots.into_iter().map(|slot| rank[slot]).collect(), by_size.iter().map(|&slot| sizes[slot]).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use landscape_core::{Buffers, ParamLayout};
    use landscape_graph::{Bias, Graph, GraphBuilder};
    use proptest::prelude::*;

    fn program(graph: &Graph) -> Program {
        Program::new(graph, &ParamLayout::of_graph(graph).unwrap(), &Buffers::of_graph(graph).unwrap())
    }

    proptest! {
        /// The naive twin: no two values that are alive at the same time share a slot, and every slot is large enough.
        #[test]
        fn values_alive_together_are_apart(spans in prop::collection::vec((1usize..50, 0usize..30, 0usize..12), 1..40)) {
            let values: Vec<Value> =
                spans.iter().map(|&(size, first, len)| Value { size, first, last: first + len }).collect();
            let (slots, sizes) = assign(&values);
            for (a, value) in values.iter().enumerate() {
                prop_assert!(sizes[slots[a]] >= value.size);
                for (b, other) in values.iter().enumerate().skip(a + 1) {
                    let together = value.first <= other.last && other.first <= value.last;
                    prop_assert!(!(together && slots[a] == slots[b]), "values {a} and {b} share slot {}", slots[a]);
                }
            }
        }
    }

    #[test]
    fn a_sum_hands_its_gradient_on_and_nothing_flows_to_the_input() {
        let mut b = GraphBuilder::new([4]);
        let x = b.linear("fc1", b.input(), 4, Bias::On).unwrap();
        let y = b.linear("fc2", x, 4, Bias::On).unwrap();
        let sum = b.add("add", y, x).unwrap();
        let x = b.linear("fc3", sum, 2, Bias::On).unwrap();
        let program = program(&b.finish(x).unwrap());
        let plan = Plan::training(&program, Fusion::None);
        use GradientWrite::{Compute, Shared, Skip};
        // add: to fc2 for nothing, to fc1 as the first writer; fc2 then adds to fc1; fc1 stops at the input.
        assert_eq!(plan.writes[3], [Shared, Compute(Accumulate::Overwrite)]);
        assert_eq!(plan.writes[2], [Compute(Accumulate::Add)]);
        assert_eq!(plan.writes[1], [Skip]);
        assert_eq!(plan.gradient[2], plan.gradient[3]);
        assert_ne!(plan.gradient[1], plan.gradient[3]);
        assert_eq!(plan.gradient[0], None);
    }

    #[test]
    fn a_linear_layer_gates_the_gradient_of_the_relu_that_it_alone_reads() {
        let mut b = GraphBuilder::new([4]);
        let x = b.linear("fc1", b.input(), 4, Bias::On).unwrap();
        let first = b.relu("relu1", x).unwrap();
        let x = b.linear("fc2", first, 4, Bias::On).unwrap();
        let second = b.relu("relu2", x).unwrap();
        let x = b.linear("fc3", second, 4, Bias::On).unwrap();
        // The first relu is read twice, so that the last writer of its gradient adds.
        let x = b.add("add", x, first).unwrap();
        let program = program(&b.finish(x).unwrap());
        let plan = Plan::training(&program, Fusion::Lazy);
        let described: Vec<_> = plan.steps.iter().zip(&plan.finished).map(|(step, how)| (&*program.steps[step.out].name, *how)).collect();
        let not = |name| (name, Finished::No);
        assert_eq!(described, [not("input"), not("relu1"), ("relu2", Finished::Gated), not("fc3"), not("add")]);
        assert_eq!(plan.finishes, [None, None, None, Some(2), None]);
    }

    #[test]
    fn evaluation_of_a_chain_takes_two_slots() {
        let mut b = GraphBuilder::new([8]);
        let mut x = b.input();
        for layer in 0..6 {
            x = b.linear(&format!("fc{layer}"), x, 8, Bias::On).unwrap();
            x = b.relu(&format!("relu{layer}"), x).unwrap();
        }
        let program = program(&b.finish(x).unwrap());
        assert_eq!(Plan::forward(&program, Fusion::None).slot_sizes, [8, 8]);
        // Going back needs what each layer read, which is what each relu yielded, and the input.
        assert!(Plan::training(&program, Fusion::None).slot_sizes.len() <= 10);
    }
}
