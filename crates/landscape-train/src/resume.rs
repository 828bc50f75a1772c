//! The state of a run as one safetensors file: free rows, moments, statistics, and where the run stands.
//!
//! It is written whole or not at all (by [`landscape_core::whole`]) and read without trust: every tensor is looked up by name and
//! its size checked. Numbers are stored in their own precision, so a resumed run goes on with the same bits.

use crate::error::{Error, Result};
use crate::fit::FitState;
use crate::optimizer::{Moments, Optimizer};
use landscape_core::{Buffers, ControlPoints, Tally};
use landscape_kernels::{Memory, Real};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The one metadata key.
const KEY: &str = "landscape-run";
/// Raised whenever an older program could misread the file.
const FORMAT_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    format_version: u32,
    step: u64,
    n_examples: u64,
    n_wrong: Option<u64>,
    extra: serde_json::Value,
}

/// What a saved run gives back besides the rows, which go into the control points directly.
#[derive(Debug)]
pub struct Resumed<T> {
    /// Where the loop stands.
    pub state: FitState<T>,
    /// The statistics buffers, where the objective has any.
    pub buffers: Option<Vec<f64>>,
    /// What the caller stored beside it.
    pub extra: serde_json::Value,
}

/// The bytes of a run's state.
///
/// # Errors
/// If safetensors refuses the tensors.
pub fn to_bytes<T: Real>(
    points: &ControlPoints<T>,
    state: &FitState<T>,
    buffers: Option<&Buffers>,
    extra: &serde_json::Value,
) -> Result<Vec<u8>> {
    let mut tensors: Vec<(String, Dtype, Vec<u8>)> = Vec::new();
    for k in (0..points.n_points()).filter(|&k| points.is_free(k)) {
        tensors.push((format!("row.{k}"), dtype::<T>(), real_bytes(points.point(k).view().host())));
    }
    for (k, moments) in state.moments.iter().enumerate() {
        for (i, vector) in moments.iter().flat_map(|m| &m.vectors).enumerate() {
            tensors.push((format!("moment.{k}.{i}"), dtype::<T>(), real_bytes(vector.view().host())));
        }
    }
    if let Some(buffers) = buffers {
        tensors.push(("buffers".to_owned(), Dtype::F64, real_bytes(buffers.values())));
    }
    tensors.push(("epoch_loss_nats_sum".to_owned(), Dtype::F64, real_bytes(&[state.epoch_tally.loss_nats_sum])));
    let header = Header {
        format_version: FORMAT_VERSION,
        step: state.step,
        n_examples: state.epoch_tally.n_examples,
        n_wrong: state.epoch_tally.n_wrong,
        extra: extra.clone(),
    };
    let header = serde_json::to_string(&header).map_err(|e| Error::config("extra", "plain JSON", e))?;
    let views = tensors
        .iter()
        .map(|(name, dtype, bytes)| Ok((name, TensorView::new(*dtype, vec![bytes.len() / (dtype.bitsize() / 8)], bytes)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| Error::config("state", "storable", e))?;
    let metadata = std::iter::once((KEY.to_owned(), header)).collect();
    safetensors::serialize(views, Some(metadata)).map_err(|e| Error::config("state", "storable", e))
}

/// Reads a run's state back: free rows into `points`, the rest as [`Resumed`]. `path` is for messages only.
///
/// # Errors
/// [`Error::State`] if the bytes are no state, or one of another set of control points or another optimiser.
pub fn from_bytes<T: Real>(
    bytes: &[u8],
    path: &Path,
    points: &mut ControlPoints<T>,
    optimizer: &Optimizer,
    buffers: Option<&Buffers>,
) -> Result<Resumed<T>> {
    let wrong = |reason: String| Error::State { path: path.to_owned(), reason };
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| wrong(format!("not a saved state: {e}")))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| wrong(format!("not a saved state: {e}")))?;
    let header = metadata.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| wrong("not a saved state of a run".to_owned()))?;
    let header: Header = serde_json::from_str(header).map_err(|e| wrong(format!("header of the state: {e}")))?;
    if header.format_version != FORMAT_VERSION {
        return Err(wrong(format!("state has format version {}, expected {FORMAT_VERSION}", header.format_version)));
    }
    let read = |name: &str, n_elements: usize| -> Result<Vec<T>> {
        let view = tensors.tensor(name).map_err(|_| wrong(format!("tensor `{name}` is missing from the state")))?;
        if view.dtype() != dtype::<T>() || view.shape() != [n_elements] {
            let (found, shape) = (view.dtype(), view.shape());
            return Err(wrong(format!("tensor `{name}` must be {} numbers of type {}, got {shape:?} of {found:?}", n_elements, T::NAME)));
        }
        Ok(reals(view.data()))
    };
    let n_elements = points.layout().n_elements();
    let mut state = FitState::new(points, optimizer);
    for k in 0..points.n_points() {
        if let Some(row) = points.free_mut(k) {
            row.view_mut().host().copy_from_slice(&read(&format!("row.{k}"), n_elements)?);
        }
        for (i, vector) in state.moments[k].iter_mut().flat_map(|m: &mut Moments<T>| &mut m.vectors).enumerate() {
            *vector = Memory::from_host(&vector.device(), read(&format!("moment.{k}.{i}"), n_elements)?);
        }
    }
    let read_f64 = |name: &str, n_elements: usize| -> Result<Vec<f64>> {
        let view = tensors.tensor(name).map_err(|_| wrong(format!("tensor `{name}` is missing from the state")))?;
        if view.dtype() != Dtype::F64 || view.shape() != [n_elements] {
            return Err(wrong(format!("tensor `{name}` must be {n_elements} numbers of type f64")));
        }
        Ok(reals(view.data()))
    };
    state.step = header.step;
    let loss = read_f64("epoch_loss_nats_sum", 1)?[0];
    state.epoch_tally = Tally { n_examples: header.n_examples, loss_nats_sum: loss, n_wrong: header.n_wrong };
    let buffers = buffers.map(|b| read_f64("buffers", b.values().len())).transpose()?;
    Ok(Resumed { state, buffers, extra: header.extra })
}

fn dtype<T: Real>() -> Dtype {
    if T::NAME == "f64" { Dtype::F64 } else { Dtype::F32 }
}

/// Little-endian bytes; an f32 survives the way through f64 unchanged.
fn real_bytes<T: Real>(values: &[T]) -> Vec<u8> {
    if T::NAME == "f64" {
        values.iter().flat_map(|v| v.to_f64().to_le_bytes()).collect()
    } else {
        values.iter().flat_map(|v| (v.to_f64() as f32).to_le_bytes()).collect()
    }
}

fn reals<T: Real>(bytes: &[u8]) -> Vec<T> {
    if T::NAME == "f64" {
        bytes.as_chunks::<8>().0.iter().map(|b| T::from_f64(f64::from_le_bytes(*b))).collect()
    } else {
        bytes.as_chunks::<4>().0.iter().map(|b| T::from_f64(f64::from(f32::from_le_bytes(*b)))).collect()
    }
}
