//! Residual networks with norm and activation before each convolution.

use super::norm::Norm;
use super::request::Request;
use super::resnet::{conv1x1, conv3x3};
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder, NodeId};

/// A 3x3 stem of 16 channels, three stages of 16, 32 and 64 channels, a last norm and relu, the mean over the image, one linear
/// layer. Each block adds its convolutions to x, or to a 1x1 convolution of x where the shape changes. A width multiplies all
/// channels.
///
/// # Source
/// He et al. 2016, "Identity mappings in deep residual networks": pairs of 3x3 convolutions at depth 20 and 110, bottlenecks of
/// 1x1, 3x3 and 1x1 at 164. Names and the projections (the paper pads or projects): `models/cifar/preresnet.py` of
/// pytorch-classification, which dnn-mode-connectivity took over; the latter makes depth 110 of bottlenecks too.
pub(super) fn build(model: &Request, depth: usize) -> Result<Graph> {
    model.allow(&["width", Norm::OPTIONS[0], Norm::OPTIONS[1]])?;
    model.check_image(8)?;
    let (width, norm) = (model.width()?, Norm::of(model, Norm::Batch)?);
    let bottleneck = depth == 164;
    let n_blocks = if bottleneck { (depth - 2) / 9 } else { (depth - 2) / 6 };
    let mut b = GraphBuilder::new(model.input_shape);
    let mut x = b.conv2d("conv1", b.input(), conv3x3(width.of(16), 1))?;
    for (stage, channels) in [(1, 16), (2, 32), (3, 64)] {
        for idx in 0..n_blocks {
            let stride = if stage > 1 && idx == 0 { 2 } else { 1 };
            let channels = width.of(channels);
            let convs: &[Conv2d] = match bottleneck {
                true => &[conv1x1(channels, 1), conv3x3(channels, stride), conv1x1(4 * channels, 1)],
                false => &[conv3x3(channels, stride), conv3x3(channels, 1)],
            };
            x = block(&mut b, norm, &format!("layer{stage}.{idx}"), x, convs, stride)?;
        }
    }
    x = norm.push(&mut b, "bn", x)?;
    x = b.relu("relu", x)?;
    x = b.global_avg_pool("avgpool", x)?;
    x = b.flatten("flatten", x)?;
    x = b.linear("fc", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}

/// Norm, relu and convolution as often as there are convolutions, plus the shortcut.
fn block(b: &mut GraphBuilder, norm: Norm, path: &str, x: NodeId, convs: &[Conv2d], stride: usize) -> Result<NodeId> {
    let mut y = x;
    for (idx, &conv) in convs.iter().enumerate() {
        let layer = idx + 1;
        y = norm.push(b, &format!("{path}.bn{layer}"), y)?;
        y = b.relu(&format!("{path}.relu{layer}"), y)?;
        y = b.conv2d(&format!("{path}.conv{layer}"), y, conv)?;
    }
    let channels = b.shape(y)?[0];
    let mut shortcut = x;
    if stride > 1 || b.shape(x)?[0] != channels {
        shortcut = b.conv2d(&format!("{path}.downsample.0"), x, conv1x1(channels, stride))?;
    }
    Ok(b.add(&format!("{path}.add"), y, shortcut)?)
}
