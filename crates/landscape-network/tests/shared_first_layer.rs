//! The work of the first layer shared among points: the numbers of the network itself, to rounding.
#![allow(clippy::unwrap_used)]

mod common;

use common::{cut, examples, mlp, objective, residual, zoo};
use landscape_core::checkpoint::Checkpoint;
use landscape_core::parallel_points::measure_points;
use landscape_core::tensor::{Dtype, RawTensor};
use landscape_core::whole::Overwrite;
use landscape_core::{Bezier, ControlPoints, Curve, Fork, NormRefresh, Objective, Pass, Row, Stateful, StoredPoint, Tally};
use landscape_graph::{Bias, Graph, GraphBuilder};
use landscape_kernels::{Device, Real};
use landscape_network::shared_first_layer::{FirstLayer, SharedFirstLayer};
use landscape_network::{Error, Loss};
use std::path::Path;
use std::sync::Arc;

/// An image, flattened before the first layer, which has no bias and is followed by batch norm.
fn flattened() -> Graph {
    let mut b = GraphBuilder::new([2, 3, 3]);
    let x = b.flatten("flatten", b.input()).unwrap();
    let x = b.linear("fc1", x, 40, Bias::Off).unwrap();
    let x = b.batch_norm("bn1", x).unwrap();
    let x = b.relu("relu1", x).unwrap();
    let x = b.linear("fc2", x, 3, Bias::On).unwrap();
    b.finish(x).unwrap()
}

/// Tallies and statistics along a curve of three points, by the network and with the first layer shared.
fn compare<T: Real>(graph: fn() -> Graph, tolerance: f64) {
    let points = ControlPoints::new((0..3).map(|seed| Row::Free(objective::<T>(graph(), seed).weights().clone())).collect()).unwrap();
    let mut plain = objective::<T>(graph(), 5);
    let network = plain.executor().graph().clone();
    let batch = examples::<T>(&network, 30, 4);
    let batches = cut(&batch, &[13, 17]);
    let mut first = FirstLayer::new(&network, &Device::Cpu, &points).unwrap();
    let products: Vec<_> = batches.0.iter().map(|batch| Arc::new(first.products(batch).unwrap())).collect();
    let mut shared = SharedFirstLayer::new(&network, &Device::Cpu, Loss::CrossEntropy, points.clone()).unwrap();
    let curve = Bezier::new(3).unwrap();
    for how in [NormRefresh::BatchAverage, NormRefresh::Sequential] {
        for t in [0.0, 0.3, 0.5, 1.0] {
            let c = curve.coefficients(t).unwrap();
            plain.move_to(&points, &c).unwrap();
            shared.move_to(&points, &c).unwrap();
            assert_eq!(plain.weights().to_vec(), shared.weights().to_vec());
            plain.refresh(how, &batches).unwrap();
            shared.refresh(how, &products).unwrap();
            plain.buffers().layout().check_same("plain", shared.buffers().layout(), "shared").unwrap();
            for (a, b) in plain.buffers().values().iter().zip(shared.buffers().values()) {
                assert!((a - b).abs() <= tolerance * (1.0 + a.abs()), "{how:?} {t}: {a} {b}");
            }
            for (batch, products) in batches.0.iter().zip(&products) {
                let (a, b): (Tally, Tally) =
                    (plain.measure(batch, Pass::EVALUATE).unwrap(), shared.measure(products, Pass::EVALUATE).unwrap());
                assert_eq!((a.n_examples, a.n_wrong), (b.n_examples, b.n_wrong));
                assert!((a.nll() - b.nll()).abs() <= tolerance * (1.0 + a.nll()), "{how:?} {t}: {} {}", a.nll(), b.nll());
            }
        }
    }
}

#[test]
fn the_numbers_are_those_of_the_network_to_rounding() {
    for graph in [mlp, residual, flattened] {
        compare::<f64>(graph, 1e-12);
        compare::<f32>(graph, 1e-5);
    }
}

#[test]
fn forks_give_the_same_bits() {
    let points = ControlPoints::new((0..3).map(|seed| Row::Free(objective::<f32>(flattened(), seed).weights().clone())).collect()).unwrap();
    let network = flattened();
    let batch = examples::<f32>(&network, 30, 4);
    let products = vec![Arc::new(FirstLayer::new(&network, &Device::Cpu, &points).unwrap().products(&batch).unwrap())];
    let along = |n_forks: usize| {
        let mut shared = SharedFirstLayer::new(&network, &Device::Cpu, Loss::CrossEntropy, points.clone()).unwrap();
        assert!(shared.fork_bytes(30) > shared.fork_bytes(0) && shared.fork_bytes(0) > 0);
        let mut found = Vec::new();
        let at = |shared: &mut SharedFirstLayer<f32>, idx: usize| {
            shared.move_to(&points, &Bezier::new(3)?.coefficients(idx as f64 / 6.0)?)?;
            shared.refresh(NormRefresh::BatchAverage, &products)?;
            Ok::<_, landscape_core::Error>(shared.measure(&products[0], Pass::EVALUATE)?.loss_nats_sum.to_bits())
        };
        measure_points(&mut shared, n_forks, 0..7, at, |_, bits| {
            found.push(bits);
            Ok(())
        })
        .unwrap();
        found
    };
    let expected = along(1);
    assert_eq!(expected.len(), 7);
    assert_eq!((along(2), along(3)), (expected.clone(), expected));
}

/// Endpoints that stay in their files, in single precision and in bf16, give the bits of the same numbers in memory.
#[test]
fn rows_in_their_files_give_the_bits_of_rows_in_memory() {
    let graph = flattened();
    let batch = examples::<f32>(&graph, 30, 4);
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let ends: Vec<_> = (0..2)
            .map(|seed| {
                let point = objective::<f32>(flattened(), seed).weights().clone();
                let values: Vec<f64> = point.to_vec().into_iter().map(f64::from).collect();
                let tensors = point.layout().tensors().iter().map(|spec| {
                    let values = &values[spec.offset..spec.offset + spec.n_elements()];
                    (spec.name.clone(), RawTensor::from_f64(dtype, spec.shape.clone(), values).unwrap())
                });
                let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("first-layer-{seed}-{}.safetensors", dtype.name()));
                Checkpoint { tensors: tensors.collect(), metadata: None }.write(&file, Overwrite::Replace).unwrap();
                Arc::new(StoredPoint::<f32>::new(&Checkpoint::map(&file).unwrap(), point.layout()).unwrap())
            })
            .collect();
        let bend = Row::Free(objective::<f32>(flattened(), 2).weights().clone());
        let found = |[first, last]: [Row<f32>; 2]| {
            let points = ControlPoints::new(vec![first, bend.clone(), last]).unwrap();
            let products = vec![Arc::new(FirstLayer::new(&graph, &Device::Cpu, &points).unwrap().products(&batch).unwrap())];
            let mut shared = SharedFirstLayer::new(&graph, &Device::Cpu, Loss::CrossEntropy, points.clone()).unwrap();
            let mut fork = shared.fork();
            let at = |shared: &mut SharedFirstLayer<f32>, t: f64| {
                shared.move_to(&points, &Bezier::new(3).unwrap().coefficients(t).unwrap()).unwrap();
                shared.refresh(NormRefresh::BatchAverage, &products).unwrap();
                shared.measure(&products[0], Pass::EVALUATE).unwrap().loss_nats_sum.to_bits()
            };
            [0.0, 0.3, 1.0].map(|t| [at(&mut shared, t), at(&mut fork, t)])
        };
        let stored = found([&ends[0], &ends[1]].map(|end| Row::Stored(end.clone())));
        let in_memory = found([&ends[0], &ends[1]].map(|end| Row::Frozen(Arc::new(end.read()))));
        assert_eq!(stored, in_memory, "{dtype:?}");
        assert!(stored.iter().all(|[a, b]| a == b) && stored[0] != stored[1]);
    }
}

#[test]
fn misuse_is_refused() {
    let of = |seed| Row::Free(objective::<f64>(mlp(), seed).weights().clone());
    let points = ControlPoints::new(vec![of(0), of(1)]).unwrap();
    let others = ControlPoints::new(vec![of(0), of(2)]).unwrap();
    let mut shared = SharedFirstLayer::new(&mlp(), &Device::Cpu, Loss::CrossEntropy, points.clone()).unwrap();
    let c = landscape_core::Segment.coefficients(0.5).unwrap();
    assert!(shared.move_to(&points.clone(), &c).is_ok(), "a copy is as good");
    assert!(shared.move_to(&others, &c).unwrap_err().to_string().contains("products are shared"));
    let three = Bezier::new(3).unwrap().coefficients(0.5).unwrap();
    assert!(shared.move_to(&points, &three).is_err());
    let wide = ControlPoints::new(vec![of(0), of(1), of(2)]).unwrap();
    let batch = examples::<f64>(&mlp(), 4, 1);
    let products = Arc::new(FirstLayer::new(&mlp(), &Device::Cpu, &wide).unwrap().products(&batch).unwrap());
    assert!(shared.measure(&products, Pass::EVALUATE).unwrap_err().to_string().contains("of 2 control points"));
    let mut gradient = shared.weights().clone();
    let refused = shared.gradient(&products, Pass::EVALUATE, &mut gradient, landscape_kernels::Accumulate::Overwrite);
    assert!(matches!(refused, Err(landscape_core::Error::NoGradient)));
    let of_zoo = ControlPoints::single(objective::<f64>(zoo(), 1).weights().clone());
    assert!(matches!(FirstLayer::new(&zoo(), &Device::Cpu, &of_zoo), Err(Error::NoFirstLayer)));
    assert!(FirstLayer::new(&mlp(), &Device::Cpu, &of_zoo).is_err());
    // Statistics become stale as they do in the network.
    let points = ControlPoints::single(objective::<f64>(residual(), 1).weights().clone());
    let mut shared = SharedFirstLayer::new(&residual(), &Device::Cpu, Loss::CrossEntropy, points.clone()).unwrap();
    let batch = examples::<f64>(&residual(), 4, 1);
    let products = Arc::new(FirstLayer::new(&residual(), &Device::Cpu, &points).unwrap().products(&batch).unwrap());
    assert!(matches!(shared.measure(&products, Pass::EVALUATE), Err(landscape_core::Error::StaleStatistics)));
}
