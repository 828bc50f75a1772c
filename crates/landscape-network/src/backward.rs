//! One node in reverse.

use crate::arena::{Arena, Slots};
use crate::attributes::{
    adaptive_shape, average_padding, concat_widths, conv2d_shape, dropout_mask, gelu, input_shape, linear_shape, norm_shape, pool_shape,
};
use crate::error::Result;
use crate::forward::Run;
use crate::norm::Norms;
use crate::plan::GradientWrite;
use crate::step::Step;
use landscape_core::{Flat, Norm};
use landscape_graph::Op;
use landscape_kernels::{Accumulate, Real, View, ViewMut, activation, batch_norm, conv2d, dropout, linear, pool, shape};

/// Where the gradients of the parameters go.
pub(crate) struct Target<'a, T> {
    /// All of them.
    pub into: &'a mut Flat<T>,
    /// Whether they replace or are added.
    pub mode: Accumulate,
}

impl<T: Real> Target<'_, T> {
    /// The places of a step's weight and bias.
    fn of(&mut self, step: &Step) -> (Option<ViewMut<'_, T>>, Option<ViewMut<'_, T>>) {
        let all = self.into.view_mut();
        match (step.weight.clone(), step.bias.clone()) {
            (Some(weight), Some(bias)) => {
                // A layout has no gaps, and a bias follows its weight.
                let (left, right) = all.split_at(bias.start);
                (Some(left.slice(weight)), Some(right.slice(0..bias.len())))
            }
            (Some(weight), None) => (Some(all.slice(weight)), None),
            (None, Some(bias)) => (None, Some(all.slice(bias))),
            (None, None) => (None, None),
        }
    }
}

impl<T: Real> Run<'_, T> {
    /// The gradient of a node's result.
    fn gradient<'s>(&self, slots: &'s Slots<T>, node: usize) -> View<'s, T> {
        slots.view(self.plan.gradient[node].expect("the plan gives every node that learns a gradient"), self.len(node))
    }

    /// Goes back through node `idx`, whose readers have been gone back through.
    pub fn backward(&self, idx: usize, norm: Norm, norms: &Norms<T>, target: &mut Target<'_, T>, arena: &mut Arena<T>) -> Result<()> {
        let step = &self.program.steps[idx];
        if !self.plan.learns[idx] {
            return Ok(());
        }
        if let Op::BatchNorm { eps, .. } = step.op {
            return self.normalize_backward(idx, eps, norm, norms, target, arena);
        }
        if step.has_parameters() {
            self.weight_gradient(idx, target, arena)?;
        }
        for (input_idx, write) in self.plan.writes[idx].iter().enumerate() {
            if let &GradientWrite::Compute(mode) = write {
                let slot = self.plan.gradient[step.inputs[input_idx]].expect("a gradient that is written has a slot");
                let mut memory = arena.slots.take(slot);
                let dx = memory.view_mut().slice(0..self.len(step.inputs[input_idx]));
                self.input_gradient(idx, input_idx, dx, mode, arena)?;
                arena.slots.put(slot, memory);
            }
        }
        Ok(())
    }

    /// The gradient of a linear layer's or a convolution's parameters.
    fn weight_gradient(&self, idx: usize, target: &mut Target<'_, T>, arena: &mut Arena<T>) -> Result<()> {
        let step = &self.program.steps[idx];
        let Arena { slots, scratch, packed_gradient, .. } = arena;
        let (x, dy, mode) = (self.activation(slots, step.inputs[0]), self.gradient(slots, idx), target.mode);
        let (dweight, dbias) = target.of(step);
        let dweight = dweight.expect("a layer with parameters has a weight");
        match conv2d_shape(self.program, step, self.n) {
            None => linear::backward_weight(&linear_shape(self.program, step, self.n), x, dy, dweight, dbias, mode)?,
            Some(shape) => {
                let mut packed = packed_gradient.view_mut().slice(0..shape.weight_len());
                conv2d::backward_weight(&shape, x, dy, packed.reborrow(), dbias, mode, scratch.view_mut())?;
                conv2d::unpack_gradient(&shape, packed.view(), dweight, mode)?;
            }
        }
        Ok(())
    }

    /// The gradient of one input, for ops that keep no statistics.
    fn input_gradient(&self, idx: usize, input_idx: usize, dx: ViewMut<'_, T>, mode: Accumulate, arena: &mut Arena<T>) -> Result<()> {
        let step = &self.program.steps[idx];
        let Arena { slots, argmax, scratch, .. } = arena;
        let (program, n) = (self.program, self.n);
        let dy = self.gradient(slots, idx);
        let x = || self.activation(slots, step.inputs[0]);
        match step.op {
            Op::Input | Op::BatchNorm { .. } => unreachable!("gone back through apart"),
            Op::Linear { .. } => {
                let weight = self.weights.weight(step).expect("a linear layer has a weight");
                linear::backward_input(&linear_shape(program, step, n), weight, dy, dx, mode)?;
            }
            Op::Conv2d { .. } => {
                let shape = conv2d_shape(program, step, n).expect("the op is a convolution");
                conv2d::backward_input(&shape, self.weights.packed.view(idx), dy, dx, mode, scratch.view_mut())?;
            }
            Op::Relu => activation::relu_backward(self.activation(slots, idx), dy, dx, mode)?,
            Op::Gelu { approximate } => activation::gelu_backward(gelu(approximate), x(), dy, dx, mode)?,
            Op::Add => pass_on(dy, dx, mode)?,
            Op::Dropout { p } => match dropout_mask(step, p, self.dropout_seed) {
                Some(mask) => dropout::backward(&mask, dy, dx, mode)?,
                None => pass_on(dy, dx, mode)?,
            },
            Op::MaxPool2d { .. } => {
                let indices = &argmax[self.plan.argmax[idx].expect("every max pooling has an index memory")];
                pool::max_backward(&pool_shape(program, step, n), indices.view().slice(0..self.len(idx)), dy, dx, mode)?;
            }
            Op::AvgPool2d { count_include_pad, .. } => {
                pool::average_backward(&pool_shape(program, step, n), average_padding(count_include_pad), dy, dx, mode)?;
            }
            Op::AdaptiveAvgPool2d { .. } | Op::GlobalAvgPool => {
                pool::adaptive_average_backward(&adaptive_shape(program, step, n), dy, dx, mode)?;
            }
            Op::Flatten => {
                let [c, h, w] = input_shape(program, step);
                shape::flatten_backward(n, c, h, w, dy, dx, mode)?;
            }
            Op::Concat => {
                let [_, h, w] = step.shape;
                shape::concat_backward(n * h * w, &concat_widths(program, step), input_idx, dy, dx, mode)?;
            }
        }
        Ok(())
    }

    /// Batch norm, through its statistics where they were the batch's.
    fn normalize_backward(
        &self,
        idx: usize,
        eps: f64,
        norm: Norm,
        norms: &Norms<T>,
        target: &mut Target<'_, T>,
        arena: &mut Arena<T>,
    ) -> Result<()> {
        let step = &self.program.steps[idx];
        let input = step.inputs[0];
        let (mean, var) = norms.used(step.norm_idx.expect("every batch norm has a number"));
        let mode = target.mode;
        let (dweight, dbias) = target.of(step);
        let GradientWrite::Compute(dx_mode) = self.plan.writes[idx][0] else {
            unreachable!("the plan gives the input of a batch norm a gradient")
        };
        let slot = self.plan.gradient[input].expect("a gradient that is written has a slot");
        let mut memory = arena.slots.take(slot);
        let dx = memory.view_mut().slice(0..self.len(input));
        let (x, dy) = (self.activation(&arena.slots, input), self.gradient(&arena.slots, idx));
        let backward = match norm {
            Norm::Batch => batch_norm::backward_batch,
            Norm::Stored => batch_norm::backward_stored,
        };
        backward(&norm_shape(step, self.n), x, mean, var, eps, self.weights.weight(step), dy, dx, dx_mode, dweight, dbias, mode)?;
        arena.slots.put(slot, memory);
        Ok(())
    }
}

/// dx = dy, or dx += dy.
fn pass_on<T: Real>(dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    match mode {
        Accumulate::Overwrite => dx.copy_from(dy)?,
        Accumulate::Add => activation::accumulate(dy, dx)?,
    }
    Ok(())
}
