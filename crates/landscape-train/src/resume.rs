//! The state of a run as one safetensors file: free rows, moments, statistics, and where the run stands.
//!
//! It is read without trust: every tensor is looked up by name, and its type and shape are checked. Numbers are stored in their
//! own precision, so a resumed run goes on with the same bits. Writing it whole is [`landscape_core::whole`]'s part.

use crate::error::{Error, Result};
use crate::fit::FitState;
use crate::optimizer::{Moments, Optimizer};
use landscape_core::container::Contents;
use landscape_core::tensor::{Dtype, RawTensor};
use landscape_core::{Buffers, ControlPoints, Tally};
use landscape_kernels::{Memory, Real};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
/// If `extra` cannot be written as JSON.
pub fn to_bytes<T: Real>(
    points: &ControlPoints<T>,
    state: &FitState<T>,
    buffers: Option<&Buffers>,
    extra: &serde_json::Value,
) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for k in (0..points.n_points()).filter(|&k| points.is_free(k)) {
        tensors.push((format!("row.{k}"), vector(&points.point(k).view().read()?)?));
    }
    for (k, moments) in state.moments.iter().enumerate() {
        for (i, memory) in moments.iter().flat_map(|m| &m.vectors).enumerate() {
            tensors.push((format!("moment.{k}.{i}"), vector(&memory.view().read()?)?));
        }
    }
    if let Some(buffers) = buffers {
        tensors.push(("buffers".to_owned(), vector(buffers.values())?));
    }
    tensors.push(("epoch_loss_nats_sum".to_owned(), vector(&[state.epoch_tally.loss_nats_sum])?));
    let header = Header {
        format_version: FORMAT_VERSION,
        step: state.step,
        n_examples: state.epoch_tally.n_examples,
        n_wrong: state.epoch_tally.n_wrong,
        extra: extra.clone(),
    };
    let header = serde_json::to_string(&header).map_err(|e| Error::config("extra", "expressible as JSON", e))?;
    Ok(Contents { tensors, metadata: BTreeMap::from([(KEY.to_owned(), header)]) }.to_bytes()?)
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
    let Contents { tensors, metadata } = Contents::from_bytes(bytes, path)?;
    let tensors: BTreeMap<String, RawTensor> = tensors.into_iter().collect();
    let header = metadata.get(KEY).ok_or_else(|| wrong("not a saved state of a run".to_owned()))?;
    let header: Header = serde_json::from_str(header).map_err(|e| wrong(format!("header of the state: {e}")))?;
    if header.format_version != FORMAT_VERSION {
        return Err(wrong(format!("state has format version {}, expected {FORMAT_VERSION}", header.format_version)));
    }
    let read = |name: &str, dtype: Dtype, n_elements: usize| -> Result<&RawTensor> {
        let tensor = tensors.get(name).ok_or_else(|| wrong(format!("tensor `{name}` is missing from the state")))?;
        if tensor.dtype() != dtype || tensor.shape() != [n_elements] {
            let (found, shape) = (tensor.dtype(), tensor.shape());
            return Err(wrong(format!("tensor `{name}` must be {n_elements} numbers of type {dtype}, got {shape:?} of {found}")));
        }
        Ok(tensor)
    };
    let (own, n_elements) = (Dtype::of::<T>(), points.layout().n_elements());
    let mut state = FitState::new(points, optimizer);
    for k in 0..points.n_points() {
        if let Some(row) = points.free_mut(k) {
            row.view_mut().copy_from((&read(&format!("row.{k}"), own, n_elements)?.to::<T>()).into())?;
        }
        for (i, memory) in state.moments[k].iter_mut().flat_map(|m: &mut Moments<T>| &mut m.vectors).enumerate() {
            *memory = Memory::from_host(&memory.device(), read(&format!("moment.{k}.{i}"), own, n_elements)?.to::<T>());
        }
    }
    state.step = header.step;
    let loss = read("epoch_loss_nats_sum", Dtype::F64, 1)?.to_f64_vec()[0];
    state.epoch_tally = Tally { n_examples: header.n_examples, loss_nats_sum: loss, n_wrong: header.n_wrong };
    let buffers = buffers.map(|b| Ok::<_, Error>(read("buffers", Dtype::F64, b.values().len())?.to_f64_vec())).transpose()?;
    Ok(Resumed { state, buffers, extra: header.extra })
}

/// A vector in its own precision.
fn vector<T: Real>(values: &[T]) -> Result<RawTensor> {
    let bytes = match Dtype::of::<T>() {
        Dtype::F64 => values.iter().flat_map(|v| v.to_f64().to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| (v.to_f64() as f32).to_le_bytes()).collect(),
    };
    Ok(RawTensor::new(Dtype::of::<T>(), vec![values.len()], bytes)?)
}
