//! Graphs that `export_graph.py` wrote of PyTorch modules, run by the executor in f64: all outputs, in evaluation and in training, and the
//! gradients of all tensors are the module's own to 1e-9 of each tensor's norm. Weights and inputs come from a formula
//! (`tests/golden/formula.py`); the modules are those of `tests/golden/check_exports.py`.
#![allow(clippy::unwrap_used)]

use anyhow::{Result, ensure};
use landscape_core::{Buffers, Flat, Norm, ParamLayout, Pass, Tell};
use landscape_graph::{Dtype, Graph, Op};
use landscape_kernels::{Accumulate, Device, View};
use landscape_network::Executor;
use landscape_tests::golden::{self, Golden};
use std::sync::Arc;

const TOLERANCE: f64 = 1e-9;
const N_EXAMPLES: usize = 3;
/// The batch's statistics, without dropout.
const TRAIN: Pass = Pass { norm: Norm::Batch, dropout_seed: None, tell: Tell::AtOnce };

/// The examples, each with its inputs one after the other.
fn inputs(golden: &Golden, graph: &Graph) -> Result<Vec<f64>> {
    let mut parts = Vec::new();
    for id in graph.inputs() {
        let node = graph.node(id);
        let n = N_EXAMPLES * node.n_elements();
        let bound = golden.at("inputs")?.at(&node.name)?.number()? as u32;
        parts.push(match node.op {
            Op::Input { dtype: Dtype::Int } => golden::labels(&node.name, n, bound).into_iter().map(|token| f64::from(token + 1)).collect(),
            _ => golden::fill(&node.name, n, 3f64.sqrt(), 0.0),
        });
    }
    let example = |idx: usize| parts.iter().flat_map(move |part: &Vec<f64>| part.chunks(part.len() / N_EXAMPLES).nth(idx).unwrap());
    Ok((0..N_EXAMPLES).flat_map(example).copied().collect())
}

/// A tensor within the tolerance of the golden's; one that vanishes is rounding alone on both sides and held to `whole`.
fn check(golden: &Golden, values: &[f64], whole: f64) -> Result<()> {
    let distance = golden.relative_distance(values, 1e-3 * whole)?;
    ensure!(distance <= TOLERANCE, "`{}` differs by {distance:e} of its norm", golden.place());
    Ok(())
}

fn check_outputs(golden: &Golden, executor: &Executor<f64>) -> Result<()> {
    let places = golden.items()?;
    ensure!(places.len() == executor.graph().outputs().len(), "{}: {} outputs", golden.place(), places.len());
    for (idx, golden) in places.iter().enumerate() {
        check(golden, executor.output_at(idx).unwrap().host(), 0.0)?;
    }
    Ok(())
}

fn equals_the_module(name: &str) -> Result<()> {
    let golden = Golden::open(&format!("exports/{name}"))?;
    let graph = Arc::new(Graph::from_json(&golden.at("graph")?.json())?);
    ensure!(Graph::from_json(&graph.to_json())? == *graph, "{name}: written and read again it is another");
    let layout = Arc::new(ParamLayout::of_graph(&graph)?);
    let weights = layout.tensors().iter().flat_map(|t| golden::weight("row0", &t.name, &t.shape)).collect();
    let inputs = inputs(&golden, &graph)?;
    let mut executor = Executor::<f64>::new(graph, &Device::Cpu)?;
    executor.load(&Flat::from_vec(&layout, &Device::Cpu, weights)?)?;

    executor.set_buffers(&Buffers::of_graph(executor.graph())?)?;
    executor.evaluate(&inputs, N_EXAMPLES, Pass::EVALUATE)?;
    check_outputs(&golden.at("evaluated")?, &executor)?;
    executor.forward(&inputs, N_EXAMPLES, TRAIN)?;
    check_outputs(&golden.at("outputs")?, &executor)?;

    let cotangent = golden::fill("cotangent", executor.output().len(), 1.0, 0.0);
    let mut gradient = Flat::zeros(&layout, &Device::Cpu);
    executor.backward(View::from(cotangent.as_slice()), &mut gradient, Accumulate::Overwrite)?;
    let whole = gradient.squared_norm().sqrt();
    let golden = golden.at("gradient")?;
    ensure!(golden.entries()?.len() == layout.tensors().len(), "{name}: the tensors are others than the module's");
    for tensor in layout.tensors() {
        check(&golden.at(&tensor.name)?, gradient.tensor(&tensor.name)?.host(), whole)?;
    }
    Ok(())
}

macro_rules! modules {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() -> Result<()> {
            equals_the_module(stringify!($name))
        })*
    };
}
modules! {
    shared_weights several_inputs_and_outputs signals u_net functional transformer_encoder decoder written_out
    hf_bert hf_gpt2 hf_llama hf_vit
}
