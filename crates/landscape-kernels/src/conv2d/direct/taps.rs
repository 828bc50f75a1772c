//! Which taps of the kernel fall into the image, pixel by pixel: beside the border some fall outside, and their products, all zeros,
//! are left out. Of a 3x3 kernel with a border of one that is 56 % of all products for images of 2x2, 31 % for 4x4, 16 % for 8x8.

use super::super::shape::Conv2dShape;
use std::ops::Range;

/// Steps after which a sum is added to the total: a sum of sums rounds less than one long sum, and the totals are touched seldom.
const SEGMENT: usize = 128;
/// Pixels of the smallest register block.
pub(super) const FEWEST: usize = 4;

/// An output pixel of a group of images. A call lists the pixels of a group anew, so they are kept small.
#[derive(Clone, Copy)]
pub(super) struct Pixel {
    from: u32,
    index: u32,
}

impl Pixel {
    /// # Panics
    /// Not for images that the direct kernel takes: a group's copy is far shorter than 2³².
    pub(super) fn new(from: usize, index: usize) -> Self {
        let small = |place: usize| u32::try_from(place).expect("a group's copy and outputs are short");
        Pixel { from: small(from), index: small(index) }
    }

    /// Where its first tap lies in the copy, or would, were it in the image.
    #[inline]
    pub(super) fn from(self) -> usize {
        self.from as usize
    }

    /// Its number among the outputs of the group.
    #[inline]
    pub(super) fn index(self) -> usize {
        self.index as usize
    }
}

/// Numbers that lie next to each other in the copy and in the weight.
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// In the copy, from a pixel's first tap on.
    pub(super) offset: usize,
    /// In the weight of the block: taps before it times inputs.
    pub(super) first: usize,
    pub(super) len: usize,
    /// Runs of one segment are summed before the sum is added to the total. A segment is the same whatever runs of it a pixel has, so
    /// that leaving out zeros changes no bit.
    pub(super) segment: usize,
}

/// Pixels that have the same taps, as far as the kernels use it.
pub(super) struct Part {
    pub(super) pixels: Vec<Pixel>,
    pub(super) runs: Vec<Run>,
}

/// A run of the weight gradient with the pixels that have it, in order.
pub(super) struct Rows {
    pub(super) run: Run,
    /// Which list of [`WeightCut::lists`].
    pub(super) list: usize,
}

/// How the weight gradient of a block of inputs is summed.
pub(super) struct WeightCut {
    pub(super) lists: Vec<Vec<Pixel>>,
    pub(super) rows: Vec<Rows>,
    /// Three short runs, which share their pixels so that they can be computed at once.
    pub(super) together: bool,
}

/// Rows and columns of the kernel.
type Window = [Range<usize>; 2];

/// The copy's measures that taps are found by.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Rows and columns of an image's copy.
    pub(super) size: [usize; 2],
    /// Steps of the kernel in the copy.
    pub(super) stride: [usize; 2],
    /// Input channels.
    pub(super) channels: usize,
}

impl Layout {
    fn offset(&self, image: usize, i: usize, j: usize) -> usize {
        ((image * self.size[0] + i) * self.size[1] + j) * self.channels
    }

    /// The pixels of some images with one of these rows and columns, in order.
    fn pixels(self, s: &Conv2dShape, n_images: usize, rows: &[usize], columns: &[usize]) -> Vec<Pixel> {
        let [height, width] = s.out_size();
        let mut pixels = Vec::with_capacity(n_images * rows.len() * columns.len());
        for image in 0..n_images {
            for &i in rows {
                let (first, from) = ((image * height + i) * width, self.offset(image, i * self.stride[0], 0));
                let step = self.stride[1] * self.channels;
                pixels.extend(columns.iter().map(|&j| Pixel::new(from + j * step, first + j)));
            }
        }
        pixels
    }

    /// The runs of a window: its rows, or its taps one by one where they do not lie next to each other or `one_by_one` asks for it.
    fn runs(self, s: &Conv2dShape, [rows, columns]: &Window, one_by_one: bool) -> Vec<Run> {
        let ([height, width], c) = (s.kernel_size, self.channels);
        let in_a_row = s.dilation[1] == 1;
        let pieces = if in_a_row { height } else { height * width };
        let (mut segments, mut steps, mut segment) = (Vec::with_capacity(pieces), 0, 0);
        for _ in 0..pieces {
            segments.push(segment);
            steps += if in_a_row { width * c } else { c };
            if steps >= SEGMENT {
                (steps, segment) = (0, segment + 1);
            }
        }
        let mut runs = Vec::new();
        for r in rows.clone() {
            let mut add = |columns: Range<usize>| {
                let tap = r * width + columns.start;
                let offset = self.offset(0, r * s.dilation[0], columns.start * s.dilation[1]);
                runs.push(Run { offset, first: tap * c, len: columns.len() * c, segment: segments[if in_a_row { r } else { tap }] });
            };
            if in_a_row && !one_by_one {
                add(columns.clone());
            } else {
                columns.clone().for_each(|t| add(t..t + 1));
            }
        }
        runs
    }

    /// The outputs of some images by their taps. Pixels that do not fill the smallest register block join those with more taps,
    /// whose additional products are with the zeros of the border.
    pub(super) fn parts(self, s: &Conv2dShape, n_images: usize) -> Vec<Part> {
        let windows = [0, 1].map(|d| windows(s, d));
        let mut parts: Vec<(Window, Vec<Pixel>)> = Vec::new();
        for (rows, i) in &windows[0] {
            for (columns, j) in &windows[1] {
                parts.push(([rows.clone(), columns.clone()], self.pixels(s, n_images, i, j)));
            }
        }
        let all = s.kernel_size.map(|n| 0..n);
        // First to all columns of the same rows, then to all rows.
        for pass in 0..2 {
            for idx in 0..parts.len() {
                let (window, pixels) = &mut parts[idx];
                let wider = [if pass == 0 { window[0].clone() } else { all[0].clone() }, all[1].clone()];
                if *window == wider {
                    continue;
                }
                let rest = pixels.split_off(pixels.len() / FEWEST * FEWEST);
                match parts.iter_mut().find(|(window, _)| *window == wider) {
                    Some((_, pixels)) => pixels.extend(rest),
                    None => parts.push((wider, rest)),
                }
            }
        }
        parts.retain(|(_, pixels)| !pixels.is_empty());
        let part = |(window, mut pixels): (Window, Vec<Pixel>)| {
            pixels.sort_unstable_by_key(|pixel| pixel.index);
            Part { pixels, runs: self.runs(s, &window, false) }
        };
        parts.into_iter().map(part).collect()
    }

    /// The weight gradient over up to `n_images` images. Rows of the kernel that are one run leave out the border above and below; taps
    /// one by one also that on the left and right, where `rows_computed(len)`, with what register blocks waste, does not make it dearer.
    pub(super) fn weight_cut(self, s: &Conv2dShape, n_images: usize, rows_computed: impl Fn(usize) -> usize) -> WeightCut {
        let ([height, width], c) = (s.kernel_size, self.channels);
        let all_taps: Window = [0..height, 0..width];
        let with = |d: usize, tap: usize| (0..s.out_size()[d]).filter(|&i| taps(s, d, i).contains(&tap)).collect::<Vec<_>>();
        let every = |d: usize| (0..s.out_size()[d]).collect::<Vec<_>>();
        let in_rows = rows_computed(width * c) * s.out_size()[1];
        let in_taps: usize = (0..width).map(|t| rows_computed(c) * with(1, t).len()).sum();
        let mut runs = self.runs(s, &all_taps, false);
        let together = runs.len() == 3 && runs[0].len <= SHORT;
        if !together && in_taps * WORTH < in_rows * (WORTH - 1) {
            runs = self.runs(s, &all_taps, true);
        }
        let (mut lists, mut keys): (Vec<Vec<Pixel>>, Vec<[Vec<usize>; 2]>) = (Vec::new(), Vec::new());
        let mut rows = Vec::new();
        for run in runs {
            let (r, t) = (run.first / c / width, run.first / c % width);
            let key = [if together { every(0) } else { with(0, r) }, if together || run.len > c { every(1) } else { with(1, t) }];
            let list = keys.iter().position(|k| *k == key).unwrap_or(keys.len());
            if list == keys.len() {
                lists.push(self.pixels(s, n_images, &key[0], &key[1]));
                keys.push(key);
            }
            rows.push(Rows { run, list });
        }
        WeightCut { lists, rows, together }
    }
}

/// A tenth less to compute pays for rows in smaller pieces.
const WORTH: usize = 10;

/// Rows up to which three runs of the weight gradient are short.
pub(super) const SHORT: usize = 9;

/// The taps of output row or column `i` that fall into the image.
fn taps(s: &Conv2dShape, d: usize, i: usize) -> Range<usize> {
    let first = i * s.stride[d];
    let before = |end: usize| end.saturating_sub(first).div_ceil(s.dilation[d]).min(s.kernel_size[d]);
    let (from, to) = (before(s.padding[d]), before(s.in_size[d] + s.padding[d]));
    from..to.max(from)
}

/// The different windows of a dimension, each with its rows or columns of the output.
fn windows(s: &Conv2dShape, d: usize) -> Vec<(Range<usize>, Vec<usize>)> {
    let mut windows: Vec<(Range<usize>, Vec<usize>)> = Vec::new();
    for i in 0..s.out_size()[d] {
        let window = taps(s, d, i);
        match windows.iter_mut().find(|(w, _)| *w == window) {
            Some((_, places)) => places.push(i),
            None => windows.push((window, vec![i])),
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv2d::direct::geometry::Geometry;
    use crate::conv2d::direct::gradient::rows_computed;
    use std::collections::BTreeMap;

    const BASE: Conv2dShape = Conv2dShape {
        n: 13,
        in_channels: 70,
        in_size: [4, 4],
        out_channels: 8,
        kernel_size: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
        groups: 1,
        precision: crate::Precision::F32,
    };

    fn shapes() -> Vec<Conv2dShape> {
        let base = BASE;
        vec![
            base,
            Conv2dShape { in_size: [2, 2], ..base },
            Conv2dShape { in_size: [1, 7], stride: [2, 2], ..base },
            Conv2dShape { in_size: [5, 6], kernel_size: [5, 3], padding: [4, 2], dilation: [1, 2], ..base },
            Conv2dShape { in_size: [9, 9], kernel_size: [7, 7], padding: [3, 3], stride: [2, 3], in_channels: 3, ..base },
            Conv2dShape { in_size: [8, 8], kernel_size: [1, 1], padding: [0, 0], stride: [2, 2], ..base },
        ]
    }

    /// How often each pixel meets each step of the weight, and where it reads it.
    type Met = BTreeMap<(usize, usize), (usize, usize)>;

    fn meet(met: &mut Met, pixels: &[Pixel], run: &Run) {
        for pixel in pixels {
            for i in 0..run.len {
                let place = met.entry((pixel.index(), run.first + i)).or_insert((pixel.from() + run.offset + i, 0));
                assert_eq!(place.0, pixel.from() + run.offset + i);
                place.1 += 1;
            }
        }
    }

    /// By the definition: which taps of which pixels lie in the image.
    fn in_the_image(s: &Conv2dShape, c: usize, n_images: usize) -> Vec<(usize, usize)> {
        let [height, width] = s.out_size();
        let mut all = Vec::new();
        for index in 0..n_images * height * width {
            let (i, j) = (index / width % height, index % width);
            for step in 0..s.n_taps() * c {
                let (r, t) = (step / c / s.kernel_size[1], step / c % s.kernel_size[1]);
                let (y, x) = (i * s.stride[0] + r * s.dilation[0], j * s.stride[1] + t * s.dilation[1]);
                if (s.padding[0]..s.in_size[0] + s.padding[0]).contains(&y) && (s.padding[1]..s.in_size[1] + s.padding[1]).contains(&x) {
                    all.push((index, step));
                }
            }
        }
        all
    }

    #[test]
    fn every_tap_in_the_image_is_met_once() {
        for s in shapes() {
            let geometry = Geometry::new(&s);
            for block in geometry.blocks(&s) {
                let (mut outputs, mut weights) = (Met::new(), Met::new());
                let parts = geometry.layout(&block).parts(&s, geometry.images);
                parts.iter().for_each(|part| part.runs.iter().for_each(|run| meet(&mut outputs, &part.pixels, run)));
                let cut = geometry.layout(&block).weight_cut(&s, geometry.images, rows_computed);
                cut.rows.iter().for_each(|rows| meet(&mut weights, &cut.lists[rows.list], &rows.run));
                let wanted = in_the_image(&s, block.len(), geometry.images);
                for met in [&outputs, &weights] {
                    assert!(met.values().all(|(_, times)| *times == 1), "{s:?}");
                    assert!(wanted.iter().all(|key| met.contains_key(key)), "{s:?}");
                }
            }
        }
    }

    #[test]
    fn small_images_leave_out_most_of_their_border() {
        let products = |s: &Conv2dShape, n_images| {
            let parts = Geometry::new(s).layout(&(0..64)).parts(s, n_images);
            parts.iter().map(|p| p.pixels.len() * p.runs.iter().map(|r| r.len / 64).sum::<usize>()).sum::<usize>()
        };
        let in_the_image = 4 * 4 + 8 * 6 + 4 * 9;
        for n_images in [4, 12, 16, 20] {
            assert_eq!(products(&BASE, n_images), n_images * in_the_image);
            assert_eq!(products(&Conv2dShape { in_size: [2, 2], ..BASE }, n_images), n_images * 4 * 4);
        }
        // A pixel of each corner joins those beside it, and with two of each edge on the left and right the inner ones.
        assert!(products(&BASE, 13) < 13 * in_the_image * 102 / 100);
    }

    #[test]
    fn segments_are_those_of_the_whole_window() {
        for s in shapes() {
            let geometry = Geometry::new(&s);
            let layout = geometry.layout(&(0..s.in_channels.min(64)));
            let whole: BTreeMap<usize, usize> = layout
                .runs(&s, &s.kernel_size.map(|n| 0..n), false)
                .iter()
                .flat_map(|r| (r.first..r.first + r.len).map(|i| (i, r.segment)))
                .collect();
            for part in layout.parts(&s, geometry.images) {
                assert!(part.runs.iter().all(|r| (r.first..r.first + r.len).all(|i| whole[&i] == r.segment)), "{s:?}");
            }
        }
    }
}
