//! A file from its bytes to a network: tensors, inputs, the ops in order, outputs.

use crate::emit;
use crate::error::{Error, Problem, Result};
use crate::fold::FOLDED;
use crate::lower::{Call, Importer};
use crate::number::{Int, Known, Numbers};
use crate::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto};
use crate::store::{Reader, Stored, dtype};
use crate::value::{Axis, Live, Value};
use crate::{Imported, OPSETS};
use landscape_graph::{Dtype, Op};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers that a file of any size may have computed ahead: masks of a few hundred places and what they are made of.
const FREE_NUMBERS: usize = 1 << 20;

/// The key under which PyTorch's exporter says what a tensor is.
const KIND: &str = "pkg.torch.export.graph_signature.InputSpec.kind";

/// The ops that are supported beyond constants.
const NETWORK: [&str; 48] = [
    "Attention",
    "AveragePool",
    "BatchNormalization",
    "CastLike",
    "Conv",
    "ConvTranspose",
    "Dropout",
    "Elu",
    "Erf",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "MaxPool",
    "Mish",
    "PRelu",
    "Pad",
    "RMSNormalization",
    "Relu",
    "Resize",
    "Selu",
    "SequenceAt",
    "Softplus",
    "SplitToSequence",
    "Sum",
    "Upsample",
    "Clip",
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "MatMul",
    "ReduceMean",
    "ReduceSum",
    "Reshape",
    "Softmax",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

pub fn import(model: &ModelProto, mut reader: Reader, n_bytes: usize) -> Result<Imported> {
    let graph = model.graph.as_ref().ok_or_else(|| Error::Decode("it has no graph".to_owned()))?;
    let opset = model.opset_import.iter().find(|o| matches!(o.domain(), "" | "ai.onnx")).map(|o| o.version());
    let opset = opset.ok_or_else(|| Error::Model("the file does not say which version of ONNX's ops it uses".to_owned()))?;
    if !OPSETS.contains(&opset) {
        let (first, last) = (OPSETS.start(), OPSETS.end());
        return Err(Error::Model(format!(
            "version {opset} of ONNX's ops (`opset`): versions {first} to {last} are read; export to one of these"
        )));
    }
    let kinds = kinds(graph);
    let frozen = frozen(graph);
    let (mut store, mut values) = (Vec::new(), BTreeMap::new());
    for tensor in &graph.initializer {
        let name = tensor.name();
        let mut stored = reader.read(name, tensor)?;
        stored.learned = stored.dtype.is_float()
            && if kinds.is_empty() { !stored.dims.is_empty() && !frozen.contains(name) } else { kinds.get(name) == Some(&"PARAMETER") };
        if values.insert(name.to_owned(), Value::Stored(store.len())).is_some() {
            return Err(Error::Model(format!("tensor `{name}` comes twice")));
        }
        store.push(stored);
    }
    let inputs: Vec<Input> = graph.input.iter().filter(|input| !values.contains_key(input.name())).map(Input::of).collect::<Result<_>>()?;
    let batch = common_batch(&inputs)?;
    let n_bytes = n_bytes.saturating_add(reader.n_external_bytes());
    let mut importer = Importer::new(store, opset, batch, !kinds.is_empty(), n_bytes.saturating_mul(4).saturating_add(FREE_NUMBERS));
    for input in &inputs {
        let axes: Vec<Axis> = std::iter::once(Axis::Batch).chain(input.shape.iter().map(|&n| Axis::Local(n))).collect();
        let id = importer.ir.input(Op::Input { dtype: input.dtype }, input.shape.clone());
        if values.insert(input.name.clone(), Value::Live(Live { id, axes })).is_some() {
            return Err(Error::Model(format!("input `{}` comes twice", input.name)));
        }
    }
    let problems = run(graph, &mut importer, &mut values, &mut reader)?;
    if !problems.is_empty() {
        return Err(Error::Unsupported { problems });
    }
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    let outputs = outputs(graph, &mut importer, &values)?;
    emit::emit(&importer, graph, &names, &outputs)
}

/// Imports all nodes, and lists the ones that could not be.
fn run(graph: &GraphProto, importer: &mut Importer, values: &mut BTreeMap<String, Value>, reader: &mut Reader) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    // Outputs that an op has in ONNX and not here.
    let mut further: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        importer.ir.origin = at;
        let mut inputs = Vec::new();
        let mut problem = |node: &NodeProto, reason: String| {
            problems.push(Problem { op: node.op_type().to_owned(), node: title(node).to_owned(), reason });
        };
        for name in &node.input {
            if let Some(producer) = further.remove(name.as_str()) {
                problem(&graph.node[producer], format!("its output `{name}` is not supported"));
            }
            let value = if name.is_empty() { None } else { values.get(name).cloned() };
            if value.is_none() && !name.is_empty() {
                return Err(Error::Model(format!(
                    "node `{}` ({}) reads `{name}`, which nothing before it yields",
                    title(node),
                    node.op_type()
                )));
            }
            inputs.push(value);
        }
        let lowered = if inputs.iter().flatten().any(|value| matches!(value, Value::Lost)) {
            let op = node.op_type();
            if !FOLDED.contains(&op) && !NETWORK.contains(&op) {
                let reason = importer.lower(&Call { node, inputs }).err().unwrap_or_default();
                problem(node, reason);
            }
            Vec::new()
        } else if node.op_type() == "Constant" {
            match constant(node, importer, reader)? {
                Some(value) => vec![value],
                None => {
                    problem(node, "a constant of numbers is expected".to_owned());
                    Vec::new()
                }
            }
        } else {
            importer.lower(&Call { node, inputs }).unwrap_or_else(|reason| {
                problem(node, reason);
                Vec::new()
            })
        };
        if lowered.len() < node.output.len() && !lowered.is_empty() {
            further.extend(node.output[lowered.len()..].iter().map(|name| (name.as_str(), at)));
        }
        let lost = std::iter::repeat(Value::Lost);
        for (name, value) in node.output.iter().zip(lowered.into_iter().chain(lost)).filter(|(name, _)| !name.is_empty()) {
            if values.insert(name.clone(), value).is_some() {
                return Err(Error::Model(format!("node `{}` ({}) yields `{name}`, which is there already", title(node), node.op_type())));
            }
        }
    }
    Ok(problems)
}

/// What a node is called, or what it yields.
pub fn title(node: &NodeProto) -> &str {
    if node.name().is_empty() { node.output.first().map_or("", String::as_str) } else { node.name() }
}

fn constant(node: &NodeProto, importer: &mut Importer, reader: &mut Reader) -> Result<Option<Value>> {
    let name = node.output.first().map_or("", String::as_str);
    let Some(attribute) = node.attribute.first() else { return Ok(None) };
    let numbers = match (attribute.name(), attribute.t.as_deref()) {
        ("value", Some(tensor)) => {
            let stored: Stored = read_named(reader, name, tensor)?;
            importer.store.push(stored);
            return Ok(Some(Value::Stored(importer.store.len() - 1)));
        }
        ("value_float", _) => return Ok(Some(Value::known(Known::scalar(Numbers::Float(vec![f64::from(attribute.f())]))))),
        ("value_int", _) => return Ok(Some(Value::known(Known::scalar(Numbers::Int(vec![Int::of(attribute.i())]))))),
        ("value_ints", _) => return Ok(Some(Value::known(Known::ints(attribute.ints.iter().map(|&i| Int::of(i)).collect())))),
        ("value_floats", _) => Numbers::Float(attribute.floats.iter().map(|&v| f64::from(v)).collect()),
        _ => return Ok(None),
    };
    Ok(Some(Value::known(Known { dims: vec![crate::number::Dim::Fixed(numbers.len())], numbers })))
}

fn read_named(reader: &mut Reader, name: &str, tensor: &TensorProto) -> Result<Stored> {
    reader.read(name, tensor)
}

/// What the file says of its tensors, if it does.
fn kinds(graph: &GraphProto) -> BTreeMap<&str, &str> {
    let said = |info: &'_ ValueInfoProto| info.metadata_props.iter().position(|entry| entry.key() == KIND);
    let infos = graph.value_info.iter().chain(&graph.input);
    infos.filter_map(|info| said(info).map(|at| (info.name(), info.metadata_props[at].value()))).collect()
}

/// Tensors that only sines and cosines are taken of, such as the frequencies of rotary positions: those are no parameters.
fn frozen(graph: &GraphProto) -> BTreeSet<&str> {
    let mut frozen = BTreeSet::new();
    for node in graph.node.iter().rev() {
        let is_wave = matches!(node.op_type(), "Sin" | "Cos");
        if is_wave || node.output.iter().any(|output| frozen.contains(output.as_str())) {
            frozen.extend(node.input.iter().map(String::as_str));
        }
    }
    frozen
}

/// An input of the network, without its first axis.
struct Input {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// How long the first axis is, where that is a number.
    batch: Option<usize>,
}

impl Input {
    fn of(info: &ValueInfoProto) -> Result<Self> {
        let wrong = |reason: String| Error::Input { input: info.name().to_owned(), reason };
        let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
            return Err(wrong("it is no tensor".to_owned()));
        };
        let element = dtype(tensor.elem_type()).map_err(wrong)?;
        let shape = tensor.shape.as_ref().ok_or_else(|| wrong("its shape is not said".to_owned()))?;
        let Some((first, rest)) = shape.dim.split_first() else { return Err(wrong("it has no axis: expected the batch first".to_owned())) };
        if rest.is_empty() {
            return Err(wrong("it has the batch alone: expected at least one axis more".to_owned()));
        }
        let mut lengths = Vec::new();
        for (axis, dim) in rest.iter().enumerate() {
            let axis = axis + 1;
            lengths.push(match &dim.value {
                Some(dimension::Value::DimValue(n)) if *n > 0 => {
                    usize::try_from(*n).map_err(|_| wrong(format!("axis {axis} is {n} long")))?
                }
                Some(dimension::Value::DimValue(n)) => return Err(wrong(format!("axis {axis} is {n} long"))),
                Some(dimension::Value::DimParam(name)) => {
                    return Err(wrong(format!(
                        "axis {axis} (`{name}`) has any length, and only the first axis may: export it with a fixed one"
                    )));
                }
                None => return Err(wrong(format!("axis {axis} has no length: export the network with a fixed one"))),
            });
        }
        let batch = match &first.value {
            Some(dimension::Value::DimValue(n)) => {
                Some(usize::try_from(*n).ok().filter(|&n| n > 0).ok_or_else(|| wrong(format!("its first axis is {n} long")))?)
            }
            _ => None,
        };
        let dtype = if element.is_float() { Dtype::Float } else { Dtype::Int };
        Ok(Input { name: info.name().to_owned(), dtype, shape: lengths, batch })
    }
}

fn common_batch(inputs: &[Input]) -> Result<Option<usize>> {
    let mut batch: Option<&Input> = None;
    for input in inputs.iter().filter(|input| input.batch.is_some()) {
        match batch {
            Some(first) if first.batch != input.batch => {
                let (Some(a), Some(b)) = (first.batch, input.batch) else { continue };
                let reason = format!("its first axis is {b} long, and that of `{}` {a}: the first axis is the batch", first.name);
                return Err(Error::Input { input: input.name.clone(), reason });
            }
            _ => batch = Some(input),
        }
    }
    if inputs.is_empty() { Err(Error::Model("the file has no inputs".to_owned())) } else { Ok(batch.and_then(|input| input.batch)) }
}

fn outputs(graph: &GraphProto, importer: &mut Importer, values: &BTreeMap<String, Value>) -> Result<Vec<usize>> {
    let mut ids = Vec::new();
    for info in &graph.output {
        let name = info.name();
        let value = values.get(name).ok_or_else(|| Error::Model(format!("nothing yields the output `{name}`: was the file cut off?")))?;
        let live = importer.batch_first(value).map_err(|reason| Error::Model(format!("output `{name}`: {reason}")))?;
        ids.push(live.id);
    }
    if ids.is_empty() { Err(Error::Model("the file has no outputs".to_owned())) } else { Ok(ids) }
}
