//! NVIDIA GPUs: the device, its memory, and how kernels are launched.
//!
//! Everything is loaded when a device is opened, so a program that has this feature runs where there is no GPU. The kernels stand beside
//! their twins for the processor (`src/activation/kernels.cu` beside `src/activation.rs`), compiled ahead to PTX that the driver takes.
//! All work of a device goes to one stream, in the order of the calls; nothing waits but copies to the host, and copies from memory of the
//! host that is not pinned, which may wait for the stream.

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

/// The driver's interface that the PTX needs: its compiler, NVRTC 13.0, writes PTX 9.0.
const MIN_DRIVER_VERSION: i32 = 13_000;

/// The libraries that products run on where they are found, by the numbers they give as their versions; own kernels take their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Libraries {
    /// Matrix products.
    pub cublas: Option<usize>,
    /// Convolutions.
    pub cudnn: Option<usize>,
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
    /// [`Error::NoDevice`] if there is no driver of CUDA 13 (release 580) or later, no such GPU, or none of compute capability 8.0 or more.
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
        if let Some(reason) = too_old(driver_version().map_err(failed)?) {
            return Err(Error::NoDevice { device, reason });
        }
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

    /// The version of CUDA that the driver is of, as it says it: 13000 for 13.0.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver does not say.
    pub fn driver_version(&self) -> Result<i32> {
        self.check("the version of the driver", driver_version())
    }

    /// Which libraries were found, opened if they were not yet.
    pub fn libraries(&self) -> Libraries {
        Libraries { cublas: self.blas().map(blas::Blas::version), cudnn: self.dnn().map(|_| dnn::version()) }
    }

    fn blas(&self) -> Option<&blas::Blas> {
        self.0.blas.get_or_init(|| blas::Blas::open(&self.0.stream)).as_ref()
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

fn driver_version() -> std::result::Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: the driver's library is there, and it writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(version)
}

/// Why a driver of this version cannot load the kernels; nothing if it can.
fn too_old(version: i32) -> Option<String> {
    let text = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
    let (min, got) = (text(MIN_DRIVER_VERSION), text(version));
    (version < MIN_DRIVER_VERSION)
        .then(|| format!("its driver is for CUDA {got}, and the kernels need one for {min} or later (release 580)"))
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

    #[test]
    fn a_driver_that_cannot_load_the_kernels_is_named() {
        assert_eq!((too_old(MIN_DRIVER_VERSION), too_old(13_010)), (None, None));
        let reason = too_old(12_080).unwrap_or_default();
        assert!(reason.contains("12.8") && reason.contains("13.0") && reason.contains("580"), "{reason}");
    }

    /// PTX 9.0 came with CUDA 13.0.
    #[test]
    fn the_ptx_is_of_the_version_that_the_driver_is_asked_for() {
        assert!(crate::blend::cuda::KERNELS.ptx.lines().any(|line| line.trim() == ".version 9.0"));
    }
}
