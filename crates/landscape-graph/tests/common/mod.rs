//! Random networks.

use landscape_graph::{Bias, Conv2d, Gelu, Graph, GraphBuilder, NodeId, Op};
use proptest::prelude::*;

/// A network of up to a dozen random steps; every op can occur, and steps that do not fit are left out.
pub fn graphs() -> impl Strategy<Value = Graph> {
    let shape = prop_oneof![(1usize..6, 1usize..12, 1usize..12).prop_map(|(c, h, w)| vec![c, h, w]), (1usize..20).prop_map(|n| vec![n]),];
    let step = (0usize..14, 1usize..5, prop::array::uniform2(1usize..4), prop::array::uniform2(0usize..3), 0.0f64..1.0);
    (shape, prop::collection::vec(step, 0..12)).prop_map(|(shape, steps)| {
        let mut b = GraphBuilder::new(shape);
        let mut x = b.input();
        for (idx, step) in steps.into_iter().enumerate() {
            // A step that fails leaves nothing behind: it adds its nodes to a copy.
            let mut tried = b.clone();
            if let Some(y) = take(&mut tried, &format!("block{idx}"), x, step) {
                (b, x) = (tried, y);
            }
        }
        b.finish(x).unwrap()
    })
}

type Step = (usize, usize, [usize; 2], [usize; 2], f64);

fn take(b: &mut GraphBuilder, at: &str, x: NodeId, (kind, n, pair, padding, fraction): Step) -> Option<NodeId> {
    let channels = b.shape(x).unwrap()[0];
    let bias = if padding[0] == 0 { Bias::Off } else { Bias::On };
    let stride = [pair[1], pair[0]];
    match kind {
        0 => b.linear(at, x, n, bias),
        1 => {
            let conv = Conv2d { kernel_size: pair, stride, padding, dilation: pair, groups: 1, bias, ..Conv2d::new(n, 1) };
            b.conv2d(at, x, conv)
        }
        2 => b.conv2d(at, x, Conv2d { kernel_size: pair, padding, groups: channels, bias, ..Conv2d::new(n * channels, 1) }),
        3 => b.batch_norm(at, x),
        4 => b.push(at, Op::BatchNorm { num_features: channels, eps: fraction + 1e-300, momentum: fraction, affine: false }, &[x]),
        5 => b.relu(at, x),
        6 => b.gelu(at, x, if padding[0] == 0 { Gelu::None } else { Gelu::Tanh }),
        7 => b.relu(&format!("{at}.branch"), x).and_then(|y| b.add(&format!("{at}.add"), x, y)),
        8 => b.dropout(at, x, fraction),
        9 => b.push(at, Op::MaxPool2d { kernel_size: pair, stride, padding }, &[x]),
        10 => b.push(at, Op::AvgPool2d { kernel_size: pair, stride, padding, count_include_pad: bias == Bias::On }, &[x]),
        11 => b.adaptive_avg_pool2d(at, x, pair),
        12 => b.global_avg_pool(at, x).and_then(|y| b.flatten(&format!("{at}.flatten"), y)),
        _ => b.relu(&format!("{at}.branch"), x).and_then(|y| b.concat(&format!("{at}.concat"), &[y, x, y])),
    }
    .ok()
}
