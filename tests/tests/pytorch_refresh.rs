//! Batch-norm statistics taken anew, against PyTorch: `torch.optim.swa_utils.update_bn`, the reference's momentum b/(n+b), all
//! values pooled, and layer by layer, with an uneven last batch.
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use landscape_core::{Batches, Coefficients, ControlPoints, Examples, Flat, NormRefresh, Objective, ParamLayout, Pass, Stateful, Targets};
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder};
use landscape_kernels::Device;
use landscape_network::{Loss, NetworkObjective};
use landscape_tests::golden::{Golden, fill, weight};
use std::sync::Arc;

const TOLERANCE: f64 = 1e-10;

fn graph() -> Result<Graph> {
    let mut b = GraphBuilder::new([2, 7, 6]);
    let mut x = b.input();
    x = b.conv2d("conv1", x, Conv2d { padding: [1, 1], bias: Bias::On, ..Conv2d::new(3, 3) })?;
    x = b.batch_norm("bn1", x)?;
    x = b.relu("relu", x)?;
    x = b.conv2d("conv2", x, Conv2d { stride: [2, 2], bias: Bias::On, ..Conv2d::new(4, 3) })?;
    x = b.batch_norm("bn2", x)?;
    x = b.flatten("flatten", x)?;
    Ok(b.finish(x)?)
}

/// Ten examples in batches of 4, 4 and 2.
struct Uneven {
    sizes: Vec<usize>,
    inputs: Vec<f64>,
}

const EXAMPLE_LEN: usize = 2 * 7 * 6;

impl Batches for Uneven {
    type Batch = Examples<f64>;

    fn n_batches(&self) -> usize {
        self.sizes.len()
    }

    fn batch(&self, _epoch: u64, idx: usize) -> landscape_core::Result<Examples<f64>> {
        let first: usize = self.sizes[..idx].iter().sum();
        let inputs = self.inputs[first * EXAMPLE_LEN..(first + self.sizes[idx]) * EXAMPLE_LEN].to_vec();
        Ok(Examples { inputs, n_examples: self.sizes[idx], targets: Targets::Classes(vec![0; self.sizes[idx]]) })
    }
}

fn check(how: NormRefresh, key: &str) -> Result<()> {
    let golden = Golden::open("refresh")?;
    let graph = Arc::new(graph()?);
    let layout = Arc::new(ParamLayout::of_graph(&graph)?);
    let values = layout.tensors().iter().flat_map(|t| weight("row0", &t.name, &t.shape)).collect();
    let points = ControlPoints::single(Flat::from_vec(&layout, &Device::Cpu, values)?);
    let mut objective = NetworkObjective::<f64>::new(graph, &Device::Cpu, Loss::CrossEntropy)?;
    objective.move_to(&points, &Coefficients::one_hot(0, 1)?)?;

    let sizes = golden.at("header")?.at("sizes")?.sizes()?;
    let inputs = fill("inputs", sizes.iter().sum::<usize>() * EXAMPLE_LEN, 1.0, 0.0);
    objective.refresh(how, &Uneven { sizes, inputs: inputs.clone() })?;
    let golden = golden.at(key)?;
    for name in ["bn1.running_mean", "bn1.running_var", "bn2.running_mean", "bn2.running_var"] {
        golden.at(name)?.check_values(objective.buffers().get(name).unwrap(), TOLERANCE)?;
    }

    let first = Examples { inputs: inputs[..EXAMPLE_LEN].to_vec(), n_examples: 1, targets: Targets::Classes(vec![0]) };
    objective.measure(&first, Pass::EVALUATE)?;
    golden.at("output of the first example")?.check_values(objective.executor().output().host(), TOLERANCE)
}

#[test]
fn batch_average_is_the_references() -> Result<()> {
    check(NormRefresh::BatchAverage, "batch_average")
}

#[test]
fn torch_cumulative_is_update_bn() -> Result<()> {
    check(NormRefresh::TorchCumulative, "torch_cumulative")
}

#[test]
fn pooled_is_the_variance_of_all_values() -> Result<()> {
    check(NormRefresh::Pooled, "pooled")
}

#[test]
fn sequential_is_layer_by_layer() -> Result<()> {
    check(NormRefresh::Sequential, "sequential")
}
