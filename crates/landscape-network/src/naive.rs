//! The naive twin of a plan: a memory for every activation and every gradient, nothing shared. Random networks must not tell the
//! difference, bit for bit.

use crate::executor::Executor;
use crate::plan::{GradientWrite, Plan};
use crate::step::Program;
use landscape_core::{Flat, Norm, Pass, Seed};
use landscape_graph::{Bias, Conv2d, Gelu, Graph, GraphBuilder, NodeId, Op};
use landscape_kernels::{Accumulate, Device};
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
        activation: (0..n).collect(),
        learns,
        gradient: (n..2 * n).map(Some).collect(),
        writes,
        argmax: (0..n).map(Some).collect(),
        argmax_sizes: sizes.clone(),
        slot_sizes: [sizes.clone(), sizes].concat(),
    }
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

/// Output and gradient of a training pass, and the output of an evaluation, as bits.
fn results(executor: &mut Executor<f32>, norm: Norm) -> Vec<u32> {
    let mut stream = Seed::new(1).stream();
    let mut normal = |len: usize| -> Vec<f32> { (0..len).map(|_| stream.normal() as f32).collect() };
    let layout = executor.layout().clone();
    let point = Flat::from_vec(&layout, &Device::Cpu, normal(layout.n_elements())).unwrap();
    executor.load(&point).unwrap();
    let buffers = executor.buffers().clone();
    executor.set_buffers(&buffers).unwrap();
    let (inputs, doutput) = (normal(3 * 32), normal(9));
    let mut gradient = Flat::zeros(&layout, &Device::Cpu);
    executor.forward(&inputs, 3, Pass { norm, dropout_seed: Some(2) }).unwrap();
    let mut bits: Vec<u32> = executor.output().host().iter().map(|v| v.to_bits()).collect();
    executor.backward((&doutput).into(), &mut gradient, Accumulate::Overwrite).unwrap();
    bits.extend(executor.output().host().iter().chain(gradient.view().host()).map(|v| v.to_bits()));
    executor.evaluate(&inputs, 3, Pass { norm, dropout_seed: None }).unwrap();
    bits.extend(executor.output().host().iter().map(|v| v.to_bits()));
    bits
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn shared_memory_changes_no_bit(choices in prop::collection::vec((0u8..8, 0usize..64, 0usize..64), 1..14), stored in any::<bool>()) {
        let graph = Arc::new(network(&choices));
        let norm = if stored { Norm::Stored } else { Norm::Batch };
        let planned = results(&mut Executor::new(graph.clone(), &Device::Cpu).unwrap(), norm);
        let naive = results(&mut Executor::with_plans(graph.clone(), &Device::Cpu, [plan, plan]).unwrap(), norm);
        prop_assert_eq!(planned, naive, "{}", graph.to_json());
    }
}
