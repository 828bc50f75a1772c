//! Causal language models of GPT-2's kind: nanoGPT's and Hugging Face's.

use super::attention::{attend, block_size, check_heads, of_tokens, positions, split_qkv};
use super::request::Request;
use crate::error::Result;
use landscape_graph::{Bias, Gelu, Graph, GraphBuilder, NodeId, Op, Role, WeightOrder};

/// What the two differ in.
#[derive(Clone, Copy)]
struct Kind {
    /// Of linear layers and layer norms.
    bias: Bias,
    weight_order: WeightOrder,
    gelu: Gelu,
    dropout: f64,
}

/// nanoGPT's model: 4 layers of width 128 with 4 heads unless said, no biases, no dropout. The vocabulary and the length of an example are
/// the data's; `block` is the length that there are positions for.
///
/// # Source
/// `model.py` of nanoGPT: names, the exact gelu, the head tied to the embedding; sizes of its README's recipe for a CPU. Its `dropout`
/// acts on embeddings, residual branches and attention weights; here on the first two.
pub(super) fn nano(model: &Request) -> Result<Graph> {
    model.allow(&["layers", "width", "heads", "block", "bias", "dropout"])?;
    let bias = model.choice("bias", Bias::Off, &[("on", Bias::On), ("off", Bias::Off)])?;
    let dropout = model.number("dropout", 0.0, "from 0 to below 1", |p| (0.0..1.0).contains(&p))?;
    let kind = Kind { bias, weight_order: WeightOrder::OutIn, gelu: Gelu::None, dropout };
    build(model, kind, [4, 128, 4], model.n_tokens()?)
}

/// GPT-2 small as Hugging Face's `GPT2LMHeadModel`: 12 layers of width 768 with 12 heads and 1024 positions unless said.
///
/// # Source
/// Radford et al. 2019; `modeling_gpt2.py` of transformers: weights of `Conv1D` lie `[in, out]`, gelu by its approximation, dropout 0.1 on
/// embeddings and residual branches (that on attention weights is left out), the head tied to the embedding: a state dict of
/// theirs has it a second time as `lm_head.weight`.
pub(super) fn gpt2(model: &Request) -> Result<Graph> {
    model.allow(&["layers", "width", "heads", "block"])?;
    let kind = Kind { bias: Bias::On, weight_order: WeightOrder::InOut, gelu: Gelu::Tanh, dropout: 0.1 };
    build(model, kind, [12, 768, 12], 1024)
}

fn build(model: &Request, kind: Kind, [n_layers, width, n_heads]: [usize; 3], block: usize) -> Result<Graph> {
    let (n_layers, width, n_heads) = (model.count("layers", n_layers)?, model.size("width", width)?, model.size("heads", n_heads)?);
    check_heads(model, width, n_heads)?;
    let (mut b, n_tokens) = of_tokens(model)?;
    let n_positions = block_size(model, n_tokens, block)?;
    let embedding = Op::Embedding { num_embeddings: model.n_outputs, embedding_dim: width };
    let mut x = b.push("transformer.wte", embedding, &[b.input()])?;
    let places = positions(&mut b, "transformer.wpe", n_tokens, n_positions, width)?;
    x = b.add("transformer.add", x, places)?;
    x = kind.dropout(&mut b, "transformer.drop", x)?;
    for layer in 0..n_layers {
        x = kind.layer(&mut b, &format!("transformer.h.{layer}"), x, n_heads)?;
    }
    x = kind.layer_norm(&mut b, "transformer.ln_f", x)?;
    x = b.linear("lm_head", x, model.n_outputs, Bias::Off)?;
    b.name_tensor(x, Role::Weight, "transformer.wte.weight")?;
    Ok(b.finish(x)?)
}

impl Kind {
    /// x + attention(ln_1(x)), and that plus mlp(ln_2 of it).
    fn layer(self, b: &mut GraphBuilder, path: &str, x: NodeId, n_heads: usize) -> Result<NodeId> {
        let name = |module: &str| format!("{path}.{module}");
        let width = b.shape(x)?[1];
        let mut y = self.layer_norm(b, &name("ln_1"), x)?;
        y = self.linear(b, &name("attn.c_attn"), y, 3 * width)?;
        let qkv = split_qkv(b, &name("attn"), y, n_heads)?;
        y = attend(b, &name("attn"), qkv, true)?;
        y = self.linear(b, &name("attn.c_proj"), y, width)?;
        y = self.dropout(b, &name("attn.resid_dropout"), y)?;
        let x = b.add(&name("add_1"), x, y)?;
        y = self.layer_norm(b, &name("ln_2"), x)?;
        y = self.linear(b, &name("mlp.c_fc"), y, 4 * width)?;
        y = b.gelu(&name("mlp.gelu"), y, self.gelu)?;
        y = self.linear(b, &name("mlp.c_proj"), y, width)?;
        y = self.dropout(b, &name("mlp.dropout"), y)?;
        Ok(b.add(&name("add_2"), x, y)?)
    }

    fn linear(self, b: &mut GraphBuilder, name: &str, x: NodeId, out_features: usize) -> Result<NodeId> {
        let in_features = b.shape(x)?[1];
        let op = Op::Linear { in_features, out_features, bias: self.bias == Bias::On, weight_order: self.weight_order };
        Ok(b.push(name, op, &[x])?)
    }

    fn layer_norm(self, b: &mut GraphBuilder, name: &str, x: NodeId) -> Result<NodeId> {
        let normalized_shape = vec![b.shape(x)?[1]];
        let op = Op::LayerNorm { normalized_shape, eps: 1e-5, elementwise_affine: true, bias: self.bias == Bias::On };
        Ok(b.push(name, op, &[x])?)
    }

    fn dropout(self, b: &mut GraphBuilder, name: &str, x: NodeId) -> Result<NodeId> {
        if self.dropout > 0.0 { Ok(b.dropout(name, x, self.dropout)?) } else { Ok(x) }
    }
}
