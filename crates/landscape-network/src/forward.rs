//! One node forward.

use crate::arena::{Arena, Slots};
use crate::attributes::{
    adaptive_shape, average_padding, concat_widths, conv2d_shape, dropout_mask, gelu, input_shape, linear_shape, norm_shape, pool_shape,
};
use crate::error::Result;
use crate::norm::{NormRule, Norms, Report, check_rows};
use crate::pack::Weights;
use crate::plan::Plan;
use crate::step::{Program, Step};
use landscape_graph::Op;
use landscape_kernels::{Real, View, ViewMut, activation, batch_norm, conv2d, dropout, linear, pool, shape};

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
}

impl<T: Real> Run<'_, T> {
    /// Numbers in the activation of a node.
    pub fn len(&self, node: usize) -> usize {
        self.n * self.program.steps[node].n_elements()
    }

    /// The activation of a node.
    pub fn activation<'s>(&self, slots: &'s Slots<T>, node: usize) -> View<'s, T> {
        slots.view(self.plan.activation[node], self.len(node))
    }

    /// Runs node `idx`, whose inputs have run.
    pub fn forward(&self, idx: usize, norms: &mut Norms<T>, rule: NormRule, report: Report<'_, '_, T>, arena: &mut Arena<T>) -> Result<()> {
        let step = &self.program.steps[idx];
        let mut memory = arena.slots.take(self.plan.activation[idx]);
        let y = memory.view_mut().slice(0..self.len(idx));
        match step.op {
            // The executor writes it.
            Op::Input => {}
            Op::BatchNorm { eps, .. } => {
                let x = self.activation(&arena.slots, step.inputs[0]);
                self.normalize(step, eps, x, y, norms, rule, report)?;
            }
            _ => self.compute(idx, step, y, arena)?,
        }
        arena.slots.put(self.plan.activation[idx], memory);
        Ok(())
    }

    /// The ops that keep no statistics.
    fn compute(&self, idx: usize, step: &Step, y: ViewMut<'_, T>, arena: &mut Arena<T>) -> Result<()> {
        let Arena { slots, argmax, scratch, .. } = arena;
        let (program, n) = (self.program, self.n);
        let x = self.activation(slots, step.inputs[0]);
        match step.op {
            Op::Input | Op::BatchNorm { .. } => unreachable!("run apart"),
            Op::Linear { .. } => {
                let weight = self.weights.weight(step).expect("a linear layer has a weight");
                linear::forward(&linear_shape(program, step, n), x, weight, self.weights.bias(step), y)?;
            }
            Op::Conv2d { .. } => {
                let shape = conv2d_shape(program, step, n).expect("the op is a convolution");
                conv2d::forward(&shape, x, self.weights.packed.view(idx), self.weights.bias(step), y, scratch.view_mut())?;
            }
            Op::Relu => activation::relu_forward(x, y)?,
            Op::Gelu { approximate } => activation::gelu_forward(gelu(approximate), x, y)?,
            Op::Add => activation::add(x, self.activation(slots, step.inputs[1]), y)?,
            Op::Dropout { p } => match dropout_mask(step, p, self.dropout_seed) {
                Some(mask) => dropout::forward(&mask, x, y)?,
                None => y.copy_from(x)?,
            },
            Op::MaxPool2d { .. } => {
                let indices = &mut argmax[self.plan.argmax[idx].expect("every max pooling has an index memory")];
                pool::max_forward(&pool_shape(program, step, n), x, y, indices.view_mut().slice(0..self.len(idx)))?;
            }
            Op::AvgPool2d { count_include_pad, .. } => {
                pool::average_forward(&pool_shape(program, step, n), average_padding(count_include_pad), x, y)?;
            }
            Op::AdaptiveAvgPool2d { .. } | Op::GlobalAvgPool => pool::adaptive_average_forward(&adaptive_shape(program, step, n), x, y)?,
            Op::Flatten => {
                let [c, h, w] = input_shape(program, step);
                shape::flatten_forward(n, c, h, w, x, y)?;
            }
            Op::Concat => {
                let [_, h, w] = step.shape;
                let inputs: Vec<_> = step.inputs.iter().map(|&input| self.activation(slots, input)).collect();
                shape::concat_forward(n * h * w, &concat_widths(program, step), &inputs, y)?;
            }
        }
        Ok(())
    }

    /// Batch norm, by the statistics that `rule` says.
    #[allow(clippy::too_many_arguments)]
    fn normalize(
        &self,
        step: &Step,
        eps: f64,
        x: View<'_, T>,
        y: ViewMut<'_, T>,
        norms: &mut Norms<T>,
        rule: NormRule,
        report: Report<'_, '_, T>,
    ) -> Result<()> {
        let norm_idx = step.norm_idx.expect("every batch norm has a number");
        let slots = &self.program.norms[norm_idx];
        let shape = norm_shape(step, self.n);
        match rule {
            NormRule::Stored => norms.take_stored(norm_idx, slots),
            NormRule::Train => {
                check_rows(&step.name, shape.n_rows)?;
                norms.take_batch(norm_idx, shape.n_rows, x)?;
                norms.update_running(norm_idx, shape.n_rows, slots);
            }
            NormRule::Report => {
                check_rows(&step.name, shape.n_rows)?;
                report(&norms.take_batch(norm_idx, shape.n_rows, x)?);
            }
            NormRule::Measure => {
                report(&norms.take_batch(norm_idx, shape.n_rows, x)?);
                return Ok(());
            }
        }
        let (mean, var) = norms.used(norm_idx);
        Ok(batch_norm::normalize(&shape, x, mean, var, eps, self.weights.weight(step), self.weights.bias(step), y)?)
    }
}
