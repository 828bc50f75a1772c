//! Images in another size, as PyTorch's `interpolate`; channels last.
//!
//! Rows and columns are apart: an output pixel is a sum over a few rows times a few columns, and so is the gradient of an input pixel, over
//! the tables turned round. Both are one loop.

mod taps;
#[cfg(feature = "cuda")]
mod cuda;

use crate::check::{n_elements, shape_error};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::for_each_chunk_mut;
use crate::simd::multiversion;
use taps::Taps;

/// How pixels between others are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upsampling {
    /// The pixel whose square they are in.
    Nearest,
    /// Between the two nearest on either axis, by distance.
    Bilinear {
        /// Whether the centres of the corner pixels of both images coincide, instead of the corners of the images.
        align_corners: bool,
    },
}

/// The sizes of both images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpsampleShape {
    /// Images.
    pub n: usize,
    /// Channels.
    pub channels: usize,
    /// Height and width of the input.
    pub in_size: [usize; 2],
    /// Height and width of the output; may be smaller.
    pub out_size: [usize; 2],
    /// How pixels between others are made.
    pub method: Upsampling,
}

impl UpsampleShape {
    /// Fails unless both images have pixels.
    ///
    /// # Errors
    /// [`crate::Error::Shape`], naming the attribute; also where a product of the sizes overflows.
    pub fn check(&self) -> Result<()> {
        self.lengths("upsample").map(|_| ())
    }

    /// Elements of the input and of the output.
    fn lengths(&self, op: &'static str) -> Result<[usize; 2]> {
        for (name, size) in [("in_size", self.in_size), ("out_size", self.out_size)] {
            if size.contains(&0) {
                return Err(shape_error(op, format!("`{name}` must be at least 1 on both axes, got {size:?}")));
            }
        }
        let [in_len, out_len] = [self.in_size, self.out_size].map(|size| n_elements(op, &[self.n, self.channels, size[0], size[1]]));
        Ok([in_len?, out_len?])
    }

    /// What each output row and column is made of.
    fn taps(&self) -> [Taps; 2] {
        [0, 1].map(|axis| Taps::new(self.method, self.in_size[axis], self.out_size[axis]))
    }

    /// Where each input row and column goes.
    fn turned_taps(&self) -> [Taps; 2] {
        let taps = self.taps();
        [0, 1].map(|axis| taps[axis].turned(self.in_size[axis]))
    }
}

/// y = x in another size.
///
/// # Shapes
/// `x` `[n, h, w, channels]`; `y` `[n, h_out, w_out, channels]`.
///
/// # Errors
/// [`crate::Error::Shape`] if a size is 0 or a product of sizes overflows, [`crate::Error::Length`] where a length does not fit.
///
/// # Source
/// `torch.nn.functional.interpolate` with `size` or a whole `scale_factor`; which pixel is nearest is computed in single precision there, and
/// so it is here. Our weights and sums are in double precision.
///
/// ```
/// use landscape_kernels::{View, upsample::{UpsampleShape, Upsampling, forward}};
/// let shape = UpsampleShape { n: 1, channels: 1, in_size: [1, 2], out_size: [1, 4], method: Upsampling::Nearest };
/// let mut y = [0.0_f32; 4];
/// forward(&shape, View::Host(&[1.0, 3.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [1.0, 1.0, 3.0, 3.0]);
/// let smooth = UpsampleShape { method: Upsampling::Bilinear { align_corners: false }, ..shape };
/// forward(&smooth, View::Host(&[1.0, 3.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [1.0, 1.5, 2.5, 3.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(shape: &UpsampleShape, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let [in_len, out_len] = shape.lengths("upsample_forward")?;
    check_len("upsample_forward", "x", in_len, x.len())?;
    check_len("upsample_forward", "y", out_len, y.len())?;
    if out_len > 0 {
        let taps = shape.taps();
        on_device!("upsample_forward", [x, y], gpu => cuda::apply(gpu, &taps, [shape.channels, shape.in_size[0], shape.in_size[1]], x, y, Accumulate::Overwrite));
        apply(&taps, shape.channels, shape.in_size, x.host(), y.host(), Accumulate::Overwrite);
    }
    Ok(())
}

/// The gradient of [`forward`].
///
/// # Shapes
/// `dy` `[n, h_out, w_out, channels]`; `dx` `[n, h, w, channels]`.
///
/// # Errors
/// As [`forward`].
pub fn backward<T: Real>(shape: &UpsampleShape, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let [in_len, out_len] = shape.lengths("upsample_backward")?;
    check_len("upsample_backward", "dy", out_len, dy.len())?;
    check_len("upsample_backward", "dx", in_len, dx.len())?;
    if out_len > 0 {
        let taps = shape.turned_taps();
        on_device!("upsample_backward", [dy, dx], gpu => cuda::apply(gpu, &taps, [shape.channels, shape.out_size[0], shape.out_size[1]], dy, dx, mode));
        apply(&taps, shape.channels, shape.out_size, dy.host(), dx.host(), mode);
    }
    Ok(())
}

/// One row of pixels after the other: Σ_rows Σ_columns (row weight · column weight)·x.
fn apply<T: Real>([rows, columns]: &[Taps; 2], channels: usize, [height, width]: [usize; 2], x: &[T], y: &mut [T], mode: Accumulate) {
    let row_len = width * channels;
    for_each_chunk_mut(y, columns.len() * channels, |idx, y| {
        let image = &x[idx / rows.len() * height * row_len..][..height * row_len];
        apply_row(rows.of(idx % rows.len()), columns, row_len, image, y, mode);
    });
}

multiversion! {
    fn apply_row<T>(rows: (&[u32], &[f64]), columns: &Taps, row_len: usize, image: &[T], y: &mut [T], mode: Accumulate) {
        let channels = y.len() / columns.len();
        let mut sums = vec![0.0; channels];
        for (column, y) in y.chunks_exact_mut(channels).enumerate() {
            let (places, weights) = columns.of(column);
            if let (([row], [row_weight]), [place], [weight], Accumulate::Overwrite) = (rows, places, weights, mode)
                && row_weight * weight == 1.0
            {
                y.copy_from_slice(&image[*row as usize * row_len + *place as usize * channels..][..channels]);
                continue;
            }
            sums.fill(0.0);
            for (&row, row_weight) in rows.0.iter().zip(rows.1) {
                for (&place, weight) in places.iter().zip(weights) {
                    let factor = row_weight * weight;
                    let x = &image[row as usize * row_len + place as usize * channels..][..channels];
                    for (sum, x) in sums.iter_mut().zip(x) {
                        *sum += factor * x.to_f64();
                    }
                }
            }
            for (y, &sum) in y.iter_mut().zip(&sums) {
                *y = match mode {
                    Accumulate::Overwrite => T::from_f64(sum),
                    Accumulate::Add => *y + T::from_f64(sum),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests;
