//! Plain convolutional networks: a small one with batch norm, and the reference's ConvFC.

use super::request::Request;
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder};

/// Three 3x3 convolutions with batch norm, half the size after the second, the mean over the image, one linear layer. Small enough
/// to train on 8x8 digits in seconds; the mean lets it take images of any size.
pub(super) fn cnn(model: &Request) -> Result<Graph> {
    model.allow(&[])?;
    model.check_image(8)?;
    let mut b = GraphBuilder::new(model.input_shape);
    let mut x = b.input();
    for (layer, channels) in [(1, 16), (2, 32), (3, 64)] {
        if layer == 3 {
            x = b.max_pool2d("pool2", x, 2, 2)?;
        }
        x = b.conv2d(&format!("conv{layer}"), x, Conv2d { padding: [1, 1], bias: Bias::Off, ..Conv2d::new(channels, 3) })?;
        x = b.batch_norm(&format!("bn{layer}"), x)?;
        x = b.relu(&format!("relu{layer}"), x)?;
    }
    x = b.global_avg_pool("avgpool", x)?;
    x = b.flatten("flatten", x)?;
    x = b.linear("fc", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}

/// Three 5x5 convolutions, each followed by a 3x3 pool of stride 2, then linear layers of 1000, 1000 and the classes.
///
/// # Source
/// `ConvFCBase` in `models/convfc.py` of dnn-mode-connectivity. Ours is the same for 32x32 images of three channels; there the
/// first linear layer is fixed to their 1152 features, here it follows the image.
pub(super) fn convfc(model: &Request) -> Result<Graph> {
    model.allow(&[])?;
    model.check_image(15)?;
    let mut b = GraphBuilder::new(model.input_shape);
    let mut x = b.input();
    for (idx, channels) in [(0, 32), (3, 64), (6, 128)] {
        x = b.conv2d(&format!("conv_part.{idx}"), x, Conv2d { padding: [2, 2], ..Conv2d::new(channels, 5) })?;
        x = b.relu(&format!("conv_part.{}", idx + 1), x)?;
        x = b.max_pool2d(&format!("conv_part.{}", idx + 2), x, 3, 2)?;
    }
    x = b.flatten("flatten", x)?;
    for idx in [0, 2] {
        x = b.linear(&format!("fc_part.{idx}"), x, 1000, Bias::On)?;
        x = b.relu(&format!("fc_part.{}", idx + 1), x)?;
    }
    x = b.linear("fc_part.4", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}
