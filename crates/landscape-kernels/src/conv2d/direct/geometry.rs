//! How a convolution is cut for the direct kernel: groups of images, blocks of input channels, and where everything lies in the copy
//! of a group's images with their border.

use super::super::rows::Normalizer;
use super::super::shape::Conv2dShape;
use super::taps::Layout;
use crate::memory::Real;
use crate::parallel::{n_splits, split_range};
use std::ops::Range;

/// Input channels of a block at most: with 32 outputs and nine taps its weights are 74 KB, which fit in the second-level cache.
pub(super) const INPUTS: usize = 64;
/// Elements that the copy of a group of images aims at, for one block of inputs: 192 KiB.
const COPY: usize = 48 * 1024;
/// The same where a group costs more than its images: 512 KiB.
const LARGE_COPY: usize = 128 * 1024;
/// Elements of a group's outputs that still fit beside it.
const OUTPUTS: usize = 128 * 1024;
/// Output pixels below which a group does not pay for reading the weights.
const PIXELS: usize = 128;
/// Elements of the copy of one image above which columns are used, which cut an image into rows.
const MAX_IMAGE: usize = 256 * 1024;
/// Elements behind the images that a block may read without using them.
const SLACK: usize = 32;

/// The cuts; a function of the shape alone.
pub(super) struct Geometry {
    /// Rows and columns of an image's copy.
    size: [usize; 2],
    /// Steps of the kernel in the copy.
    stride: [usize; 2],
    /// Steps between the pixels that are copied: more than one where a kernel of one pixel leaves out the others.
    take: [usize; 2],
    /// Input channels of a block, of all but the last.
    pub(super) inputs: usize,
    /// Groups of images.
    pub(super) n_groups: usize,
    /// Images of the largest group.
    pub(super) images: usize,
}

impl Geometry {
    /// For the outputs.
    pub(super) fn new(s: &Conv2dShape) -> Self {
        let [height, width] = s.out_size();
        Self::with(s, COPY, OUTPUTS / (height * width * s.out_channels))
    }

    /// For the weight gradient, of which the part that belongs to a block is read and written once per group: the more blocks, the
    /// larger the groups.
    pub(super) fn for_weight(s: &Conv2dShape) -> Self {
        Self::with(s, if s.in_channels > INPUTS { LARGE_COPY } else { COPY }, usize::MAX)
    }

    fn with(s: &Conv2dShape, copy_len: usize, max_images: usize) -> Self {
        let n_blocks = s.in_channels.div_ceil(INPUTS);
        let inputs = s.in_channels.div_ceil(n_blocks);
        let leaves_out = s.kernel_size == [1, 1] && s.padding == [0, 0];
        let (size, stride, take) =
            if leaves_out { (s.out_size(), [1, 1], s.stride) } else { ([0, 1].map(|d| s.in_size[d] + 2 * s.padding[d]), s.stride, [1, 1]) };
        let [height, width] = s.out_size();
        let images = (copy_len / (size[0] * size[1] * inputs)).min(max_images).max(PIXELS.div_ceil(height * width)).clamp(1, s.n.max(1));
        // An even number of groups keeps two threads busy alike.
        let n_groups = s.n.div_ceil(images).next_multiple_of(2).clamp(1, s.n.max(1));
        Geometry { size, stride, take, inputs, n_groups, images: s.n.div_ceil(n_groups) }
    }

    /// Pixels of a row of an image's copy.
    pub(super) fn row_pixels(&self) -> usize {
        self.size[1]
    }

    /// Pixels of an image's copy.
    pub(super) fn image_pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Pixels of the copy from an output pixel to its neighbour in the row.
    pub(super) fn pixel_step(&self) -> usize {
        self.stride[1]
    }

    /// Whether an image's copy is small enough.
    pub(super) fn fits(&self) -> bool {
        self.size[0] * self.size[1] * self.inputs <= MAX_IMAGE
    }

    /// Tasks that groups are dealt to; each needs a copy at a time.
    pub(super) fn splits(&self) -> usize {
        n_splits(self.n_groups, 1)
    }

    /// The groups of a task.
    pub(super) fn groups_of(&self, split: usize, n_splits: usize) -> Range<usize> {
        split_range(self.n_groups, n_splits, split)
    }

    /// The images of a group: never more than the group before has.
    pub(super) fn images_of(&self, s: &Conv2dShape, group: usize) -> Range<usize> {
        split_range(s.n, self.n_groups, group)
    }

    /// Elements of a copy, a multiple of the vector length.
    pub(super) fn copy_len(&self) -> usize {
        (self.images * self.size[0] * self.size[1] * self.inputs + SLACK).next_multiple_of(16)
    }

    /// The blocks of input channels.
    pub(super) fn blocks(&self, s: &Conv2dShape) -> Vec<Range<usize>> {
        let c = s.in_channels;
        (0..c).step_by(self.inputs).map(|first| first..c.min(first + self.inputs)).collect()
    }

    /// Where taps lie in the copy of a block.
    pub(super) fn layout(&self, block: &Range<usize>) -> Layout {
        Layout { size: self.size, stride: self.stride, channels: block.len() }
    }

    /// Copies a block of channels of some images, through the prologue, with a border of zeros where `border` says that there is none
    /// from a group before.
    #[expect(clippy::too_many_arguments, reason = "what is copied, through what, and to where")]
    pub(super) fn fill<T: Real>(
        &self,
        s: &Conv2dShape,
        x: &[T],
        normalizer: Option<&Normalizer<T>>,
        images: Range<usize>,
        channels: &Range<usize>,
        border: Border,
        copy: &mut [T],
    ) {
        let c = channels.len();
        let [in_height, in_width] = s.in_size;
        let (row, padded_row) = (in_width * s.in_channels, self.size[1] * c);
        let n_columns = in_width.div_ceil(self.take[1]);
        let (left, middle) = (s.padding[1] * c, n_columns * c);
        for (image, out) in images.zip(copy.chunks_exact_mut(self.size[0] * padded_row)) {
            let x = &x[image * in_height * row..(image + 1) * in_height * row];
            let mut lines = out.chunks_exact_mut(padded_row);
            if border == Border::Missing {
                lines.by_ref().take(s.padding[0]).for_each(|line| line.fill(T::ZERO));
            } else {
                lines.by_ref().take(s.padding[0]).for_each(drop);
            }
            for (x, line) in x.chunks_exact(row).step_by(self.take[0]).zip(lines.by_ref()) {
                if border == Border::Missing {
                    line[..left].fill(T::ZERO);
                    line[left + middle..].fill(T::ZERO);
                }
                let line = &mut line[left..left + middle];
                match normalizer {
                    None if c == s.in_channels && self.take[1] == 1 => line.copy_from_slice(x),
                    None => {
                        let pixels = x.chunks_exact(s.in_channels).step_by(self.take[1]);
                        for (out, x) in line.chunks_exact_mut(c).zip(pixels) {
                            out.copy_from_slice(&x[channels.clone()]);
                        }
                    }
                    Some(normalizer) if c == s.in_channels && self.take[1] == 1 => normalizer.apply(x, line),
                    Some(normalizer) => normalizer.apply_pixels(x, self.take[1], channels, line),
                }
            }
            if border == Border::Missing {
                lines.for_each(|line| line.fill(T::ZERO));
            }
        }
    }
}

/// Whether the zeros around the copies are there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Border {
    Missing,
    Present,
}
