//! A graph as JSON, and back.
//!
//! ```json
//! {"format_version":1,"input_shape":[4],"nodes":[
//!   {"name":"input","op":"input","inputs":[]},
//!   {"name":"fc","op":"linear","in_features":4,"out_features":3,"bias":true,"inputs":["input"]}],"output":"fc"}
//! ```
//! (in one line, without spaces). The text is canonical: equal graphs give equal bytes. Shapes other than the inputs' are not
//! written but inferred again on reading, so that a file cannot contradict itself. A field that is not known is refused: a reader
//! that skips an attribute computes another network.
//!
//! Version 2 has several inputs and outputs, inputs of any shape and of whole numbers, and tensors with names of their own:
//!
//! ```json
//! {"format_version":2,"nodes":[
//!   {"name":"tokens","op":"input","dtype":"int","inputs":[],"shape":[8]},
//!   {"name":"wte","op":"embedding","num_embeddings":11,"embedding_dim":4,"inputs":["tokens"]},
//!   {"name":"lm_head","op":"linear","in_features":4,"out_features":11,"bias":false,"inputs":["wte"],
//!    "tensors":{"weight":"wte.weight"}}],"outputs":["lm_head"]}
//! ```
//! A graph that version 1 can say is written as version 1.

use crate::build::GraphBuilder;
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, NodeId};
use crate::op::{Dtype, Op, Role, Shape, WeightOrder};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The newest version that is read.
pub const FORMAT_VERSION: u64 = 2;

#[derive(Serialize)]
struct GraphOut<'a> {
    format_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_shape: Option<&'a Shape>,
    nodes: Vec<NodeOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<Vec<&'a str>>,
}

#[derive(Serialize)]
struct NodeOut<'a> {
    name: &'a str,
    #[serde(flatten)]
    op: &'a Op,
    inputs: Vec<&'a str>,
    /// What an input's example looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<&'a Shape>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tensors: &'a BTreeMap<Role, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Version1 {
    #[serde(rename = "format_version")]
    _format_version: u64,
    input_shape: Shape,
    nodes: Vec<Map<String, Value>>,
    output: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Version2 {
    #[serde(rename = "format_version")]
    _format_version: u64,
    nodes: Vec<Map<String, Value>>,
    outputs: Vec<String>,
}

impl Graph {
    /// Writes the graph as canonical JSON: one line, fields in a fixed order.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names, whole numbers and finite floats are always JSON")
    }

    /// Reads a graph and checks all of it.
    ///
    /// # Errors
    /// Names the node: an unknown op or field, a name that comes twice, an input that is not declared before its reader (a forward
    /// reference or a cycle), shapes that do not fit, sizes beyond any machine, a missing input, a node without effect,
    /// or a `format_version` of a later program.
    ///
    /// ```
    /// # let graph = { let b = landscape_graph::GraphBuilder::new([4]); let x = b.input(); b.finish(x)? };
    /// assert_eq!(landscape_graph::Graph::from_json(&graph.to_json())?, graph);
    /// # Ok::<(), landscape_graph::Error>(())
    /// ```
    pub fn from_json(text: &str) -> Result<Graph> {
        from_value(serde_json::from_str(text).map_err(|e| Error::Json(format!("not JSON: {e}")))?)
    }
}

impl Serialize for Graph {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let name = |id: NodeId| self.node(id).name.as_str();
        let old = self.is_of_version_1();
        let nodes = self.nodes().iter().map(|node| NodeOut {
            name: &node.name,
            op: &node.op,
            inputs: node.inputs.iter().map(|&id| name(id)).collect(),
            shape: (!old && matches!(node.op, Op::Input { .. })).then_some(&node.shape),
            tensors: &node.tensor_names,
        });
        GraphOut {
            format_version: if old { 1 } else { FORMAT_VERSION },
            input_shape: old.then(|| self.input_shape()),
            nodes: nodes.collect(),
            output: old.then(|| name(self.output())),
            outputs: (!old).then(|| self.outputs().iter().map(|&id| name(id)).collect()),
        }
        .serialize(serializer)
    }
}

impl Graph {
    /// Whether version 1 of the format can say it.
    fn is_of_version_1(&self) -> bool {
        let old_node = |(idx, node): (usize, &Node)| {
            let of_image_or_features = |id: &NodeId| matches!(self.node(*id).shape.len(), 1 | 3);
            let old_op = match node.op {
                Op::Input { dtype } => idx == 0 && dtype == Dtype::Float && matches!(node.shape.len(), 1 | 3),
                Op::Linear { weight_order, .. } => weight_order == WeightOrder::OutIn && node.shape.len() == 1,
                Op::Concat { dim } => dim == 0,
                Op::Add => node.inputs.iter().all(|&id| self.node(id).shape == node.shape),
                Op::Conv2d { .. }
                | Op::BatchNorm { .. }
                | Op::Relu
                | Op::Gelu { .. }
                | Op::Dropout { .. }
                | Op::MaxPool2d { .. }
                | Op::AvgPool2d { .. }
                | Op::AdaptiveAvgPool2d { .. }
                | Op::GlobalAvgPool
                | Op::Flatten => true,
                _ => false,
            };
            old_op && node.inputs.iter().all(of_image_or_features) && node.tensor_names.is_empty()
        };
        self.outputs().len() == 1 && self.nodes().iter().enumerate().all(old_node)
    }
}

impl<'de> Deserialize<'de> for Graph {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        from_value(Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

fn from_value(value: Value) -> Result<Graph> {
    let of_json = |e: serde_json::Error| Error::Json(e.to_string());
    // The version comes first: a later one may have fields that cannot be judged here.
    let (nodes, outputs, input_shape) = match value.get("format_version").map(Value::as_u64) {
        None => return Err(Error::Json("`format_version` is missing".to_owned())),
        Some(Some(1)) => {
            let Version1 { nodes, output, input_shape, .. } = serde_json::from_value(value).map_err(of_json)?;
            (nodes, vec![output], Some(input_shape))
        }
        Some(Some(2)) => {
            let Version2 { nodes, outputs, .. } = serde_json::from_value(value).map_err(of_json)?;
            (nodes, outputs, None)
        }
        Some(Some(got)) if got > FORMAT_VERSION => return Err(Error::FormatVersion { got, supported: FORMAT_VERSION }),
        Some(_) => return Err(Error::Json(format!("`format_version` must be 1 or {FORMAT_VERSION}, got {}", value["format_version"]))),
    };
    let nodes = nodes.into_iter().enumerate().map(|(idx, fields)| NodeIn::new(idx, fields)).collect::<Result<Vec<_>>>()?;
    let (first, rest) = nodes.split_first().ok_or_else(|| Error::Input("the graph has no nodes: expected the input first".to_owned()))?;
    let first_shape = match (&first.op, &first.shape, input_shape) {
        (Op::Input { .. }, None, Some(shape)) => shape,
        (Op::Input { .. }, Some(shape), None) => shape.clone(),
        (Op::Input { .. }, ..) => return Err(Error::Json(first.wants_shape())),
        (op, ..) => {
            let got = op.name();
            return Err(Error::Input(format!("node `{}`: expected `input` without inputs as the first op, got `{got}`", first.name)));
        }
    };
    if !first.inputs.is_empty() {
        return Err(Error::Input(format!("node `{}`: expected `input` without inputs as the first op, got one with", first.name)));
    }
    let Op::Input { dtype } = first.op else { unreachable!("it was matched") };
    let mut builder = GraphBuilder::with_input(&first.name, first_shape, dtype);
    let mut ids = BTreeMap::from([(first.name.as_str(), builder.input())]);
    for node in rest {
        let find = |input: &String| {
            let unknown = || Error::UnknownInput { node: node.name.clone(), input: input.clone() };
            ids.get(input.as_str()).copied().ok_or_else(unknown)
        };
        let inputs = node.inputs.iter().map(find).collect::<Result<Vec<_>>>()?;
        let id = match (&node.op, &node.shape) {
            (Op::Input { dtype }, Some(shape)) if inputs.is_empty() => builder.add_input(&node.name, shape.clone(), *dtype)?,
            (Op::Input { .. }, _) => return Err(Error::Json(node.wants_shape())),
            (op, _) => builder.push(&node.name, op.clone(), &inputs)?,
        };
        for (&role, tensor) in &node.tensors {
            builder.name_tensor(id, role, tensor)?;
        }
        ids.insert(&node.name, id);
    }
    let find =
        |output: &String| ids.get(output.as_str()).copied().ok_or_else(|| Error::Json(format!("`output`: there is no node `{output}`")));
    let outputs = outputs.iter().map(find).collect::<Result<Vec<_>>>()?;
    builder.finish_with(&outputs)
}

struct NodeIn {
    name: String,
    op: Op,
    inputs: Vec<String>,
    shape: Option<Shape>,
    tensors: BTreeMap<Role, String>,
}

impl NodeIn {
    fn new(idx: usize, mut fields: Map<String, Value>) -> Result<Self> {
        let mut take = |field: &str, at: &str| fields.remove(field).ok_or_else(|| Error::Json(format!("{at}: `{field}` is missing")));
        let at = format!("node number {idx}");
        let name: String = parse(take("name", &at)?, &format!("{at}: `name`"))?;
        let at = format!("node `{name}`");
        let inputs = parse(take("inputs", &at)?, &format!("{at}: `inputs`"))?;
        let tensors = fields.remove("tensors").map(|v| parse(v, &format!("{at}: `tensors`"))).transpose()?.unwrap_or_default();
        let op = match fields.get("op") {
            None => return Err(Error::Json(format!("{at}: `op` is missing"))),
            Some(Value::String(op)) if Op::NAMES.contains(&op.as_str()) => op.clone(),
            Some(op) => {
                let got = op.as_str().map_or_else(|| op.to_string(), str::to_owned);
                return Err(Error::UnknownOp { node: name, got, known: Op::NAMES.map(|n| format!("`{n}`")).join(", ") });
            }
        };
        let shape = if op == "input" { fields.remove("shape") } else { None };
        let shape = shape.map(|v| parse(v, &format!("{at}: `shape`"))).transpose()?;
        let op: Op = parse(Value::Object(fields.clone()), &at)?;
        let known = serde_json::to_value(&op).map_err(|e| Error::Json(format!("{at}: {e}")))?;
        let is_known = |field: &str| known.get(field).is_some() || op.optional_fields().contains(&field);
        if let Some(field) = fields.keys().find(|field| !is_known(field)) {
            return Err(Error::Json(format!("{at}: unknown field `{field}` of `{}`", op.name())));
        }
        Ok(NodeIn { name, op, inputs, shape, tensors })
    }

    fn wants_shape(&self) -> String {
        format!("node `{}`: an input has no inputs, and its `shape` stands at the node (in version 1 in `input_shape`)", self.name)
    }
}

fn parse<T: de::DeserializeOwned>(value: Value, at: &str) -> Result<T> {
    serde_json::from_value(value).map_err(|e| Error::Json(format!("{at}: {e}")))
}
