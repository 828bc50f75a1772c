//! Architectures as graphs, with PyTorch's parameter names.

mod mlp;
mod conv;
mod vgg;
mod resnet;

use crate::error::{Error, Result};
use landscape_graph::Graph;

/// The models that [`build`] knows by name; `mlp:` takes any widths besides.
pub const KNOWN: [&str; 10] = ["mlp", "cnn", "convfc", "vgg11", "vgg16", "vgg11_bn", "vgg16_bn", "resnet20", "resnet32", "resnet56"];

/// Builds the network that `spec` names for examples of `input_shape`.
///
/// | spec | what | tensors |
/// |---|---|---|
/// | `mlp:784-512-512-512-10` | linear layers of these widths, the first and last those of the data, ReLU between them | `fc1.weight`, `fc1.bias`, `fc2.weight`, … |
/// | `mlp` | the same with two hidden layers of 128 for up to 256 inputs, else three of 512 | |
/// | `cnn` | three 3x3 convolutions of 16, 32 and 64 channels with batch norm, for images of 8x8 and larger | `conv1.weight`, `bn1.weight`, …, `fc.weight` |
/// | `convfc` | the reference's ConvFC, for images of 15x15 and larger | `conv_part.0.weight`, …, `fc_part.4.bias` |
/// | `vgg11`, `vgg16`, `vgg11_bn`, `vgg16_bn` | torchvision's layers with the reference's 512-512-classes head, for 32x32 and larger | `features.0.weight`, …, `classifier.6.bias` |
/// | `resnet20`, `resnet32`, `resnet56` | the CIFAR ResNet with projection shortcuts | `conv1.weight`, `layer1.0.bn1.weight`, `layer2.0.downsample.0.weight`, …, `fc.bias` |
///
/// # Shapes
/// `input_shape` is `[channels, height, width]` or `[features]`; an MLP flattens images (channel, height, width).
/// The result is `[n_outputs]`: classes or regression targets.
///
/// # Errors
/// If the spec is not known (the message lists the known ones), or does not fit the shape.
///
/// ```
/// let graph = landscape_zoo::models::build("resnet20", &[3, 32, 32], 10)?;
/// assert_eq!(graph.n_parameters(), 272_474);
/// # Ok::<(), landscape_zoo::Error>(())
/// ```
pub fn build(spec: &str, input_shape: &[usize], n_outputs: usize) -> Result<Graph> {
    let model = Request { spec, input_shape, n_outputs };
    match spec {
        "mlp" => mlp::default(&model),
        "cnn" => conv::cnn(&model),
        "convfc" => conv::convfc(&model),
        "vgg11" => vgg::build(&model, &vgg::VGG11, vgg::Norm::None),
        "vgg16" => vgg::build(&model, &vgg::VGG16, vgg::Norm::None),
        "vgg11_bn" => vgg::build(&model, &vgg::VGG11, vgg::Norm::Batch),
        "vgg16_bn" => vgg::build(&model, &vgg::VGG16, vgg::Norm::Batch),
        "resnet20" => resnet::build(&model, 3),
        "resnet32" => resnet::build(&model, 5),
        "resnet56" => resnet::build(&model, 9),
        _ => match spec.strip_prefix("mlp:") {
            Some(widths) => mlp::of_widths(&model, widths),
            None => Err(Error::UnknownModel { got: spec.to_owned(), known: KNOWN.map(|m| format!("`{m}`")).join(", ") }),
        },
    }
}

/// What is asked for.
struct Request<'a> {
    spec: &'a str,
    input_shape: &'a [usize],
    n_outputs: usize,
}

impl Request<'_> {
    fn misfit(&self, expected: impl Into<String>, got: impl Into<String>) -> Error {
        Error::Model { spec: self.spec.to_owned(), expected: expected.into(), got: got.into() }
    }

    /// Refuses features, and images too small for the pooling that follows.
    fn check_image(&self, least: usize) -> Result<()> {
        match *self.input_shape {
            [_, height, width] if height >= least && width >= least => Ok(()),
            _ => {
                Err(self.misfit(format!("images [channels, height, width] of at least {least}x{least}"), format!("{:?}", self.input_shape)))
            }
        }
    }
}
