//! Networks on GPUs: the numbers of the processor, and the same bits whenever somebody asks for them.
//!
//! Where there is no GPU the comparison runs in a child on the host driver of the kernels' tests.
#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;
#[path = "../../landscape-kernels/tests/host_driver/mod.rs"]
mod host_driver;

use common::{cut, examples, mlp, objective, residual, zoo};
use host_driver::{Beside, run_as_child};
use landscape_core::{Examples, Flat, NormRefresh, Objective, Pass, Stateful, Tally, Tell};
use landscape_graph::Graph;
use landscape_kernels::{Accumulate, Device};
use landscape_network::{Loss, NetworkObjective};
use std::path::Path;
use std::sync::Arc;

/// What a few passes on a device gave: tallies, the last gradient, the statistics.
#[derive(Debug, PartialEq)]
struct Found {
    tallies: Vec<Tally>,
    gradient: Vec<f64>,
    buffers: Vec<f64>,
}

/// The objective of [`common::objective`], elsewhere.
fn on(device: &Device, graph: Graph) -> NetworkObjective<f64> {
    let here = objective::<f64>(graph, 3);
    let mut there = NetworkObjective::new(here.executor().graph().clone(), device, Loss::CrossEntropy).unwrap();
    there.set_point(&here.weights().clone().to_device(device).unwrap()).unwrap();
    there.set_buffers(here.buffers()).unwrap();
    there
}

/// Three steps of training, an evaluation and all refreshes; tallies are collected after every `every`-th batch, and at the end.
fn run(device: &Device, graph: Graph, tell: Tell, every: usize) -> Found {
    let mut objective = on(device, graph);
    let graph: Arc<Graph> = objective.executor().graph().clone();
    let batches: Vec<Examples<f64>> = (0..5).map(|seed| examples(&graph, 4, seed)).collect();
    let mut gradient = Flat::zeros(objective.weights().layout(), device);
    let mut tallies = Vec::new();
    let mut take = |objective: &mut NetworkObjective<f64>, idx: usize, tally: Tally| {
        if tally.n_examples > 0 {
            tallies.push(tally);
        }
        if idx.is_multiple_of(every) {
            objective.collect(&mut |tally| tallies.push(tally)).unwrap();
        }
    };
    for (idx, batch) in batches[..3].iter().enumerate() {
        let pass = Pass { tell, ..Pass::train(idx as u64) };
        let tally = objective.gradient(batch, pass, &mut gradient, Accumulate::Add).unwrap();
        take(&mut objective, idx, tally);
    }
    for (idx, batch) in batches[3..].iter().enumerate() {
        let tally = objective.measure(batch, Pass { tell, ..Pass::EVALUATE }).unwrap();
        take(&mut objective, idx, tally);
    }
    objective.collect(&mut |tally| tallies.push(tally)).unwrap();
    let mut buffers = objective.buffers().values().to_vec();
    for how in [NormRefresh::BatchAverage, NormRefresh::TorchCumulative, NormRefresh::Pooled, NormRefresh::Sequential] {
        objective.refresh(how, &cut(&batches[0], &[2, 2])).unwrap();
        buffers.extend(objective.buffers().values());
    }
    Found { tallies, gradient: gradient.to_host().unwrap().to_vec(), buffers }
}

fn assert_near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= 1e-9 * (1.0 + e.abs()), "{f} against {e}");
    }
}

#[test]
fn networks_on_a_gpu_give_the_numbers_of_the_processor() {
    let device = match Device::parse("cuda:0") {
        Ok(device) => device,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    for graph in [mlp, residual, zoo] {
        let expected = run(&Device::Cpu, graph(), Tell::AtOnce, 1);
        assert_eq!(run(&Device::Cpu, graph(), Tell::Later, 2), expected);
        let found = run(&device, graph(), Tell::AtOnce, 1);
        assert_near(&found.gradient, &expected.gradient);
        assert_near(&found.buffers, &expected.buffers);
        assert_eq!(found.tallies.len(), expected.tallies.len());
        for (f, e) in found.tallies.iter().zip(&expected.tallies) {
            assert_eq!((f.n_examples, f.n_wrong), (e.n_examples, e.n_wrong));
            assert_near(&[f.loss_nats_sum], &[e.loss_nats_sum]);
        }
        for every in [1, 2, 10] {
            assert_eq!(run(&device, graph(), Tell::Later, every), found, "told after {every}");
        }
    }
}

/// The test above as a child whose driver is the host driver, with the libraries and without.
#[test]
fn networks_on_the_host_driver() {
    let folder = match host_driver::build(Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        Ok(folder) => folder,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    for beside in [Beside::CublasAndCudnn, Beside::Nothing] {
        run_as_child(&folder, beside, &["networks_on_a_gpu"], &[]);
    }
}
