//! Which algorithms cuDNN's rules name for a shape.
//!
//! cudarc's calls for it end the program where the rules name none, which is an answer like any other here. It keeps its handle and
//! descriptors to itself, so these are others of the same shape, given back when the rules have answered.

use crate::conv2d::Conv2dShape;
use crate::precision::Precision;
use cudarc::cudnn::sys::{
    self, cudnnConvolutionBwdDataAlgo_t as DataAlgorithm, cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm,
    cudnnConvolutionFwdAlgo_t as ForwardAlgorithm, cudnnConvolutionMode_t as Mode, cudnnDataType_t as Numbers, cudnnMathType_t as Math,
    cudnnStatus_t as Status, cudnnTensorFormat_t as Format,
};
use cudarc::cudnn::{CudnnError, result};
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

/// A shape in the library's numbers, all of f32 and NHWC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub x: [c_int; 4],
    pub y: [c_int; 4],
    pub filter: [c_int; 4],
    pub padding: [c_int; 2],
    pub stride: [c_int; 2],
    pub dilation: [c_int; 2],
    pub groups: c_int,
    pub math: Math,
}

impl Sizes {
    /// Nothing where a number is too large.
    pub fn of(s: &Conv2dShape) -> Option<Self> {
        let int = |size: usize| c_int::try_from(size).ok();
        let pair = |[a, b]: [usize; 2]| Some([int(a)?, int(b)?]);
        let image = |channels: usize, [h, w]: [usize; 2]| Some([int(s.n)?, int(channels)?, int(h)?, int(w)?]);
        Some(Sizes {
            x: image(s.in_channels, s.in_size)?,
            y: image(s.out_channels, s.out_size())?,
            filter: [int(s.out_channels)?, int(s.in_group())?, int(s.kernel_size[0])?, int(s.kernel_size[1])?],
            padding: pair(s.padding)?,
            stride: pair(s.stride)?,
            dilation: pair(s.dilation)?,
            groups: int(s.groups)?,
            // The default lets products of f32 be rounded to TF32.
            math: if s.precision == Precision::Tf32 { Math::CUDNN_DEFAULT_MATH } else { Math::CUDNN_FMA_MATH },
        })
    }
}

/// What the rules name for each of the three products, where they name one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Named {
    pub forward: Option<ForwardAlgorithm>,
    pub data: Option<DataAlgorithm>,
    pub weight: Option<FilterAlgorithm>,
}

/// A handle to ask with.
pub(super) struct Rules(sys::cudnnHandle_t);

impl Rules {
    /// Nothing where the library gives no handle.
    pub fn open() -> Option<Self> {
        result::create_handle().ok().map(Rules)
    }

    /// What the rules name for a shape.
    pub fn ask(&self, sizes: &Sizes) -> Named {
        let Some(Described { x, y, filter, conv }) = &Described::new(sizes) else { return Named::default() };
        // SAFETY: handle and descriptors are alive, and one answer is asked for where there is room for one.
        unsafe {
            Named {
                forward: first(|n, answer| result::get_convolution_forward_algorithm(self.0, *x, *filter, *conv, *y, 1, n, answer))
                    .filter(|answer: &sys::cudnnConvolutionFwdAlgoPerf_t| answer.status == Status::CUDNN_STATUS_SUCCESS)
                    .map(|answer| answer.algo),
                data: first(|n, answer| result::get_convolution_backward_data_algorithm(self.0, *filter, *y, *conv, *x, 1, n, answer))
                    .filter(|answer: &sys::cudnnConvolutionBwdDataAlgoPerf_t| answer.status == Status::CUDNN_STATUS_SUCCESS)
                    .map(|answer| answer.algo),
                weight: first(|n, answer| result::get_convolution_backward_filter_algorithm(self.0, *x, *y, *conv, *filter, 1, n, answer))
                    .filter(|answer: &sys::cudnnConvolutionBwdFilterAlgoPerf_t| answer.status == Status::CUDNN_STATUS_SUCCESS)
                    .map(|answer| answer.algo),
            }
        }
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        // SAFETY: the handle is given back once; a drop has nobody to tell of a failure.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// The first answer, if there is any.
///
/// # Safety
/// `ask` must write an answer where it says that there is one.
unsafe fn first<P>(ask: impl FnOnce(*mut c_int, *mut P) -> Result<(), CudnnError>) -> Option<P> {
    let mut n_answers = 0;
    let mut answer = MaybeUninit::uninit();
    ask(&mut n_answers, answer.as_mut_ptr()).ok()?;
    // SAFETY: by the contract above.
    (n_answers > 0).then(|| unsafe { answer.assume_init() })
}

/// A shape as descriptors; those that were not made are null.
struct Described {
    x: sys::cudnnTensorDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    filter: sys::cudnnFilterDescriptor_t,
    conv: sys::cudnnConvolutionDescriptor_t,
}

impl Described {
    fn new(sizes: &Sizes) -> Option<Self> {
        let mut made = Described { x: ptr::null_mut(), y: ptr::null_mut(), filter: ptr::null_mut(), conv: ptr::null_mut() };
        made.x = result::create_tensor_descriptor().ok()?;
        made.y = result::create_tensor_descriptor().ok()?;
        made.filter = result::create_filter_descriptor().ok()?;
        made.conv = result::create_convolution_descriptor().ok()?;
        let (format, numbers) = (Format::CUDNN_TENSOR_NHWC, Numbers::CUDNN_DATA_FLOAT);
        let ([pad_h, pad_w], [stride_h, stride_w], [dilation_h, dilation_w]) = (sizes.padding, sizes.stride, sizes.dilation);
        let mode = Mode::CUDNN_CROSS_CORRELATION;
        // SAFETY: all four were made just now.
        unsafe {
            result::set_tensor4d_descriptor(made.x, format, numbers, sizes.x).ok()?;
            result::set_tensor4d_descriptor(made.y, format, numbers, sizes.y).ok()?;
            result::set_filter4d_descriptor(made.filter, numbers, format, sizes.filter).ok()?;
            result::set_convolution2d_descriptor(made.conv, pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, mode, numbers)
                .ok()?;
            result::set_convolution_group_count(made.conv, sizes.groups).ok()?;
            result::set_convolution_math_type(made.conv, sizes.math).ok()?;
        }
        Some(made)
    }
}

impl Drop for Described {
    fn drop(&mut self) {
        let Described { x, y, filter, conv } = *self;
        // SAFETY: what was made is given back once; a drop has nobody to tell of a failure.
        unsafe {
            for tensor in [x, y].into_iter().filter(|tensor| !tensor.is_null()) {
                let _ = result::destroy_tensor_descriptor(tensor);
            }
            if !filter.is_null() {
                let _ = result::destroy_filter_descriptor(filter);
            }
            if !conv.is_null() {
                let _ = result::destroy_convolution_descriptor(conv);
            }
        }
    }
}
