//! The networks of the goldens as ours: graph, weights and batches by the formula.

use crate::golden::{self, Golden};
use anyhow::{Result, ensure};
use landscape_core::{Batches, Examples, Flat, ParamLayout, Targets};
use landscape_graph::{Bias, Conv2d, Gelu, Graph, GraphBuilder, Op};
use landscape_kernels::{Device, Real};
use std::sync::Arc;

/// Batches of an epoch.
pub const N_BATCHES: usize = 5;

/// A network of the goldens.
pub struct Case {
    /// All that PyTorch found.
    pub golden: Golden,
    /// The network, without dropout.
    pub graph: Arc<Graph>,
    /// Its parameters.
    pub layout: Arc<ParamLayout>,
    /// Learning rate of the steps.
    pub lr: f64,
    /// Weight decay of the steps.
    pub weight_decay: f64,
    input_shape: Vec<usize>,
    n_classes: usize,
    n_examples: usize,
    inputs: String,
}

impl Case {
    /// Reads the golden and builds its network.
    ///
    /// # Errors
    /// If the golden is missing, or the network's parameters have other names or another order.
    pub fn open(name: &str) -> Result<Case> {
        let golden = Golden::open(name)?;
        let config = golden.at("config")?;
        let (input_shape, n_classes) = (config.at("input_shape")?.sizes()?, config.at("n_classes")?.number()? as usize);
        let graph = match config.at("spec")?.text()? {
            "mixed" => mixed(n_classes)?,
            spec => landscape_zoo::models::build(spec, &input_shape, n_classes)?,
        };
        let graph = Graph::from_json(&graph.to_json().replace("\"op\":\"dropout\",\"p\":0.5", "\"op\":\"dropout\",\"p\":0.0"))?;
        let layout = Arc::new(ParamLayout::of_graph(&graph)?);
        let names: Vec<String> = layout.tensors().iter().map(|t| t.name.clone()).collect();
        ensure!(names == golden.at("names")?.texts()?, "{name}: the parameters have other names than PyTorch's: {names:?}");
        Ok(Case {
            graph: Arc::new(graph),
            layout,
            input_shape,
            n_classes,
            n_examples: config.at("batch")?.number()? as usize,
            lr: config.at("lr")?.number()?,
            weight_decay: config.at("wd")?.number()?,
            inputs: config.at("inputs")?.text()?.to_owned(),
            golden,
        })
    }

    /// A control point of the goldens.
    ///
    /// # Errors
    /// None for a layout of the network.
    pub fn row<T: Real>(&self, row: &str) -> Result<Flat<T>> {
        let values = self.layout.tensors().iter().flat_map(|t| golden::weight(row, &t.name, &t.shape)).map(T::from_f64);
        Ok(Flat::from_vec(&self.layout, &Device::Cpu, values.collect())?)
    }
}

/// The five batches, given again in every epoch.
pub struct FiveBatches<'a>(pub &'a Case);

impl FiveBatches<'_> {
    /// Batch `idx` in either precision.
    pub fn examples<T: Real>(&self, idx: usize) -> Examples<T> {
        let case = self.0;
        let (stream, n_examples) = (format!("{}{idx}", case.inputs), case.n_examples);
        let n_inputs = n_examples * case.input_shape.iter().product::<usize>();
        let inputs = golden::fill(&stream, n_inputs, 3f64.sqrt(), 0.0).into_iter().map(T::from_f64).collect();
        let labels = golden::labels(&format!("{stream}/labels"), n_examples, case.n_classes as u32);
        Examples { inputs, n_examples, targets: Targets::Classes(labels) }
    }
}

impl Batches for FiveBatches<'_> {
    type Batch = Examples<f64>;

    fn n_batches(&self) -> usize {
        N_BATCHES
    }

    fn batch(&self, _epoch: u64, idx: usize) -> landscape_core::Result<Examples<f64>> {
        Ok(self.examples(idx))
    }
}

/// The ops that the zoo's networks leave out (`Mixed` in `tests/golden/models.py`).
fn mixed(n_classes: usize) -> Result<Graph> {
    let mut b = GraphBuilder::new([3, 9, 7]);
    let image = b.input();
    let mut x = b.conv2d("conv1", image, Conv2d { stride: [2, 2], padding: [1, 1], bias: Bias::On, ..Conv2d::new(4, 3) })?;
    x = b.batch_norm("bn1", x)?;
    x = b.gelu("gelu1", x, Gelu::Tanh)?;
    let mut left = b.conv2d("conv2", x, Conv2d { padding: [1, 1], groups: 2, bias: Bias::Off, ..Conv2d::new(6, 3) })?;
    left = b.gelu("gelu2", left, Gelu::None)?;
    let average = Op::AvgPool2d { kernel_size: [3, 3], stride: [1, 1], padding: [1, 1], count_include_pad: false };
    let right = b.push("average", average, &[x])?;
    x = b.concat("concat", &[left, right])?;
    x = b.conv2d("conv3", x, Conv2d { bias: Bias::Off, ..Conv2d::new(5, 1) })?;
    let dilated = Conv2d { padding: [2, 2], dilation: [2, 2], groups: 5, bias: Bias::On, ..Conv2d::new(5, 3) };
    let branch = b.conv2d("conv4", x, dilated)?;
    x = b.add("add", x, branch)?;
    x = b.push("pool", Op::MaxPool2d { kernel_size: [3, 3], stride: [2, 2], padding: [1, 1] }, &[x])?;
    x = b.adaptive_avg_pool2d("adaptive", x, [2, 2])?;
    x = b.flatten("flatten", x)?;
    x = b.linear("fc", x, n_classes, Bias::On)?;
    Ok(b.finish(x)?)
}
