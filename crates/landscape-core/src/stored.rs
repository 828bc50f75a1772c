//! Points of weight space that stay in their file: endpoints that are larger than the memory one wants to spend on them.
//!
//! A stored point is never a vector in memory. [`crate::ControlPoints::blend_into`] reads it a panel at a time, where it stands and in the
//! element type of its file (bf16 goes to the kernel at half the bytes), with the bits of blending the point in memory.

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::layout::ParamLayout;
use crate::params::Flat;
use crate::tensor::{Dtype, RawTensor};
use landscape_kernels::blend::Row;
use landscape_kernels::{Device, Real, View, bytes};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// Elements that are read at once.
const PANEL: usize = if cfg!(test) { 1 << 12 } else { 1 << 20 };

/// A point whose tensors stay where they are.
#[derive(Debug, Clone)]
pub struct StoredPoint<T> {
    layout: Arc<ParamLayout>,
    /// In the order of the layout.
    tensors: Vec<RawTensor>,
    scalar: PhantomData<T>,
}

impl<T: Real> StoredPoint<T> {
    /// The tensors of a checkpoint that `layout` names; those of [`Checkpoint::map`] stay on disk.
    ///
    /// # Errors
    /// As [`Checkpoint::params`].
    pub fn new(checkpoint: &Checkpoint, layout: &Arc<ParamLayout>) -> Result<Self> {
        let tensors = checkpoint.weights(layout)?.into_iter().cloned().collect();
        Ok(StoredPoint { layout: layout.clone(), tensors, scalar: PhantomData })
    }

    /// The names and shapes.
    pub fn layout(&self) -> &Arc<ParamLayout> {
        &self.layout
    }

    /// The point in memory.
    pub fn read(&self) -> Flat<T> {
        let mut values = vec![T::ZERO; self.layout.n_elements()];
        for (idx, range) in panels(&self.layout) {
            let offset = self.layout.tensors()[idx].offset;
            self.tensors[idx].decode(range.clone(), &mut values[offset + range.start..offset + range.end]);
            self.release(idx, range);
        }
        Flat::from_vec(&self.layout, &Device::Cpu, values).expect("the vector was made for this layout")
    }

    /// Fails on the first NaN or infinity.
    ///
    /// # Errors
    /// [`Error::NotFinite`], naming tensor and element.
    pub fn check_finite(&self) -> Result<()> {
        let mut values = Vec::new();
        for (idx, range) in panels(&self.layout) {
            values.resize(range.len(), T::ZERO);
            self.tensors[idx].decode(range.clone(), &mut values);
            self.release(idx, range.clone());
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                let tensor = self.layout.tensors()[idx].name.clone();
                return Err(Error::NotFinite { tensor, idx: range.start + at, value: values[at].to_f64() });
            }
        }
        Ok(())
    }

    /// One tensor as it would be written with the values of this precision: as it is, unless it has more digits than `T`.
    pub(crate) fn tensor(&self, name: &str) -> Option<Result<RawTensor>> {
        let idx = self.layout.tensors().iter().position(|spec| spec.name == name)?;
        let tensor = &self.tensors[idx];
        if tensor.dtype().size_bytes() <= size_of::<T>() {
            return Some(Ok(tensor.clone()));
        }
        let values: Vec<f64> = tensor.to::<T>().into_iter().map(T::to_f64).collect();
        Some(RawTensor::from_f64(tensor.dtype(), tensor.shape().to_vec(), &values))
    }

    /// Elements `range` of tensor `idx`, as the kernels take them: where they stand if they can be read there, else in `scratch`.
    pub(crate) fn piece<'a>(&'a self, idx: usize, range: Range<usize>, scratch: &'a mut Vec<T>) -> Row<'a, T> {
        let tensor = &self.tensors[idx];
        let size = tensor.dtype().size_bytes();
        let stored = &tensor.bytes()[range.start * size..range.end * size];
        let in_place = match tensor.dtype() {
            dtype if dtype == Dtype::of::<T>() => bytes::as_floats(stored).map(|values| Row::Plain(View::Host(values))),
            Dtype::Bf16 => bytes::as_bf16(stored).map(|values| Row::Bf16(View::Host(values))),
            _ => None,
        };
        in_place.unwrap_or_else(|| {
            scratch.resize(range.len(), T::ZERO);
            tensor.decode(range, scratch);
            Row::Plain(View::Host(scratch))
        })
    }

    /// Gives back the memory that reading took.
    pub(crate) fn release(&self, idx: usize, range: Range<usize>) {
        self.tensors[idx].release(range);
    }
}

/// Every tensor of a layout in pieces of at most [`PANEL`] elements: (index of the tensor, elements of it).
pub(crate) fn panels(layout: &ParamLayout) -> impl Iterator<Item = (usize, Range<usize>)> {
    layout.tensors().iter().enumerate().flat_map(|(idx, spec)| {
        let n = spec.n_elements();
        (0..n).step_by(PANEL).map(move |start| (idx, start..(start + PANEL).min(n)))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::coefficients::Coefficients;
    use crate::control::{ControlPoints, Row};
    use crate::whole::Overwrite;
    use std::path::Path;

    fn layout() -> Arc<ParamLayout> {
        let shapes = [("a.weight", vec![7, 9]), ("a.bias", vec![7]), ("empty", vec![0, 3]), ("b.weight", vec![PANEL + 5])];
        Arc::new(ParamLayout::new(shapes.map(|(name, shape)| (name.to_owned(), shape))).unwrap())
    }

    /// A file with the tensors of `layout` in another order, of these dtypes in turn, beside others, with data that begin anywhere.
    fn write(path: &Path, layout: &ParamLayout, dtypes: &[Dtype], padding: usize) {
        let value = |i: usize| ((i * 37 + 11) % 1009) as f64 / 64.0 - 7.5;
        let mut entries = vec![("steps".to_owned(), RawTensor::from_f64(Dtype::I8, vec![3], &[1.0, 2.0, 3.0]).unwrap())];
        for (idx, spec) in layout.tensors().iter().enumerate().rev() {
            let values: Vec<f64> = (spec.offset..spec.offset + spec.n_elements()).map(value).collect();
            entries.push((spec.name.clone(), RawTensor::from_f64(dtypes[idx % dtypes.len()], spec.shape.clone(), &values).unwrap()));
        }
        // By hand, and not by our own writer, which aligns: a byte tensor comes first, so that nothing after it is aligned.
        let (mut header, mut data) = (String::from("{"), Vec::new());
        for (name, tensor) in &entries {
            let start = data.len();
            data.extend_from_slice(tensor.bytes());
            let (comma, end) = (if header.len() > 1 { "," } else { "" }, data.len());
            let (dtype, shape) = (tensor.dtype().name(), tensor.shape());
            header.push_str(&format!("{comma}\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"));
        }
        header.push('}');
        header.push_str(&" ".repeat(padding));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.append(&mut data);
        std::fs::write(path, bytes).unwrap();
    }

    fn bits<T: Real>(point: &Flat<T>) -> Vec<u64> {
        point.to_vec().into_iter().map(|v| v.to_f64().to_bits()).collect()
    }

    fn same_as_in_memory<T: Real>(dtypes: &[Dtype]) {
        let (folder, layout) = (tempfile::tempdir().unwrap(), layout());
        // Every alignment that data can have.
        for padding in 0..8 {
            let path = folder.path().join(format!("{padding}.safetensors"));
            write(&path, &layout, dtypes, padding);
            let (read, mapped) = (Checkpoint::read(&path).unwrap(), Checkpoint::map(&path).unwrap());
            assert_eq!(read, mapped);
            assert_eq!(mapped.sha256_hex().unwrap(), crate::hash::sha256_hex(&read.to_bytes().unwrap()));
            let params = read.params::<T>(&layout).unwrap();
            let stored = Arc::new(StoredPoint::<T>::new(&mapped, &layout).unwrap());
            assert_eq!(bits(&stored.read()), bits(&params));
            stored.check_finite().unwrap();
            let values = (0..layout.n_elements()).map(|i| T::from_f64((i as f64 * 0.11).sin())).collect();
            let bend = Flat::from_vec(&layout, &Device::Cpu, values).unwrap();
            let frozen = Row::Frozen(Arc::new(params));
            let in_memory = ControlPoints::new(vec![frozen.clone(), Row::Free(bend.clone()), frozen]).unwrap();
            let row = Row::Stored(stored);
            let on_disk = ControlPoints::new(vec![row.clone(), Row::Free(bend), row]).unwrap();
            for c in [[0.3, 0.5, 0.2], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.5, 0.0]] {
                let c = Coefficients::new(c.to_vec()).unwrap();
                assert_eq!(bits(&on_disk.blend(&c).unwrap()), bits(&in_memory.blend(&c).unwrap()));
            }
        }
    }

    #[test]
    fn a_stored_point_has_the_bits_of_the_point_in_memory() {
        same_as_in_memory::<f32>(&[Dtype::F32]);
        same_as_in_memory::<f32>(&[Dtype::Bf16]);
        same_as_in_memory::<f32>(&[Dtype::F16, Dtype::F64, Dtype::F32, Dtype::Bf16]);
        same_as_in_memory::<f64>(&[Dtype::F64, Dtype::Bf16, Dtype::F32]);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_as_when_it_is_read() {
        let (folder, layout) = (tempfile::tempdir().unwrap(), layout());
        let path = folder.path().join("net.safetensors");
        write(&path, &layout, &[Dtype::F32], 0);
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, 8, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let (read, mapped) = (Checkpoint::read(&path).unwrap_err(), Checkpoint::map(&path).map(|_| ()));
            // An empty file cannot be mapped at all.
            assert!(cut == 0 || mapped.as_ref().is_err_and(|e| e.to_string() == read.to_string()), "{cut} {read} {mapped:?}");
            assert!(mapped.is_err());
        }
        let mut values = vec![0.0; 63];
        values[5] = f64::NAN;
        let one = Arc::new(ParamLayout::new([("w".to_owned(), vec![63])]).unwrap());
        let tensors = vec![("w".to_owned(), RawTensor::from_f64(Dtype::Bf16, vec![63], &values).unwrap())];
        Checkpoint { tensors, metadata: None }.write(&path, Overwrite::Replace).unwrap();
        let mapped = Checkpoint::map(&path).unwrap();
        let err = StoredPoint::<f32>::new(&mapped, &one).unwrap().check_finite().unwrap_err();
        assert!(matches!(err, Error::NotFinite { idx: 5, .. }), "{err}");
        assert!(StoredPoint::<f32>::new(&mapped, &layout).is_err());
    }
}
