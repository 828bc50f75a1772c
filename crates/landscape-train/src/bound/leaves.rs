//! The variables of a candle model: what its own constructor asked a `VarBuilder` for, in the order in which it asked.

use crate::error::Result;
use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::VarBuilder;
use candle_nn::init::{Init, NormalOrUniform};
use candle_nn::var_builder::SimpleBackend;
use landscape_core::Seed;
use landscape_kernels::Real;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A built model: its forward pass, with the model inside.
pub(super) type Forward<'a> = Box<dyn Fn(&Tensor, bool) -> candle_core::Result<Tensor> + 'a>;

/// How to build the model, as often as it takes: once to work with, once in f64 to check its gradients.
#[derive(Clone)]
pub(super) struct Recipe<'a>(Arc<dyn Fn(VarBuilder<'static>) -> candle_core::Result<Forward<'a>> + 'a>);

/// One variable.
#[derive(Clone)]
pub(super) struct Leaf {
    pub name: String,
    pub var: Var,
    init: Init,
}

/// A model on leaves of its own.
pub(super) struct Instance<'a> {
    pub forward: Forward<'a>,
    pub leaves: Vec<Leaf>,
}

impl<'a> Recipe<'a> {
    pub fn new<N: 'a>(
        build: impl Fn(VarBuilder<'static>) -> candle_core::Result<N> + 'a,
        forward: impl Fn(&N, &Tensor, bool) -> candle_core::Result<Tensor> + 'a,
    ) -> Self {
        let forward = Arc::new(forward);
        Recipe(Arc::new(move |vb| {
            let (net, forward) = (build(vb)?, forward.clone());
            Ok(Box::new(move |x: &Tensor, train: bool| forward(&net, x, train)) as Forward<'a>)
        }))
    }

    /// Builds the model on new leaves that begin with `values`, and where there are none as the layers' hints say.
    pub fn instantiate(&self, device: &Device, dtype: DType, values: BTreeMap<String, Vec<f64>>) -> Result<Instance<'a>> {
        let leaves = Arc::new(Mutex::new(Vec::new()));
        let backend = LeafBackend { leaves: leaves.clone(), values };
        let forward = (self.0)(VarBuilder::from_backend(Box::new(backend), dtype, device.clone()))?;
        let leaves = leaves.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Instance { forward, leaves })
    }
}

impl Leaf {
    /// Writes numbers in place: the model sees them at once.
    pub fn write<V: Real + candle_core::WithDType>(&self, values: &[V]) -> candle_core::Result<()> {
        if self.var.dtype() == V::DTYPE && self.var.device().is_cpu() {
            return landscape_kernels::candle::write(values, &self.var);
        }
        let tensor = Tensor::from_slice(values, self.var.shape(), &Device::Cpu)?;
        self.var.set(&tensor.to_dtype(self.var.dtype())?.to_device(self.var.device())?)
    }

    /// The numbers, exact for every float type and for integers below 2⁵³.
    pub fn read(&self) -> candle_core::Result<Vec<f64>> {
        numbers(self.var.as_tensor())
    }

    /// New numbers, as the layer's hint says, from a stream of the leaf's own name.
    pub fn initial(&self, seed: Seed) -> Vec<f64> {
        initial_values(self.init, self.var.shape(), seed.child(&self.name))
    }
}

/// A tensor's numbers on the host.
pub(super) fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
    tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// candle's [`Init`] from a seed; candle's own generator cannot be seeded on the CPU.
fn initial_values(init: Init, shape: &Shape, seed: Seed) -> Vec<f64> {
    let mut stream = seed.stream();
    let mut fill = |draw: &mut dyn FnMut(&mut landscape_core::seed::Stream) -> f64| -> Vec<f64> {
        (0..shape.elem_count()).map(|_| draw(&mut stream)).collect()
    };
    match init {
        Init::Const(value) => vec![value; shape.elem_count()],
        Init::Randn { mean, stdev } => fill(&mut |s| mean + stdev * s.normal()),
        Init::Uniform { lo, up } => fill(&mut |s| lo + (up - lo) * s.uniform()),
        Init::Kaiming { dist, fan, non_linearity } => {
            let sd = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
            match dist {
                NormalOrUniform::Normal => fill(&mut |s| sd * s.normal()),
                NormalOrUniform::Uniform => fill(&mut |s| 3f64.sqrt() * sd * (2.0 * s.uniform() - 1.0)),
            }
        }
    }
}

/// Hands a leaf to every name asked for; the same one to a name that comes again, so that tied weights stay tied.
struct LeafBackend {
    leaves: Arc<Mutex<Vec<Leaf>>>,
    values: BTreeMap<String, Vec<f64>>,
}

/// The seed of what a model begins with when nothing is said.
pub(super) const BEGINNING: Seed = Seed::new(0);

impl LeafBackend {
    fn find(&self, name: &str) -> Option<Var> {
        let leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        leaves.iter().find(|leaf| leaf.name == name).map(|leaf| leaf.var.clone())
    }
}

impl SimpleBackend for LeafBackend {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        if let Some(var) = self.find(name) {
            if var.shape() != &shape {
                candle_core::bail!("`{name}` is asked for as {:?} and as {shape:?}", var.shape());
            }
            return var.as_tensor().to_dtype(dtype);
        }
        let values = match self.values.get(name) {
            Some(values) => values.clone(),
            None => initial_values(init, &shape, BEGINNING.child(name)),
        };
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
        let leaf = Leaf { name: name.to_owned(), var: Var::from_tensor(&tensor)?, init };
        let tensor = leaf.var.as_tensor().clone();
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner).push(leaf);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _device: &Device) -> candle_core::Result<Tensor> {
        match self.find(name) {
            Some(var) => var.as_tensor().to_dtype(dtype),
            None => candle_core::bail!("`{name}` is asked for without a shape, so no variable can be made for it"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}
