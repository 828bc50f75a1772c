//! What the transformers share: heads, positions, and an example of tokens.

use super::request::Request;
use super::sequence::Sequence;
use crate::error::Result;
use landscape_graph::{Dtype, GraphBuilder, NodeId, Op};

/// `[len, n_heads · head_dim]` to `[n_heads, len, head_dim]`.
pub(super) fn split_heads(b: &mut GraphBuilder, name: &str, x: NodeId, n_heads: usize) -> Result<NodeId> {
    let &[len, width] = b.shape(x)?.as_slice() else { unreachable!("a sequence has two axes") };
    let x = b.reshape(&format!("{name}.heads"), x, &[len, n_heads, width / n_heads])?;
    b.permute(&format!("{name}.by_head"), x, &[1, 0, 2])
}

/// Attention of queries, keys and values `[heads, len, head_dim]`, and the heads side by side again: `[len, n_heads · head_dim]`.
pub(super) fn attend(b: &mut GraphBuilder, path: &str, qkv: [NodeId; 3], causal: bool) -> Result<NodeId> {
    let &[n_heads, len, head_dim] = b.shape(qkv[0])?.as_slice() else { unreachable!("heads have three axes") };
    let op = Op::Attention { causal, scale: 1.0 / (head_dim as f64).sqrt() };
    let x = b.push(&format!("{path}.attention"), op, &qkv)?;
    let x = b.permute(&format!("{path}.by_token"), x, &[1, 0, 2])?;
    b.reshape(&format!("{path}.merged"), x, &[len, n_heads * head_dim])
}

/// Queries, keys and values of one linear layer, `[len, 3 · width]`, by head.
pub(super) fn split_qkv(b: &mut GraphBuilder, path: &str, x: NodeId, n_heads: usize) -> Result<[NodeId; 3]> {
    let width = b.shape(x)?[1] / 3;
    let mut part = |idx: usize, name: &str| {
        let slice = Op::Slice { dim: 1, start: idx * width, end: (idx + 1) * width, step: 1 };
        let part = b.push(&format!("{path}.{name}"), slice, &[x])?;
        split_heads(b, &format!("{path}.{name}"), part, n_heads)
    };
    Ok([part(0, "q")?, part(1, "k")?, part(2, "v")?])
}

/// Refuses a width that does not fall into that many heads.
pub(super) fn check_heads(model: &Request, width: usize, n_heads: usize) -> Result<()> {
    if width.is_multiple_of(n_heads) {
        return Ok(());
    }
    Err(model.misfit(format!("`heads` a divisor of `width` {width}"), n_heads.to_string()))
}

/// A builder whose input is tokens, and how many an example has.
pub(super) fn of_tokens(model: &Request) -> Result<(GraphBuilder, usize)> {
    let n_tokens = model.n_tokens()?;
    Ok((GraphBuilder::with_input("input", [n_tokens], Dtype::Int), n_tokens))
}

/// The learned vectors of the places 0 to `n_tokens`, of a table for `n_positions`.
pub(super) fn positions(b: &mut GraphBuilder, name: &str, n_tokens: usize, n_positions: usize, width: usize) -> Result<NodeId> {
    let values = (0..n_tokens).map(|place| place as f64).collect();
    let places = b.push(&format!("{name}.places"), Op::Constant { shape: vec![n_tokens], values }, &[])?;
    Ok(b.push(name, Op::Embedding { num_embeddings: n_positions, embedding_dim: width }, &[places])?)
}

/// How many places a model has vectors for: `block`, which examples must fit into.
pub(super) fn block_size(model: &Request, n_tokens: usize, default: usize) -> Result<usize> {
    let block = model.size("block", default)?;
    if n_tokens <= block {
        return Ok(block);
    }
    Err(model.misfit(format!("examples of at most `block` {block} tokens"), n_tokens.to_string()))
}
