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
        Op::Input => return Err(Error::Input(format!("node `{node}`: the input is the first node, and there is only one"))),
        Op::Linear { in_features, out_features, .. } => {
            check.positive("in_features", &[in_features])?;
            check.positive("out_features", &[out_features])?;
            if *inputs[0] != [in_features] {
                return Err(check.shape(format!("features [{in_features}]"), inputs));
            }
            vec![out_features]
        }
        Op::Conv2d { in_channels, out_channels, kernel_size, stride, padding, dilation, groups, .. } => {
            check.positive("in_channels", &[in_channels])?;
            check.positive("out_channels", &[out_channels])?;
            check.positive("groups", &[groups])?;
            check.positive("dilation", &dilation)?;
            if in_channels % groups != 0 || out_channels % groups != 0 {
                let expected = format!("a divisor of `in_channels` {in_channels} and of `out_channels` {out_channels}");
                return Err(check.attribute("groups", expected, groups));
            }
            let [c, h, w] = check.image(inputs)?;
            if c != in_channels {
                return Err(check.shape(format!("an image of {in_channels} channels"), inputs));
            }
            let [h, w] = check.windows([h, w], kernel_size, stride, padding, dilation)?;
            vec![out_channels, h, w]
        }
        Op::BatchNorm { num_features, eps, momentum, .. } => {
            check.positive("num_features", &[num_features])?;
            if !(eps > 0.0 && eps.is_finite()) {
                return Err(check.attribute("eps", "a finite number above 0", eps));
            }
            if !(0.0..=1.0).contains(&momentum) {
                return Err(check.attribute("momentum", "from 0 to 1", momentum));
            }
            if inputs[0][0] != num_features {
                return Err(check.shape(format!("{num_features} channels or features"), inputs));
            }
            inputs[0].clone()
        }
        Op::Relu | Op::Gelu { .. } => inputs[0].clone(),
        Op::Dropout { p } => {
            if !(0.0..1.0).contains(&p) {
                return Err(check.attribute("p", "from 0 to below 1", p));
            }
            inputs[0].clone()
        }
        Op::Add => {
            if inputs[0] != inputs[1] {
                return Err(check.shape("two inputs of the same shape", inputs));
            }
            inputs[0].clone()
        }
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
        Op::Flatten => vec![inputs[0].iter().product()],
        Op::Concat => {
            let first = inputs[0];
            if inputs.iter().any(|s| s.len() != first.len() || s[1..] != first[1..]) {
                return Err(check.shape("inputs that differ in channels or features alone", inputs));
            }
            let sum = inputs.iter().try_fold(0usize, |n, s| n.checked_add(s[0]));
            let mut shape = first.clone();
            shape[0] = sum.ok_or_else(|| check.too_large("the result"))?;
            shape
        }
    };
    for (_, tensor) in op.tensors() {
        check_elements(node, "a parameter tensor", &tensor)?;
    }
    check_elements(node, "the result", &shape)?;
    Ok(shape)
}

/// Checks the shape of an example.
///
/// # Errors
/// If it is neither an image nor features, has an empty dimension, or is too large.
pub(crate) fn check_input(node: &str, shape: &[usize]) -> Result<()> {
    if !matches!(shape.len(), 1 | 3) || shape.contains(&0) {
        let expected = "[channels, height, width] or [features], each at least 1".to_owned();
        return Err(Error::Shape { node: node.to_owned(), op: "input", expected, got: format!("{shape:?}") });
    }
    check_elements(node, "the input", shape)
}

fn check_elements(node: &str, what: &'static str, shape: &[usize]) -> Result<()> {
    let n_elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
    match n_elements {
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
            Op::Input => (got == 0, "no input"),
            Op::Add => (got == 2, "two inputs"),
            Op::Concat => (got >= 1, "at least one input"),
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
