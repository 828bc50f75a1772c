//! Twins of the activations, as textbooks write them. The normal integral is a series here.

use crate::activation::Gelu;
use crate::memory::{Accumulate, Real};

pub(crate) fn relu<T: Real>(x: &[T]) -> Vec<T> {
    x.iter().map(|&x| if x > T::ZERO { x } else { T::ZERO }).collect()
}

pub(crate) fn relu_backward<T: Real>(x: &[T], dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
    let terms = x.iter().zip(dy).map(|(&x, &dy)| if x > T::ZERO { dy } else { T::ZERO });
    finish(terms, start, mode)
}

pub(crate) fn gelu<T: Real>(kind: Gelu, x: &[T]) -> Vec<T> {
    x.iter().map(|x| T::from_f64(x.to_f64() * gate(kind, x.to_f64()).0)).collect()
}

pub(crate) fn gelu_backward<T: Real>(kind: Gelu, x: &[T], dy: &[T], start: &[T], mode: Accumulate) -> Vec<T> {
    let terms = x.iter().zip(dy).map(|(x, dy)| {
        let x = x.to_f64();
        let (gate, slope) = gate(kind, x);
        T::from_f64((gate + x * slope) * dy.to_f64())
    });
    finish(terms, start, mode)
}

fn finish<T: Real>(terms: impl Iterator<Item = T>, start: &[T], mode: Accumulate) -> Vec<T> {
    terms
        .zip(start)
        .map(|(term, &start)| match mode {
            Accumulate::Overwrite => term,
            Accumulate::Add => start + term,
        })
        .collect()
}

/// The gate and its derivative.
fn gate(kind: Gelu, x: f64) -> (f64, f64) {
    match kind {
        Gelu::Erf => (0.5 + normal_integral(x), density(x)),
        Gelu::Tanh => {
            let scale = (2.0 / std::f64::consts::PI).sqrt();
            let tanh = (scale * (x + 0.044715 * x.powi(3))).tanh();
            (0.5 * (1.0 + tanh), 0.5 * (1.0 - tanh * tanh) * scale * (1.0 + 3.0 * 0.044715 * x * x))
        }
    }
}

fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// ∫₀ˣ of the normal density by its everywhere convergent series φ(x)·Σ x^(2k+1)/(1·3·…·(2k+1)).
fn normal_integral(x: f64) -> f64 {
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    density(x) * sum
}
