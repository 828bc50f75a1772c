//! Initial weights, from a seed.
//!
//! Every tensor draws from a stream of its own name, so changing one layer leaves the others' numbers as they were.

use crate::error::Result;
use landscape_core::{Flat, ParamLayout, Seed};
use landscape_graph::{Graph, Op, Role, TensorDecl};
use landscape_kernels::{Device, Real};
use std::sync::Arc;

/// How weights are drawn; norms always begin with factor 1 and constant 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Init {
    /// PyTorch's defaults: weights and biases of linear layers and convolutions uniform in ±1/√fan_in
    /// (`kaiming_uniform_(a=sqrt(5))` for the weights), embeddings standard normal, norms with factor 1 and constant 0. Of what
    /// `MultiheadAttention` has together, `in_proj_weight` is uniform in ±√(6/(fan_in + fan_out)), `in_proj_bias` and the bias of the layer
    /// behind 0. Tensors that are nodes of their own have no default in PyTorch; they begin as in torchvision, by the last part of their
    /// names: `pos_embedding` normal with deviation 0.02, `layer_scale` 1e-6, others 0.
    #[default]
    PyTorch,
    /// He et al. 2015: weights normal with variance 2/fan_in, biases zero.
    KaimingNormal,
    /// As the models of dnn-mode-connectivity: convolutions normal with variance 2/(kernel height · kernel width · out_channels) and
    /// zero bias, linear layers as in PyTorch.
    Garipov2018,
    /// Radford et al. 2019: weights of linear layers and convolutions, embeddings and positions normal with deviation 0.02, biases 0; those
    /// that end a residual branch (`c_proj`, `o_proj`, `down_proj`, and `dense` of an output) with 0.02/√(2·n), n the number of attentions.
    Gpt2,
}

/// What one tensor is filled with.
enum Fill {
    Constant(f64),
    Uniform { bound: f64 },
    Normal { sd: f64 },
}

impl Init {
    /// The one that networks like `graph` are trained with from scratch: [`Init::Gpt2`] where tokens are looked up, else
    /// [`Init::PyTorch`].
    pub fn usual(graph: &Graph) -> Init {
        if graph.nodes().iter().any(|node| matches!(node.op, Op::Embedding { .. })) { Init::Gpt2 } else { Init::PyTorch }
    }

    fn fill(self, tensor: &TensorDecl, op: &Op, n_attentions: usize) -> Fill {
        let (name, role) = (tensor.name.as_str(), tensor.role);
        let last = name.rsplit('.').next().unwrap_or(name);
        let (fan_in, fan_out) = match *op {
            Op::Linear { in_features, out_features, .. } => (in_features, out_features),
            Op::Conv2d { in_channels, out_channels, kernel_size: [h, w], groups, .. } => {
                (in_channels / groups * h * w, h * w * out_channels)
            }
            Op::Conv1d { in_channels, out_channels, kernel_size, groups, .. } => {
                (in_channels / groups * kernel_size, kernel_size * out_channels)
            }
            // PyTorch takes the second axis of the weight, which is that of the results, for what comes in.
            Op::ConvTranspose2d { in_channels, out_channels, kernel_size: [h, w], groups, .. } => {
                (out_channels / groups * h * w, h * w * in_channels)
            }
            Op::Embedding { .. } if self == Init::Gpt2 => return Fill::Normal { sd: GPT2_DEVIATION },
            Op::Embedding { .. } => return Fill::Normal { sd: 1.0 },
            Op::Parameter { .. } => {
                return match last {
                    "pos_embedding" => Fill::Normal { sd: 0.02 },
                    "layer_scale" => Fill::Constant(1e-6),
                    _ => Fill::Constant(0.0),
                };
            }
            _ if role == Role::Weight => return Fill::Constant(1.0),
            _ => return Fill::Constant(0.0),
        };
        let (fan_in, fan_out) = (fan_in as f64, fan_out as f64);
        let default = Fill::Uniform { bound: 1.0 / fan_in.sqrt() };
        match (self, op, role) {
            (Init::Gpt2, _, Role::Weight) if ends_a_branch(name) => {
                Fill::Normal { sd: GPT2_DEVIATION / (2.0 * n_attentions.max(1) as f64).sqrt() }
            }
            (Init::Gpt2, _, Role::Weight) => Fill::Normal { sd: GPT2_DEVIATION },
            (Init::PyTorch, ..) if last == "in_proj_weight" => Fill::Uniform { bound: (6.0 / (fan_in + fan_out)).sqrt() },
            (Init::PyTorch, ..) if last == "in_proj_bias" || name.ends_with("self_attention.out_proj.bias") => Fill::Constant(0.0),
            (Init::PyTorch, ..) | (Init::Garipov2018, Op::Linear { .. }, _) => default,
            (Init::KaimingNormal, _, Role::Weight) => Fill::Normal { sd: (2.0 / fan_in).sqrt() },
            (Init::Garipov2018, _, Role::Weight) => Fill::Normal { sd: (2.0 / fan_out).sqrt() },
            _ => Fill::Constant(0.0),
        }
    }
}

const GPT2_DEVIATION: f64 = 0.02;

/// Whether a tensor is the weight of a transformer's linear layer whose result is added to what came in.
fn ends_a_branch(name: &str) -> bool {
    ["c_proj.weight", "o_proj.weight", "down_proj.weight", "output.dense.weight"].iter().any(|end| name.ends_with(end))
}

/// New weights for `graph`, a function of the seed and the names and shapes of its tensors.
///
/// # Errors
/// None for a graph that was checked.
///
/// # Source
/// `reset_parameters` of `torch.nn.Linear`, `_ConvNd`, `Embedding` and `MultiheadAttention` for [`Init::PyTorch`]; nanoGPT's
/// `_init_weights` for [`Init::Gpt2`], which transformers has for GPT-2 too (BERT's and Llama's 0.02 has no smaller branches there). Same
/// distributions, other random numbers.
///
/// ```
/// use landscape_core::Seed;
/// use landscape_graph::{Bias, GraphBuilder};
/// use landscape_kernels::Device;
/// use landscape_network::init::{Init, initialise};
/// let mut b = GraphBuilder::new([4]);
/// let fc = b.linear("fc", b.input(), 3, Bias::On)?;
/// let weights = initialise::<f32>(&b.finish(fc)?, Init::PyTorch, Seed::new(1), &Device::Cpu)?;
/// assert!(weights.to_vec().iter().all(|w| w.abs() <= 0.5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn initialise<T: Real>(graph: &Graph, init: Init, seed: Seed, device: &Device) -> Result<Flat<T>> {
    let layout = Arc::new(ParamLayout::of_graph(graph)?);
    let mut values = vec![T::ZERO; layout.n_elements()];
    let n_attentions = graph.nodes().iter().filter(|node| matches!(node.op, Op::Attention { .. })).count();
    for tensor in graph.params() {
        let range = layout.get(&tensor.name).expect("the layout was made of these tensors").range();
        let mut stream = seed.child(&tensor.name).stream();
        let fill = init.fill(&tensor, &graph.node(tensor.node).op, n_attentions);
        for value in &mut values[range] {
            *value = T::from_f64(match fill {
                Fill::Constant(constant) => constant,
                Fill::Uniform { bound } => bound * (2.0 * stream.uniform() - 1.0),
                Fill::Normal { sd } => sd * stream.normal(),
            });
        }
    }
    Ok(Flat::from_vec(&layout, device, values)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use landscape_graph::{Conv2d, Dtype, GraphBuilder};

    fn graph() -> Graph {
        let mut b = GraphBuilder::new([8, 6, 6]);
        let x = b.conv2d("conv", b.input(), Conv2d { groups: 2, ..Conv2d::new(64, 3) }).unwrap();
        let x = b.batch_norm("bn", x).unwrap();
        let x = b.flatten("flatten", x).unwrap();
        let x = b.linear("fc", x, 20, landscape_graph::Bias::On).unwrap();
        b.finish(x).unwrap()
    }

    /// Mean square of a tensor.
    fn power(flat: &Flat<f64>, name: &str) -> f64 {
        let values = flat.tensor(name).unwrap().host();
        values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64
    }

    fn assert_near(found: f64, expected: f64, n: usize) {
        // Five standard errors of a mean square of normals; uniform numbers have a smaller one.
        assert!((found / expected - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt(), "{found} against {expected}");
    }

    #[test]
    fn variances_are_those_of_the_recipes() {
        let graph = graph();
        let (fan_in, n_conv, n_fc) = (4 * 9, 64 * 4 * 9, 20 * 1024);
        let flat = initialise::<f64>(&graph, Init::PyTorch, Seed::new(3), &Device::Cpu).unwrap();
        assert_near(power(&flat, "conv.weight"), 1.0 / (3.0 * fan_in as f64), n_conv);
        assert_near(power(&flat, "conv.bias"), 1.0 / (3.0 * fan_in as f64), 64);
        assert_near(power(&flat, "fc.weight"), 1.0 / (3.0 * 1024.0), n_fc);
        assert!(flat.tensor("conv.weight").unwrap().host().iter().all(|w| w.abs() <= 1.0 / (fan_in as f64).sqrt()));
        let flat = initialise::<f64>(&graph, Init::KaimingNormal, Seed::new(3), &Device::Cpu).unwrap();
        assert_near(power(&flat, "conv.weight"), 2.0 / fan_in as f64, n_conv);
        assert_near(power(&flat, "fc.weight"), 2.0 / 1024.0, n_fc);
        assert_eq!(power(&flat, "fc.bias"), 0.0);
        let flat = initialise::<f64>(&graph, Init::Garipov2018, Seed::new(3), &Device::Cpu).unwrap();
        assert_near(power(&flat, "conv.weight"), 2.0 / (9.0 * 64.0), n_conv);
        assert_near(power(&flat, "fc.weight"), 1.0 / (3.0 * 1024.0), n_fc);
        assert_eq!(power(&flat, "conv.bias"), 0.0);
        assert!(flat.tensor("bn.weight").unwrap().host().iter().all(|&w| w == 1.0));
        assert!(flat.tensor("bn.bias").unwrap().host().iter().all(|&w| w == 0.0));
    }

    #[test]
    fn transformers_begin_as_published() {
        let mut b = GraphBuilder::with_input("input", [4], Dtype::Int);
        let mut x = b.push("wte", Op::Embedding { num_embeddings: 50, embedding_dim: 96 }, &[b.input()]).unwrap();
        let positions = b.push("pos_embedding", Op::Parameter { shape: vec![4, 96] }, &[]).unwrap();
        x = b.add("sum", x, positions).unwrap();
        let norm = Op::LayerNorm { normalized_shape: vec![96], eps: 1e-5, elementwise_affine: true, bias: true };
        x = b.push("ln", norm, &[x]).unwrap();
        let y = b.linear("in_proj", x, 96, landscape_graph::Bias::On).unwrap();
        b.name_tensor(y, Role::Weight, "in_proj_weight").unwrap();
        b.name_tensor(y, Role::Bias, "in_proj_bias").unwrap();
        let y = b.push("heads", Op::Reshape { shape: vec![4, 2, 48] }, &[y]).unwrap();
        let y = b.push("attention", Op::Attention { causal: true, scale: 1.0 }, &[y, y, y]).unwrap();
        let y = b.push("merged", Op::Reshape { shape: vec![4, 96] }, &[y]).unwrap();
        let y = b.linear("c_proj", y, 96, landscape_graph::Bias::On).unwrap();
        let graph = b.finish(y).unwrap();
        assert_eq!((Init::usual(&graph), Init::usual(&self::graph())), (Init::Gpt2, Init::PyTorch));

        let (n_embedding, n_linear) = (50 * 96, 96 * 96);
        let flat = initialise::<f64>(&graph, Init::PyTorch, Seed::new(5), &Device::Cpu).unwrap();
        assert_near(power(&flat, "wte.weight"), 1.0, n_embedding);
        assert_near(power(&flat, "in_proj_weight"), 6.0 / (3.0 * 192.0), n_linear);
        assert_near(power(&flat, "c_proj.weight"), 1.0 / (3.0 * 96.0), n_linear);
        assert_eq!(power(&flat, "in_proj_bias"), 0.0);
        let flat = initialise::<f64>(&graph, Init::Gpt2, Seed::new(5), &Device::Cpu).unwrap();
        assert_near(power(&flat, "wte.weight"), 4e-4, n_embedding);
        assert_near(power(&flat, "in_proj_weight"), 4e-4, n_linear);
        assert_near(power(&flat, "c_proj.weight"), 4e-4 / 2.0, n_linear);
        assert_near(power(&flat, "pos_embedding"), 4e-4, 4 * 96);
        assert_eq!((power(&flat, "c_proj.bias"), power(&flat, "ln.weight"), power(&flat, "ln.bias")), (0.0, 1.0, 0.0));
    }

    #[test]
    fn the_seed_decides_and_a_tensor_does_not_depend_on_its_neighbours() {
        let graph = graph();
        let draw = |seed| initialise::<f64>(&graph, Init::PyTorch, Seed::new(seed), &Device::Cpu).unwrap();
        assert_eq!(draw(1).to_vec(), draw(1).to_vec());
        assert_ne!(draw(1).to_vec(), draw(2).to_vec());
        let mut b = GraphBuilder::new([8, 6, 6]);
        let x = b.conv2d("conv", b.input(), Conv2d { groups: 2, ..Conv2d::new(64, 3) }).unwrap();
        let x = b.flatten("flatten", x).unwrap();
        let other = b.finish(x).unwrap();
        let other = initialise::<f64>(&other, Init::PyTorch, Seed::new(1), &Device::Cpu).unwrap();
        assert_eq!(draw(1).tensor("conv.weight").unwrap().host(), other.tensor("conv.weight").unwrap().host());
    }
}
