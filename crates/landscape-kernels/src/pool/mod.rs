//! Maximum, average and adaptive average pooling of channels-last images, and means over one axis.
//!
//! The first three are windows on two axes: an output pixel looks at a range of rows and a range of columns, clipped to the image.

mod adaptive;
mod average;
mod max;
mod mean;
mod window;
#[cfg(feature = "cuda")]
mod cuda;

pub use adaptive::{AdaptiveShape, adaptive_average_backward, adaptive_average_forward};
pub use average::{Padding, average_backward, average_forward};
pub use max::{max_backward, max_forward};
pub use mean::{mean_backward, mean_forward};

use crate::check::{n_elements, shape_error};
use crate::error::Result;

/// The sizes of a pooling with a fixed window, as `torch.nn.MaxPool2d` and `AvgPool2d` name them (`ceil_mode=False`, no dilation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolShape {
    /// Images.
    pub n: usize,
    /// Channels.
    pub channels: usize,
    /// Height and width of the input.
    pub in_size: [usize; 2],
    /// Height and width of the window.
    pub kernel_size: [usize; 2],
    /// Distance from a window to the next, down and across.
    pub stride: [usize; 2],
    /// Rows above and below, columns left and right, that are not in the image.
    pub padding: [usize; 2],
}

impl PoolShape {
    /// ⌊(in + 2·padding − kernel)/stride⌋ + 1 on each axis, 0 where the window does not fit or an attribute is out of range.
    pub fn out_size(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let padded = self.padding[axis].checked_mul(2).and_then(|both| both.checked_add(self.in_size[axis]));
            let room = padded.and_then(|padded| padded.checked_sub(self.kernel_size[axis]));
            room.and_then(|room| room.checked_div(self.stride[axis])).map_or(0, |steps| steps.saturating_add(1))
        })
    }

    /// Fails unless every window holds a pixel of the image: kernel and stride positive, padding at most half the kernel, as in PyTorch.
    ///
    /// # Errors
    /// [`crate::Error::Shape`], naming the attribute; also where a product of the sizes overflows.
    pub fn check(&self) -> Result<()> {
        self.lengths("pool").map(|_| ())
    }

    /// Elements of the input and of the output.
    pub(super) fn lengths(&self, op: &'static str) -> Result<[usize; 2]> {
        for axis in 0..2 {
            for (name, size) in [("in_size", self.in_size), ("kernel_size", self.kernel_size), ("stride", self.stride)] {
                if size[axis] == 0 {
                    return Err(shape_error(op, format!("`{name}` must be at least 1 on both axes, got {size:?}")));
                }
            }
            if self.padding[axis] > self.kernel_size[axis] / 2 {
                let (padding, kernel) = (self.padding, self.kernel_size);
                return Err(shape_error(op, format!("`padding` must be at most half of `kernel_size` {kernel:?}, got {padding:?}")));
            }
        }
        let out = self.out_size();
        if out.contains(&0) {
            let (kernel, input, padding) = (self.kernel_size, self.in_size, self.padding);
            return Err(shape_error(op, format!("`kernel_size` {kernel:?} must fit the input {input:?} with `padding` {padding:?}")));
        }
        let [in_len, out_len] = [self.in_size, out].map(|size| n_elements(op, &[self.n, self.channels, size[0], size[1]]));
        Ok([in_len?, out_len?])
    }
}

#[cfg(test)]
mod tests;
