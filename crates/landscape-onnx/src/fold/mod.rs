//! What a file computes of constants alone, computed once: shapes, masks, positions.

mod elementwise;
mod moving;

use crate::lower::{Call, Lowered};
use crate::number::{Dim, Int, Known, Numbers};
use landscape_core::tensor::Dtype;
use std::rc::Rc;

pub use elementwise::cast;

/// The ops that are known here.
pub const FOLDED: [&str; 61] = [
    "Abs",
    "Add",
    "And",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Cos",
    "CumSum",
    "Div",
    "Equal",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "GatherND",
    "Greater",
    "GreaterOrEqual",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "Log",
    "MatMul",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "Range",
    "Reciprocal",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Reshape",
    "Round",
    "Shape",
    "Sigmoid",
    "Sin",
    "Size",
    "Slice",
    "Softmax",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
    "Xor",
];

/// A kind of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Float,
    Int,
    Bool,
}

impl Kind {
    pub fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Bool => Kind::Bool,
            dtype if dtype.is_float() => Kind::Float,
            _ => Kind::Int,
        }
    }

    pub fn of_numbers(numbers: &Numbers) -> Self {
        match numbers {
            Numbers::Float(_) => Kind::Float,
            Numbers::Int(_) => Kind::Int,
            Numbers::Bool(_) => Kind::Bool,
        }
    }
}

/// The inputs of an op that are all known, and how many numbers it may yield.
pub struct Folding<'a> {
    pub call: &'a Call<'a>,
    pub inputs: &'a [Option<Rc<Known>>],
    pub budget: usize,
}

impl Folding<'_> {
    pub fn input(&self, idx: usize) -> Lowered<&Known> {
        self.optional(idx).ok_or_else(|| format!("input {idx} is missing"))
    }

    pub fn optional(&self, idx: usize) -> Option<&Known> {
        self.inputs.get(idx).and_then(Option::as_deref)
    }

    pub fn ints(&self, idx: usize) -> Lowered<&[Int]> {
        self.input(idx)?.as_ints().ok_or_else(|| format!("input {idx} must be whole numbers"))
    }

    pub fn fixed_ints(&self, idx: usize) -> Lowered<Vec<i64>> {
        self.ints(idx)?.iter().map(|i| i.known().ok_or_else(|| format!("input {idx} depends on the size of the batch"))).collect()
    }

    /// The lengths of a shape.
    pub fn dims(&self, idx: usize) -> Lowered<Vec<Dim>> {
        self.ints(idx)?.iter().map(|&int| Dim::from_int(int).ok_or_else(|| "a length that is none".to_owned())).collect()
    }

    /// How many numbers a result of these lengths keeps, if that is not too many.
    pub fn check(&self, dims: &[Dim]) -> Lowered<usize> {
        let n = dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.kept()));
        n.filter(|&n| n <= self.budget).ok_or_else(|| "a constant that is too large for the size of the file".to_owned())
    }
}

/// The outputs of an op on constants.
pub fn fold(call: &Call, inputs: &[Option<Rc<Known>>], budget: usize) -> Lowered<Vec<Known>> {
    let f = Folding { call, inputs, budget };
    let op = call.node.op_type();
    match op {
        "Constant" => Err("a constant without a value that is supported".to_owned()),
        "Shape" | "Size" => shape(&f, op).map(|known| vec![known]),
        "ConstantOfShape" => {
            let dims = f.dims(0)?;
            let n = f.check(&dims)?;
            let value = match call.attribute("value").and_then(|a| a.t.as_deref()) {
                Some(tensor) => {
                    crate::store::Reader::new(None).read("value", tensor).and_then(|t| t.known()).map_err(|e| e.to_string())?.numbers
                }
                None => Numbers::Float(vec![0.0]),
            };
            if value.len() != 1 {
                return Err("`value` must be one number".to_owned());
            }
            Ok(vec![Known { dims, numbers: value.pick(std::iter::repeat_n(0, n)) }])
        }
        "Range" => range(&f).map(|known| vec![known]),
        "Split" => moving::split(&f),
        "Concat" | "Expand" | "Flatten" | "Gather" | "GatherElements" | "GatherND" | "Reshape" | "Slice" | "Squeeze" | "Tile"
        | "Transpose" | "Unsqueeze" => moving::moved(&f, op).map(|known| vec![known]),
        _ => elementwise::computed(&f, op).map(|known| vec![known]),
    }
}

fn shape(f: &Folding, op: &str) -> Lowered<Known> {
    let dims = &f.input(0)?.dims;
    if op == "Size" {
        let size = dims.iter().try_fold(Int::of(1), |n, d| n.mul(d.int())).ok_or("a size that depends on the batch in two ways")?;
        return Ok(Known::scalar(Numbers::Int(vec![size])));
    }
    let rank = dims.len() as i64;
    let bound = |name: &str, default: i64| {
        let at = f.call.int(name).unwrap_or(default);
        (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize
    };
    let kept = dims.get(bound("start", 0)..bound("end", rank)).unwrap_or_default();
    Ok(Known::ints(kept.iter().map(|d| d.int()).collect()))
}

fn range(f: &Folding) -> Lowered<Known> {
    if let Numbers::Float(start) = &f.input(0)?.numbers {
        let (limit, step) = (f.input(1)?.single(), f.input(2)?.single());
        let (&[start], Some(limit), Some(step)) = (start.as_slice(), limit, step) else {
            return Err("its bounds must be numbers".to_owned());
        };
        let n = ((limit - start) / step).ceil().max(0.0);
        if n.is_nan() || n > f.budget as f64 {
            return Err("a constant that is too large for the size of the file".to_owned());
        }
        let n = n as usize;
        return Ok(Known { dims: vec![Dim::Fixed(n)], numbers: Numbers::Float((0..n).map(|i| start + i as f64 * step).collect()) });
    }
    let (&[start], &[limit], &[step]) = (f.ints(0)?, f.ints(1)?, f.ints(2)?) else { return Err("its bounds must be numbers".to_owned()) };
    if (start, limit, step) == (Int::of(0), Int::batches(1), Int::of(1)) {
        return Ok(Known { dims: vec![Dim::Batch], numbers: Numbers::Int(vec![Int::PLACE]) });
    }
    let (Some(start), Some(limit), Some(step)) = (start.known(), limit.known(), step.known()) else {
        return Err("its bounds depend on the size of the batch".to_owned());
    };
    if step == 0 {
        return Err("a step of 0".to_owned());
    }
    let span = i128::from(limit) - i128::from(start);
    let n = if (span > 0) == (step > 0) && span != 0 { (span.unsigned_abs()).div_ceil(u128::from(step.unsigned_abs())) } else { 0 };
    let n = usize::try_from(n).ok().filter(|&n| n <= f.budget).ok_or("a constant that is too large for the size of the file")?;
    let values = (0..n as i64).map(|i| Int::of(start.saturating_add(i.saturating_mul(step)))).collect();
    Ok(Known::ints(values))
}
