//! The naive twin of lowering: loops over logical axes, which know nothing of orders in memory. Random networks of ops that move axes about
//! must yield the same, and their gradients must be derivatives.

use crate::executor::Executor;
use landscape_core::{Flat, Pass, Seed};
use landscape_graph::{Bias, Graph, GraphBuilder, Node, NodeId, Op, broadcast};
use landscape_kernels::{Accumulate, Device};
use proptest::prelude::*;
use std::sync::Arc;

/// A tensor in the order of its axes.
#[derive(Clone)]
struct Tensor {
    dims: Vec<usize>,
    values: Vec<f64>,
}

impl Tensor {
    /// Filled by a function of the place.
    fn of(dims: &[usize], f: impl Fn(&[usize]) -> f64) -> Self {
        let n: usize = dims.iter().product();
        let place = |mut idx: usize| {
            let mut place = vec![0; dims.len()];
            for axis in (0..dims.len()).rev() {
                place[axis] = idx % dims[axis];
                idx /= dims[axis];
            }
            place
        };
        Tensor { dims: dims.to_vec(), values: (0..n).map(|idx| f(&place(idx))).collect() }
    }

    /// The value at a place of a tensor with at least as many axes, aligned at the last; axes of length 1 are repeated.
    fn at(&self, place: &[usize]) -> f64 {
        let place = &place[place.len() - self.dims.len()..];
        let idx = place.iter().zip(&self.dims).fold(0, |idx, (&at, &len)| idx * len + if len == 1 { 0 } else { at });
        self.values[idx]
    }
}

fn moved(place: &[usize], axis: usize, at: usize) -> Vec<usize> {
    let mut place = place.to_vec();
    place[axis] = at;
    place
}

/// What a node yields for one example.
fn compute(node: &Node, read: &[&Tensor], weights: &Flat<f64>) -> Tensor {
    let x = read.first().copied();
    let x = || x.expect("every other op reads something");
    let tensor = |name: &str| weights.tensor(name).map(|view| view.host().to_vec());
    Tensor::of(&node.shape, |place| match &node.op {
        Op::Linear { in_features, .. } => {
            let (weight, bias) = (tensor(&format!("{}.weight", node.name)).unwrap(), tensor(&format!("{}.bias", node.name)).unwrap());
            let (last, out) = (place.len() - 1, place[place.len() - 1]);
            bias[out] + (0..*in_features).map(|i| weight[out * in_features + i] * x().at(&moved(place, last, i))).sum::<f64>()
        }
        Op::Softmax { dim } => {
            let sum: f64 = (0..node.shape[*dim]).map(|i| x().at(&moved(place, *dim, i)).exp()).sum();
            x().at(place).exp() / sum
        }
        Op::Silu => x().at(place) / (1.0 + (-x().at(place)).exp()),
        Op::Add => read[0].at(place) + read[1].at(place),
        Op::Multiply => read[0].at(place) * read[1].at(place),
        Op::Permute { dims } => {
            let mut from = vec![0; dims.len()];
            dims.iter().zip(place).for_each(|(&dim, &at)| from[dim] = at);
            x().at(&from)
        }
        Op::Reshape { .. } | Op::Flatten => {
            let idx = place.iter().zip(&node.shape).fold(0, |idx, (&at, &len)| idx * len + at);
            x().values[idx]
        }
        Op::Slice { dim, start, step, .. } => x().at(&moved(place, *dim, start + step * place[*dim])),
        Op::Concat { dim } => {
            let mut at = place[*dim];
            let part = read.iter().find(|part| {
                let here = at < part.dims[*dim];
                at -= if here { 0 } else { part.dims[*dim] };
                here
            });
            part.unwrap().at(&moved(place, *dim, at))
        }
        Op::Mean { start_dim, .. } => {
            let len = x().dims[*start_dim];
            (0..len).map(|i| x().at(&moved(place, *start_dim, i))).sum::<f64>() / len as f64
        }
        Op::Expand { .. } => x().at(place),
        Op::Parameter { .. } => {
            let own = Tensor { dims: node.shape.clone(), values: tensor(&node.name).unwrap() };
            own.at(place)
        }
        other => panic!("the networks here have no `{}`", other.name()),
    })
}

/// The network's output for one example, node by node.
fn naive(graph: &Graph, example: &[f64], weights: &Flat<f64>) -> Vec<f64> {
    let mut results: Vec<Tensor> = vec![Tensor { dims: graph.input_shape().clone(), values: example.to_vec() }];
    for node in &graph.nodes()[1..] {
        let read: Vec<&Tensor> = node.inputs.iter().map(|id| &results[id.0]).collect();
        results.push(compute(node, &read, weights));
    }
    results[graph.output().0].values.clone()
}

/// A network of random ops on images; every choice picks an op, two nodes that are there, and a number for the op.
fn network(choices: &[(u8, usize, usize, usize)]) -> Graph {
    let mut b = GraphBuilder::new([3, 2, 4]);
    let mut latest = vec![b.linear("first", b.input(), 4, Bias::On).unwrap()];
    for (idx, &(op, first, second, number)) in choices.iter().enumerate() {
        let (x, y) = (latest[first % latest.len()], latest[second % latest.len()]);
        let (shape, name) = (b.shape(x).unwrap().clone(), format!("node{idx}"));
        let other = b.shape(y).unwrap().clone();
        let (rank, axis) = (shape.len(), number % shape.len());
        let node = match op {
            0 => b.linear(&name, x, 2 + number % 3, Bias::On),
            1 => b.push(&name, Op::Softmax { dim: axis }, &[x]),
            2 | 3 => {
                let mut dims: Vec<usize> = (0..rank).collect();
                dims.rotate_left(axis);
                if number % 2 == 1 {
                    dims.swap(0, rank - 1);
                }
                b.push(&name, Op::Permute { dims }, &[x])
            }
            4 if shape[axis] > 1 => b.push(&name, Op::Slice { dim: axis, start: 1, end: shape[axis], step: 1 + number % 2 }, &[x]),
            5 => b.push(&name, Op::Mean { start_dim: axis, end_dim: axis, keepdim: true }, &[x]),
            6 if rank == 3 => b.push(&name, Op::Reshape { shape: vec![shape[0], shape[1] * shape[2]] }, &[x]),
            6 => b.push(&name, Op::Reshape { shape: vec![shape[0], 1, shape[1..].iter().product()] }, &[x]),
            7 if rank < 4 => b.push(&name, Op::Expand { shape: [&[2], shape.as_slice()].concat() }, &[x]),
            8 => {
                let parameter = vec![shape[rank - 1]];
                let parameter = b.push(&format!("{name}.parameter"), Op::Parameter { shape: parameter }, &[]).unwrap();
                b.push(&name, if number % 2 == 0 { Op::Add } else { Op::Multiply }, &[parameter, x])
            }
            9 if other.len() == rank && (0..rank).all(|a| a == axis || other[a] == shape[a]) => {
                b.push(&name, Op::Concat { dim: axis }, &[x, y])
            }
            _ if broadcast(&shape, &other).is_some() => b.push(&name, if number % 2 == 0 { Op::Add } else { Op::Multiply }, &[x, y]),
            _ => b.push(&name, Op::Silu, &[x]),
        };
        latest.push(node.unwrap());
        // Sizes stay small.
        if b.shape(latest[latest.len() - 1]).unwrap().iter().product::<usize>() > 200 {
            let node = latest.pop().unwrap();
            latest.push(b.push(&format!("{name}.mean"), Op::Mean { start_dim: 0, end_dim: 0, keepdim: true }, &[node]).unwrap());
        }
    }
    ended(b, &latest)
}

/// All that nobody reads, flat and one after the other.
fn ended(mut b: GraphBuilder, nodes: &[NodeId]) -> Graph {
    let flat = |b: &mut GraphBuilder, (idx, &node): (usize, &NodeId)| b.flatten(&format!("flat{idx}"), node).unwrap();
    let all: Vec<NodeId> = nodes.iter().enumerate().map(|node| flat(&mut b, node)).collect();
    let x = b.concat("all", &all).unwrap();
    let x = b.linear("last", x, 2, Bias::On).unwrap();
    b.finish(x).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn orders_in_memory_change_nothing(choices in prop::collection::vec((0u8..12, 0usize..8, 0usize..8, 0usize..12), 1..10)) {
        let graph = Arc::new(network(&choices));
        let mut executor = Executor::<f64>::new(graph.clone(), &Device::Cpu).unwrap();
        let layout = executor.layout().clone();
        let mut stream = Seed::new(5).stream();
        let mut normal = |len: usize| -> Vec<f64> { (0..len).map(|_| 0.5 * stream.normal()).collect() };
        let point = Flat::from_vec(&layout, &Device::Cpu, normal(layout.n_elements())).unwrap();
        let (inputs, doutput, direction) = (normal(2 * 24), normal(4), normal(layout.n_elements()));
        executor.load(&point).unwrap();
        executor.forward(&inputs, 2, Pass::EVALUATE).unwrap();
        let found = executor.output().host().to_vec();
        let expected: Vec<f64> = inputs.chunks(24).flat_map(|example| naive(&graph, example, &point)).collect();
        let size = expected.iter().fold(1.0, |size: f64, v| size.max(v.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!((found - expected).abs() <= 1e-11 * size, "{} against {} in {}", found, expected, graph.to_json());
        }
        let mut gradient = Flat::zeros(&layout, &Device::Cpu);
        executor.backward((&doutput).into(), &mut gradient, Accumulate::Overwrite).unwrap();
        // The derivative of ⟨doutput, output⟩ along one random direction.
        let mut along = |step: f64| -> f64 {
            let mut moved = point.clone();
            moved.view_mut().host().iter_mut().zip(&direction).for_each(|(w, d)| *w += step * d);
            executor.load(&moved).unwrap();
            executor.evaluate(&inputs, 2, Pass::EVALUATE).unwrap();
            executor.output().host().iter().zip(&doutput).map(|(y, d)| y * d).sum()
        };
        let h = 1e-5;
        let numeric = (along(h) - along(-h)) / (2.0 * h);
        let exact: f64 = gradient.view().host().iter().zip(&direction).map(|(g, d)| g * d).sum();
        let scale = gradient.view().host().iter().map(|g| g * g).sum::<f64>().sqrt().max(1.0) * size;
        prop_assert!((numeric - exact).abs() <= 1e-6 * scale, "{} against {} in {}", exact, numeric, graph.to_json());
    }
}
