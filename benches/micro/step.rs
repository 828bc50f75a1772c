//! Whole training steps at batch 128 in f32 (move, forward, loss, reverse, SGD with momentum and L2 of the point), of an endpoint and
//! of a Bézier curve of three points, and an evaluation pass: ResNet-20 on 32x32 images, and the MLP 784-512-512-512-10.
//!
//! `cargo bench -p landscape-benches --bench step`
#![allow(missing_docs)]

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use landscape_core::{Bezier, Coefficients, ControlPoints, Examples, Objective, Pass, Row, Seed, Stateful, Targets};
use landscape_kernels::{Device, Precision, gemm};
use landscape_network::init::{Init, initialise};
use landscape_network::{Loss, NetworkObjective};
use landscape_train::{Connect, Control, Endpoint, FitConfig, FitState, Optimizer, Sampler, Schedule, UniformOn, fit};
use landscape_zoo::models;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const N_EXAMPLES: usize = 128;
const N_CLASSES: usize = 10;

/// Runs as many steps as criterion asks for, in one call of the training loop each time.
fn steps(
    b: &mut Bencher<'_>,
    objective: &mut NetworkObjective<f32>,
    mut points: ControlPoints<f32>,
    sampler: &dyn Sampler,
    batch: &Examples<f32>,
) {
    // A rate that moves nothing far: the numbers stay those of a new network, however many steps are measured.
    let optimizer = Optimizer::sgd(1e-6);
    let config = FitConfig { epochs: 1 << 40, optimizer, schedule: Schedule::Constant, ..Connect::garipov2018().fit };
    let mut state = FitState::new(&points, &optimizer);
    let batches = vec![batch.clone()];
    b.iter_custom(|n_steps| {
        let end = state.step + n_steps;
        let started = Instant::now();
        fit(objective, &mut points, sampler, &batches, &config, Seed::new(3), &mut state, &mut |moment| {
            Ok(if moment.report.progress.step < end { Control::Continue } else { Control::Stop })
        })
        .expect("a run");
        started.elapsed()
    });
}

fn network(c: &mut Criterion, name: &str, model: &str, input_shape: &[usize]) {
    let graph = Arc::new(models::build(model, input_shape, N_CLASSES).expect("a model of the zoo"));
    let mut objective = NetworkObjective::<f32>::new(graph.clone(), &Device::Cpu, Loss::CrossEntropy).expect("a network");
    let buffers = objective.buffers().clone();
    let point = |seed| initialise(&graph, Init::PyTorch, Seed::new(seed), &Device::Cpu).expect("weights");
    let mut stream = Seed::new(2).stream();
    let inputs = (0..N_EXAMPLES * input_shape.iter().product::<usize>()).map(|_| stream.normal() as f32).collect();
    let labels = (0..N_EXAMPLES).map(|_| stream.below(N_CLASSES) as u32).collect();
    let batch = Examples { inputs, n_examples: N_EXAMPLES, targets: Targets::Classes(labels) };

    let mut group = c.benchmark_group(format!("{name} {}", gemm::kernel_path(Precision::F32)));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    group.bench_function("endpoint step", |b| {
        steps(b, &mut objective, ControlPoints::single(point(1)), &Endpoint, &batch);
    });
    group.bench_function("curve step", |b| {
        let rows = vec![Row::Frozen(Arc::new(point(1))), Row::Free(point(2)), Row::Frozen(Arc::new(point(3)))];
        let curve = Bezier::new(3).expect("three points");
        steps(b, &mut objective, ControlPoints::new(rows).expect("one layout"), &UniformOn(&curve), &batch);
    });
    group.bench_function("evaluation", |b| {
        let (points, one) = (ControlPoints::single(point(1)), Coefficients::one_hot(0, 1).expect("one point"));
        objective.move_to(&points, &one).expect("a move");
        objective.set_buffers(&buffers).expect("its own buffers");
        b.iter(|| black_box(objective.measure(&batch, Pass::EVALUATE).expect("a pass")));
    });
    group.finish();
}

fn networks(c: &mut Criterion) {
    network(c, "mlp_784_512_512_512_10", "mlp:784-512-512-512-10", &[1, 28, 28]);
    network(c, "resnet20", "resnet20", &[3, 32, 32]);
}

criterion_group!(benches, networks);
criterion_main!(benches);
