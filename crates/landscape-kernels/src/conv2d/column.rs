//! Convolution by matrix products on columns: for a tile of output rows, the pixels under the kernel are gathered into one row per
//! output pixel, small enough for the second-level cache, and multiplied by the weight. Any shape, any scalar.

use super::rows::Normalizer;
use super::shape::Conv2dShape;
use super::{n_weight_partials, sum_partials};
use crate::gemm::{Dims, Strides, gemm_in};
use crate::memory::{Accumulate, Real};
use crate::parallel::{n_splits, split_range};
use rayon::prelude::*;
use std::ops::Range;

/// Elements of a tile of columns: 256 KiB in single precision.
const TILE: usize = 64 * 1024;

/// Where a tile lies: output rows are numbered through all images.
struct Tiling {
    /// Output rows of all images.
    n_rows: usize,
    /// Output rows of a tile.
    rows: usize,
    /// Columns of the output image.
    width: usize,
    /// Elements of a tile of columns.
    len: usize,
}

impl Tiling {
    fn new(s: &Conv2dShape) -> Self {
        let [height, width] = s.out_size();
        let n_rows = s.n * height;
        let rows = (TILE / (width * s.k())).clamp(1, n_rows.max(1));
        Tiling { n_rows, rows, width, len: rows * width * s.k() }
    }

    fn n_splits(&self) -> usize {
        n_splits(self.n_rows, self.rows)
    }

    /// The tiles of a range of output rows.
    fn tiles(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let step = self.rows;
        rows.clone().step_by(step).map(move |start| start..(start + step).min(rows.end))
    }
}

/// Elements of scratch memory that the functions here need at most.
pub(super) fn scratch_len(s: &Conv2dShape) -> usize {
    let tiling = Tiling::new(s);
    let splits = tiling.n_splits();
    let weight = n_weight_partials(s, splits) * (tiling.len + s.weight_len());
    let transposed = s.transposed().map_or(0, |t| {
        let tiling = Tiling::new(&t);
        s.weight_len() + tiling.n_splits() * tiling.len
    });
    (splits * tiling.len).max(n_image_splits(s) * tiling.len).max(weight).max(transposed)
}

/// y = x ∗ w + bias, or y += x ∗ w (then without bias).
#[allow(clippy::too_many_arguments)]
pub(super) fn forward<T: Real>(
    s: &Conv2dShape,
    x: &[T],
    normalizer: Option<&Normalizer<T>>,
    packed: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
    mode: Accumulate,
    scratch: &mut [T],
) {
    if s.n == 0 {
        return;
    }
    let tiling = Tiling::new(s);
    let row_len = tiling.width * s.out_channels;
    let rows_per_split = tiling.n_rows.div_ceil(tiling.n_splits());
    y.par_chunks_mut(rows_per_split * row_len).zip(scratch.par_chunks_mut(tiling.len)).enumerate().for_each(|(idx, (y, columns))| {
        let first = idx * rows_per_split;
        for rows in tiling.tiles(first..first + y.len() / row_len) {
            let y = &mut y[(rows.start - first) * row_len..(rows.end - first) * row_len];
            if let Some(bias) = bias {
                y.chunks_exact_mut(s.out_channels).for_each(|pixel| pixel.copy_from_slice(bias));
            }
            let mode = if bias.is_some() { Accumulate::Add } else { mode };
            let dims = Dims { m: rows.len() * tiling.width, n: s.out_group(), k: s.k() };
            for g in 0..s.groups {
                let a = columns_of(s, g, x, normalizer, rows.clone(), columns);
                let b = &packed[g * s.k() * s.out_group()..];
                let strides = Strides::row_major(s.out_channels);
                gemm_in(
                    s.precision,
                    dims,
                    (a, Strides::row_major(s.k())),
                    (b, Strides::row_major(s.out_group())),
                    (&mut y[g * s.out_group()..], strides),
                    mode,
                );
            }
        }
    });
}

/// The input gradient for stride 1: the forward convolution of the output gradient with flipped taps.
pub(super) fn backward_input_stride_one<T: Real>(
    s: &Conv2dShape,
    transposed: &Conv2dShape,
    packed: &[T],
    dy: &[T],
    dx: &mut [T],
    mode: Accumulate,
    scratch: &mut [T],
) {
    let (flipped, scratch) = scratch.split_at_mut(s.weight_len());
    let (taps, inputs, outputs) = (s.n_taps(), s.in_group(), s.out_group());
    for (group, tap, i) in (0..s.groups).flat_map(|g| (0..taps).flat_map(move |t| (0..inputs).map(move |i| (g, t, i)))) {
        let from = ((group * taps + tap) * inputs + i) * outputs;
        let into = (group * taps + taps - 1 - tap) * outputs * inputs + i;
        for o in 0..outputs {
            flipped[into + o * inputs] = packed[from + o];
        }
    }
    forward(transposed, dy, None, flipped, None, dx, mode, scratch);
}

/// Splits of the input gradient: whole images, because neighbouring output rows reach the same input rows.
fn n_image_splits(s: &Conv2dShape) -> usize {
    n_splits(s.n, 1)
}

/// The input gradient for any stride: gradients of the columns by a product, then added where the columns came from.
pub(super) fn backward_input<T: Real>(s: &Conv2dShape, packed: &[T], dy: &[T], dx: &mut [T], mode: Accumulate, scratch: &mut [T]) {
    if s.n == 0 {
        return;
    }
    let tiling = Tiling::new(s);
    let [height, width] = s.out_size();
    let (row_len, image_len) = (width * s.out_channels, s.in_len() / s.n);
    let images_per_split = s.n.div_ceil(n_image_splits(s));
    dx.par_chunks_mut(images_per_split * image_len).zip(scratch.par_chunks_mut(tiling.len)).enumerate().for_each(|(idx, (dx, columns))| {
        let first_image = idx * images_per_split;
        let n_images = dx.len() / image_len;
        if s.is_pointwise() {
            let pixels = n_images * height * width;
            let dims = Dims { m: pixels, n: s.in_channels, k: s.out_channels };
            let dy = &dy[first_image * height * row_len..];
            let b = (packed, Strides::transposed(s.out_channels));
            gemm_in(s.precision, dims, (dy, Strides::row_major(s.out_channels)), b, (dx, Strides::row_major(s.in_channels)), mode);
            return;
        }
        if mode == Accumulate::Overwrite {
            dx.fill(T::ZERO);
        }
        for rows in tiling.tiles(first_image * height..(first_image + n_images) * height) {
            let dims = Dims { m: rows.len() * width, n: s.k(), k: s.out_group() };
            for g in 0..s.groups {
                let a = (&dy[rows.start * row_len + g * s.out_group()..], Strides::row_major(s.out_channels));
                let b = (&packed[g * s.k() * s.out_group()..], Strides::transposed(s.out_group()));
                gemm_in(s.precision, dims, a, b, (columns, Strides::row_major(s.k())), Accumulate::Overwrite);
                scatter_columns(s, g, columns, rows.clone(), first_image, dx);
            }
        }
    });
}

/// The gradient of the packed weight: partial sums over fixed splits of the rows, added in order.
pub(super) fn backward_weight<T: Real>(
    s: &Conv2dShape,
    x: &[T],
    normalizer: Option<&Normalizer<T>>,
    dy: &[T],
    dpacked: &mut [T],
    scratch: &mut [T],
) {
    if s.n == 0 {
        dpacked.fill(T::ZERO);
        return;
    }
    let tiling = Tiling::new(s);
    let row_len = tiling.width * s.out_channels;
    let splits = n_weight_partials(s, tiling.n_splits());
    let chunk = tiling.len + s.weight_len();
    scratch[..splits * chunk].par_chunks_mut(chunk).enumerate().for_each(|(idx, scratch)| {
        let (columns, partial) = scratch.split_at_mut(tiling.len);
        partial.fill(T::ZERO);
        for rows in tiling.tiles(split_range(tiling.n_rows, splits, idx)) {
            let dims = Dims { m: s.k(), n: s.out_group(), k: rows.len() * tiling.width };
            for g in 0..s.groups {
                let a = columns_of(s, g, x, normalizer, rows.clone(), columns);
                let b = (&dy[rows.start * row_len + g * s.out_group()..], Strides::row_major(s.out_channels));
                let c = &mut partial[g * s.k() * s.out_group()..];
                gemm_in(s.precision, dims, (a, Strides::transposed(s.k())), b, (c, Strides::row_major(s.out_group())), Accumulate::Add);
            }
        }
    });
    sum_partials(scratch, chunk, splits, dpacked);
}

/// The columns of output rows: gathered into `columns`, through the prologue, or for a pointwise kernel without one the input as it
/// stands.
fn columns_of<'a, T: Real>(
    s: &Conv2dShape,
    group: usize,
    x: &'a [T],
    normalizer: Option<&Normalizer<T>>,
    rows: Range<usize>,
    columns: &'a mut [T],
) -> &'a [T] {
    if s.is_pointwise() {
        let row_len = s.in_size[1] * s.in_channels;
        let x = &x[rows.start * row_len..rows.end * row_len];
        let Some(normalizer) = normalizer else { return x };
        normalizer.apply(x, &mut columns[..x.len()]);
        return columns;
    }
    let channels = group * s.in_group()..(group + 1) * s.in_group();
    visit_runs(s, group, rows, 0, |run| match (run, normalizer) {
        (Run::Outside { column, len }, _) => columns[column..column + len].fill(T::ZERO),
        (Run::Inside { column, x: from, len }, None) => columns[column..column + len].copy_from_slice(&x[from..from + len]),
        (Run::Inside { column, x: from, len }, Some(normalizer)) if s.groups == 1 => {
            normalizer.apply(&x[from..from + len], &mut columns[column..column + len]);
        }
        (Run::Inside { column, x: from, len }, Some(normalizer)) => {
            let pixel = from - channels.start;
            normalizer.apply_pixels(&x[pixel..pixel + s.in_channels], 1, &channels, &mut columns[column..column + len]);
        }
    });
    columns
}

/// Adds the gradients of columns where the columns came from; `dx` starts at image `first_image`.
fn scatter_columns<T: Real>(s: &Conv2dShape, group: usize, columns: &[T], rows: Range<usize>, first_image: usize, dx: &mut [T]) {
    visit_runs(s, group, rows, first_image, |run| {
        if let Run::Inside { column, x, len } = run {
            dx[x..x + len].iter_mut().zip(&columns[column..column + len]).for_each(|(d, &c)| *d += c);
        }
    });
}

/// A contiguous part of the columns and where it lies in the input.
enum Run {
    /// From `x` on in the input.
    Inside { column: usize, x: usize, len: usize },
    /// In the zeros around it.
    Outside { column: usize, len: usize },
}

/// Visits every part of the columns of output rows once, in order; places in the input count from `first_image`.
#[inline(always)]
fn visit_runs(s: &Conv2dShape, group: usize, rows: Range<usize>, first_image: usize, mut visit: impl FnMut(Run)) {
    let [height, width] = s.out_size();
    let ([in_height, in_width], [_, kernel_width]) = (s.in_size, s.kernel_size);
    let channels = s.in_group();
    let contiguous = s.groups == 1 && s.dilation[1] == 1;
    let mut column = 0;
    for row in rows {
        let (image, i) = (row / height - first_image, row % height);
        for j in 0..width {
            for r in 0..s.kernel_size[0] {
                let y = (i * s.stride[0] + r * s.dilation[0]).wrapping_sub(s.padding[0]);
                if y >= in_height {
                    visit(Run::Outside { column, len: kernel_width * channels });
                    column += kernel_width * channels;
                    continue;
                }
                let line = (image * in_height + y) * in_width;
                if contiguous {
                    // The taps of this row that lie inside the image are neighbours in memory.
                    let start = j * s.stride[1];
                    let first = s.padding[1].saturating_sub(start).min(kernel_width);
                    let end = (in_width + s.padding[1]).saturating_sub(start).min(kernel_width).max(first);
                    if first > 0 {
                        visit(Run::Outside { column, len: first * channels });
                    }
                    if end > first {
                        let x = (line + start + first - s.padding[1]) * channels;
                        visit(Run::Inside { column: column + first * channels, x, len: (end - first) * channels });
                    }
                    if end < kernel_width {
                        visit(Run::Outside { column: column + end * channels, len: (kernel_width - end) * channels });
                    }
                    column += kernel_width * channels;
                } else {
                    for t in 0..kernel_width {
                        let x = (j * s.stride[1] + t * s.dilation[1]).wrapping_sub(s.padding[1]);
                        if x < in_width {
                            visit(Run::Inside { column, x: (line + x) * s.in_channels + group * channels, len: channels });
                        } else {
                            visit(Run::Outside { column, len: channels });
                        }
                        column += channels;
                    }
                }
            }
        }
    }
}
