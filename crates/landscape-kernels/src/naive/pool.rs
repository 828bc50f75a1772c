//! Twins of the poolings: padded coordinates visited one by one, in PyTorch's words.

use crate::memory::Real;
use crate::pool::{AdaptiveShape, Padding, PoolShape};

/// Every (output index, input index, weight's divisor) of an average; the input index is of `[n, h, w, channels]`.
pub(crate) fn average_pairs(s: &PoolShape, padding: Padding) -> Vec<(usize, usize, f64)> {
    let mut pairs = Vec::new();
    for_each_output(s.n, s.channels, s.out_size(), |n, i, j, channel, out| {
        let inside = inside(s, i, j);
        let divisor = match padding {
            Padding::Counted => s.kernel_size[0] * s.kernel_size[1],
            Padding::NotCounted => inside.len(),
        };
        for (row, column) in inside {
            pairs.push((out, at(n, row, column, channel, s.in_size, s.channels), divisor as f64));
        }
    });
    pairs
}

/// As [`average_pairs`], for adaptive pooling.
pub(crate) fn adaptive_pairs(s: &AdaptiveShape) -> Vec<(usize, usize, f64)> {
    let bounds = |i: usize, axis: usize| {
        let scale = s.in_size[axis] as f64 / s.out_size[axis] as f64;
        // A quotient of small whole numbers that is whole is exact only up to rounding.
        ((i as f64 * scale + 1e-9).floor() as usize, ((i + 1) as f64 * scale - 1e-9).ceil() as usize)
    };
    let mut pairs = Vec::new();
    for_each_output(s.n, s.channels, s.out_size, |n, i, j, channel, out| {
        let ((top, bottom), (left, right)) = (bounds(i, 0), bounds(j, 1));
        let divisor = ((bottom - top) * (right - left)) as f64;
        for row in top..bottom {
            for column in left..right {
                pairs.push((out, at(n, row, column, channel, s.in_size, s.channels), divisor));
            }
        }
    });
    pairs
}

/// Maxima and their places in the plane.
pub(crate) fn max<T: Real>(s: &PoolShape, x: &[T]) -> (Vec<T>, Vec<u32>) {
    let (mut y, mut argmax) = (Vec::new(), Vec::new());
    for_each_output(s.n, s.channels, s.out_size(), |n, i, j, channel, _| {
        let (mut best, mut place) = (T::NEG_INFINITY, None);
        for (row, column) in inside(s, i, j) {
            let value = x[at(n, row, column, channel, s.in_size, s.channels)];
            if value > best || value.is_nan() || place.is_none() {
                (best, place) = (value, Some(row * s.in_size[1] + column));
            }
        }
        y.push(best);
        argmax.push(place.expect("every window holds a pixel") as u32);
    });
    (y, argmax)
}

/// The index in the input that output `out` took its maximum from.
pub(crate) fn max_source(s: &PoolShape, out: usize, place: u32) -> usize {
    let plane = s.in_size[0] * s.in_size[1];
    let per_image = s.out_size()[0] * s.out_size()[1] * s.channels;
    (out / per_image * plane + place as usize) * s.channels + out % s.channels
}

fn for_each_output(n: usize, channels: usize, out_size: [usize; 2], mut f: impl FnMut(usize, usize, usize, usize, usize)) {
    let mut out = 0;
    for image in 0..n {
        for i in 0..out_size[0] {
            for j in 0..out_size[1] {
                for channel in 0..channels {
                    f(image, i, j, channel, out);
                    out += 1;
                }
            }
        }
    }
}

fn inside(s: &PoolShape, i: usize, j: usize) -> Vec<(usize, usize)> {
    let mut pixels = Vec::new();
    for a in 0..s.kernel_size[0] {
        for b in 0..s.kernel_size[1] {
            let row = (i * s.stride[0] + a) as isize - s.padding[0] as isize;
            let column = (j * s.stride[1] + b) as isize - s.padding[1] as isize;
            if (0..s.in_size[0] as isize).contains(&row) && (0..s.in_size[1] as isize).contains(&column) {
                pixels.push((row as usize, column as usize));
            }
        }
    }
    pixels
}

fn at(n: usize, row: usize, column: usize, channel: usize, in_size: [usize; 2], channels: usize) -> usize {
    ((n * in_size[0] + row) * in_size[1] + column) * channels + channel
}
