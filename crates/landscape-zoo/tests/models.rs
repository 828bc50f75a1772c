//! The architectures: names and shapes as PyTorch has them, counts as published.
#![allow(clippy::unwrap_used)]

use landscape_graph::{Graph, NodeId, Op};
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

/// Whatever the data looks like: the network takes it and yields what was asked for, and describes itself.
#[test]
fn every_model_fits_its_data() {
    for spec in models::KNOWN {
        for input_shape in [DIGITS, MNIST, CIFAR, [2, 33, 47]] {
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
    for (spec, least) in [("cnn", 8), ("convfc", 15), ("vgg11", 32), ("vgg16_bn", 32), ("resnet20", 8)] {
        models::build(spec, &[1, least, least], 2).unwrap();
        let message = models::build(spec, &[1, least, least - 1], 2).unwrap_err().to_string();
        assert!(message.contains(spec) && message.contains(&format!("{least}x{least}")), "{message}");
        assert!(matches!(models::build(spec, &[64], 2), Err(Error::Model { .. })));
    }
}

#[test]
fn wrong_requests_say_what_is_expected() {
    let message = |spec: &str| models::build(spec, &MNIST, 10).unwrap_err().to_string();
    for spec in ["resnet18", "", "MLP", "mlp-784", "vgg"] {
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

proptest! {
    #[test]
    fn no_spec_panics(spec in "(mlp|mlp:|vgg|cnn|resnet)?[0-9:_-]{0,12}", shape in prop::collection::vec(0usize..40, 0..5), n in 0usize..5) {
        if let Ok(graph) = models::build(&spec, &shape, n) {
            prop_assert_eq!(graph.output_shape(), &vec![n]);
        }
    }
}
