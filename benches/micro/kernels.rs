//! Convolution, batch norm and linear layers at the sizes of ResNet-20 and of the MLP 784-512-512-512-10, batch 128, in f32.
//!
//! `cargo bench -p landscape-benches --bench kernels`; throughput is in multiply-adds per second (twice that in FLOP/s) for products, and
//! in elements for batch norm.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use landscape_kernels::batch_norm::{self, BatchNormShape};
use landscape_kernels::conv2d::{self, Conv2dShape};
use landscape_kernels::linear::{self, LinearShape};
use landscape_kernels::{Accumulate, Precision, gemm};
use std::hint::black_box;
use std::time::Duration;

const BATCH: usize = 128;
const MODE: Accumulate = Accumulate::Overwrite;
const WARM_UP: Duration = Duration::from_millis(200);
const MEASUREMENT: Duration = Duration::from_millis(500);

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7) % 13) as f32 * 0.1 - 0.6).collect()
}

fn convolution(criterion: &mut Criterion) {
    // (input channels, output channels, height and width, kernel, stride)
    let layers = [(3, 16, 32, 3, 1), (16, 16, 32, 3, 1), (16, 32, 32, 3, 2), (16, 32, 32, 1, 2), (32, 32, 16, 3, 1), (64, 64, 8, 3, 1)];
    let wide = [(64, 64, 32, 3, 1), (128, 128, 16, 3, 1), (256, 256, 8, 3, 1), (512, 512, 4, 3, 1)];
    let mut group = criterion.benchmark_group(format!("conv2d {}", gemm::kernel_path(Precision::F32)));
    group.sample_size(10).warm_up_time(WARM_UP).measurement_time(MEASUREMENT);
    for (inputs, outputs, size, kernel, stride) in layers.into_iter().chain(wide) {
        let s = Conv2dShape {
            n: BATCH,
            in_channels: inputs,
            in_size: [size, size],
            out_channels: outputs,
            kernel_size: [kernel, kernel],
            stride: [stride, stride],
            padding: [kernel / 2, kernel / 2],
            dilation: [1, 1],
            groups: 1,
            precision: Precision::F32,
        };
        group.throughput(Throughput::Elements((s.out_len() * inputs * kernel * kernel) as u64));
        let (x, w, dy) = (values(s.in_len()), values(s.weight_len()), values(s.out_len()));
        let (mut y, mut dx, mut dw, mut scratch) = (dy.clone(), x.clone(), w.clone(), values(s.scratch_len()));
        let name = format!("{inputs}-{outputs} {size}x{size} k{kernel} s{stride}");
        group.bench_function(format!("{name} forward"), |b| {
            b.iter(|| {
                conv2d::forward(black_box(&s), (&x).into(), (&w).into(), None, (&mut y).into(), (&mut scratch).into()).expect("fits")
            });
        });
        group.bench_function(format!("{name} input gradient"), |b| {
            b.iter(|| {
                let dx = (&mut dx).into();
                conv2d::backward_input(black_box(&s), (&w).into(), (&dy).into(), dx, MODE, (&mut scratch).into()).expect("fits");
            });
        });
        group.bench_function(format!("{name} weight gradient"), |b| {
            b.iter(|| {
                let dw = (&mut dw).into();
                conv2d::backward_weight(black_box(&s), (&x).into(), (&dy).into(), dw, None, MODE, (&mut scratch).into()).expect("fits");
            });
        });
    }
}

fn normalisation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch_norm");
    group.sample_size(10).warm_up_time(WARM_UP).measurement_time(MEASUREMENT);
    for (channels, size) in [(16, 32), (32, 16), (64, 8)] {
        let s = BatchNormShape { n_rows: BATCH * size * size, channels };
        let len = s.n_rows * channels;
        group.throughput(Throughput::Elements(len as u64));
        let (x, dy, w) = (values(len), values(len), values(channels));
        let (mut y, mut mean, mut var, mut dw, mut db) = (x.clone(), w.clone(), w.clone(), w.clone(), w.clone());
        group.bench_function(format!("{channels} {size}x{size} statistics"), |b| {
            b.iter(|| batch_norm::statistics(black_box(&s), (&x).into(), (&mut mean).into(), (&mut var).into()).expect("fits"));
        });
        let weight = Some((&w).into());
        group.bench_function(format!("{channels} {size}x{size} normalize"), |b| {
            b.iter(|| {
                let (mean, var) = ((&mean).into(), (&var).into());
                batch_norm::normalize(black_box(&s), (&x).into(), mean, var, 1e-5, weight, None, (&mut y).into()).expect("fits");
            });
        });
        group.bench_function(format!("{channels} {size}x{size} backward"), |b| {
            b.iter(|| {
                let (mean, var, dx) = ((&mean).into(), (&var).into(), (&mut y).into());
                let (dw, db) = (Some((&mut dw).into()), Some((&mut db).into()));
                let dy = (&dy).into();
                batch_norm::backward_batch(black_box(&s), (&x).into(), mean, var, 1e-5, weight, dy, dx, MODE, dw, db, MODE).expect("fits");
            });
        });
    }
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear");
    group.sample_size(10).warm_up_time(WARM_UP).measurement_time(MEASUREMENT);
    for (in_features, out_features) in [(784, 512), (512, 512), (512, 10)] {
        let s = LinearShape { n_rows: BATCH, in_features, out_features, precision: Precision::F32 };
        group.throughput(Throughput::Elements((BATCH * in_features * out_features) as u64));
        let (x, w, b, dy) =
            (values(BATCH * in_features), values(in_features * out_features), values(out_features), values(BATCH * out_features));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let name = format!("{in_features}-{out_features}");
        group.bench_function(format!("{name} forward"), |bench| {
            bench.iter(|| linear::forward(black_box(&s), (&x).into(), (&w).into(), Some((&b).into()), (&mut y).into()).expect("fits"));
        });
        group.bench_function(format!("{name} input gradient"), |bench| {
            bench.iter(|| linear::backward_input(black_box(&s), (&w).into(), (&dy).into(), (&mut dx).into(), MODE).expect("fits"));
        });
        group.bench_function(format!("{name} weight gradient"), |bench| {
            bench.iter(|| linear::backward_weight(black_box(&s), (&x).into(), (&dy).into(), (&mut dw).into(), None, MODE).expect("fits"));
        });
    }
}

criterion_group!(benches, convolution, normalisation, products);
criterion_main!(benches);
