//! Convolutions by cuDNN, where it is there.
//!
//! Descriptors, algorithms and the size of the workspace are found once per shape. Algorithms come from the library's rules and not from
//! timing. Those whose sums have no fixed order (NVIDIA's documentation names them: backward data 0, backward filter 0 and 3) give way
//! to number 1, unless the device was opened for any. Images are NHWC as everywhere; filters are [out, taps, in of a group], which is the
//! packed weight of each group transposed. What the library does not take is left to own kernels.

use super::memory::scratch;
use super::{Algorithms, Cuda};
use crate::conv2d::Conv2dShape;
use crate::error::Result;
use crate::memory::{Accumulate, Real, View};
use crate::precision::Precision;
use cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as DataAlgorithm, cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm,
    cudnnConvolutionFwdAlgo_t as ForwardAlgorithm, cudnnConvolutionMode_t as Mode, cudnnMathType_t as Math, cudnnTensorFormat_t as Format,
};
use cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, CudnnError, FilterDescriptor,
    TensorDescriptor, result,
};
use cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop, sys};
use std::ffi::c_int;
use std::sync::{Arc, Mutex, PoisonError};

const OP: &str = "conv2d";
const NOT_TAKEN: &str = "cuDNN was called for a shape that it does not take";
/// Version 9, whose interface the bindings are of.
const MIN_VERSION: usize = 90_000;
/// Algorithms that ask for more than this give way to one that asks for little.
const MAX_WORKSPACE_BYTES: usize = 1 << 30;

/// An opened library.
pub(super) struct Dnn(Mutex<Handle>);

struct Handle {
    cudnn: Arc<Cudnn>,
    stream: Arc<CudaStream>,
    single: Plans<f32>,
    double: Plans<f64>,
}

// SAFETY: the library's handle and all that refers to it stand in this one value, which may go from thread to thread as long as one uses
// it at a time; the mutex sees to that.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // What the fields give back belongs to the context. A drop has nobody to tell of a failure.
        let _ = self.stream.context().bind_to_thread();
    }
}

/// Whether the library can be loaded; without it the first call would end the program.
fn is_present() -> bool {
    ["libcudnn.so.9", "libcudnn.so", "cudnn64_9.dll"].iter().any(|name| {
        // SAFETY: the library has no initialiser that asks anything of its caller.
        unsafe { libloading::Library::new(*name) }.is_ok()
    })
}

impl Dnn {
    /// The library on this stream, if it is there and takes it.
    pub fn open(stream: &Arc<CudaStream>) -> Option<Self> {
        if !is_present() || result::get_version() < MIN_VERSION || stream.context().bind_to_thread().is_err() {
            return None;
        }
        let cudnn = Cudnn::new(stream.clone()).ok()?;
        Some(Dnn(Mutex::new(Handle { cudnn, stream: stream.clone(), single: Vec::new(), double: Vec::new() })))
    }
}

/// Shapes that were met, with how each is computed if the library describes it.
type Plans<T> = Vec<(Conv2dShape, Option<Plan<T>>)>;

/// How one shape is computed.
struct Plan<T> {
    conv: ConvDescriptor<T>,
    x: TensorDescriptor<T>,
    y: TensorDescriptor<T>,
    filter: FilterDescriptor<T>,
    forward: Option<(ForwardAlgorithm, usize)>,
    data: Option<(DataAlgorithm, usize)>,
    weight: Option<(FilterAlgorithm, usize)>,
}

impl<T: CudnnDataType> Plan<T> {
    /// Nothing for shapes that the library does not describe.
    fn new(cudnn: &Arc<Cudnn>, s: &Conv2dShape, algorithms: Algorithms) -> Option<Self> {
        let int = |size: usize| c_int::try_from(size).ok().filter(|size| *size >= 0);
        let pair = |[a, b]: [usize; 2]| Some([int(a)?, int(b)?]);
        let image = |channels: usize, [h, w]: [usize; 2]| Some([int(s.n)?, int(channels)?, int(h)?, int(w)?]);
        let filter = [int(s.out_channels)?, int(s.in_group())?, int(s.kernel_size[0])?, int(s.kernel_size[1])?];
        let mut conv = cudnn.create_conv2d(pair(s.padding)?, pair(s.stride)?, pair(s.dilation)?, Mode::CUDNN_CROSS_CORRELATION).ok()?;
        conv.set_group_count(int(s.groups)?).ok()?;
        // The default lets products of f32 be rounded to TF32.
        conv.set_math_type(if s.precision == Precision::Tf32 { Math::CUDNN_DEFAULT_MATH } else { Math::CUDNN_FMA_MATH }).ok()?;
        let plan = Plan {
            conv,
            x: cudnn.create_4d_tensor(Format::CUDNN_TENSOR_NHWC, image(s.in_channels, s.in_size)?).ok()?,
            y: cudnn.create_4d_tensor(Format::CUDNN_TENSOR_NHWC, image(s.out_channels, s.out_size())?).ok()?,
            filter: cudnn.create_4d_filter(Format::CUDNN_TENSOR_NHWC, filter).ok()?,
            forward: None,
            data: None,
            weight: None,
        };
        Some(plan.choose(algorithms))
    }

    fn choose(mut self, algorithms: Algorithms) -> Self {
        use {DataAlgorithm as Data, FilterAlgorithm as Filter, ForwardAlgorithm as Forward};
        let ordered = algorithms == Algorithms::Deterministic;
        let call = self.forward_call();
        self.forward = first_that_fits(
            [
                call.pick_algorithm().ok(),
                Some(Forward::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM),
                Some(Forward::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM),
            ],
            |algorithm| call.get_workspace_size(algorithm),
        );
        let call = self.data_call();
        let unordered = |algorithm: &Data| *algorithm == Data::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0;
        self.data = first_that_fits(
            [call.pick_algorithm().ok().filter(|a| !(ordered && unordered(a))), Some(Data::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1), None],
            |algorithm| call.get_workspace_size(algorithm),
        );
        let call = self.weight_call();
        let unordered = |algorithm: &Filter| {
            matches!(algorithm, Filter::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0 | Filter::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3)
        };
        self.weight = first_that_fits(
            [call.pick_algorithm().ok().filter(|a| !(ordered && unordered(a))), Some(Filter::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1), None],
            |algorithm| call.get_workspace_size(algorithm),
        );
        self
    }

    fn forward_call(&self) -> ConvForward<'_, T, T, T> {
        ConvForward { conv: &self.conv, x: &self.x, w: &self.filter, y: &self.y }
    }

    fn data_call(&self) -> ConvBackwardData<'_, T, T, T> {
        ConvBackwardData { conv: &self.conv, dx: &self.x, w: &self.filter, dy: &self.y }
    }

    fn weight_call(&self) -> ConvBackwardFilter<'_, T, T, T> {
        ConvBackwardFilter { conv: &self.conv, x: &self.x, dw: &self.filter, dy: &self.y }
    }
}

/// The first algorithm that the library takes for this shape and that asks for little enough memory, with how much that is.
fn first_that_fits<A: Copy>(
    algorithms: [Option<A>; 3],
    n_bytes: impl Fn(A) -> std::result::Result<usize, CudnnError>,
) -> Option<(A, usize)> {
    let fitting = |a: A| n_bytes(a).ok().filter(|n| *n <= MAX_WORKSPACE_BYTES).map(|n| (a, n));
    algorithms.into_iter().flatten().find_map(fitting)
}

/// Memory as the library's calls take it. Everything runs on one stream, so there is nothing to record.
struct Run<'a> {
    pointer: sys::CUdeviceptr,
    len: usize,
    stream: &'a Arc<CudaStream>,
}

impl<T> DeviceSlice<T> for Run<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.stream
    }
}

impl<T> DevicePtr<T> for Run<'_> {
    fn device_ptr<'a>(&'a self, _: &'a CudaStream) -> (sys::CUdeviceptr, SyncOnDrop<'a>) {
        (self.pointer, SyncOnDrop::Record(None))
    }
}

impl<T> DevicePtrMut<T> for Run<'_> {
    fn device_ptr_mut<'a>(&'a mut self, _: &'a CudaStream) -> (sys::CUdeviceptr, SyncOnDrop<'a>) {
        (self.pointer, SyncOnDrop::Record(None))
    }
}

/// A scalar of the library.
trait Scalar: CudnnDataType + Copy + Sized {
    const ZERO: Self;
    const ONE: Self;
    fn plans(handle: &mut Handle) -> (&Arc<Cudnn>, &mut Plans<Self>);
}

impl Scalar for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    fn plans(handle: &mut Handle) -> (&Arc<Cudnn>, &mut Plans<f32>) {
        (&handle.cudnn, &mut handle.single)
    }
}

impl Scalar for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    fn plans(handle: &mut Handle) -> (&Arc<Cudnn>, &mut Plans<f64>) {
        (&handle.cudnn, &mut handle.double)
    }
}

/// Which of the three products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Product {
    /// From `x` and the filter to `y`.
    Forward,
    /// From `dy` and the filter to `dx`.
    Data,
    /// From `x` and `dy` to the filter.
    Weight,
}

/// Where the operands of a call begin: images as they are, the filter as the library has it.
#[derive(Clone, Copy)]
struct Pointers {
    x: sys::CUdeviceptr,
    y: sys::CUdeviceptr,
    filter: sys::CUdeviceptr,
}

impl<T> Plan<T> {
    /// The workspace that a product asks for; nothing if the library does not compute it.
    fn workspace_bytes(&self, product: Product) -> Option<usize> {
        match product {
            Product::Forward => self.forward.map(|(_, n_bytes)| n_bytes),
            Product::Data => self.data.map(|(_, n_bytes)| n_bytes),
            Product::Weight => self.weight.map(|(_, n_bytes)| n_bytes),
        }
    }
}

impl Cuda {
    /// Whether there is cuDNN and it computes `product` of this shape.
    pub(crate) fn dnn_takes<T: Real>(&self, product: Product, s: &Conv2dShape) -> bool {
        // Depthwise convolutions are no products to speak of; own kernels read them as they stand.
        let empty = s.in_len() == 0 || s.out_len() == 0 || s.weight_len() == 0;
        let Some(dnn) = self.dnn().filter(|_| !empty && !s.is_depthwise()) else { return false };
        if self.bind(OP).is_err() {
            return false;
        }
        let mut handle = dnn.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n_bytes = if T::NAME == "f32" {
            self.plan::<f32>(&mut handle, s).and_then(|plan| plan.workspace_bytes(product))
        } else {
            self.plan::<f64>(&mut handle, s).and_then(|plan| plan.workspace_bytes(product))
        };
        n_bytes.is_some()
    }

    /// Computes `product` of a shape that [`Cuda::dnn_takes`]; what it yields (`y`, `x` or `filter`) is memory that the caller holds alone,
    /// replaced or added to by `mode`. Lengths were checked.
    pub(crate) fn dnn_product<T: Real>(
        &self,
        product: Product,
        s: &Conv2dShape,
        x: View<'_, T>,
        filter: View<'_, T>,
        y: View<'_, T>,
        mode: Accumulate,
    ) -> Result<()> {
        let (Some(dnn), View::Device(x), View::Device(filter), View::Device(y)) = (self.dnn(), x, filter, y) else {
            return Err(self.failure(OP, NOT_TAKEN));
        };
        let pointers = Pointers { x: *x.pointer(), y: *y.pointer(), filter: *filter.pointer() };
        let mut handle = dnn.0.lock().unwrap_or_else(PoisonError::into_inner);
        if T::NAME == "f32" {
            self.run::<f32>(&mut handle, product, s, pointers, mode)
        } else {
            self.run::<f64>(&mut handle, product, s, pointers, mode)
        }
    }

    fn dnn(&self) -> Option<&Dnn> {
        self.0.dnn.get_or_init(|| Dnn::open(&self.0.stream)).as_ref()
    }

    fn plan<'h, S: Scalar>(&self, handle: &'h mut Handle, s: &Conv2dShape) -> Option<&'h Plan<S>> {
        let (cudnn, plans) = S::plans(handle);
        let idx = plans.iter().position(|(shape, _)| shape == s).unwrap_or_else(|| {
            plans.push((*s, Plan::new(cudnn, s, self.algorithms())));
            plans.len() - 1
        });
        plans[idx].1.as_ref()
    }

    fn run<S: Scalar>(&self, handle: &mut Handle, product: Product, s: &Conv2dShape, at: Pointers, mode: Accumulate) -> Result<()> {
        self.bind(OP)?;
        let plan = self.plan::<S>(handle, s);
        let Some((plan, n_bytes)) = plan.and_then(|plan| Some((plan, plan.workspace_bytes(product)?))) else {
            return Err(self.failure(OP, NOT_TAKEN));
        };
        // Given back in the order of the stream, so the call may still be using it when this returns.
        let workspace = scratch::<u32>(self, n_bytes.div_ceil(4))?;
        let of = |pointer: sys::CUdeviceptr, len: usize| Run { pointer, len, stream: self.stream() };
        let mut space = match workspace.view() {
            View::Device(view) if n_bytes > 0 => Some(of(*view.pointer(), n_bytes)),
            _ => None,
        };
        let sum = if mode == Accumulate::Add { S::ONE } else { S::ZERO };
        let (mut x, mut y, mut filter) = (of(at.x, s.in_len()), of(at.y, s.out_len()), of(at.filter, s.weight_len()));
        // SAFETY: the pointers are those of images and filters of this shape on the device of the handle, and what is written is the
        // caller's alone; the workspace is as large as the library asked for.
        let status = unsafe {
            match (product, plan.forward, plan.data, plan.weight) {
                (Product::Forward, Some((algorithm, _)), ..) => {
                    plan.forward_call().launch(algorithm, space.as_mut(), (S::ONE, sum), &x, &filter, &mut y)
                }
                (Product::Data, _, Some((algorithm, _)), _) => {
                    plan.data_call().launch(algorithm, space.as_mut(), (S::ONE, sum), &mut x, &filter, &y)
                }
                (Product::Weight, .., Some((algorithm, _))) => {
                    plan.weight_call().launch(algorithm, space.as_mut(), (S::ONE, sum), &x, &mut filter, &y)
                }
                _ => return Err(self.failure(OP, NOT_TAKEN)),
            }
        };
        status.map_err(|error| self.failure(OP, format!("cuDNN: {error}")))
    }
}
