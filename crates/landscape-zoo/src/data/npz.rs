//! Own data: a NumPy archive of four arrays, as `numpy.savez` or `numpy.savez_compressed` writes it.
//!
//! | array | shape | dtype |
//! |---|---|---|
//! | `x_train`, `x_test` | `[n, features]`, `[n, h, w]` (one channel) or `[n, c, h, w]` | `u8`: divided by 255; `f16`, `f32`, `f64`: left as they are |
//! | `y_train`, `y_test` | `[n]` or `[n, 1]` integers of any width, or booleans | class labels from 0; there are 1 + the largest classes |
//! | | `[n]` or `[n, k]` floats | k regression targets per example, or with `--loss binary-cross-entropy` labels from 0 to 1 |
//!
//! Tokens are integers of two bytes and more in `x`, `[n, places]`, from 0. Their `y` is a label per example as above, or `[n, places]`
//! integers, a label at each place, of which -100 counts for nothing (as in PyTorch); classes are then as many as tokens and labels have.
//!
//! Row- or column-major, little- or big-endian. Other arrays in the archive are left alone. Numbers must be finite and within the range
//! of single precision.

use super::dataset::{Dataset, Inputs, Split, SplitTargets};
use super::npy::{Elements, Kind, read_header};
use super::source::{self, MAX_DEFLATE_RATIO};
use crate::error::{Error, Result};
use landscape_kernels::loss::IGNORED;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive, result::ZipError};

/// More classes than any data set has; a label beyond is a mistake that must not become a network of that width.
const MAX_CLASSES: usize = 1 << 20;

/// Reads the archive at `path`; the module says what it holds.
///
/// # Errors
/// If the archive is damaged, an array is missing, of another shape or dtype, empty, or longer or shorter than its header says, if
/// numbers of examples or widths differ, if a label is negative, or if a number is not finite.
pub fn open(path: &Path) -> Result<Dataset> {
    let file = File::open(path).map_err(|source| Error::read(path, source))?;
    let n_file_bytes = file.metadata().map_err(|source| Error::read(path, source))?.len();
    read(path, BufReader::new(file), n_file_bytes)
}

/// Reads an archive of `n_file_bytes`.
pub(crate) fn read<R: Read + Seek>(path: &Path, reader: R, n_file_bytes: u64) -> Result<Dataset> {
    let mut archive = ZipArchive::new(reader).map_err(|e| Error::format(path, "an .npz archive (zip)", e.to_string()))?;
    let mut array = |name| array(path, &mut archive, n_file_bytes, name);
    let arrays = [array("x_train")?, array("y_train")?, array("x_test")?, array("y_test")?];
    let [x_train, y_train, x_test, y_test] = arrays;
    let kind = |y: &Array| if matches!(y.elements, Elements::F32(_) | Elements::F64(_)) { "regression targets" } else { "class labels" };
    if kind(&y_train) != kind(&y_test) {
        return Err(y_test.error(path, format!("{} as in `y_train`", kind(&y_train)), kind(&y_test)));
    }
    let (x_test_shape, y_test_shape) = (x_test.shape.clone(), y_test.shape.clone());
    let train = split(path, x_train, y_train)?;
    let test = split(path, x_test, y_test)?;
    let fault = |array: &str, expected: String, found: String| {
        Err(Error::Array { path: path.to_owned(), array: array.to_owned(), expected, found })
    };
    if test.input_shape != train.input_shape {
        return fault("x_test", format!("examples of shape {:?} as in `x_train`", train.input_shape), format!("shape {x_test_shape:?}"));
    }
    let kinds = [&train, &test].map(|split| match split.inputs {
        Inputs::U8(_) => "bytes",
        Inputs::F32(_) | Inputs::F64(_) => "floats",
        Inputs::Tokens(_) => "tokens",
    });
    if let [expected, found] = kinds
        && expected != found
    {
        return fault("x_test", format!("{expected} as in `x_train`"), found.to_owned());
    }
    let n_classes = match (&train.targets, &test.targets) {
        (SplitTargets::Values { n_outputs: expected, .. }, SplitTargets::Values { n_outputs: found, .. }) if expected != found => {
            return fault("y_test", format!("{expected} numbers per example as in `y_train`"), format!("shape {y_test_shape:?}"));
        }
        (SplitTargets::Classes(train), SplitTargets::Classes(test)) => {
            let max = train.iter().chain(test).max().map_or(0, |&max| max as usize);
            if max == 0 {
                return fault("y_train", "labels of at least two classes".into(), "no label but 0".into());
            }
            Some(max + 1)
        }
        (SplitTargets::Places { labels: train_labels, .. }, SplitTargets::Places { labels: test_labels, .. }) => {
            let tokens = |split: &Split| if let Inputs::Tokens(tokens) = &split.inputs { tokens.iter().max().copied() } else { None };
            let labels = train_labels.iter().chain(test_labels).filter(|&&label| label != IGNORED).max().copied();
            Some(labels.max(tokens(&train)).max(tokens(&test)).map_or(0, |max| max as usize) + 1)
        }
        (SplitTargets::Classes(_), SplitTargets::Places { .. }) | (SplitTargets::Places { .. }, SplitTargets::Classes(_)) => {
            return fault("y_test", "one label per example, or per place, as in `y_train`".into(), format!("shape {y_test_shape:?}"));
        }
        _ => None,
    };
    Dataset::new("npz", n_classes, train, test)
}

/// An array of the archive.
struct Array {
    name: &'static str,
    shape: Vec<usize>,
    elements: Elements,
}

impl Array {
    fn error(&self, path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Array { path: path.to_owned(), array: self.name.to_owned(), expected: expected.into(), found: found.into() }
    }
}

/// Reads one array; nothing is allocated before the header agrees with the entry and the entry with the file.
fn array<R: Read + Seek>(path: &Path, archive: &mut ZipArchive<R>, n_file_bytes: u64, name: &'static str) -> Result<Array> {
    let fault = |expected: String, found: String| Error::Array { path: path.to_owned(), array: name.to_owned(), expected, found };
    let names = archive.file_names().flatten().take(20).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let mut entry = archive.by_name(&format!("{name}.npy")).map_err(|error| match error {
        ZipError::FileNotFound => fault("arrays `x_train`, `y_train`, `x_test` and `y_test`".into(), format!("entries {names}")),
        other => fault("a readable entry".into(), other.to_string()),
    })?;
    let (n_entry_bytes, n_packed_bytes) = (entry.size(), entry.compressed_size());
    let ratio = if entry.compression() == CompressionMethod::Stored { 1 } else { MAX_DEFLATE_RATIO };
    if n_packed_bytes > n_file_bytes || n_entry_bytes > n_packed_bytes.saturating_mul(ratio) {
        let found = format!("{n_entry_bytes} bytes packed into {n_packed_bytes} in a file of {n_file_bytes}");
        return Err(fault("sizes that a file of this size can hold".into(), found));
    }
    let header = read_header(&mut entry).map_err(|(expected, found)| fault(expected, found))?;
    let refused = matches!((header.kind, header.n_item_bytes), (Kind::Bool, _) | (Kind::Signed, 1));
    if name.starts_with('x') && refused {
        return Err(fault("dtype u8, f16, f32 or f64, or integers of two bytes and more".into(), format!("`{}`", header.dtype)));
    }
    if header.shape.contains(&0) || header.shape.is_empty() {
        return Err(fault("at least one example of at least one number".into(), format!("shape {:?}", header.shape)));
    }
    let n_data_bytes = n_entry_bytes.saturating_sub(header.n_header_bytes as u64);
    if header.n_data_bytes as u64 != n_data_bytes {
        let expected = format!("{} bytes for shape {:?} of dtype `{}`", header.n_data_bytes, header.shape, header.dtype);
        return Err(fault(expected, format!("{n_data_bytes} bytes in the archive")));
    }
    let data = source::read_rest(path, &format!("array `{name}`"), &mut entry, header.n_data_bytes)?;
    let elements = header.decode(data);
    Ok(Array { name, shape: header.shape, elements })
}

fn split(path: &Path, x: Array, y: Array) -> Result<Split> {
    let n_examples = x.shape[0];
    let input_shape = match x.shape[1..] {
        [features] => vec![features],
        [h, w] => vec![1, h, w],
        [c, h, w] => vec![c, h, w],
        _ => return Err(x.error(path, "shape [n, features], [n, h, w] or [n, c, h, w]", format!("shape {:?}", x.shape))),
    };
    if y.shape[0] != n_examples {
        return Err(y.error(path, format!("{n_examples} targets, one per example of `{}`", x.name), format!("shape {:?}", y.shape)));
    }
    check_finite(path, &x)?;
    check_finite(path, &y)?;
    let integers = match &y.elements {
        Elements::U8(values) => Some(values.iter().map(|&v| i128::from(v)).collect()),
        Elements::Integers(values) => Some(values.clone()),
        _ => None,
    };
    let targets = match (integers, &y.elements, &y.shape[1..]) {
        (Some(labels), _, [] | [1]) => SplitTargets::Classes(classes(path, &y, &labels)?),
        (Some(labels), _, &[n_places]) if matches!(x.elements, Elements::Integers(_)) => {
            let ignored = |label: i128| if label == -100 { None } else { Some(label) };
            let known: Vec<i128> = labels.iter().copied().map(|label: i128| ignored(label).unwrap_or(0)).collect();
            let known = classes(path, &y, &known)?;
            let labels = labels.iter().zip(known).map(|(&label, known)| ignored(label).map_or(IGNORED, |_| known)).collect();
            SplitTargets::Places { n_places, labels }
        }
        (Some(_), _, _) => return Err(y.error(path, "labels of shape [n] or [n, 1]", format!("shape {:?}", y.shape))),
        (None, Elements::F32(values), [] | [_]) => {
            SplitTargets::Values { n_outputs: values.len() / n_examples, values: values.iter().map(|&v| f64::from(v)).collect() }
        }
        (None, Elements::F64(values), [] | [_]) => SplitTargets::Values { n_outputs: values.len() / n_examples, values: values.clone() },
        _ => return Err(y.error(path, "targets of shape [n] or [n, k]", format!("shape {:?}", y.shape))),
    };
    let (inputs, divisor) = match x.elements {
        Elements::U8(values) => (Inputs::U8(values), 255.0),
        Elements::F32(values) => (Inputs::F32(values), 1.0),
        Elements::F64(values) => (Inputs::F64(values), 1.0),
        Elements::Integers(ref tokens) if x.shape.len() == 2 => (Inputs::Tokens(classes(path, &x, tokens)?), 1.0),
        Elements::Integers(_) => return Err(x.error(path, "tokens of shape [n, places]", format!("shape {:?}", x.shape))),
    };
    Ok(Split { inputs, n_examples, input_shape, divisor, targets })
}

fn classes(path: &Path, array: &Array, values: &[i128]) -> Result<Vec<u32>> {
    let Some(idx) = values.iter().position(|&value| !(0..MAX_CLASSES as i128).contains(&value)) else {
        return Ok(values.iter().map(|&value| value as u32).collect());
    };
    let (what, n_per_row) = (if array.name.starts_with('x') { "token" } else { "label" }, array.shape[1..].iter().product::<usize>());
    let element = if n_per_row > 1 { format!(", element {}", idx % n_per_row) } else { String::new() };
    let found = format!("{what} {} at row {}{element}", values[idx], idx / n_per_row);
    Err(array.error(path, format!("{what}s from 0, below {MAX_CLASSES}"), found))
}

/// Every number must be finite, in single precision too.
fn check_finite(path: &Path, array: &Array) -> Result<()> {
    let bad = match &array.elements {
        Elements::F32(values) => values.iter().position(|v| !v.is_finite()).map(|idx| (idx, f64::from(values[idx]))),
        Elements::F64(values) => values.iter().position(|v| !(*v as f32).is_finite()).map(|idx| (idx, values[idx])),
        Elements::U8(_) | Elements::Integers(_) => None,
    };
    let n_per_row = array.shape[1..].iter().product::<usize>();
    match bad {
        None => Ok(()),
        Some((idx, value)) => {
            let found = format!("{value} at row {}, element {}", idx / n_per_row, idx % n_per_row);
            Err(array.error(path, "finite numbers in the range of single precision", found))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
