//! Twins of the moves, index by index.

use crate::memory::Real;
use crate::shape::SliceShape;

pub(crate) fn nchw_to_nhwc<T: Real>([n, c, h, w]: [usize; 4], x: &[T]) -> Vec<T> {
    let mut y = vec![T::ZERO; x.len()];
    for i in 0..n {
        for channel in 0..c {
            for row in 0..h {
                for column in 0..w {
                    y[((i * h + row) * w + column) * c + channel] = x[((i * c + channel) * h + row) * w + column];
                }
            }
        }
    }
    y
}

pub(crate) fn concat<T: Real>(n_rows: usize, widths: &[usize], inputs: &[Vec<T>]) -> Vec<T> {
    let mut y = Vec::new();
    for row in 0..n_rows {
        for (input, width) in inputs.iter().zip(widths) {
            for column in 0..*width {
                y.push(input[row * width + column]);
            }
        }
    }
    y
}

/// y[i…] = x[…] with the i-th axis of y being the `order[i]`-th of x.
pub(crate) fn permute<T: Real>(dims: &[usize], order: &[usize], x: &[T]) -> Vec<T> {
    let out: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
    (0..x.len())
        .map(|flat| {
            let (mut rest, mut index) = (flat, vec![0; dims.len()]);
            for (i, &size) in out.iter().enumerate().rev() {
                index[order[i]] = rest % size;
                rest /= size;
            }
            x[index.iter().zip(dims).fold(0, |place, (i, size)| place * size + i)]
        })
        .collect()
}

/// Where each element of the slice stands.
pub(crate) fn slice_places(s: &SliceShape) -> Vec<usize> {
    let mut places = Vec::new();
    for outer in 0..s.outer {
        for taken in 0..s.len {
            for inner in 0..s.inner {
                places.push((outer * s.axis + s.start + taken * s.step) * s.inner + inner);
            }
        }
    }
    places
}
