//! The network while it is made: nodes as the graph will have them, before names and without the ones nobody reads left out.

use crate::fuse;
use crate::number::Known;
use landscape_graph::{Op, Role, Shape};
use std::collections::BTreeMap;

/// A node's place.
pub type Id = usize;

/// What a node does.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// An op of the graph.
    Graph(Op),
    /// The error function, which networks have as a part of gelu alone.
    Erf,
}

/// One node.
#[derive(Debug, Clone)]
pub struct Node {
    pub kind: Kind,
    pub inputs: Vec<Id>,
    pub shape: Shape,
    /// The learned and counted tensors, by their index in the store.
    pub tensors: BTreeMap<Role, usize>,
    /// The node of the file that it comes of.
    pub origin: usize,
}

/// The nodes so far; each stands behind what it reads.
#[derive(Debug, Default)]
pub struct Ir {
    pub nodes: Vec<Node>,
    /// The node of the file that is imported right now.
    pub origin: usize,
}

impl Ir {
    pub fn op(&self, id: Id) -> Option<&Op> {
        match &self.nodes[id].kind {
            Kind::Graph(op) => Some(op),
            Kind::Erf => None,
        }
    }

    pub fn shape(&self, id: Id) -> &Shape {
        &self.nodes[id].shape
    }

    pub fn inputs(&self, id: Id) -> &[Id] {
        &self.nodes[id].inputs
    }

    /// An input of the network.
    pub fn input(&mut self, op: Op, shape: Shape) -> Id {
        self.add(Kind::Graph(op), Vec::new(), shape, BTreeMap::new())
    }

    pub fn erf(&mut self, x: Id) -> Id {
        let shape = self.shape(x).clone();
        self.add(Kind::Erf, vec![x], shape, BTreeMap::new())
    }

    /// A node without tensors, or one that does the same.
    pub fn push(&mut self, op: Op, inputs: &[Id]) -> Result<Id, String> {
        match fuse::simpler(self, &op, inputs)? {
            Some(id) => Ok(id),
            None => self.push_with(op, inputs, BTreeMap::new()),
        }
    }

    /// A node with tensors.
    pub fn push_with(&mut self, op: Op, inputs: &[Id], tensors: BTreeMap<Role, usize>) -> Result<Id, String> {
        let shapes: Vec<&Shape> = inputs.iter().map(|&id| self.shape(id)).collect();
        let shape = landscape_graph::infer("this", &op, &shapes).map_err(|e| without_name(&e.to_string()))?;
        Ok(self.add(Kind::Graph(op), inputs.to_vec(), shape, tensors))
    }

    /// A constant without a batch; what is infinite becomes the largest number, as a mask needs it.
    pub fn constant(&mut self, shape: Vec<usize>, values: Vec<f64>) -> Result<Id, String> {
        let limit = f64::from(f32::MAX);
        if values.iter().any(|v| v.is_nan()) {
            return Err("a constant that is no number (NaN)".to_owned());
        }
        let values = values.into_iter().map(|v| v.clamp(-limit, limit)).collect();
        self.push_with(Op::Constant { shape, values }, &[], BTreeMap::new())
    }

    fn add(&mut self, kind: Kind, inputs: Vec<Id>, shape: Shape, tensors: BTreeMap<Role, usize>) -> Id {
        self.nodes.push(Node { kind, inputs, shape, tensors, origin: self.origin });
        self.nodes.len() - 1
    }
}

/// What the graph says of a node, which has no name yet.
fn without_name(message: &str) -> String {
    message.strip_prefix("node `this`: ").unwrap_or(message).to_owned()
}

/// The numbers of a constant for a node that has no batch.
pub fn constant_values(known: &Known) -> Result<Vec<f64>, String> {
    known.numbers.to_f64().ok_or_else(|| "numbers that depend on the size of the batch".to_owned())
}
