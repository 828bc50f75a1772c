//! [`Bound`]: a candle model whose weights are a point of weight space.

use super::leaves::{BEGINNING, Forward, Instance, Leaf, Recipe};
use super::refresh::Rule;
use super::tensors::NamedTensors;
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor, Var, WithDType};
use candle_nn::{VarBuilder, VarMap};
use landscape_core::{BufferNames, Buffers, Coefficients, ControlPoints, Flat, ParamLayout, Seed};
use landscape_kernels::Real;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A candle model, built once by its own constructor, whose variables are written in place.
///
/// With [`Bound::classes`], [`Bound::squared_error`] or [`Bound::loss`] it becomes a [`Task`](super::Task), which everything that
/// knows [`Objective`](landscape_core::Objective) can work on. Parameters stand in the order in which the constructor asks for them;
/// statistics buffers are known by their names, see [`Bound::with_buffers`].
///
/// `T` is the precision of the weights: f32 by [`Bound::new`], f64 by `Bound::<f64>::bind`.
pub struct Bound<'a, T> {
    pub(super) recipe: Recipe<'a>,
    pub(super) device: Device,
    pub(super) instance: Instance<'a>,
    pub(super) names: BufferNames,
    pub(super) parts: Parts,
    pub(super) point: Flat<T>,
    pub(super) buffers: Buffers,
    pub(super) is_fresh: bool,
    /// What each buffer does in training mode, once that was needed.
    pub(super) rules: Option<Arc<[Rule]>>,
    writes: Writes,
}

/// Whether writing a variable reaches the model; a layer may have copied it when it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    /// Not known before the first evaluation after a move.
    Unknown,
    /// They do.
    Reach,
    /// They do not: the model is built anew at every point, and cannot be trained.
    Miss,
}

/// Which leaves are parameters and which are buffers.
#[derive(Clone)]
pub(super) struct Parts {
    pub layout: Arc<ParamLayout>,
    /// Indices of leaves, in the order of `layout`.
    pub params: Vec<usize>,
    pub buffer_layout: Arc<ParamLayout>,
    /// Indices of leaves, in the order of `buffer_layout`.
    pub buffers: Vec<usize>,
}

impl Parts {
    pub fn of(leaves: &[Leaf], names: &BufferNames) -> Result<Self> {
        let (buffers, params): (Vec<usize>, Vec<usize>) = (0..leaves.len()).partition(|&i| names.contains(&leaves[i].name));
        let layout = |idx: &[usize]| ParamLayout::new(idx.iter().map(|&i| (leaves[i].name.clone(), leaves[i].var.dims().to_vec())));
        if let Some(&i) = params.iter().find(|&&i| !leaves[i].var.dtype().is_float()) {
            let reason = format!("{:?} numbers are no weights; name it as a buffer", leaves[i].var.dtype());
            return Err(landscape_core::Error::Tensor { tensor: leaves[i].name.clone(), reason }.into());
        }
        Ok(Parts { layout: Arc::new(layout(&params)?), buffer_layout: Arc::new(layout(&buffers)?), params, buffers })
    }

    /// Writes a point into the parameters of `leaves`.
    pub fn write_point<V: Real + WithDType>(&self, leaves: &[Leaf], point: &[V]) -> candle_core::Result<()> {
        let specs = self.layout.tensors().iter().zip(&self.params);
        specs.into_iter().try_for_each(|(spec, &i)| leaves[i].write(&point[spec.range()]))
    }

    /// Writes statistics into the buffers of `leaves`.
    pub fn write_buffers(&self, leaves: &[Leaf], values: &[f64]) -> candle_core::Result<()> {
        let specs = self.buffer_layout.tensors().iter().zip(&self.buffers);
        specs.into_iter().try_for_each(|(spec, &i)| leaves[i].write(&values[spec.range()]))
    }

    fn read<T: Real>(leaves: &[Leaf], idx: &[usize]) -> candle_core::Result<Vec<T>> {
        let mut values = Vec::new();
        for &i in idx {
            values.extend(leaves[i].read()?.into_iter().map(T::from_f64));
        }
        Ok(values)
    }
}

impl<'a> Bound<'a, f32> {
    /// Binds a model: `build` is its constructor, `forward` runs it on inputs, in training mode or not.
    ///
    /// Buffers are the tensors called `running_mean`, `running_var` and `num_batches_tracked`.
    ///
    /// # Errors
    /// If the constructor fails, or a tensor that is no buffer is not of a float type.
    pub fn new<N: 'a>(
        device: &Device,
        build: impl Fn(VarBuilder<'static>) -> candle_core::Result<N> + 'a,
        forward: impl Fn(&N, &Tensor, bool) -> candle_core::Result<Tensor> + 'a,
    ) -> Result<Self> {
        Self::bind(device, build, forward)
    }
}

impl<'a, T: Real + WithDType> Bound<'a, T> {
    /// Binds a model in the precision of `T`; otherwise as [`Bound::new`].
    ///
    /// # Errors
    /// As [`Bound::new`].
    pub fn bind<N: 'a>(
        device: &Device,
        build: impl Fn(VarBuilder<'static>) -> candle_core::Result<N> + 'a,
        forward: impl Fn(&N, &Tensor, bool) -> candle_core::Result<Tensor> + 'a,
    ) -> Result<Self> {
        let names = Buffers::named(["running_mean", "running_var", "num_batches_tracked"]);
        Self::of_recipe(Recipe::new(build, forward), device.clone(), names)
    }

    fn of_recipe(recipe: Recipe<'a>, device: Device, names: BufferNames) -> Result<Self> {
        let instance = recipe.instantiate(&device, T::DTYPE, BTreeMap::new())?;
        let parts = Parts::of(&instance.leaves, &names)?;
        let values = Parts::read(&instance.leaves, &parts.params)?;
        let point = Flat::from_vec(&parts.layout, &landscape_kernels::Device::Cpu, values)?;
        let buffers = Buffers::from_values(&parts.buffer_layout, Parts::read(&instance.leaves, &parts.buffers)?)?;
        Ok(Bound { recipe, device, instance, names, parts, point, buffers, is_fresh: true, rules: None, writes: Writes::Unknown })
    }

    /// The same model with other tensors for buffers.
    ///
    /// # Errors
    /// If a tensor that is no buffer is not of a float type.
    pub fn with_buffers(self, names: BufferNames) -> Result<Self> {
        Self::of_recipe(self.recipe, self.device, names)
    }

    /// Another one at the same point, with weights and statistics of its own.
    ///
    /// # Errors
    /// If the constructor fails.
    pub fn fork(&self) -> Result<Self> {
        let mut fork = Self::of_recipe(self.recipe.clone(), self.device.clone(), self.names.clone())?;
        (fork.writes, fork.rules) = (self.writes, self.rules.clone());
        fork.set_point(&self.point)?;
        fork.set_buffers(&self.buffers)?;
        fork.is_fresh = self.is_fresh;
        Ok(fork)
    }

    /// The names and shapes of the parameters, in the order in which the constructor asks for them.
    pub fn layout(&self) -> &Arc<ParamLayout> {
        &self.parts.layout
    }

    /// The point it stands at.
    pub fn weights(&self) -> &Flat<T> {
        &self.point
    }

    /// The statistics buffers as they stand.
    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// New weights from a seed, as the layers' hints say (candle's own generator cannot be seeded on the CPU).
    ///
    /// # Errors
    /// None for a model that was bound.
    pub fn initial(&self, seed: Seed) -> Result<Flat<T>> {
        let values = self.parts.params.iter().flat_map(|&i| self.instance.leaves[i].initial(seed));
        let values = values.map(<T as Real>::from_f64).collect();
        Ok(Flat::from_vec(&self.parts.layout, &landscape_kernels::Device::Cpu, values)?)
    }

    /// A new `VarMap` of the model's variables, weights from a seed as by [`Bound::initial`].
    ///
    /// # Errors
    /// If candle fails.
    pub fn new_varmap(&self, seed: u64) -> Result<VarMap> {
        let vars = VarMap::new();
        for leaf in &self.instance.leaves {
            let values = Tensor::from_vec(leaf.initial(Seed::new(seed)), leaf.var.shape(), &Device::Cpu)?;
            let var = Var::from_tensor(&values.to_dtype(leaf.var.dtype())?.to_device(&self.device)?)?;
            vars.data().lock().map_err(|_| poisoned())?.insert(leaf.name.clone(), var);
        }
        Ok(vars)
    }

    /// Weights and statistics that the user keeps in tensors.
    ///
    /// # Errors
    /// If names or shapes are not the model's (every difference is listed), a weight is not finite, or its type does not fit in `T`.
    pub fn read(&self, source: &(impl NamedTensors + ?Sized)) -> Result<(Flat<T>, Buffers)> {
        let tensors = source.named_tensors()?;
        self.check_names(&tensors, "the tensors")?;
        let exact = [DType::F16, DType::BF16, DType::F32, T::DTYPE];
        let mut weights = Vec::with_capacity(self.parts.layout.n_elements());
        for spec in self.parts.layout.tensors() {
            let tensor = &tensors[&spec.name];
            if !exact.contains(&tensor.dtype()) {
                let reason = format!("{:?} numbers do not fit into a model bound in {}", tensor.dtype(), T::NAME);
                return Err(landscape_core::Error::Tensor { tensor: spec.name.clone(), reason }.into());
            }
            weights.extend(super::leaves::numbers(tensor)?.into_iter().map(<T as Real>::from_f64));
        }
        let mut statistics = Vec::with_capacity(self.parts.buffer_layout.n_elements());
        for spec in self.parts.buffer_layout.tensors() {
            statistics.extend(super::leaves::numbers(&tensors[&spec.name])?);
        }
        let point = Flat::from_vec(&self.parts.layout, &landscape_kernels::Device::Cpu, weights)?;
        point.check_finite()?;
        Ok((point, Buffers::from_values(&self.parts.buffer_layout, statistics)?))
    }

    /// Fails, with every difference listed, unless these are the model's names and shapes.
    pub(super) fn check_names(&self, tensors: &BTreeMap<String, Tensor>, whose: &str) -> Result<()> {
        let sorted = |tensors: BTreeMap<String, Vec<usize>>| ParamLayout::new(tensors);
        let own = self.instance.leaves.iter().map(|leaf| (leaf.name.clone(), leaf.var.dims().to_vec())).collect();
        let theirs = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
        Ok(sorted(own)?.check_same("the model", &sorted(theirs)?, whose)?)
    }

    /// The present point, statistics included, as tensors of the model's own names and types.
    ///
    /// # Errors
    /// If candle fails.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let copy = |leaf: &Leaf| Ok((leaf.name.clone(), leaf.var.as_detached_tensor().copy()?));
        self.instance.leaves.iter().map(copy).collect()
    }

    /// Goes to `point`; statistics become stale where there are any.
    ///
    /// # Errors
    /// If the layout is not the model's.
    pub fn set_point(&mut self, point: &Flat<T>) -> Result<()> {
        self.parts.layout.check_same("the model", point.layout(), "the point")?;
        self.point.view_mut().copy_from(point.view())?;
        self.moved()
    }

    pub(super) fn move_to(&mut self, points: &ControlPoints<T>, c: &Coefficients) -> Result<()> {
        self.parts.layout.check_same("the model", points.layout(), "the control points")?;
        points.blend_into(c, &mut self.point)?;
        self.moved()
    }

    fn moved(&mut self) -> Result<()> {
        self.is_fresh = self.buffers.is_empty();
        if self.writes == Writes::Miss {
            self.instance = self.rebuilt()?;
        }
        Ok(self.parts.write_point(&self.instance.leaves, self.point.view().host())?)
    }

    /// Replaces the statistics, which belong to the present point from now on.
    ///
    /// # Errors
    /// If their layout is another.
    pub fn set_buffers(&mut self, buffers: &Buffers) -> Result<()> {
        self.parts.buffer_layout.check_same("the model", buffers.layout(), "the buffers")?;
        self.buffers.values_mut().copy_from_slice(buffers.values());
        self.parts.write_buffers(&self.instance.leaves, buffers.values())?;
        self.is_fresh = true;
        Ok(())
    }

    /// Reads the statistics that a pass in training mode has changed.
    pub(super) fn reread_buffers(&mut self) -> Result<()> {
        let values = Parts::read(&self.instance.leaves, &self.parts.buffers)?;
        self.buffers.values_mut().copy_from_slice(&values);
        Ok(())
    }

    /// Runs the model; inputs are brought to its device and precision.
    pub(super) fn forward(&mut self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = fit_input(x, &self.device, T::DTYPE)?;
        if self.writes == Writes::Unknown {
            self.find_copied_weights(&x)?;
        }
        Ok((self.instance.forward)(&x, train)?)
    }

    /// Whether some layer copied its weights when it was built, so that writing them does nothing.
    pub(super) fn copies_weights(&self) -> bool {
        self.writes == Writes::Miss
    }

    /// A model that saw the present point when it was built must give what the model gives that was written to.
    fn find_copied_weights(&mut self, x: &Tensor) -> Result<()> {
        if self.point.view().host() == self.initial(BEGINNING)?.view().host() {
            return Ok(());
        }
        let other = self.rebuilt()?;
        let evaluate = |forward: &Forward<'_>| super::leaves::numbers(&forward(x, false)?);
        let (written, built) = (evaluate(&self.instance.forward)?, evaluate(&other.forward)?);
        let is_same = written.iter().zip(&built).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()));
        self.writes = if is_same { Writes::Reach } else { Writes::Miss };
        if !is_same {
            self.instance = other;
        }
        Ok(())
    }

    /// The model built anew at the present point: its constructor meets the weights, not their beginnings.
    fn rebuilt(&self) -> Result<Instance<'a>> {
        self.rebuilt_in(T::DTYPE)
    }

    /// The same in another precision.
    pub(super) fn rebuilt_in(&self, dtype: DType) -> Result<Instance<'a>> {
        let weights = self.point.view().host();
        let params = self.parts.layout.tensors().iter();
        let params = params.map(|spec| (spec.name.clone(), weights[spec.range()].iter().map(|&v| Real::to_f64(v)).collect()));
        let mut values: BTreeMap<String, Vec<f64>> = params.collect();
        // As they stand in the model, which a refresh changes before it tells anybody.
        for &i in &self.parts.buffers {
            let leaf = &self.instance.leaves[i];
            values.insert(leaf.name.clone(), leaf.read()?);
        }
        self.recipe.instantiate(&self.device, dtype, values)
    }
}

/// Floats in the model's precision, on its device; integers (tokens) as they are.
pub(super) fn fit_input(x: &Tensor, device: &Device, dtype: DType) -> candle_core::Result<Tensor> {
    let x = x.to_device(device)?;
    if x.dtype().is_float() { x.to_dtype(dtype) } else { Ok(x) }
}

pub(super) fn poisoned() -> Error {
    landscape_core::Error::Objective("the variables are locked by a thread that panicked".to_owned()).into()
}
