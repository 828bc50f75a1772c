//! Matrix products by cuBLAS, where it is there.
//!
//! It works in column-major order, in which a row-major product c = a·b is its transpose cᵀ = bᵀ·aᵀ: operands change places and a
//! row-major operand is read as it stands. On one stream the same sizes give the same bits; TF32 is used where it was asked for.

use super::Cuda;
use crate::error::Result;
use crate::gemm::{Dims, Strides};
use crate::memory::{Accumulate, Memory, Real, View, ViewMut};
use crate::precision::Precision;
use crate::precision::cuda::to_bf16;
use cudarc::cublas::sys::{cublasComputeType_t as Compute, cudaDataType_t as Numbers};
use cudarc::cublas::{result, sys};
use cudarc::driver::CudaStream;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

const OP: &str = "matrix product";

/// An opened library.
pub(super) struct Blas {
    handle: Mutex<Handle>,
    version: usize,
}

struct Handle {
    raw: sys::cublasHandle_t,
    stream: Arc<CudaStream>,
}

// SAFETY: a handle may go from thread to thread as long as one uses it at a time, which the mutex sees to.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.stream.context().bind_to_thread().is_ok() {
            // SAFETY: the handle was made by `Blas::open` and is given back once; a drop has nobody to tell of a failure.
            let _ = unsafe { result::destroy_handle(self.raw) };
        }
    }
}

/// Whether the library can be loaded; without it the first call would end the program.
fn is_present() -> bool {
    ["libcublas.so.13", "libcublas.so.12", "libcublas.so", "cublas64_13.dll", "cublas64_12.dll"].iter().any(|name| {
        // SAFETY: the library has no initialiser that asks anything of its caller.
        unsafe { libloading::Library::new(*name) }.is_ok()
    })
}

impl Blas {
    /// The library on this stream, if it is there and takes it.
    pub fn open(stream: &Arc<CudaStream>) -> Option<Self> {
        if !is_present() || stream.context().bind_to_thread().is_err() {
            return None;
        }
        let raw = result::create_handle().ok()?;
        let handle = Handle { raw, stream: stream.clone() };
        // SAFETY: both are alive, and the stream stays so as long as the handle.
        unsafe { result::set_stream(raw, stream.cu_stream().cast()) }.ok()?;
        let mut version = 0;
        // SAFETY: the handle is alive, and one number is written.
        unsafe { sys::cublasGetVersion_v2(raw, &mut version) }.result().ok()?;
        Some(Blas { handle: Mutex::new(handle), version: usize::try_from(version).unwrap_or(0) })
    }

    /// What the library gives as its version.
    pub fn version(&self) -> usize {
        self.version
    }
}

/// How an operand of `rows` by `columns` is read: as it stands (rows apart) or transposed, and how far apart its lines are. Nothing for
/// strides that are neither.
fn read_as(strides: Strides, rows: usize, columns: usize) -> Option<(sys::cublasOperation_t, c_int)> {
    let Strides { row, col } = strides;
    let (operation, apart) = match () {
        () if col == 1 && row >= columns => (sys::cublasOperation_t::CUBLAS_OP_N, row),
        () if row == 1 && col >= rows => (sys::cublasOperation_t::CUBLAS_OP_T, col),
        () => return None,
    };
    Some((operation, c_int::try_from(apart.max(1)).ok()?))
}

impl Cuda {
    /// c = a·b, or c += a·b, with row-major `c`; false, and nothing done, where there is no cuBLAS or it does not take these sizes.
    pub(crate) fn blas_product<T: Real>(
        &self,
        precision: Precision,
        dims: Dims,
        a: (View<'_, T>, Strides),
        b: (View<'_, T>, Strides),
        c: &ViewMut<'_, T>,
        mode: Accumulate,
    ) -> Result<bool> {
        let Dims { m, n, k } = dims;
        let Some(blas) = self.blas() else { return Ok(false) };
        let int = |size: usize| c_int::try_from(size).ok().filter(|size| *size > 0);
        let (Some(rows), Some(columns), Some(depth)) = (int(m), int(n), int(k)) else { return Ok(false) };
        let (Some((a_op, a_apart)), Some((b_op, b_apart))) = (read_as(a.1, m, k), read_as(b.1, k, n)) else { return Ok(false) };
        let (View::Device(left), View::Device(right), ViewMut::Device(c)) = (a.0, b.0, c) else { return Ok(false) };
        let (mut left, mut right, c) = (*left.pointer(), *right.pointer(), *c.pointer());
        self.bind(OP)?;
        // Kept until the product is given to the stream, in whose order they are given back.
        let halves = match precision {
            Precision::Bf16 => Some((to_bf16(self, a.0)?, to_bf16(self, b.0)?)),
            _ => None,
        };
        if let Some((Memory::Device(a), Memory::Device(b))) = &halves {
            (left, right) = (*a.view().pointer(), *b.view().pointer());
        }
        let handle = blas.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = if mode == Accumulate::Add { 1.0 } else { 0.0 };
        // SAFETY: the pointers are those of matrices of these sizes and strides on the device of the handle, checked by the op; the factors
        // are on the host, where the handle expects them.
        let status = unsafe {
            if T::NAME == "f64" {
                let (a, b, c) = (left as *const f64, right as *const f64, c as *mut f64);
                let one = 1.0_f64;
                result::dgemm(handle.raw, b_op, a_op, columns, rows, depth, &one, b, b_apart, a, a_apart, &sum, c, columns)
            } else {
                let (a, b, c) = (left as *const c_void, right as *const c_void, c as *mut c_void);
                let (one, sum) = (1.0_f32, sum as f32);
                let (one, sum) = ((&raw const one).cast(), (&raw const sum).cast());
                let (operands, compute) = match precision {
                    Precision::F32 => (Numbers::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F),
                    Precision::Tf32 => (Numbers::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F_FAST_TF32),
                    Precision::Bf16 => (Numbers::CUDA_R_16BF, Compute::CUBLAS_COMPUTE_32F),
                };
                let algorithm = sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT;
                result::gemm_ex(
                    handle.raw,
                    b_op,
                    a_op,
                    columns,
                    rows,
                    depth,
                    one,
                    b,
                    operands,
                    b_apart,
                    a,
                    operands,
                    a_apart,
                    sum,
                    c,
                    Numbers::CUDA_R_32F,
                    columns,
                    compute,
                    algorithm,
                )
            }
        };
        status.map_err(|error| self.failure(OP, format!("cuBLAS: {error:?}"))).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_read_as_they_stand_or_transposed() {
        let (plain, turned) = (sys::cublasOperation_t::CUBLAS_OP_N, sys::cublasOperation_t::CUBLAS_OP_T);
        assert_eq!(read_as(Strides::row_major(5), 3, 5), Some((plain, 5)));
        assert_eq!(read_as(Strides::transposed(5), 5, 3), Some((turned, 5)));
        // One row of a transposed matrix: its elements are neighbours, but the distance of rows says nothing.
        assert_eq!(read_as(Strides::transposed(1), 1, 7), Some((turned, 1)));
        assert_eq!(read_as(Strides { row: 9, col: 2 }, 3, 4), None);
    }
}
