//! Batch statistics, running ones, and the four ways to refresh them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{cut, examples, objective, residual, zoo};
use landscape_core::{Buffers, Examples, Norm, NormRefresh, Objective, Pass, Stateful, Tell};
use landscape_network::NetworkObjective;
use landscape_network::tap::{Flow, Taps};

/// Per channel, the values of node `node` over the examples, as an evaluation at the present statistics sees them.
fn channel_values(objective: &mut NetworkObjective<f64>, node: &str, batch: &Examples<f64>) -> Vec<Vec<f64>> {
    let mut channels = Vec::new();
    let mut taps = Taps::new().at(node, |activation| {
        let &[c, h, w] = activation.shape() else { panic!("an image is expected") };
        channels = vec![Vec::new(); c];
        for (idx, &value) in activation.to_vec()?.iter().enumerate() {
            channels[idx / (h * w) % c].push(value);
        }
        Ok(Flow::Stop)
    });
    objective.executor_mut().evaluate_with(&batch.inputs, batch.n_examples, Pass::EVALUATE, &mut taps).unwrap();
    drop(taps);
    channels
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Variance with divisor n − `ddof`.
fn variance(values: &[f64], ddof: f64) -> f64 {
    let m = mean(values);
    values.iter().map(|v| (v - m).powi(2)).sum::<f64>() / (values.len() as f64 - ddof)
}

fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= tolerance * (1.0 + e.abs()), "{found:?} against {expected:?}");
    }
}

#[test]
fn running_statistics_move_by_momentum_towards_the_unbiased_variance() {
    let mut objective = objective::<f64>(residual(), 3);
    let batch = examples(objective.executor().graph(), 4, 1);
    let before = objective.buffers().clone();
    let values = channel_values(&mut objective, "conv1", &batch);
    objective.measure(&batch, Pass { norm: Norm::Batch, dropout_seed: None, tell: Tell::AtOnce }).unwrap();
    let expected_mean: Vec<f64> =
        values.iter().zip(before.get("bn1.running_mean").unwrap()).map(|(v, old)| 0.9 * old + 0.1 * mean(v)).collect();
    let expected_var: Vec<f64> =
        values.iter().zip(before.get("bn1.running_var").unwrap()).map(|(v, old)| 0.9 * old + 0.1 * variance(v, 1.0)).collect();
    assert_near(objective.buffers().get("bn1.running_mean").unwrap(), &expected_mean, 1e-13);
    assert_near(objective.buffers().get("bn1.running_var").unwrap(), &expected_var, 1e-13);
    let count = |buffers: &Buffers| buffers.get("bn1.num_batches_tracked").unwrap()[0];
    assert_eq!(count(objective.buffers()), count(&before) + 1.0);
    let after = objective.buffers().clone();
    objective.measure(&batch, Pass::EVALUATE).unwrap();
    assert_eq!(objective.buffers(), &after, "evaluation leaves them alone");
}

#[test]
fn normalised_activations_have_mean_zero_and_variance_one() {
    let mut objective = objective::<f64>(residual(), 3);
    let mut point = objective.weights().clone();
    let layout = point.layout().clone();
    point.view_mut().host()[layout.get("bn1.weight").unwrap().range()].fill(1.0);
    point.view_mut().host()[layout.get("bn1.bias").unwrap().range()].fill(0.0);
    objective.set_point(&point).unwrap();
    let batch = examples::<f64>(objective.executor().graph(), 4, 1);
    let mut checked = 0;
    let mut taps = Taps::new().at("bn1", |activation| {
        let values = activation.stored().host();
        for c in 0..3 {
            let channel: Vec<f64> = values.iter().skip(c).step_by(3).copied().collect();
            assert!(mean(&channel).abs() < 1e-12);
            // eps makes it a little smaller.
            assert!((variance(&channel, 0.0) - 1.0).abs() < 1e-3);
            checked += 1;
        }
        Ok(Flow::Stop)
    });
    let pass = Pass { norm: Norm::Batch, dropout_seed: None, tell: Tell::AtOnce };
    objective.executor_mut().evaluate_with(&batch.inputs, 4, pass, &mut taps).unwrap();
    drop(taps);
    assert_eq!(checked, 3);
}

/// In single precision too, what a checkpoint holds is what evaluation uses.
#[test]
fn running_statistics_are_numbers_of_the_networks_precision() {
    let mut objective = objective::<f32>(residual(), 3);
    let batch = examples(objective.executor().graph(), 4, 1);
    objective.measure(&batch, Pass::train(0)).unwrap();
    assert!(objective.buffers().values().iter().all(|&v| f64::from(v as f32) == v));
    objective.refresh(NormRefresh::Pooled, &cut(&batch, &[2, 2])).unwrap();
    assert!(objective.buffers().values().iter().all(|&v| f64::from(v as f32) == v));
}

#[test]
fn the_first_layer_gets_what_each_method_promises() {
    let mut objective = objective::<f64>(residual(), 3);
    let all = examples(objective.executor().graph(), 7, 1);
    let sizes = [3, 3, 1];
    let batches = cut(&all, &sizes);
    let whole = channel_values(&mut objective, "conv1", &all);
    let parts: Vec<_> = batches.0.iter().map(|batch| channel_values(&mut objective, "conv1", batch)).collect();
    let weighted = |weights: [f64; 3], statistic: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
        (0..3).map(|c| (0..3).map(|b| weights[b] * statistic(&parts[b][c])).sum::<f64>() / weights.iter().sum::<f64>()).collect()
    };
    let mut refreshed = |how| {
        objective.refresh(how, &batches).unwrap();
        let get = |name: &str| objective.buffers().get(name).unwrap().to_vec();
        assert_eq!(get("bn1.num_batches_tracked"), [3.0]);
        (get("bn1.running_mean"), get("bn1.running_var"))
    };
    let population: Vec<f64> = whole.iter().map(|v| mean(v)).collect();

    let (found_mean, found_var) = refreshed(NormRefresh::BatchAverage);
    assert_near(&found_mean, &population, 1e-13);
    assert_near(&found_mean, &weighted([3.0, 3.0, 1.0], &mean), 1e-13);
    assert_near(&found_var, &weighted([3.0, 3.0, 1.0], &|v| variance(v, 1.0)), 1e-13);

    let (found_mean, found_var) = refreshed(NormRefresh::TorchCumulative);
    assert_near(&found_mean, &weighted([1.0; 3], &mean), 1e-13);
    assert_near(&found_var, &weighted([1.0; 3], &|v| variance(v, 1.0)), 1e-13);
    assert!((found_mean[0] - population[0]).abs() > 1e-4, "a short last batch counts as much as the others here");

    for how in [NormRefresh::Pooled, NormRefresh::Sequential] {
        let (found_mean, found_var) = refreshed(how);
        assert_near(&found_mean, &population, 1e-13);
        assert_near(&found_var, &whole.iter().map(|v| variance(v, 0.0)).collect::<Vec<_>>(), 1e-13);
    }
}

/// The reference's own recursion: reset statistics, then momentum b/(n + b) batch after batch.
#[test]
fn batch_average_is_the_recursion_of_the_reference() {
    let mut objective = objective::<f64>(residual(), 3);
    let batches = cut(&examples(objective.executor().graph(), 9, 1), &[4, 3, 2]);
    let (mut running_mean, mut running_var, mut n) = (vec![0.0; 3], vec![1.0; 3], 0.0);
    for batch in &batches.0 {
        let b = batch.n_examples as f64;
        let momentum = b / (n + b);
        n += b;
        for (c, values) in channel_values(&mut objective, "conv1", batch).iter().enumerate() {
            running_mean[c] = (1.0 - momentum) * running_mean[c] + momentum * mean(values);
            running_var[c] = (1.0 - momentum) * running_var[c] + momentum * variance(values, 1.0);
        }
    }
    objective.refresh(NormRefresh::BatchAverage, &batches).unwrap();
    assert_near(objective.buffers().get("bn1.running_mean").unwrap(), &running_mean, 1e-13);
    assert_near(objective.buffers().get("bn1.running_var").unwrap(), &running_var, 1e-13);
}

fn distance(a: &Buffers, b: &Buffers) -> f64 {
    let scale = a.values().iter().fold(0.0f64, |m, v| m.max(v.abs()));
    a.values().iter().zip(b.values()).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / scale
}

/// Refreshes over some batches; the counts of batches are set alike, so that only statistics are compared.
fn refreshed(objective: &mut NetworkObjective<f64>, how: NormRefresh, all: &Examples<f64>, sizes: &[usize]) -> Buffers {
    objective.refresh(how, &cut(all, sizes)).unwrap();
    let mut buffers = objective.buffers().clone();
    for spec in buffers.layout().clone().tensors().iter().filter(|spec| spec.name.ends_with("num_batches_tracked")) {
        assert_eq!(buffers.get(&spec.name).unwrap(), [sizes.len() as f64]);
        buffers.get_mut(&spec.name).unwrap()[0] = 0.0;
    }
    buffers
}

fn reversed(all: &Examples<f64>) -> Examples<f64> {
    let parts = cut(all, &vec![1; all.n_examples]).0;
    let inputs = parts.iter().rev().flat_map(|e| e.inputs.clone()).collect();
    Examples { inputs, ..all.clone() }
}

#[test]
fn sequential_does_not_depend_on_batching_or_order_and_the_others_do() {
    for graph in [residual(), zoo()] {
        let mut objective = objective::<f64>(graph, 3);
        let all = examples(objective.executor().graph(), 9, 1);
        let backwards = reversed(&all);
        let first = refreshed(&mut objective, NormRefresh::Sequential, &all, &[9]);
        for (examples, sizes) in [(&all, vec![4, 5]), (&all, vec![1; 9]), (&backwards, vec![2, 6, 1])] {
            let found = refreshed(&mut objective, NormRefresh::Sequential, examples, &sizes);
            assert!(distance(&first, &found) < 1e-12, "{}", distance(&first, &found));
        }
        for how in [NormRefresh::BatchAverage, NormRefresh::TorchCumulative, NormRefresh::Pooled] {
            let [a, b] = [vec![9], vec![5, 4]].map(|sizes| refreshed(&mut objective, how, &all, &sizes));
            assert!(distance(&a, &b) > 1e-6, "{how:?} normalises each batch by itself on the way");
        }
        // A single batch is normalised by the statistics of all the data, so then there is no difference.
        let pooled = refreshed(&mut objective, NormRefresh::Pooled, &all, &[9]);
        assert!(distance(&first, &pooled) < 1e-12);
    }
}

/// What evaluation then feeds into *every* layer has exactly the stored mean and variance: the fixed point.
#[test]
fn after_a_sequential_refresh_each_layer_sees_what_it_stored() {
    let mut objective = objective::<f64>(residual(), 3);
    let all = examples(objective.executor().graph(), 6, 1);
    objective.refresh(NormRefresh::Sequential, &cut(&all, &[4, 2])).unwrap();
    for (input, norm) in [
        ("conv1", "bn1"),
        ("layer1.conv1", "layer1.bn1"),
        ("layer2.conv1", "layer2.bn1"),
        ("layer2.conv2", "layer2.bn2"),
        ("layer2.downsample.0", "layer2.downsample.1"),
    ] {
        let values = channel_values(&mut objective, input, &all);
        let get = |what: &str| objective.buffers().get(&format!("{norm}.{what}")).unwrap().to_vec();
        assert_near(&get("running_mean"), &values.iter().map(|v| mean(v)).collect::<Vec<_>>(), 1e-12);
        assert_near(&get("running_var"), &values.iter().map(|v| variance(v, 0.0)).collect::<Vec<_>>(), 1e-12);
    }
}

#[test]
fn a_refresh_that_fails_leaves_the_statistics_as_they_were() {
    let mut objective = objective::<f64>(residual(), 3);
    let mut batches = cut(&examples(objective.executor().graph(), 4, 1), &[2, 2]);
    batches.0[1].inputs.pop();
    let before = objective.buffers().clone();
    for how in [NormRefresh::BatchAverage, NormRefresh::TorchCumulative, NormRefresh::Pooled, NormRefresh::Sequential] {
        assert!(objective.refresh(how, &batches).is_err());
        assert_eq!(objective.buffers(), &before);
    }
    let error = objective.refresh(NormRefresh::Sequential, &common::Fixed(Vec::new())).unwrap_err();
    assert_eq!(error.to_string(), "statistics cannot be refreshed over no batches");
}
