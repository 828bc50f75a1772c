//! One step in reverse: the ops that keep no statistics.

use crate::arena::Arena;
use crate::attributes::{
    adaptive_shape, attention_shape, average_padding, broadcast_shape, concat_rows, conv2d_shape, dropout_mask, embedding_shape,
    expand_shape, gelu, group_norm_shape, input_shape, linear_shape, matmul_shape, mean_axes, permutation, pointwise, pool_shape,
    rope_shape, row_norm_shape, slice_shape, transposed_shape, transposed_weight, upsample_shape,
};
use crate::backward::{Places, Target, pass_on};
use crate::error::Result;
use crate::forward::Run;
use crate::fuse::FusedStep;
use crate::plan::GradientWrite;
use crate::step::Step;
use landscape_graph::Op;
use landscape_kernels::broadcast::Side;
use landscape_kernels::{
    Accumulate, Real, View, ViewMut, activation, attention, broadcast, conv2d, dropout, embedding, group_norm, layer_norm, linear, matmul,
    pool, rms_norm, rope, shape, softmax, upsample,
};

impl<T: Real> Run<'_, T> {
    /// The gradient of one input.
    pub fn input_gradient(
        &self,
        fused: &FusedStep,
        input_idx: usize,
        dx: ViewMut<'_, T>,
        mode: Accumulate,
        arena: &mut Arena<T>,
    ) -> Result<()> {
        let idx = fused.node;
        let step = &self.program.steps[idx];
        let Arena { slots, argmax, scratch, .. } = arena;
        let (program, n) = (self.program, self.n);
        let dy = self.gradient(slots, fused.out);
        let read = |input: usize| self.activation(slots, step.inputs[input]);
        let side = if input_idx == 0 { Side::A } else { Side::B };
        match step.op {
            Op::Input { .. } | Op::BatchNorm { .. } | Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::GroupNorm { .. } => {
                unreachable!("gone back through apart")
            }
            Op::Attention { .. } => unreachable!("gone back through apart"),
            Op::Conv1d { .. } => unreachable!("lowered to a convolution over images"),
            Op::Embedding { .. } | Op::Parameter { .. } | Op::Constant { .. } => unreachable!("it reads nothing that learns"),
            Op::Linear { .. } => {
                linear::backward_input(&linear_shape(program, step, n), self.weights.of_linear(idx, step), dy, dx, mode)?;
            }
            Op::Conv2d { .. } => {
                let shape = conv2d_shape(program, step, n).expect("the op is a convolution");
                conv2d::backward_input(&shape, self.weights.packed(idx), dy, dx, mode, scratch.view_mut())?;
            }
            Op::ConvTranspose2d { .. } => {
                let conv = transposed_shape(program, step, n).expect("the op is a transposed convolution");
                let (conv_len, len) = (conv.scratch_len(), dx.len());
                let (work, sum) = scratch.view_mut().split_at(conv_len);
                match mode {
                    Accumulate::Overwrite => conv2d::forward(&conv, dy, self.weights.packed(idx), None, dx, work)?,
                    Accumulate::Add => {
                        let mut sum = sum.slice(0..len);
                        conv2d::forward(&conv, dy, self.weights.packed(idx), None, sum.reborrow(), work)?;
                        activation::accumulate(sum.view(), dx)?;
                    }
                }
            }
            Op::Rope { .. } => rope::backward(&rope_shape(step, n), dy, dx, mode)?,
            Op::Matmul if input_idx == 0 => matmul::backward_a(&matmul_shape(program, step, n), read(1), dy, dx, mode)?,
            Op::Matmul => matmul::backward_b(&matmul_shape(program, step, n), read(0), dy, dx, mode)?,
            Op::Softmax { dim } => {
                let len = step.dims[dim];
                softmax::backward(dx.len() / len, len, self.activation(slots, idx), dy, dx, mode)?;
            }
            Op::Relu => activation::relu_backward(self.activation(slots, idx), dy, dx, mode)?,
            Op::Gelu { approximate } => activation::gelu_backward(gelu(approximate), read(0), dy, dx, mode)?,
            Op::Add if program.is_plain_sum(step) => pass_on(dy, dx, mode)?,
            Op::Add => broadcast::add_backward(&broadcast_shape(program, step, n), side, dy, dx, mode)?,
            Op::Multiply => {
                let other = read(1 - input_idx);
                broadcast::multiply_backward(&broadcast_shape(program, step, n), side, other, dy, dx, mode)?;
            }
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
            Op::Mean { .. } => {
                let [outer, len, inner] = mean_axes(program, step, n);
                pool::mean_backward(outer, len, inner, dy, dx, mode)?;
            }
            Op::Upsample { .. } => upsample::backward(&upsample_shape(program, step, n), dy, dx, mode)?,
            Op::Flatten | Op::Reshape { .. } | Op::Permute { .. } | Op::Expand { .. } if program.moves_nothing(step) => {
                pass_on(dy, dx, mode)?;
            }
            Op::Flatten => {
                let [c, h, w] = input_shape(program, step);
                shape::flatten_backward(n, c, h, w, dy, dx, mode)?;
            }
            Op::Reshape { .. } => unreachable!("it moves nothing"),
            Op::Permute { ref dims } => {
                let (lens, order) = permutation(program, step, dims, n);
                let moved: Vec<usize> = order.iter().map(|&axis| lens[axis]).collect();
                shape::permute(&moved, &shape::inverse(&order), dy, dx, mode)?;
            }
            Op::Expand { .. } => broadcast::add_backward(&expand_shape(program, step, n), Side::A, dy, dx, mode)?,
            Op::Slice { .. } => shape::slice_backward(&slice_shape(program, step, n), dy, dx, mode)?,
            Op::Concat { .. } => {
                let (n_rows, widths) = concat_rows(program, step, n);
                shape::concat_backward(n_rows, &widths, input_idx, dy, dx, mode)?;
            }
            Op::Silu
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
            | Op::Power { .. } => {
                let kind = pointwise(&step.op).expect("the op is pointwise");
                // What was read is not kept where it is not needed.
                let x = if matches!(step.op, Op::Affine { .. }) { dy } else { read(0) };
                activation::pointwise_backward(kind, x, dy, dx, mode)?;
            }
        }
        Ok(())
    }

    /// The gradient of the parameters of a layer that is no convolution and no norm.
    #[expect(clippy::too_many_arguments, reason = "a gradient has two operands, two results and two memories to work in")]
    pub fn tensor_gradient(
        &self,
        step: &Step,
        x: View<'_, T>,
        dy: View<'_, T>,
        [dweight, dbias]: [Option<ViewMut<'_, T>>; 2],
        mode: Accumulate,
        packed: ViewMut<'_, T>,
        scratch: ViewMut<'_, T>,
    ) -> Result<()> {
        let (program, n) = (self.program, self.n);
        let dweight = dweight.expect("a layer with parameters has a weight");
        match step.op {
            Op::Linear { .. } => {
                let layer = linear_shape(program, step, n);
                let Some([rows, columns]) = transposed_weight(step) else {
                    return Ok(linear::backward_weight(&layer, x, dy, dweight, dbias, mode)?);
                };
                // The bias goes where it belongs and the weight aside, to be transposed: a mode each.
                let mut aside = packed.slice(0..dweight.len());
                linear::backward_weight(&layer, x, dy, aside.reborrow(), None, Accumulate::Overwrite)?;
                shape::permute(&[rows, columns], &[1, 0], aside.view(), dweight, mode)?;
                if let Some(dbias) = dbias {
                    shape::repeat_backward(dy.len() / dbias.len(), dy, dbias, mode)?;
                }
            }
            Op::ConvTranspose2d { .. } => {
                let conv = transposed_shape(program, step, n).expect("the op is a transposed convolution");
                let mut packed = packed.slice(0..conv.weight_len());
                conv2d::backward_weight(&conv, dy, x, packed.reborrow(), None, mode, scratch)?;
                conv2d::unpack_gradient(&conv, packed.view(), dweight, mode)?;
                if let Some(dbias) = dbias {
                    shape::repeat_backward(dy.len() / dbias.len(), dy, dbias, mode)?;
                }
            }
            Op::Embedding { .. } => embedding::backward_weight(&embedding_shape(step, n), x, dy, dweight, mode)?,
            _ => unreachable!("no other op has a weight"),
        }
        Ok(())
    }

    /// A norm over axes of the example: its input's gradient and its parameters' in one pass.
    pub fn row_norm_gradients(&self, idx: usize, target: &mut Target<'_, T>, arena: &mut Arena<T>) -> Result<()> {
        let fused = &self.plan.steps[idx];
        let (step, n) = (&self.program.steps[fused.node], self.n);
        let input = step.inputs[0];
        let Places { weight: dweight, bias: dbias, mode } = target.of(step)?;
        let weight = self.weights.weight(step);
        let place = match self.plan.writes[idx][0] {
            GradientWrite::Skip => None,
            GradientWrite::Compute(mode) => Some((self.plan.gradient[input].expect("a gradient that is written has a slot"), mode)),
            GradientWrite::InPlace | GradientWrite::Shared => unreachable!("a norm reads what it goes back through"),
        };
        let mut memory = place.map(|(slot, mode)| (arena.slots.take(slot), mode));
        let dx = memory.as_mut().map(|(memory, mode)| (memory.view_mut().slice(0..self.len(input)), *mode));
        let (x, dy) = (self.activation(&arena.slots, input), self.gradient(&arena.slots, fused.out));
        match step.op {
            Op::LayerNorm { ref normalized_shape, eps, .. } => {
                layer_norm::backward(&row_norm_shape(step, normalized_shape, n), eps, x, weight, dy, dx, dweight, dbias, mode)?;
            }
            Op::RmsNorm { ref normalized_shape, eps, .. } => {
                rms_norm::backward(&row_norm_shape(step, normalized_shape, n), eps, x, weight, dy, dx, dweight, mode)?;
            }
            Op::GroupNorm { num_groups, eps, .. } => {
                group_norm::backward(&group_norm_shape(step, num_groups, n), eps, x, weight, dy, dx, dweight, dbias, mode)?;
            }
            _ => unreachable!("only these norms go back so"),
        }
        if let (Some((slot, _)), Some((memory, _))) = (place, memory) {
            arena.slots.put(slot, memory);
        }
        Ok(())
    }

    /// A tensor that is learned as it is: every example adds to it.
    pub fn parameter_gradient(&self, idx: usize, target: &mut Target<'_, T>, arena: &Arena<T>) -> Result<()> {
        let fused = &self.plan.steps[idx];
        let Places { weight, mode, .. } = target.of(&self.program.steps[fused.node])?;
        let dweight = weight.expect("a parameter has its numbers");
        Ok(shape::repeat_backward(self.n, self.gradient(&arena.slots, fused.out), dweight, mode)?)
    }

    /// Attention: the gradients of all that it reads at once, where they belong if each is the first there.
    pub fn attention_gradients(&self, idx: usize, arena: &mut Arena<T>) -> Result<()> {
        let fused = &self.plan.steps[idx];
        let step = &self.program.steps[fused.node];
        let lens: Vec<usize> = step.inputs.iter().map(|&input| self.len(input)).collect();
        let Arena { slots, scratch, .. } = arena;
        if !self.plan.goes_back_aside(idx) {
            let places = step.inputs.iter().map(|&input| self.plan.gradient[input].expect("a gradient that is written has a slot"));
            let mut memories: Vec<_> = places.map(|slot| (slot, slots.take(slot))).collect();
            let read = |input: usize| self.activation(slots, step.inputs[input]);
            let (shape, dy) = (attention_shape(self.program, step, self.n), self.gradient(slots, fused.out));
            let mut into = memories.iter_mut().zip(&lens).map(|((_, memory), &len)| memory.view_mut().slice(0..len));
            let (Some(dq), Some(dk), Some(dv)) = (into.next(), into.next(), into.next()) else {
                unreachable!("attention reads queries, keys and values")
            };
            attention::backward(&shape, read(0), read(1), read(2), dy, dq, dk, dv)?;
            drop(into);
            memories.into_iter().for_each(|(slot, memory)| slots.put(slot, memory));
            return Ok(());
        }
        let (mut dq, rest) = scratch.view_mut().split_at(lens[0]);
        let (mut dk, rest) = rest.split_at(lens[1]);
        let mut dv = rest.slice(0..lens[2]);
        let read = |input: usize| self.activation(slots, step.inputs[input]);
        let (shape, dy) = (attention_shape(self.program, step, self.n), self.gradient(slots, fused.out));
        attention::backward(&shape, read(0), read(1), read(2), dy, dq.reborrow(), dk.reborrow(), dv.reborrow())?;
        for ((&input, gradient), write) in step.inputs.iter().zip([dq, dk, dv]).zip(&self.plan.writes[idx]) {
            if let GradientWrite::Compute(mode) = *write {
                let slot = self.plan.gradient[input].expect("a gradient that is written has a slot");
                let mut memory = slots.take(slot);
                pass_on(gradient.view(), memory.view_mut().slice(0..self.len(input)), mode)?;
                slots.put(slot, memory);
            }
        }
        Ok(())
    }
}
