//! The same bits for any number of threads.
#![allow(clippy::unwrap_used)]

mod common;

use common::{cut, examples, objective, residual, zoo};
use landscape_core::parallel_points::measure_points;
use landscape_core::{ControlPoints, Curve, Flat, Fork, Norm, NormRefresh, Objective, Pass, Row, Segment, Stateful, Tell};
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder};
use landscape_kernels::{Accumulate, Device};

/// Wide enough that every kernel cuts its work.
fn wide() -> Graph {
    let mut b = GraphBuilder::new([3, 16, 16]);
    let conv = Conv2d { padding: [1, 1], bias: Bias::Off, ..Conv2d::new(16, 3) };
    let x = b.conv2d("conv1", b.input(), conv).unwrap();
    let x = b.batch_norm("bn1", x).unwrap();
    let x = b.relu("relu1", x).unwrap();
    let x = b.conv2d("conv2", x, conv).unwrap();
    let x = b.batch_norm("bn2", x).unwrap();
    let x = b.relu("relu2", x).unwrap();
    let x = b.max_pool2d("pool", x, 2, 2).unwrap();
    let x = b.flatten("flatten", x).unwrap();
    let x = b.dropout("dropout", x, 0.5).unwrap();
    let x = b.linear("fc1", x, 300, Bias::On).unwrap();
    let x = b.relu("relu3", x).unwrap();
    let x = b.linear("fc2", x, 10, Bias::On).unwrap();
    b.finish(x).unwrap()
}

/// Everything that training and evaluation yield, as bits.
fn results(graph: Graph, n: usize) -> Vec<u64> {
    let mut objective = objective::<f32>(graph, 8);
    let batch = examples(objective.executor().graph(), n, 4);
    let mut gradient = Flat::zeros(objective.weights().layout(), &Device::Cpu);
    let tally = objective.gradient(&batch, Pass::train(5), &mut gradient, Accumulate::Overwrite).unwrap();
    let mut bits = vec![tally.loss_nats_sum.to_bits()];
    bits.extend(gradient.to_vec().iter().map(|g| u64::from(g.to_bits())));
    bits.extend(objective.buffers().values().iter().map(|v| v.to_bits()));
    for how in [NormRefresh::BatchAverage, NormRefresh::TorchCumulative, NormRefresh::Pooled, NormRefresh::Sequential] {
        objective.refresh(how, &cut(&batch, &[n / 2, n - n / 2])).unwrap();
        bits.extend(objective.buffers().values().iter().map(|v| v.to_bits()));
        bits.push(objective.measure(&batch, Pass::EVALUATE).unwrap().loss_nats_sum.to_bits());
        bits.extend(objective.executor().output().host().iter().map(|v| u64::from(v.to_bits())));
    }
    bits
}

#[test]
fn forward_gradient_and_refresh_have_the_same_bits_for_any_number_of_threads() {
    for (name, graph, n) in [("residual", residual as fn() -> Graph, 33), ("zoo", zoo, 17), ("wide", wide, 32)] {
        let of_threads = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| results(graph(), n))
        };
        let one = of_threads(1);
        for n_threads in [2, 3] {
            let found = of_threads(n_threads);
            let differences = one.iter().zip(&found).filter(|(a, b)| a != b).count();
            assert_eq!(differences, 0, "{name} with {n_threads} threads: {differences} of {} numbers differ", one.len());
        }
    }
}

/// What is found at nine points of a line by `n_forks` forks on `n_threads` threads, as bits.
fn along_a_line(n_threads: usize, n_forks: usize) -> Vec<u64> {
    let mut network = objective::<f32>(wide(), 8);
    let batch = examples(network.executor().graph(), 32, 4);
    let batches = cut(&batch, &[20, 12]);
    let ends = [8, 9].map(|seed| Row::Free(objective::<f32>(wide(), seed).weights().clone()));
    let points = ControlPoints::new(ends.to_vec()).unwrap();
    let mut found = Vec::new();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
    pool.install(|| {
        let at = |network: &mut landscape_network::NetworkObjective<f32>, idx: usize| {
            network.move_to(&points, &Segment.coefficients(idx as f64 / 8.0)?)?;
            network.refresh(NormRefresh::BatchAverage, &batches)?;
            let tally = network.measure(&batch, Pass::EVALUATE)?;
            let mut bits = vec![tally.loss_nats_sum.to_bits()];
            bits.extend(network.buffers().values().iter().map(|v| v.to_bits()));
            Ok::<_, landscape_core::Error>(bits)
        };
        measure_points(&mut network, n_forks, 0..9, at, |_, bits| {
            found.extend(bits);
            Ok(())
        })
    })
    .unwrap();
    found
}

#[test]
fn points_measured_at_once_have_the_bits_of_one_after_the_other() {
    let expected = along_a_line(1, 1);
    assert!(expected.len() > 9 * 32);
    for (n_threads, n_forks) in [(2, 1), (1, 2), (2, 2), (3, 2), (3, 3)] {
        assert_eq!(along_a_line(n_threads, n_forks), expected, "{n_forks} forks on {n_threads} threads");
    }
}

#[test]
fn a_fork_takes_the_memory_that_it_says() {
    for graph in [residual(), zoo(), wide()] {
        let network = objective::<f32>(graph, 8);
        let mut fork = network.fork();
        let batch = examples(network.executor().graph(), 21, 4);
        // A refresh passes activations by batch statistics, which are planned otherwise.
        fork.measure(&batch, Pass { norm: Norm::Batch, dropout_seed: None, tell: Tell::AtOnce }).unwrap();
        fork.measure(&batch, Pass::EVALUATE).unwrap();
        // The point, and at most two copies of it as convolutions read them.
        let point_bytes = size_of_val(network.weights().view().host());
        let expected = fork.executor().memory_bytes() + point_bytes..=fork.executor().memory_bytes() + 3 * point_bytes;
        assert!(expected.contains(&network.fork_bytes(21)), "{} is not in {expected:?}", network.fork_bytes(21));
    }
}
