//! Costs against the counts that torchvision publishes with its weights (`num_params`, `_ops` in 10⁹ multiply-adds).
#![allow(clippy::unwrap_used)]

use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder, NodeId, Result};

/// VGG for 224x224 images, 1000 classes.
fn vgg(stages: &[&[usize]]) -> Result<Graph> {
    let mut b = GraphBuilder::new([3, 224, 224]);
    let mut x = b.input();
    let mut idx = 0;
    for stage in stages {
        for &channels in *stage {
            x = b.conv2d(&format!("conv{idx}"), x, Conv2d { padding: [1, 1], ..Conv2d::new(channels, 3) })?;
            x = b.relu(&format!("relu{idx}"), x)?;
            idx += 1;
        }
        x = b.max_pool2d(&format!("pool{idx}"), x, 2, 2)?;
    }
    x = b.adaptive_avg_pool2d("avgpool", x, [7, 7])?;
    let x = head(&mut b, x)?;
    b.finish(x)
}

fn alexnet() -> Result<Graph> {
    let mut b = GraphBuilder::new([3, 224, 224]);
    let mut x = b.input();
    let convs = [(64, 11, 4, 2, true), (192, 5, 1, 2, true), (384, 3, 1, 1, false), (256, 3, 1, 1, false), (256, 3, 1, 1, true)];
    for (idx, (channels, kernel_size, stride, padding, pool)) in convs.into_iter().enumerate() {
        let conv = Conv2d { stride: [stride; 2], padding: [padding; 2], ..Conv2d::new(channels, kernel_size) };
        x = b.conv2d(&format!("conv{idx}"), x, conv)?;
        x = b.relu(&format!("relu{idx}"), x)?;
        if pool {
            x = b.max_pool2d(&format!("pool{idx}"), x, 3, 2)?;
        }
    }
    x = b.adaptive_avg_pool2d("avgpool", x, [6, 6])?;
    let x = head(&mut b, x)?;
    b.finish(x)
}

/// The head of both: 4096, 4096, 1000.
fn head(b: &mut GraphBuilder, x: NodeId) -> Result<NodeId> {
    let mut x = b.flatten("flatten", x)?;
    for idx in 1..3 {
        x = b.linear(&format!("fc{idx}"), x, 4096, Bias::On)?;
        x = b.relu(&format!("fc{idx}_relu"), x)?;
        x = b.dropout(&format!("fc{idx}_dropout"), x, 0.5)?;
    }
    b.linear("fc3", x, 1000, Bias::On)
}

fn check(graph: &Graph, n_parameters: usize, published_gmacs: f64, decimals: i32) {
    assert_eq!(graph.n_parameters(), n_parameters);
    let gmacs = graph.cost().forward_macs as f64 / 1e9;
    assert!((gmacs - published_gmacs).abs() <= 0.5 * 10f64.powi(-decimals), "{gmacs} against {published_gmacs}");
    assert_eq!(graph.cost().forward_flops, 2 * graph.cost().forward_macs);
}

#[test]
fn published_counts() {
    check(&vgg(&[&[64], &[128], &[256, 256], &[512, 512], &[512, 512]]).unwrap(), 132_863_336, 7.609, 3);
    check(&vgg(&[&[64, 64], &[128, 128], &[256; 3], &[512; 3], &[512; 3]]).unwrap(), 138_357_544, 15.47, 2);
    check(&alexnet().unwrap(), 61_100_840, 0.714, 3);
}

/// The total is the sum over the nodes, and the backward pass spares the gradient of the input alone.
#[test]
fn totals_are_sums_and_training_spares_the_first_gradient() {
    let graph = alexnet().unwrap();
    let costs: Vec<_> = (0..graph.nodes().len()).map(|idx| graph.node_cost(NodeId(idx))).collect();
    let total = graph.cost();
    assert_eq!(costs.iter().map(|c| c.n_parameters).sum::<u64>(), total.n_parameters);
    assert_eq!(costs.iter().map(|c| c.n_activations).sum::<u64>(), total.n_activations);
    assert_eq!(costs.iter().map(|c| c.forward_macs).sum::<u64>(), total.forward_macs);
    let first = graph.find("conv0").unwrap();
    assert_eq!(total.training_flops, 3 * total.forward_flops - graph.node_cost(first).forward_flops);
    assert_eq!(total.weight_bytes(4), 4 * 61_100_840);
    let n_activations: usize = graph.nodes().iter().map(|n| n.n_elements()).sum();
    assert_eq!(total.activation_bytes(8), 8 * n_activations as u64);
}

/// Multiply-adds counted one by one: every tap of every window, padding included, per output channel and channel of its group.
#[test]
fn convolutions_equal_a_count_by_hand() {
    let mut b = GraphBuilder::new([6, 9, 7]);
    let conv =
        Conv2d { kernel_size: [3, 2], stride: [2, 1], padding: [1, 2], dilation: [2, 3], groups: 3, bias: Bias::On, ..Conv2d::new(12, 1) };
    let x = b.conv2d("conv", b.input(), conv).unwrap();
    let graph = b.finish(x).unwrap();
    let mut n_windows = [0u64; 2];
    for (axis, size) in [9i64, 7].into_iter().enumerate() {
        let (pad, dilation, stride) = (conv.padding[axis] as i64, conv.dilation[axis] as i64, conv.stride[axis] as i64);
        let mut start = -pad;
        while start + dilation * (conv.kernel_size[axis] as i64 - 1) < size + pad {
            n_windows[axis] += 1;
            start += stride;
        }
    }
    assert_eq!(graph.output_shape(), &[12, n_windows[0] as usize, n_windows[1] as usize]);
    assert_eq!(graph.cost().forward_macs, 12 * n_windows[0] * n_windows[1] * 2 * 3 * 2);
    assert_eq!(graph.n_parameters(), 12 * 2 * 3 * 2 + 12);
}
