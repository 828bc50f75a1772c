//! Twins of the pointwise activations, as textbooks write them, in double precision.

use crate::activation::Pointwise;

/// Every kind, with attributes that are not the usual ones.
pub(crate) const KINDS: [Pointwise; 18] = [
    Pointwise::Silu,
    Pointwise::Sigmoid,
    Pointwise::HardSwish,
    Pointwise::HardSigmoid,
    Pointwise::Tanh,
    Pointwise::LeakyRelu { negative_slope: 0.1 },
    Pointwise::HardTanh { min_val: 0.0, max_val: 6.0 },
    Pointwise::Elu { alpha: 1.5 },
    Pointwise::Softplus,
    Pointwise::Exp,
    Pointwise::Affine { scale: 0.75, shift: 0.0 },
    Pointwise::Affine { scale: 1.0, shift: 16.0 },
    Pointwise::Power { exponent: 2.0 },
    Pointwise::Power { exponent: 0.5 },
    Pointwise::Power { exponent: -0.5 },
    Pointwise::Power { exponent: -1.0 },
    Pointwise::Power { exponent: 3.0 },
    Pointwise::Power { exponent: 1.7 },
];

pub(crate) fn value(kind: Pointwise, x: f64) -> f64 {
    match kind {
        Pointwise::Silu => x / (1.0 + (-x).exp()),
        Pointwise::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Pointwise::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Pointwise::HardSigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Pointwise::Tanh => x.tanh(),
        Pointwise::LeakyRelu { negative_slope } => x.max(0.0) + negative_slope * x.min(0.0),
        Pointwise::HardTanh { min_val, max_val } => x.clamp(min_val, max_val),
        Pointwise::Elu { alpha } => x.max(0.0) + alpha * x.min(0.0).exp_m1(),
        Pointwise::Softplus => x.exp().ln_1p(),
        Pointwise::Exp => x.exp(),
        Pointwise::Affine { scale, shift } => scale * x + shift,
        Pointwise::Power { exponent } => x.powf(exponent),
    }
}

pub(crate) fn slope(kind: Pointwise, x: f64) -> f64 {
    let s = 1.0 / (1.0 + (-x).exp());
    let inside = |low: f64, high: f64| f64::from(u8::from(low < x && x < high));
    match kind {
        Pointwise::Silu => s + x * s * (1.0 - s),
        Pointwise::Sigmoid => s * (1.0 - s),
        Pointwise::HardSwish => inside(-3.0, 3.0) * (2.0 * x + 3.0) / 6.0 + inside(3.0, f64::INFINITY),
        Pointwise::HardSigmoid => inside(-3.0, 3.0) / 6.0,
        Pointwise::Tanh => 1.0 / x.cosh().powi(2),
        Pointwise::LeakyRelu { negative_slope } => {
            if x > 0.0 {
                1.0
            } else {
                negative_slope
            }
        }
        Pointwise::HardTanh { min_val, max_val } => inside(min_val, max_val),
        Pointwise::Elu { alpha } => {
            if x > 0.0 {
                1.0
            } else {
                alpha * x.exp()
            }
        }
        Pointwise::Softplus => s,
        Pointwise::Exp => x.exp(),
        Pointwise::Affine { scale, .. } => scale,
        Pointwise::Power { exponent } => exponent * x.powf(exponent - 1.0),
    }
}
