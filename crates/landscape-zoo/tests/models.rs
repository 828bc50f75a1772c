//! The architectures: names and shapes as PyTorch has them, counts as published.
#![allow(clippy::unwrap_used)]

use landscape_graph::{Dtype, Graph, NodeId, Op};
use landscape_zoo::{Error, models};
use proptest::prelude::*;
use std::fmt::Write;

const CIFAR: [usize; 3] = [3, 32, 32];
const MNIST: [usize; 3] = [1, 28, 28];
const DIGITS: [usize; 3] = [1, 8, 8];

fn build(spec: &str, input_shape: &[usize], n_outputs: usize) -> Graph {
    models::build(spec, input_shape, n_outputs).unwrap()
}

/// The state dict, a tensor a line, and the counts.
fn summary(graph: &Graph) -> String {
    let mut text = String::new();
    for tensor in graph.state_dict() {
        writeln!(text, "{} {:?}", tensor.name, tensor.shape).unwrap();
    }
    let cost = graph.cost();
    writeln!(text, "{} parameters, {} statistics, {} multiply-adds", cost.n_parameters, cost.n_buffers, cost.forward_macs).unwrap();
    text
}

#[test]
fn names_and_shapes() {
    let models: [(&str, &str, &[usize]); 8] = [
        ("mlp_digits", "mlp", &DIGITS),
        ("mlp_mnist", "mlp:784-512-512-512-10", &MNIST),
        ("cnn_digits", "cnn", &DIGITS),
        ("convfc_cifar", "convfc", &CIFAR),
        ("vgg11_cifar", "vgg11", &CIFAR),
        ("vgg11_bn_cifar", "vgg11_bn", &CIFAR),
        ("vgg16_bn_cifar", "vgg16_bn", &CIFAR),
        ("resnet20_cifar", "resnet20", &CIFAR),
    ];
    for (name, spec, input_shape) in models {
        insta::assert_snapshot!(name, summary(&build(spec, input_shape, 10)));
    }
}

/// He et al. 2016, table 6: 0.27, 0.46 and 0.85 million parameters with shortcuts that pad zeros (exactly 269,722, 464,154 and
/// 853,018). The two projections add a 1x1 convolution and a batch norm each.
#[test]
fn residual_networks_have_the_published_counts() {
    let projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64);
    for (spec, depth, zero_padded) in [("resnet20", 20, 269_722), ("resnet32", 32, 464_154), ("resnet56", 56, 853_018)] {
        let graph = build(spec, &CIFAR, 10);
        assert_eq!(graph.n_parameters(), zero_padded + projections);
        let is_layer = |name: &str| !name.contains("downsample");
        let n_layers = graph.nodes().iter().filter(|n| matches!(n.op, Op::Conv2d { .. } | Op::Linear { .. }) && is_layer(&n.name)).count();
        assert_eq!(n_layers, depth);
    }
    assert_eq!(build("resnet20", &CIFAR, 10).n_parameters(), 272_474);
}

/// torchvision's counts for 1000 classes, less its head (25088-4096-4096-1000), plus the 512-512-classes head.
#[test]
fn vgg_has_torchvisions_features() {
    let linear = |widths: &[usize]| widths.windows(2).map(|w| w[0] * w[1] + w[1]).sum::<usize>();
    let torchvision_head = linear(&[25088, 4096, 4096, 1000]);
    for (spec, torchvision) in [("vgg11", 132_863_336), ("vgg11_bn", 132_868_840), ("vgg16", 138_357_544), ("vgg16_bn", 138_365_992)] {
        for n_classes in [10, 100] {
            let expected = torchvision - torchvision_head + linear(&[512, 512, 512, n_classes]);
            assert_eq!(build(spec, &CIFAR, n_classes).n_parameters(), expected, "{spec}");
        }
    }
    let with_norm = build("vgg16_bn", &CIFAR, 10);
    assert_eq!(with_norm.nodes().iter().filter(|n| matches!(n.op, Op::BatchNorm { .. })).count(), 13);
}

#[test]
fn convfc_is_the_references() {
    let graph = build("convfc", &CIFAR, 10);
    let first_linear = graph.node(graph.find("fc_part.0").unwrap());
    assert!(matches!(first_linear.op, Op::Linear { in_features: 1152, out_features: 1000, bias: true, .. }));
    assert_eq!(build("convfc", &MNIST, 10).params()[6].shape, [1000, 128 * 2 * 2]);
}

#[test]
fn mlps_take_any_widths() {
    let graph = build("mlp:784-512-512-512-10", &MNIST, 10);
    assert_eq!(graph.n_parameters(), 784 * 512 + 512 + 2 * (512 * 512 + 512) + 512 * 10 + 10);
    assert_eq!(graph.nodes()[1].op, Op::Flatten);
    assert_eq!(build("mlp", &MNIST, 10).to_json(), graph.to_json());
    // Features need no flattening, and no hidden layer is a model too.
    let linear = build("mlp:5-2", &[5], 2);
    assert_eq!(linear.params()[0].name, "fc1.weight");
    assert_eq!(linear.nodes().len(), 2);
}

const OF_TOKENS: [&str; 4] = ["gpt", "gpt2", "bert", "llama"];

/// Whatever the data looks like: the network takes it and yields what was asked for, and describes itself.
#[test]
fn every_model_fits_its_data() {
    for spec in models::KNOWN.into_iter().filter(|spec| !OF_TOKENS.contains(spec)) {
        for input_shape in [DIGITS, MNIST, CIFAR, [2, 48, 64]] {
            match models::build(spec, &input_shape, 7) {
                Ok(graph) => {
                    assert_eq!(graph.input_shape(), &input_shape);
                    assert_eq!(graph.output_shape(), &[7]);
                    assert_eq!(Graph::from_json(&graph.to_json()).unwrap(), graph);
                    let input_readers = graph.nodes().iter().filter(|n| n.inputs.contains(&NodeId(0))).count();
                    assert_eq!(input_readers, 1, "{spec}");
                }
                Err(error) => assert!(input_shape[1] < 32 && matches!(error, Error::Model { .. }), "{spec} {input_shape:?}: {error}"),
            }
        }
        models::build(spec, &[3, 32, 32], 10).unwrap();
    }
    let least = [("cnn", 8), ("convfc", 15), ("vgg11", 32), ("vgg16_bn", 32), ("resnet20", 8), ("preresnet164", 8), ("wrn28", 8)];
    let larger =
        [("resnet18", 8), ("densenet121", 29), ("mobilenet_v2", 8), ("mobilenet_v3_small", 8), ("convnext_tiny", 32), ("vit_tiny", 4)];
    for (spec, least) in least.into_iter().chain(larger) {
        models::build(spec, &[1, least, least], 2).unwrap();
        let message = models::build(spec, &[1, least, least - 1], 2).unwrap_err().to_string();
        assert!(message.contains(spec) && message.contains(&format!("{least}x{least}")), "{message}");
        assert!(matches!(models::build(spec, &[64], 2), Err(Error::Model { .. })));
    }
    assert!(matches!(models::build("vit_tiny", &[3, 32, 30], 2), Err(Error::Model { .. })));
}

/// One vector of logits per token, from whole numbers; the token table and the head of GPT-2 and BERT are one tensor.
#[test]
fn models_of_language_yield_logits_at_every_place() {
    for (spec, tied) in
        [("gpt", true), ("gpt2:layers=2", true), ("bert:layers=2", true), ("llama:layers=2,width=64,heads=4,kv_heads=2", false)]
    {
        let graph = build(spec, &[12], 50);
        assert_eq!(graph.output_shape(), &[12, 50]);
        assert_eq!(graph.nodes()[0].op, Op::Input { dtype: Dtype::Int });
        assert_eq!(Graph::from_json(&graph.to_json()).unwrap(), graph);
        assert_eq!(graph.params().iter().filter(|t| t.shape[0] == 50 && t.shape.len() == 2).count(), if tied { 1 } else { 2 }, "{spec}");
        assert!(matches!(models::build(spec, &CIFAR, 50), Err(Error::Model { .. })));
    }
    // Positions are as many as the data's tokens, or as asked for.
    let positions = |spec: &str| build(spec, &[12], 50).params().into_iter().find(|t| t.name == "transformer.wpe.weight").unwrap().shape;
    assert_eq!(positions("gpt"), [12, 128]);
    assert_eq!(positions("gpt:block=20"), [20, 128]);
    assert_eq!(positions("gpt2:layers=1"), [1024, 768]);
    assert!(models::build("gpt:block=11", &[12], 50).unwrap_err().to_string().contains("`block` 11"));
}

/// Half and twice the channels, whole numbers of them, at least one.
#[test]
fn widths_multiply_channels() {
    for (spec, first) in [("resnet20", 16), ("preresnet20", 16), ("vgg11", 64), ("vgg19_bn", 64), ("resnet50", 64), ("convnext_tiny", 96)] {
        for (width, expected) in [("2", 2 * first), ("0.5", first / 2), ("0.3", (first as f64 * 0.3).round() as usize), ("0.001", 1)] {
            let graph = build(&format!("{spec}:width={width}"), &CIFAR, 10);
            let conv = graph.params().into_iter().find(|t| t.shape.len() == 4).unwrap();
            assert_eq!(conv.shape[0], expected, "{spec}:width={width}");
        }
        assert_eq!(build(&format!("{spec}:width=1"), &CIFAR, 10), build(spec, &CIFAR, 10));
    }
    assert_eq!(build("wrn28:k=3", &CIFAR, 10).params()[1].shape, [16]);
    assert_eq!(build("mobilenet_v2:width=0.35", &CIFAR, 10).params()[0].shape, [16, 3, 3, 3]);
}

/// As published: no batch norm, hence no statistics, and as many factors and constants.
#[test]
fn norms_can_be_chosen() {
    for spec in ["resnet20", "preresnet110", "wrn28:k=2", "resnet50", "vgg16_bn"] {
        let (plain, joint) = (spec.trim_end_matches("_bn"), if spec.contains(':') { ',' } else { ':' });
        let batch = build(spec, &CIFAR, 10);
        for norm in ["layer", "group", "group,groups=4"] {
            let other = build(&format!("{plain}{joint}norm={norm}"), &CIFAR, 10);
            assert_eq!(other.cost().n_buffers, 0);
            let names = |graph: &Graph| graph.params().into_iter().map(|t| t.name).collect::<Vec<_>>();
            assert_eq!(names(&other), names(&batch), "{spec} {norm}");
        }
    }
    // Flax's LayerNorm: a factor per channel; git-re-basin's shortcut is 3x3 and its VGG has no dropout.
    let graph = build("resnet20:width=4,norm=layer", &CIFAR, 10);
    let shape = |name: &str| graph.params().into_iter().find(|t| t.name == name).unwrap().shape;
    assert_eq!(shape("bn1.weight"), [64]);
    assert_eq!(shape("layer2.0.downsample.0.weight"), [128, 64, 3, 3]);
    assert!(build("vgg16:norm=layer", &CIFAR, 10).nodes().iter().all(|n| !matches!(n.op, Op::Dropout { .. })));
}

#[test]
fn wrong_requests_say_what_is_expected() {
    let message = |spec: &str| models::build(spec, &MNIST, 10).unwrap_err().to_string();
    for spec in ["resnet19", "", "MLP", "mlp-784", "vgg", "vgg:width=2", ":", "=,:"] {
        let message = message(spec);
        assert!(models::KNOWN.iter().all(|m| message.contains(m)) && message.contains(&format!("`{spec}`")), "{message}");
    }
    for spec in ["mlp:", "mlp:784", "mlp:784--10", "mlp:784-0-10", "mlp:784-x-10", "mlp:784-99999999999999999999999-10", "mlp:784,10"] {
        assert!(message(spec).contains("mlp:784-512-10"), "{}", message(spec));
    }
    assert!(message("mlp:64-10").contains("784"), "{}", message("mlp:64-10"));
    assert!(message("mlp:784-100").contains("10"), "{}", message("mlp:784-100"));
    assert!(models::build("mlp", &MNIST, 0).is_err());
    assert!(models::build("mlp", &[usize::MAX, 3, 3], 2).is_err());
    assert!(models::build("mlp:784-18446744073709551615-10", &MNIST, 10).is_err());
}

#[test]
fn wrong_options_say_which_there_are() {
    let message = |spec: &str| models::build(spec, &CIFAR, 10).unwrap_err().to_string();
    for (spec, expected) in [
        ("resnet20:depth=3", "`width`, `norm`, `groups`"),
        ("resnet20:width", "`width=2`"),
        ("resnet20:", "`width`, `norm`, `groups`"),
        ("resnet20:width=1,width=2", "once"),
        ("resnet20:width=0", "above 0"),
        ("resnet20:width=-1", "above 0"),
        ("resnet20:width=nan", "above 0"),
        ("resnet20:width=inf", "above 0"),
        ("resnet20:width=1e9", "1024"),
        ("resnet20:norm=instance", "`batch`, `layer`, `group`"),
        ("resnet20:norm=none", "`batch`, `layer`, `group`"),
        ("vgg16:norm=instance", "`none`, `batch`, `layer`, `group`"),
        ("resnet20:groups=4", "`norm=group`"),
        ("cnn:width=2", "no options"),
        ("wrn28:k=0", "`k` from 1"),
        ("vit_tiny:heads=7", "divisor"),
        ("gpt:width=128", "tokens"),
    ] {
        assert!(
            message(spec).contains(expected) && message(spec).contains(&format!("`{}", spec.trim_end_matches(':'))),
            "{}",
            message(spec)
        );
    }
    assert!(message("resnet20:norm=group,groups=5").contains("divisor"));
    let message = |spec: &str| models::build(spec, &[8], 10).unwrap_err().to_string();
    assert!(message("gpt:heads=3").contains("divisor"));
    assert!(message("gpt:dropout=1").contains("below 1"));
    assert!(message("gpt:bias=yes").contains("`on`, `off`"));
    assert!(message("gpt:layers=100000").contains("1024"));
    assert!(message("llama:kv_heads=3").contains("`kv_heads` a divisor"));
}

proptest! {
    #[test]
    fn no_options_panic(spec in "(vgg11|resnet20|wrn28|mobilenet_v2|vit_tiny|gpt|llama):(width|norm|k|heads|layers|groups)=[0-9a-e.+-]{0,6}", n in 0usize..3) {
        for shape in [&[3usize, 32, 32][..], &[8]] {
            let _ = models::build(&spec, shape, n);
        }
    }

    #[test]
    fn no_spec_panics(spec in "(mlp|mlp:|vgg|cnn|resnet)?[0-9:_-]{0,12}", shape in prop::collection::vec(0usize..40, 0..5), n in 0usize..5) {
        if let Ok(graph) = models::build(&spec, &shape, n) {
            prop_assert_eq!(graph.output_shape(), &vec![n]);
        }
    }
}
