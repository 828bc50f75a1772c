//! Bends whose optimum is known in closed form: the exact expectation over uniform t (Gauss-Legendre), brought back to the control
//! points by `spread` in f64, must vanish where algebra says.
//!
//! On a quadratic with minimum c the expected loss of the path Σ_k c_k(t) θ_k is stationary when Σ_k M_jk (θ_k − c) = 0 for every free
//! j, with M_jk = ∫ c_j c_k dt, whatever the Hessian.
#![allow(clippy::unwrap_used)]

use landscape_core::toy::{Quadratic, Toy};
use landscape_core::{Coefficients, ControlPoints, CurveKind, Flat, Objective, Pass, Row, Seed};
use landscape_kernels::Accumulate;

const N_DIMS: usize = 3;

/// Nodes and weights of the n-point rule on [0, 1]: Newton's method on the Legendre polynomial.
fn gauss_legendre(n: usize) -> Vec<(f64, f64)> {
    let node = |i: usize| {
        let mut x = (std::f64::consts::PI * (i as f64 + 0.75) / (n as f64 + 0.5)).cos();
        let mut slope = 0.0;
        for _ in 0..100 {
            let (mut before, mut p) = (1.0, x);
            for k in 2..=n {
                (before, p) = (p, ((2 * k - 1) as f64 * x * p - (k - 1) as f64 * before) / k as f64);
            }
            slope = n as f64 * (x * p - before) / (x * x - 1.0);
            x -= p / slope;
        }
        (0.5 * (1.0 + x), 1.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..n).map(node).collect()
}

/// A rule that is exact for products of two coefficients: they are polynomials of degree K−1, on the pieces of a chain of degree 1.
fn rule(kind: CurveKind, n_points: usize) -> Vec<(f64, f64)> {
    let n_pieces = if kind == CurveKind::PolyChain { n_points - 1 } else { 1 };
    let nodes = gauss_legendre(n_points.max(2));
    let piece = |i: usize| nodes.iter().map(move |(t, w)| ((i as f64 + t) / n_pieces as f64, w / n_pieces as f64)).collect::<Vec<_>>();
    (0..n_pieces).flat_map(piece).collect()
}

/// What decays, and by how much.
#[derive(Clone, Copy)]
enum Decay {
    None,
    Point(f64),
    ControlPoints(f64),
}

/// ∂/∂θ_k of E_t[f(φ(t))] plus the decay's term, for every free row.
fn expected_gradient(toy: &mut Toy<Quadratic, f64>, points: &ControlPoints<f64>, kind: CurveKind, decay: Decay) -> Vec<Option<Flat<f64>>> {
    let curve = kind.build(points.n_points()).unwrap();
    let zero = toy.point(&[0.0; N_DIMS]).unwrap();
    let mut gradients: Vec<Option<Flat<f64>>> = (0..points.n_points()).map(|k| points.is_free(k).then(|| zero.clone())).collect();
    for (t, weight) in rule(kind, points.n_points()) {
        let c = curve.coefficients(t).unwrap();
        toy.move_to(points, &c).unwrap();
        let mut g = zero.clone();
        toy.gradient(&(), Pass::EVALUATE, &mut g, Accumulate::Overwrite).unwrap();
        let point_decay = if let Decay::Point(wd) = decay { wd } else { 0.0 };
        for (g, w) in g.view_mut().host().iter_mut().zip(toy.weights().to_vec()) {
            *g = weight * (*g + point_decay * w);
        }
        points.spread(&c, &g, &mut gradients, Accumulate::Add).unwrap();
    }
    if let Decay::ControlPoints(wd) = decay {
        for (k, gradient) in gradients.iter_mut().enumerate() {
            if let Some(gradient) = gradient {
                gradient.view_mut().host().iter_mut().zip(points.point(k).to_vec()).for_each(|(g, w)| *g += wd * w);
            }
        }
    }
    gradients
}

fn free_coordinates(points: &ControlPoints<f64>) -> Vec<f64> {
    (0..points.n_points()).filter(|&k| points.is_free(k)).flat_map(|k| points.point(k).to_vec()).collect()
}

fn set_free(points: &mut ControlPoints<f64>, values: &[f64]) {
    let free: Vec<usize> = (0..points.n_points()).filter(|&k| points.is_free(k)).collect();
    for (k, row) in free.into_iter().zip(values.chunks_exact(N_DIMS)) {
        points.free_mut(k).unwrap().view_mut().host().copy_from_slice(row);
    }
}

/// Moves the free rows to where the expected gradient vanishes, by Newton's method: it is affine in them, so its matrix is found
/// column by column from unit steps, and the second step only removes the rounding of the first.
fn minimise(toy: &mut Toy<Quadratic, f64>, points: &mut ControlPoints<f64>, kind: CurveKind, decay: Decay) {
    let mut gradient_at = |points: &mut ControlPoints<f64>, x: &[f64]| {
        set_free(points, x);
        expected_gradient(toy, points, kind, decay).into_iter().flatten().flat_map(|g| g.to_vec()).collect::<Vec<f64>>()
    };
    let n = free_coordinates(points).len();
    let at_origin = gradient_at(points, &vec![0.0; n]);
    let columns: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let unit: Vec<f64> = (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect();
            gradient_at(points, &unit).iter().zip(&at_origin).map(|(a, b)| a - b).collect()
        })
        .collect();
    let mut x = vec![0.0; n];
    for _ in 0..2 {
        let gradient = gradient_at(points, &x);
        let matrix = (0..n).map(|i| columns.iter().map(|column| column[i]).collect()).collect();
        let step = solve(matrix, gradient.iter().map(|g| vec![-g]).collect());
        x.iter_mut().zip(step).for_each(|(x, step)| *x += step[0]);
    }
    set_free(points, &x);
}

/// M_jk = ∫ c_j c_k dt in closed form: beta integrals for Bézier curves, the mass matrix of hat functions for chains.
fn mass(kind: CurveKind, n_points: usize) -> Vec<Vec<f64>> {
    let binomial = |n: usize, k: usize| (1..=k).fold(1.0, |b, i| b * (n - k + i) as f64 / i as f64);
    let degree = n_points - 1;
    let entry = |j: usize, k: usize| match kind {
        CurveKind::PolyChain => {
            let h = 1.0 / degree as f64;
            match j.abs_diff(k) {
                0 if j == 0 || j == degree => h / 3.0,
                0 => 2.0 * h / 3.0,
                1 => h / 6.0,
                _ => 0.0,
            }
        }
        _ => binomial(degree, j) * binomial(degree, k) / binomial(2 * degree, j + k) / (2 * degree + 1) as f64,
    };
    (0..n_points).map(|j| (0..n_points).map(|k| entry(j, k)).collect()).collect()
}

/// Solves a small system by elimination with pivots; `right` has a column per coordinate.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let n = matrix.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| matrix[a][i].abs().total_cmp(&matrix[b][i].abs())).unwrap();
        matrix.swap(i, pivot);
        right.swap(i, pivot);
        for row in 0..n {
            if row != i {
                let factor = matrix[row][i] / matrix[i][i];
                let (from, base) = (matrix[i].clone(), right[i].clone());
                matrix[row].iter_mut().zip(from).for_each(|(a, b)| *a -= factor * b);
                right[row].iter_mut().zip(base).for_each(|(a, b)| *a -= factor * b);
            }
        }
    }
    (0..n).map(|i| right[i].iter().map(|v| v / matrix[i][i]).collect()).collect()
}

/// Inner rows that solve the normal equations, given the ends and the minimum c.
fn normal_equations(kind: CurveKind, n_points: usize, start: &[f64], end: &[f64], minimum: &[f64]) -> Vec<Vec<f64>> {
    let m = mass(kind, n_points);
    let inner = 1..n_points - 1;
    let matrix = inner.clone().map(|j| inner.clone().map(|k| m[j][k]).collect()).collect();
    let ends = |j: usize, i: usize| -(m[j][0] * (start[i] - minimum[i]) + m[j][n_points - 1] * (end[i] - minimum[i]));
    let right = inner.map(|j| (0..N_DIMS).map(|i| ends(j, i)).collect()).collect();
    solve(matrix, right).into_iter().map(|row| row.iter().zip(minimum).map(|(x, c)| x + c).collect()).collect()
}

const START: [f64; N_DIMS] = [2.0, -1.0, 0.5];
const END: [f64; N_DIMS] = [-0.5, 3.0, 1.5];
const MINIMUM: [f64; N_DIMS] = [0.25, 0.5, -2.0];

fn quadratics(minimum: [f64; N_DIMS]) -> [Quadratic; 2] {
    let steep = vec![2.0, 0.5, 0.0, 0.5, 1.0, -0.3, 0.0, -0.3, 4.0];
    [Quadratic::isotropic(minimum.to_vec()), Quadratic::new(minimum.to_vec(), steep).unwrap()]
}

/// Frozen ends (or free ones) and free bends at random places.
fn points(toy: &Toy<Quadratic, f64>, n_points: usize, start: &[f64], end: &[f64], free_ends: bool) -> ControlPoints<f64> {
    let mut stream = Seed::new(4).stream();
    let end_row = |w: &[f64]| if free_ends { Row::Free(toy.point(w).unwrap()) } else { Row::Frozen(toy.point(w).unwrap().into()) };
    let mut rows = vec![end_row(start)];
    for _ in 1..n_points - 1 {
        rows.push(Row::Free(toy.point(&[stream.normal(), stream.normal(), stream.normal()]).unwrap()));
    }
    rows.push(end_row(end));
    ControlPoints::new(rows).unwrap()
}

fn assert_rows(found: &ControlPoints<f64>, expected: &[Vec<f64>], label: &str) {
    for (k, row) in expected.iter().enumerate() {
        for (x, y) in found.point(k + 1).to_vec().iter().zip(row) {
            assert!((x - y).abs() < 1e-10, "{label}, bend {}: {x} instead of {y}", k + 1);
        }
    }
}

const KINDS: [CurveKind; 2] = [CurveKind::Bezier, CurveKind::PolyChain];

#[test]
fn the_quadrature_is_exact_for_the_products_it_is_used_on() {
    for kind in KINDS {
        for n_points in [2, 3, 4, 6] {
            let curve = kind.build(n_points).unwrap();
            for (j, row) in mass(kind, n_points).into_iter().enumerate() {
                for (k, expected) in row.into_iter().enumerate() {
                    let product = |t: f64| {
                        let c = curve.coefficients(t).unwrap();
                        c.as_slice()[j] * c.as_slice()[k]
                    };
                    let found: f64 = rule(kind, n_points).into_iter().map(|(t, w)| w * product(t)).sum();
                    assert!((found - expected).abs() < 1e-14, "{kind:?} {n_points}: M[{j}][{k}] is {found}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn bends_reach_the_solution_of_the_normal_equations_for_any_hessian() {
    for kind in KINDS {
        for n_points in [3, 4, 6] {
            for quadratic in quadratics(MINIMUM) {
                let mut toy = Toy::new(quadratic);
                let mut path = points(&toy, n_points, &START, &END, false);
                minimise(&mut toy, &mut path, kind, Decay::None);
                let expected = normal_equations(kind, n_points, &START, &END, &MINIMUM);
                assert_rows(&path, &expected, &format!("{kind:?} of {n_points}"));
                assert_eq!((path.point(0).to_vec(), path.point(n_points - 1).to_vec()), (START.to_vec(), END.to_vec()));
            }
        }
    }
}

#[test]
fn the_normal_equations_give_the_published_closed_forms() {
    let combine =
        |a: f64, b: f64| (0..N_DIMS).map(|i| MINIMUM[i] + a * (START[i] - MINIMUM[i]) + b * (END[i] - MINIMUM[i])).collect::<Vec<_>>();
    let cases = [
        (CurveKind::Bezier, 3, vec![combine(-0.75, -0.75)]),
        (CurveKind::PolyChain, 3, vec![combine(-0.25, -0.25)]),
        (CurveKind::Bezier, 4, vec![combine(-4.0 / 3.0, 2.0 / 3.0), combine(2.0 / 3.0, -4.0 / 3.0)]),
    ];
    for (kind, n_points, expected) in cases {
        for (found, expected) in normal_equations(kind, n_points, &START, &END, &MINIMUM).iter().zip(&expected) {
            assert!(found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-13), "{kind:?} {n_points}: {found:?} {expected:?}");
        }
    }
}

#[test]
fn with_two_points_nothing_moves_and_free_ends_all_go_to_the_minimum() {
    for kind in KINDS {
        for n_points in [2, 3, 4, 6] {
            let mut toy = Toy::new(quadratics(MINIMUM)[1].clone());
            let mut path = points(&toy, n_points, &START, &END, true);
            minimise(&mut toy, &mut path, kind, Decay::None);
            for k in 0..n_points {
                assert!(path.point(k).to_vec().iter().zip(MINIMUM).all(|(x, c)| (x - c).abs() < 1e-9), "{kind:?} {n_points} row {k}");
            }
        }
        let mut toy = Toy::new(quadratics(MINIMUM)[1].clone());
        let path = points(&toy, 2, &START, &END, false);
        assert!(expected_gradient(&mut toy, &path, kind, Decay::None).iter().all(Option::is_none));
    }
}

#[test]
fn the_expected_loss_between_equal_ends_is_a_twelfth() {
    let mut toy = Toy::new(Quadratic::isotropic(vec![0.0; N_DIMS]));
    let mut path = points(&toy, 3, &START, &START, false);
    minimise(&mut toy, &mut path, CurveKind::Bezier, Decay::None);
    let curve = CurveKind::Bezier.build(3).unwrap();
    let mut expected_loss = 0.0;
    for (t, weight) in rule(CurveKind::Bezier, 3) {
        toy.move_to(&path, &curve.coefficients(t).unwrap()).unwrap();
        let scale = 1.0 - 5.0 * t * (1.0 - t);
        assert!(toy.weights().to_vec().iter().zip(START).all(|(x, w)| (x - scale * w).abs() < 1e-12));
        expected_loss += weight * toy.measure(&(), Pass::EVALUATE).unwrap().nll();
    }
    let squared_norm: f64 = START.iter().map(|w| w * w).sum();
    assert!((expected_loss - squared_norm / 12.0).abs() < 1e-12, "{expected_loss}");
}

/// L2 of the point and decay of the control points are two objectives: without data the first still bends the path (the formula with
/// c = 0), the second pulls every bend to the origin.
#[test]
fn the_two_regularisers_have_different_optima() {
    let nothing = || Toy::new(Quadratic::new(vec![0.0; N_DIMS], vec![1e-12, 0.0, 0.0, 0.0, 1e-12, 0.0, 0.0, 0.0, 1e-12]).unwrap());
    for kind in KINDS {
        for n_points in [3, 4, 6] {
            let mut toy = nothing();
            let mut path = points(&toy, n_points, &START, &END, false);
            minimise(&mut toy, &mut path, kind, Decay::Point(0.3));
            let expected = normal_equations(kind, n_points, &START, &END, &[0.0; N_DIMS]);
            assert_rows(&path, &expected, &format!("L2 of the point, {kind:?} of {n_points}"));
            let mut path = points(&toy, n_points, &START, &END, false);
            minimise(&mut toy, &mut path, kind, Decay::ControlPoints(0.3));
            assert_rows(&path, &vec![vec![0.0; N_DIMS]; n_points - 2], &format!("decay of the control points, {kind:?} of {n_points}"));
            assert!(expected.iter().flatten().any(|x| x.abs() > 0.1));
        }
    }
}

#[test]
fn spread_is_the_gradient_of_the_path_by_finite_differences() {
    for kind in KINDS {
        let mut toy = Toy::new(quadratics(MINIMUM)[1].clone());
        let mut path = points(&toy, 4, &START, &END, false);
        let curve = kind.build(4).unwrap();
        let c: Coefficients = curve.coefficients(0.37).unwrap();
        toy.move_to(&path, &c).unwrap();
        let mut g = toy.point(&[0.0; N_DIMS]).unwrap();
        toy.gradient(&(), Pass::EVALUATE, &mut g, Accumulate::Overwrite).unwrap();
        let mut gradients: Vec<_> = (0..4).map(|k| path.is_free(k).then(|| g.clone())).collect();
        path.spread(&c, &g, &mut gradients, Accumulate::Overwrite).unwrap();
        for (k, gradient) in gradients.iter().enumerate().filter_map(|(k, g)| Some((k, g.as_ref()?))) {
            for i in 0..N_DIMS {
                let mut loss_at = |shift: f64| {
                    path.free_mut(k).unwrap().view_mut().host()[i] += shift;
                    toy.move_to(&path, &c).unwrap();
                    path.free_mut(k).unwrap().view_mut().host()[i] -= shift;
                    toy.measure(&(), Pass::EVALUATE).unwrap().nll()
                };
                let difference = (loss_at(1e-4) - loss_at(-1e-4)) / 2e-4;
                let found = gradient.to_vec()[i];
                assert!((difference - found).abs() < 1e-8, "{kind:?} row {k}: {difference} {found}");
            }
        }
    }
}
