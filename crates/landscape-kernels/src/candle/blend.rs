//! [`blend::blend`] and [`blend::spread`] on lists of tensors.

use super::AsTensor;
use super::host::{Float, error, host, host_mut, modify, row};
use super::lists::{Narrow, check_targets, list};
use crate::blend;
use crate::memory::{Accumulate, Real, ViewMut};
#[cfg(feature = "candle-cuda")]
use candle_core::backend::BackendDevice;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, DType, DeviceLocation, InplaceOp1, Layout, Result, Tensor, Var, WithDType, bail};

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
        return super::cuda::blend(c, &rows, into);
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
        return super::cuda::spread(&written, &g, mode);
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
        super::cuda::blend_one(self.c, &self.rows, storage, layout)
    }

    #[cfg(not(feature = "candle-cuda"))]
    fn cuda_fwd(&self, _: &mut CudaStorage, _: &Layout) -> Result<()> {
        bail!("`blend`: candle's GPUs need the feature `candle-cuda` of landscape-kernels")
    }
}

fn spread_one<T: Float>(c: f64, g: &Tensor, var: &Var, mode: Accumulate) -> Result<()> {
    let (g, layout) = g.storage_and_layout();
    let g = host::<T>(&g, layout)?;
    modify::<T>("spread", var, |own| blend::spread(&[c], g.into(), &mut [Some(own)], mode))
}
