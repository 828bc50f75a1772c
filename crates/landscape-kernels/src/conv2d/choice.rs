//! Which kernel computes a convolution: a rule by shape and scalar, from the measurements below, and never from timing at run time,
//! because the kernels round differently.
//!
//! Milliseconds for forward, input gradient and weight gradient at batch 128 in `f32`, two AVX-512 cores (Zen 5), two threads, medians,
//! by a build that forced each kernel in turn, layer by layer. The machine was not alone and ran at about half its speed, so the pairs
//! are what counts, and not the numbers. `cargo bench -p landscape-benches --bench kernels conv2d` measures the kernel that is chosen.
//!
//! | layer | direct | columns and matrix products | chosen |
//! |---|---|---|---|
//! | 3-16, 32x32, 3x3 | 0.45, 1.6, 0.34 | 1.5, 5.0, 1.7 | direct |
//! | 16-16, 32x32, 3x3 | 1.8, 3.1, 3.4 | 4.7, 4.6, 5.4 | direct |
//! | 16-32, 32x32, 3x3, stride 2 (input gradient by columns in both) | 1.5, -, 1.1 | 4.4, -, 9.3 | direct |
//! | 16-32, 32x32, 1x1, stride 2 (input gradient by columns in both) | 0.39, -, 0.25 | 0.43, -, 0.23 | direct |
//! | 32-32, 16x16, 3x3 | 2.9, 2.8, 3.1 | 4.7, 4.7, 5.0 | direct |
//! | 64-64, 8x8, 3x3 | 1.7, 1.7, 3.1 | 3.9, 4.1, 4.1 | direct |
//! | 128-128, 16x16, 3x3 | 51, 47, 50 | 49, 61, 112 | direct |
//! | 256-256, 8x8, 3x3 | 65, 69, 72 | 71, 94, 123 | direct |
//! | 512-512, 4x4, 3x3 | 97, 113, 71 | 82, 102, 231 | direct |
//! | 512-512, 2x2, 3x3 | 23, 23, 20 | 28, 45, 68 | direct |
//! | 64-256, 16x16, 1x1 | 4.9, 4.8, 4.9 | 3.7, 3.3, 4.9 | columns |
//!
//! In bf16 the rule is the same. Milliseconds in `f32` and in bf16 by `vdpbf16ps`, interleaved in one run on the same machine with all else
//! stopped, medians of seven:
//!
//! | layer | forward | input gradient | weight gradient |
//! |---|---|---|---|
//! | 3-16, 32x32, 3x3 | 1.04, 1.18 | 2.06, 1.46 | 0.64, 0.99 |
//! | 16-16, 32x32, 3x3 | 3.53, 2.20 | 3.46, 2.14 | 3.79, 2.65 |
//! | 16-32, 32x32, 3x3, stride 2 | 1.81, 1.34 | 2.46, 2.07 | 1.94, 1.52 |
//! | 32-32, 16x16, 3x3 | 2.80, 1.74 | 2.77, 1.66 | 3.09, 1.85 |
//! | 64-64, 8x8, 3x3 | 2.54, 1.42 | 2.53, 1.40 | 2.79, 1.63 |
//! | 128-128, 16x16, 3x3 | 25.1, 12.7 | 24.1, 12.0 | 26.2, 15.4 |
//! | 256-256, 8x8, 3x3 | 24.2, 12.2 | 23.4, 11.8 | 25.9, 15.0 |
//! | 512-512, 4x4, 3x3 | 22.8, 11.7 | 21.9, 11.5 | 20.5, 13.2 |
//! | 512-512, 2x2, 3x3 | 6.12, 4.36 | 7.06, 3.14 | 4.36, 3.33 |
//! | 64-256, 16x16, 1x1 | 4.24, 3.73 | 5.63, 2.95 | 5.66, 4.58 |
//!
//! Double precision has no direct kernel; channels in groups and images whose copy would leave the second-level cache take columns.

use super::direct;
use super::shape::Conv2dShape;
use crate::memory::Real;
use crate::pairs;
use crate::precision::Precision;
use std::any::TypeId;

/// The ways to compute a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// [`direct`]: single precision.
    Direct,
    /// [`super::depthwise`].
    Depthwise,
    /// [`super::column`]: anything.
    Column,
}

/// The kernel for a convolution of scalars `T`.
pub(super) fn kernel<T: Real>(s: &Conv2dShape) -> Kernel {
    if s.is_depthwise() {
        Kernel::Depthwise
    } else if TypeId::of::<T>() == TypeId::of::<f32>() && is_direct(s) {
        Kernel::Direct
    } else {
        Kernel::Column
    }
}

/// Whether operands are rounded to bf16 before anything else, so that the kernels of `f32` compute on them: where there are no kernels on
/// pairs.
pub(super) fn rounds_first(s: &Conv2dShape) -> bool {
    s.precision == Precision::Bf16 && (s.is_depthwise() || !pairs::are_fast())
}

/// Whether the direct kernel computes this convolution in single precision.
pub(super) fn is_direct(s: &Conv2dShape) -> bool {
    // A kernel of one pixel at every pixel is a matrix product as it stands. A single output leaves 15 of 16 lanes idle.
    !s.is_pointwise() && s.out_channels >= MIN_OUTPUTS && direct::fits(s)
}

/// Output channels from which the direct kernel pays.
const MIN_OUTPUTS: usize = 2;
