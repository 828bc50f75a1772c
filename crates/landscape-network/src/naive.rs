//! The naive twin of a plan: a memory for every activation and every gradient, nothing shared. Random networks must not tell the
//! difference, bit for bit; nor, up to rounding, whether steps are fused.

use crate::executor::Executor;
use crate::fuse::{FusedStep, Fusion};
use crate::plan::{Finished, GradientWrite, Plan, Plans};
use crate::segments::Visit;
use crate::step::Program;
use landscape_core::{Flat, Norm, Pass, Seed, Tell};
use landscape_graph::{Bias, Conv2d, Gelu, Graph, GraphBuilder, NodeId, Op};
use landscape_kernels::{Accumulate, Device, Real};
use proptest::prelude::*;
use std::sync::Arc;

fn plan(program: &Program) -> Plan {
    let n = program.steps.len();
    let mut learns = vec![false; n];
    for (idx, step) in program.steps.iter().enumerate() {
        learns[idx] = step.weight.is_some() || step.inputs.iter().any(|&input| learns[input]);
    }
    let mut written = vec![false; n];
    let mut writes = vec![Vec::new(); n];
    for idx in (0..n).rev() {
        for &input in &program.steps[idx].inputs {
            let norm = matches!(program.steps[idx].op, Op::BatchNorm { .. });
            writes[idx].push(if !learns[idx] || !(learns[input] || norm) {
                GradientWrite::Skip
            } else if written[input] {
                GradientWrite::Compute(Accumulate::Add)
            } else {
                GradientWrite::Compute(Accumulate::Overwrite)
            });
            written[input] |= learns[idx];
        }
    }
    let sizes: Vec<usize> = program.steps.iter().map(|s| s.n_elements()).collect();
    Plan {
        steps: (0..n).map(FusedStep::of_node).collect(),
        lazy: vec![None; n],
        finishes: vec![None; n],
        finished: vec![Finished::No; n],
        activation: (0..n).collect(),
        revisited: (0..n).collect(),
        visits: (0..n).rev().map(Visit::Back).collect(),
        learns,
        gradient: (n..2 * n).map(Some).collect(),
        writes,
        argmax: (0..n).map(Some).collect(),
        argmax_sizes: sizes.clone(),
        slot_sizes: [sizes.clone(), sizes].concat(),
    }
}

fn plans(program: &Program) -> Plans {
    Plans { plain: plan(program), evaluation: plan(program), statistics: plan(program), training: plan(program), fusion: Fusion::None }
}

/// A network of random ops; every choice picks an op and two of the nodes that are there.
fn network(choices: &[(u8, usize, usize)]) -> Graph {
    let mut b = GraphBuilder::new([2, 4, 4]);
    let mut nodes = vec![b.input()];
    let mut read = vec![false];
    for (idx, &(op, first, second)) in choices.iter().enumerate() {
        let at = |choice: usize| choice % nodes.len();
        let (first, second) = (at(first), at(second));
        let (x, y): (NodeId, NodeId) = (nodes[first], nodes[second]);
        let name = format!("node{idx}");
        let channels = b.shape(x).unwrap()[0];
        let node = match op {
            0 => b.relu(&name, x),
            1 => b.gelu(&name, x, Gelu::Tanh),
            2 => b.dropout(&name, x, 0.4),
            3 => b.batch_norm(&name, x),
            4 => b.conv2d(&name, x, Conv2d { padding: [1, 1], ..Conv2d::new(3, 3) }),
            5 => b.push(&name, Op::MaxPool2d { kernel_size: [3, 3], stride: [1, 1], padding: [1, 1] }, &[x]),
            6 if channels + b.shape(y).unwrap()[0] < 12 => b.concat(&name, &[x, y]),
            _ if b.shape(x).unwrap() == b.shape(y).unwrap() => b.add(&name, x, y),
            _ => b.add(&name, x, x),
        };
        nodes.push(node.unwrap());
        read[first] = true;
        // Only some ops read the second one, so it still counts as loose: being read once more at the end does no harm.
        read.push(false);
    }
    let loose: Vec<NodeId> = nodes.iter().zip(&read).filter(|(_, read)| !**read).map(|(&node, _)| node).collect();
    let x = if loose.len() > 1 { b.concat("all", &loose).unwrap() } else { loose[0] };
    let x = b.flatten("flatten", x).unwrap();
    let x = b.linear("fc", x, 3, Bias::On).unwrap();
    b.finish(x).unwrap()
}

/// A network of random ops on features, each of the latest node; a sum is with one that stands so many nodes before it.
fn features(choices: &[(u8, usize)]) -> Graph {
    let mut b = GraphBuilder::new([32]);
    let mut nodes = vec![b.linear("first", b.input(), 7, Bias::On).unwrap()];
    for (idx, &(op, back)) in choices.iter().enumerate() {
        let x = nodes[nodes.len() - 1];
        let name = format!("node{idx}");
        nodes.push(match op {
            0 => b.linear(&name, x, 7, Bias::Off).unwrap(),
            1..=2 => b.linear(&name, x, 7, Bias::On).unwrap(),
            3..=5 => b.relu(&name, x).unwrap(),
            6 => b.dropout(&name, x, 0.4).unwrap(),
            7 => b.gelu(&name, x, Gelu::Tanh).unwrap(),
            8 => b.batch_norm(&name, x).unwrap(),
            _ => b.add(&name, x, nodes[nodes.len() - 1 - back % nodes.len()]).unwrap(),
        });
    }
    let x = b.linear("fc", nodes[nodes.len() - 1], 3, Bias::On).unwrap();
    b.finish(x).unwrap()
}

/// Output and gradient of a training pass, running statistics, and the output of an evaluation.
fn results<T: Real>(executor: &mut Executor<T>, norm: Norm) -> Vec<f64> {
    let mut stream = Seed::new(1).stream();
    let mut normal = |len: usize| -> Vec<T> { (0..len).map(|_| T::from_f64(stream.normal())).collect() };
    let layout = executor.layout().clone();
    let point = Flat::from_vec(&layout, &Device::Cpu, normal(layout.n_elements())).unwrap();
    executor.load(&point).unwrap();
    let buffers = executor.buffers().clone();
    executor.set_buffers(&buffers).unwrap();
    let (inputs, doutput) = (normal(3 * 32), normal(9));
    let mut gradient = Flat::zeros(&layout, &Device::Cpu);
    let mut all: Vec<f64> = Vec::new();
    executor.forward(&inputs, 3, Pass { norm, dropout_seed: Some(2), tell: Tell::AtOnce }).unwrap();
    all.extend(executor.output().host().iter().map(|v| v.to_f64()));
    executor.backward((&doutput).into(), &mut gradient, Accumulate::Overwrite).unwrap();
    all.extend(executor.output().host().iter().chain(gradient.view().host()).map(|v| v.to_f64()));
    all.extend(executor.buffers().values());
    executor.set_buffers(&buffers).unwrap();
    executor.evaluate(&inputs, 3, Pass { norm, dropout_seed: None, tell: Tell::AtOnce }).unwrap();
    all.extend(executor.output().host().iter().map(|v| v.to_f64()));
    all
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn shared_memory_changes_no_bit(choices in prop::collection::vec((0u8..8, 0usize..64, 0usize..64), 1..14), stored in any::<bool>()) {
        let graph = Arc::new(network(&choices));
        let norm = if stored { Norm::Stored } else { Norm::Batch };
        let planned = results::<f32>(&mut Executor::with_plans(graph.clone(), &Device::Cpu, Plans::unfused).unwrap(), norm);
        let naive = results::<f32>(&mut Executor::with_plans(graph.clone(), &Device::Cpu, plans).unwrap(), norm);
        prop_assert_eq!(bits(&planned), bits(&naive), "{}", graph.to_json());
    }

    /// Fused steps compute what the nodes one by one do, up to the rounding of sums.
    #[test]
    fn fused_steps_change_only_roundings(
        choices in prop::collection::vec((0u8..12, 0usize..64, 0usize..64), 1..20),
        stored in any::<bool>(),
    ) {
        let graph = Arc::new(network(&chained(&choices)));
        let norm = if stored { Norm::Stored } else { Norm::Batch };
        let fused = results::<f64>(&mut Executor::with_plans(graph.clone(), &Device::Cpu, Plans::fused).unwrap(), norm);
        let naive = results::<f64>(&mut Executor::with_plans(graph.clone(), &Device::Cpu, plans).unwrap(), norm);
        let size = naive.iter().fold(1.0, |size: f64, v| size.max(v.abs()));
        for (idx, (fused, naive)) in fused.iter().zip(&naive).enumerate() {
            prop_assert!((fused - naive).abs() <= 1e-10 * size, "number {}: {} against {} in {}", idx, fused, naive, graph.to_json());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Linear layers with their relus, and gradients that end with the gate below: where no sum is taken in another order, bit for bit.
    #[test]
    fn fused_linear_layers_change_no_bit(ops in prop::collection::vec(0u8..8, 1..14)) {
        let chain: Vec<(u8, usize)> = ops.into_iter().map(|op| (op, 0)).collect();
        let graph = Arc::new(features(&chain));
        let fused = results::<f32>(&mut Executor::with_plans(graph.clone(), &Device::Cpu, Plans::fused).unwrap(), Norm::Batch);
        let naive = results::<f32>(&mut Executor::with_plans(graph.clone(), &Device::Cpu, plans).unwrap(), Norm::Batch);
        prop_assert_eq!(bits(&fused), bits(&naive), "{}", graph.to_json());
    }

    #[test]
    fn fused_features_change_only_roundings(choices in prop::collection::vec((0u8..11, 0usize..4), 1..16), stored in any::<bool>()) {
        let graph = Arc::new(features(&choices));
        let norm = if stored { Norm::Stored } else { Norm::Batch };
        let fused = results::<f64>(&mut Executor::with_plans(graph.clone(), &Device::Cpu, Plans::fused).unwrap(), norm);
        let naive = results::<f64>(&mut Executor::with_plans(graph.clone(), &Device::Cpu, plans).unwrap(), norm);
        let size = naive.iter().fold(1.0, |size: f64, v| size.max(v.abs()));
        for (idx, (fused, naive)) in fused.iter().zip(&naive).enumerate() {
            prop_assert!((fused - naive).abs() <= 1e-10 * size, "number {}: {} against {} in {}", idx, fused, naive, graph.to_json());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// What is dropped and computed again is what it was: outputs, gradients and statistics keep their bits.
    #[test]
    fn computing_again_changes_no_bit(
        choices in prop::collection::vec((0u8..12, 0usize..64, 0usize..64), 1..20),
        stored in any::<bool>(),
        fused in any::<bool>(),
        n_segments in 2usize..8,
    ) {
        let graph = Arc::new(network(&chained(&choices)));
        let norm = if stored { Norm::Stored } else { Norm::Batch };
        let usual: fn(&Program) -> Plans = if fused { Plans::fused } else { Plans::unfused };
        let expected = results::<f32>(&mut Executor::with_plans(graph.clone(), &Device::Cpu, usual).unwrap(), norm);
        let mut executor = Executor::with_plans(graph.clone(), &Device::Cpu, usual).unwrap();
        executor.train_in_segments(n_segments);
        let found = results::<f32>(&mut executor, norm);
        prop_assert_eq!(bits(&found), bits(&expected), "{} segments of {}", n_segments, graph.to_json());
    }
}

/// Choices for [`network`] that, from 8 on, go on from the node before: a convolution, batch norm, relu, or the sum with an earlier node.
fn chained(choices: &[(u8, usize, usize)]) -> Vec<(u8, usize, usize)> {
    let at = |(idx, &(op, first, second)): (usize, &(u8, usize, usize))| match op {
        8 => (4, idx, second),
        9 => (3, idx, second),
        10 => (0, idx, second),
        11 => (7, idx, second),
        _ => (op, first, second),
    };
    choices.iter().enumerate().map(at).collect()
}
