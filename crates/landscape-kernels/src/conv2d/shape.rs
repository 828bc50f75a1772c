//! The sizes of a convolution, what they must satisfy, and which way it is computed.

use super::{choice, column, depthwise, direct, rounded};
use crate::error::{Error, Result};
use crate::precision::Precision;

/// The name that errors carry.
pub(super) const OP: &str = "conv2d";

/// The sizes of a two-dimensional convolution; pairs are (height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dShape {
    /// Examples.
    pub n: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Height and width of the input.
    pub in_size: [usize; 2],
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel_size: [usize; 2],
    /// Steps of the kernel.
    pub stride: [usize; 2],
    /// Zeros added on either side.
    pub padding: [usize; 2],
    /// Distance of neighbouring taps.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// In what products are computed.
    pub precision: Precision,
}

impl Conv2dShape {
    /// Height and width of the output: ⌊(in + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1.
    ///
    /// Meaningful only for shapes that pass [`Conv2dShape::check`].
    pub fn out_size(&self) -> [usize; 2] {
        [0, 1].map(|d| (self.in_size[d] + 2 * self.padding[d]).saturating_sub(self.reach(d)) / self.stride[d].max(1) + 1)
    }

    /// Rows or columns that the kernel reaches over.
    fn reach(&self, d: usize) -> usize {
        self.dilation[d] * self.kernel_size[d].saturating_sub(1) + 1
    }

    /// Whether the sizes make a convolution.
    ///
    /// # Errors
    /// [`Error::Shape`] for zero sizes, groups that do not divide the channels, a kernel larger than the padded input, and sizes
    /// whose product overflows.
    pub fn check(&self) -> Result<()> {
        let fail = |reason: String| Err(Error::Shape { op: OP, reason });
        for (name, [h, w]) in
            [("in_size", self.in_size), ("kernel_size", self.kernel_size), ("stride", self.stride), ("dilation", self.dilation)]
        {
            if h == 0 || w == 0 {
                return fail(format!("`{name}` must be at least 1, got {h}x{w}"));
            }
        }
        for (name, value) in [("in_channels", self.in_channels), ("out_channels", self.out_channels), ("groups", self.groups)] {
            if value == 0 {
                return fail(format!("`{name}` must be at least 1, got 0"));
            }
        }
        for (name, value) in [("in_channels", self.in_channels), ("out_channels", self.out_channels)] {
            if value % self.groups != 0 {
                return fail(format!("`{name}` must be a multiple of `groups` = {}, got {value}", self.groups));
            }
        }
        if !self.fits() {
            return fail("the product of the sizes must fit in memory".to_owned());
        }
        for d in [0, 1] {
            let padded = self.in_size[d] + 2 * self.padding[d];
            if self.reach(d) > padded {
                return fail(format!("the kernel must fit in the padded input: it reaches over {}, got {padded}", self.reach(d)));
            }
        }
        Ok(())
    }

    /// Whether all products of sizes that the kernels form stay far below the address space.
    fn fits(&self) -> bool {
        let product = |factors: &[usize]| factors.iter().try_fold(1_usize, |p, &f| p.checked_mul(f).filter(|&p| p < 1 << 46));
        let small = |d: usize| self.padding[d] < 1 << 30 && self.in_size[d] < 1 << 30 && self.stride[d] < 1 << 30;
        let reach = |d: usize| product(&[self.dilation[d], self.kernel_size[d]]).is_some_and(|r| r < 1 << 31);
        if !(0..2).all(|d| small(d) && reach(d)) {
            return false;
        }
        let [ph, pw] = [0, 1].map(|d| self.in_size[d] + 2 * self.padding[d]);
        product(&[self.n.max(1), ph, pw, self.in_channels.max(self.out_channels)]).is_some()
            && product(&[self.kernel_size[0], self.kernel_size[1], self.in_channels, self.out_channels]).is_some()
    }

    /// Elements of the input.
    pub fn in_len(&self) -> usize {
        self.n * self.in_size[0] * self.in_size[1] * self.in_channels
    }

    /// Elements of the output.
    pub fn out_len(&self) -> usize {
        let [h, w] = self.out_size();
        self.n * h * w * self.out_channels
    }

    /// Elements of the weight, in either layout.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.in_group() * self.n_taps()
    }

    /// Elements of scratch memory that the three functions need at most; a function of the shape and, in bf16,
    /// of the level and whether the processor multiplies pairs. Asking therefore fixes the level ([`crate::simd`]).
    pub fn scratch_len(&self) -> usize {
        if choice::rounds_first(self) {
            return rounded::plain(self).scratch_len() + rounded::scratch_len(self);
        }
        if self.is_depthwise() {
            return depthwise::scratch_len(self);
        }
        let direct = if choice::is_direct(self) { direct::forward_scratch_len(self).max(direct::weight_scratch_len(self)) } else { 0 };
        // The input gradient is a convolution of another shape, for which the choice may be another one too.
        let transposed = self.transposed().filter(choice::is_direct).map_or(0, |t| direct::forward_scratch_len(&t));
        column::scratch_len(self).max(direct).max(transposed)
    }

    /// Elements of scratch memory that the functions need at most where the input is read through a prologue.
    pub fn fused_scratch_len(&self) -> usize {
        // The other kernels copy parts of the input anyway; the depthwise one reads it as it stands.
        self.scratch_len() + if self.is_depthwise() && !choice::rounds_first(self) { self.in_len() } else { 0 }
    }

    /// Input channels of one group.
    pub(crate) fn in_group(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels of one group.
    pub(super) fn out_group(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Taps of the kernel.
    pub(super) fn n_taps(&self) -> usize {
        self.kernel_size[0] * self.kernel_size[1]
    }

    /// Summed dimension of the product of one group: taps times input channels.
    pub(super) fn k(&self) -> usize {
        self.n_taps() * self.in_group()
    }

    /// One input channel to one output channel, with taps: vectorised over channels instead of by products.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.in_group() == 1 && self.out_group() == 1
    }

    /// A kernel of one pixel at every pixel: a matrix product as it stands.
    pub(super) fn is_pointwise(&self) -> bool {
        self.groups == 1 && self.kernel_size == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    /// The convolution that maps the output gradient to the input gradient, with flipped taps, where it is one of this kind.
    ///
    /// For stride 1: padding′ = dilation·(kernel − 1) − padding, channels exchanged.
    pub(super) fn transposed(&self) -> Option<Conv2dShape> {
        let out_size = self.out_size();
        let padding = [0, 1].map(|d| (self.reach(d) - 1).checked_sub(self.padding[d]));
        match (self.stride, padding) {
            ([1, 1], [Some(py), Some(px)]) => Some(Conv2dShape {
                in_channels: self.out_channels,
                out_channels: self.in_channels,
                in_size: out_size,
                padding: [py, px],
                ..*self
            }),
            _ => None,
        }
    }
}
