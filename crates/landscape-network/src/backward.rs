//! One step in reverse.

use crate::arena::{Arena, Slots};
use crate::attributes::{conv2d_shape, dropout_mask, linear_shape, norm_shape};
use crate::error::Result;
use crate::forward::Run;
use crate::fuse::{FusedStep, Work};
use crate::norm::Norms;
use crate::plan::{Finished, GradientWrite};
use crate::step::Step;
use landscape_core::{Flat, Norm};
use landscape_graph::Op;
use landscape_kernels::activation::Activation;
use landscape_kernels::batch_norm::{Incoming, Through};
use landscape_kernels::conv2d::{Gate, GradientEpilogue, Prologue};
use landscape_kernels::{Accumulate, Memory, Real, View, ViewMut, activation, batch_norm, conv2d, dropout, linear, reduce};

/// Where the gradients of the parameters go.
pub(crate) struct Target<'a, T> {
    /// All of them.
    pub into: &'a mut Flat<T>,
    /// Whether they replace or are added.
    pub mode: Accumulate,
}

/// Where the gradient of one step's parameters goes.
pub(crate) struct Places<'a, T> {
    pub weight: Option<ViewMut<'a, T>>,
    pub bias: Option<ViewMut<'a, T>>,
    /// Whether it replaces what is there.
    pub mode: Accumulate,
}

impl<T: Real> Target<'_, T> {
    /// The places of a step's weight and bias, and whether they are replaced: not where a later step, which shares them, has done so.
    pub fn of(&mut self, step: &Step) -> Result<Places<'_, T>> {
        let tensors = [(&step.weight, step.weight_again), (&step.bias, step.bias_again)];
        let is_added = tensors.iter().any(|(range, again)| range.is_some() && *again);
        let mode = if is_added { Accumulate::Add } else { self.mode };
        if is_added && self.mode == Accumulate::Overwrite {
            for range in tensors.iter().filter(|(_, again)| !again).filter_map(|(range, _)| range.as_ref()) {
                self.into.view_mut().slice(range.clone()).fill(T::ZERO)?;
            }
        }
        let all = self.into.view_mut();
        let (weight, bias) = match (step.weight.clone(), step.bias.clone()) {
            (Some(weight), Some(bias)) if weight.start < bias.start => {
                let (left, right) = all.split_at(bias.start);
                (Some(left.slice(weight)), Some(right.slice(0..bias.len())))
            }
            (Some(weight), Some(bias)) => {
                let (left, right) = all.split_at(weight.start);
                (Some(right.slice(0..weight.len())), Some(left.slice(bias)))
            }
            (Some(weight), None) => (Some(all.slice(weight)), None),
            (None, Some(bias)) => (None, Some(all.slice(bias))),
            (None, None) => (None, None),
        };
        Ok(Places { weight, bias, mode })
    }
}

impl<T: Real> Run<'_, T> {
    /// The gradient of a node's result.
    pub fn gradient<'s>(&self, slots: &'s Slots<T>, node: usize) -> View<'s, T> {
        slots.view(self.plan.gradient[node].expect("the plan gives every node that learns a gradient"), self.len(node))
    }

    /// Goes back through step `idx` of the plan, whose readers have been gone back through.
    pub fn backward(&self, idx: usize, norm: Norm, norms: &Norms<T>, target: &mut Target<'_, T>, arena: &mut Arena<T>) -> Result<()> {
        let fused = &self.plan.steps[idx];
        let step = &self.program.steps[fused.node];
        if !self.plan.learns[fused.out] {
            return Ok(());
        }
        match (fused.work, &step.op) {
            (Work::Node, &Op::BatchNorm { eps, .. }) => return self.normalize_backward(idx, eps, norm, norms, target, arena),
            (Work::Norm | Work::Lazy, &Op::BatchNorm { eps, .. }) => return self.norm_backward(idx, eps, norm, norms, target, arena),
            _ => {}
        }
        if fused.activation == Activation::Relu && self.plan.finished[idx] == Finished::No {
            self.gate(fused, arena)?;
        }
        match step.op {
            Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::GroupNorm { .. } => return self.row_norm_gradients(idx, target, arena),
            Op::Attention { .. } => return self.attention_gradients(idx, arena),
            Op::Parameter { .. } => return self.parameter_gradient(idx, target, arena),
            _ => {}
        }
        if step.has_parameters() {
            self.weight_gradient(idx, norms, target, arena)?;
        }
        for (input_idx, &write) in self.plan.writes[idx].iter().enumerate() {
            match write {
                GradientWrite::Skip | GradientWrite::Shared => {}
                GradientWrite::InPlace => self.input_gradient_in_place(fused, arena)?,
                GradientWrite::Compute(mode) => {
                    let slot = self.plan.gradient[step.inputs[input_idx]].expect("a gradient that is written has a slot");
                    let mut memory = arena.slots.take(slot);
                    let dx = memory.view_mut().slice(0..self.len(step.inputs[input_idx]));
                    match self.plan.finishes[idx] {
                        Some(finished) => self.finished_input_gradient(idx, finished, norms, dx, mode, arena)?,
                        None => self.input_gradient(fused, input_idx, dx, mode, arena)?,
                    }
                    arena.slots.put(slot, memory);
                }
            }
        }
        Ok(())
    }

    /// Lets the gradient of a step's result through where its relu did.
    fn gate(&self, fused: &FusedStep, arena: &mut Arena<T>) -> Result<()> {
        let slot = self.plan.gradient[fused.out].expect("the plan gives every node that learns a gradient");
        let mut memory = arena.slots.take(slot);
        let dy = memory.view_mut().slice(0..self.len(fused.out));
        activation::relu_backward_in_place(self.activation(&arena.slots, fused.out), dy)?;
        arena.slots.put(slot, memory);
        Ok(())
    }

    /// What ends the gradient of a step's result: its gate, and its sums.
    fn epilogue<'s>(
        &'s self,
        idx: usize,
        norms: &'s Norms<T>,
        slots: &'s Slots<T>,
        zeros: &'s Memory<T>,
        [sums, products]: &'s mut [Memory<f64>; 2],
    ) -> GradientEpilogue<'s, T> {
        let fused = &self.plan.steps[idx];
        let y = || self.activation(slots, fused.out);
        let gate = match (fused.work, fused.activation) {
            (_, Activation::None) => Gate::Open,
            (Work::Lazy, Activation::Relu) => {
                let Prologue { scale, shift, .. } = self.prologue(fused, norms);
                Gate::Normalized { scale, shift }
            }
            (_, Activation::Relu) => Gate::Stored { y: y() },
        };
        let (x, mean) = match fused.work {
            Work::Norm | Work::Lazy => {
                let step = &self.program.steps[fused.node];
                let x = self.activation(slots, step.inputs[0]);
                (x, norms.used(step.norm_idx.expect("every batch norm has a number")).0)
            }
            // Only the sums are wanted: they are the gradient of the bias.
            _ => (y(), zeros.view().slice(0..sums.len())),
        };
        GradientEpilogue { x, mean, gate, sums: sums.view_mut(), products: products.view_mut() }
    }

    /// The input gradient that ends with the gate of the step before it: of a convolution, with its sums as well.
    fn finished_input_gradient(
        &self,
        idx: usize,
        finished: usize,
        norms: &Norms<T>,
        dx: ViewMut<'_, T>,
        mode: Accumulate,
        arena: &mut Arena<T>,
    ) -> Result<()> {
        let fused = &self.plan.steps[idx];
        let step = &self.program.steps[fused.node];
        let dy = self.gradient(&arena.slots, fused.out);
        let Some(shape) = conv2d_shape(self.program, step, self.n) else {
            let weight = self.weights.of_linear(fused.node, step);
            let below = self.activation(&arena.slots, self.plan.steps[finished].out);
            return Ok(linear::backward_input_relu(&linear_shape(self.program, step, self.n), weight, dy, below, dx)?);
        };
        let epilogue = self.epilogue(finished, norms, &arena.slots, &arena.zeros, &mut arena.sums[finished]);
        let packed = self.weights.packed(fused.node);
        Ok(conv2d::backward_input_fused(&shape, packed, dy, dx, mode, Some(epilogue), arena.scratch.view_mut())?)
    }

    /// Batch norm with its sum and relu, in two passes of which the first may have been done.
    fn norm_backward(
        &self,
        idx: usize,
        eps: f64,
        norm: Norm,
        norms: &Norms<T>,
        target: &mut Target<'_, T>,
        arena: &mut Arena<T>,
    ) -> Result<()> {
        let fused = &self.plan.steps[idx];
        let step = &self.program.steps[fused.node];
        let shape = norm_shape(step, self.n);
        let (slot, len) = (self.plan.gradient[fused.out].expect("the plan gives every node that learns a gradient"), self.len(fused.out));
        let mut memory = arena.slots.take(slot);
        if self.plan.finished[idx] == Finished::No {
            let epilogue = self.epilogue(idx, norms, &arena.slots, &arena.zeros, &mut arena.sums[idx]);
            batch_norm::gate_and_sum(&shape, memory.view_mut().slice(0..len), epilogue)?;
        }
        let [sums, products] = &arena.sums[idx];
        let (sums, products) = (sums.view(), products.view());
        let (mean, var) = norms.used(step.norm_idx.expect("every batch norm has a number"));
        let Places { weight: dweight, bias: dbias, mode } = target.of(step)?;
        batch_norm::backward_parameters(var, eps, sums, products, dweight, dbias, mode)?;
        if let (Some(residual), Some(GradientWrite::Compute(mode))) = (fused.residual, self.plan.writes[idx].get(1)) {
            let slot = self.plan.gradient[residual].expect("a gradient that is written has a slot");
            let mut into = arena.slots.take(slot);
            pass_on(memory.view().slice(0..len), into.view_mut().slice(0..len), *mode)?;
            arena.slots.put(slot, into);
        }
        let through = match norm {
            Norm::Batch => Through::Batch,
            Norm::Stored => Through::Stored,
        };
        let input = step.inputs[0];
        let weight = self.weights.weight(step);
        let [sums, products] = &arena.sums[idx];
        let (sums, products) = (sums.view(), products.view());
        match self.plan.writes[idx][0] {
            GradientWrite::Skip => {}
            GradientWrite::InPlace => {
                let (x, dx) = (self.activation(&arena.slots, input), memory.view_mut().slice(0..len));
                batch_norm::backward_input(&shape, through, x, mean, var, eps, weight, sums, products, Incoming::InPlace, dx)?;
            }
            GradientWrite::Compute(mode) => {
                let slot = self.plan.gradient[input].expect("a gradient that is written has a slot");
                let mut into = arena.slots.take(slot);
                let (x, dx) = (self.activation(&arena.slots, input), into.view_mut().slice(0..len));
                let incoming = Incoming::From(memory.view().slice(0..len), mode);
                batch_norm::backward_input(&shape, through, x, mean, var, eps, weight, sums, products, incoming, dx)?;
                arena.slots.put(slot, into);
            }
            GradientWrite::Shared => unreachable!("a batch norm changes its gradient"),
        }
        arena.slots.put(slot, memory);
        Ok(())
    }

    /// The gradient of a layer's parameters.
    fn weight_gradient(&self, idx: usize, norms: &Norms<T>, target: &mut Target<'_, T>, arena: &mut Arena<T>) -> Result<()> {
        let fused = &self.plan.steps[idx];
        let step = &self.program.steps[fused.node];
        let Arena { slots, scratch, packed_gradient, sums, .. } = arena;
        let (x, prologue) = self.read(step.inputs[0], slots, norms);
        let dy = self.gradient(slots, fused.out);
        let Places { weight: dweight, bias: mut dbias, mode } = target.of(step)?;
        let dweight = dweight.expect("a layer with parameters has a weight");
        if self.plan.finished[idx] == Finished::Summed
            && let Some(dbias) = dbias.take()
        {
            reduce::store_sums(sums[idx][0].view(), dbias, mode)?;
        }
        match conv2d_shape(self.program, step, self.n) {
            None => self.tensor_gradient(step, x, dy, [Some(dweight), dbias], mode, packed_gradient.view_mut(), scratch.view_mut())?,
            Some(shape) => {
                let mut packed = packed_gradient.view_mut().slice(0..shape.weight_len());
                match prologue {
                    None => conv2d::backward_weight(&shape, x, dy, packed.reborrow(), dbias, mode, scratch.view_mut())?,
                    prologue => {
                        conv2d::backward_weight_fused(&shape, x, prologue, dy, packed.reborrow(), dbias, mode, scratch.view_mut())?;
                    }
                }
                conv2d::unpack_gradient(&shape, packed.view(), dweight, mode)?;
            }
        }
        Ok(())
    }

    /// The gradient of an op that changes it where it stands.
    fn input_gradient_in_place(&self, fused: &FusedStep, arena: &mut Arena<T>) -> Result<()> {
        let step = &self.program.steps[fused.node];
        let slot = self.plan.gradient[fused.out].expect("the plan gives every node that learns a gradient");
        let mut memory = arena.slots.take(slot);
        let dx = memory.view_mut().slice(0..self.len(fused.out));
        match step.op {
            Op::Relu => activation::relu_backward_in_place(self.activation(&arena.slots, fused.out), dx)?,
            Op::Dropout { p } => {
                if let Some(mask) = dropout_mask(step, p, self.dropout_seed) {
                    dropout::in_place(&mask, dx)?;
                }
            }
            _ => unreachable!("the plan lets no other op go back in place"),
        }
        arena.slots.put(slot, memory);
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
        let step = &self.program.steps[self.plan.steps[idx].node];
        let input = step.inputs[0];
        let (mean, var) = norms.used(step.norm_idx.expect("every batch norm has a number"));
        let Places { weight: dweight, bias: dbias, mode } = target.of(step)?;
        let GradientWrite::Compute(dx_mode) = self.plan.writes[idx][0] else {
            unreachable!("the plan gives the input of a batch norm a gradient")
        };
        let slot = self.plan.gradient[input].expect("a gradient that is written has a slot");
        let mut memory = arena.slots.take(slot);
        let dx = memory.view_mut().slice(0..self.len(input));
        let (x, dy) = (self.activation(&arena.slots, input), self.gradient(&arena.slots, self.plan.steps[idx].node));
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
pub(crate) fn pass_on<T: Real>(dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    match mode {
        Accumulate::Overwrite => dx.copy_from(dy)?,
        Accumulate::Add => activation::accumulate(dy, dx)?,
    }
    Ok(())
}
