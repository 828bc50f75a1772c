//! The plane through three points of weight space, and grids on it.
//!
//! # Source
//! `plane.py` of timgaripov/dnn-mode-connectivity at f0bf253: u = w_2 − w_0, v = w_1 − w_0 without its part along u, and the cells
//! w_0 + α u + β v for α, β from −0.2 to 1.2. Ours differs in that cells are *coefficients* of the three points, so a cell is visited
//! as any point of a path is (and the cells at the three points are those points, bit for bit); that n_x and n_y may differ; and that
//! a path of more than three control points is not cut to its first three.

use crate::coefficients::Coefficients;
use crate::control::{ControlPoints, Row};
use crate::curve::Curve;
use crate::error::{Error, Result};
use crate::gram::Gram;
use crate::length::check_points;
use crate::params::Flat;
use landscape_kernels::Real;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How far from one line, in parts of its length, three points must be: more than f32 weights are rounded by.
const LEAST_HEIGHT: f64 = 1e-6;

/// The plane through w_0, w_1 and w_2, with w_0 at (0, 0), w_2 at (dx, 0) and w_1 at (x, dy).
#[derive(Debug, Clone)]
pub struct Plane<T> {
    points: ControlPoints<T>,
    dx: f64,
    dy: f64,
    /// Where w_1 stands along u, in parts of dx.
    shift: f64,
}

/// A point seen from a plane.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    /// Its coordinate along u, in units of weight space (α = x/dx).
    pub x: f64,
    /// Its coordinate along v, in units of weight space (β = y/dy).
    pub y: f64,
    /// How far above the plane it is; up to rounding (1e-8 of its distance from w_0) 0 for points of the plane.
    pub distance: f64,
}

impl<T: Real> Plane<T> {
    /// Through three points: the origin, the point off the axis, and the point on the axis (start, bend, end of a path).
    ///
    /// # Errors
    /// If there are not three, or they lie on one line.
    pub fn new(points: ControlPoints<T>) -> Result<Self> {
        if points.n_points() != 3 {
            return Err(Error::config("points", "three points", points.n_points()));
        }
        let gram = Gram::new(&[points.point(0), points.point(1), points.point(2)])?;
        let (u, w1) = ([-1.0, 0.0, 1.0], [-1.0, 1.0, 0.0]);
        let (dx, reach) = (gram.norm(&u), gram.norm(&w1));
        let shift = gram.inner(&w1, &u) / (dx * dx);
        let dy = gram.norm(&[shift - 1.0, 1.0, -shift]);
        if !(dx > 0.0 && dy > LEAST_HEIGHT * reach.max(dx)) {
            let got = format!("a triangle {dx} wide and {dy} high");
            return Err(Error::config("points", "three points that are finite and not on one line", got));
        }
        Ok(Plane { points, dx, dy, shift })
    }

    /// Through the ends of a path and the inner control point that is farthest from the line between them.
    ///
    /// # Errors
    /// If the path has no inner control point, or all lie on one line.
    pub fn of_path(path: &ControlPoints<T>) -> Result<Self> {
        let last = path.n_points() - 1;
        if last < 2 {
            return Err(Error::config("points", "three or more (a line has no plane of its own: give a third point)", path.n_points()));
        }
        let gram = Gram::new(&path.rows().iter().map(Row::point).collect::<Vec<_>>())?;
        let step = |from: usize, to: usize| {
            let mut c = vec![0.0; path.n_points()];
            c[from] -= 1.0;
            c[to] += 1.0;
            c
        };
        let u = step(0, last);
        let height = |k: usize| {
            let mut offset = step(0, k);
            let along = gram.inner(&offset, &u) / gram.inner(&u, &u);
            offset.iter_mut().zip(&u).for_each(|(o, u)| *o -= along * u);
            gram.norm(&offset)
        };
        let bend = (2..last).fold(1, |best, k| if height(k) > height(best) { k } else { best });
        Plane::new(ControlPoints::new([0, bend, last].map(|k| path.rows()[k].clone()).to_vec())?)
    }

    /// w_0, w_1, w_2: what [`Plane::coefficients`] are for.
    pub fn points(&self) -> &ControlPoints<T> {
        &self.points
    }

    /// ‖u‖ = ‖w_2 − w_0‖.
    pub fn dx(&self) -> f64 {
        self.dx
    }

    /// ‖v‖: how far w_1 is from the line through w_0 and w_2.
    pub fn dy(&self) -> f64 {
        self.dy
    }

    /// Where the three points stand: (0, 0), (x, dy), (dx, 0).
    pub fn corners(&self) -> [[f64; 2]; 3] {
        [[0.0, 0.0], [self.shift * self.dx, self.dy], [self.dx, 0.0]]
    }

    /// The point w_0 + α u + β v as coefficients of w_0, w_1, w_2: c_1 = β, c_2 = α − β s and c_0 = 1 − c_1 − c_2, where s dx is w_1's
    /// coordinate along u. (0, 0), (1, 0) and (s, 1) give the three points bit for bit.
    ///
    /// # Errors
    /// If α or β is not finite.
    pub fn coefficients(&self, alpha: f64, beta: f64) -> Result<Coefficients> {
        let c2 = alpha - beta * self.shift;
        Coefficients::new(vec![1.0 - beta - c2, beta, c2])
    }

    /// Where a point stands and how far above the plane.
    ///
    /// # Errors
    /// If its layout is another.
    pub fn project_point(&self, point: &Flat<T>) -> Result<Projection> {
        let projections = self.project(vec![Cow::Borrowed(point)], &[vec![1.0]])?;
        Ok(projections[0])
    }

    /// Where a path runs, sample by sample, to be drawn into the plane.
    ///
    /// # Errors
    /// If the layouts or the numbers of control points differ, or `ts` leaves [0, 1].
    ///
    /// # Complexity
    /// One pass over the control points; none over blended points.
    pub fn project_path(&self, path: &ControlPoints<T>, curve: &dyn Curve, ts: &[f64]) -> Result<Vec<Projection>> {
        check_points(path.n_points(), curve)?;
        let coefficients = ts.iter().map(|&t| Ok(curve.coefficients(t)?.as_slice().to_vec())).collect::<Result<Vec<_>>>()?;
        self.project(path.rows().iter().map(Row::point).collect(), &coefficients)
    }

    /// Projects Σ_k c_k θ_k for each c of `at`, all in terms of the inner products of w_0, w_1, w_2 and the θ_k.
    fn project(&self, points: Vec<Cow<'_, Flat<T>>>, at: &[Vec<f64>]) -> Result<Vec<Projection>> {
        let anchors = (0..3).map(|k| self.points.point(k));
        let n_points = points.len();
        let gram = Gram::new(&anchors.chain(points).collect::<Vec<_>>())?;
        let widen = |anchor: [f64; 3], c: Option<&Vec<f64>>| {
            let mut wide = anchor.to_vec();
            wide.extend((0..n_points).map(|k| c.map_or(0.0, |c| c[k])));
            wide
        };
        let u = widen([-1.0, 0.0, 1.0], None);
        let v = widen([self.shift - 1.0, 1.0, -self.shift], None);
        let project = |c: &Vec<f64>| {
            let from_origin = widen([-1.0, 0.0, 0.0], Some(c));
            let alpha = gram.inner(&from_origin, &u) / (self.dx * self.dx);
            let beta = gram.inner(&from_origin, &v) / (self.dy * self.dy);
            let above: Vec<f64> = from_origin.iter().zip(u.iter().zip(&v)).map(|(p, (u, v))| p - alpha * u - beta * v).collect();
            Projection { x: alpha * self.dx, y: beta * self.dy, distance: gram.norm(&above) }
        };
        Ok(at.iter().map(project).collect())
    }
}

/// How far a grid reaches past the triangle's box, in parts of dx (left, right) and dy (bottom, top).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Margins {
    /// Beyond w_0.
    pub left: f64,
    /// Beyond w_2.
    pub right: f64,
    /// Below the line through w_0 and w_2.
    pub bottom: f64,
    /// Above w_1.
    pub top: f64,
}

impl Margins {
    /// A fifth all round, as `plane.py` of dnn-mode-connectivity has it.
    pub const GARIPOV2018: Margins = Margins { left: 0.2, right: 0.2, bottom: 0.2, top: 0.2 };
}

/// A grid of n_x × n_y cells. Cells are numbered row by row from the lower left: cell (i_x, i_y) is number i_y·n_x + i_x.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Cells along u.
    pub n_x: usize,
    /// Cells along v.
    pub n_y: usize,
    /// How far it reaches.
    pub margins: Margins,
}

/// A cell of a grid.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Column, from 0 at the left.
    pub x_idx: usize,
    /// Row, from 0 at the bottom.
    pub y_idx: usize,
    /// Along u, in parts of dx.
    pub alpha: f64,
    /// Along v, in parts of dy.
    pub beta: f64,
}

impl Grid {
    /// This many cells, reaching this far.
    ///
    /// # Errors
    /// If there are fewer than two cells each way or too many to count, or a margin leaves no width or height.
    ///
    /// ```
    /// use landscape_core::plane::{Grid, Margins};
    /// let grid = Grid::new(41, 31, Margins::GARIPOV2018)?;
    /// let cell = grid.cell(41).unwrap();
    /// assert_eq!((grid.n_cells(), cell.x_idx, cell.y_idx, cell.alpha), (1271, 0, 1, -0.2));
    /// # Ok::<(), landscape_core::Error>(())
    /// ```
    pub fn new(n_x: usize, n_y: usize, margins: Margins) -> Result<Self> {
        if n_x < 2 || n_y < 2 || n_x.checked_mul(n_y).is_none() {
            return Err(Error::config("grid", "2 or more cells each way", format!("{n_x}x{n_y}")));
        }
        let Margins { left, right, bottom, top } = margins;
        let (width, height) = (1.0 + left + right, 1.0 + bottom + top);
        if ![left, right, bottom, top].iter().all(|m| m.is_finite()) || width <= 0.0 || height <= 0.0 {
            return Err(Error::config("margins", "finite numbers that leave some width and height", format!("{margins:?}")));
        }
        Ok(Grid { n_x, n_y, margins })
    }

    /// How many cells there are.
    pub fn n_cells(&self) -> usize {
        self.n_x * self.n_y
    }

    /// α of each column.
    pub fn alphas(&self) -> Vec<f64> {
        axis(self.n_x, -self.margins.left, 1.0 + self.margins.right)
    }

    /// β of each row.
    pub fn betas(&self) -> Vec<f64> {
        axis(self.n_y, -self.margins.bottom, 1.0 + self.margins.top)
    }

    /// Cell number `idx`.
    pub fn cell(&self, idx: usize) -> Option<Cell> {
        let (x_idx, y_idx) = (idx % self.n_x, idx / self.n_x);
        let at = |n: usize, i: usize, low: f64, high: f64| axis_value(n, i, low, high);
        (y_idx < self.n_y).then(|| Cell {
            x_idx,
            y_idx,
            alpha: at(self.n_x, x_idx, -self.margins.left, 1.0 + self.margins.right),
            beta: at(self.n_y, y_idx, -self.margins.bottom, 1.0 + self.margins.top),
        })
    }
}

/// n values from `low` to `high`, both included.
fn axis(n: usize, low: f64, high: f64) -> Vec<f64> {
    (0..n).map(|i| axis_value(n, i, low, high)).collect()
}

/// Value i of n from `low` to `high`; both ends are exact.
fn axis_value(n: usize, i: usize, low: f64, high: f64) -> f64 {
    if i + 1 == n { high } else { low + (high - low) * i as f64 / (n - 1) as f64 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::curve::{Bezier, PolyChain};
    use crate::layout::ParamLayout;
    use crate::length::uniform_ts;
    use crate::seed::Seed;
    use landscape_kernels::Device;
    use std::sync::Arc;

    fn points(rows: &[Vec<f64>]) -> ControlPoints<f64> {
        let layout = Arc::new(ParamLayout::new([("w".to_owned(), vec![rows[0].len()])]).unwrap());
        ControlPoints::new(rows.iter().map(|r| Row::Free(Flat::from_vec(&layout, &Device::Cpu, r.clone()).unwrap())).collect()).unwrap()
    }

    fn random(n_points: usize) -> ControlPoints<f64> {
        let mut stream = Seed::new(9).stream();
        points(&(0..n_points).map(|_| (0..700).map(|_| 3.0 + stream.normal()).collect()).collect::<Vec<_>>())
    }

    #[test]
    fn the_basis_is_orthogonal_and_the_points_project_to_the_corners() {
        let points = random(3);
        let plane = Plane::new(points.clone()).unwrap();
        let [origin, apex, end] = plane.corners();
        assert_eq!((origin, end), ([0.0, 0.0], [plane.dx(), 0.0]));
        assert_eq!(apex[1], plane.dy());
        for (k, corner) in plane.corners().into_iter().enumerate() {
            let p = plane.project_point(&points.point(k)).unwrap();
            assert!((p.x - corner[0]).abs() < 1e-11 && (p.y - corner[1]).abs() < 1e-11 && p.distance < 1e-5, "{k}: {p:?}");
        }
        // The naive twin: axes as vectors.
        let row = |k: usize| points.point(k).to_vec();
        let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let u = minus(&row(2), &row(0));
        let w1 = minus(&row(1), &row(0));
        let part = dot(&w1, &u) / dot(&u, &u);
        let v = minus(&w1, &u.iter().map(|x| part * x).collect::<Vec<_>>());
        assert!(dot(&u, &v).abs() < 1e-10);
        assert!((dot(&u, &u).sqrt() - plane.dx()).abs() < 1e-11 && (dot(&v, &v).sqrt() - plane.dy()).abs() < 1e-11);
        for (alpha, beta) in [(-0.2, 1.2), (0.31, 0.77), (1.2, -0.2)] {
            let cell = points.blend(&plane.coefficients(alpha, beta).unwrap()).unwrap();
            for (i, value) in cell.to_vec().into_iter().enumerate() {
                assert!((value - (row(0)[i] + alpha * u[i] + beta * v[i])).abs() < 1e-12);
            }
            let p = plane.project_point(&cell).unwrap();
            assert!((p.x - alpha * plane.dx()).abs() < 1e-11 && (p.y - beta * plane.dy()).abs() < 1e-11, "{p:?}");
        }
    }

    #[test]
    fn the_cells_at_the_three_points_are_those_points() {
        let plane = Plane::new(random(3)).unwrap();
        let x = plane.corners()[1][0] / plane.dx();
        for (k, (alpha, beta)) in [(0.0, 0.0), (plane.shift, 1.0), (1.0, 0.0)].into_iter().enumerate() {
            assert_eq!(plane.coefficients(alpha, beta).unwrap(), Coefficients::one_hot(k, 3).unwrap());
        }
        assert!((x - plane.shift).abs() < 1e-15);
        assert!(plane.coefficients(f64::NAN, 0.0).is_err());
    }

    #[test]
    fn grids_of_unequal_sides_are_not_scrambled() {
        // In the plane of the first two axes of R³ the function x + 10 y is known at every cell.
        let plane = Plane::new(points(&[vec![0.0, 0.0, 7.0], vec![1.0, 2.0, 7.0], vec![4.0, 0.0, 7.0]])).unwrap();
        let grid = Grid::new(5, 3, Margins { left: 0.25, right: 0.5, bottom: 0.0, top: 1.0 }).unwrap();
        let mut values = Vec::new();
        for idx in 0..grid.n_cells() {
            let cell = grid.cell(idx).unwrap();
            assert_eq!(idx, cell.y_idx * grid.n_x + cell.x_idx);
            assert_eq!((cell.alpha, cell.beta), (grid.alphas()[cell.x_idx], grid.betas()[cell.y_idx]));
            let w = plane.points().blend(&plane.coefficients(cell.alpha, cell.beta).unwrap()).unwrap().to_vec();
            assert!((w[2] - 7.0).abs() < 1e-14);
            values.push(w[0] + 10.0 * w[1]);
        }
        for (j, y) in [0.0, 2.0, 4.0].into_iter().enumerate() {
            for (i, x) in [-1.0, 0.75, 2.5, 4.25, 6.0].into_iter().enumerate() {
                assert!((values[j * 5 + i] - (x + 10.0 * y)).abs() < 1e-13, "{i} {j}");
            }
        }
        assert!(grid.cell(15).is_none());
        for bad in [(0, 5), (5, 0), (1, 5), (usize::MAX, 2)] {
            assert!(Grid::new(bad.0, bad.1, Margins::GARIPOV2018).is_err());
        }
        assert!(Grid::new(5, 5, Margins { left: -1.0, ..Margins { right: 0.0, ..Margins::GARIPOV2018 } }).is_err());
        assert!(Grid::new(5, 5, Margins { left: f64::NAN, ..Margins::GARIPOV2018 }).is_err());
    }

    #[test]
    fn points_on_one_line_are_refused() {
        let line = |k: f64| (0..50).map(|i| f64::from(i) * k + 1.0).collect::<Vec<f64>>();
        assert!(Plane::new(points(&[line(0.0), line(0.3), line(1.0)])).unwrap_err().to_string().contains("not on one line"));
        assert!(Plane::new(points(&[line(0.0), vec![5.0; 50], line(0.0)])).is_err());
        assert!(Plane::new(points(&[line(0.0), line(1.0), line(1.0)])).is_err());
        assert!(Plane::new(points(&[line(0.0), vec![f64::NAN; 50], line(1.0)])).is_err());
        assert!(Plane::new(random(2)).is_err());
        // A bend interpolated in f32 is off the line by rounding only.
        let wide = random(3);
        let middle: Vec<f32> = wide.point(0).to_vec().iter().zip(wide.point(2).to_vec()).map(|(a, b)| (0.5 * (a + b)) as f32).collect();
        let ends = [wide.point(0).cast::<f32>(), wide.point(2).cast::<f32>()];
        let bend = Flat::from_vec(wide.layout(), &Device::Cpu, middle).unwrap();
        let [start, end] = ends;
        assert!(Plane::new(ControlPoints::new(vec![Row::Free(start), Row::Free(bend), Row::Free(end)]).unwrap()).is_err());
    }

    #[test]
    fn a_curve_lies_in_the_plane_of_its_three_points_and_leaves_that_of_others() {
        let path = random(3);
        let plane = Plane::of_path(&path).unwrap();
        let ts = uniform_ts(11).unwrap();
        let curve = Bezier::new(3).unwrap();
        let drawn = plane.project_path(&path, &curve, &ts).unwrap();
        for (t, p) in ts.iter().zip(&drawn) {
            let direct = plane.project_point(&path.blend(&curve.coefficients(*t).unwrap()).unwrap()).unwrap();
            assert!((p.x - direct.x).abs() < 1e-11 && (p.y - direct.y).abs() < 1e-11, "{p:?} {direct:?}");
            assert!(p.distance < 1e-5 && direct.distance < 1e-5, "{p:?} {direct:?}");
        }
        let long = random(5);
        let plane = Plane::of_path(&long).unwrap();
        let chain = PolyChain::new(5).unwrap();
        let distances: Vec<f64> = plane.project_path(&long, &chain, &uniform_ts(5).unwrap()).unwrap().iter().map(|p| p.distance).collect();
        // The two control points that do not carry the plane are above it, as far as Pythagoras says.
        assert_eq!(distances.iter().filter(|&&d| d > 1.0).count(), 2, "{distances:?}");
        for (k, distance) in distances.into_iter().enumerate() {
            let p = plane.project_point(&long.point(k)).unwrap();
            let hypotenuse = long.point(k).distance(&long.point(0)).unwrap();
            assert!((hypotenuse.powi(2) - p.x.powi(2) - p.y.powi(2) - distance.powi(2)).abs() < 1e-9 * hypotenuse.powi(2).max(1.0));
        }
    }

    #[test]
    fn the_plane_of_a_path_takes_the_bend_farthest_from_the_line() {
        let path = points(&[vec![0.0, 0.0], vec![1.0, 0.1], vec![2.0, -3.0], vec![3.0, 1.0], vec![4.0, 0.0]]);
        let plane = Plane::of_path(&path).unwrap();
        assert_eq!(plane.points().point(1).to_vec(), [2.0, -3.0]);
        assert!((plane.dx() - 4.0).abs() < 1e-15 && (plane.dy() - 3.0).abs() < 1e-15);
        assert!(Plane::of_path(&random(2)).unwrap_err().to_string().contains("third point"));
    }
}
