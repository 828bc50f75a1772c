//! What a step allocates once everything has run, all of it added up: a bound that neither the batch nor the width of the network enters.
#![allow(clippy::unwrap_used)]

use landscape_core::{Batches, Bezier, Coefficients, ControlPoints, Examples, Flat, Objective, Pass, Row, Seed, Stateful, Tally, Targets};
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder};
use landscape_kernels::{Accumulate, Device};
use landscape_network::init::{Init, initialise};
use landscape_network::{Loss, NetworkObjective};
use landscape_train::{Connect, Control, Endpoint, FitConfig, FitState, Optimizer, Sampler, Schedule, UniformOn, fit};
use landscape_zoo::models;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Adds up every byte that is asked for.
struct Adding;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Adding {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        BYTES.fetch_add(size, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Adding = Adding;

/// A network whose batches are lent: who makes batches, and from what, is not the step's.
struct OnLent(NetworkObjective<f32>);

impl Objective for OnLent {
    type Batch = Arc<Examples<f32>>;
    type Scalar = f32;

    fn weights(&self) -> &Flat<f32> {
        self.0.weights()
    }

    fn move_to(&mut self, points: &ControlPoints<f32>, c: &Coefficients) -> landscape_core::Result<()> {
        self.0.move_to(points, c)
    }

    fn measure(&mut self, batch: &Self::Batch, pass: Pass) -> landscape_core::Result<Tally> {
        self.0.measure(batch, pass)
    }

    fn gradient(&mut self, batch: &Self::Batch, pass: Pass, into: &mut Flat<f32>, mode: Accumulate) -> landscape_core::Result<Tally> {
        self.0.gradient(batch, pass, into, mode)
    }

    fn collect(&mut self, told: &mut dyn FnMut(Tally)) -> landscape_core::Result<()> {
        self.0.collect(told)
    }
}

/// Two blocks as of VGG11-BN, as wide as said, and its head.
fn small_vgg(width: usize) -> Graph {
    let mut b = GraphBuilder::new([3, 16, 16]);
    let mut x = b.input();
    for (block, channels) in [(0, width), (1, 2 * width)] {
        x = b.conv2d(&format!("conv{block}"), x, Conv2d { padding: [1, 1], ..Conv2d::new(channels, 3) }).unwrap();
        x = b.batch_norm(&format!("bn{block}"), x).unwrap();
        x = b.relu(&format!("relu{block}"), x).unwrap();
        x = b.max_pool2d(&format!("pool{block}"), x, 2, 2).unwrap();
    }
    x = b.flatten("flatten", x).unwrap();
    x = b.dropout("dropout", x, 0.5).unwrap();
    x = b.linear("fc1", x, 4 * width, Bias::On).unwrap();
    x = b.relu("relu", x).unwrap();
    x = b.linear("fc2", x, 10, Bias::On).unwrap();
    b.finish(x).unwrap()
}

fn examples(graph: &Graph, n: usize) -> Arc<Examples<f32>> {
    let mut stream = Seed::new(2).stream();
    let inputs = (0..n * graph.input_shape().iter().product::<usize>()).map(|_| stream.normal() as f32).collect();
    let labels = (0..n).map(|_| stream.below(10) as u32).collect();
    Arc::new(Examples { inputs, n_examples: n, targets: Targets::Classes(labels) })
}

/// The most bytes that a training step, a step of a curve with three points, and an evaluation allocate once they have run.
fn bytes_of_steps(graph: &Arc<Graph>, n: usize) -> [usize; 3] {
    let mut objective = OnLent(NetworkObjective::new(graph.clone(), &Device::Cpu, Loss::CrossEntropy).unwrap());
    let buffers = objective.0.buffers().clone();
    let point = |seed| initialise::<f32>(graph, Init::PyTorch, Seed::new(seed), &Device::Cpu).unwrap();
    let batch = examples(graph, n);
    let batches = vec![batch.clone()];
    let mut steps = |mut points: ControlPoints<f32>, sampler: &dyn Sampler| {
        let optimizer = Optimizer::sgd(1e-3);
        let config = FitConfig { epochs: 4, optimizer, schedule: Schedule::Constant, ..Connect::garipov2018().fit };
        let mut state = FitState::new(&points, &optimizer);
        let (mut most, mut before) = (0, 0);
        fit(&mut objective, &mut points, sampler, &batches as &dyn Batches<Batch = _>, &config, Seed::new(3), &mut state, &mut |moment| {
            let now = BYTES.load(Relaxed);
            if moment.report.progress.step > 2 {
                most = most.max(now - before);
            }
            before = BYTES.load(Relaxed);
            Ok(Control::Continue)
        })
        .unwrap();
        most
    };
    let training = steps(ControlPoints::single(point(1)), &Endpoint);
    let rows = vec![Row::Frozen(Arc::new(point(1))), Row::Free(point(2)), Row::Frozen(Arc::new(point(3)))];
    let curve = steps(ControlPoints::new(rows).unwrap(), &UniformOn(&Bezier::new(3).unwrap()));
    objective.0.set_buffers(&buffers).unwrap();
    let mut evaluation = 0;
    for pass in 0..3 {
        let before = BYTES.load(Relaxed);
        objective.measure(&batch, Pass::EVALUATE).unwrap();
        let bytes = BYTES.load(Relaxed) - before;
        evaluation = if pass < 1 { 0 } else { evaluation.max(bytes) };
    }
    [training, curve, evaluation]
}

/// `bytes_of_steps` on one thread: a pool of more may have a thread that does its first work only later.
fn measured(graph: Graph, n: usize) -> [usize; 3] {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| bytes_of_steps(&Arc::new(graph), n))
}

fn assert_grows_at_most(by: usize, small: [usize; 3], large: [usize; 3], what: &str) {
    for ((small, large), step) in small.into_iter().zip(large).zip(["training step", "curve step", "evaluation"]) {
        assert!(large <= small + by, "{what}: a {step} allocated {small} and {large} bytes");
    }
}

// One test, because the allocator counts for the whole process.
#[test]
fn what_a_step_allocates_knows_neither_batch_nor_width() {
    // Linear layers need nothing: what is left are a few lists of control points.
    let mlp = |width: usize, n| measured(models::build(&format!("mlp:784-{width}-{width}-10"), &[1, 28, 28], 10).unwrap(), n);
    let small = mlp(128, 32);
    assert!(small.iter().all(|&bytes| bytes < 1024), "{small:?}");
    assert_eq!((mlp(128, 256), mlp(1024, 32)), (small, small));

    // A convolution lists the pixels of a group of images, and takes the sums of its batch norm in at most sixteen tasks, for each of
    // which there is a row of channels. An activation grows from 2 to 6 MiB here, and there are 38 of them.
    let resnet = |n| measured(models::build("resnet20", &[3, 32, 32], 10).unwrap(), n);
    let (small, large) = (resnet(32), resnet(96));
    assert!(large.iter().all(|&bytes| bytes < 12 << 20), "{large:?}");
    assert_grows_at_most(3 << 19, small, large, "ResNet-20 at batch 32 and 96");
    assert_grows_at_most(1 << 19, measured(small_vgg(16), 64), measured(small_vgg(16), 256), "a small VGG at batch 64 and 256");
    // Weights grow by a factor of 64: the larger ones have 3 MB.
    assert_grows_at_most(1 << 19, measured(small_vgg(16), 64), measured(small_vgg(128), 64), "a small VGG of width 16 and 128");
}
