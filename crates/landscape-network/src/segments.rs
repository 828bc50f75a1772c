//! Which activations are dropped on the way forward and computed again on the way back, for networks too deep for the memory.
//!
//! Idea (Chen et al. 2016, "Training deep nets with sublinear memory cost"): the steps are cut into segments. What a later segment reads is
//! kept, the rest of a segment lives no longer than its forward steps need it. On the way back, before the steps of a segment are gone back
//! through, those of its forward steps run again whose results are needed there. The last segment never does: the way back begins in it.
//! Statistics that a batch norm took, maxima that a pooling found and dropout's masks are the same the second time, so the
//! gradient has the same bits.

use crate::fuse::{FusedStep, Work};
use crate::plan::{reads_again, stored};
use crate::step::Program;
use landscape_graph::Op;

/// What the way back does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Runs a step forward once more.
    Again(usize),
    /// Goes back through a step.
    Back(usize),
}

/// The way back through a plan's steps.
#[derive(Debug)]
pub(crate) struct Segments {
    /// What it does, in order.
    pub visits: Vec<Visit>,
    /// When each step runs again, if it does; forward steps have the times 0..n, and n is when the gradient of the output comes.
    pub again: Vec<Option<usize>>,
    /// When each step is gone back through.
    pub back: Vec<usize>,
}

impl Segments {
    /// Cuts `steps` into at most `n_segments` of about as many numbers each; `learns` says which nodes get a gradient.
    pub fn new(program: &Program, steps: &[FusedStep], lazy: &[Option<usize>], learns: &[bool], n_segments: usize) -> Self {
        let segment = cut(program, steps, n_segments);
        let n_steps = steps.len();
        let mut maker = vec![0; program.steps.len()];
        steps.iter().enumerate().for_each(|(idx, step)| maker[step.out] = idx);
        let inputs = |step: &FusedStep| -> Vec<usize> { step.reads(program).map(|input| stored(program, steps, lazy, input)).collect() };
        // What outlives its segment.
        let mut kept = vec![false; program.steps.len()];
        program.outputs.iter().for_each(|&output| kept[output] = true);
        for (idx, step) in steps.iter().enumerate() {
            kept[step.out] |= matches!(program.steps[step.node].op, Op::Input { .. });
            for input in inputs(step).into_iter().filter(|&input| segment[maker[input]] != segment[idx]) {
                kept[input] = true;
                // The step that writes its gradient may end it with the sums of the batch norm that yields it, which need what that read.
                let below = &steps[maker[input]];
                if below.work == Work::Norm {
                    kept[stored(program, steps, lazy, program.steps[below.node].inputs[0])] = true;
                }
            }
        }
        let mut is_again = vec![false; n_steps];
        let last = segment.last().copied().unwrap_or(0);
        for (idx, step) in steps.iter().enumerate().rev().filter(|&(idx, _)| segment[idx] != last) {
            let (input_again, output_again) = if learns[step.out] { reads_again(program, step) } else { (false, false) };
            is_again[idx] |= output_again && !kept[step.out];
            let runs_again = is_again[idx];
            for input in inputs(step).into_iter().filter(|&input| !kept[input]) {
                is_again[maker[input]] |= runs_again || (input_again && Some(input) != step.residual);
            }
        }
        let (mut visits, mut again, mut back) = (Vec::new(), vec![None; n_steps], vec![0; n_steps]);
        for number in (0..=last).rev() {
            let members = || (0..n_steps).filter(|&idx| segment[idx] == number);
            for idx in members().filter(|&idx| is_again[idx]) {
                again[idx] = Some(n_steps + 1 + visits.len());
                visits.push(Visit::Again(idx));
            }
            for idx in members().collect::<Vec<_>>().into_iter().rev() {
                back[idx] = n_steps + 1 + visits.len();
                visits.push(Visit::Back(idx));
            }
        }
        Segments { visits, again, back }
    }
}

/// The segment of each step.
fn cut(program: &Program, steps: &[FusedStep], n_segments: usize) -> Vec<usize> {
    let sizes = || steps.iter().map(|step| if step.work == Work::Lazy { 0 } else { program.steps[step.out].n_elements() });
    let total: usize = sizes().sum::<usize>().max(1);
    let (mut before, mut segment, mut number) = (0, Vec::with_capacity(steps.len()), 0);
    let mut highest = 0;
    for size in sizes() {
        // Numbers without gaps, so that no segment is empty.
        let place = before * n_segments / total;
        if place > highest {
            (highest, number) = (place, number + 1);
        }
        segment.push(number);
        before += size;
    }
    segment
}
