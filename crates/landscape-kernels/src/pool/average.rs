//! Average pooling.

use super::PoolShape;
use super::window::{Divisor, Windows, mean_backward, mean_forward};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};

/// Whether the zeros of the padding count as pixels of the mean: `count_include_pad` in PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Divide by the whole window (PyTorch's default).
    Counted,
    /// Divide by the pixels of the window that are in the image.
    NotCounted,
}

/// The mean of every window.
///
/// # Shapes
/// `x` `[n, h, w, channels]`; `y` `[n, h_out, w_out, channels]`.
///
/// # Errors
/// [`crate::Error::Shape`] as [`PoolShape::check`], [`crate::Error::Length`] where a length does not fit.
///
/// # Source
/// `torch.nn.AvgPool2d`; our sums are taken in double precision.
///
/// ```
/// use landscape_kernels::{View, pool::{Padding, PoolShape, average_forward}};
/// let shape = PoolShape { n: 1, channels: 1, in_size: [2, 2], kernel_size: [2, 2], stride: [2, 2], padding: [0, 0] };
/// let mut y = [0.0_f32];
/// average_forward(&shape, Padding::Counted, View::Host(&[1.0, 2.0, 3.0, 6.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [3.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn average_forward<T: Real>(shape: &PoolShape, padding: Padding, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let [in_len, out_len] = shape.lengths("average_forward")?;
    check_len("average_forward", "x", in_len, x.len())?;
    check_len("average_forward", "y", out_len, y.len())?;
    if out_len > 0 {
        on_device!("average_forward", [x, y], gpu => super::cuda::mean_forward(gpu, on_gpu(shape, padding), x, y));
        mean_forward(&Windows::of(shape), divisor(shape, padding), shape.in_size, shape.channels, x.host(), y.host());
    }
    Ok(())
}

/// The gradient of [`average_forward`]: every pixel of a window gets its share of dy.
///
/// # Shapes
/// `dy` `[n, h_out, w_out, channels]`; `dx` `[n, h, w, channels]`.
///
/// # Errors
/// As [`average_forward`].
pub fn average_backward<T: Real>(shape: &PoolShape, padding: Padding, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let [in_len, out_len] = shape.lengths("average_backward")?;
    check_len("average_backward", "dy", out_len, dy.len())?;
    check_len("average_backward", "dx", in_len, dx.len())?;
    if out_len > 0 {
        on_device!("average_backward", [dy, dx], gpu => super::cuda::mean_backward(gpu, on_gpu(shape, padding), dy, dx, mode));
        mean_backward(&Windows::of(shape), divisor(shape, padding), shape.in_size, shape.channels, dy.host(), dx.host(), mode);
    }
    Ok(())
}

/// The windows as kernels for GPUs take them.
#[cfg(feature = "cuda")]
fn on_gpu(shape: &PoolShape, padding: Padding) -> super::cuda::Windows {
    let divisor = match divisor(shape, padding) {
        Divisor::Fixed(n) => n,
        Divisor::Pixels => 0.0,
    };
    super::cuda::Windows::of(shape, divisor)
}

fn divisor(shape: &PoolShape, padding: Padding) -> Divisor {
    match padding {
        Padding::Counted => Divisor::Fixed(shape.kernel_size[0] as f64 * shape.kernel_size[1] as f64),
        Padding::NotCounted => Divisor::Pixels,
    }
}
