//! `.pth` files of `torch.save`, read without running anything.
//!
//! Such a file is a zip archive: `NAME/data.pkl` holds a pickle that says what there is, `NAME/data/KEY` the bytes of each storage.
//! A pickle is a program; `pickle.rs` runs the part of its language that builds plain data, and stops at the first function or class
//! that is not on a written-out list. Sizes are checked against the file before anything is allocated.

mod archive;
mod data;
mod pickle;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::tensor::RawTensor;
use archive::Archive;
use data::{Data, Storage, Tensor, Value};
use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

/// Where training scripts put the state dict in what they save.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model_state", "model"];
/// How many wrappers may stand around one another.
const MAX_WRAPPERS: usize = 4;
/// How many times the size of the file its tensors may be. Shared and compressed storages make it more than one; a small file
/// whose tensors would fill the memory is an attack or corrupt.
const MAX_EXPANSION: u64 = 64;

/// Reads the state dict of a `.pth` file. Values beside it (optimiser states, epochs) are skipped.
///
/// # Errors
/// [`Error::Read`], or [`Error::Format`] if the file is truncated, corrupt, holds no state dict or asks to run code.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let (file, size_bytes) = crate::checkpoint::open(path)?;
    read_from(std::io::BufReader::new(file), size_bytes, path)
}

/// Reads a `.pth` file that is in memory already; `path` is for messages only.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Checkpoint> {
    read_from(std::io::Cursor::new(bytes), bytes.len() as u64, path)
}

fn read_from(from: impl Read + Seek, size_bytes: u64, path: &Path) -> Result<Checkpoint> {
    let wrong = |reason: String| Error::Format { path: path.to_owned(), reason };
    let mut archive = Archive::open(from, size_bytes).map_err(wrong)?;
    let pickle_name = archive.name("data.pkl");
    let pickled = archive.pickle().map_err(wrong)?;
    let data = pickle::load(&pickled).map_err(|e| wrong(format!("`{pickle_name}` {e}")))?;
    let tensors = state_dict(&data).map_err(|e| wrong(format!("`{pickle_name}` {e}")))?;
    let tensors = rebuild(&mut archive, &data, tensors, size_bytes).map_err(wrong)?;
    Ok(Checkpoint { tensors, metadata: None })
}

/// Takes the wrappers off, and gives the tensors in their order.
fn state_dict(data: &Data) -> std::result::Result<Vec<(&str, &Tensor)>, String> {
    let mut value = data.root;
    for _ in 0..=MAX_WRAPPERS {
        let Some(items) = data.dict(value) else {
            return Err(format!("holds {}, expected a dictionary of tensors: save `model.state_dict()`", value.describe()));
        };
        let inner: Vec<(&str, Value)> = items
            .iter()
            .filter_map(|&(key, value)| Some((data.text(key)?, value)))
            .filter(|&(key, value)| WRAPPERS.contains(&key) && data.dict(value).is_some())
            .collect();
        match inner[..] {
            [(_, one)] => value = one,
            [] => return tensors_of(data, items),
            [(a, _), (b, _), ..] => return Err(format!("holds both `{a}` and `{b}`, expected one state dict")),
        }
    }
    Err(format!("holds a state dict within more than {MAX_WRAPPERS} wrappers"))
}

fn tensors_of<'a>(data: &'a Data, items: &'a [(Value, Value)]) -> std::result::Result<Vec<(&'a str, &'a Tensor)>, String> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut tensors: Vec<(&str, &Tensor)> = Vec::new();
    for &(key, value) in items {
        let Some(tensor) = data.tensor(value) else { continue };
        let name = data.text(key).ok_or_else(|| format!("names a tensor by {}, expected a text", key.describe()))?;
        // A key that comes again replaces the value and keeps its place, as in Python.
        match places.get(name) {
            Some(&place) => tensors[place].1 = tensor,
            None => {
                places.insert(name, tensors.len());
                tensors.push((name, tensor));
            }
        }
    }
    if tensors.is_empty() {
        let keys: Vec<&str> = items.iter().filter_map(|&(key, _)| data.text(key)).take(20).collect();
        return Err(format!("holds no state dict: expected tensors, or one of {WRAPPERS:?}; found the keys {keys:?}"));
    }
    Ok(tensors)
}

/// Reads the storages, each once, and cuts the tensors out of them.
fn rebuild<R: Read + Seek>(
    archive: &mut Archive<R>,
    data: &Data,
    tensors: Vec<(&str, &Tensor)>,
    size_bytes: u64,
) -> std::result::Result<Vec<(String, RawTensor)>, String> {
    let mut n_uses: BTreeMap<&str, usize> = BTreeMap::new();
    let mut total: u64 = 0;
    for (name, tensor) in &tensors {
        let storage = &data.storages[tensor.storage];
        let size = check(tensor, storage, data.key(storage)).map_err(|e| format!("tensor `{name}`: {e}"))?;
        total = total.saturating_add(size as u64);
        let uses = n_uses.entry(data.key(storage)).or_default();
        *uses += 1;
        if *uses == 1 {
            total = total.saturating_add(storage.size_bytes as u64);
        }
    }
    if total > size_bytes.saturating_mul(MAX_EXPANSION) {
        return Err(format!("its tensors need {total} bytes, more than {MAX_EXPANSION} times the file's {size_bytes}; refused"));
    }
    let mut loaded: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let mut rebuilt = Vec::with_capacity(tensors.len());
    for (name, tensor) in &tensors {
        let storage = &data.storages[tensor.storage];
        let about = |e: String| format!("tensor `{name}`: {e}");
        let key = data.key(storage);
        if !loaded.contains_key(key) {
            loaded.insert(key, archive.storage(key, storage.size_bytes).map_err(about)?);
        }
        let bytes = &loaded[key];
        if bytes.len() != storage.size_bytes {
            return Err(about(format!(
                "its storage `{key}` is {} bytes long in one place and {} in another",
                bytes.len(),
                storage.size_bytes
            )));
        }
        let tensor = RawTensor::new(tensor.dtype, tensor.shape.clone(), gather(tensor, bytes)).map_err(|e| about(e.to_string()))?;
        rebuilt.push(((*name).to_owned(), tensor));
        let left = n_uses.get_mut(key).expect("counted above");
        *left -= 1;
        if *left == 0 {
            loaded.remove(key);
        }
    }
    Ok(rebuilt)
}

/// Checks that every element lies within the storage; gives the tensor's size in bytes.
fn check(tensor: &Tensor, storage: &Storage, key: &str) -> std::result::Result<usize, String> {
    let Tensor { dtype, offset, shape, strides, .. } = tensor;
    let size = dtype.tensor_bytes(shape).ok_or_else(|| format!("shape {shape:?} is larger than any machine"))?;
    if size == 0 {
        return Ok(0);
    }
    let reach = shape.iter().zip(strides).try_fold(*offset, |at, (&n, &stride)| at.checked_add((n - 1).checked_mul(stride)?));
    let n_elements = storage.size_bytes / dtype.size_bytes();
    if reach.is_none_or(|last| last >= n_elements) {
        return Err(format!(
            "shape {shape:?} with strides {strides:?} from element {offset} leaves its storage `{key}` of {n_elements} elements"
        ));
    }
    Ok(size)
}

/// The elements in row-major order. The tensor was checked.
fn gather(tensor: &Tensor, storage: &[u8]) -> Vec<u8> {
    let Tensor { dtype, offset, shape, strides, .. } = tensor;
    let width = dtype.size_bytes();
    let n_elements: usize = shape.iter().product();
    if n_elements == 0 {
        return Vec::new();
    }
    let mut row_major = 1;
    let mut contiguous = true;
    for (&n, &stride) in shape.iter().zip(strides).rev() {
        contiguous &= n == 1 || stride == row_major;
        row_major *= n;
    }
    if contiguous {
        return storage[offset * width..(offset + n_elements) * width].to_vec();
    }
    // A stride along one element is never taken; as the check passed over it, it may be anything.
    let strides: Vec<usize> = shape.iter().zip(strides).map(|(&n, &stride)| if n == 1 { 0 } else { stride }).collect();
    let mut bytes = Vec::with_capacity(n_elements * width);
    let mut idx = vec![0; shape.len()];
    let mut at = *offset;
    for _ in 0..n_elements {
        bytes.extend_from_slice(&storage[at * width..][..width]);
        for axis in (0..shape.len()).rev() {
            idx[axis] += 1;
            at += strides[axis];
            if idx[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            idx[axis] = 0;
        }
    }
    bytes
}
