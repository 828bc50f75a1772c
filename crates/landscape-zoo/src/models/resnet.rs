//! Residual networks for CIFAR, and the basic block.

use super::norm::Norm;
use super::request::Request;
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder, NodeId};

/// A 3x3 stem of 16 channels, three stages of 16, 32 and 64 channels with `n_blocks` basic blocks each (depth 6·n_blocks + 2),
/// the mean over the image, one linear layer. A width multiplies all channels.
///
/// # Source
/// He et al. 2016, "Deep residual learning for image recognition", section 4.2. The paper's CIFAR networks pad the shortcut with
/// zeros (option A, 269,722 parameters for depth 20); ours project it (option B: 1x1 convolution and batch norm), with the module
/// names of torchvision's `resnet.py`, and have 272,474. `norm=layer` is `resnet20.py` of git-re-basin, which projects by a 3x3
/// convolution; its strided convolutions pad below and right alone, ours on both sides as PyTorch does.
pub(super) fn build(model: &Request, n_blocks: usize) -> Result<Graph> {
    model.allow(&["width", Norm::OPTIONS[0], Norm::OPTIONS[1]])?;
    // Two strides of two leave at least one pixel of any image, but 8x8 is the least that still is one.
    model.check_image(8)?;
    let (width, norm) = (model.width()?, Norm::of(model, Norm::Batch)?);
    let block = Block { norm, shortcut_size: if norm == Norm::Layer { 3 } else { 1 } };
    let mut b = GraphBuilder::new(model.input_shape);
    let mut x = b.conv2d("conv1", b.input(), conv3x3(width.of(16), 1))?;
    x = norm.push(&mut b, "bn1", x)?;
    x = b.relu("relu", x)?;
    for (stage, channels) in [(1, 16), (2, 32), (3, 64)] {
        for idx in 0..n_blocks {
            let stride = if stage > 1 && idx == 0 { 2 } else { 1 };
            x = block.basic(&mut b, &format!("layer{stage}.{idx}"), x, width.of(channels), stride)?;
        }
    }
    x = b.global_avg_pool("avgpool", x)?;
    x = b.flatten("flatten", x)?;
    x = b.linear("fc", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}

/// What the blocks of one network share.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) norm: Norm,
    /// The window of the convolution of a projected shortcut.
    pub(super) shortcut_size: usize,
}

impl Block {
    /// relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)).
    pub(super) fn basic(self, b: &mut GraphBuilder, path: &str, x: NodeId, channels: usize, stride: usize) -> Result<NodeId> {
        let name = |module: &str| format!("{path}.{module}");
        let mut y = b.conv2d(&name("conv1"), x, conv3x3(channels, stride))?;
        y = self.norm.push(b, &name("bn1"), y)?;
        y = b.relu(&name("relu1"), y)?;
        y = b.conv2d(&name("conv2"), y, conv3x3(channels, 1))?;
        y = self.norm.push(b, &name("bn2"), y)?;
        let shortcut = self.shortcut(b, path, x, channels, stride)?;
        y = b.add(&name("add"), y, shortcut)?;
        Ok(b.relu(&name("relu2"), y)?)
    }

    /// x, or where its shape changes a convolution of it and a norm.
    pub(super) fn shortcut(self, b: &mut GraphBuilder, path: &str, x: NodeId, channels: usize, stride: usize) -> Result<NodeId> {
        if stride == 1 && b.shape(x)?[0] == channels {
            return Ok(x);
        }
        let padding = [self.shortcut_size / 2; 2];
        let projection = Conv2d { stride: [stride; 2], padding, bias: Bias::Off, ..Conv2d::new(channels, self.shortcut_size) };
        let x = b.conv2d(&format!("{path}.downsample.0"), x, projection)?;
        self.norm.push(b, &format!("{path}.downsample.1"), x)
    }
}

/// Without bias.
pub(super) fn conv3x3(channels: usize, stride: usize) -> Conv2d {
    Conv2d { stride: [stride; 2], padding: [1, 1], bias: Bias::Off, ..Conv2d::new(channels, 3) }
}

/// Without bias.
pub(super) fn conv1x1(channels: usize, stride: usize) -> Conv2d {
    Conv2d { stride: [stride; 2], bias: Bias::Off, ..Conv2d::new(channels, 1) }
}
