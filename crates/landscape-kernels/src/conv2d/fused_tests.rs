//! The fused functions against the calls that they stand for, one after the other.

use super::tests::{BASE, edges, operands};
use super::*;
use crate::activation::Activation;
use crate::activation::relu_forward;
use crate::batch_norm::{self, BatchNormShape};
use crate::naive::tools::{assert_close, bits, on_pools, values};
use crate::precision::Precision;
use crate::simd::tests::at_every_level;

/// Per-channel numbers of a prologue: mean, variance, weight, bias, and the scale from them.
fn norm<T: Real>(channels: usize) -> [Vec<T>; 4] {
    let var: Vec<T> = values::<T>(channels, 12).iter().map(|v| *v * *v + T::from_f64(0.3)).collect();
    let mut scale = vec![T::ZERO; channels];
    let weight = values(channels, 13);
    batch_norm::scale((&var).into(), 1e-5, Some((&weight).into()), (&mut scale).into()).unwrap();
    let again = batch_norm_twin(&var, &weight);
    assert_close(&scale, &again, 4.0);
    [values(channels, 11), var, weight, scale]
}

fn batch_norm_twin<T: Real>(var: &[T], weight: &[T]) -> Vec<T> {
    var.iter().zip(weight).map(|(v, w)| T::from_f64(w.to_f64() / (v.to_f64() + 1e-5).sqrt())).collect()
}

fn scratch<T: Real>(s: &Conv2dShape) -> Vec<T> {
    vec![T::from_f64(f64::NAN); s.fused_scratch_len()]
}

/// x′ by the unfused ops.
fn normalized<T: Real>(s: &Conv2dShape, x: &[T], activation: Activation) -> Vec<T> {
    let [mean, var, weight, _] = norm::<T>(s.in_channels);
    let shape = BatchNormShape { n_rows: x.len() / s.in_channels, channels: s.in_channels };
    let shift: Vec<T> = values(s.in_channels, 14);
    let mut out = vec![T::ZERO; x.len()];
    let (weight, shift) = (Some((&weight).into()), Some((&shift).into()));
    batch_norm::normalize(&shape, x.into(), (&mean).into(), (&var).into(), 1e-5, weight, shift, (&mut out).into()).unwrap();
    if activation == Activation::Relu {
        let before = out.clone();
        relu_forward((&before).into(), (&mut out).into()).unwrap();
    }
    out
}

/// y, mean, var, the finished y, dw, dx, sums, products: all through the fused functions.
fn fused<T: Real>(s: &Conv2dShape, activation: Activation) -> [Vec<f64>; 8] {
    let [x, w, b, g] = operands::<T>(s);
    let ([mean, _, _, scale], shift): (_, Vec<T>) = (norm::<T>(s.in_channels), values(s.in_channels, 14));
    let prologue = Some(Prologue { mean: (&mean).into(), scale: (&scale).into(), shift: (&shift).into(), activation });
    let nan = |n| vec![T::from_f64(f64::NAN); n];
    let mut packed = nan(w.len());
    pack_weight(s, (&w).into(), (&mut packed).into()).unwrap();
    let (mut y, mut y_mean, mut y_var) = (nan(g.len()), nan(b.len()), nan(b.len()));
    let epilogue = Epilogue::Statistics { mean: (&mut y_mean).into(), var: (&mut y_var).into() };
    forward_fused(s, (&x).into(), prologue, (&packed).into(), Some((&b).into()), (&mut y).into(), epilogue, (&mut scratch(s)).into())
        .unwrap();
    let mut finished = nan(g.len());
    let epilogue = Epilogue::Pointwise { residual: Some((&g).into()), activation };
    forward_fused(s, (&x).into(), prologue, (&packed).into(), None, (&mut finished).into(), epilogue, (&mut scratch(s)).into()).unwrap();
    let mut dw = nan(w.len());
    let mode = Accumulate::Overwrite;
    backward_weight_fused(s, (&x).into(), prologue, (&g).into(), (&mut dw).into(), None, mode, (&mut scratch(s)).into()).unwrap();
    let gate = match activation {
        Activation::None => Gate::Stored { y: (&x).into() },
        Activation::Relu => Gate::Normalized { scale: (&scale).into(), shift: (&shift).into() },
    };
    let (mut dx, mut sums, mut products) = (values::<T>(x.len(), 9), vec![f64::NAN; mean.len()], vec![f64::NAN; mean.len()]);
    let epilogue =
        GradientEpilogue { x: (&x).into(), mean: (&mean).into(), gate, sums: (&mut sums).into(), products: (&mut products).into() };
    backward_input_fused(s, (&packed).into(), (&g).into(), (&mut dx).into(), Accumulate::Add, Some(epilogue), (&mut scratch(s)).into())
        .unwrap();
    let wide = |v: Vec<T>| v.iter().map(|v| v.to_f64()).collect();
    [wide(y), wide(y_mean), wide(y_var), wide(finished), wide(dw), wide(dx), sums, products]
}

/// The same numbers by the unfused ones.
fn unfused<T: Real>(s: &Conv2dShape, activation: Activation) -> [Vec<f64>; 8] {
    let [x, w, b, g] = operands::<T>(s);
    let mean = norm::<T>(s.in_channels)[0].clone();
    let mut packed = vec![T::ZERO; w.len()];
    pack_weight(s, (&w).into(), (&mut packed).into()).unwrap();
    let a = normalized(s, &x, activation);
    let (mut y, mut finished, mut dw, mut dx) = (g.clone(), g.clone(), w.clone(), values::<T>(x.len(), 9));
    forward(s, (&a).into(), (&packed).into(), Some((&b).into()), (&mut y).into(), (&mut scratch(s)).into()).unwrap();
    let (mut y_mean, mut y_var) = (b.clone(), b.clone());
    let rows = BatchNormShape { n_rows: y.len() / s.out_channels, channels: s.out_channels };
    batch_norm::statistics(&rows, (&y).into(), (&mut y_mean).into(), (&mut y_var).into()).unwrap();
    forward(s, (&a).into(), (&packed).into(), None, (&mut finished).into(), (&mut scratch(s)).into()).unwrap();
    for (y, &g) in finished.iter_mut().zip(&g) {
        *y += g;
        if activation == Activation::Relu && *y <= T::ZERO {
            *y = T::ZERO;
        }
    }
    let mode = Accumulate::Overwrite;
    backward_weight(s, (&a).into(), (&g).into(), (&mut dw).into(), None, mode, (&mut scratch(s)).into()).unwrap();
    backward_input(s, (&packed).into(), (&g).into(), (&mut dx).into(), Accumulate::Add, (&mut scratch(s)).into()).unwrap();
    let gate = if activation == Activation::Relu { normalized(s, &x, Activation::None) } else { x.clone() };
    let (mut sums, mut products) = (vec![0.0; mean.len()], vec![0.0; mean.len()]);
    for (i, d) in dx.iter_mut().enumerate() {
        if gate[i] <= T::ZERO {
            *d = T::ZERO;
        }
        let c = i % s.in_channels;
        sums[c] += d.to_f64();
        products[c] += d.to_f64() * (x[i].to_f64() - mean[c].to_f64());
    }
    let wide = |v: Vec<T>| v.iter().map(|v| v.to_f64()).collect();
    [wide(y), wide(y_mean), wide(y_var), wide(finished), wide(dw), wide(dx), sums, products]
}

fn shapes() -> Vec<Conv2dShape> {
    edges().into_iter().chain([BASE, Conv2dShape { in_channels: 6, out_channels: 6, groups: 6, ..BASE }]).collect()
}

#[test]
fn fused_is_one_after_the_other() {
    const NAMES: [&str; 8] = ["y", "mean", "var", "finished y", "dw", "dx", "sums", "products"];
    fn compare<T: Real>(s: &Conv2dShape, activation: Activation) {
        let eps = T::EPSILON.to_f64();
        for ((name, a), b) in NAMES.iter().zip(fused::<T>(s, activation)).zip(unfused::<T>(s, activation)) {
            assert_eq!(a.len(), b.len());
            // Sums over all pixels: the error of every term adds up at worst.
            let scale = if matches!(*name, "sums" | "products" | "dw") { s.n as f64 * s.in_size[0] as f64 } else { 1.0 };
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                let tolerance = 500.0 * scale * eps * (1.0 + b.abs());
                assert!((a - b).abs() <= tolerance, "{name} {i}: {a} for {b} at {s:?}");
            }
        }
    }
    at_every_level(|| {
        for s in shapes() {
            for activation in [Activation::None, Activation::Relu] {
                compare::<f32>(&s, activation);
                compare::<f32>(&Conv2dShape { precision: Precision::Bf16, ..s }, activation);
                compare::<f64>(&s, activation);
            }
        }
    });
}

#[test]
fn threads_do_not_change_bits_of_fused_functions() {
    at_every_level(|| {
        for s in shapes() {
            for precision in [Precision::F32, Precision::Bf16] {
                on_pools(|| fused::<f32>(&Conv2dShape { precision, ..s }, Activation::Relu).map(|v| bits(&v)));
            }
        }
    });
}

#[test]
fn wrong_operands_of_fused_functions_are_errors() {
    let s = BASE;
    let [x, w, _, g] = operands::<f32>(&s);
    let (right, wrong) = (vec![0.0_f32; 3], vec![0.0_f32; 2]);
    let prologue = |mean, scale, shift| Some(Prologue { mean, scale, shift, activation: Activation::None });
    let (r, v) = ((&right).into(), (&wrong).into());
    for prologue in [prologue(v, r, r), prologue(r, v, r), prologue(r, r, v)] {
        let (mut y, mut dw) = (g.clone(), w.clone());
        let mode = Accumulate::Overwrite;
        let y = forward_fused(&s, (&x).into(), prologue, (&w).into(), None, (&mut y).into(), Epilogue::None, (&mut scratch(&s)).into());
        assert!(matches!(y, Err(Error::Length { .. })));
        let dw = backward_weight_fused(&s, (&x).into(), prologue, (&g).into(), (&mut dw).into(), None, mode, (&mut scratch(&s)).into());
        assert!(matches!(dw, Err(Error::Length { .. })));
    }
    let fails = |epilogue: Epilogue<'_, f32>| {
        let mut y = g.clone();
        forward_fused(&s, (&x).into(), None, (&w).into(), None, (&mut y).into(), epilogue, (&mut scratch(&s)).into()).is_err()
    };
    let (mut four, mut five) = (vec![0.0_f32; 4], vec![0.0_f32; 5]);
    assert!(fails(Epilogue::Statistics { mean: (&mut four).into(), var: (&mut five).into() }));
    assert!(fails(Epilogue::Statistics { mean: (&mut five).into(), var: (&mut four).into() }));
    assert!(fails(Epilogue::Pointwise { residual: Some((&x).into()), activation: Activation::None }));
    let empty = Conv2dShape { n: 0, ..s };
    let (mut a, mut b, mut none) = (vec![0.0_f32; 4], vec![0.0_f32; 4], Vec::<f32>::new());
    let epilogue = Epilogue::Statistics { mean: (&mut a).into(), var: (&mut b).into() };
    let none_read = Vec::new();
    let got = forward_fused(&empty, (&none_read).into(), None, (&w).into(), None, (&mut none).into(), epilogue, (&mut scratch(&s)).into());
    assert_eq!(got.unwrap_err().to_string(), "`conv2d`: statistics need `n` of at least 1, got 0");
}
