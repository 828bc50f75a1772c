//! Depthwise convolution, one input channel to one output channel: sums of products over taps, vectorised over channels.

use super::shape::Conv2dShape;
use super::sum_partials;
use crate::memory::{Accumulate, Real};
use crate::parallel::{CHUNK, for_each_chunk_mut, n_splits, split_range};
use crate::simd::multiversion;
use rayon::prelude::*;

fn n_partials(s: &Conv2dShape) -> usize {
    n_splits(s.n, 1)
}

/// Elements of scratch memory: the partial weight gradients.
pub(super) fn scratch_len(s: &Conv2dShape) -> usize {
    n_partials(s) * s.weight_len()
}

/// y = x ∗ w + bias.
pub(super) fn forward<T: Real>(s: &Conv2dShape, x: &[T], packed: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let row_len = s.out_size()[1] * s.out_channels;
    let rows = (CHUNK / row_len).max(1);
    for_each_chunk_mut(y, rows * row_len, |idx, y| forward_rows(s, idx * rows, x, packed, bias, y));
}

/// dx = the output gradient spread over the taps.
pub(super) fn backward_input<T: Real>(s: &Conv2dShape, packed: &[T], dy: &[T], dx: &mut [T], mode: Accumulate) {
    let image_len = s.in_size[0] * s.in_size[1] * s.in_channels;
    for_each_chunk_mut(dx, image_len, |image, dx| {
        if mode == Accumulate::Overwrite {
            dx.fill(T::ZERO);
        }
        input_gradient_image(s, image, packed, dy, dx);
    });
}

/// The gradient of the weight, by images in fixed splits.
pub(super) fn backward_weight<T: Real>(s: &Conv2dShape, x: &[T], dy: &[T], dpacked: &mut [T], scratch: &mut [T]) {
    let (splits, len) = (n_partials(s), s.weight_len());
    scratch[..splits * len].par_chunks_mut(len).enumerate().for_each(|(idx, partial)| {
        partial.fill(T::ZERO);
        for image in split_range(s.n, splits, idx) {
            weight_gradient_image(s, image, x, dy, partial);
        }
    });
    sum_partials(scratch, len, splits, dpacked);
}

/// Calls `f(tap, input pixel, output column)` for every tap of an output row that lies inside the image.
#[inline(always)]
fn visit_taps(s: &Conv2dShape, row: usize, mut f: impl FnMut(usize, usize, usize)) {
    let [height, width] = s.out_size();
    let (image, i) = (row / height, row % height);
    for r in 0..s.kernel_size[0] {
        let y = (i * s.stride[0] + r * s.dilation[0]).wrapping_sub(s.padding[0]);
        if y >= s.in_size[0] {
            continue;
        }
        for t in 0..s.kernel_size[1] {
            for j in 0..width {
                let x = (j * s.stride[1] + t * s.dilation[1]).wrapping_sub(s.padding[1]);
                if x < s.in_size[1] {
                    f(r * s.kernel_size[1] + t, (image * s.in_size[0] + y) * s.in_size[1] + x, j);
                }
            }
        }
    }
}

/// acc += a·b, element by element.
#[inline(always)]
fn add_products<T: Real>(a: &[T], b: &[T], acc: &mut [T]) {
    for ((acc, &a), &b) in acc.iter_mut().zip(a).zip(b) {
        *acc += a * b;
    }
}

multiversion! {
    fn forward_rows<T>(s: &Conv2dShape, first_row: usize, x: &[T], packed: &[T], bias: Option<&[T]>, y: &mut [T]) {
        let c = s.out_channels;
        let row_len = s.out_size()[1] * c;
        for (row, y) in y.chunks_exact_mut(row_len).enumerate() {
            match bias {
                Some(bias) => y.chunks_exact_mut(c).for_each(|pixel| pixel.copy_from_slice(bias)),
                None => y.fill(T::ZERO),
            }
            visit_taps(s, first_row + row, |tap, pixel, j| {
                add_products(&x[pixel * c..(pixel + 1) * c], &packed[tap * c..(tap + 1) * c], &mut y[j * c..(j + 1) * c]);
            });
        }
    }
}

multiversion! {
    fn input_gradient_image<T>(s: &Conv2dShape, image: usize, packed: &[T], dy: &[T], dx: &mut [T]) {
        let c = s.out_channels;
        let [height, width] = s.out_size();
        let first_pixel = image * s.in_size[0] * s.in_size[1];
        for row in image * height..(image + 1) * height {
            visit_taps(s, row, |tap, pixel, j| {
                let (dy, dx) = (&dy[(row * width + j) * c..][..c], &mut dx[(pixel - first_pixel) * c..][..c]);
                add_products(dy, &packed[tap * c..(tap + 1) * c], dx);
            });
        }
    }
}

multiversion! {
    fn weight_gradient_image<T>(s: &Conv2dShape, image: usize, x: &[T], dy: &[T], dpacked: &mut [T]) {
        let c = s.out_channels;
        let [height, width] = s.out_size();
        for row in image * height..(image + 1) * height {
            visit_taps(s, row, |tap, pixel, j| {
                let dy = &dy[(row * width + j) * c..][..c];
                add_products(&x[pixel * c..(pixel + 1) * c], dy, &mut dpacked[tap * c..(tap + 1) * c]);
            });
        }
    }
}
