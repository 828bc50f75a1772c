//! Checkpoints: named tensors in a safetensors file that describes itself.
//!
//! The metadata is one canonical JSON text under the one key [`METADATA_KEY`]; see [`crate::metadata`].
//! Nothing in a file is trusted: every size is checked against the file's own before anything is allocated.

use crate::container;
use crate::error::{Error, Result};
use crate::foreign::Mapping;
use crate::hash::HashWriter;
use crate::layout::ParamLayout;
use crate::mapped::MappedFile;
use crate::params::{Buffers, Flat};
use crate::stored::StoredPoint;
use crate::tensor::{Dtype, RawTensor};
use crate::whole::{self, Overwrite};
use landscape_graph::{Graph, Role};
use landscape_kernels::{Device, Real};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

pub use crate::metadata::{DataIdentity, Metadata, Normalization, PointOrigin};

/// The only key of our metadata in a safetensors file.
pub const METADATA_KEY: &str = "landscape";

/// Named tensors in order, and what they tell about themselves.
///
/// ```
/// use landscape_core::checkpoint::Checkpoint;
/// use landscape_core::tensor::{Dtype, RawTensor};
/// use landscape_core::whole::Overwrite;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("net.safetensors");
/// let weight = RawTensor::from_f64(Dtype::F32, vec![2, 1], &[0.5, -1.0])?;
/// let checkpoint = Checkpoint { tensors: vec![("fc.weight".to_owned(), weight)], metadata: None };
/// checkpoint.write(&path, Overwrite::Refuse)?;
/// assert_eq!(Checkpoint::read(&path)?, checkpoint);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The tensors. In a file they stand in this order among those of equal element size, the largest size first.
    pub tensors: Vec<(String, RawTensor)>,
    /// What the file tells; `None` for files that are not ours.
    pub metadata: Option<Metadata>,
}

/// The element type of each tensor, by name; what is not named has the type of the weights in memory, counts 64-bit integers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dtypes(pub BTreeMap<String, Dtype>);

impl Checkpoint {
    /// Reads a safetensors file.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Format`] naming the tensor, if the file is truncated, corrupt or of another format.
    pub fn read(path: &Path) -> Result<Self> {
        let (file, size_bytes) = open(path)?;
        Self::read_from(BufReader::new(file), size_bytes, path)
    }

    /// Reads a safetensors file that is in memory already; `path` is for messages only.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        Self::read_from(bytes, bytes.len() as u64, path)
    }

    /// A safetensors file whose tensors stay on disk and are read from there when they are asked for.
    ///
    /// The file must not change as long as the checkpoint, or a [`StoredPoint`] made from it, is in use: what is read then is
    /// unspecified, and reading from a file that became shorter ends the process.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; [`Error::Read`] also where the system cannot map files.
    pub fn map(path: &Path) -> Result<Self> {
        Self::from_contents(container::map(&MappedFile::open(path)?, path)?, path)
    }

    fn read_from(from: impl io::Read, size_bytes: u64, path: &Path) -> Result<Self> {
        Self::from_contents(container::read(from, size_bytes, path)?, path)
    }

    fn from_contents(contents: container::Contents, path: &Path) -> Result<Self> {
        let metadata = contents.metadata.get(METADATA_KEY).map(|text| Metadata::from_json(text)).transpose();
        let metadata = metadata.map_err(|reason| Error::Format { path: path.to_owned(), reason: format!("metadata: {reason}") })?;
        Ok(Checkpoint { tensors: contents.tensors, metadata })
    }

    /// Writes a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// As [`whole::write()`]; [`Error::Config`] if a name comes twice or is `__metadata__`.
    pub fn write(&self, path: &Path, overwrite: Overwrite) -> Result<()> {
        let (header, order) = self.header()?;
        whole::write_with(path, overwrite, |out| container::write(out, &header, &order, &self.tensors))
    }

    /// The bytes that [`Checkpoint::write`] writes.
    ///
    /// # Errors
    /// [`Error::Config`] if a name comes twice or is `__metadata__`.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (header, order) = self.header()?;
        let mut bytes = Vec::new();
        container::write(&mut bytes, &header, &order, &self.tensors).expect("writing to memory does not fail");
        Ok(bytes)
    }

    /// The SHA-256 of the bytes that [`Checkpoint::write`] writes, which are not held in memory for it.
    ///
    /// # Errors
    /// [`Error::Config`] if a name comes twice or is `__metadata__`.
    pub fn sha256_hex(&self) -> Result<String> {
        let (header, order) = self.header()?;
        let mut hash = HashWriter::default();
        container::write(&mut hash, &header, &order, &self.tensors).expect("hashing does not fail");
        Ok(hash.hex())
    }

    fn header(&self) -> Result<(Vec<u8>, Vec<usize>)> {
        let metadata = self.metadata.iter().map(|m| (METADATA_KEY.to_owned(), m.to_json())).collect();
        container::header(&self.tensors, &metadata)
    }

    /// A network's parameters and statistics as a checkpoint, in state-dict order.
    ///
    /// # Errors
    /// If `params` or `buffers` are not those of `graph`, or a value does not fit its element type.
    pub fn from_parts<T: Real>(
        graph: &Graph,
        params: &Flat<T>,
        buffers: &Buffers,
        dtypes: &Dtypes,
        metadata: Option<Metadata>,
    ) -> Result<Self> {
        let parts = |name: &str| Ok(Part::Values(params.tensor(name)?.read()?.iter().map(|value| value.to_f64()).collect()));
        Self::assemble(graph, params.layout(), &parts, Dtype::of::<T>(), buffers, dtypes, metadata)
    }

    /// The same of parameters that stay on disk: the bytes of the file that [`Checkpoint::from_parts`] makes of the point in memory.
    ///
    /// # Errors
    /// As [`Checkpoint::from_parts`].
    pub fn from_stored<T: Real>(
        graph: &Graph,
        params: &StoredPoint<T>,
        buffers: &Buffers,
        dtypes: &Dtypes,
        metadata: Option<Metadata>,
    ) -> Result<Self> {
        let missing = |name: &str| Error::MissingTensor { tensor: name.to_owned(), place: "the parameters".to_owned() };
        let parts = |name: &str| Ok(Part::Stored(params.tensor(name).ok_or_else(|| missing(name))??));
        Self::assemble(graph, params.layout(), &parts, Dtype::of::<T>(), buffers, dtypes, metadata)
    }

    fn assemble(
        graph: &Graph,
        params: &ParamLayout,
        part: &dyn Fn(&str) -> Result<Part>,
        float: Dtype,
        buffers: &Buffers,
        dtypes: &Dtypes,
        metadata: Option<Metadata>,
    ) -> Result<Self> {
        ParamLayout::of_graph(graph)?.check_same("the network", params, "the parameters")?;
        ParamLayout::of_graph_buffers(graph)?.check_same("the network", buffers.layout(), "the statistics")?;
        let mut tensors = Vec::new();
        for declaration in graph.state_dict() {
            let name = declaration.name;
            let values: Vec<f64> = match buffers.get(&name) {
                Some(values) => values.to_vec(),
                None => match part(&name)? {
                    Part::Stored(tensor) => {
                        tensors.push((name, tensor));
                        continue;
                    }
                    Part::Values(values) => values,
                },
            };
            let usual = if declaration.role == Role::NumBatchesTracked { Dtype::I64 } else { float };
            let dtype = dtypes.0.get(&name).copied().unwrap_or(usual);
            let tensor = RawTensor::from_f64(dtype, declaration.shape, &values)
                .map_err(|e| Error::Tensor { tensor: name.clone(), reason: e.to_string() })?;
            tensors.push((name, tensor));
        }
        Ok(Checkpoint { tensors, metadata })
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&RawTensor> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor)
    }

    /// The element types, to write a checkpoint like this one.
    pub fn dtypes(&self) -> Dtypes {
        Dtypes(self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dtype())).collect())
    }

    /// The tensors that `layout` names, as one point.
    ///
    /// # Errors
    /// [`Error::Layout`] with every tensor that is missing or has another shape, [`Error::Tensor`] for one of whole numbers.
    pub fn params<T: Real>(&self, layout: &Arc<ParamLayout>) -> Result<Flat<T>> {
        // Memory is taken after the file was seen to hold that much.
        let tensors = self.weights(layout)?;
        let mut values = Vec::with_capacity(layout.n_elements());
        for tensor in tensors {
            values.extend(tensor.to::<T>());
        }
        Flat::from_vec(layout, &Device::Cpu, values)
    }

    /// The tensors of `layout`, in its order, which must be floating-point numbers.
    pub(crate) fn weights(&self, layout: &ParamLayout) -> Result<Vec<&RawTensor>> {
        let tensors = self.select(layout)?;
        for (spec, tensor) in layout.tensors().iter().zip(&tensors) {
            if !tensor.dtype().is_float() {
                let reason = format!("weights must be floating-point numbers, got {}", tensor.dtype());
                return Err(Error::Tensor { tensor: spec.name.clone(), reason });
            }
        }
        Ok(tensors)
    }

    /// The statistics of `graph`. Counts of batches may be missing, as in files of old PyTorch versions: they are 0 then.
    ///
    /// # Errors
    /// [`Error::Layout`] with every statistic that is missing or has another shape.
    pub fn buffers(&self, graph: &Graph) -> Result<Buffers> {
        let wanted = graph
            .buffers()
            .into_iter()
            .filter(|d| d.role != Role::NumBatchesTracked || self.get(&d.name).is_some())
            .map(|d| (d.name, d.shape));
        let layout = ParamLayout::new(wanted)?;
        let tensors = self.select(&layout)?;
        let mut buffers = Buffers::of_graph(graph)?;
        for (spec, tensor) in layout.tensors().iter().zip(tensors) {
            buffers.get_mut(&spec.name).expect("the layout was made from this graph").copy_from_slice(&tensor.to_f64_vec());
        }
        Ok(buffers)
    }

    /// The tensors of `layout`, in its order.
    fn select(&self, layout: &ParamLayout) -> Result<Vec<&RawTensor>> {
        let by_name: BTreeMap<&str, &RawTensor> = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let (mut found, mut differences) = (Vec::new(), Vec::new());
        for spec in layout.tensors() {
            match by_name.get(spec.name.as_str()) {
                None => differences.push(format!("`{}` {:?} is missing from the checkpoint", spec.name, spec.shape)),
                Some(tensor) if tensor.shape() != spec.shape => {
                    let got = tensor.shape();
                    differences.push(format!("`{}` is {:?} in the network and {got:?} in the checkpoint", spec.name, spec.shape));
                }
                Some(tensor) => found.push(*tensor),
            }
        }
        if differences.is_empty() {
            return Ok(found);
        }
        Err(Error::Layout { left: "the network".to_owned(), right: "the checkpoint".to_owned(), differences })
    }

    /// The same tensors under new names, in the order of the mapping; those that it does not name are left out.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if one that it names is not there.
    pub fn renamed(&self, mapping: &Mapping) -> Result<Self> {
        let by_name: BTreeMap<&str, &RawTensor> = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let tensors = mapping.pairs.iter().map(|(from, to)| {
            let missing = || Error::MissingTensor { tensor: from.clone(), place: "the checkpoint".to_owned() };
            Ok((to.clone(), (*by_name.get(from.as_str()).ok_or_else(missing)?).clone()))
        });
        Ok(Checkpoint { tensors: tensors.collect::<Result<_>>()?, metadata: self.metadata.clone() })
    }

    /// Fails on the first NaN or infinity in any tensor, statistics included.
    ///
    /// # Errors
    /// [`Error::NotFinite`], naming tensor and element.
    pub fn check_finite(&self) -> Result<()> {
        for (name, tensor) in &self.tensors {
            if let Some((idx, value)) = tensor.first_not_finite() {
                return Err(Error::NotFinite { tensor: name.clone(), idx, value });
            }
        }
        Ok(())
    }
}

/// A parameter on its way into a checkpoint.
enum Part {
    /// To be written in the element type that is asked for.
    Values(Vec<f64>),
    /// As it is.
    Stored(RawTensor),
}

/// Opens a regular file, with its size.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    // A pipe or a device has no size to check against, and opening a pipe waits for its other end.
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() {
        let what = if found.is_dir() { "it is a folder, expected a file" } else { "it is no regular file" };
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, what)));
    }
    let file = File::open(path).map_err(unreadable)?;
    let size_bytes = file.metadata().map_err(unreadable)?.len();
    Ok((file, size_bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use landscape_graph::{Bias, Conv2d, GraphBuilder};

    fn graph() -> Graph {
        let mut b = GraphBuilder::new([1, 4, 4]);
        let x = b.conv2d("conv", b.input(), Conv2d::new(2, 3)).unwrap();
        let x = b.batch_norm("bn", x).unwrap();
        let x = b.flatten("flatten", x).unwrap();
        let x = b.linear("fc", x, 3, Bias::On).unwrap();
        b.finish(x).unwrap()
    }

    fn parts(graph: &Graph) -> (Flat<f32>, Buffers) {
        let layout = Arc::new(ParamLayout::of_graph(graph).unwrap());
        let values = (0..layout.n_elements()).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut buffers = Buffers::of_graph(graph).unwrap();
        buffers.get_mut("bn.running_mean").unwrap().copy_from_slice(&[0.25, -1.5]);
        buffers.get_mut("bn.num_batches_tracked").unwrap()[0] = 17.0;
        (Flat::from_vec(&layout, &Device::Cpu, values).unwrap(), buffers)
    }

    fn checkpoint() -> Checkpoint {
        let graph = graph();
        let (params, buffers) = parts(&graph);
        let metadata = Metadata { graph: Some(graph.clone()), seed: Some(3), ..Metadata::default() };
        Checkpoint::from_parts(&graph, &params, &buffers, &Dtypes::default(), Some(metadata)).unwrap()
    }

    #[test]
    fn parts_come_back_from_the_file_with_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let (graph, checkpoint) = (graph(), checkpoint());
        let (params, buffers) = parts(&graph);
        let path = folder.path().join("net.safetensors");
        checkpoint.write(&path, Overwrite::Refuse).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), checkpoint.to_bytes().unwrap());
        let read = Checkpoint::read(&path).unwrap();
        assert_eq!(read.metadata, checkpoint.metadata);
        let found = read.params::<f32>(params.layout()).unwrap();
        assert_eq!(found.to_vec(), params.to_vec());
        assert_eq!(read.buffers(&graph).unwrap(), buffers);
        assert_eq!(read.get("bn.num_batches_tracked").unwrap().dtype(), Dtype::I64);
        assert_eq!(read.get("bn.running_var").unwrap().dtype(), Dtype::F32);
        assert_eq!(read.get("conv.weight").unwrap().shape(), [2, 1, 3, 3]);
        // What was read writes the same bytes again.
        assert_eq!(read.to_bytes().unwrap(), checkpoint.to_bytes().unwrap());
    }

    #[test]
    fn the_crate_of_the_format_reads_our_files_and_we_read_its() {
        let checkpoint = checkpoint();
        let bytes = checkpoint.to_bytes().unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(theirs.len(), checkpoint.tensors.len());
        for (name, tensor) in &checkpoint.tensors {
            let view = theirs.tensor(name).unwrap();
            assert_eq!((view.shape(), view.data()), (tensor.shape(), tensor.bytes()), "{name}");
            assert_eq!(format!("{:?}", view.dtype()), tensor.dtype().name());
            assert_eq!(
                view.data().as_ptr() as usize % 8 % tensor.dtype().size_bytes(),
                bytes.as_ptr() as usize % tensor.dtype().size_bytes()
            );
        }
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let keys: Vec<&String> = header.metadata().as_ref().unwrap().keys().collect();
        assert_eq!(keys, [METADATA_KEY]);
        let written = safetensors::serialize(theirs.tensors(), None).unwrap();
        let read = Checkpoint::from_bytes(&written, Path::new("theirs")).unwrap();
        assert_eq!(read.metadata, None);
        assert_eq!(read.tensors.len(), checkpoint.tensors.len());
        for (name, tensor) in &read.tensors {
            assert_eq!(Some(tensor), checkpoint.get(name));
        }
    }

    #[test]
    fn dtypes_are_kept_and_what_does_not_fit_is_named() {
        let graph = graph();
        let (mut params, mut buffers) = parts(&graph);
        let mut dtypes = checkpoint().dtypes();
        dtypes.0.insert("fc.weight".to_owned(), Dtype::F16);
        dtypes.0.insert("bn.running_var".to_owned(), Dtype::F64);
        let checkpoint = Checkpoint::from_parts(&graph, &params, &buffers, &dtypes, None).unwrap();
        assert_eq!(checkpoint.dtypes(), dtypes);
        let idx = params.layout().get("fc.weight").unwrap().offset;
        params.view_mut().host()[idx] = 1e6;
        let message = Checkpoint::from_parts(&graph, &params, &buffers, &dtypes, None).unwrap_err().to_string();
        assert!(message.contains("`fc.weight`") && message.contains("F16"), "{message}");
        buffers.get_mut("bn.num_batches_tracked").unwrap()[0] = 0.5;
        let message = Checkpoint::from_parts(&graph, &params, &buffers, &Dtypes::default(), None).unwrap_err().to_string();
        assert!(message.contains("`bn.num_batches_tracked`"), "{message}");
    }

    #[test]
    fn every_difference_to_a_layout_is_listed() {
        let checkpoint = checkpoint();
        let wanted = [("fc.weight".to_owned(), vec![3, 9]), ("absent".to_owned(), vec![1]), ("fc.bias".to_owned(), vec![3])];
        let layout = Arc::new(ParamLayout::new(wanted).unwrap());
        let message = checkpoint.params::<f64>(&layout).unwrap_err().to_string();
        for part in ["`fc.weight` is [3, 9] in the network and [3, 8]", "`absent` [1] is missing"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("fc.bias"));
        let count = Arc::new(ParamLayout::new([("bn.num_batches_tracked".to_owned(), vec![])]).unwrap());
        assert!(checkpoint.params::<f64>(&count).unwrap_err().to_string().contains("I64"));
    }

    #[test]
    fn missing_counts_are_zero_and_missing_statistics_errors() {
        let graph = graph();
        let mut checkpoint = checkpoint();
        checkpoint.tensors.retain(|(name, _)| name != "bn.num_batches_tracked");
        assert_eq!(checkpoint.buffers(&graph).unwrap().get("bn.num_batches_tracked").unwrap(), [0.0]);
        checkpoint.tensors.retain(|(name, _)| name != "bn.running_mean");
        assert!(checkpoint.buffers(&graph).unwrap_err().to_string().contains("`bn.running_mean`"));
    }

    #[test]
    fn numbers_that_are_not_finite_are_named() {
        let graph = graph();
        let (mut params, buffers) = parts(&graph);
        checkpoint().check_finite().unwrap();
        let idx = params.layout().get("fc.bias").unwrap().offset + 2;
        params.view_mut().host()[idx] = f32::NEG_INFINITY;
        let checkpoint = Checkpoint::from_parts(&graph, &params, &buffers, &Dtypes::default(), None).unwrap();
        let error = checkpoint.check_finite().unwrap_err();
        assert!(matches!(&error, Error::NotFinite { tensor, idx: 2, .. } if tensor == "fc.bias"), "{error}");
    }

    /// A file with this header and that much data.
    fn file(header: &str, n_data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; n_data]].concat()
    }

    #[test]
    fn files_that_are_wrong_are_described() {
        let entry = |dtype: &str, shape: &str, start: u64, end: u64| {
            format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
        };
        let one = |entry: String| format!(r#"{{"fc.weight":{entry}}}"#);
        let cases = [
            (file(&one(entry("F32", "[2]", 0, 8)), 7), "tensor `fc.weight`: its data end at 8"),
            (file(&one(entry("F32", "[2]", 0, 8)), 9), "the tensors end at 8"),
            (file(&one(entry("F32", "[3]", 0, 8)), 8), "tensor `fc.weight`: shape [3] of F32 needs 12 bytes"),
            (file(&one(entry("F32", "[2]", 8, 0)), 8), "tensor `fc.weight`"),
            (file(&one(entry("F32", "[2]", 4, 12)), 12), "begin at 4, expected 0"),
            (file(&one(entry("F8_E4M3", "[8]", 0, 8)), 8), "`F8_E4M3`"),
            (file(&one(entry("F32", "[4294967296,4294967296]", 0, 8)), 8), "larger than any machine"),
            (file(&one(entry("U8", "[2305843009213693951]", 0, 2305843009213693951)), 8), "truncated"),
            (file(&one(entry("F32", "[-2]", 0, 8)), 8), "tensor `fc.weight`"),
            (file(&one(r#"{"dtype":"F32"}"#.to_owned()), 8), "tensor `fc.weight`: missing field"),
            (file(&format!(r#"{{"a":{0},"a":{0}}}"#, entry("U8", "[0]", 0, 0)), 0), "`a` comes twice"),
            (file("{", 0), "safetensors header"),
            (file("[]", 0), "safetensors header"),
            (file("{}x", 0), "safetensors header"),
            (file("\u{e9}", 0)[..9].to_vec(), "declares a header of 2 bytes, expected at most 1"),
            ([8u64.to_le_bytes().as_slice(), &[0xff; 8]].concat(), "UTF-8"),
            (u64::MAX.to_le_bytes().to_vec(), "declares a header"),
            (vec![0; 7], "7 bytes"),
            (file(&format!(r#"{{"__metadata__":{{"{METADATA_KEY}":"{{}}"}}}}"#), 0), "metadata: `format_version`"),
        ];
        for (bytes, part) in cases {
            let message = Checkpoint::from_bytes(&bytes, Path::new("some.safetensors")).unwrap_err().to_string();
            assert!(message.contains("`some.safetensors`") && message.contains(part), "expected `{part}` in: {message}");
        }
        // Eight tensors whose ends come near 2^64: sums of offsets must not overflow.
        let size = (1u64 << 61) - 1;
        let many: Vec<String> =
            (0..8).map(|i| format!(r#""t{i}":{}"#, entry("U8", &format!("[{size}]"), i * size, (i + 1) * size))).collect();
        assert!(Checkpoint::from_bytes(&file(&format!("{{{}}}", many.join(",")), 0), Path::new("x")).is_err());
        assert!(Checkpoint::from_bytes(&file("{}", 0), Path::new("x")).unwrap().tensors.is_empty());
    }

    #[test]
    fn names_that_clash_are_not_written() {
        let tensor = RawTensor::from_f64(Dtype::F32, vec![1], &[0.0]).unwrap();
        for names in [["a", "a"], ["a", "__metadata__"]] {
            let tensors = names.map(|n| (n.to_owned(), tensor.clone())).to_vec();
            assert!(matches!(Checkpoint { tensors, metadata: None }.to_bytes().unwrap_err(), Error::Config { .. }));
        }
    }

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("absent")] {
            assert!(matches!(Checkpoint::read(&path).unwrap_err(), Error::Read { path: named, .. } if named == path));
        }
    }
}
