//! What can be wrong with a network's description.

use crate::op::Role;

/// The result of a call into this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with a network's description; every variant names the node it stands at.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A node's name cannot be the name of a module.
    #[error("node name {name:?}: expected a module path such as `layer1.0.conv1`: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two nodes have one name.
    #[error("node `{name}` is declared twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A node reads one that does not stand before it: an unknown name, a forward reference, or a cycle.
    #[error("node `{node}`: its input `{input}` is not declared before it")]
    UnknownInput {
        /// The reader.
        node: String,
        /// What it wants to read.
        input: String,
    },
    /// An op has too many or too few inputs.
    #[error("node `{node}`: `{op}` takes {expected}, got {got}")]
    Arity {
        /// The node.
        node: String,
        /// Its op.
        op: &'static str,
        /// How many inputs the op takes.
        expected: &'static str,
        /// How many there are.
        got: usize,
    },
    /// The shape that arrives is not what the op works on.
    #[error("node `{node}`: `{op}` expects {expected}, got {got}")]
    Shape {
        /// The node.
        node: String,
        /// Its op.
        op: &'static str,
        /// What the op works on.
        expected: String,
        /// The shape or shapes that arrive.
        got: String,
    },
    /// An attribute is out of its range.
    #[error("node `{node}`: `{field}` must be {expected}, got {got}")]
    Attribute {
        /// The node.
        node: String,
        /// The attribute.
        field: &'static str,
        /// Its range.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A size beyond any machine.
    #[error("node `{node}`: {what} is too large: more than {limit}")]
    TooLarge {
        /// The node.
        node: String,
        /// Which size.
        what: &'static str,
        /// The most that is accepted.
        limit: u64,
    },
    /// The first node is not the input, or another one is.
    #[error("{0}")]
    Input(String),
    /// There is no output, or one twice.
    #[error("{0}")]
    Output(String),
    /// A tensor is to get a name that its op does not have.
    #[error("node `{node}`: `{op}` as declared has no learned tensor `{role:?}`")]
    NoSuchTensor {
        /// The node.
        node: String,
        /// Its op.
        op: &'static str,
        /// What was asked for.
        role: Role,
    },
    /// Nodes that share a tensor want different ones.
    #[error("node `{node}`: its tensor `{tensor}` is also that of `{first}`: shared tensors must be parameters of one shape, got {shapes}")]
    SharedTensor {
        /// The tensor.
        tensor: String,
        /// The later node.
        node: String,
        /// The node before.
        first: String,
        /// What the two want, the later node's first.
        shapes: String,
    },
    /// A node that the output does not depend on: its parameters would never learn.
    #[error("node `{node}` does not lead to the output `{output}`")]
    DeadNode {
        /// The node.
        node: String,
        /// The output.
        output: String,
    },
    /// A node of another builder.
    #[error("there is no node {idx}: the graph has {n_nodes}")]
    NoSuchNode {
        /// The index.
        idx: usize,
        /// How many nodes there are.
        n_nodes: usize,
    },
    /// An op that this version does not know.
    #[error("node `{node}`: unknown op `{got}`: expected one of {known}")]
    UnknownOp {
        /// The node.
        node: String,
        /// What it asks for.
        got: String,
        /// The ops there are.
        known: String,
    },
    /// The file was written by a later version.
    #[error("graph: `format_version` {got} is newer than {supported}, the newest this version reads")]
    FormatVersion {
        /// What the file says.
        got: u64,
        /// What is understood.
        supported: u64,
    },
    /// The text is not JSON, or not that of a graph.
    #[error("graph: {0}")]
    Json(String),
}
