//! Numbers that are known before any example is: constants, and what a file computes of them.
//!
//! The size of the batch is a number B that nobody knows here, so whole numbers are a + b·B, and an axis of a constant may be the
//! batch, along which all entries are equal: one is kept.

/// fixed + batches · B + place · b, with B the size of the batch and b an example's place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int {
    pub fixed: i64,
    pub batches: i64,
    pub place: i64,
}

impl Int {
    pub const fn of(fixed: i64) -> Self {
        Int { fixed, batches: 0, place: 0 }
    }

    pub const fn batches(batches: i64) -> Self {
        Int { fixed: 0, batches, place: 0 }
    }

    /// The place of an example in its batch.
    pub const PLACE: Int = Int { fixed: 0, batches: 0, place: 1 };

    /// A number that nobody can tell before the batch is there. Where it stands counts, not what it is.
    pub const UNKNOWN: Int = Int { fixed: 0, batches: i64::MIN, place: 0 };

    /// Two numbers of which both can be told.
    fn told(self, other: Int) -> Option<()> {
        (self.batches != i64::MIN && other.batches != i64::MIN).then_some(())
    }

    /// The number, if it does not depend on the batch.
    pub fn known(self) -> Option<i64> {
        (self.batches == 0 && self.place == 0).then_some(self.fixed)
    }

    pub fn add(self, other: Int) -> Option<Int> {
        self.told(other)?;
        Some(Int {
            fixed: self.fixed.checked_add(other.fixed)?,
            batches: self.batches.checked_add(other.batches)?,
            place: self.place.checked_add(other.place)?,
        })
    }

    pub fn sub(self, other: Int) -> Option<Int> {
        self.add(other.mul(Int::of(-1))?)
    }

    pub fn mul(self, other: Int) -> Option<Int> {
        self.told(other)?;
        let (factor, term) = if let Some(fixed) = self.known() { (fixed, other) } else { (other.known()?, self) };
        Some(Int {
            fixed: term.fixed.checked_mul(factor)?,
            batches: term.batches.checked_mul(factor)?,
            place: term.place.checked_mul(factor)?,
        })
    }

    /// Rounds towards zero, as ONNX does; what depends on the batch must divide without rest.
    pub fn div(self, other: Int) -> Option<Int> {
        self.told(other)?;
        if self.place != 0 || other.place != 0 {
            return None;
        }
        match (self.known(), other.known()) {
            (Some(a), Some(b)) => a.checked_div(b).map(Int::of),
            (None, Some(b)) if self.fixed.checked_rem(b)? == 0 && self.batches.checked_rem(b)? == 0 => {
                Some(Int { fixed: self.fixed.checked_div(b)?, batches: self.batches.checked_div(b)?, place: 0 })
            }
            (None, None) if self.fixed == 0 && other.fixed == 0 && self.batches.checked_rem(other.batches)? == 0 => {
                self.batches.checked_div(other.batches).map(Int::of)
            }
            _ => None,
        }
    }

    /// The least and the greatest value over all batches from one example and all places in them, where there is such a bound.
    fn bounds(self) -> Option<(Option<i64>, Option<i64>)> {
        // With n = B − 1 from 0 and b from 0 to n the value is at_one + batches · n + place · b: linear, so the extremes lie at the corners.
        let at_one = self.fixed.checked_add(self.batches)?;
        let with_place = self.batches.checked_add(self.place)?;
        let (least_slope, greatest_slope) = (self.batches.min(with_place), self.batches.max(with_place));
        Some(((least_slope >= 0).then_some(at_one), (greatest_slope <= 0).then_some(at_one)))
    }

    /// Whether self ≤ other, if that is the same for all batches.
    pub fn at_most(self, other: Int) -> Option<bool> {
        match other.sub(self)?.bounds()? {
            (Some(least), _) if least >= 0 => Some(true),
            (_, Some(greatest)) if greatest < 0 => Some(false),
            _ => None,
        }
    }

    /// Whether they are equal, if that is the same for all batches.
    pub fn equals(self, other: Int) -> Option<bool> {
        self.told(other)?;
        if self == other {
            return Some(true);
        }
        match other.sub(self)?.bounds()? {
            (Some(least), _) if least > 0 => Some(false),
            (_, Some(greatest)) if greatest < 0 => Some(false),
            _ => None,
        }
    }
}

/// The length of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    Fixed(usize),
    Batch,
}

impl Dim {
    /// How many entries a constant keeps along it.
    pub fn kept(self) -> usize {
        match self {
            Dim::Fixed(n) => n,
            Dim::Batch => 1,
        }
    }

    pub fn int(self) -> Int {
        match self {
            Dim::Fixed(n) => Int::of(n as i64),
            Dim::Batch => Int::batches(1),
        }
    }

    pub fn from_int(int: Int) -> Option<Dim> {
        match int {
            Int { fixed: 0, batches: 1, place: 0 } => Some(Dim::Batch),
            Int { fixed, batches: 0, place: 0 } => usize::try_from(fixed).ok().map(Dim::Fixed),
            _ => None,
        }
    }
}

/// Numbers of one kind, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    Float(Vec<f64>),
    Int(Vec<Int>),
    Bool(Vec<bool>),
}

impl Numbers {
    pub fn len(&self) -> usize {
        match self {
            Numbers::Float(v) => v.len(),
            Numbers::Int(v) => v.len(),
            Numbers::Bool(v) => v.len(),
        }
    }

    /// Entries picked by place; all places are below [`Numbers::len`].
    pub fn pick(&self, places: impl Iterator<Item = usize>) -> Numbers {
        match self {
            Numbers::Float(v) => Numbers::Float(places.map(|p| v[p]).collect()),
            Numbers::Int(v) => Numbers::Int(places.map(|p| v[p]).collect()),
            Numbers::Bool(v) => Numbers::Bool(places.map(|p| v[p]).collect()),
        }
    }

    /// As floating-point numbers, unless one depends on the batch.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        match self {
            Numbers::Float(v) => Some(v.clone()),
            Numbers::Int(v) => v.iter().map(|i| i.known().map(|i| i as f64)).collect(),
            Numbers::Bool(v) => Some(v.iter().map(|&b| f64::from(u8::from(b))).collect()),
        }
    }
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    pub dims: Vec<Dim>,
    pub numbers: Numbers,
}

impl Known {
    pub fn scalar(numbers: Numbers) -> Self {
        Known { dims: Vec::new(), numbers }
    }

    pub fn ints(values: Vec<Int>) -> Self {
        Known { dims: vec![Dim::Fixed(values.len())], numbers: Numbers::Int(values) }
    }

    /// How many entries are kept along each axis.
    pub fn kept(&self) -> Vec<usize> {
        self.dims.iter().map(|d| d.kept()).collect()
    }

    /// The one number, if there is one.
    pub fn single(&self) -> Option<f64> {
        if self.numbers.len() == 1 { self.numbers.to_f64().map(|v| v[0]) } else { None }
    }

    /// The whole numbers, if they are.
    pub fn as_ints(&self) -> Option<&[Int]> {
        match &self.numbers {
            Numbers::Int(v) => Some(v),
            _ => None,
        }
    }
}

/// The distance between neighbours along each axis.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// The places that `f` gives for all indices of `shape`, row-major.
pub fn places<'a>(shape: &'a [usize], mut f: impl FnMut(&[usize]) -> usize + 'a) -> impl Iterator<Item = usize> + 'a {
    let n: usize = shape.iter().product();
    let mut index = vec![0; shape.len()];
    (0..n).map(move |_| {
        let place = f(&index);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
        place
    })
}
