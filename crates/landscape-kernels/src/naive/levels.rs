//! Every vectorised loop that is compiled for several levels, at each level that this processor has, against its twin, and bit for bit
//! against the portable one. Products, convolutions, blends and steps have such tests of their own.

use super::tools::{bits, values};
use super::{activation as naive_activation, batch_norm as naive_norm, dropout as naive_dropout, pool as naive_pool, shape as naive_shape};
use crate::activation::Activation;
use crate::activation::{self, Gelu};
use crate::batch_norm::{self, BatchNormShape, Incoming, Through};
use crate::conv2d::{Gate, GradientEpilogue, Prologue};
use crate::dropout::{self, DropoutMask};
use crate::memory::{Accumulate, Real};
use crate::pool::{self, AdaptiveShape, Padding, PoolShape};
use crate::reduce::column_sums;
use crate::shape;
use crate::simd::Level;
use crate::simd::tests::at_level;

const MODES: [Accumulate; 2] = [Accumulate::Overwrite, Accumulate::Add];
const EPS: f64 = 1e-5;

/// What a loop yields, what its twin does, and how far apart they may be: |a − b| ≤ n·ε·(1 + |b|).
struct Row<T> {
    name: String,
    got: Vec<T>,
    expected: Vec<T>,
    n_ulps: f64,
}

struct Table<T>(Vec<Row<T>>);

impl<T: Real> Table<T> {
    fn add(&mut self, name: impl Into<String>, got: Vec<T>, expected: Vec<T>, n_ulps: f64) {
        self.0.push(Row { name: name.into(), got, expected, n_ulps });
    }

    fn add_wide(&mut self, name: impl Into<String>, got: Vec<T>, expected: Vec<f64>, n_ulps: f64) {
        self.add(name, got, expected.into_iter().map(T::from_f64).collect(), n_ulps);
    }
}

fn wide<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

/// `f` on a copy of `start`.
fn into<T: Real>(start: &[T], f: impl FnOnce(&mut Vec<T>)) -> Vec<T> {
    let mut out = start.to_vec();
    f(&mut out);
    out
}

fn finish<T: Real>(terms: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
    terms.iter().zip(start).map(|(&term, &start)| if mode == Accumulate::Add { start + term } else { term }).collect()
}

fn pointwise<T: Real>(table: &mut Table<T>) {
    let n = 4099;
    let (x, dy, start) =
        (values::<T>(n, 1).into_iter().map(|v| v * T::from_f64(6.0)).collect::<Vec<_>>(), values::<T>(n, 2), values::<T>(n, 3));
    let y = into(&start, |y| activation::relu_forward((&x).into(), y.into()).unwrap());
    table.add("relu", y.clone(), naive_activation::relu(&x), 0.0);
    table.add("relu in place", into(&x, |x| activation::relu_in_place(x.into())), naive_activation::relu(&x), 0.0);
    let gated = into(&dy, |dx| activation::relu_backward_in_place((&y).into(), dx.into()).unwrap());
    table.add("relu backward in place", gated, naive_activation::relu_backward(&x, &dy, &start, Accumulate::Overwrite), 0.0);
    let sum: Vec<T> = x.iter().zip(&dy).map(|(&a, &b)| a + b).collect();
    table.add("add", into(&start, |y| activation::add((&x).into(), (&dy).into(), y.into()).unwrap()), sum.clone(), 0.0);
    table.add("accumulate", into(&x, |into| activation::accumulate((&dy).into(), into.into()).unwrap()), sum, 0.0);
    let mask = DropoutMask { p: 0.3, seed: 5, first_idx: 17 };
    table.add(
        "dropout",
        into(&start, |y| dropout::forward(&mask, (&x).into(), y.into()).unwrap()),
        naive_dropout::apply(&mask, &x, None),
        0.0,
    );
    table.add("dropout in place", into(&x, |x| dropout::in_place(&mask, x.into()).unwrap()), naive_dropout::apply(&mask, &x, None), 0.0);
    for kind in [Gelu::Erf, Gelu::Tanh] {
        let y = into(&start, |y| activation::gelu_forward(kind, (&x).into(), y.into()).unwrap());
        table.add(format!("gelu {kind:?}"), y, naive_activation::gelu(kind, &x), 16.0);
    }
    for mode in MODES {
        let dx = into(&start, |dx| activation::relu_backward((&y).into(), (&dy).into(), dx.into(), mode).unwrap());
        table.add(format!("relu backward {mode:?}"), dx, naive_activation::relu_backward(&x, &dy, &start, mode), 0.0);
        let dx = into(&start, |dx| dropout::backward(&mask, (&dy).into(), dx.into(), mode).unwrap());
        let before = (mode == Accumulate::Add).then_some(&start[..]);
        table.add(format!("dropout backward {mode:?}"), dx, naive_dropout::apply(&mask, &dy, before), 1.0);
        for kind in [Gelu::Erf, Gelu::Tanh] {
            let dx = into(&start, |dx| activation::gelu_backward(kind, (&x).into(), (&dy).into(), dx.into(), mode).unwrap());
            table.add(format!("gelu backward {kind:?} {mode:?}"), dx, naive_activation::gelu_backward(kind, &x, &dy, &start, mode), 64.0);
        }
    }
}

fn normalisation<T: Real>(table: &mut Table<T>, channels: usize) {
    let s = BatchNormShape { n_rows: 301, channels };
    let n = s.n_rows * channels;
    let [x, dy, start, residual] = [1, 2, 3, 4].map(|seed| values::<T>(n, seed));
    let (weight, bias) = (values::<T>(channels, 5), values::<T>(channels, 6));
    let (mut mean, mut var, mut scale) = (vec![T::ZERO; channels], vec![T::ZERO; channels], vec![T::ZERO; channels]);
    batch_norm::statistics(&s, (&x).into(), (&mut mean).into(), (&mut var).into()).unwrap();
    batch_norm::scale((&var).into(), EPS, Some((&weight).into()), (&mut scale).into()).unwrap();
    let (x64, dy64, weight64) = (wide(&x), wide(&dy), wide(&weight));
    let (mean64, var64) = naive_norm::statistics(&s, &x64);
    table.add_wide(format!("statistics {channels}"), [mean.clone(), var.clone()].concat(), [mean64.clone(), var64.clone()].concat(), 4.0);
    let sums: Vec<T> = column_sums(channels, &x).into_iter().map(T::from_f64).collect();
    table.add_wide(format!("column sums {channels}"), sums, mean64.iter().map(|m| m * s.n_rows as f64).collect(), 64.0);
    let normal = naive_norm::normalize(&s, &x64, (&mean64, &var64), EPS, Some(&weight64), Some(&wide(&bias)));
    let y = into(&start, |y| {
        let (mean, var) = ((&mean).into(), (&var).into());
        batch_norm::normalize(&s, (&x).into(), mean, var, EPS, Some((&weight).into()), Some((&bias).into()), y.into()).unwrap();
    });
    table.add_wide(format!("normalize {channels}"), y, normal.clone(), 32.0);
    for activation in [Activation::None, Activation::Relu] {
        for added in [None, Some(&residual)] {
            let y = into(&start, |y| {
                let norm = Prologue { mean: (&mean).into(), scale: (&scale).into(), shift: (&bias).into(), activation };
                batch_norm::normalize_fused(&s, (&x).into(), &norm, added.map(|r| r.into()), y.into()).unwrap();
            });
            let sum = normal.iter().enumerate().map(|(i, v)| v + added.map_or(0.0, |r| r[i].to_f64()));
            let expected = sum.map(|v| if activation == Activation::Relu { v.max(0.0) } else { v }).collect();
            table.add_wide(format!("normalize fused {channels} {activation:?} {}", added.is_some()), y, expected, 32.0);
        }
    }
    for mode in MODES {
        for through in [Through::Batch, Through::Stored] {
            let [dx64, dweight64, dbias64] = match through {
                Through::Batch => naive_norm::backward_batch(&s, &x64, EPS, Some(&weight64), &dy64),
                Through::Stored => naive_norm::backward_stored(&s, &x64, (&mean64, &var64), EPS, Some(&weight64), &dy64),
            };
            let (mut dweight, mut dbias) = (vec![T::ZERO; channels], vec![T::ZERO; channels]);
            let dx = into(&start, |dx| {
                let (mean, var, weight) = ((&mean).into(), (&var).into(), Some((&weight).into()));
                let (dweight, dbias) = (Some((&mut dweight).into()), Some((&mut dbias).into()));
                let backward = if through == Through::Batch { batch_norm::backward_batch } else { batch_norm::backward_stored };
                backward(&s, (&x).into(), mean, var, EPS, weight, (&dy).into(), dx.into(), mode, dweight, dbias, Accumulate::Overwrite)
                    .unwrap();
            });
            let expected: Vec<T> = dx64.iter().map(|&v| T::from_f64(v)).collect();
            table.add(format!("norm backward {channels} {through:?} {mode:?}"), dx, finish(&expected, &start, mode), 64.0);
            table.add_wide(
                format!("norm parameters {channels} {through:?}"),
                [dweight, dbias].concat(),
                [dweight64, dbias64].concat(),
                256.0,
            );
        }
    }
    // The gate of a relu, the sums, and the input gradient in place: what a convolution does, and what follows it.
    let y = into(&start, |y| activation::relu_forward((&residual).into(), y.into()).unwrap());
    let gated: Vec<f64> = dy64.iter().zip(&y).map(|(g, y)| if *y > T::ZERO { *g } else { 0.0 }).collect();
    let (mut sums, mut products) = (vec![0.0; channels], vec![0.0; channels]);
    let dx = into(&dy, |dx| {
        let gate = Gate::Stored { y: (&y).into() };
        let (sums, products) = ((&mut sums).into(), (&mut products).into());
        let epilogue = GradientEpilogue { x: (&x).into(), mean: (&mean).into(), gate, sums, products };
        batch_norm::gate_and_sum(&s, dx.into(), epilogue).unwrap();
        let (mean, var, weight) = ((&mean).into(), (&var).into(), Some((&weight).into()));
        batch_norm::backward_input(
            &s,
            Through::Batch,
            (&x).into(),
            mean,
            var,
            EPS,
            weight,
            (&sums_of(&gated, channels)).into(),
            (&products_of(&gated, &x64, &mean64)).into(),
            Incoming::InPlace,
            dx.into(),
        )
        .unwrap();
    });
    table.add_wide(
        format!("gated norm backward {channels}"),
        dx,
        naive_norm::backward_batch(&s, &x64, EPS, Some(&weight64), &gated)[0].clone(),
        64.0,
    );
    let expected = [sums_of(&gated, channels), products_of(&gated, &x64, &mean64)].concat();
    table.add_wide(format!("gate and sum {channels}"), [sums, products].concat().into_iter().map(T::from_f64).collect(), expected, 256.0);
}

fn sums_of(dy: &[f64], channels: usize) -> Vec<f64> {
    (0..channels).map(|c| dy.iter().skip(c).step_by(channels).sum()).collect()
}

fn products_of(dy: &[f64], x: &[f64], mean: &[f64]) -> Vec<f64> {
    let terms: Vec<f64> = dy.iter().zip(x).enumerate().map(|(i, (g, x))| g * (x - mean[i % mean.len()])).collect();
    sums_of(&terms, mean.len())
}

fn pooling<T: Real>(table: &mut Table<T>, channels: usize) {
    for (kernel, stride, padding) in [([2, 2], [2, 2], [0, 0]), ([3, 3], [2, 2], [1, 1]), ([3, 2], [1, 3], [0, 1])] {
        let s = PoolShape { n: 2, channels, in_size: [9, 10], kernel_size: kernel, stride, padding };
        let name = |op: &str| format!("{op} {channels} {kernel:?} {stride:?}");
        let n_out = s.n * channels * s.out_size()[0] * s.out_size()[1];
        let x = values::<T>(s.n * channels * 90, 1);
        let (dy, start) = (values::<T>(n_out, 2), values::<T>(x.len(), 3));
        let mut argmax = vec![u32::MAX; n_out];
        let y = into(&dy, |y| pool::max_forward(&s, (&x).into(), y.into(), (&mut argmax).into()).unwrap());
        let (expected, places) = naive_pool::max(&s, &x);
        table.add(name("max"), y, expected, 0.0);
        let as_numbers = |places: &[u32]| places.iter().map(|&place| T::from_f64(f64::from(place))).collect::<Vec<T>>();
        table.add(name("places of max"), as_numbers(&argmax), as_numbers(&places), 0.0);
        let y = into(&dy, |y| pool::average_forward(&s, Padding::NotCounted, (&x).into(), y.into()).unwrap());
        let mut means = vec![0.0; n_out];
        let pairs = naive_pool::average_pairs(&s, Padding::NotCounted);
        pairs.iter().for_each(|&(out, input, divisor)| means[out] += x[input].to_f64() / divisor);
        table.add_wide(name("average"), y, means, 4.0);
        for mode in MODES {
            let dx = into(&start, |dx| pool::max_backward(&s, (&argmax).into(), (&dy).into(), dx.into(), mode).unwrap());
            let mut expected = if mode == Accumulate::Add { start.clone() } else { vec![T::ZERO; x.len()] };
            dy.iter().enumerate().for_each(|(out, &dy)| expected[naive_pool::max_source(&s, out, argmax[out])] += dy);
            table.add(name("max backward"), dx, expected, 0.0);
            let dx = into(&start, |dx| pool::average_backward(&s, Padding::NotCounted, (&dy).into(), dx.into(), mode).unwrap());
            let mut expected = if mode == Accumulate::Add { wide(&start) } else { vec![0.0; x.len()] };
            pairs.iter().for_each(|&(out, input, divisor)| expected[input] += dy[out].to_f64() / divisor);
            table.add_wide(name("average backward"), dx, expected, 32.0);
        }
    }
    let s = AdaptiveShape { n: 2, channels, in_size: [7, 5], out_size: [3, 2] };
    let x = values::<T>(2 * channels * 35, 1);
    let mut means = vec![0.0; 2 * channels * 6];
    naive_pool::adaptive_pairs(&s).iter().for_each(|&(out, input, divisor)| means[out] += x[input].to_f64() / divisor);
    let y = into(&x[..means.len()], |y| pool::adaptive_average_forward(&s, (&x).into(), y.into()).unwrap());
    table.add_wide(format!("adaptive average {channels}"), y, means, 4.0);
}

fn layouts<T: Real>(table: &mut Table<T>, channels: usize) {
    for [h, w] in [[1, 3], [5, 7], [4, 8], [16, 18]] {
        let sizes = [2, channels, h, w];
        let x = values::<T>(sizes.iter().product(), 1);
        let last = naive_shape::nchw_to_nhwc(sizes, &x);
        let name = |op: &str| format!("{op} {sizes:?}");
        let start = values::<T>(x.len(), 2);
        table.add(
            name("nchw_to_nhwc"),
            into(&start, |y| shape::nchw_to_nhwc(2, channels, h, w, (&x).into(), y.into()).unwrap()),
            last.clone(),
            0.0,
        );
        table.add(
            name("nhwc_to_nchw"),
            into(&start, |y| shape::nhwc_to_nchw(2, channels, h, w, (&last).into(), y.into()).unwrap()),
            x.clone(),
            0.0,
        );
        for mode in MODES {
            let dx = into(&start, |dx| shape::flatten_backward(2, channels, h, w, (&x).into(), dx.into(), mode).unwrap());
            table.add(name("flatten backward"), dx, finish(&last, &start, mode), 0.0);
        }
    }
}

fn table<T: Real>() -> Table<T> {
    let mut table = Table(Vec::new());
    pointwise(&mut table);
    for channels in [1, 5, 16, 37, 130] {
        normalisation(&mut table, channels);
    }
    for channels in [1, 3, 16, 37] {
        pooling(&mut table, channels);
    }
    for channels in [2, 3, 4, 8, 16, 19, 40] {
        layouts(&mut table, channels);
    }
    table
}

fn check<T: Real>() {
    let portable = at_level(Level::Portable, table::<T>);
    for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
        for (row, portable) in at_level(level, table::<T>).0.iter().zip(&portable.0) {
            let name = &row.name;
            assert_eq!(row.got.len(), row.expected.len(), "{name} at {level}");
            for (i, (got, expected)) in row.got.iter().zip(&row.expected).enumerate() {
                let allowed = row.n_ulps * T::EPSILON.to_f64() * (1.0 + expected.to_f64().abs());
                assert!((got.to_f64() - expected.to_f64()).abs() <= allowed, "{name} at {level}, element {i}: {got} for {expected}");
            }
            assert!(bits(&row.got) == bits(&portable.got), "{name} at {level} has other bits than the portable loop");
        }
    }
}

#[test]
fn every_loop_equals_its_twin_at_every_level() {
    check::<f32>();
    check::<f64>();
}
