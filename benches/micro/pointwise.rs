//! Gelu, maxima over windows and changes of layout at batch 128 in f32, beside a copy of as many numbers.
//!
//! `cargo bench -p landscape-benches --bench pointwise`; throughput is in bytes read and written.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use landscape_kernels::activation::{Gelu, gelu_backward, gelu_forward};
use landscape_kernels::pool::{PoolShape, max_backward, max_forward};
use landscape_kernels::{Accumulate, Precision, ViewMut, gemm, shape};
use std::hint::black_box;
use std::time::Duration;

const BATCH: usize = 128;
const MODE: Accumulate = Accumulate::Overwrite;

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 2003) as f32 * 0.004 - 4.0).collect()
}

fn pointwise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("pointwise {}", gemm::kernel_path(Precision::F32)));
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(400));

    let n = 1 << 20;
    let (x, dy, mut y) = (values(n), values(n), values(n));
    group.throughput(Throughput::Bytes(8 * n as u64));
    group.bench_function("copy", |b| b.iter(|| ViewMut::from(&mut y).copy_from(black_box(&x).into()).expect("fits")));
    for kind in [Gelu::Erf, Gelu::Tanh] {
        group.throughput(Throughput::Bytes(8 * n as u64));
        group.bench_function(format!("gelu {kind:?}"), |b| {
            b.iter(|| gelu_forward(kind, black_box(&x).into(), (&mut y).into()).expect("fits"));
        });
        group.throughput(Throughput::Bytes(12 * n as u64));
        group.bench_function(format!("gelu {kind:?} backward"), |b| {
            b.iter(|| gelu_backward(kind, black_box(&x).into(), (&dy).into(), (&mut y).into(), MODE).expect("fits"));
        });
    }

    for (channels, kernel, padding) in [(64, 2, 0), (64, 3, 1)] {
        let s = PoolShape { n: BATCH, channels, in_size: [32; 2], kernel_size: [kernel; 2], stride: [2; 2], padding: [padding; 2] };
        let (n_in, n_out) = (BATCH * channels * 1024, BATCH * channels * 256);
        let (x, dy) = (values(n_in), values(n_out));
        let (mut y, mut argmax, mut dx) = (values(n_out), vec![0; n_out], values(n_in));
        group.throughput(Throughput::Bytes(4 * (n_in + 2 * n_out) as u64));
        group.bench_function(format!("maximum of {kernel}x{kernel}"), |b| {
            b.iter(|| max_forward(black_box(&s), (&x).into(), (&mut y).into(), (&mut argmax).into()).expect("fits"));
        });
        group.bench_function(format!("maximum of {kernel}x{kernel} backward"), |b| {
            b.iter(|| max_backward(black_box(&s), (&argmax).into(), (&dy).into(), (&mut dx).into(), MODE).expect("fits"));
        });
    }

    for (channels, size) in [(3, 32), (64, 16), (512, 4)] {
        let n = BATCH * channels * size * size;
        let (x, mut y) = (values(n), values(n));
        group.throughput(Throughput::Bytes(8 * n as u64));
        group.bench_function(format!("nchw to nhwc {channels}x{size}x{size}"), |b| {
            b.iter(|| shape::nchw_to_nhwc(BATCH, channels, size, size, black_box(&x).into(), (&mut y).into()).expect("fits"));
        });
        group.bench_function(format!("nhwc to nchw {channels}x{size}x{size}"), |b| {
            b.iter(|| shape::nhwc_to_nchw(BATCH, channels, size, size, black_box(&x).into(), (&mut y).into()).expect("fits"));
        });
    }
    group.finish();
}

criterion_group!(benches, pointwise);
criterion_main!(benches);
