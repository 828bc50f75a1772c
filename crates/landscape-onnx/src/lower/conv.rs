//! Convolutions, and what is added around their inputs.

use super::{Call, Importer, Lowered};
use crate::ir::Id;
use crate::value::{Axis, Live, Value, axis_of};
use landscape_graph::{Op, Role};
use std::collections::BTreeMap;

/// The window of a convolution or pooling, with a number for each direction.
pub struct Window {
    pub kernel: Vec<usize>,
    pub stride: Vec<usize>,
    pub dilation: Vec<usize>,
    /// Before and behind.
    pub pads: Vec<[usize; 2]>,
}

impl Window {
    /// The attributes of an op whose input has these lengths.
    pub fn of(call: &Call, kernel: Vec<usize>, size: &[usize]) -> Lowered<Self> {
        let n = size.len();
        let list = |name: &str| -> Lowered<Option<Vec<usize>>> {
            let Some(values) = call.ints(name).filter(|values| !values.is_empty()) else { return Ok(None) };
            let values: Result<Vec<usize>, _> = values.iter().map(|&v| usize::try_from(v)).collect();
            values.map(Some).map_err(|_| format!("`{name}` has a negative number"))
        };
        let of_length = |name: &str, values: Option<Vec<usize>>| match values {
            Some(values) if values.len() == n => Ok(values),
            Some(values) => Err(format!("`{name}` must have {n} numbers, got {}", values.len())),
            None => Ok(vec![1; n]),
        };
        let kernel = of_length("kernel_shape", Some(kernel))?;
        let stride = of_length("strides", list("strides")?)?;
        let dilation = of_length("dilations", list("dilations")?)?;
        if stride.contains(&0) || kernel.contains(&0) {
            return Err("a window or step of 0".to_owned());
        }
        let auto = call.text("auto_pad").unwrap_or("NOTSET".into()).into_owned();
        let pads = match auto.as_str() {
            "NOTSET" => match list("pads")? {
                None => vec![[0, 0]; n],
                Some(pads) if pads.len() == 2 * n => (0..n).map(|d| [pads[d], pads[n + d]]).collect(),
                Some(pads) => return Err(format!("`pads` must have {} numbers, got {}", 2 * n, pads.len())),
            },
            "VALID" => vec![[0, 0]; n],
            "SAME_UPPER" | "SAME_LOWER" => (0..n)
                .map(|d| {
                    let too_large = || "a window beyond any image".to_owned();
                    let extent = (kernel[d] - 1).checked_mul(dilation[d]).and_then(|e| e.checked_add(1)).ok_or_else(too_large)?;
                    let covered = (size[d].div_ceil(stride[d]) - 1).checked_mul(stride[d]).and_then(|c| c.checked_add(extent));
                    let total = covered.ok_or_else(too_large)?.saturating_sub(size[d]);
                    let (less, more) = (total / 2, total - total / 2);
                    Ok(if auto == "SAME_UPPER" { [less, more] } else { [more, less] })
                })
                .collect::<Lowered<_>>()?,
            other => return Err(format!("`auto_pad` `{other}`")),
        };
        Ok(Window { kernel, stride, dilation, pads })
    }

    pub fn is_symmetric(&self) -> bool {
        self.pads.iter().all(|[before, behind]| before == behind)
    }

    /// The pads, where both sides have the same.
    pub fn padding(&self) -> Vec<usize> {
        self.pads.iter().map(|pad| pad[0]).collect()
    }
}

/// The numbers of two directions.
pub fn two(values: &[usize]) -> Lowered<[usize; 2]> {
    values.try_into().map_err(|_| format!("two directions are supported, got {}", values.len()))
}

impl Importer {
    /// [batch, channels, ...] and the lengths behind the channels.
    pub fn channels(&mut self, value: &Value) -> Lowered<(Live, usize, Vec<usize>)> {
        let x = self.batch_first(value)?;
        let (&channels, size) = self.ir.shape(x.id).split_first().ok_or("it has no channels")?;
        if x.axes.len() < 3 {
            return Err("it expects [batch, channels, ...], the last once or twice".to_owned());
        }
        let size = size.to_vec();
        Ok((x, channels, size))
    }

    /// Both a convolution and its transpose.
    fn weights(&mut self, call: &Call, n_out: impl Fn(&[usize]) -> usize) -> Lowered<(Vec<usize>, BTreeMap<Role, usize>, usize)> {
        let weight = self.learned(call.input(1)?, Self::input_name(call, 1), "the weight")?;
        let dims = self.store[weight].dims.clone();
        if !(3..=4).contains(&dims.len()) {
            return Err(format!("one or two directions are supported, and the weight has {} axes", dims.len()));
        }
        let out_channels = n_out(&dims);
        let mut tensors = BTreeMap::from([(Role::Weight, weight)]);
        // Exporters write zeros where there is no bias.
        let is_zero = match call.optional(2) {
            Some(Value::Known(known)) => known.numbers.to_f64().is_some_and(|values| values.iter().all(|&v| v == 0.0)),
            other => other.is_none(),
        };
        if !is_zero {
            tensors.insert(Role::Bias, self.learned_vector(call, 2, out_channels, "the bias")?);
        }
        Ok((dims, tensors, out_channels))
    }

    pub fn conv(&mut self, call: &Call) -> Lowered<Live> {
        let (mut x, in_channels, size) = self.channels(call.input(0)?)?;
        let groups = positive(call.int("group").unwrap_or(1), "group")?;
        let (dims, tensors, out_channels) = self.weights(call, |dims| dims[0])?;
        if dims.len() != size.len() + 2 {
            return Err(format!("a weight for {} directions, and the input has {}", dims.len() - 2, size.len()));
        }
        if dims[1].checked_mul(groups) != Some(in_channels) {
            return Err(format!("a weight for {} times {groups} channels, and there are {in_channels}", dims[1]));
        }
        let mut window = Window::of(call, dims[2..].to_vec(), &size)?;
        if !window.is_symmetric() {
            let pads: Vec<[usize; 2]> = std::iter::once([0, 0]).chain(window.pads.iter().copied()).collect();
            x = self.padded(&x, &pads, 0.0)?;
            window.pads.fill([0, 0]);
        }
        let bias = tensors.contains_key(&Role::Bias);
        let padding = window.padding();
        let op = if size.len() == 1 {
            let (kernel_size, stride, padding, dilation) = (window.kernel[0], window.stride[0], padding[0], window.dilation[0]);
            Op::Conv1d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias }
        } else {
            let (kernel_size, stride) = (two(&window.kernel)?, two(&window.stride)?);
            Op::Conv2d {
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding: two(&padding)?,
                dilation: two(&window.dilation)?,
                groups,
                bias,
            }
        };
        let id = self.ir.push_with(op, &[x.id], tensors)?;
        Ok(self.of_batch(id))
    }

    pub fn conv_transpose(&mut self, call: &Call) -> Lowered<Live> {
        let (x, in_channels, size) = self.channels(call.input(0)?)?;
        let groups = positive(call.int("group").unwrap_or(1), "group")?;
        let (dims, tensors, out_channels) = self.weights(call, |dims| dims[1].saturating_mul(groups))?;
        if dims.len() != 4 || size.len() != 2 {
            return Err("two directions are supported".to_owned());
        }
        if call.attribute("output_shape").is_some() || call.text("auto_pad").is_some_and(|auto| auto != "NOTSET") {
            return Err("`output_shape` and `auto_pad` are not supported".to_owned());
        }
        let window = Window::of(call, dims[2..].to_vec(), &size)?;
        if !window.is_symmetric() {
            return Err(format!("`pads` must be the same on both sides, got {:?}", window.pads));
        }
        let output_padding = match call.ints("output_padding").filter(|values| !values.is_empty()) {
            Some(values) => two(&values.iter().map(|&v| usize::try_from(v).unwrap_or(usize::MAX)).collect::<Vec<_>>())?,
            None => [0, 0],
        };
        let op = Op::ConvTranspose2d {
            in_channels,
            out_channels,
            kernel_size: two(&window.kernel)?,
            stride: two(&window.stride)?,
            padding: two(&window.padding())?,
            output_padding,
            dilation: two(&window.dilation)?,
            groups,
            bias: tensors.contains_key(&Role::Bias),
        };
        let id = self.ir.push_with(op, &[x.id], tensors)?;
        Ok(self.of_batch(id))
    }

    /// A node as a value with the batch first.
    pub fn of_batch(&self, id: Id) -> Live {
        let locals = self.ir.shape(id).iter().map(|&n| Axis::Local(n));
        Live { id, axes: std::iter::once(Axis::Batch).chain(locals).collect() }
    }

    /// A node with constant numbers before and behind each of its axes.
    pub fn padded(&mut self, x: &Live, pads: &[[usize; 2]], fill: f64) -> Lowered<Live> {
        let mut id = x.id;
        for (dim, pad) in pads.iter().enumerate() {
            let mut parts = vec![id];
            for (behind, &n) in pad.iter().enumerate().filter(|(_, n)| **n > 0) {
                let mut shape = self.ir.shape(id).clone();
                shape[dim] = n;
                let size = shape.iter().try_fold(1usize, |size, &d| size.checked_mul(d)).ok_or("padding beyond any machine")?;
                self.spend(size)?;
                let border = self.ir.constant(shape, vec![fill; size])?;
                parts.insert(if behind == 1 { parts.len() } else { 0 }, border);
            }
            id = self.ir.push(Op::Concat { dim }, &parts)?;
        }
        let shape = self.ir.shape(id).clone();
        let mut locals = shape.into_iter();
        let axes = x.axes.iter().map(|axis| if axis.is_local() { Axis::Local(locals.next().unwrap_or(1)) } else { *axis }).collect();
        Ok(Live { id, axes })
    }

    /// `Pad`, of constant numbers.
    pub fn pad_op(&mut self, call: &Call) -> Lowered<Live> {
        if let Some(mode) = call.text("mode").filter(|mode| mode != "constant") {
            return Err(format!("`mode` must be `constant`, got `{mode}`"));
        }
        let x = self.live(call.input(0)?)?;
        let pads = self.fixed_ints(call.input(1)?, "`pads`")?;
        let fill = call.optional(2).map(|value| self.number(value, "the number to pad with")).transpose()?.unwrap_or(0.0);
        let axes = match call.optional(3) {
            Some(axes) => self.fixed_ints(axes, "`axes`")?,
            None => (0..x.axes.len() as i64).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(format!("`pads` must have {} numbers, got {}", 2 * axes.len(), pads.len()));
        }
        let mut local = vec![[0i64; 2]; self.ir.shape(x.id).len()];
        for (at, &axis) in axes.iter().enumerate() {
            let pad = [pads[at], pads[axes.len() + at]];
            if pad != [0, 0] {
                local[x.local(axis_of(axis, x.axes.len())?)?] = pad;
            }
        }
        if x.axes.iter().any(|axis| matches!(axis, Axis::Mixed { .. })) {
            return Err("the batch is part of another axis".to_owned());
        }
        // Negative pads cut off.
        let mut id = x.id;
        for (dim, pad) in local.iter().enumerate() {
            let n = self.ir.shape(id)[dim];
            let cut = pad.map(|p| usize::try_from(-p.min(0)).unwrap_or(usize::MAX));
            let end = n.checked_sub(cut[1]).ok_or("it cuts off more than there is")?;
            id = self.ir.push(Op::Slice { dim, start: cut[0], end, step: 1 }, &[id])?;
        }
        let pads: Vec<[usize; 2]> = local.iter().map(|pad| pad.map(|p| usize::try_from(p.max(0)).unwrap_or(0))).collect();
        self.padded(&Live { id, axes: x.axes }, &pads, fill)
    }
}

pub fn positive(value: i64, name: &str) -> Lowered<usize> {
    usize::try_from(value).ok().filter(|&v| v > 0).ok_or_else(|| format!("`{name}` must be at least 1, got {value}"))
}
