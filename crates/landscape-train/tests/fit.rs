//! The training loop on surfaces with known answers.
#![allow(clippy::unwrap_used)]

use landscape_core::curve::CurveKind;
use landscape_core::init::BendInit;
use landscape_core::toy::{FlatSurface, Quadratic, Surface, Toy};
use landscape_core::{Batches, Coefficients, ControlPoints, Flat, Objective, Pass, Result, Seed, Tally, Tell};
use landscape_kernels::Accumulate;
use landscape_train::{
    Connect, Control, DecayOn, Endpoint, Error, FitConfig, FitState, FreeEnds, Optimizer, Outcome, Schedule, UniformOn, fit, resume,
};
use std::path::Path;
use std::sync::Arc;

/// `n` times the one batch of an analytic surface.
struct Units(usize);

impl Batches for Units {
    type Batch = ();
    fn n_batches(&self) -> usize {
        self.0
    }
    fn batch(&self, _epoch: u64, _idx: usize) -> Result<()> {
        Ok(())
    }
}

fn config(epochs: u64, lr: f64) -> FitConfig {
    FitConfig {
        epochs,
        optimizer: Optimizer::Sgd { lr, momentum: 0.0, nesterov: false },
        schedule: Schedule::Constant,
        weight_decay: 0.0,
        decay_on: DecayOn::Point,
    }
}

fn joining(curve: CurveKind, points: usize, fit: FitConfig) -> Connect {
    Connect { curve, points, init: BendInit::Line, free_ends: FreeEnds::Neither, fit, seed: 0 }
}

fn no_random<T>(_: usize) -> Result<Flat<T>> {
    unreachable!("only a random start draws")
}

/// Trains a three-point curve between two one-dimensional points; gives the bend.
fn bend<S: Surface>(surface: S, curve: CurveKind, fit_config: &FitConfig, ends: [f64; 2], seed: u64) -> f64 {
    let mut toy = Toy::<_, f64>::new(surface);
    let ends: Vec<_> = ends.iter().map(|&end| Arc::new(toy.point(&[end]).unwrap())).collect();
    let connect = joining(curve, 3, fit_config.clone());
    let mut points = connect.control_points(&ends, &mut no_random).unwrap();
    let path = connect.path(2).unwrap();
    let mut state = FitState::new(&points, &fit_config.optimizer);
    let (sampler, seed) = (UniformOn(path.as_ref()), Seed::new(seed));
    fit(&mut toy, &mut points, &sampler, &Units(100), fit_config, seed, &mut state, &mut |_| Ok(Control::Continue)).unwrap();
    points.point(1).to_vec()[0]
}

#[test]
fn one_free_row_is_gradient_descent() {
    let mut toy = Toy::<_, f64>::new(Quadratic::isotropic(vec![1.0, -2.0]));
    let mut points = ControlPoints::single(toy.point(&[3.0, 4.0]).unwrap());
    let config = config(5, 0.1);
    let mut state = FitState::new(&points, &config.optimizer);
    let outcome = fit(&mut toy, &mut points, &Endpoint, &Units(2), &config, Seed::new(0), &mut state, &mut |_| Ok(Control::Continue));
    assert_eq!((outcome.unwrap(), state.step), (Outcome::Finished, 10));
    // ½‖w − c‖² shrinks the distance by 1 − lr each step.
    let factor = 0.9f64.powi(10);
    for (w, expected) in points.point(0).to_vec().iter().zip([1.0 + 2.0 * factor, -2.0 + 6.0 * factor]) {
        assert!((w - expected).abs() < 1e-12, "{w} {expected}");
    }
}

#[test]
fn the_stochastic_loop_finds_the_closed_form_bend_within_three_standard_errors() {
    // The slow end of the schedule keeps the scatter of one run small.
    let config = FitConfig { schedule: Schedule::Garipov2018, ..config(40, 0.3) };
    let n_seeds = 24;
    for (curve, share) in [(CurveKind::Bezier, 0.75), (CurveKind::PolyChain, 0.25)] {
        let expected = 0.5 - share * (2.0 + 4.0 - 1.0);
        let bends: Vec<f64> = (0..n_seeds).map(|seed| bend(Quadratic::isotropic(vec![0.5]), curve, &config, [2.0, 4.0], seed)).collect();
        let mean = bends.iter().sum::<f64>() / n_seeds as f64;
        let variance = bends.iter().map(|b| (b - mean).powi(2)).sum::<f64>() / (n_seeds - 1) as f64;
        let error = (variance / n_seeds as f64).sqrt();
        assert!(error < 0.05 && (mean - expected).abs() < 3.0 * error, "{curve:?}: {mean} ± {error}, expected {expected}");
    }
}

/// Where the expected loss on ½(w − c)² is least: Σ_k M_jk (θ_k − c) = 0 for every bend j, M_jk = ∫ c_j c_k dt by the midpoint rule.
fn closed_form(curve: CurveKind, n_points: usize, ends: [f64; 2], minimum: f64) -> Vec<f64> {
    let path = curve.build(n_points).unwrap();
    let n_nodes = 6000;
    let mut mass = vec![vec![0.0; n_points]; n_points];
    for i in 0..n_nodes {
        let c = path.coefficients((f64::from(i) + 0.5) / f64::from(n_nodes)).unwrap();
        for (row, a) in mass.iter_mut().zip(c.as_slice()) {
            row.iter_mut().zip(c.as_slice()).for_each(|(m, b)| *m += a * b / f64::from(n_nodes));
        }
    }
    let mut theta = vec![0.0; n_points];
    (theta[0], theta[n_points - 1]) = (ends[0] - minimum, ends[1] - minimum);
    // Gauss and Seidel converge, if slowly, on a positive definite matrix.
    for _ in 0..20_000 {
        for j in 1..n_points - 1 {
            let rest: f64 = (0..n_points).filter(|&k| k != j).map(|k| mass[j][k] * theta[k]).sum();
            theta[j] = -rest / mass[j][j];
        }
    }
    theta.iter().map(|x| x + minimum).collect()
}

#[test]
fn the_stochastic_loop_stays_at_the_closed_form_bends_of_any_number_of_points() {
    // The gradient is linear, so the mean over seeds of a run that starts at the optimum stays there, at any rate and length;
    // a wrong coefficient or share of the gradient makes it drift. (Bézier curves of many points forget a start too slowly.)
    let (ends, minimum, n_seeds) = ([2.0, 4.0], 0.5, 24u64);
    let fit_config = config(10, 0.3);
    for (kind, n_points) in [2, 3, 4, 6].into_iter().flat_map(|k| [(CurveKind::Bezier, k), (CurveKind::PolyChain, k)]) {
        let expected = closed_form(kind, n_points, ends, minimum);
        let mut sums = vec![[0.0; 2]; n_points];
        for seed in 0..n_seeds {
            let mut toy = Toy::<_, f64>::new(Quadratic::isotropic(vec![minimum]));
            let fixed: Vec<_> = ends.iter().map(|&end| Arc::new(toy.point(&[end]).unwrap())).collect();
            let connect = joining(kind, n_points, fit_config.clone());
            let mut points = connect.control_points(&fixed, &mut no_random).unwrap();
            for (k, &start) in expected.iter().enumerate().take(n_points - 1).skip(1) {
                *points.free_mut(k).unwrap() = toy.point(&[start]).unwrap();
            }
            let path = connect.path(2).unwrap();
            let mut state = FitState::new(&points, &fit_config.optimizer);
            let (sampler, seed) = (UniformOn(path.as_ref()), Seed::new(seed));
            fit(&mut toy, &mut points, &sampler, &Units(100), &fit_config, seed, &mut state, &mut |_| Ok(Control::Continue)).unwrap();
            for (k, sum) in sums.iter_mut().enumerate() {
                let value = points.point(k).to_vec()[0];
                *sum = [sum[0] + value, sum[1] + value * value];
            }
        }
        for (k, [sum, squares]) in sums.into_iter().enumerate() {
            let (n, mean) = (n_seeds as f64, sum / n_seeds as f64);
            let error = ((squares / n - mean * mean).max(0.0) / (n - 1.0)).sqrt();
            let is_end = k == 0 || k == n_points - 1;
            assert!(is_end || error > 1e-6, "{kind:?} {n_points}, point {k}: a loop that moves nothing stays at the optimum too");
            let allowed = if is_end { 0.0 } else { 3.0 * error };
            assert!((mean - expected[k]).abs() <= allowed, "{kind:?} {n_points}, point {k}: {mean} ± {error}, expected {}", expected[k]);
        }
    }
}

#[test]
fn decay_of_the_point_and_of_the_control_points_have_different_optima() {
    // On a flat surface only the decay pulls: to −¾(w₀ + w₂) by the point's norm, to zero by the bend's own.
    let flat = |decay_on| {
        let config = FitConfig { weight_decay: 1.0, decay_on, schedule: Schedule::Garipov2018, ..config(60, 0.3) };
        bend(FlatSurface { n_dims: 1 }, CurveKind::Bezier, &config, [2.0, 2.0], 1)
    };
    assert!((flat(DecayOn::Point) + 3.0).abs() < 0.2, "{}", flat(DecayOn::Point));
    assert!(flat(DecayOn::ControlPoints).abs() < 1e-6);
}

#[test]
fn a_run_that_goes_on_from_its_saved_state_has_the_bits_of_the_unbroken_one() {
    for optimizer in [Optimizer::sgd(0.05), Optimizer::adam(0.05), Optimizer::adamw(0.05)] {
        let fit_config = FitConfig { optimizer, weight_decay: 0.01, decay_on: DecayOn::ControlPoints, ..config(4, 0.1) };
        let connect = joining(CurveKind::PolyChain, 4, fit_config.clone());
        let path = connect.path(2).unwrap();
        let train = |stop_at: u64, saved: Option<Vec<u8>>| {
            let mut toy = Toy::<_, f32>::new(Quadratic::isotropic(vec![0.1, 0.2, 0.3]));
            let ends = vec![Arc::new(toy.point(&[1.0, 2.0, 3.0]).unwrap()), Arc::new(toy.point(&[-1.0, 0.3, 5.0]).unwrap())];
            let mut points = connect.control_points(&ends, &mut no_random).unwrap();
            let mut state = FitState::new(&points, &optimizer);
            let mut extra = serde_json::json!({"wall_seconds": 1.5});
            if let Some(bytes) = saved {
                let resumed = resume::from_bytes(&bytes, Path::new("state"), &mut points, &optimizer, None).unwrap();
                (state, extra) = (resumed.state, resumed.extra);
            }
            fit(&mut toy, &mut points, &UniformOn(path.as_ref()), &Units(5), &fit_config, Seed::new(9), &mut state, &mut |m| {
                Ok(if m.report.progress.step >= stop_at { Control::Stop } else { Control::Continue })
            })
            .unwrap();
            let bytes = resume::to_bytes(&points, &state, None, &extra).unwrap();
            (bytes, points.point(1).to_vec(), points.point(2).to_vec())
        };
        let unbroken = train(u64::MAX, None);
        for stop_at in [1, 7, 19] {
            let (saved, ..) = train(stop_at, None);
            assert_eq!(train(u64::MAX, Some(saved)), unbroken, "{optimizer:?} stopped at {stop_at}");
        }
    }
}

#[test]
fn a_state_of_something_else_is_refused() {
    let toy = Toy::<_, f32>::new(Quadratic::isotropic(vec![0.0, 0.0]));
    let optimizer = Optimizer::sgd(0.1);
    let mut points = ControlPoints::single(toy.point(&[1.0, 2.0]).unwrap());
    let state = FitState::new(&points, &optimizer);
    let bytes = resume::to_bytes(&points, &state, None, &serde_json::Value::Null).unwrap();
    let path = Path::new("state.safetensors");
    assert!(resume::from_bytes(&bytes, path, &mut points, &optimizer, None).is_ok());
    let wrong = |bytes: &[u8], points: &mut ControlPoints<f32>, optimizer: &Optimizer| {
        resume::from_bytes(bytes, path, points, optimizer, None).unwrap_err().to_string()
    };
    assert!(wrong(&bytes, &mut points, &Optimizer::adam(0.1)).contains("`moment.0.1`"));
    let larger = Toy::<_, f32>::new(Quadratic::isotropic(vec![0.0; 3]));
    let mut other = ControlPoints::single(larger.point(&[1.0; 3]).unwrap());
    assert!(wrong(&bytes, &mut other, &optimizer).contains("`row.0` must be 3 numbers"));
    for cut in 0..bytes.len() {
        assert!(wrong(&bytes[..cut], &mut points, &optimizer).contains("state.safetensors"));
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        // Any answer but a panic: some bytes are numbers, and every number is a state.
        let _ = resume::from_bytes(&changed, path, &mut points, &optimizer, None);
    }
}

#[test]
fn options_out_of_range_name_the_field() {
    let good = config(1, 0.1);
    good.check().unwrap();
    for (bad, field) in [
        (FitConfig { epochs: 0, ..good.clone() }, "epochs"),
        (FitConfig { weight_decay: -1.0, ..good.clone() }, "weight_decay"),
        (FitConfig { optimizer: Optimizer::sgd(f64::NAN), ..good.clone() }, "lr"),
        (FitConfig { optimizer: Optimizer::Adam { lr: 0.1, betas: [1.0, 0.9], eps: 0.0 }, ..good.clone() }, "betas"),
        (FitConfig { optimizer: Optimizer::Sgd { lr: 0.1, momentum: 0.0, nesterov: true }, ..good.clone() }, "momentum"),
    ] {
        assert!(bad.check().unwrap_err().to_string().contains(field));
    }
    let connect = joining(CurveKind::Bezier, 1, good);
    assert!(connect.path(2).err().unwrap().to_string().contains("at least 2"));
    assert!(joining(CurveKind::Bezier, 3, config(1, 0.1)).path(1).is_err());
}

#[test]
fn a_chain_shares_its_inner_endpoints_and_frees_only_its_outer_ends() {
    let toy = Toy::<_, f64>::new(Quadratic::isotropic(vec![0.0]));
    let three: Vec<_> = [1.0, 2.0, 4.0].iter().map(|&v| Arc::new(toy.point(&[v]).unwrap())).collect();
    let connect = Connect { free_ends: FreeEnds::Start, ..joining(CurveKind::Bezier, 4, config(1, 0.1)) };
    let points = connect.control_points(&three, &mut no_random).unwrap();
    let values: Vec<f64> = points.rows().iter().map(|row| row.point().to_vec()[0]).collect();
    let expected = [1.0, 4.0 / 3.0, 5.0 / 3.0, 2.0, 2.0 + 2.0 / 3.0, 2.0 + 4.0 / 3.0, 4.0];
    assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{values:?}");
    let free: Vec<bool> = (0..7).map(|k| points.is_free(k)).collect();
    assert_eq!(free, [true, true, true, false, true, true, false]);
    assert_eq!(connect.path(3).unwrap().n_points(), 7);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_with_its_step() {
    let mut toy = Toy::<_, f64>::new(Quadratic::isotropic(vec![0.0]));
    let mut points = ControlPoints::single(toy.point(&[1.0]).unwrap());
    let diverging = config(1, 1e200);
    let mut state = FitState::new(&points, &diverging.optimizer);
    let result = fit(&mut toy, &mut points, &Endpoint, &Units(9), &diverging, Seed::new(0), &mut state, &mut |_| Ok(Control::Continue));
    let message = result.unwrap_err().to_string();
    assert!(message.contains("diverged at step") && toy.weights().layout().n_elements() == 1, "{message}");
}

/// A surface that keeps its tallies back where it may, as an accelerator does; `diverges_at` counts gradients.
struct Late {
    toy: Toy<Quadratic, f64>,
    kept: Vec<Tally>,
    n_gradients: u64,
    diverges_at: u64,
}

impl Late {
    fn new(diverges_at: u64) -> Self {
        Late { toy: Toy::new(Quadratic::isotropic(vec![1.0, -2.0])), kept: Vec::new(), n_gradients: 0, diverges_at }
    }
}

impl Objective for Late {
    type Batch = ();
    type Scalar = f64;

    fn weights(&self) -> &Flat<f64> {
        self.toy.weights()
    }

    fn move_to(&mut self, points: &ControlPoints<f64>, c: &Coefficients) -> Result<()> {
        self.toy.move_to(points, c)
    }

    fn measure(&mut self, batch: &(), pass: Pass) -> Result<Tally> {
        self.toy.measure(batch, pass)
    }

    fn gradient(&mut self, batch: &(), pass: Pass, into: &mut Flat<f64>, mode: Accumulate) -> Result<Tally> {
        assert_eq!(pass.tell, Tell::Later);
        let mut tally = self.toy.gradient(batch, pass, into, mode)?;
        if self.n_gradients == self.diverges_at {
            tally.loss_nats_sum = f64::NAN;
        }
        self.n_gradients += 1;
        self.kept.push(tally);
        Ok(Tally::default())
    }

    fn collect(&mut self, told: &mut dyn FnMut(Tally)) -> Result<()> {
        self.kept.drain(..).for_each(told);
        Ok(())
    }
}

/// Every step's sum over its epoch so far, and what its batch gave; nothing where it was not told.
fn reports<O: Objective<Batch = (), Scalar = f64>>(mut objective: O, start: Flat<f64>, collect_at: u64) -> Vec<(Tally, Tally)> {
    let mut points = ControlPoints::single(start);
    let config = config(2, 0.1);
    let mut state = FitState::new(&points, &config.optimizer);
    let mut seen = Vec::new();
    fit(&mut objective, &mut points, &Endpoint, &Units(23), &config, Seed::new(0), &mut state, &mut |mut moment| {
        if moment.report.progress.step == collect_at {
            moment.collect().unwrap();
            assert_eq!(moment.report.epoch, moment.state.epoch_tally);
        }
        seen.push((moment.report.batch, moment.report.epoch));
        Ok(Control::Continue)
    })
    .unwrap();
    seen
}

#[test]
fn losses_that_are_told_later_are_those_told_at_once() {
    let late = || Late::new(u64::MAX);
    let start = late().toy.point(&[3.0, 4.0]).unwrap();
    let at_once = reports(late().toy, start.clone(), 0);
    let told_later = reports(late(), start, 14);
    // Every ten steps, at the end of an epoch of 23, and where the observer asks.
    let told: Vec<u64> = (1..=46).filter(|&step| told_later[step as usize - 1] == at_once[step as usize - 1]).collect();
    assert_eq!(told, [10, 14, 20, 23, 30, 40, 46]);
}

#[test]
fn the_step_that_diverged_is_named_however_late_it_is_told() {
    for at in [0, 9, 10, 22, 23, 31] {
        let mut objective = Late::new(at);
        let mut points = ControlPoints::single(objective.toy.point(&[3.0, 4.0]).unwrap());
        let config = config(2, 0.1);
        let mut state = FitState::new(&points, &config.optimizer);
        let err =
            fit(&mut objective, &mut points, &Endpoint, &Units(23), &config, Seed::new(0), &mut state, &mut |_| Ok(Control::Continue));
        assert!(matches!(err, Err(Error::Diverged { step, .. }) if step == at), "{at}: {err:?}");
    }
}
