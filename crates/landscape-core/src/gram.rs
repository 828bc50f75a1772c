//! Inner products between control points, from which every length and angle in their span follows without touching weights again.
//!
//! The products are not those of the points but of θ_0 and the differences θ_k − θ_0. Steps along a path have coefficients that sum
//! to 0, so they live in the differences alone: what is subtracted is coefficients, never two squared norms that agree in most of
//! their digits. Coefficients that sum to 0 within their rounding are taken to do so exactly.

use crate::error::{Error, Result};
use crate::params::Flat;
use landscape_kernels::Real;
use std::ops::Deref;

/// How many products are added up before they join the total: keeps the rounding of a sum over millions of weights small.
const BLOCK: usize = 4096;

/// The inner products of K points, in f64.
#[derive(Debug, Clone)]
pub struct Gram {
    n_points: usize,
    /// Row-major, for the basis θ_0, θ_1 − θ_0, …, θ_{K−1} − θ_0.
    products: Vec<f64>,
}

impl Gram {
    /// Takes K(K+1)/2 products of P numbers, in one pass over the weights.
    ///
    /// # Errors
    /// If there are no points, or the layouts differ.
    pub fn new<T: Real, P: Deref<Target = Flat<T>>>(points: &[P]) -> Result<Self> {
        let n_points = points.len();
        if n_points == 0 {
            return Err(Error::config("points", "one or more", "none"));
        }
        for (k, point) in points.iter().enumerate().skip(1) {
            points[0].layout().check_same("point 0", point.layout(), &format!("point {k}"))?;
        }
        let values = points.iter().map(|point| Ok(point.view().read()?)).collect::<Result<Vec<_>>>()?;
        let n_elements = values[0].len();
        let mut products = vec![0.0; n_points * n_points];
        let mut basis = vec![vec![0.0; BLOCK]; n_points];
        for begin in (0..n_elements).step_by(BLOCK) {
            let len = BLOCK.min(n_elements - begin);
            for (k, row) in basis.iter_mut().enumerate() {
                for (i, slot) in row[..len].iter_mut().enumerate() {
                    let origin = values[0][begin + i].to_f64();
                    *slot = if k == 0 { origin } else { values[k][begin + i].to_f64() - origin };
                }
            }
            for j in 0..n_points {
                for k in j..n_points {
                    products[j * n_points + k] += basis[j][..len].iter().zip(&basis[k][..len]).map(|(a, b)| a * b).sum::<f64>();
                }
            }
        }
        for j in 0..n_points {
            for k in 0..j {
                products[j * n_points + k] = products[k * n_points + j];
            }
        }
        Ok(Gram { n_points, products })
    }

    /// ⟨Σ_k a_k θ_k, Σ_k b_k θ_k⟩.
    ///
    /// # Panics
    /// If there are not K coefficients on each side.
    pub fn inner(&self, a: &[f64], b: &[f64]) -> f64 {
        self.product(&self.coordinates(a, &[]), &self.coordinates(b, &[]))
    }

    /// ‖Σ_k a_k θ_k‖.
    ///
    /// # Panics
    /// If there are not K coefficients.
    pub fn norm(&self, a: &[f64]) -> f64 {
        self.inner(a, a).max(0.0).sqrt()
    }

    /// ‖Σ_k (a_k − b_k) θ_k‖.
    ///
    /// # Panics
    /// If there are not K coefficients on each side.
    pub fn distance(&self, a: &[f64], b: &[f64]) -> f64 {
        assert_eq!(b.len(), self.n_points, "one coefficient per point");
        let difference = self.coordinates(a, b);
        self.product(&difference, &difference).max(0.0).sqrt()
    }

    /// The coordinates (Σ_k c_k, c_1, …, c_{K−1}) of Σ_k c_k θ_k in the basis above, for c = a − b (b may be left out).
    fn coordinates(&self, a: &[f64], b: &[f64]) -> Vec<f64> {
        assert_eq!(a.len(), self.n_points, "one coefficient per point");
        let mut coordinates = a.to_vec();
        coordinates.iter_mut().zip(b).for_each(|(c, b)| *c -= b);
        let sum: f64 = coordinates.iter().sum();
        let rounding = 2.0 * a.len() as f64 * f64::EPSILON * a.iter().chain(b).map(|v| v.abs()).sum::<f64>();
        coordinates[0] = if sum.abs() <= rounding { 0.0 } else { sum };
        coordinates
    }

    /// The inner product of two vectors given by their coordinates.
    fn product(&self, a: &[f64], b: &[f64]) -> f64 {
        let rows = self.products.chunks_exact(self.n_points);
        rows.zip(a).map(|(row, a_j)| a_j * row.iter().zip(b).map(|(product, b_k)| product * b_k).sum::<f64>()).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::coefficients::Coefficients;
    use crate::control::{ControlPoints, Row};
    use crate::layout::ParamLayout;
    use crate::seed::Seed;
    use landscape_kernels::Device;
    use std::sync::Arc;

    #[test]
    fn norms_are_those_of_the_blended_points() {
        let layout = Arc::new(ParamLayout::new([("w".to_owned(), vec![2 * BLOCK + 17])]).unwrap());
        let mut stream = Seed::new(1).stream();
        let mut draw = || Flat::from_vec(&layout, &Device::Cpu, (0..layout.n_elements()).map(|_| stream.normal()).collect()).unwrap();
        let rows: Vec<Flat<f64>> = (0..4).map(|_| draw()).collect();
        let gram = Gram::new(&rows.iter().collect::<Vec<_>>()).unwrap();
        let points = ControlPoints::new(rows.into_iter().map(Row::Free).collect()).unwrap();
        for (a, b) in [([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]), ([0.2, 0.3, -1.5, 0.25], [0.5, 0.5, 0.5, 0.5])] {
            let at = |c: [f64; 4]| points.blend(&Coefficients::new(c.to_vec()).unwrap()).unwrap();
            let direct = at(a).distance(&at(b)).unwrap();
            assert!((gram.distance(&a, &b) - direct).abs() < 1e-12 * direct);
            assert!((gram.norm(&a).powi(2) - at(a).squared_norm()).abs() < 1e-12 * at(a).squared_norm());
            let inner: f64 = at(a).to_vec().iter().zip(at(b).to_vec()).map(|(x, y)| x * y).sum();
            assert!((gram.inner(&a, &b) - inner).abs() < 1e-12 * gram.norm(&a) * gram.norm(&b));
        }
    }

    #[test]
    fn near_neighbours_far_from_the_origin_keep_their_distance() {
        let layout = Arc::new(ParamLayout::new([("w".to_owned(), vec![1000])]).unwrap());
        let at = |shift: f64| Flat::from_vec(&layout, &Device::Cpu, vec![1e6 + shift; 1000]).unwrap();
        let (a, b) = (at(0.0), at(2f64.powi(-20)));
        let gram = Gram::new(&[&a, &b]).unwrap();
        let exact = 2f64.powi(-20) * 1000f64.sqrt();
        assert!((gram.distance(&[1.0, 0.0], &[0.0, 1.0]) - exact).abs() < 1e-14 * exact);
        // A sixtieth of the way, as on a path: squared norms of 1e15 would leave no digit of it.
        let step = gram.distance(&[1.0, 0.0], &[59.0 / 60.0, 1.0 / 60.0]);
        assert!((step - exact / 60.0).abs() < 1e-13 * exact, "{step}");
    }
}
