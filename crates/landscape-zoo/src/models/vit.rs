//! torchvision's vision transformer.

use super::attention::{attend, check_heads, split_qkv};
use super::request::Request;
use super::sequence::Sequence;
use crate::error::Result;
use landscape_graph::{Bias, Conv2d, Gelu, Graph, GraphBuilder, NodeId, Op, Role};

/// The sizes of a vision transformer.
pub(super) struct Sizes {
    patch: usize,
    width: usize,
    depth: usize,
    n_heads: usize,
    mlp: usize,
}

/// ViT-B/16 (Dosovitskiy et al. 2021).
pub(super) const B_16: Sizes = Sizes { patch: 16, width: 768, depth: 12, n_heads: 12, mlp: 3072 };
/// ViT-Lite-6/4 (Hassani et al. 2021, "Escaping the big data paradigm with compact transformers"): the one for 32x32.
pub(super) const TINY: Sizes = Sizes { patch: 4, width: 256, depth: 6, n_heads: 4, mlp: 512 };

/// Patches by a convolution, a class token before them, learned positions, pre-norm blocks of attention and an MLP with gelu, a last
/// layer norm, and a linear layer on the class token. Dropout is 0, as torchvision's is.
///
/// # Source
/// torchvision's `vision_transformer.py`: names, the fused `in_proj_weight`, layer norm's eps 1e-6.
pub(super) fn build(model: &Request, sizes: &Sizes) -> Result<Graph> {
    model.allow(&["width", "depth", "heads", "mlp", "patch"])?;
    let (patch, depth) = (model.size("patch", sizes.patch)?, model.count("depth", sizes.depth)?);
    let (width, n_heads) = (model.size("width", sizes.width)?, model.size("heads", sizes.n_heads)?);
    let mlp = model.size("mlp", width * sizes.mlp / sizes.width)?;
    check_heads(model, width, n_heads)?;
    model.check_image(patch)?;
    if model.input_shape[1..].iter().any(|size| !size.is_multiple_of(patch)) {
        return Err(model.misfit(format!("images of whole patches of {patch}x{patch}"), format!("{:?}", model.input_shape)));
    }
    let n_patches = (model.input_shape[1] / patch) * (model.input_shape[2] / patch);

    let mut b = GraphBuilder::new(model.input_shape);
    let class_token = b.push("class_token", Op::Parameter { shape: vec![1, 1, width] }, &[])?;
    let class_token = b.reshape("class_token.row", class_token, &[1, width])?;
    let mut x = b.conv2d("conv_proj", b.input(), Conv2d { stride: [patch; 2], ..Conv2d::new(width, patch) })?;
    x = b.reshape("patches", x, &[width, n_patches])?;
    x = b.permute("sequence", x, &[1, 0])?;
    x = b.concat("tokens", &[class_token, x])?;
    let positions = b.push("encoder.pos_embedding", Op::Parameter { shape: vec![1, n_patches + 1, width] }, &[])?;
    let positions = b.reshape("encoder.pos_embedding.rows", positions, &[n_patches + 1, width])?;
    x = b.add("encoder.add", x, positions)?;
    for layer in 0..depth {
        x = block(&mut b, &format!("encoder.layers.encoder_layer_{layer}"), x, n_heads, mlp)?;
    }
    x = b.layer_norm("encoder.ln", x, 1e-6)?;
    x = b.push("class", Op::Slice { dim: 0, start: 0, end: 1, step: 1 }, &[x])?;
    x = b.flatten("flatten", x)?;
    x = b.linear("heads.head", x, model.n_outputs, Bias::On)?;
    Ok(b.finish(x)?)
}

fn block(b: &mut GraphBuilder, path: &str, x: NodeId, n_heads: usize, mlp: usize) -> Result<NodeId> {
    let name = |module: &str| format!("{path}.{module}");
    let width = b.shape(x)?[1];
    let attention = name("self_attention");
    let mut y = b.layer_norm(&name("ln_1"), x, 1e-6)?;
    y = b.linear(&format!("{attention}.in_proj"), y, 3 * width, Bias::On)?;
    b.name_tensor(y, Role::Weight, &format!("{attention}.in_proj_weight"))?;
    b.name_tensor(y, Role::Bias, &format!("{attention}.in_proj_bias"))?;
    let qkv = split_qkv(b, &attention, y, n_heads)?;
    y = attend(b, &attention, qkv, false)?;
    y = b.linear(&format!("{attention}.out_proj"), y, width, Bias::On)?;
    let x = b.add(&name("add_1"), y, x)?;
    y = b.layer_norm(&name("ln_2"), x, 1e-6)?;
    y = b.linear(&name("mlp.0"), y, mlp, Bias::On)?;
    y = b.gelu(&name("mlp.1"), y, Gelu::None)?;
    y = b.linear(&name("mlp.3"), y, width, Bias::On)?;
    Ok(b.add(&name("add_2"), x, y)?)
}
