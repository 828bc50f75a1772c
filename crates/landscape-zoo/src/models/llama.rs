//! Hugging Face's Llama.

use super::attention::{attend, check_heads, of_tokens, split_heads};
use super::request::Request;
use crate::error::Result;
use landscape_graph::{Bias, Graph, GraphBuilder, NodeId, Op, RopeStyle};

const EPS: f64 = 1e-5;

struct Sizes {
    n_heads: usize,
    n_kv_heads: usize,
    hidden: usize,
    base: f64,
}

/// The shape of Llama 2 7B, `LlamaForCausalLM`, unless said: 32 layers of width 4096 with 32 heads. `kv_heads` are as many as heads,
/// `hidden` is 8/3 of the width, rounded up to a multiple of 256, and `base` of the rotary embedding 10,000. The vocabulary and the length
/// of an example are the data's.
///
/// # Source
/// Touvron et al. 2023; names: `modeling_llama.py` of transformers. There each layer lists its two norms after its linear layers; ours,
/// in the order of execution, before what they feed. eps is 1e-5, as in Llama 2 and 3.
pub(super) fn build(model: &Request) -> Result<Graph> {
    model.allow(&["layers", "width", "heads", "kv_heads", "hidden", "base"])?;
    let (n_layers, width, n_heads) = (model.count("layers", 32)?, model.size("width", 4096)?, model.size("heads", 32)?);
    check_heads(model, width, n_heads)?;
    let n_kv_heads = model.size("kv_heads", n_heads)?;
    if !n_heads.is_multiple_of(n_kv_heads) {
        return Err(model.misfit(format!("`kv_heads` a divisor of `heads` {n_heads}"), n_kv_heads.to_string()));
    }
    let sizes = Sizes {
        n_heads,
        n_kv_heads,
        hidden: model.size("hidden", (8 * width / 3).next_multiple_of(256))?,
        base: model.number("base", 10_000.0, "above 0", |base| base > 0.0)?,
    };
    let (mut b, _) = of_tokens(model)?;
    let embedding = Op::Embedding { num_embeddings: model.n_outputs, embedding_dim: width };
    let mut x = b.push("model.embed_tokens", embedding, &[b.input()])?;
    for layer in 0..n_layers {
        x = block(&mut b, &format!("model.layers.{layer}"), x, &sizes)?;
    }
    x = rms_norm(&mut b, "model.norm", x)?;
    x = b.linear("lm_head", x, model.n_outputs, Bias::Off)?;
    Ok(b.finish(x)?)
}

/// x + attention(norm(x)), and that plus down(silu(gate) · up) of its norm.
fn block(b: &mut GraphBuilder, path: &str, x: NodeId, sizes: &Sizes) -> Result<NodeId> {
    let name = |module: &str| format!("{path}.{module}");
    let width = b.shape(x)?[1];
    let head_dim = width / sizes.n_heads;
    let y = rms_norm(b, &name("input_layernorm"), x)?;
    let mut heads = |module: &str, n_heads: usize| {
        let name = name(&format!("self_attn.{module}"));
        let y = b.linear(&name, y, n_heads * head_dim, Bias::Off)?;
        split_heads(b, &name, y, n_heads)
    };
    let [q, k, v] = [heads("q_proj", sizes.n_heads)?, heads("k_proj", sizes.n_kv_heads)?, heads("v_proj", sizes.n_kv_heads)?];
    let rope = Op::Rope { base: sizes.base, rotary_dim: head_dim, style: RopeStyle::Half };
    let q = b.push(&name("self_attn.q_rope"), rope.clone(), &[q])?;
    let k = b.push(&name("self_attn.k_rope"), rope, &[k])?;
    let y = attend(b, &name("self_attn"), [q, k, v], true)?;
    let y = b.linear(&name("self_attn.o_proj"), y, width, Bias::Off)?;
    let x = b.add(&name("add_1"), x, y)?;

    let y = rms_norm(b, &name("post_attention_layernorm"), x)?;
    let gate = b.linear(&name("mlp.gate_proj"), y, sizes.hidden, Bias::Off)?;
    let gate = b.push(&name("mlp.act_fn"), Op::Silu, &[gate])?;
    let up = b.linear(&name("mlp.up_proj"), y, sizes.hidden, Bias::Off)?;
    let y = b.push(&name("mlp.multiply"), Op::Multiply, &[gate, up])?;
    let y = b.linear(&name("mlp.down_proj"), y, width, Bias::Off)?;
    Ok(b.add(&name("add_2"), x, y)?)
}

fn rms_norm(b: &mut GraphBuilder, name: &str, x: NodeId) -> Result<NodeId> {
    let normalized_shape = vec![b.shape(x)?[1]];
    Ok(b.push(name, Op::RmsNorm { normalized_shape, eps: EPS, elementwise_affine: true }, &[x])?)
}
