//! One step forward.

use crate::arena::{Arena, Slots};
use crate::attributes::{conv2d_shape, dropout_mask, linear_shape, norm_shape};
use crate::error::Result;
use crate::fuse::{FusedStep, Work};
use crate::norm::{NormRule, Norms, Report, check_rows};
use crate::pack::Weights;
use crate::plan::Plan;
use crate::step::{Program, Step};
use landscape_graph::Op;
use landscape_kernels::activation::Activation;
use landscape_kernels::conv2d::{Epilogue, Prologue};
use landscape_kernels::{Real, View, ViewMut, activation, batch_norm, conv2d, dropout, linear};

/// What a forward or reverse run has at hand, apart from the memory it writes to.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a, T> {
    pub program: &'a Program,
    pub plan: &'a Plan,
    pub weights: &'a Weights<T>,
    /// Examples in the batch.
    pub n: usize,
    /// The seed of the dropout masks.
    pub dropout_seed: Option<u64>,
    /// Which way it goes.
    pub way: Way,
}

/// The way a run goes through a plan's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Forward,
    /// Back, and forward again in between.
    Back,
}

impl<T: Real> Run<'_, T> {
    /// Numbers in the activation of a node.
    pub fn len(&self, node: usize) -> usize {
        self.n * self.program.steps[node].n_elements()
    }

    /// The activation of a node.
    pub fn activation<'s>(&self, slots: &'s Slots<T>, node: usize) -> View<'s, T> {
        slots.view(self.slot(node), self.len(node))
    }

    /// The slot of a node's activation.
    pub fn slot(&self, node: usize) -> usize {
        match self.way {
            Way::Forward => self.plan.activation[node],
            Way::Back => self.plan.revisited[node],
        }
    }

    /// Runs step `idx` of the plan, whose inputs have run; `needed` says which nodes run, if not all do.
    pub fn forward(
        &self,
        idx: usize,
        norms: &mut Norms<T>,
        rule: &dyn Fn(usize) -> NormRule,
        report: Report<'_, '_, T>,
        needed: Option<&[bool]>,
        arena: &mut Arena<T>,
    ) -> Result<()> {
        let fused = &self.plan.steps[idx];
        let step = &self.program.steps[fused.node];
        if fused.work == Work::Lazy {
            self.settle(fused, norms, rule, report, arena)?;
            return Ok(());
        }
        let slot = self.slot(fused.out);
        let mut memory = arena.slots.take(slot);
        let y = memory.view_mut().slice(0..self.len(fused.out));
        match (fused.work, &step.op) {
            // The executor writes it.
            (_, Op::Input { .. }) => {}
            (Work::Node, Op::BatchNorm { eps, .. }) => {
                if self.settle(fused, norms, rule, report, arena)? == Settled::Go {
                    self.normalize(step, *eps, norms, y, arena)?;
                }
            }
            (Work::Norm, _) => {
                let go = self.settle(fused, norms, rule, report, arena)? == Settled::Go;
                // A refresh ends with the statistics of the last batch norm.
                if go && needed.is_none_or(|needed| self.is_read(fused.out, needed)) {
                    self.normalize_fused(fused, norms, y, arena)?;
                }
            }
            (Work::Node, _) if self.is_in_place(fused) => self.compute_in_place(step, y, arena)?,
            (Work::Node, _) => self.compute(fused.node, step, y, arena)?,
            (Work::Product { statistics: Some(norm) }, _)
                if let Some(norm_idx) = self.program.steps[norm].norm_idx
                    && rule(norm_idx) != NormRule::Stored =>
            {
                self.multiply_for_norm(fused, step, y, norms, norm_idx, arena)?;
            }
            _ => self.multiply(fused, step, y, norms, arena)?,
        }
        arena.slots.put(slot, memory);
        Ok(())
    }

    /// Runs step `idx` once more on the way back: what batch norms took the first time holds.
    pub fn forward_again(&self, idx: usize, norms: &Norms<T>, arena: &mut Arena<T>) -> Result<()> {
        let fused = &self.plan.steps[idx];
        let step = &self.program.steps[fused.node];
        let slot = self.slot(fused.out);
        let mut memory = arena.slots.take(slot);
        let y = memory.view_mut().slice(0..self.len(fused.out));
        match (fused.work, &step.op) {
            (Work::Lazy, _) | (_, Op::Input { .. }) => unreachable!("no segment runs it again"),
            (Work::Node, Op::BatchNorm { eps, .. }) => self.normalize(step, *eps, norms, y, arena)?,
            (Work::Norm, _) => self.normalize_fused(fused, norms, y, arena)?,
            (Work::Node, _) if self.is_in_place(fused) => self.compute_in_place(step, y, arena)?,
            (Work::Node, _) => self.compute(fused.node, step, y, arena)?,
            (Work::Product { .. } | Work::Folded { .. }, _) => self.multiply(fused, step, y, norms, arena)?,
        }
        arena.slots.put(slot, memory);
        Ok(())
    }

    /// A batch norm by itself.
    fn normalize(&self, step: &Step, eps: f64, norms: &Norms<T>, y: ViewMut<'_, T>, arena: &Arena<T>) -> Result<()> {
        let (mean, var) = norms.used(step.norm_idx.expect("every batch norm has a number"));
        let (weight, bias) = (self.weights.weight(step), self.weights.bias(step));
        let x = self.activation(&arena.slots, step.inputs[0]);
        Ok(batch_norm::normalize(&norm_shape(step, self.n), x, mean, var, eps, weight, bias, y)?)
    }

    /// A batch norm with the sum and the relu that follow it.
    fn normalize_fused(&self, fused: &FusedStep, norms: &Norms<T>, y: ViewMut<'_, T>, arena: &Arena<T>) -> Result<()> {
        let step = &self.program.steps[fused.node];
        let norm = self.prologue(fused, norms);
        let residual = fused.residual.map(|node| self.activation(&arena.slots, node));
        let x = self.activation(&arena.slots, step.inputs[0]);
        Ok(batch_norm::normalize_fused(&norm_shape(step, self.n), x, &norm, residual, y)?)
    }

    /// Whether a node that runs reads the result of `node`.
    fn is_read(&self, node: usize, needed: &[bool]) -> bool {
        self.program.steps.iter().zip(needed).any(|(step, needed)| *needed && step.inputs.contains(&node))
    }

    /// Whether the result stands where the first input stood.
    fn is_in_place(&self, fused: &FusedStep) -> bool {
        let input = self.program.steps[fused.node].inputs.first();
        input.is_some_and(|&input| self.slot(fused.out) == self.slot(input))
    }

    /// The batch norm of a step as its readers, or the step itself, apply it.
    pub fn prologue<'s>(&'s self, fused: &FusedStep, norms: &'s Norms<T>) -> Prologue<'s, T> {
        let step = &self.program.steps[fused.node];
        norms.prologue(step.norm_idx.expect("every batch norm has a number"), self.weights.bias(step), fused.activation)
    }

    /// What a step reads first, and the batch norm through which it reads it.
    pub fn read<'s>(&'s self, node: usize, slots: &'s Slots<T>, norms: &'s Norms<T>) -> (View<'s, T>, Option<Prologue<'s, T>>) {
        let x = self.activation(slots, self.plan.stored(self.program, node));
        (x, self.plan.lazy[node].map(|idx| self.prologue(&self.plan.steps[idx], norms)))
    }

    /// A convolution with what follows it, which also takes the statistics of the batch norm `norm_idx`.
    fn multiply_for_norm(
        &self,
        fused: &FusedStep,
        step: &Step,
        y: ViewMut<'_, T>,
        norms: &mut Norms<T>,
        norm_idx: usize,
        arena: &mut Arena<T>,
    ) -> Result<()> {
        let Arena { slots, scratch, .. } = arena;
        let shape = conv2d_shape(self.program, step, self.n).expect("only convolutions take statistics");
        let [mut mean, mut var] = norms.take_used(norm_idx);
        let (x, prologue) = self.read(step.inputs[0], slots, norms);
        let epilogue = Epilogue::Statistics { mean: mean.view_mut(), var: var.view_mut() };
        let (packed, bias) = (self.weights.packed(fused.node), self.weights.bias(step));
        conv2d::forward_fused(&shape, x, prologue, packed, bias, y, epilogue, scratch.view_mut())?;
        norms.put_used(norm_idx, [mean, var]);
        Ok(())
    }

    /// A convolution or a linear layer with what follows it.
    fn multiply(&self, fused: &FusedStep, step: &Step, y: ViewMut<'_, T>, norms: &Norms<T>, arena: &mut Arena<T>) -> Result<()> {
        let Arena { slots, scratch, .. } = arena;
        let Some(shape) = conv2d_shape(self.program, step, self.n) else {
            let weight = self.weights.of_linear(fused.node, step);
            let x = self.activation(slots, step.inputs[0]);
            let (shape, bias) = (linear_shape(self.program, step, self.n), self.weights.bias(step));
            return Ok(linear::forward_fused(&shape, x, weight, bias, fused.activation, y)?);
        };
        let packed = self.weights.packed(fused.node);
        let (x, prologue) = self.read(step.inputs[0], slots, norms);
        let bias = match fused.work {
            Work::Folded { .. } => Some(self.weights.folded_bias(fused.node)),
            _ => self.weights.bias(step),
        };
        let residual = fused.residual.map(|node| self.activation(slots, node));
        let epilogue = match (residual, fused.activation) {
            (None, Activation::None) => Epilogue::None,
            (residual, activation) => Epilogue::Pointwise { residual, activation },
        };
        Ok(conv2d::forward_fused(&shape, x, prologue, packed, bias, y, epilogue, scratch.view_mut())?)
    }

    /// An op whose result takes the place of what it reads.
    fn compute_in_place(&self, step: &Step, y: ViewMut<'_, T>, arena: &Arena<T>) -> Result<()> {
        match step.op {
            Op::Relu => activation::relu_in_place(y),
            Op::Add => activation::accumulate(self.activation(&arena.slots, step.inputs[1]), y)?,
            Op::Dropout { p } => {
                if let Some(mask) = dropout_mask(step, p, self.dropout_seed) {
                    dropout::in_place(&mask, y)?;
                }
            }
            // It moves nothing.
            _ => {}
        }
        Ok(())
    }

    /// Takes the statistics of a batch norm that its rule says, and tells of them.
    fn settle(
        &self,
        fused: &FusedStep,
        norms: &mut Norms<T>,
        rule: &dyn Fn(usize) -> NormRule,
        report: Report<'_, '_, T>,
        arena: &Arena<T>,
    ) -> Result<Settled> {
        let step = &self.program.steps[fused.node];
        let (&Op::BatchNorm { eps, .. }, Some(norm_idx)) = (&step.op, step.norm_idx) else {
            unreachable!("only batch norms have statistics")
        };
        let slots = &self.program.norms[norm_idx];
        let n_rows = norm_shape(step, self.n).n_rows;
        let rule = rule(norm_idx);
        if matches!(rule, NormRule::Train | NormRule::Report) {
            check_rows(&step.name, n_rows)?;
        }
        if rule == NormRule::Stored {
            norms.take_stored(norm_idx, slots)?;
        } else if !self.plan.steps.iter().any(|fused| fused.work == Work::Product { statistics: Some(slots.node) }) {
            norms.take_batch(norm_idx, n_rows, self.activation(&arena.slots, step.inputs[0]))?;
        }
        match rule {
            NormRule::Train => norms.update_running(norm_idx, n_rows, slots)?,
            NormRule::Report | NormRule::Measure => report(&norms.taken(norm_idx, n_rows)),
            NormRule::Stored => {}
        }
        if rule == NormRule::Measure {
            return Ok(Settled::Done);
        }
        if fused.work != Work::Node {
            norms.update_scale(norm_idx, eps, self.weights.weight(step))?;
        }
        Ok(Settled::Go)
    }
}

/// Whether a batch norm is to normalise now that its statistics are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    Go,
    Done,
}
