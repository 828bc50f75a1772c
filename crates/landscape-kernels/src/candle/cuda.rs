//! The ops on candle's GPUs: the kernels of `blend/kernels.cu` and `step/kernels.cu`, launched on candle's stream over candle's storages.
//!
//! What is written is known by its address alone, taken under a read guard: memory of a GPU is no Rust reference, and all work on it stands
//! in the order of candle's one stream per device.

use super::host::error;
use super::step::StepInputs;
use crate::blend::cuda::{KERNELS, MAX_ROWS, Table};
use crate::cuda::{Grid, Source};
use crate::memory::Accumulate;
use crate::step::cuda::{self as step, AdamNumbers, SgdNumbers, StepTable};
use crate::step::{Adam, Sgd};
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice, WrapErr};
use candle_core::scalar::Scalar;
use candle_core::{CudaStorage, DType, Layout, Result, Storage, Tensor, Var, bail};

/// [`super::blend`] after its checks.
pub(super) fn blend(c: &[f64], rows: &[Vec<Tensor>], into: &[Var]) -> Result<()> {
    let own = addresses(into)?;
    let rows: Vec<(f64, &[Tensor])> = c.iter().copied().zip(rows.iter().map(Vec::as_slice)).filter(|(c, _)| *c != 0.0).collect();
    if rows.is_empty() {
        return into.iter().try_for_each(|var| var.zero_set());
    }
    let Some(first) = into.first() else { return Ok(()) };
    let device = first.device().as_cuda_device()?.clone();
    let rows = rows.iter().map(|(c, row)| Ok((*c, is_narrow(row), addresses(row)?))).collect::<Result<Vec<_>>>()?;
    let lens: Vec<usize> = into.iter().map(|var| var.elem_count()).collect();
    blend_addresses(&device, first.dtype(), rows, &own, &lens)
}

/// [`super::Blend`] as candle calls it, after its checks.
pub(super) fn blend_one(c: &[f64], rows: &[&Tensor], storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
    let own = [address(storage, layout)?];
    let rows = c.iter().zip(rows).filter(|(c, _)| **c != 0.0);
    let rows =
        rows.map(|(c, row)| Ok((*c, row.dtype() == DType::BF16, addresses(std::slice::from_ref(*row))?))).collect::<Result<Vec<_>>>()?;
    let device = storage.device.clone();
    let dtype = storage.dtype();
    if rows.is_empty() {
        let zero = if dtype == DType::F64 { Scalar::F64(0.0) } else { Scalar::F32(0.0) };
        return storage.const_set(zero, layout);
    }
    blend_addresses(&device, dtype, rows, &own, &[layout.shape().elem_count()])
}

fn blend_addresses(device: &CudaDevice, dtype: DType, rows: Vec<(f64, bool, Vec<u64>)>, own: &[u64], lens: &[usize]) -> Result<()> {
    // More rows than a table holds are added group by group: the sum so far is the first row of the next.
    let mut rest = rows.as_slice();
    let mut is_first = true;
    while !rest.is_empty() {
        let (group, after) = rest.split_at(rest.len().min(if is_first { MAX_ROWS } else { MAX_ROWS - 1 }));
        let before = (!is_first).then_some((1.0, false, own));
        let group: Vec<(f64, bool, &[u64])> =
            before.into_iter().chain(group.iter().map(|(c, narrow, row)| (*c, *narrow, row.as_slice()))).collect();
        let c: Vec<f64> = group.iter().map(|(c, ..)| *c).collect();
        let narrow = group.iter().enumerate().map(|(k, (_, narrow, _))| u32::from(*narrow) << k).sum();
        let mut table = Table::new(&c, narrow);
        for (l, &len) in lens.iter().enumerate() {
            let pointers = || group.iter().map(|(_, _, row)| row[l]).chain([own[l]]);
            if !table.push(pointers(), len, dtype.size_in_bytes()) {
                launch(device, &KERNELS, "blend", dtype, table.n_blocks(), &table, None::<&u32>)?;
                table = Table::new(&c, narrow);
                table.push(pointers(), len, dtype.size_in_bytes());
            }
        }
        launch(device, &KERNELS, "blend", dtype, table.n_blocks(), &table, None::<&u32>)?;
        (rest, is_first) = (after, false);
    }
    Ok(())
}

/// [`super::spread`] after its checks.
pub(super) fn spread(rows: &[(f64, &[Var])], g: &[Tensor], mode: Accumulate) -> Result<()> {
    let Some(first) = g.first() else { return Ok(()) };
    let (device, dtype) = (first.device().as_cuda_device()?, first.dtype());
    let from = addresses(g)?;
    let add = u32::from(mode == Accumulate::Add);
    for group in rows.chunks(MAX_ROWS) {
        let c: Vec<f64> = group.iter().map(|(c, _)| *c).collect();
        let rows = group.iter().map(|(_, row)| addresses(row)).collect::<Result<Vec<_>>>()?;
        let mut table = Table::new(&c, 0);
        for (l, g) in g.iter().enumerate() {
            let pointers = || rows.iter().map(|row| row[l]).chain([from[l]]);
            if !table.push(pointers(), g.elem_count(), dtype.size_in_bytes()) {
                launch(device, &KERNELS, "spread", dtype, table.n_blocks(), &table, Some(&add))?;
                table = Table::new(&c, 0);
                table.push(pointers(), g.elem_count(), dtype.size_in_bytes());
            }
        }
        launch(device, &KERNELS, "spread", dtype, table.n_blocks(), &table, Some(&add))?;
    }
    Ok(())
}

/// [`super::sgd_step`] after its checks.
pub(super) fn sgd_step(sgd: &Sgd, n_before: u64, inputs: &StepInputs, theta: &[Var], velocity: Option<&[Var]>) -> Result<()> {
    let decay = inputs.point.as_ref().map(|(_, decay)| *decay);
    let numbers = SgdNumbers::spread(sgd, n_before, inputs.c, decay).map_err(error)?;
    // Without momentum a velocity is neither read nor written.
    let velocity = velocity.filter(|_| sgd.momentum != 0.0);
    run_step("sgd", inputs, theta, [velocity, None], &numbers)
}

/// [`super::adam_step`] after its checks.
pub(super) fn adam_step(adam: &Adam, step_idx: u64, inputs: &StepInputs, theta: &[Var], m: &[Var], v: &[Var]) -> Result<()> {
    let decay = inputs.point.as_ref().map(|(_, decay)| *decay);
    let numbers = AdamNumbers::spread(adam, step_idx, inputs.c, decay).map_err(error)?;
    run_step("adam", inputs, theta, [Some(m), Some(v)], &numbers)
}

fn run_step<N: DeviceRepr>(function: &str, inputs: &StepInputs, theta: &[Var], memories: [Option<&[Var]>; 2], numbers: &N) -> Result<()> {
    let Some(first) = theta.first() else { return Ok(()) };
    let (device, dtype) = (first.device().as_cuda_device()?, first.dtype());
    let none = || vec![0; theta.len()];
    let (g, own) = (addresses(&inputs.gradient)?, addresses(theta)?);
    let w = inputs.point.as_ref().map_or_else(|| Ok(none()), |(point, _)| addresses(point))?;
    let [a, b] = memories.map(|memory| memory.map_or_else(|| Ok(none()), addresses));
    let (a, b) = (a?, b?);
    let mut table = StepTable::new();
    for (l, theta) in theta.iter().enumerate() {
        let pointers = [g[l], w[l], own[l], a[l], b[l]];
        if !table.push(pointers, theta.elem_count(), dtype.size_in_bytes()) {
            launch(device, &step::KERNELS, function, dtype, table.n_blocks(), &table, Some(numbers))?;
            table = StepTable::new();
            table.push(pointers, theta.elem_count(), dtype.size_in_bytes());
        }
    }
    launch(device, &step::KERNELS, function, dtype, table.n_blocks(), &table, Some(numbers))
}

/// Whether a row is of bf16; a row is of one type.
fn is_narrow(row: &[Tensor]) -> bool {
    row.first().is_some_and(|tensor| tensor.dtype() == DType::BF16)
}

/// Where tensors begin.
fn addresses<P: super::AsTensor>(tensors: &[P]) -> Result<Vec<u64>> {
    let one = |tensor: &P| {
        let (storage, layout) = tensor.as_tensor().storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => address(storage, layout),
            _ => bail!("expected a tensor on a GPU"),
        }
    };
    tensors.iter().map(one).collect()
}

fn address(storage: &CudaStorage, layout: &Layout) -> Result<u64> {
    let Some((start, _)) = layout.contiguous_offsets() else { bail!("expected a contiguous tensor") };
    let stream = storage.device.cuda_stream();
    Ok(match &storage.slice {
        CudaStorageSlice::F32(values) => values.slice(start..).device_ptr(&stream).0,
        CudaStorageSlice::F64(values) => values.slice(start..).device_ptr(&stream).0,
        CudaStorageSlice::BF16(values) => values.slice(start..).device_ptr(&stream).0,
        _ => bail!("expected a tensor of f32, f64 or bf16"),
    })
}

/// Runs a kernel over a table, with one more argument where there is one, after all that candle has given to its stream before.
fn launch<T: DeviceRepr, A: DeviceRepr>(
    device: &CudaDevice,
    source: &Source,
    function: &str,
    dtype: DType,
    n_blocks: usize,
    table: &T,
    argument: Option<&A>,
) -> Result<()> {
    if n_blocks == 0 {
        return Ok(());
    }
    let scalar = if dtype == DType::F64 { "f64" } else { "f32" };
    let kernel = device.get_or_load_custom_func(&format!("{function}_{scalar}"), &format!("landscape/{}", source.name), source.ptx)?;
    let grid = Grid::blocks(n_blocks, Grid::THREADS);
    let config = LaunchConfig { grid_dim: (grid.blocks[0], 1, 1), block_dim: (grid.threads[0], 1, 1), shared_mem_bytes: 0 };
    let mut builder = kernel.builder();
    builder.arg(table);
    if let Some(argument) = argument {
        builder.arg(argument);
    }
    // SAFETY: the table's pointers and lengths are those of live, contiguous tensors of this type on this device; the tensors are held by
    // the caller, and memory that candle frees is freed on this stream, after the kernel.
    unsafe { builder.launch(config) }.w().map(|_| ())
}
