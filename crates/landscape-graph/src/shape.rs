//! Shape inference, and the ranges of all attributes: what passes here can be executed.

use crate::error::{Error, Result};
use crate::op::{Op, Shape};

/// The most numbers that one tensor, activation or attribute may have: far beyond any machine, and small enough that sums and
/// products of a few of them fit.
pub const MAX_ELEMENTS: u64 = 1 << 40;

/// Yields the shape of a node's result.
///
/// # Errors
/// Names the node when an attribute is out of its range, the inputs are too many or too few, or their shapes do not fit the op.
///
/// # Source
/// The formulas of PyTorch's modules, sizes rounded down (`ceil_mode` off):
/// out = ⌊(in + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1.
pub fn infer(node: &str, op: &Op, inputs: &[&Shape]) -> Result<Shape> {
    let check = Check { node, op };
    check.arity(inputs.len())?;
    let shape = match *op {
        Op::Input { .. } => return Err(Error::Input(format!("node `{node}`: inputs stand before all other nodes"))),
        Op::Linear { in_features, out_features, .. } => {
            check.positive("in_features", &[in_features])?;
            check.positive("out_features", &[out_features])?;
            let (&last, rest) = inputs[0].split_last().ok_or_else(|| check.shape("at least one axis", inputs))?;
            if last != in_features {
                return Err(check.shape(format!("features [{in_features}] along the last axis"), inputs));
            }
            [rest, &[out_features]].concat()
        }
        Op::Conv2d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, .. } => {
            check.channels(in_channels, out_channels, groups, &dilation)?;
            let size = check.image_of(in_channels, inputs)?;
            let [h, w] = check.windows(size, kernel_size, stride, padding, dilation)?;
            vec![out_channels, h, w]
        }
        Op::Conv1d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, .. } => {
            check.channels(in_channels, out_channels, groups, &[dilation])?;
            let [c, len] = check.rank("a signal [channels, length]", inputs)?;
            if c != in_channels {
                return Err(check.shape(format!("a signal of {in_channels} channels"), inputs));
            }
            let [_, len] = check.windows([1, len], [1, kernel_size], [1, stride], [0, padding], [1, dilation])?;
            vec![out_channels, len]
        }
        Op::ConvTranspose2d { in_channels, out_channels, kernel_size, stride, padding, output_padding, dilation, groups, .. } => {
            check.channels(in_channels, out_channels, groups, &dilation)?;
            check.positive("kernel_size", &kernel_size)?;
            check.positive("stride", &stride)?;
            let size = check.image_of(in_channels, inputs)?;
            let mut out = [0; 2];
            for axis in 0..2 {
                if output_padding[axis] >= stride[axis].max(dilation[axis]) {
                    return Err(check.attribute("output_padding", "below `stride` or `dilation`", format!("{output_padding:?}")));
                }
                // (in − 1)·stride + dilation·(kernel − 1) + output_padding + 1 − 2·padding.
                let steps = (size[axis] - 1).checked_mul(stride[axis]);
                let extent = dilation[axis].checked_mul(kernel_size[axis] - 1);
                let full = steps.zip(extent).and_then(|(a, b)| a.checked_add(b)?.checked_add(output_padding[axis] + 1));
                let cut = padding[axis].checked_mul(2);
                let left = full.zip(cut).and_then(|(full, cut)| full.checked_sub(cut)).filter(|&left| left > 0);
                out[axis] = left.ok_or_else(|| check.attribute("padding", "one that leaves a result", format!("{padding:?}")))?;
            }
            vec![out_channels, out[0], out[1]]
        }
        Op::BatchNorm { num_features, eps, momentum, .. } => {
            check.positive("num_features", &[num_features])?;
            check.eps(eps)?;
            if !(0.0..=1.0).contains(&momentum) {
                return Err(check.attribute("momentum", "from 0 to 1", momentum));
            }
            if inputs[0].first() != Some(&num_features) || inputs[0].len() > 3 {
                return Err(check.shape(format!("{num_features} channels or features"), inputs));
            }
            inputs[0].clone()
        }
        Op::LayerNorm { ref normalized_shape, eps, elementwise_affine, bias } => {
            if bias && !elementwise_affine {
                return Err(check.attribute("bias", "off without `elementwise_affine`", bias));
            }
            check.normalized(normalized_shape, eps, inputs)?
        }
        Op::RmsNorm { ref normalized_shape, eps, .. } => check.normalized(normalized_shape, eps, inputs)?,
        Op::GroupNorm { num_groups, num_channels, eps, .. } => {
            check.positive("num_groups", &[num_groups])?;
            check.positive("num_channels", &[num_channels])?;
            check.eps(eps)?;
            if !num_channels.is_multiple_of(num_groups) {
                return Err(check.attribute("num_groups", format!("a divisor of `num_channels` {num_channels}"), num_groups));
            }
            if inputs[0].first() != Some(&num_channels) || inputs[0].len() > 3 {
                return Err(check.shape(format!("{num_channels} channels"), inputs));
            }
            inputs[0].clone()
        }
        Op::Embedding { num_embeddings, embedding_dim } => {
            check.positive("num_embeddings", &[num_embeddings])?;
            check.positive("embedding_dim", &[embedding_dim])?;
            [inputs[0].as_slice(), &[embedding_dim]].concat()
        }
        Op::Attention { scale, .. } => {
            check.finite("scale", scale)?;
            let expected = "q [heads, q_len, head_dim], k [kv_heads, kv_len, head_dim], v [kv_heads, kv_len, v_dim], `kv_heads` a divisor";
            let ([&q, &k, &v], n_inputs) =
                ([inputs[0], inputs[1], inputs[2]].map(|s| <&[usize; 3]>::try_from(s.as_slice()).unwrap_or(&[0; 3])), inputs.len());
            let fits = n_inputs == 3 && q[0] >= 1 && k[0] >= 1 && q[0].is_multiple_of(k[0]) && q[2] == k[2] && k[0] == v[0] && k[1] == v[1];
            if !fits {
                return Err(check.shape(expected, inputs));
            }
            vec![q[0], q[1], v[2]]
        }
        Op::Rope { base, rotary_dim, .. } => {
            let [_, _, head_dim] = check.rank("[heads, len, head_dim]", inputs)?;
            if !(base > 0.0 && base.is_finite()) {
                return Err(check.attribute("base", "a finite number above 0", base));
            }
            if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) || rotary_dim > head_dim {
                return Err(check.attribute("rotary_dim", format!("even, from 2 to head_dim {head_dim}"), rotary_dim));
            }
            inputs[0].clone()
        }
        Op::Matmul => {
            let (a, b) = (inputs[0], inputs[1]);
            let rank = a.len();
            if rank < 2 || b.len() != rank || a[..rank - 2] != b[..rank - 2] || a[rank - 1] != b[rank - 2] {
                return Err(check.shape("[..., m, k] and [..., k, n]", inputs));
            }
            [&a[..rank - 1], &b[rank - 1..]].concat()
        }
        Op::Softmax { dim } => {
            check.axis("dim", dim, inputs)?;
            inputs[0].clone()
        }
        Op::LeakyRelu { negative_slope } => check.numbers(&[("negative_slope", negative_slope)], inputs)?,
        Op::Elu { alpha } => check.numbers(&[("alpha", alpha)], inputs)?,
        Op::Hardtanh { min_val, max_val } => {
            if min_val >= max_val {
                return Err(check.attribute("min_val", format!("below `max_val` {max_val}"), min_val));
            }
            check.numbers(&[("min_val", min_val), ("max_val", max_val)], inputs)?
        }
        Op::Affine { scale, shift } => check.numbers(&[("scale", scale), ("shift", shift)], inputs)?,
        Op::Power { exponent } => check.numbers(&[("exponent", exponent)], inputs)?,
        Op::Relu | Op::Gelu { .. } | Op::Silu | Op::Sigmoid | Op::Hardswish | Op::Hardsigmoid | Op::Tanh | Op::Softplus | Op::Exp => {
            inputs[0].clone()
        }
        Op::Dropout { p } => {
            if !(0.0..1.0).contains(&p) {
                return Err(check.attribute("p", "from 0 to below 1", p));
            }
            inputs[0].clone()
        }
        Op::Add | Op::Multiply => broadcast(inputs[0], inputs[1])
            .ok_or_else(|| check.shape("two inputs of the same shape, or whose axes, from the last, are equal or 1", inputs))?,
        Op::MaxPool2d { kernel_size, stride, padding } | Op::AvgPool2d { kernel_size, stride, padding, .. } => {
            let [c, h, w] = check.image(inputs)?;
            check.positive("kernel_size", &kernel_size)?;
            // A wider border would leave windows without a single pixel.
            if padding[0] > kernel_size[0] / 2 || padding[1] > kernel_size[1] / 2 {
                return Err(check.attribute("padding", "at most half of `kernel_size`", format!("{padding:?} for {kernel_size:?}")));
            }
            let [h, w] = check.windows([h, w], kernel_size, stride, padding, [1, 1])?;
            vec![c, h, w]
        }
        Op::AdaptiveAvgPool2d { output_size } => {
            check.positive("output_size", &output_size)?;
            let [c, ..] = check.image(inputs)?;
            vec![c, output_size[0], output_size[1]]
        }
        Op::GlobalAvgPool => {
            let [c, ..] = check.image(inputs)?;
            vec![c, 1, 1]
        }
        Op::Mean { start_dim, end_dim, keepdim } => {
            check.axis("end_dim", end_dim, inputs)?;
            if start_dim > end_dim {
                return Err(check.attribute("start_dim", format!("at most `end_dim` {end_dim}"), start_dim));
            }
            let ones = vec![1; if keepdim { end_dim + 1 - start_dim } else { 0 }];
            [&inputs[0][..start_dim], &ones, &inputs[0][end_dim + 1..]].concat()
        }
        Op::Upsample { size, .. } => {
            check.positive("size", &size)?;
            let [c, ..] = check.image(inputs)?;
            vec![c, size[0], size[1]]
        }
        Op::Flatten => vec![inputs[0].iter().product()],
        Op::Reshape { ref shape } => {
            check.dims("shape", shape)?;
            if n_elements(shape) != n_elements(inputs[0]) {
                return Err(check.shape(format!("as many numbers as {shape:?} has"), inputs));
            }
            shape.clone()
        }
        Op::Permute { ref dims } => {
            let mut sorted = dims.clone();
            sorted.sort_unstable();
            if !sorted.iter().copied().eq(0..inputs[0].len()) {
                return Err(check.attribute("dims", format!("an order of the axes 0 to {}", inputs[0].len() - 1), format!("{dims:?}")));
            }
            dims.iter().map(|&dim| inputs[0][dim]).collect()
        }
        Op::Expand { ref shape } => {
            check.dims("shape", shape)?;
            if broadcast(inputs[0], shape).as_ref() != Some(shape) {
                return Err(check.shape(format!("axes that, from the last, are those of {shape:?} or 1"), inputs));
            }
            shape.clone()
        }
        Op::Slice { dim, start, end, step } => {
            check.axis("dim", dim, inputs)?;
            check.positive("step", &[step])?;
            let axis = inputs[0][dim];
            if end > axis {
                return Err(check.attribute("end", format!("at most the axis's length {axis}"), end));
            }
            if start >= end {
                return Err(check.attribute("start", format!("below `end` {end}"), start));
            }
            let mut shape = inputs[0].clone();
            shape[dim] = (end - start).div_ceil(step);
            shape
        }
        Op::Concat { dim } => {
            check.axis("dim", dim, inputs)?;
            let first = inputs[0];
            let differs = |s: &Shape| s.len() != first.len() || (0..s.len()).any(|axis| axis != dim && s[axis] != first[axis]);
            if inputs.iter().any(|s| differs(s)) {
                return Err(check.shape(format!("inputs that differ in axis {dim} alone"), inputs));
            }
            let sum = inputs.iter().try_fold(0usize, |n, s| n.checked_add(s[dim]));
            let mut shape = first.clone();
            shape[dim] = sum.ok_or_else(|| check.too_large("the result"))?;
            shape
        }
        Op::Parameter { ref shape } => {
            check.dims("shape", shape)?;
            shape.clone()
        }
        Op::Constant { ref shape, ref values } => {
            check.dims("shape", shape)?;
            if n_elements(shape) != Some(values.len() as u64) {
                return Err(check.attribute("values", format!("as many numbers as {shape:?} has"), values.len()));
            }
            values.iter().try_for_each(|&value| check.finite("values", value))?;
            shape.clone()
        }
    };
    for (_, tensor) in op.tensors() {
        check_elements(node, "a parameter tensor", &tensor)?;
    }
    check_elements(node, "the result", &shape)?;
    Ok(shape)
}

/// The most axes an example may have.
pub const MAX_RANK: usize = 6;

/// Checks the shape of an input.
///
/// # Errors
/// If it has no axis or too many, has an empty one, or is too large.
pub(crate) fn check_input(node: &str, shape: &[usize]) -> Result<()> {
    if shape.is_empty() || shape.len() > MAX_RANK || shape.contains(&0) {
        let expected = format!("[channels, height, width], [features], or 1 to {MAX_RANK} axes, each at least 1");
        return Err(Error::Shape { node: node.to_owned(), op: "input", expected, got: format!("{shape:?}") });
    }
    check_elements(node, "the input", shape)
}

/// The common shape of two operands, aligned at the last axis, where axes of length 1 are repeated.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Shape> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], axis: usize| (axis + s.len()).checked_sub(rank).map_or(1, |axis| s[axis]);
    let common = |axis| match (at(a, axis), at(b, axis)) {
        (a, b) if a == b => Some(a),
        (1, n) | (n, 1) => Some(n),
        _ => None,
    };
    (0..rank).map(common).collect()
}

fn n_elements(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))
}

fn check_elements(node: &str, what: &'static str, shape: &[usize]) -> Result<()> {
    match n_elements(shape) {
        Some(n) if n <= MAX_ELEMENTS => Ok(()),
        _ => Err(Error::TooLarge { node: node.to_owned(), what, limit: MAX_ELEMENTS }),
    }
}

struct Check<'a> {
    node: &'a str,
    op: &'a Op,
}

impl Check<'_> {
    fn arity(&self, got: usize) -> Result<()> {
        let (fits, expected) = match self.op {
            Op::Input { .. } | Op::Parameter { .. } | Op::Constant { .. } => (got == 0, "no input"),
            Op::Add | Op::Multiply | Op::Matmul => (got == 2, "two inputs"),
            Op::Attention { .. } => (got == 3, "three inputs"),
            Op::Concat { .. } => (got >= 1, "at least one input"),
            _ => (got == 1, "one input"),
        };
        if fits { Ok(()) } else { Err(Error::Arity { node: self.node.to_owned(), op: self.op.name(), expected, got }) }
    }

    fn shape(&self, expected: impl Into<String>, inputs: &[&Shape]) -> Error {
        let got = inputs.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(" and ");
        Error::Shape { node: self.node.to_owned(), op: self.op.name(), expected: expected.into(), got }
    }

    fn attribute(&self, field: &'static str, expected: impl Into<String>, got: impl ToString) -> Error {
        Error::Attribute { node: self.node.to_owned(), field, expected: expected.into(), got: got.to_string() }
    }

    fn too_large(&self, what: &'static str) -> Error {
        Error::TooLarge { node: self.node.to_owned(), what, limit: MAX_ELEMENTS }
    }

    fn positive(&self, field: &'static str, values: &[usize]) -> Result<()> {
        let in_range = |&v: &usize| v >= 1 && v as u64 <= MAX_ELEMENTS;
        match values.iter().find(|v| !in_range(v)) {
            None => Ok(()),
            Some(v) => Err(self.attribute(field, format!("from 1 to {MAX_ELEMENTS}"), v)),
        }
    }

    fn finite(&self, field: &'static str, value: f64) -> Result<()> {
        if value.is_finite() { Ok(()) } else { Err(self.attribute(field, "a finite number", value)) }
    }

    fn eps(&self, eps: f64) -> Result<()> {
        if eps > 0.0 && eps.is_finite() { Ok(()) } else { Err(self.attribute("eps", "a finite number above 0", eps)) }
    }

    /// An op on each number alone, with finite attributes.
    fn numbers(&self, fields: &[(&'static str, f64)], inputs: &[&Shape]) -> Result<Shape> {
        fields.iter().try_for_each(|&(field, value)| self.finite(field, value))?;
        Ok(inputs[0].clone())
    }

    /// The lengths of axes that a result is to have.
    fn dims(&self, field: &'static str, shape: &[usize]) -> Result<()> {
        if shape.is_empty() || shape.len() > MAX_RANK {
            return Err(self.attribute(field, format!("1 to {MAX_RANK} axes"), format!("{shape:?}")));
        }
        self.positive(field, shape)
    }

    fn axis(&self, field: &'static str, axis: usize, inputs: &[&Shape]) -> Result<()> {
        let rank = inputs[0].len();
        if axis < rank { Ok(()) } else { Err(self.attribute(field, format!("below the number of axes {rank}"), axis)) }
    }

    fn rank<const N: usize>(&self, expected: &str, inputs: &[&Shape]) -> Result<[usize; N]> {
        <[usize; N]>::try_from(inputs[0].as_slice()).map_err(|_| self.shape(expected, inputs))
    }

    fn normalized(&self, normalized_shape: &[usize], eps: f64, inputs: &[&Shape]) -> Result<Shape> {
        self.dims("normalized_shape", normalized_shape)?;
        self.eps(eps)?;
        if !inputs[0].ends_with(normalized_shape) {
            return Err(self.shape(format!("last axes {normalized_shape:?}"), inputs));
        }
        Ok(inputs[0].clone())
    }

    fn channels(&self, in_channels: usize, out_channels: usize, groups: usize, dilation: &[usize]) -> Result<()> {
        self.positive("in_channels", &[in_channels])?;
        self.positive("out_channels", &[out_channels])?;
        self.positive("groups", &[groups])?;
        self.positive("dilation", dilation)?;
        if !in_channels.is_multiple_of(groups) || !out_channels.is_multiple_of(groups) {
            let expected = format!("a divisor of `in_channels` {in_channels} and of `out_channels` {out_channels}");
            return Err(self.attribute("groups", expected, groups));
        }
        Ok(())
    }

    fn image_of(&self, in_channels: usize, inputs: &[&Shape]) -> Result<[usize; 2]> {
        let [c, h, w] = self.image(inputs)?;
        if c == in_channels { Ok([h, w]) } else { Err(self.shape(format!("an image of {in_channels} channels"), inputs)) }
    }

    fn image(&self, inputs: &[&Shape]) -> Result<[usize; 3]> {
        <[usize; 3]>::try_from(inputs[0].as_slice()).map_err(|_| self.shape("an image [channels, height, width]", inputs))
    }

    /// How many windows fit, per direction.
    fn windows(
        &self,
        size: [usize; 2],
        kernel_size: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
        dilation: [usize; 2],
    ) -> Result<[usize; 2]> {
        self.positive("kernel_size", &kernel_size)?;
        self.positive("stride", &stride)?;
        if padding.iter().any(|&p| p as u64 > MAX_ELEMENTS) {
            return Err(self.attribute("padding", format!("at most {MAX_ELEMENTS}"), format!("{padding:?}")));
        }
        let mut out = [0; 2];
        for axis in 0..2 {
            let padded = size[axis] + 2 * padding[axis];
            // dilation · (kernel − 1) + 1 may overflow: then no window fits anyway.
            let extent = dilation[axis].checked_mul(kernel_size[axis] - 1).and_then(|e| e.checked_add(1));
            out[axis] = match extent {
                Some(extent) if extent <= padded => (padded - extent) / stride[axis] + 1,
                _ => {
                    let direction = ["high", "wide"][axis];
                    let expected = format!("an image that a window of {kernel_size:?} (dilation {dilation:?}) fits into");
                    let got = format!("one that is {} {direction} with padding {}", size[axis], padding[axis]);
                    return Err(Error::Shape { node: self.node.to_owned(), op: self.op.name(), expected, got });
                }
            };
        }
        Ok(out)
    }
}
