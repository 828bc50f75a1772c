//! Initial weights, from a seed.
//!
//! Every tensor draws from a stream of its own name, so changing one layer leaves the others' numbers as they were.

use crate::error::Result;
use landscape_core::{Flat, ParamLayout, Seed};
use landscape_graph::{Graph, Op, Role};
use landscape_kernels::{Device, Real};
use std::sync::Arc;

/// How weights are drawn; batch norm always begins with factor 1 and constant 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Init {
    /// PyTorch's defaults: weights and biases of linear layers and convolutions uniform in ±1/√fan_in
    /// (`kaiming_uniform_(a=sqrt(5))` for the weights).
    #[default]
    PyTorch,
    /// He et al. 2015: weights normal with variance 2/fan_in, biases zero.
    KaimingNormal,
    /// As the models of dnn-mode-connectivity: convolutions normal with variance 2/(kernel height · kernel width · out_channels) and
    /// zero bias, linear layers as in PyTorch.
    Garipov2018,
}

/// What one tensor is filled with.
enum Fill {
    Constant(f64),
    Uniform { bound: f64 },
    Normal { sd: f64 },
}

impl Init {
    fn fill(self, op: &Op, role: Role) -> Fill {
        let (fan_in, fan_out) = match *op {
            Op::Linear { in_features, out_features, .. } => (in_features, out_features),
            Op::Conv2d { in_channels, out_channels, kernel_size: [h, w], groups, .. } => {
                (in_channels / groups * h * w, h * w * out_channels)
            }
            _ if role == Role::Weight => return Fill::Constant(1.0),
            _ => return Fill::Constant(0.0),
        };
        let (fan_in, fan_out) = (fan_in as f64, fan_out as f64);
        let default = Fill::Uniform { bound: 1.0 / fan_in.sqrt() };
        match (self, op, role) {
            (Init::PyTorch, ..) | (Init::Garipov2018, Op::Linear { .. }, _) => default,
            (Init::KaimingNormal, _, Role::Weight) => Fill::Normal { sd: (2.0 / fan_in).sqrt() },
            (Init::Garipov2018, _, Role::Weight) => Fill::Normal { sd: (2.0 / fan_out).sqrt() },
            _ => Fill::Constant(0.0),
        }
    }
}

/// New weights for `graph`, a function of the seed and the names and shapes of its tensors.
///
/// # Errors
/// None for a graph that was checked.
///
/// # Source
/// `torch.nn.Linear.reset_parameters` and `_ConvNd.reset_parameters` for [`Init::PyTorch`]; same distributions, other random numbers.
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
    for tensor in graph.params() {
        let range = layout.get(&tensor.name).expect("the layout was made of these tensors").range();
        let mut stream = seed.child(&tensor.name).stream();
        let fill = init.fill(&graph.node(tensor.node).op, tensor.role);
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
    use landscape_graph::{Conv2d, GraphBuilder};

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
