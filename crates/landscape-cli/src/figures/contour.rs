//! Contours of a function known on a grid: marching squares, linked to closed rings.
//!
//! The grid gets a border of −∞ without width, so that every set {f ≥ level} is closed by the grid's own border. Contours of one
//! function do not cross, so rings are nested or apart, and painting them from the largest to the smallest, each in the colour of the
//! band just within, fills every band without cutting holes.
//!
//! # Source
//! Lorensen and Cline, "Marching cubes" (1987), in two dimensions; saddles are decided by the mean of their four corners.

/// A closed contour of one level.
#[derive(Debug, Clone, PartialEq)]
pub struct Ring {
    /// Its corners, in order.
    pub points: Vec<[f64; 2]>,
    /// Which corners have a step to the next that follows the border of the grid and no contour.
    follows_border: Vec<bool>,
    /// Which of the levels it belongs to.
    pub level_idx: usize,
    /// Enclosed area, positive where the function is above the level just within.
    pub signed_area: f64,
}

impl Ring {
    /// The ring as a line to draw: closed, with NaN where it follows the border.
    pub fn outline(&self) -> Vec<[f64; 2]> {
        let n = self.points.len();
        let mut line = Vec::with_capacity(n + 1);
        for i in 0..n {
            line.push(self.points[i]);
            if self.follows_border[i] {
                line.push([f64::NAN; 2]);
            }
        }
        line.push(self.points[0]);
        line
    }

    /// Which band lies just within: 0 below the first level, k between level k − 1 and level k.
    pub fn band_within(&self) -> usize {
        self.level_idx + usize::from(self.signed_area > 0.0)
    }
}

/// The rings of all levels, largest first.
///
/// # Shapes
/// `values[i_y][i_x]`, finite, at (`xs[i_x]`, `ys[i_y]`); `levels` increase.
pub fn rings(xs: &[f64], ys: &[f64], values: &[Vec<f64>], levels: &[f64]) -> Vec<Ring> {
    let field = Padded::new(xs, ys, values);
    let mut all: Vec<Ring> = levels.iter().enumerate().flat_map(|(idx, &level)| field.rings(level, idx)).collect();
    // Of equal areas, as where a whole grid lies above several levels, the highest is painted last.
    all.sort_by(|a, b| b.signed_area.abs().total_cmp(&a.signed_area.abs()).then(a.level_idx.cmp(&b.level_idx)));
    all
}

/// The grid with its border.
struct Padded {
    xs: Vec<f64>,
    ys: Vec<f64>,
    /// `values[i_y * n_x + i_x]`.
    values: Vec<f64>,
}

impl Padded {
    fn new(xs: &[f64], ys: &[f64], values: &[Vec<f64>]) -> Self {
        let pad = |axis: &[f64]| {
            let ends = (axis.first().copied(), axis.last().copied());
            ends.0.into_iter().chain(axis.iter().copied()).chain(ends.1).collect::<Vec<f64>>()
        };
        let (xs, ys) = (pad(xs), pad(ys));
        let mut padded = vec![f64::NEG_INFINITY; xs.len() * ys.len()];
        for (y, row) in values.iter().enumerate() {
            let start = (y + 1) * xs.len() + 1;
            padded[start..start + row.len()].copy_from_slice(row);
        }
        Padded { xs, ys, values: padded }
    }

    fn value(&self, x: usize, y: usize) -> f64 {
        self.values[y * self.xs.len() + x]
    }

    /// Where the level crosses the edge between two nodes.
    fn crossing(&self, a: (usize, usize), b: (usize, usize), level: f64) -> [f64; 2] {
        let (va, vb) = (self.value(a.0, a.1), self.value(b.0, b.1));
        let at = |n: (usize, usize)| [self.xs[n.0], self.ys[n.1]];
        let (pa, pb) = (at(a), at(b));
        if va == f64::NEG_INFINITY || vb == f64::NEG_INFINITY {
            return if va == f64::NEG_INFINITY { pb } else { pa };
        }
        let share = ((level - va) / (vb - va)).clamp(0.0, 1.0);
        [pa[0] + share * (pb[0] - pa[0]), pa[1] + share * (pb[1] - pa[1])]
    }

    fn on_one_side(&self, a: [f64; 2], b: [f64; 2]) -> bool {
        let side = |axis: &[f64], i: usize| a[i] == b[i] && (Some(&a[i]) == axis.first() || Some(&a[i]) == axis.last());
        side(&self.xs, 0) || side(&self.ys, 1)
    }

    fn rings(&self, level: f64, level_idx: usize) -> Vec<Ring> {
        let (n_x, n_y) = (self.xs.len(), self.ys.len());
        // Edge 2n goes right from node n, edge 2n + 1 up. Each is left by at most one cell, so one successor each is enough.
        const NONE: usize = usize::MAX;
        let mut next = vec![NONE; 2 * n_x * n_y];
        for y in 0..n_y - 1 {
            for x in 0..n_x - 1 {
                let corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)].map(|(x, y)| self.value(x, y));
                let inside = corners.map(|v| v >= level);
                if inside[0] == inside[1] && inside[1] == inside[2] && inside[2] == inside[3] {
                    continue;
                }
                let node = y * n_x + x;
                let edges = [2 * node, 2 * (node + 1) + 1, 2 * (node + n_x), 2 * node + 1];
                let leaves = |e: usize| inside[e] && !inside[(e + 1) % 4];
                let enters = |e: usize| !inside[e] && inside[(e + 1) % 4];
                let is_saddle = inside[0] == inside[2] && inside[1] == inside[3];
                let middle_inside = corners.iter().sum::<f64>() / 4.0 >= level;
                for e in (0..4).filter(|&e| leaves(e)) {
                    let entry = match (is_saddle, middle_inside) {
                        // Round the outer corner ahead.
                        (true, true) => (e + 1) % 4,
                        // Round the inner corner behind.
                        (true, false) => (e + 3) % 4,
                        (false, _) => (0..4).find(|&other| enters(other)).unwrap_or(e),
                    };
                    next[edges[e]] = edges[entry];
                }
            }
        }
        let mut rings = Vec::new();
        for start in 0..next.len() {
            let mut points = Vec::new();
            let mut edge = start;
            while next[edge] != NONE {
                let node = edge / 2;
                let a = (node % n_x, node / n_x);
                let b = if edge % 2 == 0 { (a.0 + 1, a.1) } else { (a.0, a.1 + 1) };
                points.push(self.crossing(a, b, level));
                edge = std::mem::replace(&mut next[edge], NONE);
            }
            let signed_area = signed_area(&points);
            if signed_area != 0.0 {
                let n = points.len();
                let follows_border = (0..n).map(|i| self.on_one_side(points[i], points[(i + 1) % n])).collect();
                rings.push(Ring { points, follows_border, level_idx, signed_area });
            }
        }
        rings
    }
}

/// Counter-clockwise is positive.
fn signed_area(points: &[[f64; 2]]) -> f64 {
    let n = points.len();
    (0..n).map(|i| (points[i], points[(i + 1) % n])).map(|(a, b)| 0.5 * (a[0] * b[1] - b[0] * a[1])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(n: usize, f: impl Fn(f64, f64) -> f64) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
        let xs: Vec<f64> = (0..n).map(|i| -1.0 + 2.0 * i as f64 / (n - 1) as f64).collect();
        let ys: Vec<f64> = xs.iter().map(|x| 0.5 * x).collect();
        let values = ys.iter().map(|&y| xs.iter().map(|&x| f(x, y)).collect()).collect();
        (xs, ys, values)
    }

    #[test]
    fn the_contour_of_a_cone_is_a_circle_of_the_right_area() {
        let (xs, ys, values) = sampled(101, |x, y| x.hypot(y));
        let found = rings(&xs, &ys, &values, &[0.2, 0.4]);
        // Per level the border of the grid, above the level within, and the circle, below it within.
        assert_eq!(found.len(), 4);
        let circles: Vec<&Ring> = found.iter().filter(|r| r.signed_area < 0.0).collect();
        assert_eq!(circles.iter().map(|r| (r.level_idx, r.band_within())).collect::<Vec<_>>(), [(1, 1), (0, 0)]);
        for (ring, radius) in circles.iter().zip([0.4, 0.2]) {
            assert!(ring.points.iter().all(|p| (p[0].hypot(p[1]) - radius).abs() < 1e-3));
            assert!((ring.signed_area.abs() / (std::f64::consts::PI * radius * radius) - 1.0).abs() < 3e-3);
            assert!(ring.follows_border.iter().all(|b| !b));
        }
        let borders: Vec<&Ring> = found.iter().filter(|r| r.signed_area > 0.0).collect();
        assert!(borders.iter().all(|r| (r.signed_area - 2.0).abs() < 1e-12 && r.follows_border.iter().all(|b| *b)));
    }

    #[test]
    fn areas_of_a_plane_are_exact_and_bands_add_up_to_the_grid() {
        // f = x: {f ≥ level} is a rectangle.
        let (xs, ys, values) = sampled(6, |x, _| x);
        let levels = [-1.0, -0.33, 0.5, 0.99];
        let found = rings(&xs, &ys, &values, &levels);
        assert_eq!(found.len(), 4);
        for ring in &found {
            assert!((ring.signed_area - (1.0 - levels[ring.level_idx])).abs() < 1e-12, "{ring:?}");
        }
        // The line within is the crossing alone: one segment from top to bottom.
        let outline = found.iter().find(|r| r.level_idx == 2).map(Ring::outline).unwrap_or_default();
        let drawn: usize = outline.split(|p| p[0].is_nan()).filter(|part| part.len() > 1).map(|part| part.len() - 1).sum();
        let length: f64 = outline.windows(2).map(|p| (p[1][0] - p[0][0]).hypot(p[1][1] - p[0][1])).filter(|l| l.is_finite()).sum();
        assert!((length - 1.0).abs() < 1e-12 && drawn >= 5, "{length} {drawn}");
    }

    #[test]
    fn saddles_join_on_the_side_of_their_mean_and_no_ring_is_lost() {
        let axis = [0.0, 1.0];
        let saddle = vec![vec![1.0, 0.0], vec![0.0, 1.0]];
        // Mean 0.5: below it the high corners hang together, above it they are apart.
        assert_eq!(rings(&axis, &axis, &saddle, &[0.4]).len(), 1);
        assert_eq!(rings(&axis, &axis, &saddle, &[0.6]).len(), 2);
        for level in [0.4, 0.6] {
            let area: f64 = rings(&axis, &axis, &saddle, &[level]).iter().map(|r| r.signed_area).sum();
            let triangle = if level < 0.5 { 1.0 - level * level } else { (1.0 - level) * (1.0 - level) };
            assert!((area - triangle).abs() < 1e-12, "{area} {triangle}");
        }
    }

    #[test]
    fn painting_largest_first_gives_every_node_its_own_band() {
        let (xs, ys, values) = sampled(23, |x, y| (5.0 * x).sin() * (7.0 * y).cos() + 0.3 * x);
        let levels = [-0.7, -0.2, 0.1, 0.35, 0.8];
        let found = rings(&xs, &ys, &values, &levels);
        for (row, &y) in values.iter().zip(&ys) {
            for (&value, &x) in row.iter().zip(&xs) {
                // Nodes on the border are on the rings' own lines.
                if x.abs() == 1.0 || y.abs() == 0.5 {
                    continue;
                }
                let painted = found.iter().filter(|r| contains(&r.points, x, y)).map(Ring::band_within).next_back().unwrap_or(0);
                assert_eq!(painted, levels.iter().filter(|&&l| value >= l).count(), "at ({x}, {y})");
            }
        }
    }

    fn contains(points: &[[f64; 2]], x: f64, y: f64) -> bool {
        let n = points.len();
        let crossings = (0..n).filter(|&i| {
            let (a, b) = (points[i], points[(i + 1) % n]);
            (a[1] > y) != (b[1] > y) && x < a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
        });
        crossings.count() % 2 == 1
    }
}
