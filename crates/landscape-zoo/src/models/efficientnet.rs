//! torchvision's EfficientNet-B0.

use super::mobile::{Activation, BatchNorm, depthwise, squeeze_excite};
use super::request::{Request, Width};
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder, NodeId, Op};

/// Per stage: how many times the channels grow inside a block, kernel, stride of the first, channels out, blocks.
const STAGES: [(usize, usize, usize, usize, usize); 7] =
    [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)];

/// A 3x3 stem of stride 2, inverted residuals with squeeze-and-excitation, a 1x1 convolution to four times the channels, the mean over
/// the image, dropout, one linear layer. A width multiplies channels in steps of 8. Stochastic depth (0.2 in torchvision's
/// training) is no part of the graph: every block is always there.
///
/// # Source
/// torchvision's `efficientnet.py`; Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks".
pub(super) fn build_b0(model: &Request) -> Result<Graph> {
    model.allow(&["width"])?;
    model.check_image(8)?;
    let (width, norm) = (model.width()?, BatchNorm::DEFAULT);
    let mut b = GraphBuilder::new(model.input_shape);
    let stem = Conv2d { stride: [2, 2], ..Conv2d::new(width.of_eights(32), 3) };
    let input = b.input();
    let mut x = norm.conv(&mut b, "features.0", input, stem, Activation::Silu)?;
    for (idx, (growth, kernel, stride, channels, n_blocks)) in STAGES.into_iter().enumerate() {
        for block in 0..n_blocks {
            let path = format!("features.{}.{block}", idx + 1);
            let conv = (kernel, if block == 0 { stride } else { 1 });
            x = inverted_residual(&mut b, &path, x, growth, width.of_eights(channels), conv)?;
        }
    }
    let channels = 4 * b.shape(x)?[0];
    x = norm.conv(&mut b, "features.8", x, Conv2d::new(channels, 1), Activation::Silu)?;
    x = b.global_avg_pool("avgpool", x)?;
    x = b.flatten("flatten", x)?;
    x = b.dropout("classifier.0", x, 0.2)?;
    x = b.linear("classifier.1", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}

/// 1x1 to more channels, `(kernel, stride)` on each, their weights, 1x1 to fewer; plus x where the shape stays.
fn inverted_residual(
    b: &mut GraphBuilder,
    path: &str,
    x: NodeId,
    growth: usize,
    channels: usize,
    (kernel, stride): (usize, usize),
) -> Result<NodeId> {
    let norm = BatchNorm::DEFAULT;
    let mut names = (0..).map(|idx| format!("{path}.block.{idx}"));
    let mut next_name = || names.next().expect("the numbers do not end");
    let channels_in = b.shape(x)?[0];
    let hidden = Width::ONE.of_eights(channels_in * growth);
    let mut y = x;
    if hidden != channels_in {
        y = norm.conv(b, &next_name(), y, Conv2d::new(hidden, 1), Activation::Silu)?;
    }
    y = norm.conv(b, &next_name(), y, depthwise(hidden, kernel, stride), Activation::Silu)?;
    y = squeeze_excite(b, &next_name(), y, (channels_in / 4).max(1), Activation::Silu, Op::Sigmoid)?;
    y = norm.conv(b, &next_name(), y, Conv2d::new(channels, 1), Activation::None)?;
    if stride == 1 && channels_in == channels { Ok(b.add(&format!("{path}.add"), y, x)?) } else { Ok(y) }
}
