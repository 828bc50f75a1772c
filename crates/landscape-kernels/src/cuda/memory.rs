//! Memory of a GPU and runs of it.
//!
//! A memory is taken from the device's pool and given back in the order of its stream, so an op may still be reading what Rust has
//! dropped. Memory that was not to be had is a value too: the first op it is handed to fails with the reason.

use super::Cuda;
use super::place::Place;
use crate::error::Result;
use crate::memory::{Device, Element, Memory};
use cudarc::driver::{result, sys};
use std::marker::PhantomData;
use std::ops::Range;

/// Numbers on a GPU.
#[derive(Debug)]
pub struct DeviceMemory<T> {
    cuda: Cuda,
    pointer: sys::CUdeviceptr,
    len: usize,
    /// Why there is no memory behind it.
    failure: Option<String>,
    marker: PhantomData<T>,
}

/// Numbers on a GPU, to read.
#[derive(Debug)]
pub struct DeviceView<'a, T> {
    cuda: &'a Cuda,
    pointer: sys::CUdeviceptr,
    len: usize,
    failure: Option<&'a str>,
    marker: PhantomData<&'a [T]>,
}

// By hand: a derived copy would ask it of `T`.
impl<T> Clone for DeviceView<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DeviceView<'_, T> {}

/// Numbers on a GPU, to write.
#[derive(Debug)]
pub struct DeviceViewMut<'a, T> {
    inner: DeviceView<'a, T>,
    marker: PhantomData<&'a mut [T]>,
}

impl<T: Element> DeviceMemory<T> {
    /// `len` zeros.
    pub(crate) fn zeros(cuda: &Cuda, len: usize) -> Self {
        Self::filled_by(cuda, len, |target| target.fill(T::default()))
    }

    /// A copy of `values`.
    pub(crate) fn from_host(cuda: &Cuda, values: &[T]) -> Self {
        Self::filled_by(cuda, values.len(), |target| target.copy_from_host(values))
    }
}

impl<T> DeviceMemory<T> {
    fn filled_by(cuda: &Cuda, len: usize, fill: impl FnOnce(DeviceViewMut<'_, T>) -> Result<()>) -> Self {
        let mut memory = DeviceMemory { cuda: cuda.clone(), pointer: 0, len, failure: None, marker: PhantomData };
        if len == 0 {
            return memory;
        }
        match allocate(cuda, len.saturating_mul(size_of::<T>())) {
            Ok(pointer) => {
                memory.pointer = pointer;
                if let Err(error) = fill(memory.view_mut()) {
                    memory.failure = Some(error.to_string());
                }
            }
            Err(error) => memory.failure = Some(error.to_string()),
        }
        memory
    }

    pub(crate) fn device(&self) -> Device {
        Device::Cuda(self.cuda.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn view(&self) -> DeviceView<'_, T> {
        let DeviceMemory { cuda, pointer, len, failure, .. } = self;
        DeviceView { cuda, pointer: *pointer, len: *len, failure: failure.as_deref(), marker: PhantomData }
    }

    pub(crate) fn view_mut(&mut self) -> DeviceViewMut<'_, T> {
        DeviceViewMut { inner: self.view(), marker: PhantomData }
    }
}

impl<T> Clone for DeviceMemory<T> {
    fn clone(&self) -> Self {
        Self::filled_by(&self.cuda, self.len, |target| target.copy_beside(self.view()))
    }
}

impl<T> Drop for DeviceMemory<T> {
    fn drop(&mut self) {
        if self.pointer != 0 && self.cuda.bind("free").is_ok() {
            // SAFETY: the pointer came from `allocate` on this stream and is given back once. A failure here was or will be told by
            // the call that caused it; a drop has nobody to tell.
            let _ = unsafe { result::free_async(self.pointer, self.cuda.raw_stream()) };
        }
    }
}

/// Memory that a kernel fills before another reads it.
///
/// # Errors
/// [`crate::Error::Device`] if there is none.
pub(crate) fn scratch<T: Element>(cuda: &Cuda, len: usize) -> Result<Memory<T>> {
    let memory = DeviceMemory::filled_by(cuda, len, |_| Ok(()));
    match &memory.failure {
        Some(reason) => Err(cuda.failure("allocate", reason.clone())),
        None => Ok(Memory::Device(memory)),
    }
}

fn allocate(cuda: &Cuda, n_bytes: usize) -> Result<sys::CUdeviceptr> {
    cuda.bind("allocate")?;
    // SAFETY: the stream belongs to the context just bound; the memory is written before it is handed out.
    let result = unsafe { result::malloc_async(cuda.raw_stream(), n_bytes) };
    result.map_err(|error| cuda.failure("allocate", format!("{n_bytes} bytes: {}", super::describe(error))))
}

impl<'a, T> DeviceView<'a, T> {
    pub(super) fn place(self) -> Place<'a> {
        Place::Device(self.cuda, self.failure)
    }

    /// Where it begins, for a kernel's argument.
    pub(crate) fn pointer(&self) -> &sys::CUdeviceptr {
        &self.pointer
    }

    pub(crate) fn not_on_host(self) -> ! {
        panic!("numbers on {} were asked for as if they were on the host", self.cuda)
    }

    pub(crate) fn slice(self, range: Range<usize>) -> DeviceView<'a, T> {
        assert!(range.start <= range.end && range.end <= self.len, "range {range:?} must be within {} elements", self.len);
        let pointer = if self.pointer == 0 { 0 } else { self.pointer + (range.start * size_of::<T>()) as u64 };
        DeviceView { pointer, len: range.len(), ..self }
    }

    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Fails if there is no memory behind it, and binds the thread to its device.
    fn ready(self, op: &'static str) -> Result<()> {
        match self.failure {
            Some(reason) => Err(self.cuda.failure(op, reason)),
            None => self.cuda.bind(op),
        }
    }

    fn n_bytes(self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T: Element> DeviceView<'_, T> {
    pub(crate) fn to_host(self) -> Result<Vec<T>> {
        let mut values = vec![T::default(); self.len];
        self.copy_to_host(&mut values)?;
        Ok(values)
    }

    /// Copies to the host and waits for it; lengths were checked.
    pub(crate) fn copy_to_host(self, target: &mut [T]) -> Result<()> {
        const OP: &str = "copy to the host";
        self.ready(OP)?;
        if target.is_empty() {
            return Ok(());
        }
        // SAFETY: both runs are `target.len()` elements long, of a type without padding or invalid bits; the wait comes before any use.
        self.cuda.check(OP, unsafe { result::memcpy_dtoh_async(target, self.pointer, self.cuda.raw_stream()) })?;
        self.cuda.synchronize()
    }
}

impl<'a, T> DeviceViewMut<'a, T> {
    pub(super) fn place(&self) -> Place<'a> {
        self.inner.place()
    }

    pub(crate) fn pointer(&self) -> &sys::CUdeviceptr {
        &self.inner.pointer
    }

    pub(crate) fn reborrow(&mut self) -> DeviceViewMut<'_, T> {
        DeviceViewMut { inner: self.inner, marker: PhantomData }
    }

    pub(crate) fn slice(self, range: Range<usize>) -> DeviceViewMut<'a, T> {
        DeviceViewMut { inner: self.inner.slice(range), marker: PhantomData }
    }

    pub(crate) fn split_at(self, mid: usize) -> (DeviceViewMut<'a, T>, DeviceViewMut<'a, T>) {
        let all = self.inner;
        let (left, right) = (all.slice(0..mid), all.slice(mid..all.len));
        (DeviceViewMut { inner: left, marker: PhantomData }, DeviceViewMut { inner: right, marker: PhantomData })
    }

    pub(crate) fn view(&self) -> DeviceView<'_, T> {
        self.inner
    }
}

impl<T: Element> DeviceViewMut<'_, T> {
    pub(crate) fn fill(self, value: T) -> Result<()> {
        const OP: &str = "fill";
        let view = self.inner;
        view.ready(OP)?;
        if view.len == 0 {
            return Ok(());
        }
        if is_all_zeros(&value) {
            // SAFETY: the run is that many bytes long, and zeros are a value of every element type.
            let result = unsafe { result::memset_d8_async(view.pointer, 0, view.n_bytes(), view.cuda.raw_stream()) };
            return view.cuda.check(OP, result);
        }
        self.copy_from_host(&vec![value; view.len])
    }

    /// Copies from the host; lengths were checked. The driver has taken the values before this returns, for which it may wait for the stream.
    pub(crate) fn copy_from_host(self, source: &[T]) -> Result<()> {
        const OP: &str = "copy from the host";
        let view = self.inner;
        view.ready(OP)?;
        if source.is_empty() {
            return Ok(());
        }
        // SAFETY: both runs are `source.len()` elements long; memory that is not pinned has been read when the call returns.
        view.cuda.check(OP, unsafe { result::memcpy_htod_async(view.pointer, source, view.cuda.raw_stream()) })
    }

    /// Copies on a GPU, or from one to another; lengths were checked.
    pub(crate) fn copy_from(self, source: DeviceView<'_, T>) -> Result<()> {
        if source.cuda == self.inner.cuda {
            return self.copy_beside(source);
        }
        // Two streams have no order: what is read must be done first. This happens when work is handed out, not in steps.
        self.copy_from_host(&source.to_host()?)
    }
}

impl<T> DeviceViewMut<'_, T> {
    /// Copies on one device; lengths were checked.
    fn copy_beside(self, source: DeviceView<'_, T>) -> Result<()> {
        const OP: &str = "copy";
        let view = self.inner;
        source.ready(OP)?;
        view.ready(OP)?;
        if view.len == 0 {
            return Ok(());
        }
        // SAFETY: both runs are as long, on one device; Rust's borrows keep them apart.
        view.cuda.check(OP, unsafe { result::memcpy_dtod_async(view.pointer, source.pointer, view.n_bytes(), view.cuda.raw_stream()) })
    }
}

/// Whether a value is zeros all through; minus zero is not.
fn is_all_zeros<T: Element>(value: &T) -> bool {
    // SAFETY: elements are numbers without padding, so all their bytes can be read.
    let bytes = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) };
    bytes.iter().all(|byte| *byte == 0)
}
