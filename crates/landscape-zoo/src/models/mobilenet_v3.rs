//! torchvision's MobileNetV3, small and large.

use super::mobile::{Activation, BatchNorm, depthwise, squeeze_excite};
use super::request::{Request, Width};
use crate::error::Result;
use Activation::{Hardswish as HS, Relu as RE};
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder, NodeId, Op};

/// Whether a block weighs its channels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Squeeze {
    Yes,
    No,
}
use Squeeze::{No, Yes};

/// Kernel, channels inside, channels out, squeeze-and-excitation, activation, stride.
type Row = (usize, usize, usize, Squeeze, Activation, usize);

/// Which of the two.
pub(super) struct Variant {
    rows: &'static [Row],
    last_channels: usize,
}

pub(super) const SMALL: Variant = Variant {
    rows: &[
        (3, 16, 16, Yes, RE, 2),
        (3, 72, 24, No, RE, 2),
        (3, 88, 24, No, RE, 1),
        (5, 96, 40, Yes, HS, 2),
        (5, 240, 40, Yes, HS, 1),
        (5, 240, 40, Yes, HS, 1),
        (5, 120, 48, Yes, HS, 1),
        (5, 144, 48, Yes, HS, 1),
        (5, 288, 96, Yes, HS, 2),
        (5, 576, 96, Yes, HS, 1),
        (5, 576, 96, Yes, HS, 1),
    ],
    last_channels: 1024,
};

pub(super) const LARGE: Variant = Variant {
    rows: &[
        (3, 16, 16, No, RE, 1),
        (3, 64, 24, No, RE, 2),
        (3, 72, 24, No, RE, 1),
        (5, 72, 40, Yes, RE, 2),
        (5, 120, 40, Yes, RE, 1),
        (5, 120, 40, Yes, RE, 1),
        (3, 240, 80, No, HS, 2),
        (3, 200, 80, No, HS, 1),
        (3, 184, 80, No, HS, 1),
        (3, 184, 80, No, HS, 1),
        (3, 480, 112, Yes, HS, 1),
        (3, 672, 112, Yes, HS, 1),
        (5, 672, 160, Yes, HS, 2),
        (5, 960, 160, Yes, HS, 1),
        (5, 960, 160, Yes, HS, 1),
    ],
    last_channels: 1280,
};

/// A 3x3 stem of stride 2 to 16 channels, inverted residuals, a 1x1 convolution to six times the channels, the mean over the image,
/// two linear layers with hardswish and dropout between them. A width multiplies channels in steps of 8.
///
/// # Source
/// torchvision's `mobilenetv3.py`; Howard et al. 2019, "Searching for MobileNetV3", tables 1 and 2.
pub(super) fn build(model: &Request, variant: &Variant) -> Result<Graph> {
    model.allow(&["width"])?;
    model.check_image(8)?;
    let (width, norm) = (model.width()?, BatchNorm::MOBILE_NET_V3);
    let mut b = GraphBuilder::new(model.input_shape);
    let stem = Conv2d { stride: [2, 2], ..Conv2d::new(width.of_eights(16), 3) };
    let input = b.input();
    let mut x = norm.conv(&mut b, "features.0", input, stem, HS)?;
    for (idx, row) in variant.rows.iter().enumerate() {
        x = inverted_residual(&mut b, &format!("features.{}", idx + 1), x, row, width)?;
    }
    let channels = 6 * b.shape(x)?[0];
    x = norm.conv(&mut b, &format!("features.{}", variant.rows.len() + 1), x, Conv2d::new(channels, 1), HS)?;
    x = b.global_avg_pool("avgpool", x)?;
    x = b.flatten("flatten", x)?;
    x = b.linear("classifier.0", x, width.of_eights(variant.last_channels), Bias::On)?;
    x = HS.push(&mut b, "classifier.1", x)?;
    x = b.dropout("classifier.2", x, 0.2)?;
    x = b.linear("classifier.3", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}

fn inverted_residual(b: &mut GraphBuilder, path: &str, x: NodeId, row: &Row, width: Width) -> Result<NodeId> {
    let &(kernel, hidden, channels, squeeze, activation, stride) = row;
    let (hidden, channels, norm) = (width.of_eights(hidden), width.of_eights(channels), BatchNorm::MOBILE_NET_V3);
    let mut names = (0..).map(|idx| format!("{path}.block.{idx}"));
    let mut next_name = || names.next().expect("the numbers do not end");
    let channels_in = b.shape(x)?[0];
    let mut y = x;
    if hidden != channels_in {
        y = norm.conv(b, &next_name(), y, Conv2d::new(hidden, 1), activation)?;
    }
    y = norm.conv(b, &next_name(), y, depthwise(hidden, kernel, stride), activation)?;
    if squeeze == Yes {
        y = squeeze_excite(b, &next_name(), y, Width::ONE.of_eights(hidden / 4), RE, Op::Hardsigmoid)?;
    }
    y = norm.conv(b, &next_name(), y, Conv2d::new(channels, 1), Activation::None)?;
    if stride == 1 && channels_in == channels { Ok(b.add(&format!("{path}.add"), y, x)?) } else { Ok(y) }
}
