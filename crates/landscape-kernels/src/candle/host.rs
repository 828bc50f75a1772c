//! The numbers of tensors on the processor.

use crate::blend::Row;
use crate::memory::{Real, View, ViewMut};
use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, Var, WithDType, bail};
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
pub(super) trait Float: Real + WithDType {}
impl Float for f32 {}
impl Float for f64 {}

/// Runs `f` on the numbers of a variable on the processor.
pub(super) fn modify<T: Real + WithDType>(op: &'static str, var: &Var, f: impl FnOnce(ViewMut<'_, T>) -> crate::Result<()>) -> Result<()> {
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

/// The numbers of a contiguous tensor on the processor.
pub(super) fn host<'a, T: WithDType>(storage: &'a Storage, layout: &Layout) -> Result<&'a [T]> {
    let (Storage::Cpu(storage), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        bail!("expected a contiguous tensor on the processor");
    };
    Ok(&storage.as_slice::<T>()?[start..end])
}

pub(super) fn host_mut<'a, T: Real + WithDType>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<ViewMut<'a, T>> {
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

pub(super) fn row<'a, T: Float>(storage: &'a Storage, layout: &Layout) -> Result<Row<'a, T>> {
    match storage {
        Storage::Cpu(CpuStorage::BF16(_)) => Ok(Row::Bf16(View::Host(host::<bf16>(storage, layout)?))),
        _ => Ok(Row::Plain(View::Host(host::<T>(storage, layout)?))),
    }
}

/// Ours as one of candle's.
pub(super) fn error(error: crate::Error) -> candle_core::Error {
    candle_core::Error::msg(error)
}

/// candle's, on the way through ours and back.
pub(super) fn kernel_error(error: candle_core::Error) -> crate::Error {
    crate::check::shape_error("candle", error.to_string())
}
