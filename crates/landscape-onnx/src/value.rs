//! What stands for a value of the file while it is imported.

use crate::ir::Id;
use crate::number::{Dim, Int, Known};
use std::rc::Rc;

/// One value of the file.
#[derive(Debug, Clone)]
pub enum Value {
    /// A tensor of the file that nothing was done to yet.
    Stored(usize),
    /// Numbers that do not depend on the input.
    Known(Rc<Known>),
    /// What a node of the network yields.
    Live(Live),
    /// Several values, as an op that splits yields them.
    Sequence(Rc<Vec<Live>>),
    /// What an op would have yielded that was not imported.
    Lost,
}

impl Value {
    pub fn known(known: Known) -> Self {
        Value::Known(Rc::new(known))
    }
}

/// An axis of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// An axis of the node's result, of that length.
    Local(usize),
    /// The batch, which no node's shape has.
    Batch,
    /// One axis made of three: numbers of each example before, the batch, and numbers of each example after. Of the two, those that
    /// are longer than 1 are axes of the node's result.
    Mixed { before: usize, after: usize },
}

impl Axis {
    pub fn int(self) -> Int {
        match self {
            Axis::Local(n) => Int::of(n as i64),
            Axis::Batch => Int::batches(1),
            Axis::Mixed { before, after } => Int::batches((before * after) as i64),
        }
    }

    pub fn of_dim(dim: Dim) -> Axis {
        match dim {
            Dim::Fixed(n) => Axis::Local(n),
            Dim::Batch => Axis::Batch,
        }
    }

    pub fn is_local(self) -> bool {
        matches!(self, Axis::Local(_))
    }

    /// The axes of the node's result that it stands for.
    pub fn locals(self) -> Vec<usize> {
        match self {
            Axis::Local(n) => vec![n],
            Axis::Batch => Vec::new(),
            Axis::Mixed { before, after } => [before, after].into_iter().filter(|&n| n > 1).collect(),
        }
    }
}

/// What a node yields, with the place of the batch among the axes. Where no axis is local the node's result has one axis of length 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    pub id: Id,
    pub axes: Vec<Axis>,
}

impl Live {
    /// Where the batch is, if the value has one.
    pub fn batch(&self) -> Option<usize> {
        self.axes.iter().position(|axis| !axis.is_local())
    }

    /// The axis of the node's result that an axis of the value is.
    pub fn local(&self, axis: usize) -> Result<usize, String> {
        match self.axes[axis] {
            Axis::Local(_) => Ok(self.axes[..axis].iter().map(|axis| axis.locals().len()).sum()),
            _ => Err(format!("axis {axis} is the batch, which a network cannot work along")),
        }
    }

    pub fn with(&self, id: Id) -> Live {
        Live { id, axes: self.axes.clone() }
    }

    /// The axes of the node's result from an axis of the value to its last, if none is the batch.
    pub fn tail(&self, axis: usize) -> Result<Vec<usize>, String> {
        self.axes[axis..]
            .iter()
            .map(|a| if let Axis::Local(n) = a { Ok(*n) } else { Err("the batch lies among the last axes".to_owned()) })
            .collect()
    }
}

/// The shape of the node's result for these axes.
pub fn local_shape(axes: &[Axis]) -> Vec<usize> {
    let shape: Vec<usize> = axes.iter().flat_map(|axis| axis.locals()).collect();
    if shape.is_empty() { vec![1] } else { shape }
}

/// An axis counted from the front or, negative, from the back.
pub fn axis_of(axis: i64, rank: usize) -> Result<usize, String> {
    let rank_i = rank as i64;
    if (-rank_i..rank_i).contains(&axis) {
        Ok(axis.rem_euclid(rank_i) as usize)
    } else {
        Err(format!("axis {axis} of a value with {rank} axes"))
    }
}
