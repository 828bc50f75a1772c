//! Maximum pooling, with the place of each maximum for the way back.

use super::PoolShape;
use super::window::Windows;
use crate::check::shape_error;
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::CHUNK;
use crate::simd::multiversion;
use rayon::prelude::*;

/// The maximum of every window, and its place: row·w + column in the plane of the input. The first of equals wins; NaN is larger
/// than all, and of several the last wins.
///
/// # Shapes
/// `x` `[n, h, w, channels]`; `y`, `argmax` `[n, h_out, w_out, channels]`.
///
/// # Errors
/// [`crate::Error::Shape`] as [`PoolShape::check`], or if a plane has more than 2³² pixels; [`crate::Error::Length`] where a length
/// does not fit.
///
/// # Source
/// `torch.nn.MaxPool2d` with `return_indices=True`, NaN as there.
///
/// ```
/// use landscape_kernels::{View, pool::{PoolShape, max_forward}};
/// let shape = PoolShape { n: 1, channels: 1, in_size: [2, 2], kernel_size: [2, 2], stride: [2, 2], padding: [0, 0] };
/// let (mut y, mut argmax) = ([0.0_f32], [0]);
/// max_forward(&shape, View::Host(&[1.0, 2.0, 4.0, 3.0]), (&mut y[..]).into(), (&mut argmax[..]).into())?;
/// assert_eq!((y, argmax), ([4.0], [2]));
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn max_forward<T: Real>(shape: &PoolShape, x: View<'_, T>, y: ViewMut<'_, T>, argmax: ViewMut<'_, u32>) -> Result<()> {
    const OP: &str = "max_forward";
    let [in_len, out_len] = shape.lengths(OP)?;
    check_len(OP, "x", in_len, x.len())?;
    check_len(OP, "y", out_len, y.len())?;
    check_len(OP, "argmax", out_len, argmax.len())?;
    if out_len == 0 {
        return Ok(());
    }
    let (channels, width) = (shape.channels, shape.in_size[1]);
    if u32::try_from(shape.in_size[0] * width - 1).is_err() {
        return Err(shape_error(OP, format!("`in_size` must have at most 2^32 pixels, got {:?}", shape.in_size)));
    }
    on_device!(OP, [x, y, argmax], gpu => super::cuda::max_forward(gpu, shape, x, y, argmax));
    let windows = Windows::of(shape);
    let argmax = argmax.host();
    let images = x.host().par_chunks_exact(in_len / shape.n);
    let outputs = y.host().par_chunks_exact_mut(out_len / shape.n).zip(argmax.par_chunks_exact_mut(out_len / shape.n));
    images.zip(outputs).for_each(|(x, (y, argmax))| {
        windows.for_each(|pixel, rows, columns| {
            let out = pixel * channels..(pixel + 1) * channels;
            let (y, argmax) = (&mut y[out.clone()], &mut argmax[out]);
            let first = rows.start * width + columns.start;
            y.copy_from_slice(&x[first * channels..][..channels]);
            argmax.fill(first as u32);
            for row in rows.clone() {
                let start = row * width + columns.start;
                keep_larger(&x[start * channels..][..columns.len() * channels], start as u32, y, argmax);
            }
        });
    });
    Ok(())
}

/// The gradient of [`max_forward`]: dy goes to where the maximum was.
///
/// # Shapes
/// `argmax`, `dy` `[n, h_out, w_out, channels]`; `dx` `[n, h, w, channels]`.
///
/// # Errors
/// As [`max_forward`]; also [`crate::Error::Shape`] if an entry of `argmax` is no pixel of the input (on a GPU it goes nowhere).
pub fn max_backward<T: Real>(
    shape: &PoolShape,
    argmax: View<'_, u32>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    const OP: &str = "max_backward";
    let [in_len, out_len] = shape.lengths(OP)?;
    check_len(OP, "argmax", out_len, argmax.len())?;
    check_len(OP, "dy", out_len, dy.len())?;
    check_len(OP, "dx", in_len, dx.len())?;
    if out_len == 0 {
        return Ok(());
    }
    on_device!(OP, [argmax, dy, dx], gpu => super::cuda::max_backward(gpu, shape, argmax, dy, dx, mode));
    let argmax = argmax.host();
    let (channels, n_pixels) = (shape.channels, shape.in_size[0] * shape.in_size[1]);
    let largest = argmax.par_chunks(CHUNK).map(|part| part.iter().fold(0, |largest, &place| place.max(largest))).max();
    if let Some(place) = largest.filter(|place| *place as usize >= n_pixels) {
        return Err(shape_error(OP, format!("`argmax` must be below {n_pixels}, got {place}")));
    }
    let images = argmax.par_chunks_exact(out_len / shape.n).zip(dy.host().par_chunks_exact(out_len / shape.n));
    dx.host().par_chunks_exact_mut(in_len / shape.n).zip(images).for_each(|(dx, (argmax, dy))| {
        if mode == Accumulate::Overwrite {
            dx.fill(T::ZERO);
        }
        for (places, dy) in argmax.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
            for (channel, (&place, &dy)) in places.iter().zip(dy).enumerate() {
                dx[place as usize * channels + channel] += dy;
            }
        }
    });
    Ok(())
}

multiversion! {
    fn keep_larger<T>(pixels: &[T], first: u32, y: &mut [T], argmax: &mut [u32]) {
        for (x, place) in pixels.chunks_exact(y.len()).zip(first..) {
            for ((y, argmax), &x) in y.iter_mut().zip(argmax.iter_mut()).zip(x) {
                let larger = x > *y || x.is_nan();
                *y = if larger { x } else { *y };
                *argmax = if larger { place } else { *argmax };
            }
        }
    }
}
