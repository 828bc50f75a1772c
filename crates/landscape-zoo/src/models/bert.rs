//! Hugging Face's BERT with its head for masked tokens.

use super::attention::{attend, block_size, check_heads, of_tokens, positions, split_heads};
use super::request::Request;
use super::sequence::Sequence;
use crate::error::Result;
use landscape_graph::{Bias, Gelu, Graph, GraphBuilder, NodeId, Op, Role};

const EPS: f64 = 1e-12;
const DROPOUT: f64 = 0.1;

/// BERT-base as `BertForMaskedLM`: 12 layers of width 768 with 12 heads and 512 positions unless said. It yields logits of the
/// vocabulary at every place; all tokens are of segment 0, none is masked from attention, and no token is padding.
///
/// # Source
/// Devlin et al. 2019, which counts BERT-base as 110M: 109,482,240 of `BertModel` with its pooler for 30,522 word pieces, of which this
/// network has all but the pooler, and the head's 622,650 more. Names and post-norm blocks: `modeling_bert.py` of transformers; dropout
/// 0.1 on embeddings and residual branches (that on attention weights is left out). The head's matrix is the embedding's: a state dict of
/// theirs has it a second time as `cls.predictions.decoder.weight`, and `cls.predictions.bias` as `cls.predictions.decoder.bias`.
pub(super) fn build(model: &Request) -> Result<Graph> {
    model.allow(&["layers", "width", "heads", "block"])?;
    let (n_layers, width, n_heads) = (model.count("layers", 12)?, model.size("width", 768)?, model.size("heads", 12)?);
    check_heads(model, width, n_heads)?;
    let (mut b, n_tokens) = of_tokens(model)?;
    let n_positions = block_size(model, n_tokens, 512)?;

    let embeddings = "bert.embeddings";
    let words = Op::Embedding { num_embeddings: model.n_outputs, embedding_dim: width };
    let mut x = b.push(&format!("{embeddings}.word_embeddings"), words, &[b.input()])?;
    let places = positions(&mut b, &format!("{embeddings}.position_embeddings"), n_tokens, n_positions, width)?;
    let segments = Op::Constant { shape: vec![n_tokens], values: vec![0.0; n_tokens] };
    let segments = b.push(&format!("{embeddings}.token_type_embeddings.segments"), segments, &[])?;
    let types = Op::Embedding { num_embeddings: 2, embedding_dim: width };
    let types = b.push(&format!("{embeddings}.token_type_embeddings"), types, &[segments])?;
    x = b.add(&format!("{embeddings}.add_types"), x, types)?;
    x = b.add(&format!("{embeddings}.add_positions"), x, places)?;
    x = b.layer_norm(&format!("{embeddings}.LayerNorm"), x, EPS)?;
    x = b.dropout(&format!("{embeddings}.dropout"), x, DROPOUT)?;
    for layer in 0..n_layers {
        x = block(&mut b, &format!("bert.encoder.layer.{layer}"), x, n_heads)?;
    }

    let bias = b.push("cls.predictions.bias", Op::Parameter { shape: vec![model.n_outputs] }, &[])?;
    x = b.linear("cls.predictions.transform.dense", x, width, Bias::On)?;
    x = b.gelu("cls.predictions.transform.gelu", x, Gelu::None)?;
    x = b.layer_norm("cls.predictions.transform.LayerNorm", x, EPS)?;
    x = b.linear("cls.predictions.decoder", x, model.n_outputs, Bias::Off)?;
    b.name_tensor(x, Role::Weight, "bert.embeddings.word_embeddings.weight")?;
    x = b.add("cls.predictions.add", x, bias)?;
    Ok(b.finish(x)?)
}

/// LayerNorm(x + attention(x)), and LayerNorm of that plus its MLP.
fn block(b: &mut GraphBuilder, path: &str, x: NodeId, n_heads: usize) -> Result<NodeId> {
    let name = |module: &str| format!("{path}.{module}");
    let width = b.shape(x)?[1];
    let mut head = |module: &str| {
        let name = name(&format!("attention.self.{module}"));
        let y = b.linear(&name, x, width, Bias::On)?;
        split_heads(b, &name, y, n_heads)
    };
    let qkv = [head("query")?, head("key")?, head("value")?];
    let y = attend(b, &name("attention.self"), qkv, false)?;
    let x = output(b, &name("attention.output"), y, x)?;
    let mut y = b.linear(&name("intermediate.dense"), x, 4 * width, Bias::On)?;
    y = b.gelu(&name("intermediate.gelu"), y, Gelu::None)?;
    output(b, &name("output"), y, x)
}

/// LayerNorm(dropout(dense(y)) + x).
fn output(b: &mut GraphBuilder, path: &str, y: NodeId, x: NodeId) -> Result<NodeId> {
    let name = |module: &str| format!("{path}.{module}");
    let width = b.shape(x)?[1];
    let mut y = b.linear(&name("dense"), y, width, Bias::On)?;
    y = b.dropout(&name("dropout"), y, DROPOUT)?;
    y = b.add(&name("add"), y, x)?;
    b.layer_norm(&name("LayerNorm"), y, EPS)
}
