//! Twins of the moves, index by index.

use crate::memory::Real;

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
