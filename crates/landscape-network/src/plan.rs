//! Which memory each activation and gradient lives in, decided once per graph.
//!
//! Idea: number the forward and reverse steps in time; every activation and gradient is a *value* that lives from the step that
//! writes it to the last one that reads it; values that do not overlap share a slot. Sizes are per example, so one plan serves all
//! batch sizes and slots only grow. Which reverse step is the first to write a gradient is known here too: it overwrites, the later
//! ones add, and nothing is ever cleared. A sum hands its gradient on to one of its inputs by sharing the slot instead of copying.

use crate::step::{Program, Step};
use landscape_graph::Op;
use landscape_kernels::Accumulate;

/// What a reverse step does to the gradient of one of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GradientWrite {
    /// Nothing upstream learns.
    Skip,
    /// Compute it and write or add it.
    Compute(Accumulate),
    /// It is there already: the input's gradient shares the slot of the step's own.
    Shared,
}

/// A place for activations and gradients.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The slot of each node's activation.
    pub activation: Vec<usize>,
    /// Which nodes have parameters in them or before them; the others are not gone back through.
    pub learns: Vec<bool>,
    /// The slot of each node's gradient, where it has one.
    pub gradient: Vec<Option<usize>>,
    /// Per node and input, what the reverse step does.
    pub writes: Vec<Vec<GradientWrite>>,
    /// Which index memory a max pooling writes to.
    pub argmax: Vec<Option<usize>>,
    /// Indices per example that each index memory holds.
    pub argmax_sizes: Vec<usize>,
    /// Numbers per example that each slot holds.
    pub slot_sizes: Vec<usize>,
}

/// What a value needs: its size per example, and the first and last step that touch it.
struct Value {
    size: usize,
    first: usize,
    last: usize,
}

/// What the reverse step of an op reads of the forward pass.
fn reads_input(op: &Op) -> bool {
    matches!(op, Op::Linear { .. } | Op::Conv2d { .. } | Op::BatchNorm { .. } | Op::Gelu { .. })
}

fn reads_output(op: &Op) -> bool {
    matches!(op, Op::Relu)
}

impl Plan {
    /// For forward passes alone: an activation lives until its last reader has run.
    pub fn evaluation(program: &Program) -> Self {
        let n_nodes = program.steps.len();
        let values = activations(program, |_| None);
        let (activation, slot_sizes) = assign(&values);
        // Nobody reads the indices, so all poolings write to the same memory.
        let argmax: Vec<_> = program.steps.iter().map(|s| matches!(s.op, Op::MaxPool2d { .. }).then_some(0)).collect();
        let longest = argmax_lens(program).max();
        let argmax_sizes = longest.into_iter().collect();
        Plan {
            activation,
            learns: vec![false; n_nodes],
            gradient: vec![None; n_nodes],
            writes: vec![Vec::new(); n_nodes],
            argmax,
            argmax_sizes,
            slot_sizes,
        }
    }

    /// For a forward pass and its reverse.
    pub fn training(program: &Program) -> Self {
        let n_nodes = program.steps.len();
        // Forward steps are 0..n, step n writes the gradient of the output, then come the reverse steps.
        let reverse = |idx: usize| 2 * n_nodes - idx;
        let learns = learns(program);
        let mut values = activations(program, |idx| learns[idx].then(|| reverse(idx)));
        let mut value_of: Vec<Option<usize>> = vec![None; n_nodes];
        let mut writes: Vec<Vec<GradientWrite>> = vec![Vec::new(); n_nodes];
        if learns[n_nodes - 1] {
            value_of[n_nodes - 1] = Some(values.len());
            values.push(Value { size: program.steps[n_nodes - 1].n_elements(), first: n_nodes, last: reverse(n_nodes - 1) });
        }
        for idx in (0..n_nodes).rev() {
            let step = &program.steps[idx];
            let mut can_share = matches!(step.op, Op::Add) && step.inputs[0] != step.inputs[1];
            for &input in &step.inputs {
                // The kernel of batch norm yields its input's gradient in any case, so that gets a place even where nobody reads it.
                let wanted = learns[input] || matches!(step.op, Op::BatchNorm { .. });
                let write = if !(learns[idx] && wanted) {
                    GradientWrite::Skip
                } else if let Some(value) = value_of[input] {
                    values[value].last = values[value].last.max(reverse(input));
                    GradientWrite::Compute(Accumulate::Add)
                } else if can_share {
                    can_share = false;
                    let value = value_of[idx].expect("every reader that learns has written this gradient");
                    values[value].last = reverse(input);
                    value_of[input] = Some(value);
                    GradientWrite::Shared
                } else {
                    value_of[input] = Some(values.len());
                    values.push(Value { size: program.steps[input].n_elements(), first: reverse(idx), last: reverse(input) });
                    GradientWrite::Compute(Accumulate::Overwrite)
                };
                writes[idx].push(write);
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
            activation: slots[..n_nodes].to_vec(),
            gradient: value_of.into_iter().map(|value| value.map(|v| slots[v])).collect(),
            writes,
            learns,
            slot_sizes,
        }
    }
}

/// Indices per example of each max pooling.
fn argmax_lens(program: &Program) -> impl Iterator<Item = usize> + '_ {
    program.steps.iter().filter(|s| matches!(s.op, Op::MaxPool2d { .. })).map(Step::n_elements)
}

/// Which nodes have parameters in them or before them: the others get no gradient.
fn learns(program: &Program) -> Vec<bool> {
    let mut learns: Vec<bool> = Vec::new();
    for step in &program.steps {
        learns.push(step.has_parameters() || step.inputs.iter().any(|&input| learns[input]));
    }
    learns
}

/// The activations as values; `reverse` gives the time of a node's reverse step, if it has one.
fn activations(program: &Program, reverse: impl Fn(usize) -> Option<usize>) -> Vec<Value> {
    let mut values: Vec<Value> =
        program.steps.iter().enumerate().map(|(idx, s)| Value { size: s.n_elements(), first: idx, last: idx }).collect();
    for (idx, step) in program.steps.iter().enumerate() {
        for &input in &step.inputs {
            values[input].last = values[input].last.max(idx);
            if let Some(time) = reverse(idx).filter(|_| reads_input(&step.op)) {
                values[input].last = values[input].last.max(time);
            }
        }
        if let Some(time) = reverse(idx).filter(|_| reads_output(&step.op)) {
            values[idx].last = values[idx].last.max(time);
        }
    }
    // The output can be looked at afterwards.
    if let Some(output) = values.last_mut() {
        output.last = usize::MAX;
    }
    values
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
    (slots, sizes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use landscape_core::{Buffers, ParamLayout};
    use landscape_graph::{Bias, Graph, GraphBuilder};
    use proptest::prelude::*;

    fn program(graph: &Graph) -> Program {
        Program::new(graph, &ParamLayout::of_graph(graph).unwrap(), &Buffers::of_graph(graph).unwrap()).unwrap()
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
        let plan = Plan::training(&program);
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
    fn evaluation_of_a_chain_takes_two_slots() {
        let mut b = GraphBuilder::new([8]);
        let mut x = b.input();
        for layer in 0..6 {
            x = b.linear(&format!("fc{layer}"), x, 8, Bias::On).unwrap();
            x = b.relu(&format!("relu{layer}"), x).unwrap();
        }
        let program = program(&b.finish(x).unwrap());
        assert_eq!(Plan::evaluation(&program).slot_sizes, [8, 8]);
        // Going back needs what each layer read, which is what each relu yielded, and the input.
        assert!(Plan::training(&program).slot_sizes.len() <= 10);
    }
}
