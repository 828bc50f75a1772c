//! The loops of the fused passes, over rows of channels: normalise, finish, gate, and add up. Narrow rows are read several at a time.

use super::fuse::{Epilogue, Gate, GradientEpilogue, Prologue};
use crate::activation::Activation;
use crate::memory::{Real, View};
use crate::parallel::{CHUNK, for_each_chunk_mut, n_splits};
use crate::reduce::{add_moments, rows_per_wide_row, tile};
use crate::simd::multiversion;
use rayon::prelude::*;
use std::ops::Range;

/// A [`Prologue`] with its channels repeated over a wide row.
pub(super) struct Normalizer<T> {
    n_channels: usize,
    mean: Vec<T>,
    scale: Vec<T>,
    shift: Vec<T>,
    activation: Activation,
}

impl<T: Real> Normalizer<T> {
    pub(super) fn new(prologue: &Prologue<'_, T>) -> Self {
        let wide = |v: View<'_, T>| tile(v.host(), rows_per_wide_row(v.len()));
        Normalizer {
            n_channels: prologue.mean.len(),
            mean: wide(prologue.mean),
            scale: wide(prologue.scale),
            shift: wide(prologue.shift),
            activation: prologue.activation,
        }
    }

    /// out = x′; `x` starts at the first channel of a pixel.
    pub(super) fn apply(&self, x: &[T], out: &mut [T]) {
        match self.activation {
            Activation::None => normalize_rows(x, &self.mean, &self.scale, &self.shift, out),
            Activation::Relu => normalize_relu_rows(x, &self.mean, &self.scale, &self.shift, out),
        }
    }

    /// The same for a block of channels of every pixel of `x` that comes `step` after the last.
    pub(super) fn apply_pixels(&self, x: &[T], step: usize, channels: &Range<usize>, out: &mut [T]) {
        let n_channels = self.n_channels;
        let (first, len) = (channels.start, channels.len());
        let [mean, scale, shift] = [&self.mean, &self.scale, &self.shift].map(|v| &v[channels.clone()]);
        normalize_pixels(x, step * n_channels, first, len, mean, scale, shift, self.activation, out);
    }
}

/// The end of an evaluation: y = activation(y + residual), where y already is the convolution with its bias.
pub(super) fn finish<T: Real>(residual: Option<&[T]>, activation: Activation, y: &mut [T]) {
    match (residual, activation) {
        (None, Activation::None) => {}
        (None, Activation::Relu) => relu_rows(y),
        (Some(r), Activation::None) => y.iter_mut().zip(r).for_each(|(y, &r)| *y += r),
        (Some(r), Activation::Relu) => add_relu_rows(r, y),
    }
}

/// A [`GradientEpilogue`] with its channels repeated over a wide row.
pub(super) struct Gater<'a, T> {
    x: &'a [T],
    mean: Vec<T>,
    scale: Vec<T>,
    shift: Vec<T>,
    gate: Gate<'a, T>,
}

impl<'a, T: Real> Gater<'a, T> {
    pub(super) fn new(epilogue: &GradientEpilogue<'a, T>) -> Self {
        let wide = |v: View<'_, T>| tile(v.host(), rows_per_wide_row(v.len()));
        let (scale, shift) = match epilogue.gate {
            Gate::Normalized { scale, shift } => (wide(scale), wide(shift)),
            Gate::Open | Gate::Stored { .. } => (Vec::new(), Vec::new()),
        };
        Gater { x: epilogue.x.host(), mean: wide(epilogue.mean), scale, shift, gate: epilogue.gate }
    }

    /// Length of the sums that [`Gater::apply`] adds to.
    pub(super) fn width(&self) -> usize {
        self.mean.len()
    }

    /// Gates `dx`, which starts at element `start` (a multiple of the channels) of the whole, and adds to the wide sums of it and of
    /// its products with x − mean.
    pub(super) fn apply(&self, start: usize, dx: &mut [T], sums: &mut [f64], products: &mut [f64]) {
        let x = &self.x[start..start + dx.len()];
        match self.gate {
            Gate::Open => {}
            Gate::Normalized { .. } => gate_normalized_rows(x, &self.mean, &self.scale, &self.shift, dx),
            Gate::Stored { y } => gate_stored_rows(&y.host()[start..start + dx.len()], dx),
        }
        add_gradient_moments(x, &self.mean, dx, sums, products);
    }
}

/// Adds up wide sums of several parts, in order, and folds the copies of a channel.
fn fold_wide<'a>(channels: usize, parts: impl Iterator<Item = &'a [f64]>, out: &mut [f64]) {
    out.fill(0.0);
    for part in parts {
        for row in part.chunks_exact(channels) {
            out.iter_mut().zip(row).for_each(|(o, v)| *o += v);
        }
    }
}

/// Sums of every channel over some rows about the first of them, in double precision: of the distances, and of their squares.
pub(super) struct Moments {
    n_rows: usize,
    /// The first row, repeated over a wide one, as the sums are.
    shift: Vec<f64>,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Of no rows yet; `first` is the one that distances are from.
    fn about<T: Real>(first: &[T]) -> Self {
        let wide: Vec<f64> = first.iter().map(|v| v.to_f64()).collect();
        let shift = tile(&wide, rows_per_wide_row(first.len()));
        let zeros = || vec![0.0; shift.len()];
        Moments { n_rows: 0, sums: zeros(), squares: zeros(), shift }
    }

    /// Adds the rows of `y`.
    fn add<T: Real>(&mut self, channels: usize, y: &[T]) {
        add_moments(y, &self.shift, &mut self.sums, &mut self.squares);
        self.n_rows += y.len() / channels;
    }

    /// Mean and biased variance of all parts, merged in order (Chan, Golub and LeVeque 1983).
    fn store_merged<T: Real>(parts: impl Iterator<Item = Moments>, mean: &mut [T], var: &mut [T]) {
        let channels = mean.len();
        let (mut all_rows, mut means, mut squares) = (0.0, vec![0.0; channels], vec![0.0; channels]);
        let (mut part_means, mut part_squares) = (means.clone(), means.clone());
        for part in parts {
            fold_wide(channels, [&part.sums[..]].into_iter(), &mut part_means);
            fold_wide(channels, [&part.squares[..]].into_iter(), &mut part_squares);
            let n_rows = part.n_rows as f64;
            let total = all_rows + n_rows;
            for c in 0..channels {
                let d = part_means[c] / n_rows;
                let (part_mean, part_square) = (part.shift[c] + d, part_squares[c] - d * part_means[c]);
                let d = part_mean - means[c];
                means[c] += d * n_rows / total;
                squares[c] += part_square + d * d * all_rows * n_rows / total;
            }
            all_rows = total;
        }
        for c in 0..channels {
            mean[c] = T::from_f64(means[c]);
            let v = squares[c] / all_rows;
            // Rounding may leave a tiny negative number; NaN must stay NaN, which `f64::max` would lose.
            var[c] = T::from_f64(if v < 0.0 { 0.0 } else { v });
        }
    }
}

/// out = x′, in parallel.
pub(super) fn normalize_all<T: Real>(normalizer: &Normalizer<T>, channels: usize, x: &[T], out: &mut [T]) {
    let chunk = whole_rows(channels);
    for_each_chunk_mut(out, chunk, |idx, out| normalizer.apply(&x[idx * chunk..idx * chunk + out.len()], out));
}

/// What is to be done to every part of a result as soon as it is there, given what was gathered from the parts before it and its place;
/// whole rows of channels.
pub(super) type Each<'a, T, R> = &'a (dyn Fn(&mut R, usize, &mut [T]) + Sync);

/// Computes y by `run`, which calls what it is given for all parts of y and returns what was gathered, in order.
pub(super) fn with_epilogue<T: Real>(
    channels: usize,
    epilogue: Epilogue<'_, T>,
    run: impl FnOnce(Each<'_, T, Option<Moments>>) -> Vec<Option<Moments>>,
) {
    match epilogue {
        Epilogue::None => drop(run(&|_, _, _| ())),
        Epilogue::Pointwise { residual, activation } => drop(run(&|_, start, y| {
            finish(residual.map(|r| &r.host()[start..start + y.len()]), activation, y);
        })),
        Epilogue::Statistics { mean, var } => {
            let parts = run(&|moments, _, y| moments.get_or_insert_with(|| Moments::about(&y[..channels])).add(channels, y));
            Moments::store_merged(parts.into_iter().flatten(), mean.host(), var.host());
        }
    }
}

/// Computes dx by `run`, as [`with_epilogue`].
pub(super) fn with_gradient_epilogue<T: Real>(
    channels: usize,
    epilogue: Option<GradientEpilogue<'_, T>>,
    run: impl FnOnce(Each<'_, T, Vec<f64>>) -> Vec<Vec<f64>>,
) {
    let Some(epilogue) = epilogue else {
        run(&|_, _, _| ());
        return;
    };
    let gater = Gater::new(&epilogue);
    let width = gater.width();
    let parts = run(&|both, start, dx| {
        both.resize(2 * width, 0.0);
        let (sums, products) = both.split_at_mut(width);
        gater.apply(start, dx, sums, products);
    });
    let parts = || parts.iter().filter(|part| !part.is_empty());
    fold_wide(channels, parts().map(|p| &p[..width]), epilogue.sums.host());
    fold_wide(channels, parts().map(|p| &p[width..]), epilogue.products.host());
}

/// Calls `each` for all parts of a whole result, which are dealt to a few tasks; what each of these gathered.
pub(super) fn for_all_parts<T: Real, R: Default + Send>(channels: usize, y: &mut [T], each: Each<'_, T, R>) -> Vec<R> {
    let chunk = whole_rows(channels);
    let n_chunks = y.len().div_ceil(chunk);
    let chunks_per_task = n_chunks.div_ceil(n_splits(n_chunks, 1)).max(1);
    let task = |(idx, y): (usize, &mut [T])| {
        let mut gathered = R::default();
        for (part, y) in y.chunks_mut(chunk).enumerate() {
            each(&mut gathered, (idx * chunks_per_task + part) * chunk, y);
        }
        gathered
    };
    y.par_chunks_mut(chunks_per_task * chunk).enumerate().map(task).collect()
}

/// Elements of whole rows that make one task.
fn whole_rows(channels: usize) -> usize {
    (CHUNK / channels).max(1) * channels
}

multiversion! {
    fn normalize_rows<T>(x: &[T], mean: &[T], scale: &[T], shift: &[T], out: &mut [T]) {
        let width = mean.len();
        for (x, out) in x.chunks(width).zip(out.chunks_mut(width)) {
            for ((((o, &x), &m), &s), &b) in out.iter_mut().zip(x).zip(mean).zip(scale).zip(shift) {
                *o = (x - m) * s + b;
            }
        }
    }
}

multiversion! {
    fn normalize_relu_rows<T>(x: &[T], mean: &[T], scale: &[T], shift: &[T], out: &mut [T]) {
        let width = mean.len();
        for (x, out) in x.chunks(width).zip(out.chunks_mut(width)) {
            for ((((o, &x), &m), &s), &b) in out.iter_mut().zip(x).zip(mean).zip(scale).zip(shift) {
                let v = (x - m) * s + b;
                *o = if v <= T::ZERO { T::ZERO } else { v };
            }
        }
    }
}

multiversion! {
    fn normalize_pixels<T>(x: &[T], step: usize, first: usize, len: usize, mean: &[T], scale: &[T], shift: &[T], activation: Activation, out: &mut [T]) {
        for (x, out) in x.chunks(step).zip(out.chunks_exact_mut(len)) {
            for ((((o, &x), &m), &s), &b) in out.iter_mut().zip(&x[first..first + len]).zip(mean).zip(scale).zip(shift) {
                let v = (x - m) * s + b;
                *o = if activation == Activation::Relu && v <= T::ZERO { T::ZERO } else { v };
            }
        }
    }
}

multiversion! {
    fn relu_rows<T>(y: &mut [T]) {
        for y in y {
            *y = if *y <= T::ZERO { T::ZERO } else { *y };
        }
    }
}

multiversion! {
    fn add_relu_rows<T>(residual: &[T], y: &mut [T]) {
        for (y, &r) in y.iter_mut().zip(residual) {
            let v = *y + r;
            *y = if v <= T::ZERO { T::ZERO } else { v };
        }
    }
}

multiversion! {
    fn gate_normalized_rows<T>(x: &[T], mean: &[T], scale: &[T], shift: &[T], dx: &mut [T]) {
        let width = mean.len();
        for (x, dx) in x.chunks(width).zip(dx.chunks_mut(width)) {
            for ((((d, &x), &m), &s), &b) in dx.iter_mut().zip(x).zip(mean).zip(scale).zip(shift) {
                *d = if (x - m) * s + b <= T::ZERO { T::ZERO } else { *d };
            }
        }
    }
}

multiversion! {
    fn gate_stored_rows<T>(y: &[T], dx: &mut [T]) {
        for (d, &y) in dx.iter_mut().zip(y) {
            *d = if y <= T::ZERO { T::ZERO } else { *d };
        }
    }
}

multiversion! {
    fn add_gradient_moments<T>(x: &[T], mean: &[T], dx: &[T], sums: &mut [f64], products: &mut [f64]) {
        let width = mean.len();
        for (x, dx) in x.chunks(width).zip(dx.chunks(width)) {
            for ((((s, q), &x), &g), &m) in sums.iter_mut().zip(products.iter_mut()).zip(x).zip(dx).zip(mean) {
                let g = g.to_f64();
                *s += g;
                *q += g * (x.to_f64() - m.to_f64());
            }
        }
    }
}
