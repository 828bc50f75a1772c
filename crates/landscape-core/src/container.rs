//! The safetensors container: a header in JSON and the tensors' bytes, one after the other.
//!
//! Eight bytes hold the header's length, then comes the header `{"__metadata__": {..}, "name": {"dtype", "shape",
//! "data_offsets"}, ..}`, then the data without gaps.
//!
//! # Source
//! The format as huggingface/safetensors describes it. The crate of that name reads the same files but keeps neither the order of
//! the tensors when it writes nor tells of a name that comes twice, and offsets near 2^64 overflow in its length check; here
//! tensors stand in the caller's order among those of equal element size, the largest first, so that all are aligned.

use crate::error::{Error, Result};
use crate::mapped::MappedFile;
use crate::tensor::{Dtype, RawTensor};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;

/// The longest header that is read, as in the format's own reader.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const METADATA: &str = "__metadata__";

/// The content of a file.
#[derive(Debug)]
pub struct Contents {
    /// In the order of their bytes when read; in any order to be written.
    pub tensors: Vec<(String, RawTensor)>,
    /// The texts beside them.
    pub metadata: BTreeMap<String, String>,
}

impl Contents {
    /// Reads a file that is in memory; `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Format`], with what was expected and found.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        read(bytes, bytes.len() as u64, path)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`Error::Config`] if a name comes twice or is `__metadata__`.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (header, order) = header(&self.tensors, &self.metadata)?;
        let mut bytes = Vec::new();
        write(&mut bytes, &header, &order, &self.tensors).expect("writing to memory does not fail");
        Ok(bytes)
    }
}

/// Reads `size_bytes` bytes as one file; `path` is for messages only.
pub(crate) fn read(mut from: impl Read, size_bytes: u64, path: &Path) -> Result<Contents> {
    let wrong = |reason: String| Error::Format { path: path.to_owned(), reason };
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let (entries, metadata) = read_header(&mut from, size_bytes, path)?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, dtype, shape, n_bytes) in entries {
        let bytes = read_bytes(&mut from, n_bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => wrong(format!("tensor `{name}`: the file ends within its data")),
            _ => unreadable(source),
        })?;
        tensors.push((name, RawTensor::new(dtype, shape, bytes)?));
    }
    Ok(Contents { tensors, metadata })
}

/// The contents of a mapped file, whose data stay where they are; `path` is for messages only.
pub(crate) fn map(file: &MappedFile, path: &Path) -> Result<Contents> {
    let bytes = file.bytes();
    let (entries, metadata) = read_header(&mut &bytes[..], bytes.len() as u64, path)?;
    // The header was checked: the data end where the file ends, without gaps.
    let data_bytes: u64 = entries.iter().map(|(.., n_bytes)| n_bytes).sum();
    let mut start = bytes.len() - data_bytes as usize;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, dtype, shape, n_bytes) in entries {
        let end = start + n_bytes as usize;
        tensors.push((name, RawTensor::mapped(dtype, shape, file, start..end)));
        start = end;
    }
    Ok(Contents { tensors, metadata })
}

/// Reads up to where the data begin, and checks the header against the size of the file.
fn read_header(from: &mut impl Read, size_bytes: u64, path: &Path) -> Result<(Vec<Checked>, BTreeMap<String, String>)> {
    let wrong = |reason: String| Error::Format { path: path.to_owned(), reason };
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    if size_bytes < 8 {
        return Err(wrong(format!("no safetensors file: it has {size_bytes} bytes, expected at least 8")));
    }
    let mut length = [0; 8];
    from.read_exact(&mut length).map_err(unreadable)?;
    let header_bytes = u64::from_le_bytes(length);
    let rest = size_bytes - 8;
    if header_bytes > rest || header_bytes > MAX_HEADER_BYTES {
        let most = rest.min(MAX_HEADER_BYTES);
        return Err(wrong(format!(
            "not a safetensors file, or truncated: it declares a header of {header_bytes} bytes, expected at most {most}"
        )));
    }
    let header = read_bytes(from, header_bytes).map_err(unreadable)?;
    let header = std::str::from_utf8(&header).map_err(|_| wrong("the safetensors header is no UTF-8 text".to_owned()))?;
    let mut json = serde_json::Deserializer::from_str(header);
    let header = json.deserialize_map(HeaderVisitor).and_then(|h| json.end().map(|()| h));
    let header = header.map_err(|e| wrong(format!("safetensors header: {e}")))?;
    let data_bytes = rest - header_bytes;
    let entries = check(header.tensors, data_bytes).map_err(wrong)?;
    Ok((entries, header.metadata))
}

/// Exactly `n` bytes. The buffer grows with what is there, so that a wrong length costs no memory.
fn read_bytes(from: &mut impl Read, n: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let found = from.take(n).read_to_end(&mut bytes)? as u64;
    if found == n { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

type Checked = (String, Dtype, Vec<usize>, u64);

/// Sorts entries by their place and checks that they cover the data exactly.
fn check(mut entries: Vec<(String, Entry)>, data_bytes: u64) -> std::result::Result<Vec<Checked>, String> {
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut at = 0;
    let mut checked = Vec::with_capacity(entries.len());
    for (name, Entry { dtype, shape, data_offsets: [start, end] }) in entries {
        let dtype = Dtype::from_name(&dtype).ok_or_else(|| {
            let known: Vec<&str> = Dtype::ALL.iter().map(|d| d.name()).collect();
            format!("tensor `{name}`: expected a dtype of {}, got `{dtype}`", known.join(", "))
        })?;
        let size = dtype.tensor_bytes(&shape).ok_or_else(|| format!("tensor `{name}`: shape {shape:?} is larger than any machine"))?;
        let size = size as u64;
        if end.checked_sub(start) != Some(size) {
            return Err(format!("tensor `{name}`: shape {shape:?} of {dtype} needs {size} bytes, and its data go from {start} to {end}"));
        }
        if start != at {
            return Err(format!("tensor `{name}`: its data begin at {start}, expected {at}, where those before it end"));
        }
        if end > data_bytes {
            return Err(format!("tensor `{name}`: its data end at {end}, and the file holds {data_bytes} bytes of data: truncated?"));
        }
        at = end;
        checked.push((name, dtype, shape, size));
    }
    if at != data_bytes {
        return Err(format!("the tensors end at {at}, and the file holds {data_bytes} bytes of data"));
    }
    Ok(checked)
}

struct Header {
    tensors: Vec<(String, Entry)>,
    metadata: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// A map that may not name anything twice; serde's own maps keep the last in silence.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an entry per tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
        let mut names = BTreeSet::new();
        let mut header = Header { tensors: Vec::new(), metadata: BTreeMap::new() };
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(de::Error::custom(format!("`{name}` comes twice")));
            }
            if name == METADATA {
                header.metadata = map.next_value()?;
            } else {
                let entry = map.next_value_seed(Named(&name))?;
                header.tensors.push((name, entry));
            }
        }
        Ok(header)
    }
}

/// An entry whose errors name its tensor.
struct Named<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Entry, D::Error> {
        <Entry as de::Deserialize>::deserialize(deserializer).map_err(|e| de::Error::custom(format!("tensor `{}`: {e}", self.0)))
    }
}

/// The header of a file, and the order in which the tensors follow it.
///
/// # Errors
/// If a name comes twice or is the format's own.
pub(crate) fn header(tensors: &[(String, RawTensor)], metadata: &BTreeMap<String, String>) -> Result<(Vec<u8>, Vec<usize>)> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&idx| std::cmp::Reverse(tensors[idx].1.dtype().size_bytes()));
    let mut names = BTreeSet::from([METADATA]);
    let mut text = String::from("{");
    if !metadata.is_empty() {
        text.push_str(&format!("\"{METADATA}\":{}", json!(metadata)));
    }
    let mut start = 0;
    for &idx in &order {
        let (name, tensor) = &tensors[idx];
        if !names.insert(name) {
            return Err(Error::config("name", "different for every tensor", format!("`{name}` twice")));
        }
        let end = start + tensor.bytes().len();
        let separator = if text.len() > 1 { "," } else { "" };
        let (name, dtype, shape) = (json!(name), tensor.dtype().name(), tensor.shape());
        text.push_str(&format!("{separator}{name}:{{\"dtype\":\"{dtype}\",\"shape\":{},\"data_offsets\":[{start},{end}]}}", json!(shape)));
        start = end;
    }
    text.push('}');
    let mut text = text.into_bytes();
    // Data that begin at a multiple of eight are aligned for every dtype.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    Ok((header, order))
}

/// Writes a file: the header that [`header`] made, and the tensors.
pub(crate) fn write(out: &mut dyn Write, header: &[u8], order: &[usize], tensors: &[(String, RawTensor)]) -> io::Result<()> {
    out.write_all(header)?;
    order.iter().try_for_each(|&idx| tensors[idx].1.write_to(out))
}
