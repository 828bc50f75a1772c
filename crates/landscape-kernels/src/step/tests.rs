use super::*;
use crate::blend::spread;
use crate::memory::{Accumulate, Real, View};
use crate::naive::step as naive;
use crate::naive::tools::{LENGTHS, bits, on_pools, values};
use crate::parallel::CHUNK;
use crate::simd::tests::at_every_level;
use proptest::prelude::*;

/// Decay, momentum, dampening and Nesterov in every allowed combination.
fn all_sgd() -> Vec<Sgd> {
    let mut all = Vec::new();
    for weight_decay in [0.0, 5e-4] {
        for (momentum, dampening, nesterov) in
            [(0.0, 0.0, Nesterov::Off), (0.9, 0.0, Nesterov::Off), (0.9, 0.3, Nesterov::Off), (0.9, 0.0, Nesterov::On)]
        {
            all.push(Sgd { lr: 0.07, momentum, dampening, weight_decay, nesterov });
        }
    }
    all
}

fn all_adam() -> Vec<Adam> {
    let mut all = Vec::new();
    for (decay, weight_decay) in [(Decay::Coupled, 0.0), (Decay::Coupled, 0.1), (Decay::Decoupled, 0.1)] {
        for betas in [[0.9, 0.999], [0.3, 0.5], [0.0, 0.0]] {
            all.push(Adam { lr: 0.03, betas, eps: 1e-8, weight_decay, decay });
        }
    }
    all
}

/// Three steps; the parameters and the state after them.
fn sgd_steps<T: Real>(n: usize, mut step: impl FnMut(u64, &[T], &mut [T], &mut [T])) -> Vec<u64> {
    let (mut theta, mut velocity) = (values::<T>(n, 1), values::<T>(n, 2));
    for s in 0..3 {
        step(s, &values(n, 10 + s), &mut theta, &mut velocity);
    }
    bits(&[theta, velocity].concat())
}

fn adam_steps<T: Real>(n: usize, mut step: impl FnMut(u64, &[T], &mut [T], &mut [T], &mut [T])) -> Vec<u64> {
    let (mut theta, mut m, mut v) = (values::<T>(n, 1), vec![T::ZERO; n], vec![T::ZERO; n]);
    for s in 1..4 {
        step(s, &values(n, 10 + s), &mut theta, &mut m, &mut v);
    }
    bits(&[theta, m, v].concat())
}

fn run<T: Real>(sgd: &Sgd, s: u64, g: &[T], theta: &mut [T], velocity: &mut [T]) {
    sgd_step(sgd, s, g.into(), theta.into(), Some(velocity.into())).expect("lengths agree");
}

fn run_a<T: Real>(adam: &Adam, s: u64, g: &[T], theta: &mut [T], m: &mut [T], v: &mut [T]) {
    adam_step(adam, s, g.into(), theta.into(), m.into(), v.into()).expect("lengths agree");
}

fn equals_pytorch_formula<T: Real>(n: usize) {
    for sgd in all_sgd() {
        let fast = sgd_steps::<T>(n, |s, g, theta, velocity| run(&sgd, s, g, theta, velocity));
        let slow = sgd_steps::<T>(n, |s, g, theta, velocity| naive::sgd(&sgd, s, g, theta, velocity));
        assert_eq!(fast, slow, "{sgd:?}");
    }
    for adam in all_adam() {
        let fast = adam_steps::<T>(n, |s, g, theta, m, v| run_a(&adam, s, g, theta, m, v));
        let slow = adam_steps::<T>(n, |s, g, theta, m, v| naive::adam(&adam, s, g, theta, m, v));
        assert_eq!(fast, slow, "{adam:?}");
    }
}

/// c_k·(g + wd·w) by plain loops and `spread`.
fn spread_gradient<T: Real>(c: f64, g: &[T], point: Option<(&[T], f64)>) -> Vec<T> {
    let g: Vec<T> = match point {
        Some((w, decay)) => g.iter().zip(w).map(|(&g, &w)| g + T::from_f64(decay) * w).collect(),
        None => g.to_vec(),
    };
    let mut out = vec![T::ZERO; g.len()];
    spread(&[c], (&g).into(), &mut [Some((&mut out).into())], Accumulate::Overwrite).expect("lengths agree");
    out
}

fn fused_equals_unfused<T: Real>(n: usize, c: f64, decay: Option<f64>) {
    let w = values::<T>(n, 77);
    let point = decay.map(|decay| (w.as_slice(), decay));
    let view = point.map(|(w, decay)| (View::from(w), decay));
    for sgd in all_sgd() {
        let fused = sgd_steps::<T>(n, |s, g, theta, velocity| {
            spread_sgd_step(&sgd, s, c, g.into(), view, theta.into(), Some(velocity.into())).expect("lengths agree");
        });
        let apart = sgd_steps::<T>(n, |s, g, theta, velocity| run(&sgd, s, &spread_gradient(c, g, point), theta, velocity));
        assert_eq!(fused, apart, "{sgd:?}");
    }
    for adam in all_adam() {
        let fused = adam_steps::<T>(n, |s, g, theta, m, v| {
            spread_adam_step(&adam, s, c, g.into(), view, theta.into(), m.into(), v.into()).expect("lengths agree");
        });
        let apart = adam_steps::<T>(n, |s, g, theta, m, v| run_a(&adam, s, &spread_gradient(c, g, point), theta, m, v));
        assert_eq!(fused, apart, "{adam:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn steps_equal_pytorchs_formula(n in prop::sample::select(LENGTHS.to_vec())) {
        at_every_level(|| {
            equals_pytorch_formula::<f32>(n);
            equals_pytorch_formula::<f64>(n);
        });
    }

    #[test]
    fn fused_steps_equal_spread_then_step(
        n in prop::sample::select(LENGTHS.to_vec()),
        c in prop::sample::select(vec![0.0, 1.0, 0.375, 0.123_456_789]),
        decay in prop::option::of(0.0_f64..0.1),
    ) {
        at_every_level(|| {
            fused_equals_unfused::<f32>(n, c, decay);
            fused_equals_unfused::<f64>(n, c, decay);
        });
    }
}

/// With a huge ε the step of Adam is that of SGD on the bias-corrected first moment; with β = 0 and ε = 0 it is the sign.
#[test]
fn adam_has_its_known_limits() {
    let n = 100;
    let g = values::<f64>(n, 4);
    let adam = Adam { lr: 0.25, betas: [0.0, 0.0], eps: 0.0, weight_decay: 0.0, decay: Decay::Coupled };
    let (mut theta, mut m, mut v) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    run_a(&adam, 5, &g, &mut theta, &mut m, &mut v);
    for (theta, g) in theta.iter().zip(&g) {
        assert!((theta + 0.25 * g.signum()).abs() < 1e-12);
    }
}

/// Decoupled decay without a gradient shrinks geometrically, coupled decay of SGD likewise.
#[test]
fn decay_alone_shrinks() {
    let zero = [0.0_f64];
    let (mut theta, mut m, mut v) = ([1.0], [0.0], [0.0]);
    let adam = Adam { lr: 0.5, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.5, decay: Decay::Decoupled };
    for s in 1..=3 {
        run_a(&adam, s, &zero, &mut theta, &mut m, &mut v);
    }
    assert_eq!(theta, [0.75_f64.powi(3)]);
    let mut theta = [1.0];
    let sgd = Sgd { lr: 0.5, momentum: 0.0, dampening: 0.0, weight_decay: 0.5, nesterov: Nesterov::Off };
    for s in 0..3 {
        sgd_step(&sgd, s, (&zero[..]).into(), (&mut theta[..]).into(), None).expect("no velocity needed");
    }
    assert_eq!(theta, [0.75_f64.powi(3)]);
}

#[test]
fn bits_do_not_depend_on_the_thread_count() {
    let n = 3 * CHUNK + 11;
    on_pools(|| sgd_steps::<f32>(n, |s, g, theta, velocity| run(&all_sgd()[7], s, g, theta, velocity)));
    let w = values::<f32>(n, 5);
    on_pools(|| {
        adam_steps::<f32>(n, |s, g, theta, m, v| {
            let point = Some(((&w).into(), 1e-3));
            spread_adam_step(&all_adam()[3], s, 0.5, g.into(), point, theta.into(), m.into(), v.into()).expect("lengths agree");
        })
    });
}

#[test]
fn bad_arguments_are_errors_and_change_nothing() {
    let sgd = Sgd { lr: 0.1, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: Nesterov::Off };
    let adam = Adam { lr: 0.1, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, decay: Decay::Coupled };
    let (g, short) = ([1.0_f32; 3], [1.0_f32; 2]);
    let (mut theta, mut a, mut b) = ([1.0_f32; 3], [0.0_f32; 3], [0.0_f32; 3]);
    let mut fails = |sgd: Sgd, g: &[f32], n_velocity: Option<usize>| {
        let velocity = n_velocity.map(|n| (&mut a[..n]).into());
        assert!(sgd_step(&sgd, 0, g.into(), (&mut theta[..]).into(), velocity).is_err(), "{sgd:?}");
    };
    fails(sgd, &short, Some(3));
    fails(sgd, &g, Some(2));
    fails(sgd, &g, None);
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        fails(Sgd { lr: bad, ..sgd }, &g, Some(3));
        fails(Sgd { momentum: bad, ..sgd }, &g, Some(3));
        fails(Sgd { weight_decay: bad, ..sgd }, &g, Some(3));
    }
    fails(Sgd { dampening: 0.1, nesterov: Nesterov::On, ..sgd }, &g, Some(3));
    fails(Sgd { momentum: 0.0, nesterov: Nesterov::On, ..sgd }, &g, Some(3));
    let mut fails = |adam: Adam, step_idx: u64, n: [usize; 3]| {
        let result =
            adam_step(&adam, step_idx, (&g[..n[0]]).into(), (&mut theta[..]).into(), (&mut a[..n[1]]).into(), (&mut b[..n[2]]).into());
        assert!(result.is_err(), "{adam:?} {step_idx} {n:?}");
    };
    fails(adam, 0, [3, 3, 3]);
    fails(adam, 1, [2, 3, 3]);
    fails(adam, 1, [3, 2, 3]);
    fails(adam, 1, [3, 3, 2]);
    fails(Adam { betas: [1.0, 0.9], ..adam }, 1, [3, 3, 3]);
    fails(Adam { betas: [0.9, 1.5], ..adam }, 1, [3, 3, 3]);
    fails(Adam { eps: -1.0, ..adam }, 1, [3, 3, 3]);
    fails(Adam { weight_decay: f64::NAN, ..adam }, 1, [3, 3, 3]);
    let point: Option<(View<'_, f32>, f64)> = Some(((&short[..]).into(), 0.1));
    assert!(spread_sgd_step(&sgd, 0, 1.0, (&g[..]).into(), point, (&mut theta[..]).into(), Some((&mut a[..]).into())).is_err());
    assert_eq!((theta, a, b), ([1.0; 3], [0.0; 3], [0.0; 3]));
}
