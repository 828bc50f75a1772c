//! Rotary position embedding: pairs of a head's values turned by an angle that grows with the position.

#[cfg(feature = "cuda")]
mod cuda;

use crate::check::{n_elements, shape_error};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::CHUNK;
use crate::simd::multiversion;
use rayon::prelude::*;

const OP: &str = "rope";

/// Which values of a head make a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// i and i + rotary_dim/2, as in GPT-NeoX and Llama (`rotate_half`).
    Half,
    /// 2i and 2i + 1, as in GPT-J and the paper.
    Interleaved,
}

/// The sizes of a rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeShape {
    /// Examples.
    pub n_rows: usize,
    /// Positions, counted from 0.
    pub len: usize,
    /// Heads.
    pub heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// The first so many of them are turned, the others copied.
    pub rotary_dim: usize,
    /// Pair i turns by position·base^(−2i/rotary_dim).
    pub base: f64,
    /// Which values make a pair.
    pub style: RopeStyle,
}

impl RopeShape {
    fn check(&self) -> Result<usize> {
        let &RopeShape { n_rows, len, heads, head_dim, rotary_dim, base, .. } = self;
        if !rotary_dim.is_multiple_of(2) || rotary_dim > head_dim {
            return Err(shape_error(OP, format!("`rotary_dim` must be even and at most {head_dim}, got {rotary_dim}")));
        }
        if !(base > 0.0 && base.is_finite()) {
            return Err(shape_error(OP, format!("`base` must be positive, got {base}")));
        }
        n_elements(OP, &[n_rows, len, heads, head_dim])
    }
}

/// y: each pair (a, b) at position p becomes (a·cos φ − b·sin φ, b·cos φ + a·sin φ) with φ = p·base^(−2i/rotary_dim).
///
/// Angles, sines and cosines are computed in double precision.
///
/// # Shapes
/// `x`, `y` `[n_rows, len, heads, head_dim]`.
///
/// # Errors
/// [`crate::Error::Length`] where an operand does not fit; [`crate::Error::Shape`] for a `rotary_dim` that is odd or larger than
/// `head_dim`, a `base` that is not positive, and sizes whose product overflows.
///
/// # Source
/// Su et al. 2021.
///
/// ```
/// use landscape_kernels::rope::{RopeShape, RopeStyle, forward};
/// let (len, base, style) = (2, 1e4, RopeStyle::Half);
/// let shape = RopeShape { n_rows: 1, len, heads: 1, head_dim: 2, rotary_dim: 2, base, style };
/// let mut y = [0.0_f64; 4];
/// forward(&shape, (&[1.0, 0.0, 1.0, 0.0][..]).into(), (&mut y[..]).into())?;
/// assert_eq!(y[..2], [1.0, 0.0]);
/// assert!((y[2] - 1.0_f64.cos()).abs() < 1e-15 && (y[3] - 1.0_f64.sin()).abs() < 1e-15);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn forward<T: Real>(shape: &RopeShape, x: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let n = shape.check()?;
    check_len(OP, "x", n, x.len())?;
    check_len(OP, "y", n, y.len())?;
    on_device!(OP, [x, y], gpu => cuda::turn(gpu, shape, 1.0, x, y, Accumulate::Overwrite));
    turn(shape, 1.0, x.host(), y.host(), Accumulate::Overwrite);
    Ok(())
}

/// dx: the gradient turned back, by −φ.
///
/// # Shapes
/// As [`forward`]; `dy` like `y`, `dx` like `x`.
///
/// # Errors
/// As [`forward`].
pub fn backward<T: Real>(shape: &RopeShape, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    let n = shape.check()?;
    check_len(OP, "dy", n, dy.len())?;
    check_len(OP, "dx", n, dx.len())?;
    on_device!(OP, [dy, dx], gpu => cuda::turn(gpu, shape, -1.0, dy, dx, mode));
    turn(shape, -1.0, dy.host(), dx.host(), mode);
    Ok(())
}

/// Positions whose angles come by addition from one that is computed: sines and cosines are most of the work of short heads.
const STEP: usize = 16;

/// cos and direction·sin of every position and pair, `[len, rotary_dim/2]` each.
fn angles<T: Real>(shape: &RopeShape, direction: f64) -> [Vec<T>; 2] {
    let half = shape.rotary_dim / 2;
    let [mut cos, mut sin] = [vec![T::ZERO; shape.len * half], vec![T::ZERO; shape.len * half]];
    for pair in 0..half {
        let speed = shape.base.powf(-2.0 * pair as f64 / shape.rotary_dim as f64);
        let steps: [(f64, f64); STEP] = std::array::from_fn(|step| (step as f64 * speed).sin_cos());
        for first in (0..shape.len).step_by(STEP) {
            let (s, c) = (first as f64 * speed).sin_cos();
            for (step, (ds, dc)) in steps.iter().enumerate().take(shape.len - first) {
                cos[(first + step) * half + pair] = T::from_f64(c * dc - s * ds);
                sin[(first + step) * half + pair] = T::from_f64(direction * (s * dc + c * ds));
            }
        }
    }
    [cos, sin]
}

fn turn<T: Real>(shape: &RopeShape, direction: f64, x: &[T], y: &mut [T], mode: Accumulate) {
    if !y.is_empty() {
        let [cos, sin] = angles::<T>(shape, direction);
        turn_all(shape, [&cos, &sin], x, y, mode);
    }
}

/// [`forward`] on the processor by cosines and sines that are given, `[len, rotary_dim/2]` each; by −sines its gradient.
#[cfg(feature = "candle")]
pub(crate) fn turn_by<T: Real>(
    shape: &RopeShape,
    [cos, sin]: [&[T]; 2],
    x: View<'_, T>,
    y: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    let n = shape.check()?;
    check_len(OP, "x", n, x.len())?;
    check_len(OP, "y", n, y.len())?;
    for (name, table) in [("cos", cos), ("sin", sin)] {
        check_len(OP, name, shape.len * shape.rotary_dim / 2, table.len())?;
    }
    if n > 0 {
        turn_all(shape, [cos, sin], x.host(), y.host(), mode);
    }
    Ok(())
}

fn turn_all<T: Real>(shape: &RopeShape, [cos, sin]: [&[T]; 2], x: &[T], y: &mut [T], mode: Accumulate) {
    let (row, half) = (shape.heads * shape.head_dim, shape.rotary_dim / 2);
    // Whole positions of one example.
    let positions = (CHUNK / row).clamp(1, shape.len);
    let example = shape.len * row;
    y.par_chunks_mut(example).zip(x.par_chunks(example)).for_each(|(y, x)| {
        y.par_chunks_mut(positions * row).zip(x.par_chunks(positions * row)).enumerate().for_each(|(idx, (y, x))| {
            let table = idx * positions * half..(idx * positions + y.len() / row) * half;
            turn_positions(shape, &cos[table.clone()], &sin[table], x, y, mode);
        });
    });
}

multiversion! {
    fn turn_positions<T>(shape: &RopeShape, cos: &[T], sin: &[T], x: &[T], y: &mut [T], mode: Accumulate) {
        let &RopeShape { heads, head_dim, rotary_dim, style, .. } = shape;
        let half = rotary_dim / 2;
        let store = |y: &mut T, value: T| *y = if mode == Accumulate::Add { *y + value } else { value };
        for (p, (x, y)) in x.chunks_exact(heads * head_dim).zip(y.chunks_exact_mut(heads * head_dim)).enumerate() {
            let (cos, sin) = (&cos[p * half..][..half], &sin[p * half..][..half]);
            for (x, y) in x.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim)) {
                let (turned, kept) = y.split_at_mut(rotary_dim);
                let (x, rest) = x.split_at(rotary_dim);
                match style {
                    RopeStyle::Half => {
                        let ((a, b), (ya, yb)) = (x.split_at(half), turned.split_at_mut(half));
                        for (((((ya, yb), &a), &b), &c), &s) in ya.iter_mut().zip(yb).zip(a).zip(b).zip(cos).zip(sin) {
                            store(ya, a * c - b * s);
                            store(yb, b * c + a * s);
                        }
                    }
                    RopeStyle::Interleaved => {
                        for (((y, x), &c), &s) in turned.chunks_exact_mut(2).zip(x.chunks_exact(2)).zip(cos).zip(sin) {
                            store(&mut y[0], x[0] * c - x[1] * s);
                            store(&mut y[1], x[1] * c + x[0] * s);
                        }
                    }
                }
                kept.iter_mut().zip(rest).for_each(|(y, &x)| store(y, x));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::naive::rope as naive;
    use crate::naive::tools::{assert_close, bits, check_gradient, dot, on_pools, values};
    use crate::simd::tests::{at_every_level, at_level};

    const STYLES: [RopeStyle; 2] = [RopeStyle::Half, RopeStyle::Interleaved];

    fn shape([n_rows, len, heads, head_dim, rotary_dim]: [usize; 5], style: RopeStyle) -> RopeShape {
        RopeShape { n_rows, len, heads, head_dim, rotary_dim, base: 1e4, style }
    }

    /// y, and dx added to 0.5.
    fn run<T: Real>(s: &RopeShape) -> [Vec<T>; 2] {
        let n = s.check().unwrap();
        let (mut y, mut dx) = (vec![T::ONE; n], vec![T::from_f64(0.5); n]);
        forward(s, (&values::<T>(n, 1)).into(), (&mut y).into()).unwrap();
        backward(s, (&values::<T>(n, 2)).into(), (&mut dx).into(), Accumulate::Add).unwrap();
        [y, dx]
    }

    fn matches_naive<T: Real>(s: &RopeShape) {
        let wide = |seed| values::<T>(s.check().unwrap(), seed).iter().map(|v| v.to_f64()).collect::<Vec<_>>();
        let narrow = |v: Vec<f64>| v.into_iter().map(T::from_f64).collect::<Vec<_>>();
        let [y, dx] = run::<T>(s);
        // An angle is rounded like any number, and at position p it is up to p radians: double precision shows that.
        let n_ulps = 4.0 + if T::NAME == "f64" { 0.5 * s.len as f64 } else { 0.0 };
        assert_close(&y, &narrow(naive::turn(s, 1.0, &wide(1))), n_ulps);
        assert_close(&dx, &narrow(naive::turn(s, -1.0, &wide(2)).iter().map(|v| v + 0.5).collect()), n_ulps);
    }

    #[test]
    fn equals_naive() {
        for style in STYLES {
            at_every_level(|| {
                for sizes in [[1, 1, 1, 2, 2], [2, 37, 3, 10, 6], [3, 5, 2, 8, 0], [2, 700, 4, 32, 32], [0, 3, 1, 2, 2], [2, 0, 1, 4, 4]] {
                    matches_naive::<f32>(&shape(sizes, style));
                    matches_naive::<f64>(&shape(sizes, style));
                }
            });
        }
    }

    #[test]
    fn gradient_is_that_of_the_forward_pass() {
        for style in STYLES {
            let s = shape([2, 3, 2, 6, 4], style);
            let (x, dy) = (values::<f64>(72, 1), values::<f64>(72, 2));
            let mut dx = vec![9.0; 72];
            backward(&s, (&dy).into(), (&mut dx).into(), Accumulate::Overwrite).unwrap();
            check_gradient(&x, &dx, |x| dot(&naive::turn(&s, 1.0, x), &dy));
        }
    }

    #[test]
    fn neither_threads_nor_levels_change_bits() {
        for style in STYLES {
            let all = || run::<f32>(&shape([3, 300, 4, 40, 32], style)).map(|v| bits(&v));
            let portable = at_level(crate::simd::Level::Portable, all);
            at_every_level(|| {
                on_pools(all);
                assert!(all() == portable);
            });
        }
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let (x, mut y) = ([0.0_f32; 6], [0.0_f32; 6]);
        let mut error = |s: RopeShape| forward(&s, (&x[..]).into(), (&mut y[..]).into()).unwrap_err().to_string();
        let s = shape([1, 2, 1, 3, 3], RopeStyle::Half);
        assert_eq!(error(s), "`rope`: `rotary_dim` must be even and at most 3, got 3");
        assert_eq!(error(RopeShape { rotary_dim: 2, base: 0.0, ..s }), "`rope`: `base` must be positive, got 0");
        assert_eq!(error(RopeShape { rotary_dim: 2, len: 3, ..s }), "`rope`: `x` must have 9 elements, got 6");
    }
}
