//! Parameters and multiply-adds against what was published.
#![allow(clippy::unwrap_used)]

use landscape_graph::{Cost, Graph};
use landscape_zoo::models;

const IMAGENET: [usize; 3] = [3, 224, 224];
const CIFAR: [usize; 3] = [3, 32, 32];

fn build(spec: &str, input_shape: &[usize], n_outputs: usize) -> Graph {
    models::build(spec, input_shape, n_outputs).unwrap()
}

fn cost(spec: &str, input_shape: &[usize], n_outputs: usize) -> Cost {
    build(spec, input_shape, n_outputs).cost()
}

/// Fails unless `value` is `published` once it is rounded to as many digits as that has.
#[track_caller]
fn assert_rounds_to(value: u64, unit: f64, published: &str, what: &str) {
    let decimals = published.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    assert_eq!(format!("{:.decimals$}", value as f64 / unit), published, "{what}: {value}");
}

/// `meta["num_params"]` and `meta["_ops"]`, billions of multiply-adds, of the weights in torchvision 0.29.2.
#[test]
fn torchvisions_networks() {
    for (spec, n_parameters, giga_macs) in [
        ("resnet18", 11_689_512, "1.814"),
        ("resnet34", 21_797_672, "3.664"),
        ("resnet50", 25_557_032, "4.089"),
        ("resnet101", 44_549_160, "7.801"),
        ("resnet152", 60_192_808, "11.514"),
        ("densenet121", 7_978_856, "2.834"),
        ("mobilenet_v2", 3_504_872, "0.301"),
        ("mobilenet_v3_small", 2_542_856, "0.057"),
        ("mobilenet_v3_large", 5_483_032, "0.217"),
        ("efficientnet_b0", 5_288_548, "0.386"),
        ("convnext_tiny", 28_589_128, "4.456"),
        ("vit_b_16", 86_567_656, "17.564"),
    ] {
        let cost = cost(spec, &IMAGENET, 1000);
        assert_eq!(cost.n_parameters, n_parameters, "{spec}");
        assert_rounds_to(cost.forward_macs, 1e9, giga_macs, spec);
    }
}

/// The same numbers of torchvision's VGGs, whose head (25088-4096-4096-1000) stands for ours (25088-512-512-1000).
#[test]
fn torchvisions_vggs_but_for_the_head() {
    let weights = |widths: &[u64]| widths.windows(2).map(|w| w[0] * w[1]).sum::<u64>();
    let biases = |widths: &[u64]| widths[1..].iter().sum::<u64>();
    let (theirs, ours): ([u64; 4], [u64; 4]) = ([25088, 4096, 4096, 1000], [25088, 512, 512, 1000]);
    for (spec, n_parameters, giga_macs) in [
        ("vgg11", 132_863_336, "7.609"),
        ("vgg11_bn", 132_868_840, "7.609"),
        ("vgg13", 133_047_848, "11.308"),
        ("vgg13_bn", 133_053_736, "11.308"),
        ("vgg16", 138_357_544, "15.47"),
        ("vgg16_bn", 138_365_992, "15.47"),
        ("vgg19", 143_667_240, "19.632"),
        ("vgg19_bn", 143_678_248, "19.632"),
    ] {
        let cost = cost(spec, &IMAGENET, 1000);
        let macs = cost.forward_macs + weights(&theirs) - weights(&ours);
        assert_eq!(cost.n_parameters + (weights(&theirs) + biases(&theirs)) - (weights(&ours) + biases(&ours)), n_parameters, "{spec}");
        assert_rounds_to(macs, 1e9, giga_macs, spec);
    }
}

/// Networks for CIFAR-10.
#[test]
fn networks_for_cifar() {
    // Li et al. 2017, "Pruning filters for efficient ConvNets", table 1, counts a multiply-add once: VGG-16 (which has one linear layer
    // of 512 less than ours) 3.13e8, ResNet-56 1.25e8 and ResNet-110 2.53e8, whose shortcuts pad with zeros; ours project them.
    let projections = 16 * 32 * 16 * 16 + 32 * 64 * 8 * 8;
    assert_rounds_to(cost("vgg16", &CIFAR, 10).forward_macs - 512 * 512, 1e8, "3.13", "VGG-16");
    assert_rounds_to(cost("resnet56", &CIFAR, 10).forward_macs - projections, 1e8, "1.25", "ResNet-56");
    // A pre-activation network has the convolutions of the other.
    assert_rounds_to(cost("preresnet110", &CIFAR, 10).forward_macs - projections, 1e8, "2.53", "PreResNet-110");

    // He et al. 2016 (both papers) and pytorch-classification's README: 0.27, 0.85, 1.7, 1.7 and 36.48 million parameters. The
    // projections of depth 110 add 2,560.
    assert_rounds_to(cost("preresnet20", &CIFAR, 10).n_parameters, 1e6, "0.27", "PreResNet-20");
    assert_rounds_to(cost("resnet56", &CIFAR, 10).n_parameters - (16 * 32 + 32 * 64 + 2 * (32 + 64)), 1e6, "0.85", "ResNet-56");
    assert_rounds_to(cost("preresnet110", &CIFAR, 10).n_parameters - (16 * 32 + 32 * 64), 1e6, "1.7", "PreResNet-110");
    assert_rounds_to(cost("preresnet164", &CIFAR, 10).n_parameters, 1e6, "1.70", "PreResNet-164");
    assert_rounds_to(cost("wrn28:k=10", &CIFAR, 10).n_parameters, 1e6, "36.48", "WRN-28-10");
    // Liu et al. 2017, "Network slimming", table 1: 4.99e8 operations of ResNet-164, two per multiply-add, and 1.70M parameters;
    // what it counts beside the multiply-adds it does not say, and ours are 0.8 % below.
    let operations = cost("preresnet164", &CIFAR, 10).forward_flops as f64;
    assert!((operations / 4.99e8 - 1.0).abs() < 0.01, "{operations}");
    // Huang et al. 2018, "CondenseNet", table of CIFAR: Wide-ResNet-28 has 5,248M multiply-adds; ours are 0.1 % below.
    let macs = cost("wrn28:k=10", &CIFAR, 10).forward_macs as f64;
    assert!((macs / 5.248e9 - 1.0).abs() < 0.002, "{macs}");
    // Hassani et al. 2021, table of CIFAR: ViT-Lite-6/4 has 3.19M parameters and 0.22 billion multiply-adds (without biases of queries,
    // keys and values).
    let vit = cost("vit_tiny", &CIFAR, 10);
    assert_rounds_to(vit.n_parameters - 6 * 3 * 256, 1e6, "3.19", "ViT-Lite-6/4");
    assert_rounds_to(vit.forward_macs, 1e9, "0.22", "ViT-Lite-6/4");
}

/// Models of language.
#[test]
fn models_of_language() {
    // Devlin et al. 2019: 110M, which is 109,482,240 with the pooler (590,592) and without the head for masked tokens (622,650).
    let bert = cost("bert", &[128], 30_522);
    assert_eq!(bert.n_parameters + 590_592 - 622_650, 109_482_240);
    // Sun et al. 2020, "MobileBERT", table 4: 22.5 billion operations at 128 tokens without the head; ours count the products alone, theirs
    // also norms and activations.
    let head = 2 * 128 * (768 * 768 + 768 * 30_522);
    assert!(((bert.forward_flops - head) as f64 / 22.5e9 - 1.0).abs() < 0.01, "{}", bert.forward_flops - head);
    // nanoGPT's transformer_sizing.ipynb, without biases: 124,337,664 parameters and 291,648,307,200 operations at 1024 tokens, which
    // count attention as seeing everything. With biases it is GPT-2 of 124,439,808 (Hugging Face's `gpt2`).
    let nano = cost("gpt:layers=12,width=768,heads=12", &[1024], 50_257);
    assert_eq!((nano.n_parameters, nano.forward_flops), (124_337_664, 291_648_307_200));
    let gpt2 = cost("gpt2", &[1024], 50_257);
    assert_eq!((gpt2.n_parameters, gpt2.forward_flops), (124_439_808, 291_648_307_200));
    // nanoGPT's README: "0.80M" and "10.65M" parameters besides the positions, of 65 characters.
    assert_rounds_to(cost("gpt", &[64], 65).n_parameters - 64 * 128, 1e6, "0.80", "gpt on a CPU");
    assert_rounds_to(cost("gpt:layers=6,width=384,heads=6", &[256], 65).n_parameters - 256 * 384, 1e6, "10.65", "gpt on a GPU");
    // calflops' table at 128 tokens: Llama 2 7B has 6,738,415,616 parameters and 850.00 billion multiply-adds.
    let llama = cost("llama", &[128], 32_000);
    assert_eq!(llama.n_parameters, 6_738_415_616);
    assert_rounds_to(llama.forward_macs, 1e9, "850", "llama");
    // The counts that the checkpoints of TinyLlama 1.1B and Llama 3 8B have on Hugging Face.
    assert_eq!(cost("llama:layers=22,width=2048,kv_heads=4", &[8], 32_000).n_parameters, 1_100_048_384);
    assert_eq!(cost("llama:kv_heads=8,hidden=14336,base=500000", &[8], 128_256).n_parameters, 8_030_261_248);
}
