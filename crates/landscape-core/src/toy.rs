//! Analytic surfaces with known minima, saddles and barriers, behind the same [`Objective`] as networks: every path algorithm is
//! tried on these first.
//!
//! # Source
//! Egg carton, curvy valley and flat: `torch_autoneb/models/simple.py` of fdraxler/PyTorch-AutoNEB at 13c8ba8. The values below are
//! closed forms, not copies of numbers.

use crate::coefficients::Coefficients;
use crate::control::ControlPoints;
use crate::error::{Error, Result};
use crate::layout::ParamLayout;
use crate::objective::{Objective, Pass};
use crate::parallel_points::Fork;
use crate::params::Flat;
use crate::tally::Tally;
use landscape_kernels::{Accumulate, Device, Real};
use std::f64::consts::{PI, TAU};
use std::sync::Arc;

/// A function of a few coordinates with its gradient.
pub trait Surface {
    /// How many coordinates.
    fn n_dims(&self) -> usize;
    /// f(w).
    fn value(&self, w: &[f64]) -> f64;
    /// ∇f(w) into `gradient`, overwriting it.
    fn gradient(&self, w: &[f64], gradient: &mut [f64]);
}

/// f(w) = ½ (w − c)ᵀ A (w − c) with A positive definite: the one minimum is c.
#[derive(Debug, Clone)]
pub struct Quadratic {
    minimum: Vec<f64>,
    /// Row-major.
    hessian: Vec<f64>,
}

impl Quadratic {
    /// With this minimum and Hessian (row-major, symmetric).
    ///
    /// # Errors
    /// If the Hessian is not n×n, symmetric and positive definite.
    pub fn new(minimum: Vec<f64>, hessian: Vec<f64>) -> Result<Self> {
        let n = minimum.len();
        if hessian.len() != n * n {
            return Err(Error::config("hessian", format!("{n}x{n} numbers"), hessian.len()));
        }
        let is_symmetric = (0..n).all(|i| (0..i).all(|j| hessian[i * n + j] == hessian[j * n + i]));
        if !is_symmetric || !has_cholesky(n, &hessian) {
            return Err(Error::config("hessian", "symmetric and positive definite", format!("{hessian:?}")));
        }
        Ok(Quadratic { minimum, hessian })
    }

    /// A = I: f(w) = ½ ‖w − c‖².
    pub fn isotropic(minimum: Vec<f64>) -> Self {
        let n = minimum.len();
        let hessian = (0..n * n).map(|idx| if idx / n == idx % n { 1.0 } else { 0.0 }).collect();
        Quadratic { minimum, hessian }
    }

    /// c.
    pub fn minimum(&self) -> &[f64] {
        &self.minimum
    }
}

/// Whether Cholesky's factorisation of the symmetric matrix exists.
fn has_cholesky(n: usize, matrix: &[f64]) -> bool {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let rest = matrix[i * n + j] - (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum::<f64>();
            if i == j {
                if rest.is_nan() || rest <= 0.0 {
                    return false;
                }
                l[i * n + i] = rest.sqrt();
            } else {
                l[i * n + j] = rest / l[j * n + j];
            }
        }
    }
    true
}

impl Surface for Quadratic {
    fn n_dims(&self) -> usize {
        self.minimum.len()
    }

    fn value(&self, w: &[f64]) -> f64 {
        let mut gradient = vec![0.0; w.len()];
        self.gradient(w, &mut gradient);
        0.5 * gradient.iter().zip(w.iter().zip(&self.minimum)).map(|(g, (w, c))| g * (w - c)).sum::<f64>()
    }

    fn gradient(&self, w: &[f64], gradient: &mut [f64]) {
        for (slot, row) in gradient.iter_mut().zip(self.hessian.chunks_exact(w.len())) {
            *slot = row.iter().zip(w.iter().zip(&self.minimum)).map(|(a, (w, c))| a * (w - c)).sum();
        }
    }
}

/// f(w) = Σ_i cos(2π w_i): minima −n at the half-integers, maxima +n at the integers; between neighbouring minima the lowest saddle
/// is 2 higher than they are, and no path between any two minima needs more.
#[derive(Debug, Clone, Copy)]
pub struct EggCarton {
    /// How many coordinates.
    pub n_dims: usize,
}

impl Surface for EggCarton {
    fn n_dims(&self) -> usize {
        self.n_dims
    }

    fn value(&self, w: &[f64]) -> f64 {
        w.iter().map(|x| (TAU * x).cos()).sum()
    }

    fn gradient(&self, w: &[f64], gradient: &mut [f64]) {
        for (slot, x) in gradient.iter_mut().zip(w) {
            *slot = -TAU * (TAU * x).sin();
        }
    }
}

/// f(x, y) = (y − sin x)² + 4b(b x⁴ − x²) + 1 with b = 1/(2 x_0²) and x_0 = 5π/2.
///
/// Minima of value 0 at ±(x_0, 1), a saddle of value 1 at (0, 0), and the path of least energy is y = sin x: of length 19.100989
/// where the straight line has 15.834775 and a maximum of 2.976668 (2.97665 over 1001 samples of it).
#[derive(Debug, Clone, Copy, Default)]
pub struct CurvyValley;

impl CurvyValley {
    /// x of the right minimum.
    pub const X_MINIMUM: f64 = 2.5 * PI;
    const B: f64 = 1.0 / (2.0 * Self::X_MINIMUM * Self::X_MINIMUM);

    /// The two minima, left and right.
    pub const MINIMA: [[f64; 2]; 2] = [[-Self::X_MINIMUM, -1.0], [Self::X_MINIMUM, 1.0]];
}

impl Surface for CurvyValley {
    fn n_dims(&self) -> usize {
        2
    }

    fn value(&self, w: &[f64]) -> f64 {
        let (x, y) = (w[0], w[1]);
        let (b, square) = (Self::B, x * x);
        (y - x.sin()).powi(2) + 4.0 * b * (b * square * square - square) + 1.0
    }

    fn gradient(&self, w: &[f64], gradient: &mut [f64]) {
        let (x, y) = (w[0], w[1]);
        let b = Self::B;
        gradient[0] = -2.0 * (y - x.sin()) * x.cos() + 4.0 * b * (4.0 * b * x * x * x - 2.0 * x);
        gradient[1] = 2.0 * (y - x.sin());
    }
}

/// f(w) = 1 everywhere: no gradient, no barrier, and every path is as good as any; a division by a slope shows here.
#[derive(Debug, Clone, Copy)]
pub struct FlatSurface {
    /// How many coordinates.
    pub n_dims: usize,
}

impl Surface for FlatSurface {
    fn n_dims(&self) -> usize {
        self.n_dims
    }

    fn value(&self, _w: &[f64]) -> f64 {
        1.0
    }

    fn gradient(&self, _w: &[f64], gradient: &mut [f64]) {
        gradient.fill(0.0);
    }
}

/// A surface as an objective: one "example" whose loss is the value; there are no batches to speak of and no classes.
///
/// ```
/// use landscape_core::objective::{Objective, Pass};
/// use landscape_core::toy::{CurvyValley, Toy};
/// use landscape_core::{ControlPoints, Curve, Row, Segment};
/// let mut valley = Toy::<_, f64>::new(CurvyValley);
/// let [left, right] = CurvyValley::MINIMA.map(|minimum| Row::Free(valley.point(&minimum).unwrap()));
/// let points = ControlPoints::new(vec![left, right])?;
/// valley.move_to(&points, &Segment.coefficients(0.5)?)?;
/// assert_eq!(valley.measure(&(), Pass::EVALUATE)?.nll(), 1.0);
/// # Ok::<(), landscape_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Toy<S, T> {
    surface: S,
    weights: Flat<T>,
}

impl<S: Surface, T: Real> Toy<S, T> {
    /// At the origin; the one tensor is named `w`.
    pub fn new(surface: S) -> Self {
        let layout = ParamLayout::new([("w".to_owned(), vec![surface.n_dims()])]).expect("one tensor has no name to clash with");
        Toy { weights: Flat::zeros(&Arc::new(layout), &Device::Cpu), surface }
    }

    /// The surface.
    pub fn surface(&self) -> &S {
        &self.surface
    }

    /// The point with these coordinates, in the surface's layout.
    ///
    /// # Errors
    /// If there are more or fewer than the surface has.
    pub fn point(&self, coordinates: &[f64]) -> Result<Flat<T>> {
        Flat::from_vec(self.weights.layout(), &Device::Cpu, coordinates.iter().map(|&x| T::from_f64(x)).collect())
    }

    fn coordinates(&self) -> Vec<f64> {
        self.weights.view().host().iter().map(|x| x.to_f64()).collect()
    }
}

impl<S: Surface, T: Real> Objective for Toy<S, T> {
    type Batch = ();
    type Scalar = T;

    fn weights(&self) -> &Flat<T> {
        &self.weights
    }

    fn move_to(&mut self, points: &ControlPoints<T>, c: &Coefficients) -> Result<()> {
        self.weights.layout().check_same("the surface", points.layout(), "the control points")?;
        points.blend_into(c, &mut self.weights)
    }

    fn measure(&mut self, _batch: &(), _pass: Pass) -> Result<Tally> {
        Ok(Tally { n_examples: 1, loss_nats_sum: self.surface.value(&self.coordinates()), n_wrong: None })
    }

    fn gradient(&mut self, batch: &(), pass: Pass, into: &mut Flat<T>, mode: Accumulate) -> Result<Tally> {
        self.weights.layout().check_same("the surface", into.layout(), "the gradient")?;
        let w = self.coordinates();
        let mut gradient = vec![0.0; w.len()];
        self.surface.gradient(&w, &mut gradient);
        for (slot, g) in into.view_mut().host().iter_mut().zip(gradient) {
            let before = if mode == Accumulate::Add { *slot } else { T::ZERO };
            *slot = before + T::from_f64(g);
        }
        self.measure(batch, pass)
    }

    fn collect(&mut self, _told: &mut dyn FnMut(Tally)) -> Result<()> {
        Ok(())
    }
}

impl<S: Surface + Clone, T: Real> Fork for Toy<S, T> {
    fn fork(&self) -> Self {
        self.clone()
    }

    fn fork_bytes(&self, _n_examples: usize) -> usize {
        size_of_val(self.weights.view().host())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::barrier::BarrierKind;
    use crate::control::Row;
    use crate::curve::Segment;
    use crate::length::{chord_lengths, uniform_ts};
    use crate::profile::{Measured, Values, measure_path};
    use crate::seed::Seed;

    fn quadratic() -> Quadratic {
        Quadratic::new(vec![1.0, -2.0, 0.5], vec![2.0, 0.5, 0.0, 0.5, 1.0, -0.3, 0.0, -0.3, 4.0]).unwrap()
    }

    fn check_gradient(surface: &dyn Surface) {
        let mut stream = Seed::new(2).stream();
        for _ in 0..20 {
            let w: Vec<f64> = (0..surface.n_dims()).map(|_| 3.0 * stream.normal()).collect();
            let mut gradient = vec![f64::NAN; w.len()];
            surface.gradient(&w, &mut gradient);
            for i in 0..w.len() {
                let h = 1e-5;
                let at = |shift: f64| {
                    let mut w = w.clone();
                    w[i] += shift;
                    surface.value(&w)
                };
                let difference = (at(h) - at(-h)) / (2.0 * h);
                assert!((difference - gradient[i]).abs() < 1e-7 * (1.0 + gradient[i].abs()), "{i}: {difference} {}", gradient[i]);
            }
        }
    }

    #[test]
    fn every_gradient_is_that_of_its_values() {
        check_gradient(&quadratic());
        check_gradient(&Quadratic::isotropic(vec![1.0, 2.0]));
        check_gradient(&EggCarton { n_dims: 3 });
        check_gradient(&CurvyValley);
        check_gradient(&FlatSurface { n_dims: 2 });
    }

    /// max and length along the straight line between two points of a surface.
    fn line<S: Surface>(surface: S, a: &[f64], b: &[f64], n_samples: usize) -> (f64, f64, f64) {
        let mut toy = Toy::<S, f64>::new(surface);
        let points = ControlPoints::new(vec![Row::Free(toy.point(a).unwrap()), Row::Free(toy.point(b).unwrap())]).unwrap();
        let ts = uniform_ts(n_samples).unwrap();
        let samples = measure_path(&mut toy, &points, &Segment, &ts, |toy, _| {
            let values = Values::new(&toy.measure(&(), Pass::EVALUATE)?, 0.0, 0.0);
            Ok::<_, Error>(Measured { train: values, test: None })
        })
        .unwrap();
        let values: Vec<f64> = samples.iter().map(|s| s.train.nll).collect();
        let length: f64 = chord_lengths(&points, &Segment, &ts).unwrap().iter().sum();
        (BarrierKind::Saddle.of(&ts, &values).unwrap(), BarrierKind::AboveLine.of(&ts, &values).unwrap(), length)
    }

    #[test]
    fn the_egg_carton_has_its_minima_saddles_and_barrier() {
        let egg = EggCarton { n_dims: 2 };
        assert_eq!(egg.value(&[0.5, -1.5]), -2.0);
        assert_eq!(egg.value(&[1.0, 3.0]), 2.0);
        assert_eq!(egg.value(&[1.0, 0.5]), 0.0);
        // Between neighbours the line runs over the lowest saddle, so its barrier is exactly 2; along the diagonal it crosses a maximum.
        let (saddle, barrier, _) = line(egg, &[0.5, 0.5], &[1.5, 0.5], 61);
        assert!(saddle.abs() < 1e-12 && (barrier - 2.0).abs() < 1e-12, "{saddle} {barrier}");
        assert!((line(egg, &[0.5, 0.5], &[1.5, 1.5], 61).1 - 4.0).abs() < 1e-12);
    }

    #[test]
    fn the_curvy_valley_has_its_minima_saddle_and_lengths() {
        let valley = CurvyValley;
        let mut gradient = [f64::NAN; 2];
        for minimum in CurvyValley::MINIMA {
            assert!(valley.value(&minimum).abs() < 1e-14);
            valley.gradient(&minimum, &mut gradient);
            assert!(gradient.iter().all(|g| g.abs() < 1e-14), "{gradient:?}");
        }
        assert_eq!(valley.value(&[0.0, 0.0]), 1.0);
        valley.gradient(&[0.0, 0.0], &mut gradient);
        assert_eq!(gradient, [0.0, 0.0]);
        // On the sine the value never exceeds that of the saddle.
        assert!(
            uniform_ts(1001)
                .unwrap()
                .iter()
                .all(|t| valley.value(&[t * CurvyValley::X_MINIMUM, (t * CurvyValley::X_MINIMUM).sin()]) <= 1.0)
        );
        let [left, right] = CurvyValley::MINIMA;
        let (max, barrier, length) = line(valley, &left, &right, 1001);
        assert!((max - 2.976_65).abs() < 5e-6 && (barrier - max).abs() < 1e-13, "{max}");
        // The maximum itself, where the slope along x = t x_0, y = t vanishes: found by bisection between two samples.
        let slope = |t: f64| {
            let mut gradient = [0.0; 2];
            valley.gradient(&[t * CurvyValley::X_MINIMUM, t], &mut gradient);
            gradient[0] * CurvyValley::X_MINIMUM + gradient[1]
        };
        let (mut low, mut high) = (0.4, 0.8);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if slope(middle) > 0.0 { low = middle } else { high = middle }
        }
        let top = valley.value(&[low * CurvyValley::X_MINIMUM, low]);
        assert!((top - 2.976_668_27).abs() < 5e-9, "{top}");
        assert!((length - 15.834_775).abs() < 5e-7, "{length}");
        // ∫ √(1 + cos² x) dx by Simpson's rule, from one minimum to the other.
        let n = 2000;
        let h = 2.0 * CurvyValley::X_MINIMUM / f64::from(n);
        let speed = |i: i32| (1.0 + (-CurvyValley::X_MINIMUM + h * f64::from(i)).cos().powi(2)).sqrt();
        let simpson = |i: i32| {
            if i == 0 || i == n {
                1.0
            } else if i % 2 == 1 {
                4.0
            } else {
                2.0
            }
        };
        let sine: f64 = (0..=n).map(|i| simpson(i) * speed(i)).sum::<f64>() * h / 3.0;
        assert!((sine - 19.100_989).abs() < 5e-7, "{sine}");
    }

    #[test]
    fn a_flat_surface_has_no_barrier_and_no_nan() {
        let (max, barrier, _) = line(FlatSurface { n_dims: 2 }, &[0.0, 0.0], &[1.0, 1.0], 61);
        assert_eq!((max, barrier), (1.0, 0.0));
    }

    #[test]
    fn the_objective_adds_gradients_when_asked_and_refuses_other_layouts() {
        let mut toy = Toy::<_, f32>::new(quadratic());
        let points = ControlPoints::single(toy.point(&[0.0, 1.0, 2.0]).unwrap());
        toy.move_to(&points, &Coefficients::one_hot(0, 1).unwrap()).unwrap();
        let mut g = Flat::zeros(toy.weights().layout(), &Device::Cpu);
        let tally = toy.gradient(&(), Pass::EVALUATE, &mut g, Accumulate::Overwrite).unwrap();
        assert_eq!((tally.n_examples, tally.n_wrong), (1, None));
        let once = g.to_vec();
        toy.gradient(&(), Pass::EVALUATE, &mut g, Accumulate::Add).unwrap();
        assert_eq!(g.to_vec(), once.iter().map(|v| 2.0 * v).collect::<Vec<_>>());
        let other = Toy::<_, f32>::new(CurvyValley);
        assert!(toy.move_to(&ControlPoints::single(other.point(&[0.0, 0.0]).unwrap()), &Coefficients::one_hot(0, 1).unwrap()).is_err());
        assert!(toy.gradient(&(), Pass::EVALUATE, &mut other.point(&[0.0, 0.0]).unwrap(), Accumulate::Add).is_err());
    }

    #[test]
    fn a_quadratic_must_have_a_minimum() {
        assert!(Quadratic::new(vec![0.0; 2], vec![1.0, 0.0, 0.0, -1.0]).is_err());
        assert!(Quadratic::new(vec![0.0; 2], vec![1.0, 0.5, 0.0, 1.0]).is_err());
        assert!(Quadratic::new(vec![0.0; 2], vec![1.0]).is_err());
        assert_eq!(quadratic().value(quadratic().minimum()), 0.0);
    }
}
