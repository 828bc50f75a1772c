//! One training step without the optimiser (move, forward, loss, reverse) at batch 128: ResNet-20 on 32x32 images, and the MLP
//! 784-512-512-512-10; and an evaluation pass of each.

use criterion::{Criterion, criterion_group, criterion_main};
use landscape_core::{Coefficients, ControlPoints, Examples, Flat, Objective, Pass, Seed, Stateful, Targets};
use landscape_kernels::{Accumulate, Device};
use landscape_network::init::{Init, initialise};
use landscape_network::{Loss, NetworkObjective};
use landscape_zoo::models;
use std::hint::black_box;
use std::sync::Arc;

const N_EXAMPLES: usize = 128;
const N_CLASSES: usize = 10;

fn network(c: &mut Criterion, name: &str, model: &str, input_shape: &[usize]) {
    let graph = Arc::new(models::build(model, input_shape, N_CLASSES).expect("a model of the zoo"));
    let mut objective = NetworkObjective::<f32>::new(graph.clone(), &Device::Cpu, Loss::CrossEntropy).expect("a network");
    let point = initialise(&graph, Init::PyTorch, Seed::new(1), &Device::Cpu).expect("weights");
    let mut stream = Seed::new(2).stream();
    let inputs = (0..N_EXAMPLES * input_shape.iter().product::<usize>()).map(|_| stream.normal() as f32).collect();
    let labels = (0..N_EXAMPLES).map(|_| stream.below(N_CLASSES) as u32).collect();
    let batch = Examples { inputs, n_examples: N_EXAMPLES, targets: Targets::Classes(labels) };
    let mut gradient = Flat::zeros(point.layout(), &Device::Cpu);
    let points = ControlPoints::single(point);
    let one = Coefficients::one_hot(0, 1).expect("one point");
    let buffers = objective.buffers().clone();

    let mut group = c.benchmark_group(name);
    group.sample_size(20);
    group.bench_function("step", |b| {
        b.iter(|| {
            objective.move_to(&points, &one).expect("a move");
            black_box(objective.gradient(&batch, Pass::train(1), &mut gradient, Accumulate::Overwrite).expect("a step"))
        });
    });
    objective.set_buffers(&buffers).expect("its own buffers");
    group.bench_function("evaluate", |b| b.iter(|| black_box(objective.measure(&batch, Pass::EVALUATE).expect("a pass"))));
    group.finish();
}

fn steps(c: &mut Criterion) {
    network(c, "mlp_784_512_512_512_10", "mlp:784-512-512-512-10", &[1, 28, 28]);
    network(c, "resnet20", "resnet20", &[3, 32, 32]);
}

criterion_group!(benches, steps);
criterion_main!(benches);
