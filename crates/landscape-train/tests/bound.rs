//! candle models behind the seam: the executor's twin, models that candle cannot differentiate, and the ways in and out.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Result as CandleResult, Tensor};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, LayerNorm, Linear, Module, ModuleT, VarBuilder, VarMap};
use candle_nn::{batch_norm, conv2d, layer_norm, linear};
use landscape_core::curve::CurveKind;
use landscape_core::{Batches, ControlPoints, Examples, Flat, Norm, NormRefresh, Objective, Pass, Seed, Segment, Stateful, Targets, Tell};
use landscape_core::{Coefficients, Curve, Row};
use landscape_graph::{Bias, Graph, GraphBuilder};
use landscape_kernels::Real;
use landscape_network::init::{Init, initialise};
use landscape_network::{Loss, NetworkObjective};
use landscape_train::bound::{Bound, GradientCheck, NamedTensors, Shuffled, Task, connect, connect_chain, train};
use landscape_train::{Connect, Control, Error, FitConfig, FitState, FreeEnds, Optimizer, UniformOn, fit};
use std::sync::Arc;

const CPU: Device = Device::Cpu;

struct Mlp(Linear, Linear);

impl Mlp {
    fn new(vb: VarBuilder) -> CandleResult<Self> {
        Ok(Mlp(linear(6, 10, vb.pp("fc1"))?, linear(10, 3, vb.pp("fc2"))?))
    }

    fn forward_t(&self, x: &Tensor, _train: bool) -> CandleResult<Tensor> {
        self.1.forward(&self.0.forward(x)?.relu()?)
    }
}

/// A convolution with batch norm, average pooling, another one with batch norm, and a linear layer.
struct Cnn {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    fc: Linear,
}

impl Cnn {
    fn new(vb: VarBuilder) -> CandleResult<Self> {
        let padded = Conv2dConfig { padding: 1, ..Default::default() };
        Ok(Cnn {
            conv1: conv2d(1, 4, 3, padded, vb.pp("conv1"))?,
            bn1: batch_norm(4, 1e-5, vb.pp("bn1"))?,
            conv2: conv2d(4, 6, 3, padded, vb.pp("conv2"))?,
            bn2: batch_norm(6, 1e-5, vb.pp("bn2"))?,
            fc: linear(6 * 4, 3, vb.pp("fc"))?,
        })
    }

    fn forward_t(&self, x: &Tensor, train: bool) -> CandleResult<Tensor> {
        let x = self.bn1.forward_t(&self.conv1.forward(x)?, train)?.relu()?.avg_pool2d(2)?;
        let x = self.bn2.forward_t(&self.conv2.forward(&x)?, train)?.relu()?;
        self.fc.forward(&x.flatten_from(1)?)
    }
}

fn mlp_graph() -> Graph {
    let mut b = GraphBuilder::new([6]);
    let x = b.linear("fc1", b.input(), 10, Bias::On).unwrap();
    let x = b.relu("relu", x).unwrap();
    let x = b.linear("fc2", x, 3, Bias::On).unwrap();
    b.finish(x).unwrap()
}

fn cnn_graph() -> Graph {
    let same = |out| landscape_graph::Conv2d { padding: [1, 1], ..landscape_graph::Conv2d::new(out, 3) };
    let mut b = GraphBuilder::new([1, 4, 4]);
    let x = b.conv2d("conv1", b.input(), same(4)).unwrap();
    let x = b.batch_norm("bn1", x).unwrap();
    let x = b.relu("relu1", x).unwrap();
    let x = b.avg_pool2d("pool", x, 2, 2).unwrap();
    let x = b.conv2d("conv2", x, same(6)).unwrap();
    let x = b.batch_norm("bn2", x).unwrap();
    let x = b.relu("relu2", x).unwrap();
    let x = b.flatten("flatten", x).unwrap();
    let x = b.linear("fc", x, 3, Bias::On).unwrap();
    b.finish(x).unwrap()
}

/// Three noisy classes, `sizes.len()` batches of `shape` inputs.
fn examples<T: Real>(shape: &[usize], sizes: &[usize], seed: u64) -> Vec<Examples<T>> {
    let width: usize = shape.iter().product();
    let mut stream = Seed::new(seed).stream();
    let mut centre = |class: u32| {
        let mut stream = Seed::new(99).child_idx(u64::from(class)).stream();
        (0..width).map(|_| stream.normal()).collect::<Vec<f64>>()
    };
    let centres: Vec<Vec<f64>> = (0..3).map(&mut centre).collect();
    let batch = |&n: &usize| {
        let labels: Vec<u32> = (0..n).map(|_| stream.below(3) as u32).collect();
        let inputs = labels.iter().flat_map(|&y| centres[y as usize].clone()).map(|v| T::from_f64(v + 0.7 * stream.normal()));
        Examples { inputs: inputs.collect(), n_examples: n, targets: Targets::Classes(labels.clone()) }
    };
    sizes.iter().map(batch).collect()
}

fn tensors<T: Real + candle_core::WithDType>(shape: &[usize], batches: &[Examples<T>]) -> Vec<(Tensor, Tensor)> {
    let pair = |batch: &Examples<T>| {
        let Targets::Classes(labels) = &batch.targets else { unreachable!("all are labelled") };
        let mut dims = vec![batch.n_examples];
        dims.extend(shape);
        (Tensor::from_vec(batch.inputs.clone(), dims, &CPU).unwrap(), Tensor::new(labels.as_slice(), &CPU).unwrap())
    };
    batches.iter().map(pair).collect()
}

/// The same numbers in the order of another layout.
fn rearranged<T: Real>(from: &Flat<T>, like: &Flat<T>) -> Flat<T> {
    assert_eq!(from.layout().tensors().len(), like.layout().tensors().len());
    let values = like.layout().tensors().iter().flat_map(|spec| from.tensor(&spec.name).unwrap().host().to_vec());
    Flat::from_vec(like.layout(), &landscape_kernels::Device::Cpu, values.collect()).unwrap()
}

fn largest_difference<T: Real>(a: &[T], b: &[T]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (Real::to_f64(*a) - Real::to_f64(*b)).abs()).fold(0.0, f64::max)
}

fn short(epochs: u64) -> Connect {
    let fit = FitConfig { epochs, optimizer: Optimizer::sgd(0.05), weight_decay: 1e-3, ..Connect::garipov2018().fit };
    Connect { fit, seed: 5, ..Connect::garipov2018() }
}

/// Trains the same curve by the executor and by candle, and gives how far the bends, the refreshed statistics and the loss at t = 0.3
/// are apart.
fn compare<T: Real + candle_core::WithDType>(
    graph: Graph,
    shape: &[usize],
    task: impl Fn(Vec<(Tensor, Tensor)>) -> Task<'static, T>,
) -> [f64; 3] {
    let graph = Arc::new(graph);
    let batches = examples::<T>(shape, &[24, 24, 15], 1);
    let config = short(4);
    let cpu = landscape_kernels::Device::Cpu;
    let ends: Vec<Flat<T>> = (1..3).map(|seed| initialise(&graph, Init::PyTorch, Seed::new(seed), &cpu).unwrap()).collect();

    let mut network = NetworkObjective::<T>::new(graph.clone(), &cpu, Loss::CrossEntropy).unwrap();
    let run_of_network = {
        let ends: Vec<_> = ends.iter().map(|end| Arc::new(end.clone())).collect();
        let mut points = config.control_points(&ends, &mut |_| unreachable!("bends start on the line")).unwrap();
        let curve = config.path(2).unwrap();
        let mut state = FitState::new(&points, &config.fit.optimizer);
        let sampler = UniformOn(curve.as_ref());
        fit(&mut network, &mut points, &sampler, &batches, &config.fit, Seed::new(config.seed), &mut state, &mut |_| Ok(Control::Continue))
            .unwrap();
        points
    };

    let mut task = task(tensors(shape, &batches));
    let varmap = |end: &Flat<T>| {
        let vars = task.model().new_varmap(0).unwrap();
        for spec in end.layout().tensors() {
            let tensor = Tensor::from_slice(end.tensor(&spec.name).unwrap().host(), spec.shape.as_slice(), &CPU).unwrap();
            vars.data().lock().unwrap()[&spec.name].set(&tensor).unwrap();
        }
        vars
    };
    let (a, b) = (varmap(&ends[0]), varmap(&ends[1]));
    let run = connect(&mut task, &a, &b, config.clone()).unwrap();
    assert_eq!(run.epochs.len(), 4);
    assert_eq!(run.points.point(0).to_vec(), rearranged(&ends[0], &run.points.point(0)).to_vec());

    let bend = &run.points.point(1);
    let bends = largest_difference(&bend.to_vec(), &rearranged(&run_of_network.point(1), bend).to_vec());
    assert!(largest_difference(&bend.to_vec(), &rearranged(&ends[0], bend).to_vec()) > 0.1, "training has moved the bend");

    let c = run.curve.coefficients(0.3).unwrap();
    let mut statistics: f64 = 0.0;
    let mut losses: f64 = 0.0;
    let candle_batches = tensors(shape, &batches);
    for how in [NormRefresh::BatchAverage, NormRefresh::TorchCumulative] {
        network.move_to(&run_of_network, &c).unwrap();
        network.refresh(how, &batches).unwrap();
        task.move_to(&run.points, &c).unwrap();
        task.refresh(how, &candle_batches).unwrap();
        for spec in task.buffers().layout().tensors() {
            let (found, expected) = (task.buffers().get(&spec.name).unwrap(), network.buffers().get(&spec.name).unwrap());
            statistics = statistics.max(largest_difference(found, expected));
        }
        for (ours, candles) in batches.iter().zip(&candle_batches) {
            let expected = network.measure(ours, Pass::EVALUATE).unwrap();
            let found = task.measure(candles, Pass::EVALUATE).unwrap();
            assert_eq!(found.n_examples, expected.n_examples);
            losses = losses.max((found.nll() - expected.nll()).abs());
        }
    }
    [bends, statistics, losses]
}

#[test]
fn a_candle_mlp_trains_to_the_curve_of_the_executor() {
    let apart = compare::<f32>(mlp_graph(), &[6], |batches| {
        Bound::new(&CPU, |vb| Mlp::new(vb), |net, x, train| net.forward_t(x, train)).unwrap().classes(batches)
    });
    assert!(apart.iter().all(|d| *d < 1e-5), "{apart:?}");
    let apart = compare::<f64>(mlp_graph(), &[6], |batches| {
        Bound::<f64>::bind(&CPU, |vb| Mlp::new(vb), |net, x, train| net.forward_t(x, train)).unwrap().classes(batches)
    });
    assert!(apart.iter().all(|d| *d < 1e-12), "{apart:?}");
}

#[test]
fn a_candle_cnn_with_batch_norm_trains_to_the_curve_of_the_executor() {
    let apart = compare::<f32>(cnn_graph(), &[1, 4, 4], |batches| {
        Bound::new(&CPU, |vb| Cnn::new(vb), |net, x, train| net.forward_t(x, train)).unwrap().classes(batches)
    });
    assert!(apart.iter().all(|d| *d < 1e-4), "{apart:?}");
    let apart = compare::<f64>(cnn_graph(), &[1, 4, 4], |batches| {
        Bound::<f64>::bind(&CPU, |vb| Cnn::new(vb), |net, x, train| net.forward_t(x, train)).unwrap().classes(batches)
    });
    assert!(apart.iter().all(|d| *d < 1e-10), "{apart:?}");
}

/// A convolution and candle's maximum pooling, whose gradient is too small by the area of the window.
struct MaxPooled(Conv2d, Linear);

impl MaxPooled {
    fn new(vb: VarBuilder) -> CandleResult<Self> {
        let padded = Conv2dConfig { padding: 1, ..Default::default() };
        Ok(MaxPooled(conv2d(1, 4, 3, padded, vb.pp("conv1"))?, linear(16, 3, vb.pp("fc"))?))
    }

    fn forward(&self, x: &Tensor) -> CandleResult<Tensor> {
        self.1.forward(&self.0.forward(x)?.max_pool2d(2)?.flatten_from(1)?)
    }
}

/// A layer norm in the middle, for which candle has no gradient at all, and none in f64 to evaluate either.
struct Normalised(Linear, LayerNorm, Linear);

impl Normalised {
    fn new(vb: VarBuilder) -> CandleResult<Self> {
        Ok(Normalised(linear(6, 10, vb.pp("fc1"))?, layer_norm(10, 1e-5, vb.pp("ln"))?, linear(10, 3, vb.pp("fc2"))?))
    }

    fn forward(&self, x: &Tensor) -> CandleResult<Tensor> {
        self.2.forward(&self.1.forward(&self.0.forward(x)?)?.relu()?)
    }
}

/// Evaluates along a line, then asks for training; gives the refusal.
fn evaluate_and_refuse(mut task: Task<'static, f32>, batches: &[(Tensor, Tensor)]) -> (String, String) {
    let (a, b) = (task.model().new_varmap(1).unwrap(), task.model().new_varmap(2).unwrap());
    let rows = [&a, &b].map(|vars| Row::Frozen(Arc::new(task.model().read(vars).unwrap().0)));
    let points = ControlPoints::new(rows.into()).unwrap();
    let losses: Vec<f64> = [0.0, 0.5, 1.0]
        .into_iter()
        .map(|t| {
            task.move_to(&points, &Segment.coefficients(t).unwrap()).unwrap();
            task.measure(&batches[0], Pass::EVALUATE).unwrap().nll()
        })
        .collect();
    assert!(losses.iter().all(|loss| loss.is_finite()) && losses[0] != losses[1] && losses[1] != losses[2]);

    let mut gradient = task.weights().clone();
    let text = task.gradient(&batches[0], Pass::train(0), &mut gradient, landscape_kernels::Accumulate::Overwrite).unwrap_err().to_string();
    match connect(&mut task, &a, &b, short(1)) {
        Err(Error::Gradient { parameter, reason }) => {
            assert!(text.contains(&parameter), "{text}");
            (parameter, reason)
        }
        Err(other) => panic!("another refusal: {other}"),
        Ok(_) => panic!("trained by wrong gradients"),
    }
}

#[test]
fn a_net_with_max_pool2d_evaluates_and_refuses_training() {
    let batches = tensors(&[1, 4, 4], &examples::<f32>(&[1, 4, 4], &[20], 2));
    let task = || Bound::new(&CPU, |vb| MaxPooled::new(vb), |net, x, _| net.forward(x)).unwrap().classes(batches.clone());
    let (parameter, reason) = evaluate_and_refuse(task(), &batches);
    assert_eq!(parameter, "conv1.weight");
    assert!(reason.contains("finite differences") && reason.contains("`conv1.bias`") && !reason.contains("fc."), "{reason}");
    // The user may know better.
    let mut unchecked = task().with_check(GradientCheck::Never);
    let mut gradient = unchecked.weights().clone();
    assert!(unchecked.gradient(&batches[0], Pass::train(0), &mut gradient, landscape_kernels::Accumulate::Overwrite).is_ok());
}

#[test]
fn a_net_with_layer_norm_evaluates_and_refuses_training() {
    let batches = tensors(&[6], &examples::<f32>(&[6], &[20], 3));
    let task = Bound::new(&CPU, |vb| Normalised::new(vb), |net, x, _| net.forward(x)).unwrap().classes(batches.clone());
    let (parameter, reason) = evaluate_and_refuse(task, &batches);
    assert_eq!(parameter, "fc1.weight");
    assert!(reason.contains("no gradient") && reason.contains("`ln.weight`") && !reason.contains("fc2"), "{reason}");
}

#[test]
fn right_gradients_pass_in_both_modes() {
    let batches = tensors(&[1, 4, 4], &examples::<f32>(&[1, 4, 4], &[20], 2));
    let mut task = Bound::new(&CPU, |vb| Cnn::new(vb), |net, x, train| net.forward_t(x, train)).unwrap().classes(batches.clone());
    for norm in [Norm::Batch, Norm::Stored] {
        task.check_gradients(&batches[0], norm).unwrap();
    }
    // A gradient that is right is a gradient of what is measured: a step against it goes down by its square.
    let mut gradient = task.weights().clone();
    let pass = Pass { norm: Norm::Stored, dropout_seed: None, tell: Tell::AtOnce };
    let before = task.gradient(&batches[0], pass, &mut gradient, landscape_kernels::Accumulate::Overwrite).unwrap().nll();
    let once = gradient.to_vec();
    task.gradient(&batches[0], pass, &mut gradient, landscape_kernels::Accumulate::Add).unwrap();
    assert!(gradient.to_vec().iter().zip(&once).all(|(twice, once)| *twice == 2.0 * once));
    let rows = vec![
        Row::Free(task.weights().clone()),
        Row::Free(Flat::from_vec(task.weights().layout(), &landscape_kernels::Device::Cpu, once.clone()).unwrap()),
    ];
    let statistics = task.buffers().clone();
    task.move_to(&ControlPoints::new(rows).unwrap(), &Coefficients::new(vec![1.0, -1e-3]).unwrap()).unwrap();
    task.set_buffers(&statistics).unwrap();
    let after = task.measure(&batches[0], Pass::EVALUATE).unwrap().nll();
    let square: f64 = once.iter().map(|g| f64::from(*g).powi(2)).sum();
    assert!(((before - after) / (1e-3 * square) - 1.0).abs() < 0.02, "{before} {after} {square}");
}

#[test]
fn statistics_are_stale_after_a_move_and_refused_where_candle_cannot_take_them() {
    let batches = tensors(&[1, 4, 4], &examples::<f32>(&[1, 4, 4], &[20], 2));
    let mut task = Bound::new(&CPU, |vb| Cnn::new(vb), |net, x, train| net.forward_t(x, train)).unwrap().classes(batches.clone());
    let points = ControlPoints::single(task.model().initial(Seed::new(4)).unwrap());
    task.move_to(&points, &Coefficients::one_hot(0, 1).unwrap()).unwrap();
    assert!(matches!(task.measure(&batches[0], Pass::EVALUATE), Err(landscape_core::Error::StaleStatistics)));
    let before = task.buffers().clone();
    for how in [NormRefresh::Pooled, NormRefresh::Sequential] {
        assert!(task.refresh(how, &batches).unwrap_err().to_string().contains("`refresh`"));
    }
    assert_eq!(task.buffers(), &before);
    assert!(task.measure(&batches[0], Pass::EVALUATE).is_err());
    task.refresh(NormRefresh::BatchAverage, &batches).unwrap();
    task.measure(&batches[0], Pass::EVALUATE).unwrap();

    // A forward closure that forgets training mode leaves nothing to take the statistics from.
    let mut forgetful = Bound::new(&CPU, |vb| Cnn::new(vb), |net, x, _| net.forward_t(x, false)).unwrap().classes(batches.clone());
    let text = forgetful.refresh(NormRefresh::BatchAverage, &batches).unwrap_err().to_string();
    assert!(text.contains("`bn1.running_mean`") && text.contains("`train`"), "{text}");
}

#[test]
fn curves_go_from_varmap_to_varmap() {
    let batches = tensors(&[1, 4, 4], &examples::<f32>(&[1, 4, 4], &[32, 32], 2));
    let test = tensors(&[1, 4, 4], &examples::<f32>(&[1, 4, 4], &[40], 7));
    let task = || {
        let bound = Bound::new(&CPU, |vb| Cnn::new(vb), |net, x, train| net.forward_t(x, train)).unwrap();
        bound.classes(batches.clone()).with_test(test.clone())
    };
    let fit = FitConfig { epochs: 25, optimizer: Optimizer::adam(0.01), weight_decay: 0.0, ..Connect::garipov2018().fit };
    let trained = |seed: u64| {
        let mut task = task();
        let vars = task.model().new_varmap(seed).unwrap();
        let epochs = train(&mut task, &vars, &fit, seed).unwrap();
        assert!(epochs[24].nll() < 0.5 * epochs[0].nll());
        vars
    };
    let (a, b, c) = (trained(1), trained(2), trained(3));
    let config = Connect { fit: fit.clone(), ..Connect::garipov2018() };
    let run = connect(&mut task(), &a, &b, config.clone()).unwrap();
    let (curve, line) = (run.profile(9).unwrap(), run.profile_straight(9).unwrap());
    assert!(curve.summary.train_loss.max < line.summary.train_loss.max, "{} {}", curve.summary.train_loss.max, line.summary.train_loss.max);
    assert_eq!(curve.points[0].train, line.points[0].train);
    assert!(curve.summary.test_error.is_some());

    // What is written is what was measured there.
    let middle = a.clone();
    run.write_into(&middle, 0.5).unwrap();
    let net = Cnn::new(VarBuilder::from_varmap(&middle, candle_core::DType::F32, &CPU)).unwrap();
    let (x, y) = &test[0];
    let tally = landscape_core::Tally::classes(&net.forward_t(x, false).unwrap(), y).unwrap();
    assert!((tally.nll() - curve.points[4].test.unwrap().nll).abs() < 1e-9);
    // Ends are the endpoints' weights bit for bit; `a` and `middle` share their variables, so it is b that is looked at.
    let end = run.tensors(1.0).unwrap();
    for (name, tensor) in b.named_tensors().unwrap().iter().filter(|(name, _)| !name.contains("running")) {
        let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(bits(&end[name]), bits(tensor), "{name}");
    }

    // The same seed gives the same bits; chains and free ends work.
    let again = |config: &Connect| connect_chain(&mut task(), &[&b, &c, &b], config.clone()).unwrap();
    let quick = Connect { curve: CurveKind::PolyChain, free_ends: FreeEnds::End, fit: FitConfig { epochs: 8, ..fit.clone() }, ..config };
    let (one, two) = (again(&quick), again(&quick));
    assert_eq!(one.points.n_points(), 5);
    for k in 0..5 {
        assert_eq!(one.points.point(k).to_vec(), two.points.point(k).to_vec());
    }
    assert_ne!(one.points.point(4).to_vec(), one.points.point(0).to_vec());
    assert_eq!(one.profile_straight(5).unwrap().n_points, 3);
}

#[test]
fn random_bends_and_own_losses() {
    let batches = tensors(&[6], &examples::<f32>(&[6], &[24], 3));
    let one_hot: Vec<(Tensor, Tensor)> = batches
        .iter()
        .map(|(x, y)| {
            let rows: Vec<f32> =
                y.to_vec1::<u32>().unwrap().iter().flat_map(|&y| (0..3).map(move |k| f32::from(u8::from(k == y)))).collect();
            (x.clone(), Tensor::from_vec(rows, (y.elem_count(), 3), &CPU).unwrap())
        })
        .collect();
    let bound = || Bound::new(&CPU, |vb| Mlp::new(vb), |net, x, train| net.forward_t(x, train)).unwrap();
    let config = Connect { init: landscape_core::init::BendInit::Random, ..short(3) };
    let joined = |mut task: Task<'static, f32>| {
        let (a, b) = (task.model().new_varmap(1).unwrap(), task.model().new_varmap(2).unwrap());
        connect(&mut task, &a, &b, config.clone()).unwrap()
    };
    // The mean squared error as ours, and as candle's own function with candle's gradient.
    let ours = joined(bound().squared_error(one_hot.clone()));
    let candles = joined(bound().loss(one_hot.clone(), candle_nn::loss::mse));
    assert!(largest_difference(&ours.points.point(1).to_vec(), &candles.points.point(1).to_vec()) < 1e-5);
    assert!((ours.epochs[2].nll() - candles.epochs[2].nll()).abs() < 1e-6);
}

/// A layer that keeps a product of its weights, made when it was built.
struct Copied(Tensor);

#[test]
fn weights_that_a_layer_copied_are_seen_when_it_is_measured_and_not_trained() {
    let batches = tensors(&[6], &examples::<f32>(&[6], &[24], 3));
    let build = |vb: VarBuilder| {
        let w = vb.get_with_hints((6, 3), "w", candle_nn::init::DEFAULT_KAIMING_NORMAL)?;
        Ok(Copied((w * 2.0)?))
    };
    let mut task = Bound::new(&CPU, build, |net, x, _| x.matmul(&net.0)).unwrap().classes(batches.clone());
    for seed in 1..4 {
        let point = task.model().initial(Seed::new(seed)).unwrap();
        task.move_to(&ControlPoints::single(point.clone()), &Coefficients::one_hot(0, 1).unwrap()).unwrap();
        let found = task.measure(&batches[0], Pass::EVALUATE).unwrap();
        let w = Tensor::from_vec(point.to_vec(), (6, 3), &CPU).unwrap();
        let logits = batches[0].0.matmul(&(w * 2.0).unwrap()).unwrap();
        assert_eq!(found, landscape_core::Tally::classes(&logits, &batches[0].1).unwrap());
    }
    let mut gradient = task.weights().clone();
    let error = task.gradient(&batches[0], Pass::train(0), &mut gradient, landscape_kernels::Accumulate::Overwrite).unwrap_err();
    assert!(error.to_string().contains("`w`") && error.to_string().contains("copies"), "{error}");
}

#[test]
fn names_and_shapes_that_differ_are_all_listed() {
    let batches = tensors(&[6], &examples::<f32>(&[6], &[24], 3));
    let mut task = Bound::new(&CPU, |vb| Mlp::new(vb), |net, x, train| net.forward_t(x, train)).unwrap().classes(batches);
    let good = task.model().new_varmap(1).unwrap();
    let other = VarMap::new();
    let vb = VarBuilder::from_varmap(&other, candle_core::DType::F32, &CPU);
    linear(7, 10, vb.pp("fc1")).unwrap();
    linear(3, 3, vb.pp("head")).unwrap();
    let Err(error) = connect(&mut task, &good, &other, short(1)) else { panic!("joined what does not fit") };
    let text = error.to_string();
    for name in ["`fc1.weight`", "`fc2.weight`", "`fc2.bias`", "`head.weight`", "`head.bias`"] {
        assert!(text.contains(name), "{text}");
    }
    let run = connect(&mut task, &good, &good, short(1)).unwrap();
    assert!(run.write_into(&other, 0.5).unwrap_err().to_string().contains("`head.bias`"));
    assert!(run.write_into(&good, 1.5).is_err());
    let doubles = VarMap::new();
    Mlp::new(VarBuilder::from_varmap(&doubles, candle_core::DType::F64, &CPU)).unwrap();
    assert!(task.model().read(&doubles).unwrap_err().to_string().contains("f32"));
}

/// An operation on inputs and six weights.
type Op = fn(&Tensor, &Tensor) -> CandleResult<Tensor>;

/// A model of one layer that some operation follows: six inputs, three classes.
fn checked_op(op: Op) -> Result<(), Error> {
    let batches = tensors(&[6], &examples::<f32>(&[6], &[24], 3));
    let build = |vb: VarBuilder| {
        let w = vb.get_with_hints(6, "w", candle_nn::init::Init::Randn { mean: 1.0, stdev: 0.3 })?;
        Ok((w, linear(6, 3, vb.pp("fc"))?))
    };
    let task = Bound::new(&CPU, build, move |(w, fc): &(Tensor, Linear), x, _| fc.forward(&op(x, w)?)).unwrap().classes(batches.clone());
    task.check_gradients(&batches[0], Norm::Batch)
}

#[test]
fn the_check_tells_right_gradients_from_wrong_and_missing_ones() {
    let right: [(&str, Op); 6] = [
        ("relu", |x, w| x.broadcast_mul(w)?.relu()),
        ("gelu", |x, w| x.broadcast_mul(w)?.gelu_erf()),
        ("softmax", |x, w| candle_nn::ops::softmax(&x.broadcast_mul(w)?, 1)),
        ("layer norm, slow", |x, w| candle_nn::ops::layer_norm_slow(&x.broadcast_mul(w)?, w, w, 1e-5)),
        ("maximum by windows", |x, w| {
            let windows = x.broadcast_mul(w)?.reshape(((), 3, 2))?.max_keepdim(2)?;
            Tensor::cat(&[&windows, &windows], 1)?.flatten_from(1)
        }),
        ("not used at all", |x, _| Ok(x.clone())),
    ];
    for (name, op) in right {
        if let Err(error) = checked_op(op) {
            panic!("{name}: {error}");
        }
    }
    let wrong: [(&str, Op); 4] = [
        ("softmax_last_dim", |x, w| candle_nn::ops::softmax_last_dim(&x.broadcast_mul(w)?)),
        ("rms_norm", |x, w| candle_nn::ops::rms_norm(&x.contiguous()?, w, 1e-5)),
        ("conv1d", |x, w| x.unsqueeze(1)?.conv1d(&w.reshape((2, 1, 3))?, 1, 1, 1, 1)?.max_keepdim(1)?.flatten_from(1)),
        ("detached", |x, w| x.broadcast_mul(&w.detach())),
    ];
    for (name, op) in wrong {
        match checked_op(op) {
            Err(Error::Gradient { parameter, .. }) => assert_eq!(parameter, "w", "{name}"),
            Err(other) => panic!("{name}: {other}"),
            Ok(()) => panic!("{name} passed"),
        }
    }
}

#[test]
fn dropout_is_checked_where_it_stands_still() {
    let batches = tensors(&[6], &examples::<f32>(&[6], &[24], 3));
    let forward = |net: &Mlp, x: &Tensor, train: bool| {
        let x = net.0.forward(x)?.relu()?;
        net.1.forward(&if train { candle_nn::ops::dropout(&x, 0.5)? } else { x })
    };
    let mut task = Bound::new(&CPU, |vb| Mlp::new(vb), forward).unwrap().classes(batches);
    let vars = task.model().new_varmap(1).unwrap();
    train(&mut task, &vars, &short(2).fit, 1).unwrap();
}

#[test]
fn shuffled_batches_hold_every_example_once_in_another_order_each_epoch() {
    let (x, y) = (Tensor::arange(0f32, 50.0, &CPU).unwrap(), Tensor::arange(0u32, 50, &CPU).unwrap());
    let batches = Shuffled::new(&x, &y, 8, 3).unwrap();
    let epoch = |epoch: u64| -> Vec<u32> {
        let batch = |idx| {
            let (x, y) = batches.batch(epoch, idx).unwrap();
            assert_eq!(x.to_vec1::<f32>().unwrap(), y.to_dtype(candle_core::DType::F32).unwrap().to_vec1::<f32>().unwrap());
            y.to_vec1::<u32>().unwrap()
        };
        (0..batches.n_batches()).flat_map(batch).collect()
    };
    let mut sorted = epoch(0);
    assert_ne!(epoch(0), epoch(1));
    assert_eq!(epoch(0), epoch(0));
    sorted.sort_unstable();
    assert_eq!(sorted, (0..50).collect::<Vec<u32>>());
    assert!(batches.batch(0, 7).is_err() && Shuffled::new(&x, &y, 0, 3).is_err());
    assert!(Shuffled::new(&x, &y.narrow(0, 0, 4).unwrap(), 8, 3).is_err());
}

#[test]
fn a_batch_without_a_variance_is_refused_by_name() {
    let batches = tensors(&[6], &examples::<f32>(&[6], &[24, 1], 3));
    let build = |vb: VarBuilder| Ok((linear(6, 3, vb.pp("fc"))?, batch_norm(3, 1e-5, vb.pp("bn"))?));
    let forward = |net: &(Linear, BatchNorm), x: &Tensor, train: bool| net.1.forward_t(&net.0.forward(x)?, train);
    let mut task = Bound::new(&CPU, build, forward).unwrap().classes(batches.clone());
    let before = task.buffers().clone();
    let text = task.refresh(NormRefresh::BatchAverage, &batches).unwrap_err().to_string();
    assert!(text.contains("`bn.running_var`") && text.contains("batch 1"), "{text}");
    assert_eq!(task.buffers(), &before);
}
