//! Residual networks for CIFAR.

use super::Request;
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder, NodeId};

/// A 3x3 stem of 16 channels, three stages of 16, 32 and 64 channels with `n_blocks` basic blocks each (depth 6·n_blocks + 2),
/// the mean over the image, one linear layer.
///
/// # Source
/// He et al. 2016, "Deep residual learning for image recognition", section 4.2. The paper's CIFAR networks pad the shortcut with
/// zeros (option A, 269,722 parameters for depth 20); ours project it (option B: 1x1 convolution and batch norm), with the module
/// names of torchvision's `resnet.py`, and have 272,474.
pub(super) fn build(model: &Request, n_blocks: usize) -> Result<Graph> {
    // Two strides of two leave at least one pixel of any image, but 8x8 is the least that still is one.
    model.check_image(8)?;
    let mut b = GraphBuilder::new(model.input_shape);
    let mut x = b.conv2d("conv1", b.input(), conv3x3(16, 1))?;
    x = b.batch_norm("bn1", x)?;
    x = b.relu("relu", x)?;
    for (stage, channels) in [(1, 16), (2, 32), (3, 64)] {
        for block in 0..n_blocks {
            let stride = if stage > 1 && block == 0 { 2 } else { 1 };
            x = basic_block(&mut b, &format!("layer{stage}.{block}"), x, channels, stride)?;
        }
    }
    x = b.global_avg_pool("avgpool", x)?;
    x = b.flatten("flatten", x)?;
    x = b.linear("fc", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}

/// relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)).
fn basic_block(b: &mut GraphBuilder, path: &str, x: NodeId, channels: usize, stride: usize) -> Result<NodeId> {
    let name = |module: &str| format!("{path}.{module}");
    let mut y = b.conv2d(&name("conv1"), x, conv3x3(channels, stride))?;
    y = b.batch_norm(&name("bn1"), y)?;
    y = b.relu(&name("relu1"), y)?;
    y = b.conv2d(&name("conv2"), y, conv3x3(channels, 1))?;
    y = b.batch_norm(&name("bn2"), y)?;
    let mut shortcut = x;
    if b.shape(x)? != b.shape(y)? {
        let projection = Conv2d { stride: [stride; 2], bias: Bias::Off, ..Conv2d::new(channels, 1) };
        shortcut = b.conv2d(&name("downsample.0"), x, projection)?;
        shortcut = b.batch_norm(&name("downsample.1"), shortcut)?;
    }
    y = b.add(&name("add"), y, shortcut)?;
    Ok(b.relu(&name("relu2"), y)?)
}

fn conv3x3(channels: usize, stride: usize) -> Conv2d {
    Conv2d { stride: [stride; 2], padding: [1, 1], bias: Bias::Off, ..Conv2d::new(channels, 3) }
}
