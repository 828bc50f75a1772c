//! silu, hardswish and gelu, written out.

use super::{Product, is_erf, near, under};
use crate::ir::{Id, Ir};
use landscape_graph::{Gelu, Op};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

/// x · sigmoid(x), x · hardsigmoid(x), x/2 · (1 + erf(x/√2)) and its approximation by tanh.
pub fn product(ir: &mut Ir, a: Id, b: Id) -> Result<Option<Id>, String> {
    for (x, gate) in [(a, b), (b, a)] {
        if under(ir, gate, |op| *op == Op::Sigmoid) == Some(&[x]) {
            return ir.push(Op::Silu, &[x]).map(Some);
        }
        if under(ir, gate, |op| *op == Op::Hardsigmoid) == Some(&[x]) {
            return ir.push(Op::Hardswish, &[x]).map(Some);
        }
    }
    let product = Product::of(ir, &[a, b]);
    let &[first, second] = product.terms.as_slice() else { return Ok(None) };
    for ((x, shift), (gate, one)) in [(first, second), (second, first)] {
        if shift != 0.0 || !near(one, 1.0) {
            continue;
        }
        let approximate = if is_erf(ir, gate).is_some_and(|u| is_scaled(ir, u, x, FRAC_1_SQRT_2)) {
            Gelu::None
        } else if under(ir, gate, |op| *op == Op::Tanh).is_some_and(|u| is_tanh_argument(ir, u[0], x)) {
            Gelu::Tanh
        } else {
            continue;
        };
        let gelu = ir.push(Op::Gelu { approximate }, &[x])?;
        // The usual factor is ½; any other is a multiple of gelu.
        return ir.push(Op::Affine { scale: multiple(2.0 * product.factor), shift: 0.0 }, &[gelu]).map(Some);
    }
    Ok(None)
}

fn multiple(factor: f64) -> f64 {
    if near(factor, 1.0) { 1.0 } else { factor }
}

/// Whether u is factor · x.
fn is_scaled(ir: &Ir, u: Id, x: Id, factor: f64) -> bool {
    let product = Product::of(ir, &[u]);
    product.terms == [(x, 0.0)] && near(product.factor, factor)
}

/// Whether u is √(2/π) · (x + 0.044715 x³).
fn is_tanh_argument(ir: &Ir, u: Id, x: Id) -> bool {
    let outer = Product::of(ir, &[u]);
    let &[(sum, 0.0)] = outer.terms.as_slice() else { return false };
    let Some(&[p, q]) = under(ir, sum, |op| *op == Op::Add) else { return false };
    let cubic = if p == x {
        q
    } else if q == x {
        p
    } else {
        return false;
    };
    let inner = Product::of(ir, &[cubic]);
    let is_cube = match inner.terms.as_slice() {
        [(cube, 0.0)] => under(ir, *cube, |op| *op == Op::Power { exponent: 3.0 }) == Some(&[x]),
        [(a, 0.0), (b, 0.0), (c, 0.0)] => [*a, *b, *c] == [x; 3],
        [(a, 0.0), (b, 0.0)] => {
            let square = |id| under(ir, id, |op| *op == Op::Power { exponent: 2.0 }) == Some(&[x]);
            (*a == x && square(*b)) || (*b == x && square(*a))
        }
        _ => false,
    };
    is_cube && near(inner.factor, 0.044715) && near(outer.factor, FRAC_2_PI.sqrt())
}
