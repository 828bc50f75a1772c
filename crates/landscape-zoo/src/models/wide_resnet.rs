//! Wide residual networks for CIFAR.

use super::norm::Norm;
use super::request::Request;
use super::resnet::{conv1x1, conv3x3};
use crate::error::Result;
use landscape_graph::{Bias, Graph, GraphBuilder, NodeId};

/// A 3x3 stem of 16 channels, three stages of 16k, 32k and 64k channels with four blocks each, a last norm and relu, the mean over
/// the image, one linear layer. Where the shape changes, the shortcut is a 1x1 convolution of relu(bn1(x)), not of x.
///
/// # Source
/// Zagoruyko and Komodakis 2016, "Wide residual networks", WRN-28-k with blocks B(3,3) and no dropout; module names of
/// WideResNet-pytorch (`wideresnet.py`).
pub(super) fn build28(model: &Request) -> Result<Graph> {
    model.allow(&["k", Norm::OPTIONS[0], Norm::OPTIONS[1]])?;
    model.check_image(8)?;
    let (k, norm) = (model.size("k", 10)?, Norm::of(model, Norm::Batch)?);
    let mut b = GraphBuilder::new(model.input_shape);
    let mut x = b.conv2d("conv1", b.input(), conv3x3(16, 1))?;
    for (stage, channels) in [(1, 16 * k), (2, 32 * k), (3, 64 * k)] {
        for idx in 0..4 {
            let stride = if stage > 1 && idx == 0 { 2 } else { 1 };
            x = block(&mut b, norm, &format!("block{stage}.layer.{idx}"), x, channels, stride)?;
        }
    }
    x = norm.push(&mut b, "bn1", x)?;
    x = b.relu("relu", x)?;
    x = b.global_avg_pool("avgpool", x)?;
    x = b.flatten("flatten", x)?;
    x = b.linear("fc", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}

fn block(b: &mut GraphBuilder, norm: Norm, path: &str, x: NodeId, channels: usize, stride: usize) -> Result<NodeId> {
    let name = |module: &str| format!("{path}.{module}");
    let mut active = norm.push(b, &name("bn1"), x)?;
    active = b.relu(&name("relu1"), active)?;
    let mut y = b.conv2d(&name("conv1"), active, conv3x3(channels, stride))?;
    y = norm.push(b, &name("bn2"), y)?;
    y = b.relu(&name("relu2"), y)?;
    y = b.conv2d(&name("conv2"), y, conv3x3(channels, 1))?;
    let mut shortcut = x;
    // As published: the channels decide. For k = 1 the first stage has 16 already.
    if b.shape(x)?[0] != channels {
        shortcut = b.conv2d(&name("convShortcut"), active, conv1x1(channels, stride))?;
    }
    Ok(b.add(&name("add"), y, shortcut)?)
}
