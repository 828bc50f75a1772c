//! Architectures as graphs, with PyTorch's parameter names.

mod request;
mod sequence;
mod norm;
mod mlp;
mod conv;
mod vgg;
mod resnet;
mod preresnet;
mod wide_resnet;
mod imagenet_resnet;
mod densenet;
mod mobile;
mod mobilenet_v2;
mod mobilenet_v3;
mod efficientnet;
mod convnext;
mod attention;
mod vit;
mod gpt;
mod bert;
mod llama;

use crate::error::{Error, Result};
use imagenet_resnet::Kind;
use landscape_graph::Graph;
use request::Request;

/// The models that [`build`] knows by name; `mlp:` takes any widths besides.
pub const KNOWN: [&str; 35] = [
    "mlp",
    "cnn",
    "convfc",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg11_bn",
    "vgg13_bn",
    "vgg16_bn",
    "vgg19_bn",
    "resnet20",
    "resnet32",
    "resnet56",
    "preresnet20",
    "preresnet110",
    "preresnet164",
    "wrn28",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_16",
    "vit_tiny",
    "gpt",
    "gpt2",
    "bert",
    "llama",
];

/// Builds the network that `spec` names for examples of `input_shape`: a name, or `name:key=value,key=value`.
///
/// | spec | what | options | tensors |
/// |---|---|---|---|
/// | `mlp:784-512-512-512-10` | linear layers of these widths, the first and last those of the data, ReLU between them | | `fc1.weight`, `fc1.bias`, `fc2.weight`, … |
/// | `mlp` | the same with two hidden layers of 128 for up to 256 inputs, else three of 512 | | |
/// | `cnn` | three 3x3 convolutions of 16, 32 and 64 channels with batch norm, for images of 8x8 and larger | | `conv1.weight`, `bn1.weight`, …, `fc.weight` |
/// | `convfc` | the reference's ConvFC, for images of 15x15 and larger | | `conv_part.0.weight`, …, `fc_part.4.bias` |
/// | `vgg11`, `vgg13`, `vgg16`, `vgg19` | torchvision's layers with the reference's 512-512-classes head, for 32x32 and larger | `width`, `norm`, `groups` | `features.0.weight`, …, `classifier.6.bias` |
/// | `vgg11_bn`, `vgg13_bn`, `vgg16_bn`, `vgg19_bn` | the same with batch norm | `width` | |
/// | `resnet20`, `resnet32`, `resnet56` | the CIFAR ResNet with projection shortcuts | `width`, `norm`, `groups` | `conv1.weight`, `layer1.0.bn1.weight`, `layer2.0.downsample.0.weight`, …, `fc.bias` |
/// | `preresnet20`, `preresnet110`, `preresnet164` | the CIFAR ResNet with norm and activation first | `width`, `norm`, `groups` | `conv1.weight`, `layer1.0.bn1.weight`, …, `bn.weight`, `fc.bias` |
/// | `wrn28` | WideResNet-28-k | `k` (10), `norm`, `groups` | `conv1.weight`, `block1.layer.0.bn1.weight`, …, `fc.bias` |
/// | `resnet18`, `resnet34`, `resnet50`, `resnet101`, `resnet152` | torchvision's | `width`, `norm`, `groups` | torchvision's |
/// | `densenet121` | torchvision's, for 29x29 and larger | `width` | torchvision's |
/// | `mobilenet_v2`, `mobilenet_v3_small`, `mobilenet_v3_large`, `efficientnet_b0` | torchvision's | `width`, in steps of 8 channels | torchvision's |
/// | `convnext_tiny` | torchvision's, for 32x32 and larger | `width` | torchvision's |
/// | `vit_b_16` | torchvision's | `width` (768), `depth` (12), `heads` (12), `mlp` (3072), `patch` (16) | torchvision's |
/// | `vit_tiny` | the shape of ViT-Lite-6/4 for 32x32 images | `width` (256), `depth` (6), `heads` (4), `mlp` (512), `patch` (4) | as `vit_b_16` |
/// | `gpt` | nanoGPT's, for characters | `layers` (4), `width` (128), `heads` (4), `block`, `bias` (`off`), `dropout` (0) | `transformer.wte.weight`, … |
/// | `gpt2` | GPT-2 | `layers` (12), `width` (768), `heads` (12), `block` (1024) | Hugging Face's |
/// | `bert` | BERT-base with the head for masked tokens | `layers` (12), `width` (768), `heads` (12), `block` (512) | Hugging Face's |
/// | `llama` | Llama 2 7B | `layers` (32), `width` (4096), `heads` (32), `kv_heads`, `hidden`, `base` (10000) | Hugging Face's |
///
/// In convolutional networks `width` multiplies all channels, in transformers it is the length of a token's vector. `norm` is `batch`,
/// `layer` (over the channels of each pixel, as the published git-re-basin networks have it) or `group` (of `groups` groups, 8
/// unless said); for the plain VGG also `none`. Dropout is where it was published, but not on attention weights. Stochastic depth is no
/// part of a graph.
///
/// # Shapes
/// `input_shape` is `[channels, height, width]` or `[features]`; an MLP flattens images (channel, height, width).
/// The result is `[n_outputs]`: classes or regression targets. For models of language it is `[tokens]` and the result
/// `[tokens, n_outputs]`: logits of a vocabulary at every place.
///
/// # Errors
/// If the spec is not known (the message lists the known ones), has an option that the model does not (the message lists those that
/// it has), or does not fit the shape.
///
/// ```
/// use landscape_zoo::models::build;
/// assert_eq!(build("resnet20", &[3, 32, 32], 10)?.n_parameters(), 272_474);
/// assert_eq!(build("resnet20:width=2,norm=layer", &[3, 32, 32], 10)?.params()[0].shape, [32, 3, 3, 3]);
/// assert_eq!(build("gpt:layers=2,width=64", &[32], 65)?.output_shape(), &[32, 65]);
/// # Ok::<(), landscape_zoo::Error>(())
/// ```
pub fn build(spec: &str, input_shape: &[usize], n_outputs: usize) -> Result<Graph> {
    let model = Request::new(spec, input_shape, n_outputs);
    if let Some(widths) = spec.strip_prefix("mlp:") {
        return mlp::of_widths(&model, widths);
    }
    match model.name {
        "mlp" => mlp::default(&model),
        "cnn" => conv::cnn(&model),
        "convfc" => conv::convfc(&model),
        "vgg11" => vgg::with_options(&model, vgg::VGG11),
        "vgg13" => vgg::with_options(&model, vgg::VGG13),
        "vgg16" => vgg::with_options(&model, vgg::VGG16),
        "vgg19" => vgg::with_options(&model, vgg::VGG19),
        "vgg11_bn" => vgg::with_batch_norm(&model, vgg::VGG11),
        "vgg13_bn" => vgg::with_batch_norm(&model, vgg::VGG13),
        "vgg16_bn" => vgg::with_batch_norm(&model, vgg::VGG16),
        "vgg19_bn" => vgg::with_batch_norm(&model, vgg::VGG19),
        "resnet20" => resnet::build(&model, 3),
        "resnet32" => resnet::build(&model, 5),
        "resnet56" => resnet::build(&model, 9),
        "preresnet20" => preresnet::build(&model, 20),
        "preresnet110" => preresnet::build(&model, 110),
        "preresnet164" => preresnet::build(&model, 164),
        "wrn28" => wide_resnet::build28(&model),
        "resnet18" => imagenet_resnet::build(&model, Kind::Basic, [2, 2, 2, 2]),
        "resnet34" => imagenet_resnet::build(&model, Kind::Basic, [3, 4, 6, 3]),
        "resnet50" => imagenet_resnet::build(&model, Kind::Bottleneck, [3, 4, 6, 3]),
        "resnet101" => imagenet_resnet::build(&model, Kind::Bottleneck, [3, 4, 23, 3]),
        "resnet152" => imagenet_resnet::build(&model, Kind::Bottleneck, [3, 8, 36, 3]),
        "densenet121" => densenet::build(&model, [6, 12, 24, 16]),
        "mobilenet_v2" => mobilenet_v2::build(&model),
        "mobilenet_v3_small" => mobilenet_v3::build(&model, &mobilenet_v3::SMALL),
        "mobilenet_v3_large" => mobilenet_v3::build(&model, &mobilenet_v3::LARGE),
        "efficientnet_b0" => efficientnet::build_b0(&model),
        "convnext_tiny" => convnext::build_tiny(&model),
        "vit_b_16" => vit::build(&model, &vit::B_16),
        "vit_tiny" => vit::build(&model, &vit::TINY),
        "gpt" => gpt::nano(&model),
        "gpt2" => gpt::gpt2(&model),
        "bert" => bert::build(&model),
        "llama" => llama::build(&model),
        _ => Err(Error::UnknownModel { got: spec.to_owned(), known: KNOWN.map(|m| format!("`{m}`")).join(", ") }),
    }
}
