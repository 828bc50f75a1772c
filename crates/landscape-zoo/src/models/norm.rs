//! Normalisations that a convolutional network may choose between.

use super::request::Request;
use super::sequence::Sequence;
use crate::error::Result;
use landscape_graph::{GraphBuilder, NodeId, Op};

/// How many groups channels fall into unless said.
const N_GROUPS: usize = 8;

/// What follows a convolution. All have one factor and one constant per channel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Norm {
    /// Nothing.
    None,
    /// Over batch and places.
    Batch,
    /// Over the channels of each pixel, eps 1e-6.
    ///
    /// # Source
    /// `nn.LayerNorm()` of Flax on images of last axis channels, as git-re-basin's VGG16 and ResNet-20 have it.
    Layer,
    /// Over groups of channels and all places of an example.
    Group(usize),
}

impl Norm {
    /// The options that [`Norm::of`] reads.
    pub(super) const OPTIONS: [&'static str; 2] = ["norm", "groups"];

    /// Reads `norm=batch|layer|group` and `groups`.
    pub(super) fn of(model: &Request, default: Norm) -> Result<Norm> {
        let none = (default == Norm::None).then_some(("none", Norm::None));
        let some = [("batch", Norm::Batch), ("layer", Norm::Layer), ("group", Norm::Group(N_GROUPS))];
        let norm = model.choice("norm", default, &none.into_iter().chain(some).collect::<Vec<_>>())?;
        match (norm, model.option("groups")) {
            (Norm::Group(_), _) => Ok(Norm::Group(model.size("groups", N_GROUPS)?)),
            (_, Some(_)) => Err(model.misfit("`groups` with `norm=group` alone", "`groups` with another norm")),
            _ => Ok(norm),
        }
    }

    /// Adds it.
    pub(super) fn push(self, b: &mut GraphBuilder, name: &str, x: NodeId) -> Result<NodeId> {
        match self {
            Norm::None => Ok(x),
            Norm::Batch => Ok(b.batch_norm(name, x)?),
            Norm::Layer => layer_norm2d(b, name, x),
            Norm::Group(num_groups) => {
                let num_channels = b.shape(x)?.first().copied().unwrap_or(0);
                Ok(b.push(name, Op::GroupNorm { num_groups, num_channels, eps: 1e-5, affine: true }, &[x])?)
            }
        }
    }
}

/// Layer norm over the channels of each pixel, eps 1e-6; torchvision's `LayerNorm2d`.
pub(super) fn layer_norm2d(b: &mut GraphBuilder, name: &str, x: NodeId) -> Result<NodeId> {
    let x = b.permute(&format!("{name}.to_last"), x, &[1, 2, 0])?;
    let x = b.layer_norm(name, x, 1e-6)?;
    b.permute(&format!("{name}.to_first"), x, &[2, 0, 1])
}
