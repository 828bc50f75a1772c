//! The zoo's networks at small sizes against PyTorch, torchvision and transformers in f64: logits, gradients and five training steps, each
//! tensor's projection to 1e-9 of its norm. Weights and inputs come from a formula (`tests/golden/zoo.py`); dropout is off on both sides.

use anyhow::{Context, Result, ensure};
use landscape_core::{
    Batches, Coefficients, ControlPoints, Examples, Flat, Norm, Objective, ParamLayout, Pass, Seed, Stateful, Targets, Tell,
};
use landscape_graph::{Dtype, Graph, Op};
use landscape_kernels::{Accumulate, Device};
use landscape_network::{Loss, NetworkObjective};
use landscape_tests::golden::{self, Golden};
use landscape_train::{Control, DecayOn, Endpoint, FitConfig, FitState, Optimizer, Schedule, fit};
use std::collections::BTreeMap;
use std::sync::Arc;

const TOLERANCE: f64 = 1e-9;
const N_BATCHES: usize = 5;
/// Training mode without dropout.
const TRAIN: Pass = Pass { norm: Norm::Batch, dropout_seed: None, tell: Tell::AtOnce };

/// A network of the goldens, without dropout, and its batches.
struct Case {
    golden: Golden,
    graph: Arc<Graph>,
    layout: Arc<ParamLayout>,
    n_examples: usize,
    n_outputs: usize,
}

impl Case {
    fn open(name: &str) -> Result<Case> {
        let golden = Golden::open(&format!("zoo_{name}"))?;
        let config = golden.at("config")?;
        let n_outputs = config.at("n_outputs")?.number()? as usize;
        let graph = landscape_zoo::models::build(config.at("spec")?.text()?, &config.at("input_shape")?.sizes()?, n_outputs)?;
        let mut json: serde_json::Value = serde_json::from_str(&graph.to_json())?;
        switch_dropout_off(&mut json);
        let graph = Graph::from_json(&json.to_string())?;
        let layout = Arc::new(ParamLayout::of_graph(&graph)?);
        Ok(Case { graph: Arc::new(graph), layout, n_examples: config.at("batch")?.number()? as usize, n_outputs, golden })
    }

    fn weights(&self) -> Result<Flat<f64>> {
        let values = self.layout.tensors().iter().flat_map(|t| golden::weight("row0", &t.name, &t.shape));
        Ok(Flat::from_vec(&self.layout, &Device::Cpu, values.collect())?)
    }

    fn objective(&self) -> Result<NetworkObjective<f64>> {
        Ok(NetworkObjective::new(self.graph.clone(), &Device::Cpu, Loss::CrossEntropy)?)
    }

    /// Images and a class each, or tokens and a class at each place.
    fn examples(&self, idx: usize) -> Examples<f64> {
        let n = self.n_examples * self.graph.n_input_elements();
        let (stream, classes) = (format!("inputs{idx}"), self.n_outputs as u32);
        let (inputs, n_labels) = match self.graph.node(self.graph.input()).op {
            Op::Input { dtype: Dtype::Int } => (golden::labels(&stream, n, classes).into_iter().map(f64::from).collect(), n),
            _ => (golden::fill(&stream, n, 3f64.sqrt(), 0.0), self.n_examples),
        };
        let labels = golden::labels(&format!("{stream}/labels"), n_labels, classes);
        Examples { inputs, n_examples: self.n_examples, targets: Targets::Classes(labels) }
    }
}

impl Batches for Case {
    type Batch = Examples<f64>;

    fn n_batches(&self) -> usize {
        N_BATCHES
    }

    fn batch(&self, _epoch: u64, idx: usize) -> landscape_core::Result<Examples<f64>> {
        Ok(self.examples(idx))
    }
}

fn switch_dropout_off(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(fields) => {
            if fields.get("op").and_then(|op| op.as_str()) == Some("dropout") {
                fields.insert("p".to_owned(), 0.0.into());
            }
            fields.values_mut().for_each(switch_dropout_off);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(switch_dropout_off),
        _ => {}
    }
}

/// All parts within the tolerance of their norms. What vanishes identically (a bias before batch norm has no gradient) is rounding alone on both
/// sides, and held to 1e-9 of `whole`.
fn check(golden: &Golden, values: &BTreeMap<String, Vec<f64>>, whole: f64) -> Result<()> {
    let names: String = values.keys().map(|name| format!("{name}\n")).collect();
    let found = format!("{:016x}", golden::fnv1a64(&names));
    ensure!(found == golden.at("names")?.text()?, "`{}` has other names:\n{names}", golden.place());
    let projections = golden.at("projections")?.numbers()?;
    ensure!(projections.len() == values.len(), "`{}` has {} parts, ours {}", golden.place(), projections.len(), values.len());
    let mut failures = Vec::new();
    for ((name, values), expected) in values.iter().zip(projections) {
        let [norm, found, ..] = golden::summary(values);
        let distance = (found - expected).abs() / norm.max(1e-6 * whole);
        // Written so that a NaN fails.
        let holds = distance <= TOLERANCE;
        if !holds {
            failures.push(format!("{name}: {distance:e}"));
        }
    }
    ensure!(failures.is_empty(), "`{}` differs by, in units of the norm: {}", golden.place(), failures.join(", "));
    Ok(())
}

fn parts(values: &Flat<f64>) -> Result<BTreeMap<String, Vec<f64>>> {
    values.layout().tensors().iter().map(|t| Ok((t.name.clone(), values.tensor(&t.name)?.host().to_vec()))).collect()
}

fn agrees(name: &str) -> Result<()> {
    let case = Case::open(name)?;
    let mut points = ControlPoints::single(case.weights()?);
    let mut objective = case.objective()?;
    objective.move_to(&points, &Coefficients::one_hot(0, 1)?)?;
    let mut gradient = Flat::zeros(&case.layout, &Device::Cpu);
    let tally = objective.gradient(&case.examples(0), TRAIN, &mut gradient, Accumulate::Overwrite)?;
    let mut found = parts(&gradient)?;
    found.insert("loss".to_owned(), vec![tally.nll()]);
    found.insert("logits".to_owned(), objective.executor().output().host().to_vec());
    let whole = gradient.squared_norm().sqrt();
    let expected = case.golden.at("whole")?.number()?;
    ensure!((whole - expected).abs() <= TOLERANCE * expected, "{name}: the gradient's norm is {whole:e}, PyTorch's {expected:e}");
    check(&case.golden.at("gradient")?, &found, whole).context("gradient")?;

    let config = case.golden.at("config")?;
    let config = FitConfig {
        epochs: 1,
        optimizer: Optimizer::Sgd { lr: config.at("lr")?.number()?, momentum: 0.9, nesterov: true },
        schedule: Schedule::Constant,
        weight_decay: config.at("wd")?.number()?,
        decay_on: DecayOn::Point,
    };
    let mut objective = case.objective()?;
    let mut state = FitState::new(&points, &config.optimizer);
    fit(&mut objective, &mut points, &Endpoint, &case, &config, Seed::new(0), &mut state, &mut |_| Ok(Control::Continue))?;
    let buffers = objective.buffers().clone();
    let mut found = parts(&points.point(0))?;
    for tensor in buffers.layout().tensors() {
        found.insert(tensor.name.clone(), buffers.get(&tensor.name).context("no such statistic")?.to_vec());
    }
    let mut objective = case.objective()?;
    objective.move_to(&points, &Coefficients::one_hot(0, 1)?)?;
    objective.set_buffers(&buffers)?;
    objective.measure(&case.examples(0), Pass::EVALUATE)?;
    found.insert("evaluation logits".to_owned(), objective.executor().output().host().to_vec());
    check(&case.golden.at("train")?, &found, 0.0).context("five steps")
}

macro_rules! networks {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                agrees(stringify!($name))
            }
        )*
    };
}
networks! {
    cnn, convfc, vgg11, vgg13, vgg16, vgg19, vgg13_bn, vgg16_bn, vgg19_bn, vgg11_layer, vgg16_group, resnet20_layer, resnet20_group, resnet32_wide, resnet56, preresnet20, preresnet110, preresnet164,
    wrn28, resnet18, resnet34, resnet50, resnet101, resnet152, densenet121, mobilenet_v2, mobilenet_v3_small, mobilenet_v3_large, efficientnet_b0,
    convnext_tiny, vit_b_16, vit_tiny, gpt, gpt_bias, gpt2, bert, llama,
}
