//! The nodes that lead to an output, with names, as a graph and a checkpoint.

use crate::Imported;
use crate::error::{Error, Problem, Result};
use crate::ir::{Kind, Node};
use crate::lower::Importer;
use crate::model::title;
use crate::proto::GraphProto;
use landscape_core::checkpoint::{Checkpoint, Metadata};
use landscape_core::tensor::{Dtype, RawTensor};
use landscape_graph::{GraphBuilder, NodeId, Op, Role};
use std::collections::{BTreeMap, BTreeSet};

/// Names that were given, so that none is twice.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// A name as a graph takes it.
    fn fit(name: &str) -> String {
        let clean = |part: &str| part.chars().map(|c| if c.is_control() || c.is_whitespace() { '_' } else { c }).collect::<String>();
        let mut fit = name.split('.').filter(|part| !part.is_empty()).map(clean).collect::<Vec<_>>().join(".");
        // Room for a suffix.
        let end = (0..=200).rev().find(|&end| fit.is_char_boundary(end.min(fit.len()))).unwrap_or(0);
        fit.truncate(end.min(fit.len()));
        let fit = fit.trim_end_matches('.');
        if fit.is_empty() { "node".to_owned() } else { fit.to_owned() }
    }

    /// That name, or it with a number behind if it is taken.
    fn take(&mut self, name: &str) -> String {
        let fit = Self::fit(name);
        let mut free = fit.clone();
        let mut n = 1;
        while !self.0.insert(free.clone()) {
            n += 1;
            free = format!("{fit}_{n}");
        }
        free
    }
}

pub fn emit(importer: &Importer, file: &GraphProto, inputs: &[&str], outputs: &[usize]) -> Result<Imported> {
    let nodes = &importer.ir.nodes;
    let mut leads = vec![false; nodes.len()];
    outputs.iter().for_each(|&id| leads[id] = true);
    for id in (0..nodes.len()).rev() {
        if leads[id] {
            nodes[id].inputs.iter().for_each(|&input| leads[input] = true);
        }
    }
    let lone: Vec<Problem> =
        (0..nodes.len()).filter(|&id| leads[id] && nodes[id].kind == Kind::Erf).map(|id| erf(file, &nodes[id])).collect();
    if !lone.is_empty() {
        return Err(Error::Unsupported { problems: lone });
    }
    if let Some(unused) = (0..inputs.len()).find(|&id| !leads[id]) {
        let reason = "no output depends on it: export the network without it".to_owned();
        return Err(Error::Input { input: inputs[unused].to_owned(), reason });
    }
    let (mut names, mut tensor_names) = (Names::default(), Names::default());
    let mut of_store: BTreeMap<usize, String> = BTreeMap::new();
    let mut numbers: BTreeMap<String, (usize, Vec<usize>)> = BTreeMap::new();
    let mut ids: BTreeMap<usize, NodeId> = BTreeMap::new();
    let mut builder: Option<GraphBuilder> = None;
    for (id, node) in nodes.iter().enumerate().filter(|&(id, _)| leads[id]) {
        let Kind::Graph(op) = &node.kind else { continue };
        if let Op::Input { dtype } = *op {
            let name = names.take(inputs[id]);
            let place = match &mut builder {
                Some(builder) => builder.add_input(&name, node.shape.clone(), dtype)?,
                None => builder.insert(GraphBuilder::with_input(&name, node.shape.clone(), dtype)).input(),
            };
            ids.insert(id, place);
            continue;
        }
        let learned: Vec<(Role, usize)> = node.tensors.iter().map(|(&role, &idx)| (role, idx)).collect();
        for &(_, idx) in learned.iter().filter(|(role, _)| role.is_parameter()) {
            of_store.entry(idx).or_insert_with(|| tensor_names.take(&importer.store[idx].name));
        }
        let name = names.take(&wish(importer, file, node, &of_store));
        let Some(builder) = builder.as_mut() else { return Err(Error::Model("the file has no inputs".to_owned())) };
        let reads: Vec<NodeId> = node.inputs.iter().map(|input| ids[input]).collect();
        let place = builder.push(&name, op.clone(), &reads)?;
        for (role, shape) in op.tensors() {
            let Some(&idx) = node.tensors.get(&role) else { continue };
            let tensor = match (role.is_parameter(), role.suffix()) {
                (true, _) => of_store[&idx].clone(),
                (false, suffix) => format!("{name}.{}", suffix.unwrap_or_default()),
            };
            if role.is_parameter() {
                builder.name_tensor(place, role, &tensor)?;
            }
            numbers.entry(tensor).or_insert((idx, shape));
        }
        ids.insert(id, place);
    }
    let builder = builder.ok_or_else(|| Error::Model("the file has no inputs".to_owned()))?;
    let graph = builder.finish_with(&outputs.iter().map(|id| ids[id]).collect::<Vec<_>>())?;
    let mut tensors = Vec::new();
    for declared in graph.state_dict() {
        let tensor = match numbers.get(&declared.name) {
            Some((idx, shape)) => importer.store[*idx].raw(shape.clone())?,
            None => RawTensor::from_f64(Dtype::I64, declared.shape, &[0.0])?,
        };
        tensors.push((declared.name, tensor));
    }
    let metadata = Metadata { graph: Some(graph.clone()), ..Metadata::default() };
    Ok(Imported { graph, checkpoint: Checkpoint { tensors, metadata: Some(metadata) } })
}

/// What a node is to be called: as the module of its tensors, else as the file calls it.
fn wish(importer: &Importer, file: &GraphProto, node: &Node, of_store: &BTreeMap<usize, String>) -> String {
    let own = |role: Role| node.tensors.get(&role).and_then(|idx| of_store.get(idx));
    if let Some(name) = own(Role::Parameter) {
        return name.clone();
    }
    for (role, suffix) in [(Role::Weight, ".weight"), (Role::Bias, ".bias")] {
        if let Some(module) = own(role).and_then(|name| name.strip_suffix(suffix)) {
            return module.to_owned();
        }
    }
    if let Some(module) = node.tensors.get(&Role::RunningMean).and_then(|&idx| importer.store[idx].name.strip_suffix(".running_mean")) {
        return module.to_owned();
    }
    file.node.get(node.origin).map_or("node", title).replace('/', ".")
}

fn erf(file: &GraphProto, node: &Node) -> Problem {
    let name = file.node.get(node.origin).map_or("", title).to_owned();
    Problem { op: "Erf".to_owned(), node: name, reason: "it is supported as a part of gelu alone".to_owned() }
}
