//! Average pooling to a given output size; `[1, 1]` is global average pooling.

use super::window::{Divisor, Windows, mean_backward, mean_forward};
use crate::check::{n_elements, shape_error};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};

/// The sizes of an adaptive average pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveShape {
    /// Images.
    pub n: usize,
    /// Channels.
    pub channels: usize,
    /// Height and width of the input.
    pub in_size: [usize; 2],
    /// Height and width of the output; may exceed the input's, windows then repeat.
    pub out_size: [usize; 2],
}

impl AdaptiveShape {
    /// Elements of the input and of the output.
    fn lengths(&self, op: &'static str) -> Result<[usize; 2]> {
        for (name, size) in [("in_size", self.in_size), ("out_size", self.out_size)] {
            if size.contains(&0) {
                return Err(shape_error(op, format!("`{name}` must be at least 1 on both axes, got {size:?}")));
            }
        }
        for axis in 0..2 {
            // The bounds of the last window are made from this product.
            n_elements(op, &[self.in_size[axis], self.out_size[axis], 2])?;
        }
        let [in_len, out_len] = [self.in_size, self.out_size].map(|size| n_elements(op, &[self.n, self.channels, size[0], size[1]]));
        Ok([in_len?, out_len?])
    }

    /// Window i of an axis: from ⌊i·in/out⌋ to ⌈(i + 1)·in/out⌉.
    fn windows(&self) -> Windows {
        let [rows, columns] = [0, 1].map(|axis| {
            let (input, output) = (self.in_size[axis], self.out_size[axis]);
            (0..output).map(|i| i * input / output..((i + 1) * input).div_ceil(output)).collect()
        });
        Windows { rows, columns }
    }
}

/// The mean of window i, from ⌊i·in/out⌋ to ⌈(i + 1)·in/out⌉ on each axis.
///
/// # Shapes
/// `x` `[n, h, w, channels]`; `y` `[n, h_out, w_out, channels]`.
///
/// # Errors
/// [`crate::Error::Shape`] if a size is 0 or a product of sizes overflows, [`crate::Error::Length`] where a length does not fit.
///
/// # Source
/// `torch.nn.AdaptiveAvgPool2d`; our sums are taken in double precision.
///
/// ```
/// use landscape_kernels::{View, pool::{AdaptiveShape, adaptive_average_forward}};
/// let global = AdaptiveShape { n: 1, channels: 2, in_size: [1, 2], out_size: [1, 1] };
/// let mut y = [0.0_f32; 2];
/// adaptive_average_forward(&global, View::Host(&[1.0, 10.0, 3.0, 20.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [2.0, 15.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn adaptive_average_forward<T: Real>(shape: &AdaptiveShape, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let [in_len, out_len] = shape.lengths("adaptive_average_forward")?;
    check_len("adaptive_average_forward", "x", in_len, x.len())?;
    check_len("adaptive_average_forward", "y", out_len, y.len())?;
    if out_len > 0 {
        on_device!(
            "adaptive_average_forward",
            [x, y],
            gpu => super::cuda::mean_forward(gpu, super::cuda::Windows::adaptive(shape), x, y)
        );
        mean_forward(&shape.windows(), Divisor::Pixels, shape.in_size, shape.channels, x.host(), y.host());
    }
    Ok(())
}

/// The gradient of [`adaptive_average_forward`].
///
/// # Shapes
/// `dy` `[n, h_out, w_out, channels]`; `dx` `[n, h, w, channels]`.
///
/// # Errors
/// As [`adaptive_average_forward`].
pub fn adaptive_average_backward<T: Real>(shape: &AdaptiveShape, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let [in_len, out_len] = shape.lengths("adaptive_average_backward")?;
    check_len("adaptive_average_backward", "dy", out_len, dy.len())?;
    check_len("adaptive_average_backward", "dx", in_len, dx.len())?;
    if out_len > 0 {
        on_device!(
            "adaptive_average_backward",
            [dy, dx],
            gpu => super::cuda::mean_backward(gpu, super::cuda::Windows::adaptive(shape), dy, dx, mode)
        );
        mean_backward(&shape.windows(), Divisor::Pixels, shape.in_size, shape.channels, dy.host(), dx.host(), mode);
    }
    Ok(())
}
