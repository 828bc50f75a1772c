//! NVIDIA GPUs: the device, its memory, and how kernels are launched.
//!
//! Everything is loaded when a device is opened, so a program that has this feature runs where there is no GPU. The kernels stand beside
//! their twins for the processor (`src/activation/kernels.cu` beside `src/activation.rs`), compiled ahead to PTX that the driver takes.
//! All work of a device goes to one stream, in the order of the calls; nothing waits but copies to the host.

pub(crate) mod args;
mod blas;
pub(crate) mod dnn;
mod launch;
pub(crate) mod memory;
pub(crate) mod place;

pub(crate) use launch::{Grid, Source, source};
pub(crate) use place::{Placed, place};

use crate::error::{Error, Result};
use crate::memory::Algorithms;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, result, sys};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// An opened GPU: its context, one stream, and the kernels that were loaded so far.
#[derive(Clone)]
pub struct Cuda(Arc<Inner>);

struct Inner {
    /// Opened by the first product; given back before the stream and the context.
    blas: OnceLock<Option<blas::Blas>>,
    /// Opened by the first convolution.
    dnn: OnceLock<Option<dnn::Dnn>>,
    algorithms: Algorithms,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    loaded: Mutex<Loaded>,
}

/// Modules and functions by their names.
#[derive(Default)]
struct Loaded {
    modules: BTreeMap<&'static str, Arc<CudaModule>>,
    functions: BTreeMap<[&'static str; 3], CudaFunction>,
}

impl Cuda {
    /// Opens GPU number `ordinal`, for deterministic algorithms.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if there is no driver, no such GPU, or none of compute capability 8.0 or more.
    pub fn open(ordinal: usize) -> Result<Self> {
        Self::open_for(ordinal, Algorithms::Deterministic)
    }

    /// Opens GPU number `ordinal`.
    ///
    /// # Errors
    /// As [`Cuda::open`].
    pub fn open_for(ordinal: usize, algorithms: Algorithms) -> Result<Self> {
        let device = format!("cuda:{ordinal}");
        if !driver_is_present() {
            return Err(Error::NoDevice { device, reason: "there is no CUDA driver on this machine (`libcuda.so.1`)".to_owned() });
        }
        let failed = |error: DriverError| Error::NoDevice { device: device.clone(), reason: describe(error) };
        let n_devices = CudaContext::device_count().map_err(failed)?;
        if ordinal >= usize::try_from(n_devices).unwrap_or(0) {
            return Err(Error::NoDevice { device, reason: format!("there are {n_devices} GPUs, numbered from 0") });
        }
        let context = CudaContext::new(ordinal).map_err(failed)?;
        let (major, minor) = context.compute_capability().map_err(failed)?;
        if major < 8 {
            return Err(Error::NoDevice { device, reason: format!("compute capability must be at least 8.0, got {major}.{minor}") });
        }
        if !context.has_async_alloc() {
            return Err(Error::NoDevice { device, reason: "its driver has no memory pools".to_owned() });
        }
        // SAFETY: all memory of this handle is used on its one stream, so events between streams have nothing to order.
        unsafe { context.disable_event_tracking() };
        keep_freed_memory(&context).map_err(failed)?;
        let stream = context.new_stream().map_err(failed)?;
        Ok(Cuda(Arc::new(Inner { blas: OnceLock::new(), dnn: OnceLock::new(), algorithms, context, stream, loaded: Mutex::default() })))
    }

    /// Which algorithms it was opened for.
    pub fn algorithms(&self) -> Algorithms {
        self.0.algorithms
    }

    /// Which GPU.
    pub fn ordinal(&self) -> usize {
        self.0.context.ordinal()
    }

    /// What its maker calls it.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver does not say.
    pub fn name(&self) -> Result<String> {
        self.check("the name of the GPU", self.0.context.name())
    }

    /// Bytes of its memory: free, and all.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver does not say.
    pub fn memory_bytes(&self) -> Result<(usize, usize)> {
        self.check("the memory of the GPU", self.0.context.mem_get_info())
    }

    /// Waits until all work that was given to it is done.
    ///
    /// # Errors
    /// [`Error::Device`] if any of it failed.
    pub fn synchronize(&self) -> Result<()> {
        self.check("synchronize", self.0.stream.synchronize())
    }

    pub(crate) fn stream(&self) -> &Arc<CudaStream> {
        &self.0.stream
    }

    fn raw_stream(&self) -> sys::CUstream {
        self.0.stream.cu_stream()
    }

    /// Makes its context that of this thread, as raw calls of the driver want.
    fn bind(&self, op: &'static str) -> Result<()> {
        self.check(op, self.0.context.bind_to_thread())
    }

    /// A driver's error as ours.
    pub(crate) fn check<T>(&self, op: &'static str, result: std::result::Result<T, DriverError>) -> Result<T> {
        result.map_err(|error| self.failure(op, describe(error)))
    }

    /// An [`Error::Device`] of this device.
    pub(crate) fn failure(&self, op: &'static str, reason: impl Into<String>) -> Error {
        Error::Device { op, device: self.to_string(), reason: reason.into() }
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{}", self.ordinal())
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cuda({})", self.ordinal())
    }
}

impl PartialEq for Cuda {
    /// Whether both share a stream, and so memory.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Cuda {}

/// Whether the driver's library can be loaded; without it the first call would end the program.
fn driver_is_present() -> bool {
    ["libcuda.so.1", "libcuda.so", "nvcuda.dll"].into_iter().any(|name| {
        // SAFETY: the driver's library has no initialiser that asks anything of its caller.
        unsafe { libloading::Library::new(name) }.is_ok()
    })
}

/// Lets the memory pool keep what is freed: given back at every synchronisation, it would be asked for anew in every step.
fn keep_freed_memory(context: &CudaContext) -> std::result::Result<(), DriverError> {
    let mut everything = u64::MAX;
    // SAFETY: the device is open, and the attribute is a u64.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        result::mem_pool::set_attribute(pool, attribute, (&raw mut everything).cast())
    }
}

fn describe(error: DriverError) -> String {
    match (error.error_name(), error.error_string()) {
        (Ok(name), Ok(text)) => format!("{}: {}", name.to_string_lossy(), text.to_string_lossy()),
        _ => format!("{error:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    /// Without a GPU this says why; with one it opens, and memory goes there and back.
    #[test]
    fn a_device_opens_or_says_why_not() {
        match Device::parse("cuda:0") {
            Ok(device) => {
                let memory = crate::Memory::from_host(&device, vec![1.0_f32, 2.0, 3.0]);
                assert_eq!(memory.to_host().expect("a copy"), [1.0, 2.0, 3.0]);
            }
            Err(Error::NoDevice { device, reason }) => assert!(device == "cuda:0" && !reason.is_empty()),
            Err(other) => panic!("{other}"),
        }
        assert!(matches!(Device::parse("cuda:60000"), Err(Error::NoDevice { .. })));
    }
}
