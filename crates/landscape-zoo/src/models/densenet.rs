//! torchvision's densely connected networks.

use super::request::Request;
use super::resnet::{conv1x1, conv3x3};
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder, Op};

/// A 7x7 stem of stride 2 to 64 channels, a 3x3 pool of stride 2, dense blocks of these numbers of layers with transitions that halve
/// channels and sizes between them, a last norm and relu, the mean over the image, one linear layer. Every layer reads all before it
/// in its block and adds 32 channels by way of 128. A width multiplies 32 and 64.
///
/// # Source
/// torchvision's `densenet.py`; Huang et al. 2017, "Densely connected convolutional networks", DenseNet-BC.
pub(super) fn build(model: &Request, n_layers: [usize; 4]) -> Result<Graph> {
    model.allow(&["width"])?;
    model.check_image(29)?;
    let width = model.width()?;
    let growth = width.of(32);
    let mut b = GraphBuilder::new(model.input_shape);
    let stem = Conv2d { stride: [2, 2], padding: [3, 3], bias: Bias::Off, ..Conv2d::new(width.of(64), 7) };
    let mut x = b.conv2d("features.conv0", b.input(), stem)?;
    x = b.batch_norm("features.norm0", x)?;
    x = b.relu("features.relu0", x)?;
    x = b.push("features.pool0", Op::MaxPool2d { kernel_size: [3, 3], stride: [2, 2], padding: [1, 1] }, &[x])?;
    for (idx, n_layers) in n_layers.into_iter().enumerate() {
        let block = idx + 1;
        let mut parts = vec![x];
        for layer in 1..=n_layers {
            let name = |module: &str| format!("features.denseblock{block}.denselayer{layer}.{module}");
            let mut y = if parts.len() == 1 { x } else { b.concat(&name("concat"), &parts)? };
            y = b.batch_norm(&name("norm1"), y)?;
            y = b.relu(&name("relu1"), y)?;
            y = b.conv2d(&name("conv1"), y, conv1x1(4 * growth, 1))?;
            y = b.batch_norm(&name("norm2"), y)?;
            y = b.relu(&name("relu2"), y)?;
            parts.push(b.conv2d(&name("conv2"), y, conv3x3(growth, 1))?);
        }
        x = b.concat(&format!("features.denseblock{block}.concat"), &parts)?;
        if block < 4 {
            let name = |module: &str| format!("features.transition{block}.{module}");
            x = b.batch_norm(&name("norm"), x)?;
            x = b.relu(&name("relu"), x)?;
            let channels = b.shape(x)?[0] / 2;
            x = b.conv2d(&name("conv"), x, conv1x1(channels, 1))?;
            x = b.avg_pool2d(&name("pool"), x, 2, 2)?;
        }
    }
    x = b.batch_norm("features.norm5", x)?;
    x = b.relu("relu", x)?;
    x = b.global_avg_pool("avgpool", x)?;
    x = b.flatten("flatten", x)?;
    x = b.linear("classifier", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}
