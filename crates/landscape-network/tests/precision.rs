//! Networks whose products are computed in bf16: near those of f32, and no more than near; the same bits for any number of threads.
#![allow(clippy::unwrap_used)]

mod common;

use common::{examples, residual};
use landscape_core::{Examples, Flat, Fork, NormRefresh, Objective, Pass, Seed, Stateful};
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder};
use landscape_kernels::{Accumulate, Device, Precision};
use landscape_network::init::{Init, initialise};
use landscape_network::{Executor, Loss, NetworkObjective};
use std::sync::Arc;

/// Convolutions with many channels, one without padding to a matrix product, a down-sampling one, and linear layers.
fn wide() -> Graph {
    let mut b = GraphBuilder::new([3, 12, 12]);
    let conv = |channels, kernel, stride| Conv2d {
        padding: [kernel / 2; 2],
        stride: [stride; 2],
        bias: Bias::Off,
        ..Conv2d::new(channels, kernel)
    };
    let mut x = b.input();
    for (idx, (channels, kernel, stride)) in [(16, 3, 1), (32, 3, 2), (40, 1, 1), (32, 3, 1)].into_iter().enumerate() {
        x = b.conv2d(&format!("conv{idx}"), x, conv(channels, kernel, stride)).unwrap();
        x = b.batch_norm(&format!("bn{idx}"), x).unwrap();
        x = b.relu(&format!("relu{idx}"), x).unwrap();
    }
    let x = b.max_pool2d("pool", x, 2, 2).unwrap();
    let x = b.flatten("flatten", x).unwrap();
    let x = b.linear("fc1", x, 50, Bias::On).unwrap();
    let x = b.relu("relu", x).unwrap();
    let x = b.linear("fc2", x, 10, Bias::On).unwrap();
    b.finish(x).unwrap()
}

fn objective(graph: Graph, precision: Precision) -> NetworkObjective<f32> {
    let graph = Arc::new(graph);
    let mut objective = NetworkObjective::in_precision(graph.clone(), &Device::Cpu, Loss::CrossEntropy, precision).unwrap();
    objective.set_point(&initialise(&graph, Init::PyTorch, Seed::new(3), &Device::Cpu).unwrap()).unwrap();
    objective
}

/// The losses of some steps of gradient descent on one batch.
fn descent(objective: &mut NetworkObjective<f32>, batch: &Examples<f32>, n_steps: usize) -> Vec<f64> {
    let mut point = objective.weights().clone();
    let mut gradient = Flat::zeros(point.layout(), &Device::Cpu);
    let losses = (0..n_steps).map(|_| {
        objective.set_point(&point).unwrap();
        let tally = objective.gradient(batch, Pass::train(1), &mut gradient, Accumulate::Overwrite).unwrap();
        point.view_mut().host().iter_mut().zip(gradient.view().host()).for_each(|(w, g)| *w -= 0.05 * g);
        tally.nll()
    });
    losses.collect()
}

#[test]
fn training_in_bf16_follows_f32() {
    for graph in [residual as fn() -> Graph, wide] {
        let batch = examples(&graph(), 32, 7);
        let [exact, rounded] = [Precision::F32, Precision::Bf16].map(|precision| descent(&mut objective(graph(), precision), &batch, 40));
        assert_ne!(exact, rounded);
        assert!(exact[39] < 0.8 * exact[0], "{exact:?}");
        // Rounding to 8 bits is off by up to 2⁻⁹ in each operand of each layer; losses that follow each other within ten times that
        // after 40 steps show that the gradients are those of the loss.
        for (exact, rounded) in exact.iter().zip(&rounded) {
            assert!((exact - rounded).abs() <= 10.0 * 2.0_f64.powi(-9) * exact.max(0.1), "{rounded} for {exact}");
        }
    }
}

#[test]
fn threads_and_forks_do_not_change_bits() {
    let found = |n_threads: usize, fork: bool| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| {
            let mut network = objective(wide(), Precision::Bf16);
            if fork {
                network = network.fork();
            }
            assert_eq!(network.executor().precision(), Precision::Bf16);
            let batch = examples(network.executor().graph(), 33, 4);
            let mut gradient = Flat::zeros(network.weights().layout(), &Device::Cpu);
            let tally = network.gradient(&batch, Pass::train(5), &mut gradient, Accumulate::Overwrite).unwrap();
            network.refresh(NormRefresh::BatchAverage, &common::cut(&batch, &[20, 13])).unwrap();
            let measured = network.measure(&batch, Pass::EVALUATE).unwrap();
            let mut bits = vec![tally.loss_nats_sum.to_bits(), measured.loss_nats_sum.to_bits()];
            bits.extend(gradient.to_vec().iter().map(|g| u64::from(g.to_bits())));
            bits
        })
    };
    let one = found(1, false);
    assert!(found(2, false) == one && found(3, true) == one);
}

#[test]
fn double_precision_is_refused() {
    let error = Executor::<f64>::in_precision(Arc::new(residual()), &Device::Cpu, Precision::Bf16).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("no kernels in `bf16` for `f64`"), "{error}");
}
