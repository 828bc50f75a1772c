//! Our kernels as candle's custom ops: what an op must say is a forward and a backward function on slices; types, layouts and which
//! gradients are asked for are seen to here, once.

use super::host::{Float, host};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};

/// A contiguous operand.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a, T> {
    pub values: &'a [T],
    pub dims: &'a [usize],
}

/// An op of `N` tensors with one result. It is applied once, so what the backward pass needs may be kept in it.
pub(super) trait Kernel<const N: usize>: Send + Sync + 'static {
    /// What candle calls it.
    const NAME: &'static str;

    /// The result and its shape.
    fn forward<T: Float>(&self, inputs: [Operand<'_, T>; N]) -> Result<(Vec<T>, Shape)>;

    /// The gradients that are asked for; others may be left out.
    fn backward<T: Float>(&self, inputs: [Operand<'_, T>; N], asked: [bool; N], y: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; N]>;
}

/// Whether there are kernels for these: on the processor, all of f32 or all of f64.
pub(super) fn is_ours(tensors: &[&Tensor]) -> bool {
    let same = |dtype| tensors.iter().all(|t| t.device().is_cpu() && t.dtype() == dtype);
    same(DType::F32) || same(DType::F64)
}

/// Whether candle records what is done with one of these: then an op without a gradient would cut it off.
pub(super) fn is_tracked(tensors: &[&Tensor]) -> bool {
    tensors.iter().any(|t| t.track_op())
}

pub(super) fn apply1<K: Kernel<1>>(kernel: K, x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Custom(kernel))
}

pub(super) fn apply2<K: Kernel<2>>(kernel: K, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.contiguous()?.apply_op2(&b.contiguous()?, Custom(kernel))
}

pub(super) fn apply3<K: Kernel<3>>(kernel: K, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
    a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, Custom(kernel))
}

/// A kernel in candle's clothes.
struct Custom<K>(K);

impl<K: Kernel<1>> CustomOp1 for Custom<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        forward(&self.0, [(s, l)])
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let [dx] = backward(&self.0, [x], y, dy)?;
        Ok(dx)
    }
}

impl<K: Kernel<2>> CustomOp2 for Custom<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        forward(&self.0, [(s1, l1), (s2, l2)])
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok(backward(&self.0, [a, b], y, dy)?.into())
    }
}

impl<K: Kernel<3>> CustomOp3 for Custom<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        forward(&self.0, [(s1, l1), (s2, l2), (s3, l3)])
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, c: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok(backward(&self.0, [a, b, c], y, dy)?.into())
    }
}

fn forward<K: Kernel<N>, const N: usize>(kernel: &K, inputs: [(&CpuStorage, &Layout); N]) -> Result<(CpuStorage, Shape)> {
    match inputs.first().map(|(storage, _)| storage.dtype()) {
        Some(DType::F64) => forward_in::<f64, K, N>(kernel, inputs),
        _ => forward_in::<f32, K, N>(kernel, inputs),
    }
}

fn forward_in<T: Float, K: Kernel<N>, const N: usize>(kernel: &K, inputs: [(&CpuStorage, &Layout); N]) -> Result<(CpuStorage, Shape)> {
    let operands = all(inputs.map(|(storage, layout)| {
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("`{}`: operands must be contiguous", K::NAME) };
        Ok(Operand { values: &storage.as_slice::<T>()?[start..end], dims: layout.dims() })
    }))?;
    let (y, shape) = kernel.forward(operands)?;
    Ok((T::to_cpu_storage_owned(y), shape))
}

fn backward<K: Kernel<N>, const N: usize>(kernel: &K, inputs: [&Tensor; N], y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; N]> {
    match y.dtype() {
        DType::F64 => backward_in::<f64, K, N>(kernel, inputs, y, dy),
        _ => backward_in::<f32, K, N>(kernel, inputs, y, dy),
    }
}

fn backward_in<T: Float, K: Kernel<N>, const N: usize>(
    kernel: &K,
    inputs: [&Tensor; N],
    y: &Tensor,
    dy: &Tensor,
) -> Result<[Option<Tensor>; N]> {
    let dy = dy.contiguous()?;
    let guards = inputs.map(|tensor| tensor.storage_and_layout());
    let operands =
        all(guards.each_ref().map(|(storage, layout)| Ok(Operand { values: host::<T>(storage, layout)?, dims: layout.dims() })))?;
    let ((y, y_layout), (dy, dy_layout)) = (y.storage_and_layout(), dy.storage_and_layout());
    let asked = inputs.map(|tensor| tensor.track_op());
    let gradients = kernel.backward(operands, asked, host::<T>(&y, y_layout)?, host::<T>(&dy, dy_layout)?)?;
    let mut inputs = inputs.into_iter();
    all(gradients.map(|gradient| match (gradient, inputs.next()) {
        (Some(gradient), Some(input)) => Tensor::from_vec(gradient, input.shape(), input.device()).map(Some),
        _ => Ok(None),
    }))
}

/// The values of an array in which none is an error.
fn all<A, const N: usize>(results: [Result<A>; N]) -> Result<[A; N]> {
    let values = results.into_iter().collect::<Result<Vec<A>>>()?;
    match values.try_into() {
        Ok(values) => Ok(values),
        Err(_) => bail!("an array has changed its length"),
    }
}
