//! Sums and products of arrays of which one is repeated along some axes, and their gradients, which add up along those.

mod reduce;
#[cfg(feature = "cuda")]
mod cuda;

use crate::axes::{Axis, MAX_AXES, Walk, merged, strides};
use crate::check::{n_elements, shape_error};
use crate::error::{Result, check_len};
use crate::memory::{Accumulate, Real, View, ViewMut};
use crate::parallel::{CHUNK, for_each_chunk_mut};
use crate::reduce::{rows_per_wide_row, tile};
use crate::simd::multiversion;

/// The sizes of a result and of its two operands, by NumPy's rule with equal ranks: an operand's axis is the result's, or 1 and repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BroadcastShape {
    /// The axes of the result, the batch first.
    pub dims: Vec<usize>,
    /// Those of the first operand.
    pub a: Vec<usize>,
    /// Those of the second operand.
    pub b: Vec<usize>,
}

/// One of the two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

impl BroadcastShape {
    /// Fails unless both operands fit the result.
    ///
    /// # Errors
    /// [`crate::Error::Shape`], naming the operand; also where a product of the sizes overflows.
    pub fn check(&self) -> Result<()> {
        self.lengths("broadcast").map(|_| ())
    }

    /// Elements of the result and of both operands.
    fn lengths(&self, op: &'static str) -> Result<[usize; 3]> {
        let Self { dims, a, b } = self;
        for (name, operand) in [("a", a), ("b", b)] {
            let fits = operand.len() == dims.len() && operand.iter().zip(dims).all(|(&size, &dim)| size == dim || size == 1);
            if !fits {
                return Err(shape_error(op, format!("the axes of `{name}` must each be that of {dims:?} or 1, got {operand:?}")));
            }
        }
        Ok([n_elements(op, dims)?, n_elements(op, a)?, n_elements(op, b)?])
    }

    /// A walk over all elements of the result, with the positions of the operands.
    fn walk(&self, op: &'static str) -> Result<Vec<Axis<2>>> {
        let (a, b) = (strides(&self.a), strides(&self.b));
        let axes = self.dims.iter().zip(a).zip(b).map(|((&size, a), b)| Axis { size, strides: [a, b] });
        self.few(op, merged(axes))
    }

    /// A walk over all elements of the result, with the positions of one operand and of the other.
    fn walk_from(&self, op: &'static str, side: Side) -> Result<Vec<Axis<2>>> {
        let mut axes = self.walk(op)?;
        if side == Side::B {
            axes.iter_mut().for_each(|axis| axis.strides.swap(0, 1));
        }
        Ok(axes)
    }

    fn few<const K: usize>(&self, op: &'static str, axes: Vec<Axis<K>>) -> Result<Vec<Axis<K>>> {
        if axes.len() > MAX_AXES {
            let Self { a, b, .. } = self;
            return Err(shape_error(op, format!("at most {MAX_AXES} axes may alternate between repeated and not, got {a:?} and {b:?}")));
        }
        Ok(axes)
    }

    fn len_of(&self, side: Side, [_, a, b]: [usize; 3]) -> usize {
        match side {
            Side::A => a,
            Side::B => b,
        }
    }
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

/// What is done with two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Multiply,
}

/// y = a + b, each repeated along its axes of size 1.
///
/// # Shapes
/// `y`, `a`, `b` as `shape.dims`, `shape.a`, `shape.b`.
///
/// # Errors
/// [`crate::Error::Shape`] if an operand does not fit the result, a product of sizes overflows or more than 8 axes alternate;
/// [`crate::Error::Length`] where a length does not fit.
///
/// ```
/// use landscape_kernels::{View, broadcast::{BroadcastShape, add}};
/// let shape = BroadcastShape { dims: vec![2, 2], a: vec![2, 2], b: vec![1, 2] };
/// let mut y = [0.0_f32; 4];
/// add(&shape, View::Host(&[1.0, 2.0, 3.0, 4.0]), View::Host(&[10.0, 20.0]), (&mut y[..]).into())?;
/// assert_eq!(y, [11.0, 22.0, 13.0, 24.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn add<T: Real>(shape: &BroadcastShape, a: View<'_, T>, b: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    forward("broadcast_add", Op::Add, shape, a, b, y)
}

/// y = a·b, each repeated along its axes of size 1.
///
/// # Shapes
/// As [`add`].
///
/// # Errors
/// As [`add`].
///
/// ```
/// use landscape_kernels::{View, broadcast::{BroadcastShape, multiply}};
/// let shape = BroadcastShape { dims: vec![2, 2], a: vec![2, 2], b: vec![2, 1] };
/// let mut y = [0.0_f32; 4];
/// multiply(&shape, View::Host(&[1.0, 2.0, 3.0, 4.0]), View::Host(&[10.0, 0.5]), (&mut y[..]).into())?;
/// assert_eq!(y, [10.0, 20.0, 1.5, 2.0]);
/// # Ok::<(), landscape_kernels::Error>(())
/// ```
pub fn multiply<T: Real>(shape: &BroadcastShape, a: View<'_, T>, b: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    forward("broadcast_multiply", Op::Multiply, shape, a, b, y)
}

/// The gradient of [`add`] with respect to one operand: dy added up along the axes on which it is repeated, in double precision.
///
/// # Shapes
/// `dy` as `shape.dims`; `dx` as the operand.
///
/// # Errors
/// As [`add`].
pub fn add_backward<T: Real>(shape: &BroadcastShape, side: Side, dy: View<'_, T>, dx: ViewMut<'_, T>, mode: Accumulate) -> Result<()> {
    const OP: &str = "broadcast_add_backward";
    let lengths = shape.lengths(OP)?;
    check_len(OP, "dy", lengths[0], dy.len())?;
    check_len(OP, "dx", shape.len_of(side, lengths), dx.len())?;
    let sizes = if side == Side::A { &shape.a } else { &shape.b };
    // Nothing else is read, so the other operand's axes do not keep neighbours apart.
    let axes = merged(shape.dims.iter().zip(strides(sizes)).map(|(&size, stride)| Axis { size, strides: [stride, 0] }));
    let axes = shape.few(OP, axes)?;
    on_device!(OP, [dy, dx], gpu => cuda::backward(gpu, &axes, dy, None, dx, mode));
    reduce::sums(&axes, dy.host(), None, dx.host(), mode);
    Ok(())
}

/// The gradient of [`multiply`] with respect to one operand: dy times the other, added up along the axes on which it is repeated, in double
/// precision.
///
/// # Shapes
/// `dy` as `shape.dims`; `other` as the other operand; `dx` as the operand.
///
/// # Errors
/// As [`add`].
pub fn multiply_backward<T: Real>(
    shape: &BroadcastShape,
    side: Side,
    other: View<'_, T>,
    dy: View<'_, T>,
    dx: ViewMut<'_, T>,
    mode: Accumulate,
) -> Result<()> {
    const OP: &str = "broadcast_multiply_backward";
    let lengths = shape.lengths(OP)?;
    check_len(OP, "other", shape.len_of(side.other(), lengths), other.len())?;
    check_len(OP, "dy", lengths[0], dy.len())?;
    check_len(OP, "dx", shape.len_of(side, lengths), dx.len())?;
    let axes = shape.walk_from(OP, side)?;
    on_device!(OP, [other, dy, dx], gpu => cuda::backward(gpu, &axes, dy, Some(other), dx, mode));
    reduce::sums(&axes, dy.host(), Some(other.host()), dx.host(), mode);
    Ok(())
}

fn forward<T: Real>(name: &'static str, op: Op, shape: &BroadcastShape, a: View<'_, T>, b: View<'_, T>, y: ViewMut<'_, T>) -> Result<()> {
    let [n, n_a, n_b] = shape.lengths(name)?;
    check_len(name, "a", n_a, a.len())?;
    check_len(name, "b", n_b, b.len())?;
    check_len(name, "y", n, y.len())?;
    let axes = shape.walk(name)?;
    on_device!(name, [a, b, y], gpu => cuda::forward(gpu, op, &axes, a, b, y));
    let (a, b) = (a.host(), b.host());
    let (outer, inner) = rows(&axes);
    for_each_chunk_mut(y.host(), CHUNK, |idx, y| forward_piece(op, outer, inner, idx * CHUNK, a, b, y));
    Ok(())
}

/// All axes but the last, and the last; a single element is a row of one.
pub(crate) fn rows<const K: usize>(axes: &[Axis<K>]) -> (&[Axis<K>], Axis<K>) {
    match axes.split_last() {
        Some((inner, outer)) => (outer, *inner),
        None => (&[], Axis { size: 1, strides: [0; K] }),
    }
}

multiversion! {
    /// Elements of the result from `start` on.
    fn forward_piece<T>(op: Op, outer: &[Axis<2>], inner: Axis<2>, start: usize, a: &[T], b: &[T], y: &mut [T]) {
        match op {
            Op::Add => each_row(outer, inner, start, a, b, y, |a, b| a + b),
            Op::Multiply => each_row(outer, inner, start, a, b, y, |a, b| a * b),
        }
    }
}

/// Elements of a narrow row, of which several are computed at once.
const NARROW: usize = 128;

#[inline(always)]
fn each_row<T: Real>(outer: &[Axis<2>], inner: Axis<2>, start: usize, a: &[T], b: &[T], mut y: &mut [T], f: impl Fn(T, T) -> T) {
    if let ([rest @ .., rows], [1, 1], ..NARROW) = (outer, inner.strides, inner.size)
        && rows.size * inner.size >= 4 * NARROW
    {
        match rows.strides {
            [_, 0] => return each_narrow_row(rest, *rows, inner.size, start, [a, b], y, f),
            [0, _] => {
                let swap = |axis: &Axis<2>| Axis { size: axis.size, strides: [axis.strides[1], axis.strides[0]] };
                let rest: Vec<Axis<2>> = rest.iter().map(swap).collect();
                return each_narrow_row(&rest, swap(rows), inner.size, start, [b, a], y, |b, a| f(a, b));
            }
            _ => {}
        }
    }
    let mut walk = Walk::new(outer, start / inner.size);
    let mut column = start % inner.size;
    while !y.is_empty() {
        let n = (inner.size - column).min(y.len());
        let (row, rest) = y.split_at_mut(n);
        let [from_a, from_b] = walk.at();
        match inner.strides {
            [0, 0] => row.fill(f(a[from_a], b[from_b])),
            [_, 0] => {
                let b = b[from_b];
                for (y, &a) in row.iter_mut().zip(&a[from_a + column..][..n]) {
                    *y = f(a, b);
                }
            }
            [0, _] => {
                let a = a[from_a];
                for (y, &b) in row.iter_mut().zip(&b[from_b + column..][..n]) {
                    *y = f(a, b);
                }
            }
            [_, _] => {
                for ((y, &a), &b) in row.iter_mut().zip(&a[from_a + column..][..n]).zip(&b[from_b + column..][..n]) {
                    *y = f(a, b);
                }
            }
        }
        y = rest;
        column = 0;
        walk.step();
    }
}

/// [`each_row`] where the second operand is one short row for all of `rows`: it is laid out several times side by side.
#[inline(always)]
fn each_narrow_row<T: Real>(
    outer: &[Axis<2>],
    rows: Axis<2>,
    width: usize,
    start: usize,
    [a, b]: [&[T]; 2],
    mut y: &mut [T],
    f: impl Fn(T, T) -> T,
) {
    let block = rows.size * width;
    let mut walk = Walk::new(outer, start / block);
    let mut place = start % block;
    let times = rows_per_wide_row(width);
    while !y.is_empty() {
        let n = (block - place).min(y.len());
        let (piece, rest) = y.split_at_mut(n);
        let [from_a, from_b] = walk.at();
        // One row more, since a piece may begin anywhere in a row.
        let side_by_side = tile(&b[from_b..from_b + width], times + 1);
        let b = &side_by_side[place % width..][..times * width];
        for (y, a) in piece.chunks_mut(b.len()).zip(a[from_a + place..][..n].chunks(b.len())) {
            for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                *y = f(a, b);
            }
        }
        y = rest;
        place = 0;
        walk.step();
    }
}

#[cfg(test)]
mod tests;
