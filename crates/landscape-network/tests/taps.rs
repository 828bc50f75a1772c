//! Taps see, change and stop.
#![allow(clippy::unwrap_used)]

mod common;

use common::{examples, objective, residual};
use landscape_core::Pass;
use landscape_graph::{Conv2d, GraphBuilder};
use landscape_network::tap::{Flow, Taps};

#[test]
fn a_tap_sees_what_a_network_cut_there_puts_out() {
    let whole = objective::<f64>(residual(), 3);
    let inputs = examples::<f64>(whole.executor().graph(), 2, 1).inputs;
    let mut seen = Vec::new();
    let mut executor = whole.executor().fork();
    let mut taps = Taps::new().at("conv1", |activation| {
        assert_eq!((activation.node(), activation.n_examples(), activation.shape()), ("conv1", 2, &[3, 5, 6][..]));
        seen = activation.to_vec()?;
        Ok(Flow::Stop)
    });
    assert_eq!(executor.evaluate_with(&inputs, 2, Pass::EVALUATE, &mut taps).unwrap(), Flow::Stop);
    drop(taps);
    assert!(executor.output().is_empty(), "a pass that was stopped has no output");
    let mut b = GraphBuilder::new([2, 5, 6]);
    let conv = Conv2d { padding: [1, 1], bias: landscape_graph::Bias::Off, ..Conv2d::new(3, 3) };
    let x = b.conv2d("conv1", b.input(), conv).unwrap();
    let x = b.flatten("flatten", x).unwrap();
    let mut cut = objective::<f64>(b.finish(x).unwrap(), 3);
    let weight = whole.executor().weights().tensor("conv1.weight").unwrap().host().to_vec();
    let point = landscape_core::Flat::from_vec(cut.executor().layout(), &landscape_kernels::Device::Cpu, weight).unwrap();
    cut.set_point(&point).unwrap();
    cut.executor_mut().evaluate(&inputs, 2, Pass::EVALUATE).unwrap();
    assert_eq!(seen, cut.executor().output().host(), "flatten is in the outside's order, and so is a tap");
}

/// An evaluation without taps has its batch norms in its weights.
fn close(got: &[f64], expected: &[f64], what: &str) {
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-13 * (1.0 + expected.abs()), "{what}: {got} against {expected}");
    }
}

#[test]
fn what_a_tap_leaves_flows_on() {
    let mut objective = objective::<f64>(residual(), 3);
    let executor = objective.executor_mut();
    let inputs = examples::<f64>(executor.graph(), 2, 1).inputs;
    executor.evaluate(&inputs, 2, Pass::EVALUATE).unwrap();
    let plain = executor.output().host().to_vec();
    let mut values = Vec::new();
    let mut look = Taps::new().at("layer1.relu", |activation| {
        values = activation.to_vec()?;
        Ok(Flow::Continue)
    });
    assert_eq!(executor.evaluate_with(&inputs, 2, Pass::EVALUATE, &mut look).unwrap(), Flow::Continue);
    drop(look);
    close(executor.output().host(), &plain, "looking changes nothing but roundings: nodes run one by one");
    // Other inputs, but the activation of these ones put in: the output must be that of these ones.
    let others = examples::<f64>(executor.graph(), 2, 9).inputs;
    let mut put = Taps::new().at("layer1.relu", |activation| {
        activation.replace(&values)?;
        Ok(Flow::Continue)
    });
    executor.evaluate_with(&others, 2, Pass::EVALUATE, &mut put).unwrap();
    drop(put);
    close(executor.output().host(), &plain, "what was put in flows on");
    let mut double = Taps::new().at("fc", |activation| {
        activation.stored_mut().host().iter_mut().for_each(|v| *v *= 2.0);
        Ok(Flow::Continue)
    });
    executor.evaluate_with(&inputs, 2, Pass::EVALUATE, &mut double).unwrap();
    drop(double);
    close(executor.output().host(), &plain.iter().map(|v| 2.0 * v).collect::<Vec<_>>(), "what was doubled flows on");
}

#[test]
fn taps_that_cannot_be_are_refused() {
    let mut objective = objective::<f64>(residual(), 3);
    let executor = objective.executor_mut();
    let inputs = examples::<f64>(executor.graph(), 1, 1).inputs;
    let error = executor.evaluate_with(&inputs, 1, Pass::EVALUATE, &mut Taps::new().at("conv9", |_| Ok(Flow::Stop)));
    assert_eq!(error.unwrap_err().to_string(), "the graph has no node `conv9`");
    let mut short = Taps::new().at("fc", |activation| {
        activation.replace(&[1.0])?;
        Ok(Flow::Continue)
    });
    let error = executor.evaluate_with(&inputs, 1, Pass::EVALUATE, &mut short);
    assert_eq!(error.unwrap_err().to_string(), "node `fc`: an activation must be replaced by 3 numbers, got 1");
}
