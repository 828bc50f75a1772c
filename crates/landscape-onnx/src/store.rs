//! The tensors of a file: their numbers stay as they are until someone asks.

use crate::error::{Error, Result};
use crate::number::{Dim, Int, Known, Numbers};
use crate::proto::{StringStringEntryProto, TensorProto};
use bytes::Bytes;
use landscape_core::tensor::{Dtype, RawTensor};
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

/// A tensor of the file.
#[derive(Debug, Clone)]
pub struct Stored {
    pub name: String,
    pub dims: Vec<usize>,
    pub dtype: Dtype,
    /// Row-major, little-endian; as many as the dims ask for.
    pub bytes: Bytes,
    /// Whether it is a parameter wherever it is used, and not only where ops have learned tensors.
    pub learned: bool,
}

impl Stored {
    pub fn n_elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// The numbers as a constant.
    pub fn known(&self) -> Result<Known> {
        let raw = self.raw(self.dims.clone())?;
        let numbers = match self.dtype {
            Dtype::Bool => Numbers::Bool(self.bytes.iter().map(|&b| b != 0).collect()),
            Dtype::I64 => Numbers::Int(self.bytes.as_chunks::<8>().0.iter().map(|b| Int::of(i64::from_le_bytes(*b))).collect()),
            dtype if dtype.is_float() => Numbers::Float(raw.to_f64_vec()),
            _ => Numbers::Int(raw.to_f64_vec().into_iter().map(|v| Int::of(v as i64)).collect()),
        };
        Ok(Known { dims: self.dims.iter().map(|&d| Dim::Fixed(d)).collect(), numbers })
    }

    /// The same numbers under another shape of as many.
    pub fn raw(&self, shape: Vec<usize>) -> Result<RawTensor> {
        RawTensor::new(self.dtype, shape, self.bytes.to_vec())
            .map_err(|e| Error::Tensor { tensor: self.name.clone(), reason: e.to_string() })
    }
}

/// Reads tensors, with what lies in other files.
pub struct Reader<'a> {
    /// Where those files are; none where the model was handed over as bytes.
    folder: Option<&'a Path>,
    files: BTreeMap<PathBuf, Bytes>,
}

impl<'a> Reader<'a> {
    pub fn new(folder: Option<&'a Path>) -> Self {
        Reader { folder, files: BTreeMap::new() }
    }

    /// How many bytes other files gave.
    pub fn n_external_bytes(&self) -> usize {
        self.files.values().map(Bytes::len).sum()
    }

    pub fn read(&mut self, name: &str, tensor: &TensorProto) -> Result<Stored> {
        let wrong = |reason: String| Error::Tensor { tensor: name.to_owned(), reason };
        let dtype = dtype(tensor.data_type()).map_err(wrong)?;
        let dims = tensor.dims.iter().map(|&d| usize::try_from(d)).collect::<std::result::Result<Vec<_>, _>>();
        let dims = dims.map_err(|_| wrong(format!("its shape has a negative length: {:?}", tensor.dims)))?;
        let n_bytes = dtype.tensor_bytes(&dims).ok_or_else(|| wrong(format!("a shape that fits in memory, got {dims:?}")))?;
        let bytes = match (tensor.data_location(), &tensor.raw_data) {
            (1, _) => self.external(name, &tensor.external_data, n_bytes)?,
            (_, Some(raw)) if !raw.is_empty() => raw.clone(),
            _ => typed(tensor, dtype).ok_or_else(|| wrong(format!("a number that {dtype} does not have")))?,
        };
        if bytes.len() != n_bytes {
            return Err(wrong(format!("{n_bytes} bytes for {dims:?} of {dtype}, got {}: was the file cut off?", bytes.len())));
        }
        Ok(Stored { name: name.to_owned(), dims, dtype, bytes, learned: false })
    }

    fn external(&mut self, name: &str, entries: &[StringStringEntryProto], n_bytes: usize) -> Result<Bytes> {
        let wrong = |reason: String| Error::Tensor { tensor: name.to_owned(), reason };
        let entry = |key: &str| entries.iter().find(|e| e.key() == key).map(StringStringEntryProto::value);
        let number = |key: &str| {
            let text = entry(key);
            text.map(|t| t.parse::<usize>().map_err(|_| wrong(format!("`{key}` of its external data is no number: `{t}`")))).transpose()
        };
        let location = entry("location").ok_or_else(|| wrong("its external data has no `location`".to_owned()))?;
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(n_bytes);
        let relative = Path::new(location);
        // A file may name its neighbours, and nothing else of the machine.
        if location.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(wrong(format!("its external data must lie in the folder of the model, got `{location}`")));
        }
        let folder =
            self.folder.ok_or_else(|| wrong(format!("its numbers are in `{location}`, and the model was not read from a folder")))?;
        let path = folder.join(relative);
        if !self.files.contains_key(&path) {
            self.files.insert(path.clone(), read_file(&path, Some(folder))?);
        }
        let file = &self.files[&path];
        let end = offset.checked_add(length).filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| wrong(format!("bytes {offset} to {offset} + {length} of `{location}`, which has {}", file.len())))?;
        Ok(file.slice(offset..end))
    }
}

/// A regular file as bytes; `within` is a folder that links may not lead out of.
pub fn read_file(path: &Path, within: Option<&Path>) -> Result<Bytes> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    if let Some(folder) = within {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let (real, folder) = (path.canonicalize().map_err(unreadable)?, folder.canonicalize().map_err(unreadable)?);
        if !real.starts_with(&folder) {
            return Err(unreadable(io::Error::new(io::ErrorKind::PermissionDenied, "it lies outside of the model's folder")));
        }
    }
    std::fs::read(path).map(Bytes::from).map_err(unreadable)
}

/// The element type of that number in ONNX.
pub fn dtype(number: i32) -> std::result::Result<Dtype, String> {
    Ok(match number {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        4 => Dtype::U16,
        5 => Dtype::I16,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::Bool,
        10 => Dtype::F16,
        11 => Dtype::F64,
        12 => Dtype::U32,
        13 => Dtype::U64,
        16 => Dtype::Bf16,
        8 => return Err("strings are no numbers".to_owned()),
        14 | 15 => return Err("complex numbers are not supported".to_owned()),
        _ => return Err(format!("an element type that is not supported: number {number} of ONNX")),
    })
}

/// The numbers of the fields for single types.
fn typed(tensor: &TensorProto, dtype: Dtype) -> Option<Bytes> {
    let mut bytes = Vec::new();
    match dtype {
        Dtype::F32 => tensor.float_data.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
        Dtype::F64 => tensor.double_data.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
        Dtype::I64 => tensor.int64_data.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
        Dtype::U64 => tensor.uint64_data.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
        Dtype::U32 => {
            for &v in &tensor.uint64_data {
                bytes.extend(u32::try_from(v).ok()?.to_le_bytes());
            }
        }
        Dtype::I32 => tensor.int32_data.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
        // Halves are stored as their bits.
        Dtype::F16 | Dtype::Bf16 | Dtype::U16 => {
            for &v in &tensor.int32_data {
                bytes.extend(u16::try_from(v).ok()?.to_le_bytes());
            }
        }
        Dtype::I16 => {
            for &v in &tensor.int32_data {
                bytes.extend(i16::try_from(v).ok()?.to_le_bytes());
            }
        }
        Dtype::I8 => {
            for &v in &tensor.int32_data {
                bytes.extend(i8::try_from(v).ok()?.to_le_bytes());
            }
        }
        Dtype::U8 | Dtype::Bool => {
            for &v in &tensor.int32_data {
                bytes.push(u8::try_from(v).ok()?);
            }
        }
    }
    Some(bytes.into())
}
