//! One step forward: the ops that keep no statistics.

use crate::arena::Arena;
use crate::attributes::{
    adaptive_shape, attention_shape, average_padding, broadcast_shape, concat_rows, conv2d_shape, dropout_mask, embedding_shape,
    expand_shape, gelu, group_norm_shape, input_shape, linear_shape, matmul_shape, mean_axes, permutation, pointwise, pool_shape,
    rope_shape, row_norm_shape, slice_shape, transposed_shape, upsample_shape,
};
use crate::error::Result;
use crate::forward::Run;
use crate::step::Step;
use landscape_graph::Op;
use landscape_kernels::{
    Accumulate, Real, ViewMut, activation, attention, broadcast, conv2d, dropout, embedding, group_norm, layer_norm, linear, matmul, pool,
    rms_norm, rope, shape, softmax, upsample,
};

impl<T: Real> Run<'_, T> {
    /// Writes the result of node `idx`, which is no input and no batch norm.
    pub fn compute(&self, idx: usize, step: &Step, y: ViewMut<'_, T>, arena: &mut Arena<T>) -> Result<()> {
        let Arena { slots, argmax, scratch, zero, .. } = arena;
        let (program, n) = (self.program, self.n);
        let read = |input: usize| self.activation(slots, step.inputs[input]);
        let (weight, bias) = (self.weights.weight(step), self.weights.bias(step));
        match step.op {
            Op::Input { .. } | Op::BatchNorm { .. } => unreachable!("run apart"),
            Op::Conv1d { .. } => unreachable!("lowered to a convolution over images"),
            Op::Linear { .. } => {
                let weight = self.weights.of_linear(idx, step);
                linear::forward(&linear_shape(program, step, n), read(0), weight, bias, y)?;
            }
            Op::Conv2d { .. } => {
                let shape = conv2d_shape(program, step, n).expect("the op is a convolution");
                conv2d::forward(&shape, read(0), self.weights.packed(idx), bias, y, scratch.view_mut())?;
            }
            Op::ConvTranspose2d { .. } => {
                let conv = transposed_shape(program, step, n).expect("the op is a transposed convolution");
                let (mut y, packed) = (y, self.weights.packed(idx));
                // The bias comes first, and the products are added to it.
                let mode = match bias {
                    Some(bias) => {
                        shape::repeat_forward(y.len() / bias.len(), bias, y.reborrow())?;
                        Accumulate::Add
                    }
                    None => Accumulate::Overwrite,
                };
                conv2d::backward_input(&conv, packed, read(0), y, mode, scratch.view_mut())?;
            }
            Op::LayerNorm { ref normalized_shape, eps, .. } => {
                layer_norm::forward(&row_norm_shape(step, normalized_shape, n), eps, read(0), weight, bias, y)?;
            }
            Op::RmsNorm { ref normalized_shape, eps, .. } => {
                rms_norm::forward(&row_norm_shape(step, normalized_shape, n), eps, read(0), weight, y)?;
            }
            Op::GroupNorm { num_groups, eps, .. } => {
                group_norm::forward(&group_norm_shape(step, num_groups, n), eps, read(0), weight, bias, y)?;
            }
            Op::Embedding { .. } => {
                let weight = weight.expect("an embedding has a weight");
                embedding::forward(&embedding_shape(step, n), read(0), weight, y)?;
            }
            Op::Attention { .. } => attention::forward(&attention_shape(program, step, n), read(0), read(1), read(2), y)?,
            Op::Rope { .. } => rope::forward(&rope_shape(step, n), read(0), y)?,
            Op::Matmul => matmul::forward(&matmul_shape(program, step, n), read(0), read(1), y)?,
            Op::Softmax { dim } => softmax::forward(y.len() / step.dims[dim], step.dims[dim], read(0), y)?,
            Op::Relu => activation::relu_forward(read(0), y)?,
            Op::Gelu { approximate } => activation::gelu_forward(gelu(approximate), read(0), y)?,
            Op::Add if program.is_plain_sum(step) => activation::add(read(0), read(1), y)?,
            Op::Add => broadcast::add(&broadcast_shape(program, step, n), read(0), read(1), y)?,
            Op::Multiply => broadcast::multiply(&broadcast_shape(program, step, n), read(0), read(1), y)?,
            Op::Dropout { p } => match dropout_mask(step, p, self.dropout_seed) {
                Some(mask) => dropout::forward(&mask, read(0), y)?,
                None => y.copy_from(read(0))?,
            },
            Op::MaxPool2d { .. } => {
                let indices = &mut argmax[self.plan.argmax[idx].expect("every max pooling has an index memory")];
                pool::max_forward(&pool_shape(program, step, n), read(0), y, indices.view_mut().slice(0..self.len(idx)))?;
            }
            Op::AvgPool2d { count_include_pad, .. } => {
                pool::average_forward(&pool_shape(program, step, n), average_padding(count_include_pad), read(0), y)?;
            }
            Op::AdaptiveAvgPool2d { .. } | Op::GlobalAvgPool => {
                pool::adaptive_average_forward(&adaptive_shape(program, step, n), read(0), y)?;
            }
            Op::Mean { .. } => {
                let [outer, len, inner] = mean_axes(program, step, n);
                pool::mean_forward(outer, len, inner, read(0), y)?;
            }
            Op::Upsample { .. } => upsample::forward(&upsample_shape(program, step, n), read(0), y)?,
            Op::Flatten | Op::Reshape { .. } | Op::Permute { .. } | Op::Expand { .. } if program.moves_nothing(step) => {
                y.copy_from(read(0))?;
            }
            Op::Flatten => {
                let [c, h, w] = input_shape(program, step);
                shape::flatten_forward(n, c, h, w, read(0), y)?;
            }
            Op::Reshape { .. } => unreachable!("it moves nothing"),
            Op::Permute { ref dims } => {
                let (lens, order) = permutation(program, step, dims, n);
                shape::permute(&lens, &order, read(0), y, Accumulate::Overwrite)?;
            }
            Op::Expand { .. } => broadcast::add(&expand_shape(program, step, n), read(0), zero.view(), y)?,
            Op::Slice { .. } => shape::slice_forward(&slice_shape(program, step, n), read(0), y)?,
            Op::Concat { .. } => {
                let (n_rows, widths) = concat_rows(program, step, n);
                let inputs: Vec<_> = (0..step.inputs.len()).map(read).collect();
                shape::concat_forward(n_rows, &widths, &inputs, y)?;
            }
            Op::Parameter { .. } => shape::repeat_forward(n, weight.expect("a parameter has its numbers"), y)?,
            Op::Constant { .. } => shape::repeat_forward(n, self.weights.constant(idx), y)?,
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
            | Op::Power { .. } => activation::pointwise_forward(pointwise(&step.op).expect("the op is pointwise"), read(0), y)?,
        }
        Ok(())
    }
}
