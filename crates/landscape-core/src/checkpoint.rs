//! Checkpoints: named tensors in a safetensors file that describes itself.
//!
//! The metadata is one canonical JSON text under the one key [`METADATA_KEY`]; see [`crate::metadata`].
//! Nothing in a file is trusted: every size is checked against the file's own before anything is allocated.

use crate::container;
use crate::error::{Error, Result};
use crate::foreign::Mapping;
use crate::layout::ParamLayout;
use crate::params::{Buffers, Flat};
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

    fn read_from(from: impl io::Read, size_bytes: u64, path: &Path) -> Result<Self> {
        let contents = container::read(from, size_bytes, path)?;
        let metadata = contents.metadata.get(METADATA_KEY).map(|text| Metadata::from_json(text)).transpose();
        let metadata = metadata.map_err(|reason| Error::Format { path: path.to_owned(), reason: format!("metadata: {reason}") })?;
        Ok(Checkpoint { tensors: contents.tensors, metadata })
    }

    /// Writes a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// As [`whole::write`]; [`Error::Config`] if a name comes twice or is `__metadata__`.
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
        ParamLayout::of_graph(graph)?.check_same("the network", params.layout(), "the parameters")?;
        ParamLayout::of_graph_buffers(graph)?.check_same("the network", buffers.layout(), "the statistics")?;
        let mut tensors = Vec::new();
        for declaration in graph.state_dict() {
            let name = declaration.name;
            let values: Vec<f64> = match buffers.get(&name) {
                Some(values) => values.to_vec(),
                None => params.tensor(&name)?.host().iter().map(|value| value.to_f64()).collect(),
            };
            let usual = if declaration.role == Role::NumBatchesTracked { Dtype::I64 } else { Dtype::of::<T>() };
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
        let mut values = Vec::with_capacity(layout.n_elements());
        for (spec, tensor) in layout.tensors().iter().zip(self.select(layout)?) {
            if !tensor.dtype().is_float() {
                let reason = format!("weights must be floating-point numbers, got {}", tensor.dtype());
                return Err(Error::Tensor { tensor: spec.name.clone(), reason });
            }
            values.extend(tensor.to::<T>());
        }
        Flat::from_vec(layout, &Device::Cpu, values)
    }

    /// The statistics of `graph`. Counts of batches may be missing, as in files of old PyTorch versions: they are 0 then.
    ///
    /// # Errors
    /// [`Error::Layout`] with every statistic that is missing or has another shape.
    pub fn buffers(&self, graph: &Graph) -> Result<Buffers> {
        let mut buffers = Buffers::of_graph(graph)?;
        let wanted = graph
            .buffers()
            .into_iter()
            .filter(|d| d.role != Role::NumBatchesTracked || self.get(&d.name).is_some())
            .map(|d| (d.name, d.shape));
        let layout = ParamLayout::new(wanted)?;
        for (spec, tensor) in layout.tensors().iter().zip(self.select(&layout)?) {
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
