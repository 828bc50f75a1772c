//! Augmentation of images: random crop of the padded image, and horizontal flip.

use landscape_core::Seed;
use landscape_kernels::Real;

/// What training does to images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Augmentation {
    /// Nothing.
    #[default]
    None,
    /// Each image is flipped left to right with probability ½, padded by `padding` black pixels on every side, and cut to its size
    /// again at a random place. The reference (dnn-mode-connectivity) does so on CIFAR with a padding of 4.
    CropFlip {
        /// Pixels on every side.
        padding: usize,
    },
}

/// What chance decided for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CropFlip {
    padding: usize,
    /// First row and column of the cut in the padded image, each from 0 to 2·padding.
    at: [usize; 2],
    flipped: bool,
}

impl CropFlip {
    /// Decides for the image of that seed.
    pub(crate) fn draw(padding: usize, seed: Seed) -> Self {
        let mut stream = seed.stream();
        let at = [stream.below(2 * padding + 1), stream.below(2 * padding + 1)];
        CropFlip { padding, at, flipped: stream.below(2) == 1 }
    }

    /// Appends the changed `image`, `[c, h, w]`; `black` holds what a pixel of 0 is in each channel.
    ///
    /// out[c, y, x] = flipped[c, y + at₀ − p, x + at₁ − p] inside the image, black outside.
    pub(crate) fn extend<T: Real>(&self, out: &mut Vec<T>, image: &[T], [h, w]: [usize; 2], black: &[T]) {
        for (plane, &black) in image.chunks_exact(h * w).zip(black) {
            for y in 0..h {
                let Some(row) = (y + self.at[0]).checked_sub(self.padding).filter(|&row| row < h) else {
                    out.extend(std::iter::repeat_n(black, w));
                    continue;
                };
                let row = &plane[row * w..][..w];
                out.extend((0..w).map(|x| match (x + self.at[1]).checked_sub(self.padding) {
                    Some(column) if column < w => row[if self.flipped { w - 1 - column } else { column }],
                    _ => black,
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The padded image written out, then cut.
    fn naive(change: CropFlip, image: &[f64], [c, h, w]: [usize; 3], black: &[f64]) -> Vec<f64> {
        let p = change.padding;
        let mut out = Vec::new();
        for channel in 0..c {
            let mut padded = vec![vec![black[channel]; w + 2 * p]; h + 2 * p];
            for y in 0..h {
                for x in 0..w {
                    let from = if change.flipped { w - 1 - x } else { x };
                    padded[y + p][x + p] = image[(channel * h + y) * w + from];
                }
            }
            for y in 0..h {
                out.extend_from_slice(&padded[y + change.at[0]][change.at[1]..change.at[1] + w]);
            }
        }
        out
    }

    #[test]
    fn equals_padding_and_cutting() {
        for (shape, padding) in [([2, 3, 4], 2), ([3, 5, 3], 4), ([1, 1, 1], 1), ([1, 4, 4], 0)] {
            let [c, h, w] = shape;
            let image: Vec<f64> = (0..c * h * w).map(|i| i as f64 + 1.0).collect();
            let black: Vec<f64> = (0..c).map(|c| -(c as f64)).collect();
            for idx in 0..200 {
                let change = CropFlip::draw(padding, Seed::new(5).child_idx(idx));
                let mut out = Vec::new();
                change.extend(&mut out, &image, [h, w], &black);
                assert_eq!(out, naive(change, &image, shape, &black), "{change:?}");
            }
        }
    }

    #[test]
    fn every_place_and_both_sides_occur_equally_often() {
        let n = 20_000;
        let mut places = vec![0u32; 81];
        let mut n_flipped = 0;
        for idx in 0..n {
            let change = CropFlip::draw(4, Seed::new(9).child_idx(idx));
            places[change.at[0] * 9 + change.at[1]] += 1;
            n_flipped += u32::from(change.flipped);
        }
        let standard_error = |p: f64| (p * (1.0 - p) * n as f64).sqrt();
        assert!((f64::from(n_flipped) - n as f64 / 2.0).abs() < 4.0 * standard_error(0.5));
        for count in places {
            assert!((f64::from(count) - n as f64 / 81.0).abs() < 5.0 * standard_error(1.0 / 81.0));
        }
    }
}
