//! torchvision's residual networks, for ImageNet.

use super::norm::Norm;
use super::request::Request;
use super::resnet::{Block, conv1x1, conv3x3};
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder, NodeId, Op};

/// Which block the stages are made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3 (which has the stride) and 1x1 to four times the channels.
    Bottleneck,
}

/// A 7x7 stem of stride 2, a 3x3 pool of stride 2, stages of 64, 128, 256 and 512 channels with these numbers of blocks, the mean
/// over the image, one linear layer. A width multiplies all channels.
///
/// # Source
/// torchvision's `resnet.py`: He et al. 2016 with the stride of a bottleneck in its 3x3 convolution.
pub(super) fn build(model: &Request, kind: Kind, n_blocks: [usize; 4]) -> Result<Graph> {
    model.allow(&["width", Norm::OPTIONS[0], Norm::OPTIONS[1]])?;
    model.check_image(8)?;
    let (width, norm) = (model.width()?, Norm::of(model, Norm::Batch)?);
    let block = Block { norm, shortcut_size: 1 };
    let mut b = GraphBuilder::new(model.input_shape);
    let stem = Conv2d { stride: [2, 2], padding: [3, 3], bias: Bias::Off, ..Conv2d::new(width.of(64), 7) };
    let mut x = b.conv2d("conv1", b.input(), stem)?;
    x = norm.push(&mut b, "bn1", x)?;
    x = b.relu("relu", x)?;
    x = b.push("maxpool", Op::MaxPool2d { kernel_size: [3, 3], stride: [2, 2], padding: [1, 1] }, &[x])?;
    for (stage, (n_blocks, channels)) in n_blocks.into_iter().zip([64, 128, 256, 512]).enumerate() {
        for idx in 0..n_blocks {
            let (path, stride) = (format!("layer{}.{idx}", stage + 1), if stage > 0 && idx == 0 { 2 } else { 1 });
            x = match kind {
                Kind::Basic => block.basic(&mut b, &path, x, width.of(channels), stride)?,
                Kind::Bottleneck => bottleneck(block, &mut b, &path, x, width.of(channels), stride)?,
            };
        }
    }
    x = b.global_avg_pool("avgpool", x)?;
    x = b.flatten("flatten", x)?;
    x = b.linear("fc", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}

/// relu(bn3(conv3(relu(bn2(conv2(relu(bn1(conv1(x)))))))) + shortcut(x)).
fn bottleneck(block: Block, b: &mut GraphBuilder, path: &str, x: NodeId, channels: usize, stride: usize) -> Result<NodeId> {
    let name = |module: &str| format!("{path}.{module}");
    let mut y = b.conv2d(&name("conv1"), x, conv1x1(channels, 1))?;
    y = block.norm.push(b, &name("bn1"), y)?;
    y = b.relu(&name("relu1"), y)?;
    y = b.conv2d(&name("conv2"), y, conv3x3(channels, stride))?;
    y = block.norm.push(b, &name("bn2"), y)?;
    y = b.relu(&name("relu2"), y)?;
    y = b.conv2d(&name("conv3"), y, conv1x1(4 * channels, 1))?;
    y = block.norm.push(b, &name("bn3"), y)?;
    let shortcut = block.shortcut(b, path, x, 4 * channels, stride)?;
    y = b.add(&name("add"), y, shortcut)?;
    Ok(b.relu(&name("relu3"), y)?)
}
