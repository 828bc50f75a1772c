//! Gradients against central differences, by hand, and the rules of accumulation.
#![allow(clippy::unwrap_used)]

mod common;

use common::{check_all, examples, mlp, objective, residual, zoo};
use landscape_core::{Examples, Flat, Fork, Norm, Objective, Pass, Targets, Tell};
use landscape_graph::{Bias, GraphBuilder};
use landscape_kernels::{Accumulate, Device};
use landscape_network::{Loss, NetworkObjective};
use std::sync::Arc;

#[test]
fn mlp_gradients_are_derivatives() {
    check_all(mlp(), Pass::EVALUATE, 7);
}

#[test]
fn residual_gradients_are_derivatives_through_batch_statistics() {
    check_all(residual(), Pass { norm: Norm::Batch, dropout_seed: None, tell: Tell::AtOnce }, 3);
}

#[test]
fn residual_gradients_are_derivatives_at_stored_statistics() {
    check_all(residual(), Pass::EVALUATE, 2);
}

#[test]
fn gradients_of_all_other_ops_are_derivatives_with_a_fixed_dropout_mask() {
    check_all(zoo(), Pass::train(3), 4);
}

#[test]
fn gradients_of_all_other_ops_are_derivatives_without_dropout() {
    check_all(zoo(), Pass::EVALUATE, 3);
}

#[test]
fn squared_error_gradients_are_derivatives() {
    let graph = Arc::new(mlp());
    let mut objective = NetworkObjective::<f64>::new(graph.clone(), &Device::Cpu, Loss::SquaredError).unwrap();
    let start = common::objective::<f64>(mlp(), 2).weights().clone();
    let inputs = examples::<f64>(&graph, 5, 1).inputs;
    let batch = Examples { inputs, n_examples: 5, targets: Targets::Values((0..15).map(|i| (i as f64).sin()).collect()) };
    objective.set_point(&start).unwrap();
    let mut gradient = Flat::zeros(start.layout(), &Device::Cpu);
    let tally = objective.gradient(&batch, Pass::EVALUATE, &mut gradient, Accumulate::Overwrite).unwrap();
    assert_eq!(tally.n_wrong, None);
    let h = 1e-5;
    for idx in (0..start.layout().n_elements()).step_by(3) {
        let mut at = |offset: f64| {
            let mut moved = start.clone();
            moved.view_mut().host()[idx] += offset;
            objective.set_point(&moved).unwrap();
            objective.measure(&batch, Pass::EVALUATE).unwrap().nll()
        };
        let numeric = (at(h) - at(-h)) / (2.0 * h);
        assert!((numeric - gradient.view().host()[idx]).abs() < 1e-8 + 1e-6 * numeric.abs());
    }
}

/// Two inputs, one hidden unit, two outputs: every number can be followed on paper.
#[test]
fn a_tiny_network_by_hand() {
    let mut b = GraphBuilder::new([2]);
    let x = b.linear("fc1", b.input(), 1, Bias::On).unwrap();
    let x = b.relu("relu", x).unwrap();
    let x = b.linear("fc2", x, 2, Bias::Off).unwrap();
    let mut objective = NetworkObjective::<f64>::new(Arc::new(b.finish(x).unwrap()), &Device::Cpu, Loss::SquaredError).unwrap();
    let layout = objective.weights().layout().clone();
    // hidden = relu(2·1 − 1·3 + 2) = 1; outputs (3, −1); loss ((3 − 1)² + (−1 − 1)²)/2 = 4; ∂/∂outputs = (2, −2).
    objective.set_point(&Flat::from_vec(&layout, &Device::Cpu, vec![2.0, -1.0, 2.0, 3.0, -1.0]).unwrap()).unwrap();
    let batch = Examples { inputs: vec![1.0, 3.0], n_examples: 1, targets: Targets::Values(vec![1.0, 1.0]) };
    let mut gradient = Flat::zeros(&layout, &Device::Cpu);
    let tally = objective.gradient(&batch, Pass::EVALUATE, &mut gradient, Accumulate::Overwrite).unwrap();
    assert_eq!(tally.loss_nats_sum, 4.0);
    // ∂/∂fc2 = (2, −2)·1; ∂/∂hidden = 2·3 + (−2)(−1) = 8; ∂/∂fc1 = 8·(1, 3), bias 8.
    assert_eq!(gradient.to_vec(), [8.0, 24.0, 8.0, 2.0, -2.0]);
    objective.gradient(&batch, Pass::EVALUATE, &mut gradient, Accumulate::Add).unwrap();
    assert_eq!(gradient.to_vec(), [16.0, 48.0, 16.0, 4.0, -4.0]);
}

#[test]
fn adding_is_overwriting_plus_what_was_there() {
    for graph in [residual(), zoo()] {
        let mut objective = objective::<f64>(graph, 1);
        let batch = examples(objective.executor().graph(), 4, 2);
        let layout = objective.weights().layout().clone();
        let mut fresh = Flat::from_vec(&layout, &Device::Cpu, vec![f64::NAN; layout.n_elements()]).unwrap();
        objective.gradient(&batch, Pass::train(1), &mut fresh, Accumulate::Overwrite).unwrap();
        fresh.check_finite().unwrap();
        let mut sum = Flat::from_vec(&layout, &Device::Cpu, vec![1.0; layout.n_elements()]).unwrap();
        objective.gradient(&batch, Pass::train(1), &mut sum, Accumulate::Add).unwrap();
        for (sum, fresh) in sum.to_vec().into_iter().zip(fresh.to_vec()) {
            assert!((sum - (1.0 + fresh)).abs() <= 1e-14 * (1.0 + fresh.abs()));
        }
    }
}

/// The mean gradient of a batch is the weighted mean of its parts', where no statistics tie the examples together.
#[test]
fn batches_add_up() {
    let mut objective = objective::<f64>(residual(), 1);
    let batch = examples::<f64>(objective.executor().graph(), 5, 2);
    let layout = objective.weights().layout().clone();
    let mut gradient_of = |batch: &Examples<f64>| {
        let mut gradient = Flat::zeros(&layout, &Device::Cpu);
        let tally = objective.gradient(batch, Pass::EVALUATE, &mut gradient, Accumulate::Overwrite).unwrap();
        (tally, gradient.to_vec())
    };
    let (whole, gradient) = gradient_of(&batch);
    let parts: Vec<_> = common::cut(&batch, &[2, 3]).0.iter().map(&mut gradient_of).collect();
    assert!((parts[0].0.loss_nats_sum + parts[1].0.loss_nats_sum - whole.loss_nats_sum).abs() < 1e-12);
    for (idx, whole) in gradient.into_iter().enumerate() {
        assert!((0.4 * parts[0].1[idx] + 0.6 * parts[1].1[idx] - whole).abs() < 1e-12);
    }
}

/// The memory a plan shares must not leak from one pass into the next.
#[test]
fn passes_do_not_disturb_each_other() {
    let mut objective = objective::<f32>(zoo(), 4);
    let (small, large) = (examples(objective.executor().graph(), 3, 1), examples(objective.executor().graph(), 9, 2));
    let layout = objective.weights().layout().clone();
    let mut first = Flat::zeros(&layout, &Device::Cpu);
    let tally = objective.gradient(&small, Pass::EVALUATE, &mut first, Accumulate::Overwrite).unwrap();
    let mut other = Flat::zeros(&layout, &Device::Cpu);
    objective.gradient(&large, Pass::EVALUATE, &mut other, Accumulate::Overwrite).unwrap();
    objective.measure(&large, Pass::EVALUATE).unwrap();
    let measured = objective.measure(&small, Pass::EVALUATE).unwrap();
    let mut again = Flat::zeros(&layout, &Device::Cpu);
    assert_eq!(objective.gradient(&small, Pass::EVALUATE, &mut again, Accumulate::Overwrite).unwrap(), tally);
    assert_eq!(first.to_vec(), again.to_vec());
    let mut fork = objective.fork();
    assert_eq!(fork.measure(&small, Pass::EVALUATE).unwrap(), measured);
    fork.set_point(&other).unwrap();
    assert_eq!(objective.measure(&small, Pass::EVALUATE).unwrap(), measured, "a fork has weights of its own");
}

#[test]
fn dropout_masks_are_a_function_of_seed_and_position() {
    let mut objective = objective::<f64>(zoo(), 4);
    let batch = examples::<f64>(objective.executor().graph(), 4, 1);
    let longer = examples::<f64>(objective.executor().graph(), 6, 1);
    assert_eq!(longer.inputs[..batch.inputs.len()], batch.inputs[..], "the longer batch begins with the shorter one");
    let pass = |seed| Pass { norm: Norm::Stored, dropout_seed: Some(seed), tell: Tell::AtOnce };
    let mut outputs = |batch: &Examples<f64>, pass| {
        objective.executor_mut().evaluate(&batch.inputs, batch.n_examples, pass).unwrap();
        objective.executor().output().host().to_vec()
    };
    let first = outputs(&batch, pass(1));
    assert_eq!(first, outputs(&batch, pass(1)));
    assert_ne!(first, outputs(&batch, pass(2)));
    assert_ne!(first, outputs(&batch, Pass::EVALUATE));
    let of_longer = outputs(&longer, pass(1));
    for (a, b) in first.iter().zip(&of_longer) {
        assert!((a - b).abs() < 1e-12, "an example's mask does not depend on those after it");
    }
}
