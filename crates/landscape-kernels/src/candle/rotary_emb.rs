//! Rotary position embeddings by tables of cosines and sines, as candle-nn has them, with gradients.

use super::host::{Float, error};
use super::images::four;
use super::op::{Kernel, Operand, apply3, is_ours};
use crate::memory::Accumulate;
use crate::rope::{RopeShape, RopeStyle, turn_by};
use candle_core::{D, Result, Shape, Tensor, bail};

pub use candle_nn::rotary_emb::*;

/// Turns the pairs (i, i + d/2) of every head by its position's angle.
///
/// # Shapes
/// `xs` `[b, heads, t, d]`; `cos`, `sin` `[t′, d/2]` or `[b, t′, d/2]` with t′ ≥ t.
///
/// # Errors
/// If the shapes do not fit.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use landscape_kernels::candle::rotary_emb::rope;
/// let x = Var::new(&[[[[1.0, 2.0]]]], &Device::Cpu)?;
/// let (cos, sin) = (Tensor::new(&[[0.0]], &Device::Cpu)?, Tensor::new(&[[1.0]], &Device::Cpu)?);
/// let y = rope(&x, &cos, &sin)?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f64>()?, [-2.0, 1.0]);
/// assert!(y.sqr()?.sum_all()?.backward()?.get(&x).is_some()); // candle-nn 0.11.1 gives none
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn rope(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    turn(Rotation { style: RopeStyle::Half, heads: Heads::BeforePositions }, xs, cos, sin)
}

/// Turns the pairs (2i, 2i + 1) of every head by its position's angle.
///
/// # Shapes
/// As [`rope`].
///
/// # Errors
/// As [`rope`].
pub fn rope_i(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    turn(Rotation { style: RopeStyle::Interleaved, heads: Heads::BeforePositions }, xs, cos, sin)
}

/// [`rope`] for heads that stand after positions.
///
/// # Shapes
/// `xs` `[b, t, heads, d]`; `cos`, `sin` as [`rope`].
///
/// # Errors
/// As [`rope`].
pub fn rope_thd(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    turn(Rotation { style: RopeStyle::Half, heads: Heads::AfterPositions }, xs, cos, sin)
}

/// Where the axis of heads stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heads {
    BeforePositions,
    AfterPositions,
}

#[derive(Clone, Copy)]
struct Rotation {
    style: RopeStyle,
    heads: Heads,
}

fn turn(op: Rotation, xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let [b, first, second, d] = four("rope", "xs", xs.dims())?;
    let t = if op.heads == Heads::BeforePositions { second } else { first };
    // The positions that there are, and one table or one for each example.
    let table = |table: &Tensor| {
        let fits = matches!(*table.dims(), [len, half] if len >= t && 2 * half == d)
            || matches!(*table.dims(), [n, len, half] if n == b && len >= t && 2 * half == d);
        if !fits {
            bail!("`rope`: tables must be [t, {}] or [{b}, t, {}] with t at least {t}, got {:?}", d / 2, d / 2, table.shape());
        }
        table.narrow(D::Minus2, 0, t)
    };
    let (cos, sin) = (table(cos)?, table(sin)?);
    if cos.rank() != sin.rank() {
        bail!("`rope`: `cos` and `sin` must be alike, got {:?} and {:?}", cos.shape(), sin.shape());
    }
    if is_ours(&[xs, &cos, &sin]) { apply3(op, xs, &cos, &sin) } else { composed(op, xs, &cos, &sin) }
}

/// The same of ops that every device has.
fn composed(op: Rotation, xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let d = xs.dim(D::Minus1)?;
    let table = |table: &Tensor| {
        let table = if table.rank() == 2 { table.unsqueeze(0)? } else { table.clone() };
        table.unsqueeze(if op.heads == Heads::BeforePositions { 1 } else { 2 })
    };
    let (cos, sin) = (table(cos)?, table(sin)?);
    let (a, b) = match op.style {
        RopeStyle::Half => (xs.narrow(D::Minus1, 0, d / 2)?, xs.narrow(D::Minus1, d / 2, d / 2)?),
        RopeStyle::Interleaved => {
            let mut dims = xs.dims().to_vec();
            dims.splice(3.., [d / 2, 2]);
            let pairs = xs.contiguous()?.reshape(dims)?;
            (pairs.narrow(D::Minus1, 0, 1)?.squeeze(D::Minus1)?, pairs.narrow(D::Minus1, 1, 1)?.squeeze(D::Minus1)?)
        }
    };
    let ya = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let yb = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    match op.style {
        RopeStyle::Half => Tensor::cat(&[ya, yb], D::Minus1),
        RopeStyle::Interleaved => Tensor::stack(&[ya, yb], D::Minus1)?.flatten_from(D::Minus2),
    }
}

impl Rotation {
    /// What one table turns, of an input and tables of these sizes, and how many tables there are.
    fn shape(&self, x: &[usize], table: &[usize]) -> Result<(RopeShape, usize)> {
        let [b, first, second, d] = four("rope", "xs", x)?;
        let n_tables = if table.len() == 3 { b } else { 1 };
        // Heads that stand before positions are rows of one head each.
        let (n_rows, len, heads) = match self.heads {
            Heads::BeforePositions => (b * first, second, 1),
            Heads::AfterPositions => (b, first, second),
        };
        let n_rows = n_rows.checked_div(n_tables).unwrap_or(0);
        // The angles are in the tables.
        let shape = RopeShape { n_rows, len, heads, head_dim: d, rotary_dim: d, base: 1.0, style: self.style };
        Ok((shape, n_tables))
    }

    fn run<T: Float>(&self, x: &[T], x_dims: &[usize], cos: Operand<'_, T>, sin: &[T]) -> Result<Vec<T>> {
        let (shape, n_tables) = self.shape(x_dims, cos.dims)?;
        let mut y = vec![T::ZERO; x.len()];
        let (part, table) = (x.len() / n_tables.max(1), cos.values.len() / n_tables.max(1));
        for idx in 0..n_tables {
            let (part, table) = (idx * part..(idx + 1) * part, idx * table..(idx + 1) * table);
            let tables = [&cos.values[table.clone()], &sin[table]];
            turn_by(&shape, tables, x[part.clone()].into(), (&mut y[part]).into(), Accumulate::Overwrite).map_err(error)?;
        }
        Ok(y)
    }

    /// dcos = Σ (a·dya + b·dyb), dsin = Σ (a·dyb − b·dya) over all that one entry turns.
    fn run_back_tables<T: Float>(&self, x: Operand<'_, T>, table: &[usize], dy: &[T]) -> Result<[Vec<T>; 2]> {
        let (RopeShape { len, heads, head_dim, style, .. }, n_tables) = self.shape(x.dims, table)?;
        let half = head_dim / 2;
        let [mut dcos, mut dsin] = [(); 2].map(|()| vec![T::ZERO; n_tables * len * half]);
        if x.values.is_empty() {
            return Ok([dcos, dsin]);
        }
        let part = x.values.len() / n_tables;
        for (idx, (x, dy)) in x.values.chunks_exact(head_dim).zip(dy.chunks_exact(head_dim)).enumerate() {
            let start = (idx * head_dim / part * len + idx / heads % len) * half;
            for i in 0..half {
                let (a, b) = match style {
                    RopeStyle::Half => (i, i + half),
                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                };
                dcos[start + i] += x[a] * dy[a] + x[b] * dy[b];
                dsin[start + i] += x[a] * dy[b] - x[b] * dy[a];
            }
        }
        Ok([dcos, dsin])
    }
}

impl Kernel<3> for Rotation {
    const NAME: &'static str = "rope";

    fn forward<T: Float>(&self, [x, cos, sin]: [Operand<'_, T>; 3]) -> Result<(Vec<T>, Shape)> {
        Ok((self.run(x.values, x.dims, cos, sin.values)?, Shape::from(x.dims.to_vec())))
    }

    fn backward<T: Float>(&self, [x, cos, sin]: [Operand<'_, T>; 3], asked: [bool; 3], _: &[T], dy: &[T]) -> Result<[Option<Vec<T>>; 3]> {
        let back: Vec<T> = sin.values.iter().map(|s| -*s).collect();
        let dx = if asked[0] { Some(self.run(dy, x.dims, cos, &back)?) } else { None };
        if !(asked[1] || asked[2]) {
            return Ok([dx, None, None]);
        }
        let [dcos, dsin] = self.run_back_tables(x, cos.dims, dy)?;
        Ok([dx, asked[1].then_some(dcos), asked[2].then_some(dsin)])
    }
}
