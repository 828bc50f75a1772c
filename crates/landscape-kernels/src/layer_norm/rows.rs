//! Rows brought to one length, about their mean or about zero: what layer norm and RMS norm share on the processor.

use super::LayerNormShape;
use crate::exp::sum_of;
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut, n_splits};
use crate::simd::multiversion;
use rayon::prelude::*;

/// What is subtracted from a row before its length is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Centre {
    /// Its mean.
    Mean,
    /// Nothing.
    Zero,
}

/// Elements that one task of the forward pass works on, in whole rows.
const PIECE: usize = CHUNK / 2;
/// Elements per task of the backward pass below which another one costs more than it saves.
const MIN_SPLIT: usize = 32 * 1024;
/// Rows whose parameter gradients are added up in the scalar, before they are in double precision.
const BLOCK: usize = 32;

/// y = (x − c)/√(mean((x − c)²) + eps)·weight + bias.
pub(crate) fn forward<T: Real>(
    centre: Centre,
    shape: &LayerNormShape,
    eps: f64,
    x: &[T],
    weight: Option<&[T]>,
    bias: Option<&[T]>,
    y: &mut [T],
) {
    let len = shape.len;
    if x.is_empty() {
        return;
    }
    let (ones, zeros) = (weight.is_none().then(|| vec![T::ONE; len]), bias.is_none().then(|| vec![T::ZERO; len]));
    let weight = weight.or(ones.as_deref()).unwrap_or_default();
    let bias = bias.or(zeros.as_deref()).unwrap_or_default();
    let piece = (PIECE / len).max(1) * len;
    for_each_chunk_mut(y, piece, |idx, y| forward_rows(centre, eps, &x[idx * piece..][..y.len()], weight, bias, y));
}

/// The gradients of [`forward`]; those of the parameters are taken in double precision over fixed parts of the rows.
#[allow(clippy::too_many_arguments)]
pub(crate) fn backward<T: Real>(
    centre: Centre,
    shape: &LayerNormShape,
    eps: f64,
    x: &[T],
    weight: Option<&[T]>,
    dy: &[T],
    dx: Option<(ViewMut<'_, T>, Accumulate)>,
    dweight: Option<ViewMut<'_, T>>,
    dbias: Option<ViewMut<'_, T>>,
    mode: Accumulate,
) {
    let &LayerNormShape { n_rows, len } = shape;
    // Lengths that are asked for were checked; others may be anything where there are no rows.
    let wants_parameters = dweight.is_some() || dbias.is_some();
    let zeros = || vec![0.0_f64; if wants_parameters { len } else { 0 }];
    let mut totals = [zeros(), zeros()];
    if !x.is_empty() {
        let ones = weight.is_none().then(|| vec![T::ONE; len]);
        let weight = weight.or(ones.as_deref()).unwrap_or_default();
        let rows = n_rows.div_ceil(n_splits(n_rows, MIN_SPLIT.div_ceil(len)));
        let piece = rows * len;
        let dx_mode = dx.as_ref().map_or(Accumulate::Overwrite, |(_, mode)| *mode);
        let parts: Vec<Option<&mut [T]>> = match dx {
            Some((dx, _)) => dx.host().chunks_mut(piece).map(Some).collect(),
            None => (0..n_rows.div_ceil(rows)).map(|_| None).collect(),
        };
        let partials: Vec<[Vec<f64>; 2]> = parts
            .into_par_iter()
            .enumerate()
            .map(|(idx, mut dx)| {
                let mut sums = [zeros(), zeros()];
                let mut row = vec![T::ZERO; len];
                let mut block = [vec![T::ZERO; sums[0].len()], vec![T::ZERO; sums[0].len()]];
                let range = idx * piece..((idx + 1) * piece).min(x.len());
                for first in range.clone().step_by(BLOCK * len) {
                    let rows = first..(first + BLOCK * len).min(range.end);
                    let dx = dx.as_deref_mut().map(|dx| &mut dx[rows.start - range.start..rows.end - range.start]);
                    let [dw, db] = block.each_mut().map(Vec::as_mut_slice);
                    backward_rows(centre, eps, &x[rows.clone()], weight, &dy[rows], dx, dx_mode, dw, db, &mut row);
                    for (sums, block) in sums.iter_mut().zip(&mut block) {
                        sums.iter_mut().zip(block).for_each(|(sum, block)| *sum += std::mem::take(block).to_f64());
                    }
                }
                sums
            })
            .collect();
        for partial in &partials {
            for (total, sums) in totals.iter_mut().zip(partial) {
                total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            }
        }
    }
    let [dweights, dbiases] = totals;
    for (sums, into) in [(dweights, dweight), (dbiases, dbias)] {
        let Some(into) = into else { continue };
        for (out, sum) in into.host().iter_mut().zip(sums) {
            *out = if mode == Accumulate::Add { *out + T::from_f64(sum) } else { T::from_f64(sum) };
        }
    }
}

/// The views' slices.
pub(crate) fn host<T: Real>(view: Option<View<'_, T>>) -> Option<&[T]> {
    view.map(View::host)
}

/// What is subtracted from a row, and one over its length: sums in double precision, in two passes.
#[inline(always)]
fn statistics<T: Real>(centre: Centre, eps: f64, x: &[T]) -> [T; 2] {
    let n = x.len() as f64;
    let mean = match centre {
        Centre::Mean => sum_of(x, x, |v, _| v.to_f64()) / n,
        Centre::Zero => 0.0,
    };
    let square = sum_of(x, x, |v, _| {
        let d = v.to_f64() - mean;
        d * d
    });
    [T::from_f64(mean), T::from_f64(1.0 / (square / n + eps).sqrt())]
}

multiversion! {
    fn forward_rows<T>(centre: Centre, eps: f64, x: &[T], weight: &[T], bias: &[T], y: &mut [T]) {
        let len = weight.len();
        for (x, y) in x.chunks_exact(len).zip(y.chunks_exact_mut(len)) {
            let [mean, scale] = statistics(centre, eps, x);
            for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = (x - mean) * scale * w + b;
            }
        }
    }
}

multiversion! {
    /// `dweight` and `dbias` are added to, or empty; `g` is scratch for a row.
    fn backward_rows<T>(
        centre: Centre,
        eps: f64,
        x: &[T],
        weight: &[T],
        dy: &[T],
        dx: Option<&mut [T]>,
        mode: Accumulate,
        dweight: &mut [T],
        dbias: &mut [T],
        g: &mut [T],
    ) {
        let len = weight.len();
        let n = T::from_f64(len as f64);
        let mut dx = dx.map(|dx| dx.chunks_exact_mut(len));
        for (x, dy) in x.chunks_exact(len).zip(dy.chunks_exact(len)) {
            let [mean, scale] = statistics(centre, eps, x);
            if let Some(dx) = dx.as_mut().and_then(Iterator::next) {
                // dx = scale·(g − mean(g) − x̂·mean(g·x̂)) with g = dy·weight; the mean of g comes in through the mean of x alone.
                for ((g, &dy), &w) in g.iter_mut().zip(dy).zip(weight) {
                    *g = dy * w;
                }
                let along: T = sum_of(g, x, |g, x| g * (x - mean)) * scale * scale / n;
                let shift = if centre == Centre::Mean { sum_of(g, g, |g, _| g) / n } else { T::ZERO };
                let each = dx.iter_mut().zip(x).zip(&*g);
                match mode {
                    Accumulate::Overwrite => {
                        for ((dx, &x), &g) in each {
                            *dx = scale * (g - shift - (x - mean) * along);
                        }
                    }
                    Accumulate::Add => {
                        for ((dx, &x), &g) in each {
                            *dx += scale * (g - shift - (x - mean) * along);
                        }
                    }
                }
            }
            for (((dw, db), &x), &dy) in dweight.iter_mut().zip(dbias.iter_mut()).zip(x).zip(dy) {
                *dw += dy * ((x - mean) * scale);
                *db += dy;
            }
        }
    }
}
