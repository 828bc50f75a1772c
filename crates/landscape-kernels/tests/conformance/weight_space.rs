//! Weight space on every device: the same bits as on the processor, since every element is one chain of products and sums.

use crate::devices::{Case, case, narrow, put};
use crate::values;
use half::bf16;
use landscape_kernels::blend::{self, Row};
use landscape_kernels::step::{self, Adam, Decay, Nesterov, Sgd};
use landscape_kernels::{Accumulate, Memory, Real, View};

/// Lengths about which vectors and blocks may go wrong.
const LENGTHS: [usize; 6] = [0, 1, 3, 257, 4096, 9001];

/// Coefficients of K rows, a zero and a one among them.
fn coefficients(n_rows: usize) -> Vec<f64> {
    let mut c = values(n_rows, 11);
    if n_rows > 2 {
        (c[1], c[2]) = (0.0, 1.0);
    }
    c
}

fn blends<T: Real>() -> Vec<Case<T>> {
    let mut cases = Vec::new();
    for n_rows in [1, 3, 32] {
        cases.push(case(format!("blend and spread, K = {n_rows}"), 0.0, move |d| {
            let c = coefficients(n_rows);
            let mut all = Vec::new();
            for n in LENGTHS {
                let rows: Vec<Memory<T>> = (0..n_rows as u64).map(|k| put(d, n, k)).collect();
                let views: Vec<View<'_, T>> = rows.iter().map(Memory::view).collect();
                let mut out = Memory::from_host(d, vec![T::from_f64(f64::NAN); n]);
                blend::blend(&c, &views, out.view_mut())?;
                all.push(out.to_host()?);
                for mode in [Accumulate::Overwrite, Accumulate::Add] {
                    let mut into = rows.clone();
                    // Every third row is frozen.
                    let mut free: Vec<_> = into.iter_mut().enumerate().map(|(k, row)| (k % 3 != 2).then(|| row.view_mut())).collect();
                    blend::spread(&c, out.view(), &mut free, mode)?;
                    for row in &into {
                        all.push(row.to_host()?);
                    }
                }
            }
            Ok(all)
        }));
    }
    // A run that begins anywhere: what is read and written need not be aligned to vectors.
    cases.push(case("blend of parts", 0.0, |d| {
        let rows: Vec<Memory<T>> = (0..3).map(|k| put(d, 1000, k)).collect();
        let views = [rows[0].view().slice(1..701), rows[1].view().slice(2..702), rows[2].view().slice(0..700)];
        let mut out = Memory::<T>::zeros(d, 703);
        blend::blend(&coefficients(3), &views, out.view_mut().slice(3..703))?;
        Ok(vec![out.to_host()?])
    }));
    cases
}

/// Rows of bf16 among rows of f32.
fn narrow_rows() -> Vec<Case<f32>> {
    vec![case("blend of bf16", 0.0, |d| {
        let mut all = Vec::new();
        for n in LENGTHS {
            let frozen: Vec<bf16> = values(n, 5).iter().map(|v| bf16::from_f64(*v)).collect();
            let (frozen, free) = (Memory::from_host(d, frozen), put::<f32>(d, n, 6));
            let rows = [Row::Bf16(frozen.view()), Row::Plain(free.view()), Row::Bf16(frozen.view())];
            let mut out = Memory::from_host(d, vec![f32::NAN; n]);
            blend::blend_rows(&[0.3, -0.5, 1.5], &rows, out.view_mut())?;
            all.push(out.to_host()?);
        }
        Ok(all)
    })]
}

fn steps<T: Real>() -> Vec<Case<T>> {
    let sgd = Sgd { lr: 0.1, momentum: 0.9, dampening: 0.1, weight_decay: 0.01, nesterov: Nesterov::Off };
    let nesterov = Sgd { dampening: 0.0, nesterov: Nesterov::On, ..sgd };
    let plain = Sgd { lr: 0.1, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: Nesterov::Off };
    let mut cases = Vec::new();
    for (name, sgd) in [("momentum", sgd), ("nesterov", nesterov), ("plain", plain)] {
        cases.push(case(format!("sgd, {name}"), 0.0, move |d| {
            let mut all = Vec::new();
            for n in LENGTHS {
                let (g, point, mut theta, mut fused) = (put::<T>(d, n, 1), put::<T>(d, n, 2), put::<T>(d, n, 3), put::<T>(d, n, 3));
                let mut velocities = [Memory::<T>::zeros(d, n), Memory::zeros(d, n)];
                for step_idx in 0..3 {
                    let [own, other] = &mut velocities;
                    let has = sgd.momentum != 0.0;
                    step::sgd_step(&sgd, step_idx, g.view(), theta.view_mut(), has.then(|| own.view_mut()))?;
                    let velocity = has.then(|| other.view_mut());
                    step::spread_sgd_step(&sgd, step_idx, 0.4, g.view(), Some((point.view(), 0.02)), fused.view_mut(), velocity)?;
                }
                let [own, other] = &velocities;
                all.extend([theta.to_host()?, fused.to_host()?, own.to_host()?, other.to_host()?]);
            }
            Ok(all)
        }));
    }
    for decay in [Decay::Coupled, Decay::Decoupled] {
        cases.push(case(format!("adam, {decay:?}"), 0.0, move |d| {
            let adam = Adam { lr: 0.01, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.1, decay };
            let mut all = Vec::new();
            for n in LENGTHS {
                let (g, point) = (put::<T>(d, n, 1), put::<T>(d, n, 2));
                let mut plain = [put::<T>(d, n, 3), Memory::zeros(d, n), Memory::zeros(d, n)];
                let mut fused = plain.clone();
                for step_idx in 1..4 {
                    let [theta, m, v] = &mut plain;
                    step::adam_step(&adam, step_idx, g.view(), theta.view_mut(), m.view_mut(), v.view_mut())?;
                    let [theta, m, v] = &mut fused;
                    let (theta, m, v) = (theta.view_mut(), m.view_mut(), v.view_mut());
                    step::spread_adam_step(&adam, step_idx, 0.4, g.view(), Some((point.view(), 0.02)), theta, m, v)?;
                }
                for memory in plain.iter().chain(&fused) {
                    all.push(memory.to_host()?);
                }
            }
            Ok(all)
        }));
    }
    cases
}

/// What every scalar has.
pub fn all<T: Real>() -> Vec<Case<T>> {
    blends().into_iter().chain(steps()).collect()
}

/// What is of f32 alone.
pub fn all_f32() -> Vec<Case<f32>> {
    narrow_rows()
}

/// A gradient of many rows costs one launch and stays the transpose: Σ (blend θ)·g = Σ_k θ_k·(spread g)_k.
#[test]
fn spread_is_the_transpose_of_blend_on_every_device() {
    for device in crate::devices::everywhere() {
        let (n, c) = (501, coefficients(4));
        let rows: Vec<Memory<f64>> = (0..4).map(|k| Memory::from_host(&device, narrow(&values(n, k)))).collect();
        let g = Memory::from_host(&device, values(n, 20));
        let mut point = Memory::<f64>::zeros(&device, n);
        blend::blend(&c, &rows.iter().map(Memory::view).collect::<Vec<_>>(), point.view_mut()).expect("a good call");
        let mut gradients: Vec<Memory<f64>> = (0..4).map(|_| Memory::zeros(&device, n)).collect();
        let mut into: Vec<_> = gradients.iter_mut().map(|row| Some(row.view_mut())).collect();
        blend::spread(&c, g.view(), &mut into, Accumulate::Overwrite).expect("a good call");
        let host = |memory: &Memory<f64>| memory.to_host().expect("a copy");
        let dot = |a: &Memory<f64>, b: &Memory<f64>| host(a).iter().zip(host(b)).map(|(a, b)| a * b).sum::<f64>();
        let (left, right) = (dot(&point, &g), rows.iter().zip(&gradients).map(|(row, gradient)| dot(row, gradient)).sum::<f64>());
        assert!((left - right).abs() < 1e-10, "{left} and {right} on {device}");
    }
}
