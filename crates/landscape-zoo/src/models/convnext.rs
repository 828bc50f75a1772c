//! torchvision's ConvNeXt.

use super::norm::layer_norm2d;
use super::request::Request;
use super::sequence::Sequence;
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Gelu, Graph, GraphBuilder, NodeId, Op};

/// Channels and blocks of the stages of ConvNeXt-T.
const TINY: [(usize, usize); 4] = [(96, 3), (192, 3), (384, 9), (768, 3)];

/// A 4x4 stem of stride 4 with layer norm, four stages with layer norm and a 2x2 convolution of stride 2 between them, the mean over the
/// image, layer norm, one linear layer. A width multiplies all channels. Stochastic depth (0.1 in torchvision's training) is no part
/// of the graph: every block is always there.
///
/// # Source
/// torchvision's `convnext.py`; Liu et al. 2022, "A ConvNet for the 2020s".
pub(super) fn build_tiny(model: &Request) -> Result<Graph> {
    model.allow(&["width"])?;
    model.check_image(32)?;
    let width = model.width()?;
    let mut b = GraphBuilder::new(model.input_shape);
    let mut x = b.conv2d("features.0.0", b.input(), Conv2d { stride: [4, 4], ..Conv2d::new(width.of(TINY[0].0), 4) })?;
    x = layer_norm2d(&mut b, "features.0.1", x)?;
    for (idx, (channels, n_blocks)) in TINY.into_iter().enumerate() {
        if idx > 0 {
            x = layer_norm2d(&mut b, &format!("features.{}.0", 2 * idx), x)?;
            let conv = Conv2d { stride: [2, 2], ..Conv2d::new(width.of(channels), 2) };
            x = b.conv2d(&format!("features.{}.1", 2 * idx), x, conv)?;
        }
        for block_idx in 0..n_blocks {
            x = block(&mut b, &format!("features.{}.{block_idx}", 2 * idx + 1), x)?;
        }
    }
    x = b.global_avg_pool("avgpool", x)?;
    x = layer_norm2d(&mut b, "classifier.0", x)?;
    x = b.flatten("classifier.1", x)?;
    x = b.linear("classifier.2", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}

/// x plus layer_scale times: 7x7 on each channel, layer norm, four times the channels, gelu, back.
fn block(b: &mut GraphBuilder, path: &str, x: NodeId) -> Result<NodeId> {
    let name = |module: &str| format!("{path}.{module}");
    let channels = b.shape(x)?[0];
    let scale = b.push(&name("layer_scale"), Op::Parameter { shape: vec![channels, 1, 1] }, &[])?;
    let conv = Conv2d { padding: [3, 3], groups: channels, ..Conv2d::new(channels, 7) };
    let mut y = b.conv2d(&name("block.0"), x, conv)?;
    y = b.permute(&name("block.1"), y, &[1, 2, 0])?;
    y = b.layer_norm(&name("block.2"), y, 1e-6)?;
    y = b.linear(&name("block.3"), y, 4 * channels, Bias::On)?;
    y = b.gelu(&name("block.4"), y, Gelu::None)?;
    y = b.linear(&name("block.5"), y, channels, Bias::On)?;
    y = b.permute(&name("block.6"), y, &[2, 0, 1])?;
    y = b.push(&name("scale"), Op::Multiply, &[y, scale])?;
    Ok(b.add(&name("add"), y, x)?)
}
