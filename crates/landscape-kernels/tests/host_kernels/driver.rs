//! The few calls of the driver that a test of one kernel needs, straight from the library.

use crate::host_driver;
use landscape_kernels::Real;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::{Mutex, OnceLock};

type Launch = unsafe extern "C" fn(
    *mut c_void,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    *mut c_void,
    *mut *mut c_void,
    *mut *mut c_void,
) -> c_int;

/// An argument of a kernel.
#[derive(Debug, Clone)]
pub enum Arg {
    /// Memory of the device, and whether it is the output.
    Memory {
        address: u64,
        n_bytes: usize,
        is_out: bool,
    },
    I64(i64),
    U64(u64),
    I32(i32),
    F64(f64),
}

/// The library, loaded.
pub struct Driver {
    library: libloading::Library,
}

impl Driver {
    /// A copy of `values` in the memory of the device.
    pub fn put<T: Copy>(&self, values: &[T]) -> Arg {
        self.memory(values, false)
    }

    /// As [`Driver::put`], for what the kernel writes and [`Driver::run`] returns.
    pub fn out<T: Copy>(&self, values: &[T]) -> Arg {
        self.memory(values, true)
    }

    fn memory<T: Copy>(&self, values: &[T], is_out: bool) -> Arg {
        let n_bytes = size_of_val(values);
        let mut address = 0_u64;
        // SAFETY: the signatures are those of the driver's interface, and the source is as long as said.
        unsafe {
            let alloc: libloading::Symbol<'_, unsafe extern "C" fn(*mut u64, usize) -> c_int> = self.library.get(b"cuMemAlloc_v2").unwrap();
            assert_eq!(alloc(&raw mut address, n_bytes), 0);
            let copy: libloading::Symbol<'_, unsafe extern "C" fn(u64, *const c_void, usize) -> c_int> =
                self.library.get(b"cuMemcpyHtoD_v2").unwrap();
            assert_eq!(copy(address, values.as_ptr().cast(), n_bytes), 0);
        }
        Arg::Memory { address, n_bytes, is_out }
    }

    /// Launches a kernel on `(grid, block)` and copies back the one memory that is its output.
    pub fn run<T: Real>(&self, name: &str, (grid, block): ([u32; 3], [u32; 3]), mut args: Vec<Arg>) -> Vec<T> {
        let name = CString::new(name).unwrap();
        let mut function = std::ptr::null_mut::<c_void>();
        let mut pointers: Vec<*mut c_void> = args
            .iter_mut()
            .map(|arg| match arg {
                Arg::Memory { address, .. } => std::ptr::from_mut(address).cast(),
                Arg::I64(v) => std::ptr::from_mut(v).cast(),
                Arg::U64(v) => std::ptr::from_mut(v).cast(),
                Arg::I32(v) => std::ptr::from_mut(v).cast(),
                Arg::F64(v) => std::ptr::from_mut(v).cast(),
            })
            .collect();
        // SAFETY: as above; that the arguments are those of the kernel is what the tests are written for.
        unsafe {
            let get: libloading::Symbol<'_, unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const i8) -> c_int> =
                self.library.get(b"cuModuleGetFunction").unwrap();
            assert_eq!(get(&raw mut function, std::ptr::null_mut(), name.as_ptr().cast()), 0, "{name:?}");
            let launch: libloading::Symbol<'_, Launch> = self.library.get(b"cuLaunchKernel").unwrap();
            let null = std::ptr::null_mut();
            let [gx, gy, gz] = grid;
            let [bx, by, bz] = block;
            let status = launch(function, gx, gy, gz, bx, by, bz, 0, null, pointers.as_mut_ptr(), std::ptr::null_mut());
            assert_eq!(status, 0, "{name:?}");
        }
        let out = args.iter().find_map(|arg| match arg {
            Arg::Memory { address, n_bytes, is_out: true } => Some((*address, *n_bytes)),
            _ => None,
        });
        let (address, n_bytes) = out.expect("a kernel has an output");
        let mut values = vec![T::ZERO; n_bytes / size_of::<T>()];
        // SAFETY: as above; the vector is as long as the memory.
        unsafe {
            let copy: libloading::Symbol<'_, unsafe extern "C" fn(*mut c_void, u64, usize) -> c_int> =
                self.library.get(b"cuMemcpyDtoH_v2").unwrap();
            assert_eq!(copy(values.as_mut_ptr().cast(), address, n_bytes), 0);
        }
        values
    }
}

/// Runs `test` with threads in either order, if there is a compiler.
#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
pub fn on_driver(test: impl Fn(&Driver)) {
    static LIBRARY: OnceLock<Result<Mutex<Driver>, String>> = OnceLock::new();
    let driver = LIBRARY.get_or_init(|| {
        let folder = host_driver::build(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
        // SAFETY: the library registers its kernels when it is loaded and does nothing else.
        let library = unsafe { libloading::Library::new(folder.join("libcuda.so.1")) }.map_err(|error| error.to_string())?;
        Ok(Mutex::new(Driver { library }))
    });
    let driver = match driver {
        Ok(driver) => driver.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    for reversed in [0, 1] {
        // SAFETY: the signature is that of the function.
        unsafe {
            let set: libloading::Symbol<'_, unsafe extern "C" fn(c_int)> = driver.library.get(b"host_driver_set_reversed").unwrap();
            set(reversed);
        }
        test(&driver);
    }
}
