//! Convolutions by cuDNN, where it is there.
//!
//! Descriptors, algorithms and the size of the workspace are found once per shape. Algorithms come from the library's rules and not from
//! timing. Those whose sums have no fixed order (NVIDIA's documentation names them: backward data 0, backward filter 0 and 3) give way
//! to number 1, unless the device was opened for any. Images are NHWC as everywhere; filters are [out, taps, in of a group], which is the
//! packed weight of each group transposed. What the library does not take, be it said when it is asked or not before it is to run, is left
//! to own kernels; so is f64, which it computes slower than they do or not at all.

mod rules;

use self::rules::{Rules, Sizes};
use super::memory::scratch;
use super::{Algorithms, Cuda};
use crate::conv2d::Conv2dShape;
use crate::error::Result;
use crate::memory::{Accumulate, Real, View};
use cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as DataAlgorithm, cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm,
    cudnnConvolutionFwdAlgo_t as ForwardAlgorithm, cudnnConvolutionMode_t as Mode, cudnnTensorFormat_t as Format,
};
use cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnError, FilterDescriptor, TensorDescriptor, result,
};
use cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop, sys};
use std::mem::ManuallyDrop;
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
    opened: ManuallyDrop<Opened>,
    stream: Arc<CudaStream>,
}

/// What is given back to the library, in this order.
struct Opened {
    plans: Plans,
    rules: Rules,
    cudnn: Arc<Cudnn>,
}

// SAFETY: the library's handle and all that refers to it stand in this one value, which may go from thread to thread as long as one uses
// it at a time; the mutex sees to that.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // What is given back belongs to the context, and after a fault of the device the library takes nothing back: cudarc would panic.
        // A drop has nobody to tell of a failure.
        let _ = self.stream.context().bind_to_thread();
        if self.stream.synchronize().is_ok() {
            // SAFETY: this is the one place that drops it, and nothing uses it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.opened) };
        }
    }
}

/// Whether the library can be loaded; without it the first call would end the program.
fn is_present() -> bool {
    ["libcudnn.so.9", "libcudnn.so", "cudnn64_9.dll"].iter().any(|name| {
        // SAFETY: the library has no initialiser that asks anything of its caller.
        unsafe { libloading::Library::new(*name) }.is_ok()
    })
}

/// What the library gives as its version.
pub(super) fn version() -> usize {
    result::get_version()
}

impl Dnn {
    /// The library on this stream, if it is there and takes it.
    pub fn open(stream: &Arc<CudaStream>) -> Option<Self> {
        if !is_present() || result::get_version() < MIN_VERSION || stream.context().bind_to_thread().is_err() {
            return None;
        }
        let cudnn = Cudnn::new(stream.clone()).ok()?;
        let opened = ManuallyDrop::new(Opened { plans: Vec::new(), rules: Rules::open()?, cudnn });
        Some(Dnn(Mutex::new(Handle { opened, stream: stream.clone() })))
    }
}

/// Shapes that were met, with how each is computed if the library describes it.
type Plans = Vec<(Conv2dShape, Option<Plan>)>;

/// How one shape is computed.
struct Plan {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<f32>,
    y: TensorDescriptor<f32>,
    filter: FilterDescriptor<f32>,
    forward: Option<(ForwardAlgorithm, usize)>,
    data: Option<(DataAlgorithm, usize)>,
    weight: Option<(FilterAlgorithm, usize)>,
}

impl Plan {
    /// Nothing for shapes that the library does not describe.
    fn new(cudnn: &Arc<Cudnn>, rules: &Rules, s: &Conv2dShape, algorithms: Algorithms) -> Option<Self> {
        let sizes = Sizes::of(s)?;
        let mut conv = cudnn.create_conv2d(sizes.padding, sizes.stride, sizes.dilation, Mode::CUDNN_CROSS_CORRELATION).ok()?;
        conv.set_group_count(sizes.groups).ok()?;
        conv.set_math_type(sizes.math).ok()?;
        let plan = Plan {
            conv,
            x: cudnn.create_4d_tensor(Format::CUDNN_TENSOR_NHWC, sizes.x).ok()?,
            y: cudnn.create_4d_tensor(Format::CUDNN_TENSOR_NHWC, sizes.y).ok()?,
            filter: cudnn.create_4d_filter(Format::CUDNN_TENSOR_NHWC, sizes.filter).ok()?,
            forward: None,
            data: None,
            weight: None,
        };
        Some(plan.choose(rules, &sizes, algorithms))
    }

    fn choose(mut self, rules: &Rules, sizes: &Sizes, algorithms: Algorithms) -> Self {
        use {DataAlgorithm as Data, FilterAlgorithm as Filter, ForwardAlgorithm as Forward};
        let ordered = algorithms == Algorithms::Deterministic;
        let named = rules.ask(sizes);
        let call = self.forward_call();
        self.forward = first_that_fits(
            [
                named.forward,
                Some(Forward::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM),
                Some(Forward::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM),
            ],
            |algorithm| call.get_workspace_size(algorithm),
        );
        let call = self.data_call();
        let unordered = |algorithm: &Data| *algorithm == Data::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0;
        self.data = first_that_fits(
            [named.data.filter(|a| !(ordered && unordered(a))), Some(Data::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1), None],
            |algorithm| call.get_workspace_size(algorithm),
        );
        let call = self.weight_call();
        let unordered = |algorithm: &Filter| {
            matches!(algorithm, Filter::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0 | Filter::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3)
        };
        self.weight = first_that_fits(
            [named.weight.filter(|a| !(ordered && unordered(a))), Some(Filter::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1), None],
            |algorithm| call.get_workspace_size(algorithm),
        );
        self
    }

    /// The workspace that a product asks for; nothing if the library does not compute it.
    fn workspace_bytes(&self, product: Product) -> Option<usize> {
        match product {
            Product::Forward => self.forward.map(|(_, n_bytes)| n_bytes),
            Product::Data => self.data.map(|(_, n_bytes)| n_bytes),
            Product::Weight => self.weight.map(|(_, n_bytes)| n_bytes),
        }
    }

    /// Leaves a product to own kernels from now on.
    fn give_up(&mut self, product: Product) {
        match product {
            Product::Forward => self.forward = None,
            Product::Data => self.data = None,
            Product::Weight => self.weight = None,
        }
    }

    fn forward_call(&self) -> ConvForward<'_, f32, f32, f32> {
        ConvForward { conv: &self.conv, x: &self.x, w: &self.filter, y: &self.y }
    }

    fn data_call(&self) -> ConvBackwardData<'_, f32, f32, f32> {
        ConvBackwardData { conv: &self.conv, dx: &self.x, w: &self.filter, dy: &self.y }
    }

    fn weight_call(&self) -> ConvBackwardFilter<'_, f32, f32, f32> {
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

/// Whether the library says that it does not compute what it is asked for; its statuses go by thousands.
fn is_not_supported(error: CudnnError) -> bool {
    error.0 as u32 / 1000 == 3
}

impl Cuda {
    /// Whether there is cuDNN and it computes `product` of this shape.
    pub(crate) fn dnn_takes<T: Real>(&self, product: Product, s: &Conv2dShape) -> bool {
        // Depthwise convolutions are no products to speak of; own kernels read them as they stand.
        let empty = s.in_len() == 0 || s.out_len() == 0 || s.weight_len() == 0;
        let Some(dnn) = self.dnn().filter(|_| T::NAME == "f32" && !empty && !s.is_depthwise()) else { return false };
        if self.bind(OP).is_err() {
            return false;
        }
        let mut handle = dnn.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.plan(&mut handle, s).is_some_and(|plan| plan.workspace_bytes(product).is_some())
    }

    /// Computes `product` of a shape that [`Cuda::dnn_takes`]; what it yields (`y`, `x` or `filter`) is memory that the caller holds alone,
    /// replaced or added to by `mode`. Lengths were checked. False, and nothing done, where the library turns out not to compute it; it is
    /// not asked again.
    pub(crate) fn dnn_product<T: Real>(
        &self,
        product: Product,
        s: &Conv2dShape,
        x: View<'_, T>,
        filter: View<'_, T>,
        y: View<'_, T>,
        mode: Accumulate,
    ) -> Result<bool> {
        let (Some(dnn), View::Device(x), View::Device(filter), View::Device(y)) = (self.dnn(), x, filter, y) else {
            return Err(self.failure(OP, NOT_TAKEN));
        };
        let pointers = Pointers { x: *x.pointer(), y: *y.pointer(), filter: *filter.pointer() };
        let mut handle = dnn.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.run(&mut handle, product, s, pointers, mode)
    }

    pub(super) fn dnn(&self) -> Option<&Dnn> {
        self.0.dnn.get_or_init(|| Dnn::open(&self.0.stream)).as_ref()
    }

    fn plan<'h>(&self, handle: &'h mut Handle, s: &Conv2dShape) -> Option<&'h mut Plan> {
        let Opened { plans, rules, cudnn } = &mut *handle.opened;
        let idx = plans.iter().position(|(shape, _)| shape == s).unwrap_or_else(|| {
            plans.push((*s, Plan::new(cudnn, rules, s, self.algorithms())));
            plans.len() - 1
        });
        plans[idx].1.as_mut()
    }

    fn run(&self, handle: &mut Handle, product: Product, s: &Conv2dShape, at: Pointers, mode: Accumulate) -> Result<bool> {
        self.bind(OP)?;
        let plan = self.plan(handle, s);
        let Some((plan, n_bytes)) = plan.and_then(|plan| plan.workspace_bytes(product).map(|n_bytes| (plan, n_bytes))) else {
            return Err(self.failure(OP, NOT_TAKEN));
        };
        // Given back in the order of the stream, so the call may still be using it when this returns.
        let workspace = scratch::<u32>(self, n_bytes.div_ceil(4))?;
        let of = |pointer: sys::CUdeviceptr, len: usize| Run { pointer, len, stream: self.stream() };
        let mut space = match workspace.view() {
            View::Device(view) if n_bytes > 0 => Some(of(*view.pointer(), n_bytes)),
            _ => None,
        };
        let factors = (1.0, if mode == Accumulate::Add { 1.0 } else { 0.0 });
        let (mut x, mut y, mut filter) = (of(at.x, s.in_len()), of(at.y, s.out_len()), of(at.filter, s.weight_len()));
        // SAFETY: the pointers are those of images and filters of this shape on the device of the handle, and what is written is the
        // caller's alone; the workspace is as large as the library asked for.
        let status = unsafe {
            match (product, plan.forward, plan.data, plan.weight) {
                (Product::Forward, Some((algorithm, _)), ..) => {
                    plan.forward_call().launch(algorithm, space.as_mut(), factors, &x, &filter, &mut y)
                }
                (Product::Data, _, Some((algorithm, _)), _) => {
                    plan.data_call().launch(algorithm, space.as_mut(), factors, &mut x, &filter, &y)
                }
                (Product::Weight, .., Some((algorithm, _))) => {
                    plan.weight_call().launch(algorithm, space.as_mut(), factors, &x, &mut filter, &y)
                }
                _ => return Err(self.failure(OP, NOT_TAKEN)),
            }
        };
        match status {
            Ok(()) => Ok(true),
            Err(error) if is_not_supported(error) => {
                plan.give_up(product);
                Ok(false)
            }
            Err(error) => Err(self.failure(OP, format!("cuDNN: {error}"))),
        }
    }
}
