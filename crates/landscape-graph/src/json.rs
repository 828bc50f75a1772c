//! A graph as JSON, and back.
//!
//! ```json
//! {"format_version":1,"input_shape":[4],"nodes":[
//!   {"name":"input","op":"input","inputs":[]},
//!   {"name":"fc","op":"linear","in_features":4,"out_features":3,"bias":true,"inputs":["input"]}],"output":"fc"}
//! ```
//! (in one line, without spaces). The text is canonical: equal graphs give equal bytes. Shapes other than the input's are not
//! written but inferred again on reading, so that a file cannot contradict itself. A field that is not known is refused: a reader
//! that skips an attribute computes another network.

use crate::build::GraphBuilder;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId};
use crate::op::{Op, Shape};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The version that is written, and the newest that is read.
pub const FORMAT_VERSION: u64 = 1;

#[derive(Serialize)]
struct GraphOut<'a> {
    format_version: u64,
    input_shape: &'a Shape,
    nodes: Vec<NodeOut<'a>>,
    output: &'a str,
}

#[derive(Serialize)]
struct NodeOut<'a> {
    name: &'a str,
    #[serde(flatten)]
    op: &'a Op,
    inputs: Vec<&'a str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphIn {
    #[serde(rename = "format_version")]
    _format_version: u64,
    input_shape: Shape,
    nodes: Vec<Map<String, Value>>,
    output: String,
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
    /// reference or a cycle), shapes that do not fit, sizes beyond any machine, a missing or second input, a node without effect,
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
        let nodes = self
            .nodes()
            .iter()
            .map(|node| NodeOut { name: &node.name, op: &node.op, inputs: node.inputs.iter().map(|&id| name(id)).collect() })
            .collect();
        GraphOut { format_version: FORMAT_VERSION, input_shape: self.input_shape(), nodes, output: name(self.output()) }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Graph {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        from_value(Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

fn from_value(value: Value) -> Result<Graph> {
    // The version comes first: a later one may have fields that cannot be judged here.
    match value.get("format_version").map(Value::as_u64) {
        None => return Err(Error::Json("`format_version` is missing".to_owned())),
        Some(Some(FORMAT_VERSION)) => {}
        Some(Some(got)) if got > FORMAT_VERSION => return Err(Error::FormatVersion { got, supported: FORMAT_VERSION }),
        Some(_) => return Err(Error::Json(format!("`format_version` must be {FORMAT_VERSION}, got {}", value["format_version"]))),
    }
    let graph: GraphIn = serde_json::from_value(value).map_err(|e| Error::Json(e.to_string()))?;
    let mut nodes = graph.nodes.into_iter().enumerate().map(|(idx, fields)| NodeIn::new(idx, fields));
    let first = nodes.next().ok_or_else(|| Error::Input("the graph has no nodes: expected the input first".to_owned()))??;
    if first.op != Op::Input || !first.inputs.is_empty() {
        let got = first.op.name();
        return Err(Error::Input(format!("node `{}`: expected `input` without inputs as the first op, got `{got}`", first.name)));
    }
    let mut builder = GraphBuilder::with_input(&first.name, graph.input_shape);
    let mut ids = BTreeMap::from([(first.name, builder.input())]);
    for node in nodes {
        let node = node?;
        let find =
            |input: &String| ids.get(input).copied().ok_or_else(|| Error::UnknownInput { node: node.name.clone(), input: input.clone() });
        let inputs = node.inputs.iter().map(find).collect::<Result<Vec<_>>>()?;
        let id = builder.push(&node.name, node.op, &inputs)?;
        ids.insert(node.name, id);
    }
    let output = ids.get(&graph.output).ok_or_else(|| Error::Json(format!("`output`: there is no node `{}`", graph.output)))?;
    builder.finish(*output)
}

struct NodeIn {
    name: String,
    op: Op,
    inputs: Vec<String>,
}

impl NodeIn {
    fn new(idx: usize, mut fields: Map<String, Value>) -> Result<Self> {
        let mut take = |field: &str, at: &str| fields.remove(field).ok_or_else(|| Error::Json(format!("{at}: `{field}` is missing")));
        let at = format!("node number {idx}");
        let name: String = parse(take("name", &at)?, &format!("{at}: `name`"))?;
        let at = format!("node `{name}`");
        let inputs = parse(take("inputs", &at)?, &format!("{at}: `inputs`"))?;
        match fields.get("op") {
            None => return Err(Error::Json(format!("{at}: `op` is missing"))),
            Some(Value::String(op)) if Op::NAMES.contains(&op.as_str()) => {}
            Some(op) => {
                let got = op.as_str().map_or_else(|| op.to_string(), str::to_owned);
                return Err(Error::UnknownOp { node: name, got, known: Op::NAMES.map(|n| format!("`{n}`")).join(", ") });
            }
        }
        let op: Op = parse(Value::Object(fields.clone()), &at)?;
        let known = serde_json::to_value(&op).map_err(|e| Error::Json(format!("{at}: {e}")))?;
        if let Some(field) = fields.keys().find(|field| known.get(field).is_none()) {
            return Err(Error::Json(format!("{at}: unknown field `{field}` of `{}`", op.name())));
        }
        Ok(NodeIn { name, op, inputs })
    }
}

fn parse<T: de::DeserializeOwned>(value: Value, at: &str) -> Result<T> {
    serde_json::from_value(value).map_err(|e| Error::Json(format!("{at}: {e}")))
}
