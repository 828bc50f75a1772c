//! After the first step nothing proportional to an activation or a weight is allocated, and a plan shares memory.
#![allow(clippy::unwrap_used)]

mod common;

use common::{examples, objective};
use landscape_core::{ControlPoints, Flat, Objective, Pass, Stateful};
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder};
use landscape_kernels::{Accumulate, Device};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Remembers the largest allocation since it was last asked.
struct Largest;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Largest = Largest;

/// Like VGG in small: 64 channels of 16 x 16 pixels are 64 KiB per example.
fn network(n_blocks: usize) -> Graph {
    let mut b = GraphBuilder::new([3, 16, 16]);
    let mut x = b.input();
    for block in 0..n_blocks {
        x = b.conv2d(&format!("conv{block}"), x, Conv2d { padding: [1, 1], ..Conv2d::new(64, 3) }).unwrap();
        x = b.batch_norm(&format!("bn{block}"), x).unwrap();
        x = b.relu(&format!("relu{block}"), x).unwrap();
    }
    x = b.max_pool2d("pool", x, 2, 2).unwrap();
    x = b.flatten("flatten", x).unwrap();
    x = b.linear("fc", x, 10, Bias::On).unwrap();
    b.finish(x).unwrap()
}

// One test, because the allocator counts for the whole process; one thread, because matrix products take their packing memory once per
// thread, and a second thread may come to its first product at any step.
#[test]
fn steps_allocate_nothing_large_and_memory_is_shared() {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(check);
}

fn check() {
    let n = 16;
    let mut objective = objective::<f32>(network(3), 1);
    let batch = examples::<f32>(objective.executor().graph(), n, 2);
    let smaller = examples::<f32>(objective.executor().graph(), n - 3, 2);
    let points = ControlPoints::single(objective.weights().clone());
    let c = landscape_core::Coefficients::one_hot(0, 1).unwrap();
    let buffers = objective.buffers().clone();
    let mut gradient = Flat::zeros(points.layout(), &Device::Cpu);
    let mut step = || {
        objective.move_to(&points, &c).unwrap();
        objective.gradient(&batch, Pass::train(1), &mut gradient, Accumulate::Overwrite).unwrap();
        objective.gradient(&smaller, Pass::train(1), &mut gradient, Accumulate::Add).unwrap();
        objective.set_buffers(&buffers).unwrap();
        objective.measure(&batch, Pass::EVALUATE).unwrap();
        objective.executor().memory_bytes()
    };
    let bytes = step();
    LARGEST.store(0, Relaxed);
    for _ in 0..3 {
        assert_eq!(step(), bytes);
    }
    let largest = LARGEST.load(Relaxed);
    // A weight of 64 x 64 x 3 x 3 is 144 KiB, an activation of a batch 1 MiB. What is left are per-channel sums and fixed blocks.
    assert!(largest < 64 * 1024, "a step allocated {largest} bytes at once");

    // Per block, a reverse pass needs what came out of the convolution: one activation of 1 MiB. Batch norm and relu are made again by
    // the next convolution. An evaluation needs two or three altogether, however deep the network is.
    let bytes = |n_blocks: usize, training: bool| {
        let mut objective = common::objective::<f32>(network(n_blocks), 1);
        let mut gradient = Flat::zeros(objective.weights().layout(), &Device::Cpu);
        if training {
            objective.gradient(&batch, Pass::EVALUATE, &mut gradient, Accumulate::Overwrite).unwrap();
        } else {
            objective.measure(&batch, Pass::EVALUATE).unwrap();
        }
        objective.executor().memory_bytes()
    };
    let activation = n * 64 * 16 * 16 * size_of::<f32>();
    assert_eq!(bytes(6, false), bytes(3, false));
    let growth = bytes(6, true) - bytes(3, true);
    assert_eq!(growth, 3 * activation, "training keeps {growth} bytes for three more blocks");
}
