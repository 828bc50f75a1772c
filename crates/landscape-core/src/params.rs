//! Flat parameters, and statistics buffers kept apart from them.
//!
//! Statistics (`running_mean`, `running_var`, `num_batches_tracked`) are no coordinates of weight space: they are never blended,
//! measured as distance or decayed. They are a function of the weights and the data, and what happens to them is a named policy.

use crate::error::{Error, Result};
use crate::layout::ParamLayout;
use landscape_graph::{Graph, Role};
use landscape_kernels::{Device, Memory, Real, View, ViewMut};
use std::sync::Arc;

/// A point of weight space: one vector, with the layout that names its parts.
#[derive(Debug, Clone)]
pub struct Flat<T> {
    layout: Arc<ParamLayout>,
    data: Memory<T>,
}

impl<T: Real> Flat<T> {
    /// The origin.
    pub fn zeros(layout: &Arc<ParamLayout>, device: &Device) -> Self {
        Flat { layout: layout.clone(), data: Memory::zeros(device, layout.n_elements()) }
    }

    /// The point with these coordinates.
    ///
    /// # Errors
    /// If there are more or fewer than the layout has.
    pub fn from_vec(layout: &Arc<ParamLayout>, device: &Device, values: Vec<T>) -> Result<Self> {
        if values.len() != layout.n_elements() {
            return Err(Error::config("values", format!("{} numbers long", layout.n_elements()), values.len()));
        }
        Ok(Flat { layout: layout.clone(), data: Memory::from_host(device, values) })
    }

    /// The names and shapes.
    pub fn layout(&self) -> &Arc<ParamLayout> {
        &self.layout
    }

    /// All coordinates.
    pub fn view(&self) -> View<'_, T> {
        self.data.view()
    }

    /// All coordinates, to write.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        self.data.view_mut()
    }

    /// A copy of the coordinates on the host.
    ///
    /// # Panics
    /// If they are on an accelerator and it failed; [`Flat::to_host`] says how.
    pub fn to_vec(&self) -> Vec<T> {
        self.data.to_host().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same point on the host.
    ///
    /// # Errors
    /// If it is on an accelerator and that failed.
    pub fn to_host(&self) -> Result<Flat<T>> {
        self.to_device(&Device::Cpu)
    }

    /// The same point on `device`.
    ///
    /// # Errors
    /// If an accelerator failed.
    pub fn to_device(&self, device: &Device) -> Result<Flat<T>> {
        let mut moved = Flat::zeros(&self.layout, device);
        moved.view_mut().copy_from(self.view())?;
        Ok(moved)
    }

    /// Where the numbers live.
    pub fn device(&self) -> Device {
        self.data.device()
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn tensor(&self, name: &str) -> Result<View<'_, T>> {
        let spec =
            self.layout.get(name).ok_or_else(|| Error::MissingTensor { tensor: name.to_owned(), place: "the parameters".to_owned() })?;
        Ok(self.view().slice(spec.range()))
    }

    /// The same point in another precision.
    pub fn cast<U: Real>(&self) -> Flat<U> {
        let values = self.to_vec().into_iter().map(|v| U::from_f64(v.to_f64())).collect();
        Flat { layout: self.layout.clone(), data: Memory::from_host(&self.device(), values) }
    }

    /// Euclidean distance √Σ(aᵢ − bᵢ)², summed in f64.
    ///
    /// # Errors
    /// If the layouts differ.
    pub fn distance(&self, other: &Flat<T>) -> Result<f64> {
        self.layout.check_same("the first point", &other.layout, "the second point")?;
        let (own, other) = (self.view().read()?, other.view().read()?);
        let squares = own.iter().zip(other.iter()).map(|(a, b)| (a.to_f64() - b.to_f64()).powi(2));
        Ok(squares.sum::<f64>().sqrt())
    }

    /// ‖w‖² in f64.
    pub fn squared_norm(&self) -> f64 {
        match self.view() {
            View::Host(values) => values.iter().map(|v| v.to_f64() * v.to_f64()).sum(),
            View::Device(_) => self.to_vec().iter().map(|v| v.to_f64() * v.to_f64()).sum(),
        }
    }

    /// Fails on the first NaN or infinity.
    ///
    /// # Errors
    /// [`Error::NotFinite`], naming tensor and element.
    pub fn check_finite(&self) -> Result<()> {
        let values = self.view().read()?;
        for spec in self.layout.tensors() {
            if let Some(idx) = values[spec.range()].iter().position(|v| !v.is_finite()) {
                let value = values[spec.offset + idx].to_f64();
                return Err(Error::NotFinite { tensor: spec.name.clone(), idx, value });
            }
        }
        Ok(())
    }
}

/// The statistics buffers of a network, apart from its parameters; counts are kept as (exact) f64 too.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffers {
    layout: Arc<ParamLayout>,
    values: Vec<f64>,
}

impl Buffers {
    /// No buffers at all.
    pub fn none() -> Self {
        let layout = ParamLayout::new([]).expect("an empty layout has no names that could clash");
        Buffers { layout: Arc::new(layout), values: Vec::new() }
    }

    /// What a new network starts from: mean 0, variance 1, count 0.
    ///
    /// # Errors
    /// None for a graph that was checked.
    pub fn of_graph(graph: &Graph) -> Result<Self> {
        let layout = ParamLayout::of_graph_buffers(graph)?;
        let mut values = vec![0.0; layout.n_elements()];
        for declaration in graph.buffers().iter().filter(|d| d.role == Role::RunningVar) {
            let spec = layout.get(&declaration.name).expect("the layout was made from these declarations");
            values[spec.range()].fill(1.0);
        }
        Ok(Buffers { layout: Arc::new(layout), values })
    }

    /// Buffers with these values.
    ///
    /// # Errors
    /// If there are more or fewer than the layout has.
    pub fn from_values(layout: &Arc<ParamLayout>, values: Vec<f64>) -> Result<Self> {
        if values.len() != layout.n_elements() {
            return Err(Error::config("values", format!("{} numbers long", layout.n_elements()), values.len()));
        }
        Ok(Buffers { layout: layout.clone(), values })
    }

    /// The names and shapes.
    pub fn layout(&self) -> &Arc<ParamLayout> {
        &self.layout
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All values, in layout order.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// All values, in layout order, to write.
    pub fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// The buffer of that name.
    pub fn get(&self, name: &str) -> Option<&[f64]> {
        self.layout.get(name).map(|spec| &self.values[spec.range()])
    }

    /// The buffer of that name, to write.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut [f64]> {
        let range = self.layout.get(name)?.range();
        Some(&mut self.values[range])
    }
}
