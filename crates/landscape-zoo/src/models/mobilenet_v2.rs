//! torchvision's MobileNetV2.

use super::mobile::{Activation, BatchNorm, depthwise};
use super::request::Request;
use super::resnet::conv1x1;
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder, NodeId};

/// Per stage: how many times the channels grow inside a block, channels out, blocks, stride of the first.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// A 3x3 stem of stride 2, inverted residuals, a 1x1 convolution to 1280 channels, the mean over the image, dropout, one linear layer.
/// A width multiplies channels in steps of 8, and those at the end only above 1.
///
/// # Source
/// torchvision's `mobilenetv2.py`; Sandler et al. 2018, "MobileNetV2: inverted residuals and linear bottlenecks".
pub(super) fn build(model: &Request) -> Result<Graph> {
    model.allow(&["width"])?;
    model.check_image(8)?;
    let (width, norm) = (model.width()?, BatchNorm::DEFAULT);
    let mut b = GraphBuilder::new(model.input_shape);
    let stem = Conv2d { stride: [2, 2], ..Conv2d::new(width.of_eights(32), 3) };
    let input = b.input();
    let mut x = norm.conv(&mut b, "features.0", input, stem, Activation::Relu6)?;
    let mut idx = 1;
    for (growth, channels, n_blocks, stride) in STAGES {
        for block in 0..n_blocks {
            let stride = if block == 0 { stride } else { 1 };
            x = inverted_residual(&mut b, &format!("features.{idx}"), x, growth, width.of_eights(channels), stride)?;
            idx += 1;
        }
    }
    let last = Conv2d::new(width.at_least_one().of_eights(1280), 1);
    x = norm.conv(&mut b, &format!("features.{idx}"), x, last, Activation::Relu6)?;
    x = b.global_avg_pool("avgpool", x)?;
    x = b.flatten("flatten", x)?;
    x = b.dropout("classifier.0", x, 0.2)?;
    x = b.linear("classifier.1", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}

/// 1x1 to more channels, 3x3 on each, 1x1 to fewer without activation; plus x where the shape stays.
fn inverted_residual(b: &mut GraphBuilder, path: &str, x: NodeId, growth: usize, channels: usize, stride: usize) -> Result<NodeId> {
    let norm = BatchNorm::DEFAULT;
    let mut names = (0..).map(|idx| format!("{path}.conv.{idx}"));
    let mut next_name = || names.next().expect("the numbers do not end");
    let channels_in = b.shape(x)?[0];
    let hidden = channels_in * growth;
    let mut y = x;
    if growth > 1 {
        y = norm.conv(b, &next_name(), y, Conv2d::new(hidden, 1), Activation::Relu6)?;
    }
    y = norm.conv(b, &next_name(), y, depthwise(hidden, 3, stride), Activation::Relu6)?;
    y = b.conv2d(&next_name(), y, conv1x1(channels, 1))?;
    y = b.batch_norm(&next_name(), y)?;
    if stride == 1 && channels_in == channels { Ok(b.add(&format!("{path}.add"), y, x)?) } else { Ok(y) }
}
