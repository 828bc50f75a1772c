//! Multilayer perceptrons.

use super::request::Request;
use crate::error::Result;
use landscape_graph::{Bias, Graph, GraphBuilder};

/// Hidden layers by the size of the data: 64 pixels need no layers of 512, and 784 get those of the literature (784-512-512-512-10).
pub(super) fn default(model: &Request) -> Result<Graph> {
    let n_inputs = n_inputs(model)?;
    let hidden: &[usize] = if n_inputs <= 256 { &[128, 128] } else { &[512, 512, 512] };
    build(model, &[&[n_inputs], hidden, &[model.n_outputs]].concat())
}

/// Widths with input and output, such as `784-512-512-512-10`.
pub(super) fn of_widths(model: &Request, widths: &str) -> Result<Graph> {
    let parsed: Option<Vec<usize>> = widths.split('-').map(|w| w.parse().ok().filter(|&w| w > 0)).collect();
    let widths = match parsed {
        Some(widths) if widths.len() >= 2 => widths,
        _ => {
            return Err(model.misfit("`mlp:` and at least two widths joined by `-`, such as `mlp:784-512-10`", format!("`{}`", model.spec)));
        }
    };
    let n_inputs = n_inputs(model)?;
    if widths[0] != n_inputs {
        return Err(model.misfit(format!("a first width of {n_inputs} for data of shape {:?}", model.input_shape), widths[0].to_string()));
    }
    if widths[widths.len() - 1] != model.n_outputs {
        let expected = format!("a last width of {}, the outputs that the data asks for", model.n_outputs);
        return Err(model.misfit(expected, widths[widths.len() - 1].to_string()));
    }
    build(model, &widths)
}

fn n_inputs(model: &Request) -> Result<usize> {
    let product = model.input_shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    product.ok_or_else(|| model.misfit("data that fits in memory", format!("{:?}", model.input_shape)))
}

/// The layers are `fc1`, `fc2`, …: PyTorch has no container of its own for an MLP, and these are the names most code gives.
fn build(model: &Request, widths: &[usize]) -> Result<Graph> {
    let mut b = GraphBuilder::new(model.input_shape);
    let mut x = b.input();
    if model.input_shape.len() > 1 {
        x = b.flatten("flatten", x)?;
    }
    let n_layers = widths.len() - 1;
    for (idx, &width) in widths[1..].iter().enumerate() {
        let layer = idx + 1;
        x = b.linear(&format!("fc{layer}"), x, width, Bias::On)?;
        if layer < n_layers {
            x = b.relu(&format!("relu{layer}"), x)?;
        }
    }
    Ok(b.finish(x)?)
}
