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
