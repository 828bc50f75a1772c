//! The windows of every output row and column, and the mean over them: average and adaptive pooling differ in nothing else.

use super::PoolShape;
use crate::memory::{Accumulate, Real};
use crate::parallel::{for_each_chunk_mut, n_splits};
use crate::simd::multiversion;
use std::ops::Range;

/// What every output pixel looks at.
#[derive(Debug)]
pub(super) struct Windows {
    /// Rows of the input, per output row; none is empty.
    pub rows: Vec<Range<usize>>,
    /// Columns of the input, per output column; none is empty.
    pub columns: Vec<Range<usize>>,
}

impl Windows {
    /// The windows of a checked shape, without the padding.
    pub fn of(shape: &PoolShape) -> Self {
        let [rows, columns] = [0, 1].map(|axis| {
            let (kernel, stride, padding) = (shape.kernel_size[axis], shape.stride[axis], shape.padding[axis]);
            (0..shape.out_size()[axis])
                .map(|i| (i * stride).saturating_sub(padding)..(i * stride + kernel - padding).min(shape.in_size[axis]))
                .collect()
        });
        Windows { rows, columns }
    }

    /// Calls `f(output pixel, rows, columns)` for every output pixel in order.
    pub fn for_each(&self, mut f: impl FnMut(usize, &Range<usize>, &Range<usize>)) {
        for (i, rows) in self.rows.iter().enumerate() {
            for (j, columns) in self.columns.iter().enumerate() {
                f(i * self.columns.len() + j, rows, columns);
            }
        }
    }
}

/// What a window's sum is divided by.
#[derive(Debug, Clone, Copy)]
pub(super) enum Divisor {
    /// This many, for every window.
    Fixed(f64),
    /// The pixels of the window that are in the image.
    Pixels,
}

impl Divisor {
    fn of(self, rows: &Range<usize>, columns: &Range<usize>) -> f64 {
        match self {
            Divisor::Fixed(n) => n,
            Divisor::Pixels => (rows.len() * columns.len()) as f64,
        }
    }
}

/// Means over the windows of every image, summed in double precision.
pub(super) fn mean_forward<T: Real>(windows: &Windows, divisor: Divisor, in_size: [usize; 2], channels: usize, x: &[T], y: &mut [T]) {
    let (in_len, out_len) = image_lengths(windows, in_size, channels);
    for_each_image(y, out_len, vec![0.0; channels], |image, y, sums| {
        let x = &x[image * in_len..][..in_len];
        windows.for_each(|pixel, rows, columns| {
            sums.fill(0.0);
            for row in rows.clone() {
                let start = (row * in_size[1] + columns.start) * channels;
                add_pixels(&x[start..start + columns.len() * channels], sums);
            }
            let divisor = divisor.of(rows, columns);
            for (y, sum) in y[pixel * channels..][..channels].iter_mut().zip(sums.iter()) {
                *y = T::from_f64(sum / divisor);
            }
        });
    });
}

/// The transpose of [`mean_forward`].
pub(super) fn mean_backward<T: Real>(
    windows: &Windows,
    divisor: Divisor,
    in_size: [usize; 2],
    channels: usize,
    dy: &[T],
    dx: &mut [T],
    mode: Accumulate,
) {
    let (in_len, out_len) = image_lengths(windows, in_size, channels);
    for_each_image(dx, in_len, vec![T::ZERO; channels], |image, dx, shares| {
        let dy = &dy[image * out_len..][..out_len];
        if mode == Accumulate::Overwrite {
            dx.fill(T::ZERO);
        }
        windows.for_each(|pixel, rows, columns| {
            let divisor = T::from_f64(divisor.of(rows, columns));
            for (share, &dy) in shares.iter_mut().zip(&dy[pixel * channels..][..channels]) {
                *share = dy / divisor;
            }
            for row in rows.clone() {
                let start = (row * in_size[1] + columns.start) * channels;
                add_share(shares, &mut dx[start..start + columns.len() * channels]);
            }
        });
    });
}

/// Calls `f(image, its elements, memory)` for every image of `len` elements, dealt to a few tasks with a memory each.
fn for_each_image<T: Send, M: Clone + Send + Sync>(
    all: &mut [T],
    len: usize,
    memory: M,
    f: impl Fn(usize, &mut [T], &mut M) + Sync + Send,
) {
    let n_images = all.len() / len;
    let per_task = n_images.div_ceil(n_splits(n_images, 1)).max(1);
    for_each_chunk_mut(all, per_task * len, |task, images| {
        let mut memory = memory.clone();
        images.chunks_exact_mut(len).enumerate().for_each(|(idx, image)| f(task * per_task + idx, image, &mut memory));
    });
}

/// Elements of one image before and after.
fn image_lengths(windows: &Windows, in_size: [usize; 2], channels: usize) -> (usize, usize) {
    (in_size[0] * in_size[1] * channels, windows.rows.len() * windows.columns.len() * channels)
}

multiversion! {
    fn add_pixels<T>(pixels: &[T], sums: &mut [f64]) {
        for pixel in pixels.chunks_exact(sums.len()) {
            for (sum, x) in sums.iter_mut().zip(pixel) {
                *sum += x.to_f64();
            }
        }
    }
}

multiversion! {
    fn add_share<T>(shares: &[T], pixels: &mut [T]) {
        for pixel in pixels.chunks_exact_mut(shares.len()) {
            for (x, &share) in pixel.iter_mut().zip(shares) {
                *x += share;
            }
        }
    }
}
