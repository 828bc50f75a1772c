//! The weight-space kernels as ops on candle tensors (feature `candle`; on a GPU with `candle-cuda`).
//!
//! A point of weight space is here what candle users have: a list of tensors, one per parameter. All writing is in place, into [`Var`]s, which
//! a model built on them sees at once. On a GPU every call is one launch (a few for lists of over a hundred) on candle's own stream and storage,
//! however many tensors there are; on the processor tensors are taken in turn, each by all threads.
//!
//! candle does not notice that a variable changes between its forward and its backward pass: blend, run forward, run backward, step, in this
//! order.
//!
//! # When not to use it
//! `landscape-train`'s `Bound` does all of this for a whole model, and checks candle's gradients besides.

#[cfg(feature = "candle-cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use crate::blend::{self, Row};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::step::{self, Adam, Sgd};
#[cfg(feature = "candle-cuda")]
use candle_core::backend::BackendDevice;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, DType, DeviceLocation, InplaceOp1, Layout, Result, Storage, Tensor, Var, WithDType, bail};
use half::bf16;
use std::any::Any;
use std::cell::RefCell;

/// A tensor or a variable.
pub trait AsTensor {
    /// The tensor.
    fn as_tensor(&self) -> &Tensor;
}

impl AsTensor for Tensor {
    fn as_tensor(&self) -> &Tensor {
        self
    }
}

impl AsTensor for Var {
    fn as_tensor(&self) -> &Tensor {
        Var::as_tensor(self)
    }
}

/// The scalars that weights are computed in.
trait Float: Real + WithDType {}
impl Float for f32 {}
impl Float for f64 {}

/// w_l = Σ_k c_k θ_kl for every tensor l, written in place: [`blend::blend`] on lists of tensors.
///
/// Rows of bf16 beside variables of f32 or f64 are widened on the way; a row is of one type in all its tensors.
///
/// # Shapes
/// `c` `[K]`; `points` K lists of the shapes of `into`.
///
/// # Errors
/// If a count, shape, type or device differs, a variable is not contiguous, or a source shares its storage with a variable.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use landscape_kernels::candle::blend;
/// let var = |v: f32| Var::from_tensor(&Tensor::full(v, (2, 3), &Device::Cpu)?);
/// let (start, end, at) = (vec![var(1.0)?], vec![var(5.0)?], vec![var(0.0)?]);
/// blend(&[0.75, 0.25], &[&start, &end], &at)?;
/// assert_eq!(at[0].to_vec2::<f32>()?, [[2.0; 3]; 2]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn blend<P: AsTensor>(c: &[f64], points: &[&[P]], into: &[Var]) -> Result<()> {
    if c.is_empty() || c.len() != points.len() {
        bail!("`blend`: there must be as many points as coefficients, at least 1, got {} and {}", points.len(), c.len());
    }
    let rows = points.iter().map(|point| list("blend", "point", point, into, Narrow::Allowed)).collect::<Result<Vec<_>>>()?;
    let sources: Vec<Tensor> = rows.iter().flatten().cloned().collect();
    check_targets("blend", into, &sources)?;
    #[cfg(feature = "candle-cuda")]
    if into.first().is_some_and(|var| var.device().is_cuda()) {
        return cuda::blend(c, &rows, into);
    }
    for (l, var) in into.iter().enumerate() {
        var.inplace_op1(&Blend { c, rows: rows.iter().map(|row| &row[l]).collect() })?;
    }
    Ok(())
}

/// θ_kl ← c_k·g_l, or that added to it, for every row that is there: [`blend::spread`] on lists of tensors.
///
/// # Shapes
/// `c` `[K]`; `rows` K times lists of the shapes of `g`, or nothing.
///
/// # Errors
/// As [`blend()`].
pub fn spread<P: AsTensor>(c: &[f64], g: &[P], rows: &[Option<&[Var]>], mode: Accumulate) -> Result<()> {
    if c.is_empty() || c.len() != rows.len() {
        bail!("`spread`: there must be as many rows as coefficients, at least 1, got {} and {}", rows.len(), c.len());
    }
    let written: Vec<(f64, &[Var])> = c.iter().zip(rows).filter_map(|(c, row)| Some((*c, (*row)?))).collect();
    let Some((_, first)) = written.first() else { return Ok(()) };
    let g = list("spread", "g", g, first, Narrow::Refused)?;
    for (_, row) in &written {
        list("spread", "row", row, first, Narrow::Refused)?;
    }
    let all: Vec<Var> = written.iter().flat_map(|(_, row)| row.iter().cloned()).collect();
    check_targets("spread", &all, &g)?;
    #[cfg(feature = "candle-cuda")]
    if all.first().is_some_and(|var| var.device().is_cuda()) {
        return cuda::spread(&written, &g, mode);
    }
    for (c, row) in &written {
        for (var, g) in row.iter().zip(&g) {
            match var.dtype() {
                DType::F64 => spread_one::<f64>(*c, g, var, mode)?,
                _ => spread_one::<f32>(*c, g, var, mode)?,
            }
        }
    }
    Ok(())
}

/// The gradient of a row, formed on the way into a step: c_k·(g_l + decay·w_l), or c_k·g_l where there is no point.
#[derive(Debug)]
pub struct Spread<'a, P> {
    /// The row's coefficient c_k; 1 for ordinary training.
    pub c: f64,
    /// The gradient at the point.
    pub gradient: &'a [P],
    /// The point w, with its decay.
    pub point: Option<(&'a [P], f64)>,
}

// By hand: what is pointed to need not be `Copy`.
impl<P> Clone for Spread<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Spread<'_, P> {}

/// One step of SGD of a row, its gradient formed on the way: [`step::spread_sgd_step`] on lists of tensors, all in place.
///
/// # Shapes
/// All lists of the shapes of `theta`. Without momentum a velocity is neither needed nor changed.
///
/// # Errors
/// As [`blend()`], and as the step on memory.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use landscape_kernels::candle::{Spread, sgd_step};
/// use landscape_kernels::step::{Nesterov, Sgd};
/// let (theta, velocity) = (vec![Var::ones(2, candle_core::DType::F64, &Device::Cpu)?], vec![Var::zeros(2, candle_core::DType::F64, &Device::Cpu)?]);
/// let g = vec![Tensor::new(&[2.0, -4.0], &Device::Cpu)?];
/// let sgd = Sgd { lr: 0.5, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: Nesterov::Off };
/// sgd_step(&sgd, 0, Spread { c: 0.5, gradient: &g, point: None }, &theta, Some(&velocity))?;
/// assert_eq!(theta[0].to_vec1::<f64>()?, [0.5, 2.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn sgd_step<P: AsTensor>(
    sgd: &Sgd,
    n_steps_before: u64,
    gradient: Spread<'_, P>,
    theta: &[Var],
    velocity: Option<&[Var]>,
) -> Result<()> {
    let inputs = StepInputs::new("sgd_step", &gradient, theta, velocity.as_slice())?;
    if sgd.momentum != 0.0 && velocity.is_none() {
        bail!("`sgd_step`: a momentum of {} needs a velocity", sgd.momentum);
    }
    #[cfg(feature = "candle-cuda")]
    if theta.first().is_some_and(|var| var.device().is_cuda()) {
        return cuda::sgd_step(sgd, n_steps_before, &inputs, theta, velocity);
    }
    for (l, theta) in theta.iter().enumerate() {
        let velocity = velocity.map(|velocity| &velocity[l]);
        match theta.dtype() {
            DType::F64 => sgd_one::<f64>(sgd, n_steps_before, &inputs, l, theta, velocity)?,
            _ => sgd_one::<f32>(sgd, n_steps_before, &inputs, l, theta, velocity)?,
        }
    }
    Ok(())
}

/// One step of Adam or AdamW of a row, its gradient formed on the way: [`step::spread_adam_step`] on lists of tensors, all in place.
///
/// # Shapes
/// All lists of the shapes of `theta`; `m` and `v` are its moments.
///
/// # Errors
/// As [`blend()`], and as the step on memory.
pub fn adam_step<P: AsTensor>(adam: &Adam, step_idx: u64, gradient: Spread<'_, P>, theta: &[Var], m: &[Var], v: &[Var]) -> Result<()> {
    let inputs = StepInputs::new("adam_step", &gradient, theta, &[m, v])?;
    #[cfg(feature = "candle-cuda")]
    if theta.first().is_some_and(|var| var.device().is_cuda()) {
        return cuda::adam_step(adam, step_idx, &inputs, theta, m, v);
    }
    for (l, theta) in theta.iter().enumerate() {
        match theta.dtype() {
            DType::F64 => adam_one::<f64>(adam, step_idx, &inputs, l, [theta, &m[l], &v[l]])?,
            _ => adam_one::<f32>(adam, step_idx, &inputs, l, [theta, &m[l], &v[l]])?,
        }
    }
    Ok(())
}

/// Writes a run of numbers into a variable of the same type on the processor, without a tensor in between.
///
/// # Errors
/// If the variable is of another type or length, or not on the processor.
pub fn write<T: Real + WithDType>(values: &[T], into: &Var) -> Result<()> {
    modify::<T>("write", into, |own| own.copy_from(values.into()))
}

/// g added to `sum`, from where it stands: a gradient of candle's without a copy in between.
///
/// # Errors
/// If the tensor is of another type or length, or not on the processor.
pub fn add_to<T: Real + WithDType>(g: &Tensor, sum: &mut [T]) -> Result<()> {
    let g = g.contiguous()?;
    let (storage, layout) = g.storage_and_layout();
    blend::spread(&[1.0], host::<T>(&storage, layout)?.into(), &mut [Some(sum.into())], Accumulate::Add).map_err(error)
}

/// [`blend()`] of one tensor, as an op of candle's own kind: `var.inplace_op1(&Blend { c, rows })`.
///
/// Rows must be contiguous, of the variable's length, of its type or bf16, where it is, and in storages of their own; all but the last is
/// checked, and [`blend()`] sees to that.
#[derive(Debug)]
pub struct Blend<'a> {
    /// The coefficients.
    pub c: &'a [f64],
    /// As many tensors.
    pub rows: Vec<&'a Tensor>,
}

impl Blend<'_> {
    /// Fails unless there are as many rows as coefficients, each contiguous, of the variable's length and in its place, of its type or bf16.
    fn check(&self, dtype: DType, place: DeviceLocation, len: usize) -> Result<()> {
        if self.c.is_empty() || self.c.len() != self.rows.len() {
            bail!("`blend`: there must be as many rows as coefficients, at least 1, got {} and {}", self.rows.len(), self.c.len());
        }
        if !matches!(dtype, DType::F32 | DType::F64) {
            bail!("`blend`: a point is of f32 or f64, got {dtype:?}");
        }
        for (k, row) in self.rows.iter().enumerate() {
            if row.elem_count() != len {
                bail!("`blend`: row {k} must have {len} elements, got {}", row.elem_count());
            }
            if row.dtype() != dtype && row.dtype() != DType::BF16 {
                bail!("`blend`: row {k} must be of {dtype:?} or bf16, got {:?}", row.dtype());
            }
            if row.device().location() != place {
                bail!("`blend`: row {k} must be where the variable is, on {place:?}, got {:?}", row.device().location());
            }
            if !row.is_contiguous() {
                bail!("`blend`: row {k} must be contiguous");
            }
        }
        Ok(())
    }

    fn run<T: Float>(&self, own: ViewMut<'_, T>) -> Result<()> {
        let guards: Vec<_> = self.rows.iter().map(|row| row.storage_and_layout()).collect();
        let rows = guards.iter().map(|(storage, layout)| row::<T>(storage, layout)).collect::<Result<Vec<_>>>()?;
        blend::blend_rows(self.c, &rows, own).map_err(error)
    }
}

impl InplaceOp1 for Blend<'_> {
    fn name(&self) -> &'static str {
        "blend"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let dtype = storage.dtype();
        self.check(dtype, DeviceLocation::Cpu, layout.shape().elem_count())?;
        match dtype {
            DType::F64 => self.run::<f64>(host_mut(storage, layout)?),
            _ => self.run::<f32>(host_mut(storage, layout)?),
        }
    }

    #[cfg(feature = "candle-cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        self.check(storage.dtype(), storage.device.location(), layout.shape().elem_count())?;
        cuda::blend_one(self.c, &self.rows, storage, layout)
    }

    #[cfg(not(feature = "candle-cuda"))]
    fn cuda_fwd(&self, _: &mut CudaStorage, _: &Layout) -> Result<()> {
        bail!("`blend`: candle's GPUs need the feature `candle-cuda` of landscape-kernels")
    }
}

/// What a step reads, contiguous.
struct StepInputs {
    c: f64,
    gradient: Vec<Tensor>,
    point: Option<(Vec<Tensor>, f64)>,
}

impl StepInputs {
    fn new<P: AsTensor>(op: &'static str, gradient: &Spread<'_, P>, theta: &[Var], memories: &[&[Var]]) -> Result<Self> {
        let point = match gradient.point {
            Some((point, decay)) => Some((list(op, "point", point, theta, Narrow::Refused)?, decay)),
            None => None,
        };
        for memory in memories {
            list(op, "memory", memory, theta, Narrow::Refused)?;
        }
        let inputs = StepInputs { c: gradient.c, gradient: list(op, "gradient", gradient.gradient, theta, Narrow::Refused)?, point };
        let targets: Vec<Var> = theta.iter().chain(memories.iter().copied().flatten()).cloned().collect();
        let sources: Vec<Tensor> = inputs.gradient.iter().chain(inputs.point.iter().flat_map(|(point, _)| point)).cloned().collect();
        check_targets(op, &targets, &sources)?;
        Ok(inputs)
    }

    /// Calls `f` with gradient and point of tensor `l`.
    fn with<T: Float>(&self, l: usize, f: impl FnOnce(View<'_, T>, Option<(View<'_, T>, f64)>) -> crate::Result<()>) -> Result<()> {
        let (g, g_layout) = self.gradient[l].storage_and_layout();
        let g = host::<T>(&g, g_layout)?.into();
        match &self.point {
            None => f(g, None).map_err(error),
            Some((point, decay)) => {
                let (w, w_layout) = point[l].storage_and_layout();
                f(g, Some((host::<T>(&w, w_layout)?.into(), *decay))).map_err(error)
            }
        }
    }
}

fn spread_one<T: Float>(c: f64, g: &Tensor, var: &Var, mode: Accumulate) -> Result<()> {
    let (g, layout) = g.storage_and_layout();
    let g = host::<T>(&g, layout)?;
    modify::<T>("spread", var, |own| blend::spread(&[c], g.into(), &mut [Some(own)], mode))
}

fn sgd_one<T: Float>(sgd: &Sgd, n_before: u64, inputs: &StepInputs, l: usize, theta: &Var, velocity: Option<&Var>) -> Result<()> {
    inputs.with::<T>(l, |g, point| {
        let mut result = Ok(());
        let outcome = modify::<T>("sgd_step", theta, |theta| {
            match velocity {
                None => return step::spread_sgd_step(sgd, n_before, inputs.c, g, point, theta, None),
                Some(velocity) => {
                    result = modify::<T>("sgd_step", velocity, |velocity| {
                        step::spread_sgd_step(sgd, n_before, inputs.c, g, point, theta, Some(velocity))
                    });
                }
            }
            Ok(())
        });
        outcome.and(result).map_err(kernel_error)
    })
}

fn adam_one<T: Float>(adam: &Adam, step_idx: u64, inputs: &StepInputs, l: usize, [theta, m, v]: [&Var; 3]) -> Result<()> {
    inputs.with::<T>(l, |g, point| {
        let mut result = Ok(());
        let outcome = modify::<T>("adam_step", theta, |theta| {
            result = modify::<T>("adam_step", m, |m| {
                modify::<T>("adam_step", v, |v| step::spread_adam_step(adam, step_idx, inputs.c, g, point, theta, m, v))
                    .map_err(kernel_error)
            });
            Ok(())
        });
        outcome.and(result).map_err(kernel_error)
    })
}

/// Runs `f` on the numbers of a variable on the processor.
fn modify<T: Real + WithDType>(op: &'static str, var: &Var, f: impl FnOnce(ViewMut<'_, T>) -> crate::Result<()>) -> Result<()> {
    struct Modify<F>(&'static str, RefCell<Option<F>>);

    impl<F: FnOnce(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for Modify<F> {
        fn name(&self) -> &'static str {
            self.0
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
            match self.1.take() {
                Some(f) => f(storage, layout),
                None => Ok(()),
            }
        }
    }
    var.inplace_op1(&Modify(
        op,
        RefCell::new(Some(|storage: &mut CpuStorage, layout: &Layout| f(host_mut::<T>(storage, layout)?).map_err(error))),
    ))
}

/// Whether a list may be of bf16 where the variables are not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Narrow {
    Allowed,
    Refused,
}

/// The tensors of a list, contiguous, after their number, shapes, types and devices were compared with those of `like`.
fn list<P: AsTensor>(op: &str, operand: &str, tensors: &[P], like: &[Var], narrow: Narrow) -> Result<Vec<Tensor>> {
    if tensors.len() != like.len() {
        bail!("`{op}`: `{operand}` must have {} tensors, got {}", like.len(), tensors.len());
    }
    let mut found = Vec::with_capacity(tensors.len());
    for (idx, (tensor, var)) in tensors.iter().zip(like).enumerate() {
        let tensor = tensor.as_tensor();
        if tensor.shape() != var.shape() {
            bail!("`{op}`: tensor {idx} of `{operand}` must be {:?}, got {:?}", var.shape(), tensor.shape());
        }
        let is_narrow = narrow == Narrow::Allowed && tensor.dtype() == DType::BF16;
        if tensor.dtype() != var.dtype() && !is_narrow {
            bail!("`{op}`: tensor {idx} of `{operand}` must be of {:?}, got {:?}", var.dtype(), tensor.dtype());
        }
        if !tensor.device().same_device(var.device()) {
            bail!("`{op}`: tensor {idx} of `{operand}` must be where the variable is, on {:?}, got {:?}", var.device(), tensor.device());
        }
        // A launch has one type for each row.
        if let Some(first) = tensors.first().map(P::as_tensor)
            && tensor.dtype() != first.dtype()
        {
            bail!(
                "`{op}`: tensor {idx} of `{operand}` must be of {:?} as the first of its row is, got {:?}",
                first.dtype(),
                tensor.dtype()
            );
        }
        found.push(tensor.contiguous()?);
    }
    Ok(found)
}

/// Fails unless variables are contiguous, of one type, and each in a storage of its own that none of `sources` shares.
fn check_targets(op: &str, targets: &[Var], sources: &[Tensor]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for var in targets {
        if !matches!(var.dtype(), DType::F32 | DType::F64) {
            bail!("`{op}`: what is written must be of f32 or f64, got {:?}", var.dtype());
        }
        if !(var.device().is_cpu() || cfg!(feature = "candle-cuda") && var.device().is_cuda()) {
            bail!("`{op}`: this build has no kernels for {:?}", var.device());
        }
        if var.dtype() != targets[0].dtype() || !var.device().same_device(targets[0].device()) {
            bail!("`{op}`: what is written must be of one type and on one device");
        }
        if !var.is_contiguous() {
            bail!("`{op}`: what is written must be contiguous");
        }
        if !seen.insert(storage_of(var)) {
            bail!("`{op}`: two of the variables that are written share their storage");
        }
    }
    match sources.iter().any(|source| seen.contains(&storage_of(source))) {
        true => bail!("`{op}`: a source shares its storage with a variable that is written"),
        false => Ok(()),
    }
}

/// Where a tensor's storage stands: the same for two tensors of one storage.
fn storage_of(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    let storage: *const Storage = &*storage;
    storage as usize
}

/// The numbers of a contiguous tensor on the processor.
fn host<'a, T: WithDType>(storage: &'a Storage, layout: &Layout) -> Result<&'a [T]> {
    let (Storage::Cpu(storage), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        bail!("expected a contiguous tensor on the processor");
    };
    Ok(&storage.as_slice::<T>()?[start..end])
}

fn host_mut<'a, T: Real + WithDType>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<ViewMut<'a, T>> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("what is written must be contiguous") };
    let own: &mut dyn Any = match storage {
        CpuStorage::F32(values) => values,
        CpuStorage::F64(values) => values,
        _ => bail!("what is written must be of f32 or f64"),
    };
    match own.downcast_mut::<Vec<T>>() {
        Some(values) => Ok(ViewMut::Host(&mut values[start..end])),
        None => bail!("what is written must be of {:?}", T::DTYPE),
    }
}

fn row<'a, T: Float>(storage: &'a Storage, layout: &Layout) -> Result<Row<'a, T>> {
    match storage {
        Storage::Cpu(CpuStorage::BF16(_)) => Ok(Row::Bf16(View::Host(host::<bf16>(storage, layout)?))),
        _ => Ok(Row::Plain(View::Host(host::<T>(storage, layout)?))),
    }
}

/// Ours as one of candle's.
fn error(error: crate::Error) -> candle_core::Error {
    candle_core::Error::msg(error)
}

/// candle's, on the way through ours and back.
fn kernel_error(error: candle_core::Error) -> crate::Error {
    crate::check::shape_error("candle", error.to_string())
}
