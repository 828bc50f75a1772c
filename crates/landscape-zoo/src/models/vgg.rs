//! VGG for small images, with and without batch norm.

use super::Request;
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder};

/// Channels of the convolutions of each stage; a 2x2 pool ends a stage.
pub(super) const VGG11: [&[usize]; 5] = [&[64], &[128], &[256, 256], &[512, 512], &[512, 512]];
/// As [`VGG11`].
pub(super) const VGG16: [&[usize]; 5] = [&[64, 64], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]];

/// What follows each convolution.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Norm {
    None,
    Batch,
}

/// 3x3 convolutions (with bias, also before batch norm, as torchvision has them), then dropout, 512, dropout, 512, classes.
///
/// # Source
/// Features and their names: torchvision's `vgg.py`. Head: `models/vgg.py` of dnn-mode-connectivity, which for 32x32 images is
/// 512-512-classes. Its forward pass pairs convolution, norm and activation lists of different lengths and so skips most layers of
/// the batch norm variants; here all layers run. Images larger than 32x32 widen the first linear layer; there is no adaptive pool.
pub(super) fn build(model: &Request, stages: &[&[usize]], norm: Norm) -> Result<Graph> {
    model.check_image(32)?;
    let mut b = GraphBuilder::new(model.input_shape);
    let mut x = b.input();
    let mut names = (0..).map(|idx| format!("features.{idx}"));
    let mut next_name = || names.next().expect("the numbers do not end");
    for stage in stages {
        for &channels in *stage {
            x = b.conv2d(&next_name(), x, Conv2d { padding: [1, 1], ..Conv2d::new(channels, 3) })?;
            if norm == Norm::Batch {
                x = b.batch_norm(&next_name(), x)?;
            }
            x = b.relu(&next_name(), x)?;
        }
        x = b.max_pool2d(&next_name(), x, 2, 2)?;
    }
    x = b.flatten("flatten", x)?;
    for idx in [0, 3] {
        x = b.dropout(&format!("classifier.{idx}"), x, 0.5)?;
        x = b.linear(&format!("classifier.{}", idx + 1), x, 512, Bias::On)?;
        x = b.relu(&format!("classifier.{}", idx + 2), x)?;
    }
    x = b.linear("classifier.6", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}
