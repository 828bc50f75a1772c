//! Small networks, batches and comparisons that several tests use.
#![allow(dead_code, clippy::unwrap_used)]

use landscape_core::{Batches, Buffers, Examples, Flat, Objective, Pass, Seed, Stateful, Targets};
use landscape_graph::{Bias, Conv2d, Dtype, Gelu, Graph, GraphBuilder, Op, Role};
use landscape_kernels::{Accumulate, Device, Real};
use landscape_network::init::{Init, initialise};
use landscape_network::{Loss, NetworkObjective};
use std::sync::Arc;

/// conv - bn - relu, a residual block with a projection, global average, linear: the parts of a ResNet.
pub fn residual() -> Graph {
    let mut b = GraphBuilder::new([2, 5, 6]);
    let conv = |channels, stride| Conv2d { stride: [stride; 2], padding: [1, 1], bias: Bias::Off, ..Conv2d::new(channels, 3) };
    let x = b.conv2d("conv1", b.input(), conv(3, 1)).unwrap();
    let x = b.batch_norm("bn1", x).unwrap();
    let stem = b.relu("relu", x).unwrap();
    let x = b.conv2d("layer1.conv1", stem, conv(3, 1)).unwrap();
    let x = b.batch_norm("layer1.bn1", x).unwrap();
    let x = b.add("layer1.add", x, stem).unwrap();
    let stem = b.relu("layer1.relu", x).unwrap();
    let x = b.conv2d("layer2.conv1", stem, conv(4, 2)).unwrap();
    let x = b.batch_norm("layer2.bn1", x).unwrap();
    let x = b.relu("layer2.relu1", x).unwrap();
    let x = b.conv2d("layer2.conv2", x, conv(4, 1)).unwrap();
    let x = b.batch_norm("layer2.bn2", x).unwrap();
    let short = Conv2d { stride: [2, 2], bias: Bias::Off, ..Conv2d::new(4, 1) };
    let short = b.conv2d("layer2.downsample.0", stem, short).unwrap();
    let short = b.batch_norm("layer2.downsample.1", short).unwrap();
    let x = b.add("layer2.add", x, short).unwrap();
    let x = b.relu("layer2.relu2", x).unwrap();
    let x = b.global_avg_pool("pool", x).unwrap();
    let x = b.flatten("flatten", x).unwrap();
    let x = b.linear("fc", x, 3, Bias::On).unwrap();
    b.finish(x).unwrap()
}

/// All other ops: batch norm on the input, gelu, poolings, concat, adaptive pooling, dropout, groups and dilation.
pub fn zoo() -> Graph {
    let mut b = GraphBuilder::new([2, 7, 8]);
    let x = b.batch_norm("bn_in", b.input()).unwrap();
    let x = b.conv2d("conv1", x, Conv2d { padding: [1, 2], groups: 2, ..Conv2d::new(4, 3) }).unwrap();
    let x = b.gelu("gelu", x, Gelu::None).unwrap();
    let max = b.push("max", Op::MaxPool2d { kernel_size: [3, 2], stride: [2, 2], padding: [1, 0] }, &[x]).unwrap();
    let average = Op::AvgPool2d { kernel_size: [3, 2], stride: [2, 2], padding: [1, 0], count_include_pad: false };
    let average = b.push("average", average, &[x]).unwrap();
    let x = b.concat("concat", &[max, average, max]).unwrap();
    let x = b.conv2d("conv2", x, Conv2d { dilation: [2, 1], padding: [1, 0], ..Conv2d::new(3, 2) }).unwrap();
    let x = b.gelu("gelu2", x, Gelu::Tanh).unwrap();
    let x = b.add("twice", x, x).unwrap();
    let x = b.adaptive_avg_pool2d("adaptive", x, [2, 3]).unwrap();
    let x = b.flatten("flatten", x).unwrap();
    let x = b.dropout("dropout", x, 0.3).unwrap();
    let x = b.linear("fc1", x, 5, Bias::Off).unwrap();
    let x = b.batch_norm("bn1", x).unwrap();
    let x = b.gelu("gelu3", x, Gelu::None).unwrap();
    let x = b.linear("fc2", x, 3, Bias::On).unwrap();
    b.finish(x).unwrap()
}

/// Features through two hidden layers.
pub fn mlp() -> Graph {
    let mut b = GraphBuilder::new([4]);
    let x = b.linear("fc1", b.input(), 6, Bias::On).unwrap();
    let x = b.relu("relu1", x).unwrap();
    let x = b.linear("fc2", x, 5, Bias::On).unwrap();
    let x = b.relu("relu2", x).unwrap();
    let x = b.linear("fc3", x, 3, Bias::On).unwrap();
    b.finish(x).unwrap()
}

/// A batch of normal numbers, or of tokens where the input takes them, with a random label at every place.
pub fn examples<T: Real>(graph: &Graph, n: usize, seed: u64) -> Examples<T> {
    let mut stream = Seed::new(seed).child("examples").stream();
    let vocabulary = graph.nodes().iter().find_map(|node| match node.op {
        Op::Embedding { num_embeddings, .. } => Some(num_embeddings),
        _ => None,
    });
    let parts: Vec<_> = graph.inputs().map(|input| graph.node(input)).map(|node| (node.n_elements(), node.op.clone())).collect();
    let mut inputs = Vec::new();
    for (len, op) in parts.iter().cycle().take(n * parts.len()) {
        inputs.extend((0..*len).map(|_| match (op, vocabulary) {
            (Op::Input { dtype: Dtype::Int }, Some(vocabulary)) => T::from_f64(stream.below(vocabulary) as f64),
            _ => T::from_f64(stream.normal()),
        }));
    }
    let shape = graph.output_shape();
    let (n_classes, n_labels) = (shape[shape.len() - 1], n * shape[..shape.len() - 1].iter().product::<usize>());
    let labels = (0..n_labels).map(|_| stream.below(n_classes) as u32).collect();
    Examples { inputs, n_examples: n, targets: Targets::Classes(labels) }
}

/// An objective at random weights, batch-norm factors included, with random statistics.
pub fn objective<T: Real>(graph: Graph, seed: u64) -> NetworkObjective<T> {
    let graph = Arc::new(graph);
    let mut objective = NetworkObjective::new(graph.clone(), &Device::Cpu, Loss::CrossEntropy).unwrap();
    let mut point: Flat<T> = initialise(&graph, Init::PyTorch, Seed::new(seed), &Device::Cpu).unwrap();
    let mut stream = Seed::new(seed).child("jitter").stream();
    for w in point.view_mut().host() {
        *w += T::from_f64(0.1 * stream.normal());
    }
    objective.set_point(&point).unwrap();
    let mut buffers = Buffers::of_graph(&graph).unwrap();
    for declaration in graph.buffers() {
        for value in buffers.get_mut(&declaration.name).unwrap() {
            let statistic = T::from_f64(0.5 + stream.uniform()).to_f64();
            *value = if declaration.role == Role::NumBatchesTracked { 7.0 } else { statistic };
        }
    }
    objective.set_buffers(&buffers).unwrap();
    objective
}

/// Every coordinate's derivative of the mean loss against (L(w + h) − L(w − h)) / 2h.
pub fn check_all(graph: Graph, pass: Pass, n: usize) {
    let mut objective = objective::<f64>(graph, 5);
    let batch = examples(objective.executor().graph(), n, 6);
    let buffers = objective.buffers().clone();
    let start = objective.weights().clone();
    let mut gradient = Flat::zeros(start.layout(), &Device::Cpu);
    let tally = objective.gradient(&batch, pass, &mut gradient, Accumulate::Overwrite).unwrap();
    let mut loss = |point: &Flat<f64>| {
        objective.set_point(point).unwrap();
        objective.set_buffers(&buffers).unwrap();
        objective.measure(&batch, pass).unwrap().nll()
    };
    let (measured, trained) = (loss(&start), tally.nll());
    assert!((measured - trained).abs() <= 1e-13 * trained.abs(), "both kinds of pass measure the same, {measured} and {trained}");
    let h = 1e-5;
    let gradient = gradient.to_vec();
    for spec in start.layout().tensors() {
        for idx in spec.range() {
            let mut moved = start.clone();
            let mut at = |offset: f64| {
                moved.view_mut().host()[idx] = start.view().host()[idx] + offset;
                loss(&moved)
            };
            let numeric = (at(h) - at(-h)) / (2.0 * h);
            let error = (numeric - gradient[idx]).abs();
            assert!(error < 1e-8 + 1e-6 * numeric.abs(), "{} [{}]: {} against {numeric}", spec.name, idx - spec.offset, gradient[idx]);
        }
    }
}

/// The examples of some batches, in the order of the batches.
pub struct Fixed<T>(pub Vec<Examples<T>>);

impl<T: Real> Batches for Fixed<T> {
    type Batch = Examples<T>;

    fn n_batches(&self) -> usize {
        self.0.len()
    }

    fn batch(&self, _: u64, idx: usize) -> landscape_core::Result<Examples<T>> {
        Ok(self.0[idx].clone())
    }
}

/// The same examples cut into batches of these sizes.
pub fn cut<T: Real>(all: &Examples<T>, sizes: &[usize]) -> Fixed<T> {
    assert_eq!(sizes.iter().sum::<usize>(), all.n_examples);
    let (Targets::Classes(labels), width) = (&all.targets, all.inputs.len() / all.n_examples) else { panic!("labels expected") };
    let mut start = 0;
    let batches = sizes.iter().map(|&n| {
        let inputs = all.inputs[start * width..(start + n) * width].to_vec();
        let targets = Targets::Classes(labels[start..start + n].to_vec());
        start += n;
        Examples { inputs, n_examples: n, targets }
    });
    Fixed(batches.collect())
}
