//! What a caller can get wrong, and what it is told.
#![allow(clippy::unwrap_used)]

mod common;

use common::{examples, mlp, objective, residual};
use landscape_core::{
    Buffers, Coefficients, ControlPoints, Examples, Flat, Fork, Norm, Objective, ParamLayout, Pass, Stateful, Targets, Tell,
};
use landscape_graph::{Bias, Conv2d, GraphBuilder};
use landscape_kernels::{Accumulate, Device};
use landscape_network::{Error, Executor, Loss, NetworkObjective};
use std::sync::Arc;

fn message<T: std::fmt::Debug>(result: Result<T, impl std::fmt::Display>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn stored_statistics_are_stale_after_a_move_until_they_are_set() {
    let mut objective = objective::<f64>(residual(), 1);
    let batch = examples(objective.executor().graph(), 3, 2);
    let points = ControlPoints::single(objective.weights().clone());
    let mut gradient = Flat::zeros(points.layout(), &Device::Cpu);
    let buffers = objective.buffers().clone();
    objective.move_to(&points, &Coefficients::one_hot(0, 1).unwrap()).unwrap();
    let error = objective.measure(&batch, Pass::EVALUATE).unwrap_err();
    assert!(matches!(error, landscape_core::Error::StaleStatistics));
    assert!(objective.gradient(&batch, Pass::EVALUATE, &mut gradient, Accumulate::Overwrite).is_err());
    // Batch statistics are never stale, and do not make the stored ones fresh.
    objective.gradient(&batch, Pass::train(0), &mut gradient, Accumulate::Overwrite).unwrap();
    assert!(objective.measure(&batch, Pass::EVALUATE).is_err());
    objective.set_buffers(&buffers).unwrap();
    objective.measure(&batch, Pass::EVALUATE).unwrap();
    objective.set_point(&points.point(0).clone()).unwrap();
    assert!(objective.fork().measure(&batch, Pass::EVALUATE).is_err(), "a fork is as stale as what it came from");
    objective.refresh(landscape_core::NormRefresh::Pooled, &common::Fixed(vec![batch.clone()])).unwrap();
    objective.measure(&batch, Pass::EVALUATE).unwrap();
}

#[test]
fn a_network_without_batch_norm_is_never_stale() {
    let mut objective = objective::<f32>(mlp(), 1);
    let batch = examples(objective.executor().graph(), 3, 2);
    let point = objective.weights().clone();
    objective.set_point(&point).unwrap();
    objective.measure(&batch, Pass::EVALUATE).unwrap();
    assert!(objective.buffers().is_empty());
    objective.refresh(landscape_core::NormRefresh::BatchAverage, &common::Fixed(Vec::new())).unwrap();
}

#[test]
fn batches_that_do_not_fit_are_named() {
    let mut objective = objective::<f64>(mlp(), 1);
    let mut measure = |inputs: usize, n_examples, targets| {
        message(objective.measure(&Examples { inputs: vec![0.5; inputs], n_examples, targets }, Pass::EVALUATE))
    };
    assert_eq!(measure(0, 0, Targets::Classes(vec![])), "a batch must have at least one example, got none");
    assert_eq!(measure(7, 2, Targets::Classes(vec![0, 1])), "the inputs of 2 examples of shape [4] must be 8 numbers, got 7");
    assert_eq!(measure(8, 2, Targets::Classes(vec![0, 3])), "`cross_entropy`: label 3 of row 1 must be below 3");
    assert_eq!(measure(8, 2, Targets::Classes(vec![0])), "loss `cross_entropy`: targets must be 2 class labels, got 1");
    assert_eq!(measure(8, 2, Targets::Values(vec![0.0; 6])), "loss `cross_entropy`: targets must be class labels, got numbers");
    let mut regression = NetworkObjective::<f64>::new(Arc::new(mlp()), &Device::Cpu, Loss::SquaredError).unwrap();
    let batch = Examples { inputs: vec![0.5; 8], n_examples: 2, targets: Targets::Values(vec![0.0; 5]) };
    let found = message(regression.measure(&batch, Pass::EVALUATE));
    assert_eq!(found, "loss `squared_error`: targets must be 3 numbers for each of 2 examples, got 5");
}

#[test]
fn a_bad_batch_leaves_the_statistics_alone() {
    let mut objective = objective::<f64>(residual(), 1);
    let mut batch = examples::<f64>(objective.executor().graph(), 3, 2);
    batch.targets = Targets::Classes(vec![0, 1, 99]);
    let before = objective.buffers().clone();
    assert!(objective.measure(&batch, Pass::train(0)).is_err());
    assert_eq!(objective.buffers(), &before);
}

#[test]
fn one_value_has_no_variance() {
    let mut b = GraphBuilder::new([3]);
    let x = b.linear("fc1", b.input(), 4, Bias::Off).unwrap();
    let x = b.batch_norm("bn", x).unwrap();
    let mut objective = objective::<f64>(b.finish(x).unwrap(), 1);
    let batch = examples(objective.executor().graph(), 1, 2);
    let found = message(objective.measure(&batch, Pass { norm: Norm::Batch, dropout_seed: None, tell: Tell::AtOnce }));
    assert!(found.starts_with("node `bn`: batch statistics need more than one value per channel, got one"), "{found}");
    objective.measure(&batch, Pass::EVALUATE).unwrap();
}

#[test]
fn other_layouts_are_refused() {
    let mut objective = objective::<f64>(mlp(), 1);
    let layout = Arc::new(ParamLayout::new([("fc1.weight".to_owned(), vec![2, 2])]).unwrap());
    let other = Flat::<f64>::zeros(&layout, &Device::Cpu);
    assert!(message(objective.set_point(&other)).contains("`fc1.weight`"));
    let points = ControlPoints::single(other.clone());
    assert!(objective.move_to(&points, &Coefficients::one_hot(0, 1).unwrap()).is_err());
    let batch = examples(objective.executor().graph(), 2, 1);
    assert!(objective.gradient(&batch, Pass::EVALUATE, &mut other.clone(), Accumulate::Overwrite).is_err());
    assert!(objective.set_buffers(&Buffers::of_graph(&residual()).unwrap()).is_err());
}

#[test]
fn going_back_needs_a_pass_and_can_be_done_once() {
    let graph = Arc::new(mlp());
    let mut executor = Executor::<f64>::new(graph.clone(), &Device::Cpu).unwrap();
    let mut gradient = Flat::zeros(executor.layout(), &Device::Cpu);
    let doutput = [1.0; 6];
    assert!(executor.output().is_empty());
    let mut backward = |executor: &mut Executor<f64>| executor.backward((&doutput[..]).into(), &mut gradient, Accumulate::Overwrite);
    assert!(matches!(backward(&mut executor), Err(Error::NoForward)));
    let inputs = examples::<f64>(&graph, 2, 1).inputs;
    executor.evaluate(&inputs, 2, Pass::EVALUATE).unwrap();
    assert!(matches!(backward(&mut executor), Err(Error::NoForward)));
    executor.forward(&inputs, 2, Pass::EVALUATE).unwrap();
    backward(&mut executor).unwrap();
    assert_eq!(executor.output().len(), 6);
    assert!(matches!(backward(&mut executor), Err(Error::NoForward)));
    executor.forward(&inputs, 2, Pass::EVALUATE).unwrap();
    let point = executor.weights().clone();
    executor.load(&point).unwrap();
    assert!(matches!(backward(&mut executor), Err(Error::NoForward)), "after a move the activations belong to another point");
}

#[test]
fn an_image_has_no_classes() {
    let mut b = GraphBuilder::new([1, 4, 4]);
    let x = b.conv2d("conv", b.input(), Conv2d::new(2, 3)).unwrap();
    let mut objective = NetworkObjective::<f32>::new(Arc::new(b.finish(x).unwrap()), &Device::Cpu, Loss::CrossEntropy).unwrap();
    let batch = Examples { inputs: vec![0.0; 16], n_examples: 1, targets: Targets::Classes(vec![0]) };
    let found = message(objective.measure(&batch, Pass::EVALUATE));
    assert!(found.contains("[places, classes]") && found.ends_with("one that yields [2, 2, 2]"), "{found}");
}

/// A network that learns nothing still measures, and its gradient is empty.
#[test]
fn a_network_without_parameters_runs() {
    let mut b = GraphBuilder::new([3]);
    let x = b.relu("relu", b.input()).unwrap();
    let mut objective = NetworkObjective::<f64>::new(Arc::new(b.finish(x).unwrap()), &Device::Cpu, Loss::CrossEntropy).unwrap();
    let batch = examples(objective.executor().graph(), 2, 1);
    let mut gradient = objective.weights().clone();
    let tally = objective.gradient(&batch, Pass::EVALUATE, &mut gradient, Accumulate::Overwrite).unwrap();
    assert_eq!(tally, objective.measure(&batch, Pass::EVALUATE).unwrap());
}
