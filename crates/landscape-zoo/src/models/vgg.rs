//! VGG for small images, with and without a norm.

use super::norm::Norm;
use super::request::Request;
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder};

/// Convolutions of 64, 128, 256, 512 and 512 channels; a 2x2 pool ends a stage.
type Stages = [usize; 5];
pub(super) const VGG11: Stages = [1, 1, 2, 2, 2];
pub(super) const VGG13: Stages = [2, 2, 2, 2, 2];
pub(super) const VGG16: Stages = [2, 2, 3, 3, 3];
pub(super) const VGG19: Stages = [2, 2, 4, 4, 4];

/// The one with torchvision's batch norm.
pub(super) fn with_batch_norm(model: &Request, stages: Stages) -> Result<Graph> {
    model.allow(&["width"])?;
    build(model, stages, Norm::Batch)
}

/// The plain one, or with the norm that is asked for.
pub(super) fn with_options(model: &Request, stages: Stages) -> Result<Graph> {
    model.allow(&["width", Norm::OPTIONS[0], Norm::OPTIONS[1]])?;
    build(model, stages, Norm::of(model, Norm::None)?)
}

/// 3x3 convolutions (with bias, also before a norm, as torchvision has them), then dropout, 512, dropout, 512, classes. A width
/// multiplies all channels and both 512.
///
/// # Source
/// Features and their names: torchvision's `vgg.py`. Head: `models/vgg.py` of dnn-mode-connectivity, which for 32x32 images is
/// 512-512-classes. Its forward pass pairs convolution, norm and activation lists of different lengths and so skips most layers of
/// the batch norm variants; here all layers run. Images larger than 32x32 widen the first linear layer; there is no adaptive pool.
/// `norm=layer` is `cifar10_vgg_run.py` of git-re-basin, whose widths are `width` times 64 here, and which has no dropout.
fn build(model: &Request, stages: Stages, norm: Norm) -> Result<Graph> {
    model.check_image(32)?;
    let width = model.width()?;
    let mut b = GraphBuilder::new(model.input_shape);
    let mut x = b.input();
    let mut names = (0..).map(|idx| format!("features.{idx}"));
    let mut next_name = || names.next().expect("the numbers do not end");
    for (n_convs, channels) in stages.into_iter().zip([64, 128, 256, 512, 512]) {
        for _ in 0..n_convs {
            x = b.conv2d(&next_name(), x, Conv2d { padding: [1, 1], ..Conv2d::new(width.of(channels), 3) })?;
            if norm != Norm::None {
                x = norm.push(&mut b, &next_name(), x)?;
            }
            x = b.relu(&next_name(), x)?;
        }
        x = b.max_pool2d(&next_name(), x, 2, 2)?;
    }
    x = b.flatten("flatten", x)?;
    for idx in [0, 3] {
        if norm != Norm::Layer {
            x = b.dropout(&format!("classifier.{idx}"), x, 0.5)?;
        }
        x = b.linear(&format!("classifier.{}", idx + 1), x, width.of(512), Bias::On)?;
        x = b.relu(&format!("classifier.{}", idx + 2), x)?;
    }
    x = b.linear("classifier.6", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}
