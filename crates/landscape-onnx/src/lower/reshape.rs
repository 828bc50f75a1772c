//! Ops that move axes, and what the batch among them becomes.

use super::{Call, Importer, Lowered};
use crate::number::{Int, Known};
use crate::value::{Axis, Live, Value, axis_of, local_shape};
use landscape_graph::Op;

/// One length of a shape that is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Length {
    Fixed(usize),
    /// That many times the batch.
    Batch(usize),
    /// What is left over.
    Rest,
}

impl Length {
    fn of(int: Int) -> Lowered<Self> {
        let refused = || format!("a length of {} that depends on the batch in another way", int.fixed);
        match (int.known(), int) {
            (Some(-1), _) => Ok(Length::Rest),
            (Some(n), _) => usize::try_from(n).map(Length::Fixed).map_err(|_| format!("a length of {n}")),
            (None, Int { fixed: 0, batches, place: 0 }) => usize::try_from(batches).map(Length::Batch).map_err(|_| refused()),
            _ => Err(refused()),
        }
    }
}

fn product(lengths: impl IntoIterator<Item = usize>) -> Lowered<usize> {
    lengths.into_iter().try_fold(1usize, |n, d| n.checked_mul(d)).ok_or_else(|| "a size beyond any machine".to_owned())
}

fn quotient(total: usize, by: usize) -> Lowered<usize> {
    if by > 0 && total.is_multiple_of(by) { Ok(total / by) } else { Err(format!("{total} numbers of an example in groups of {by}")) }
}

impl Importer {
    pub fn shape(&mut self, call: &Call) -> Lowered<Value> {
        let axes: Vec<Int> = match call.input(0)? {
            Value::Stored(idx) => self.store[*idx].dims.iter().map(|&d| Int::of(d as i64)).collect(),
            Value::Known(known) => known.dims.iter().map(|d| d.int()).collect(),
            value => self.live(value)?.axes.iter().map(|axis| axis.int()).collect(),
        };
        let rank = axes.len() as i64;
        let bound = |name: &str, default: i64| {
            let at = call.int(name).unwrap_or(default);
            (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize
        };
        let (start, end) = (bound("start", 0), bound("end", rank));
        Ok(Value::known(Known::ints(axes.get(start..end).unwrap_or_default().to_vec())))
    }

    pub fn reshape(&mut self, call: &Call) -> Lowered<Live> {
        let x = self.live(call.input(0)?)?;
        let target = self.ints(call.input(1)?, "the new shape")?;
        let mut lengths = Vec::new();
        for (at, &int) in target.iter().enumerate() {
            let copied = int == Int::of(0) && !call.flag("allowzero");
            let int = if copied { x.axes.get(at).ok_or("it copies an axis that is not there")?.int() } else { int };
            lengths.push(Length::of(int)?);
        }
        self.reshaped(&x, &lengths)
    }

    pub fn flatten(&mut self, call: &Call) -> Lowered<Live> {
        let x = self.live(call.input(0)?)?;
        let rank = x.axes.len() as i64;
        let axis = call.int("axis").unwrap_or(1);
        let axis =
            usize::try_from(if axis < 0 { axis + rank } else { axis }).ok().filter(|&a| a <= x.axes.len()).ok_or("`axis` out of range")?;
        if axis == 1 && x.axes[0] == Axis::Batch && x.axes.len() > 2 {
            let id = self.ir.push(Op::Flatten, &[x.id])?;
            return Ok(self.of_batch(id));
        }
        let all = |axes: &[Axis]| axes.iter().try_fold(Int::of(1), |n, axis| n.mul(axis.int())).ok_or("a size beyond any machine");
        let lengths = [Length::of(all(&x.axes[..axis])?)?, Length::of(all(&x.axes[axis..])?)?];
        self.reshaped(&x, &lengths)
    }

    fn reshaped(&mut self, x: &Live, lengths: &[Length]) -> Lowered<Live> {
        if lengths.iter().filter(|&&length| length == Length::Rest).count() > 1 {
            return Err("more than one length is -1".to_owned());
        }
        let locals: Vec<usize> = x.axes.iter().flat_map(|axis| axis.locals()).collect();
        let total = product(locals)?;
        let fixed = product(lengths.iter().map(|length| if let Length::Fixed(n) = length { *n } else { 1 }))?;
        let Some(at) = x.batch() else {
            let axis = |length: &Length| match length {
                Length::Fixed(n) => Ok(Axis::Local(*n)),
                Length::Rest => quotient(total, fixed).map(Axis::Local),
                Length::Batch(_) => Err("a batch of something that has none".to_owned()),
            };
            let axes = lengths.iter().map(axis).collect::<Lowered<Vec<_>>>()?;
            return self.reaxed(x.id, axes);
        };
        let mut before = product(x.axes[..at].iter().flat_map(|axis| axis.locals()))?;
        if let Axis::Mixed { before: own, .. } = x.axes[at] {
            before *= own;
        }
        let batches: Vec<usize> = (0..lengths.len()).filter(|&i| matches!(lengths[i], Length::Batch(_))).collect();
        let rest = lengths.iter().position(|&length| length == Length::Rest);
        let (place, split, fixed_lengths) = match (batches.as_slice(), rest, self.batch) {
            (&[i], ..) => {
                let Length::Batch(times) = lengths[i] else { return Err("a length of the batch".to_owned()) };
                let left = quotient(total, product([fixed, times])?)?;
                let lengths: Vec<usize> = lengths.iter().map(|length| if let Length::Fixed(n) = length { *n } else { left }).collect();
                (i, around(before, times, &lengths[..i])?, lengths)
            }
            (&[], Some(i), None) => {
                let times = quotient(total, fixed)?;
                let lengths: Vec<usize> = lengths.iter().map(|length| if let Length::Fixed(n) = length { *n } else { 0 }).collect();
                (i, around(before, times, &lengths[..i])?, lengths)
            }
            (&[], rest, Some(n)) => {
                let left = if rest.is_some() { quotient(product([total, n])?, fixed)? } else { 1 };
                let lengths: Vec<usize> = lengths.iter().map(|length| if let Length::Fixed(n) = length { *n } else { left }).collect();
                let (i, split) = found(before, total, n, &lengths).ok_or("the batch ends in the middle of an axis")?;
                (i, split, lengths)
            }
            (&[], None, None) => {
                return Err("the new shape fixes the size of the batch: export the network with a batch of any size".to_owned());
            }
            _ => return Err("the batch comes twice".to_owned()),
        };
        let axes = fixed_lengths.iter().enumerate().map(|(i, &n)| match (i == place, split) {
            (false, _) => Axis::Local(n),
            (true, (1, 1)) => Axis::Batch,
            (true, (before, after)) => Axis::Mixed { before, after },
        });
        let axes: Vec<Axis> = axes.collect();
        if product(local_shape(&axes))? != total {
            return Err(format!("{total} numbers of an example as {:?}", local_shape(&axes)));
        }
        self.reaxed(x.id, axes)
    }

    pub fn transpose(&mut self, call: &Call) -> Lowered<Live> {
        let x = self.live(call.input(0)?)?;
        let rank = x.axes.len();
        let order = match call.ints("perm") {
            Some(order) => order.iter().map(|&axis| axis_of(axis, rank)).collect::<Lowered<Vec<_>>>()?,
            None => (0..rank).rev().collect(),
        };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..rank) {
            return Err(format!("`perm` must be an order of {rank} axes, got {order:?}"));
        }
        let mut firsts = Vec::new();
        let mut n_locals = 0;
        for axis in &x.axes {
            firsts.push(n_locals);
            n_locals += axis.locals().len();
        }
        let dims: Vec<usize> = order.iter().flat_map(|&axis| firsts[axis]..firsts[axis] + x.axes[axis].locals().len()).collect();
        let axes = order.iter().map(|&axis| x.axes[axis]).collect();
        let id = if n_locals == 0 { x.id } else { self.ir.push(Op::Permute { dims }, &[x.id])? };
        Ok(Live { id, axes })
    }

    pub fn squeeze(&mut self, call: &Call) -> Lowered<Live> {
        let x = self.live(call.input(0)?)?;
        let rank = x.axes.len();
        let gone: Vec<usize> = match self.axes_of(call)? {
            Some(axes) => axes.into_iter().map(|axis| axis_of(axis, rank)).collect::<Lowered<_>>()?,
            None => (0..rank).filter(|&axis| x.axes[axis] == Axis::Local(1)).collect(),
        };
        if let Some(axis) = gone.iter().find(|&&axis| x.axes[axis] != Axis::Local(1)) {
            return Err(format!("axis {axis} is the batch or longer than 1"));
        }
        let axes = (0..rank).filter(|axis| !gone.contains(axis)).map(|axis| x.axes[axis]).collect();
        self.reaxed(x.id, axes)
    }

    pub fn unsqueeze(&mut self, call: &Call) -> Lowered<Live> {
        let x = self.live(call.input(0)?)?;
        let new = self.axes_of(call)?.ok_or("the axes are missing")?;
        let rank = x.axes.len() + new.len();
        let new = new.into_iter().map(|axis| axis_of(axis, rank)).collect::<Lowered<Vec<_>>>()?;
        let mut old = x.axes.iter().copied();
        let axes: Option<Vec<Axis>> = (0..rank).map(|axis| if new.contains(&axis) { Some(Axis::Local(1)) } else { old.next() }).collect();
        let axes = axes.ok_or("the same axis twice")?;
        self.reaxed(x.id, axes)
    }

    /// The axes that an op names, as an input or, before version 13, as an attribute.
    fn axes_of(&self, call: &Call) -> Lowered<Option<Vec<i64>>> {
        match call.optional(1) {
            Some(axes) => self.fixed_ints(axes, "the axes").map(Some),
            None => Ok(call.ints("axes").map(<[i64]>::to_vec)),
        }
    }

    pub fn expand(&mut self, call: &Call) -> Lowered<Live> {
        let x = self.live(call.input(0)?)?;
        let target = self.ints(call.input(1)?, "the new shape")?;
        self.expanded(&x, &target)
    }

    fn expanded(&mut self, x: &Live, target: &[Int]) -> Lowered<Live> {
        let rank = x.axes.len().max(target.len());
        let (mut own, mut axes) = (Vec::new(), Vec::new());
        for back in (1..=rank).rev() {
            let axis = x.axes.len().checked_sub(back).map_or(Axis::Local(1), |axis| x.axes[axis]);
            let length = target.len().checked_sub(back).map_or(Int::of(1), |at| target[at]);
            // The batch of the file, where that is a number.
            let is_batch = length == Int::batches(1) || (back == rank && self.batch.is_some_and(|n| n > 1 && length == Int::of(n as i64)));
            let wider = match (axis, length.known()) {
                (Axis::Local(1), _) if is_batch && x.batch().is_none() => Axis::Batch,
                (axis, _) if length == Int::of(1) || length == axis.int() || (axis == Axis::Batch && is_batch) => axis,
                (Axis::Local(1), Some(n)) => Axis::Local(usize::try_from(n).map_err(|_| format!("a length of {n}"))?),
                _ => return Err(format!("an axis {axis:?} cannot be made as long as that")),
            };
            own.push(if wider == Axis::Batch { Axis::Batch } else { axis });
            axes.push(wider);
        }
        let narrow = self.reaxed(x.id, own)?;
        let id = self.ir.push(Op::Expand { shape: local_shape(&axes) }, &[narrow.id])?;
        Ok(Live { id, axes })
    }

    pub fn tile(&mut self, call: &Call) -> Lowered<Live> {
        let mut x = self.live(call.input(0)?)?;
        let repeats = self.ints(call.input(1)?, "the repeats")?;
        if repeats.len() != x.axes.len() {
            return Err(format!("{} repeats for {} axes", repeats.len(), x.axes.len()));
        }
        for (axis, repeat) in repeats.iter().enumerate() {
            if let (Axis::Local(n), Some(times)) = (x.axes[axis], repeat.known())
                && n > 1
                && times != 1
            {
                let times = usize::try_from(times).ok().filter(|times| (1..=64).contains(times)).ok_or("more than 64 repeats")?;
                let id = self.ir.push(Op::Concat { dim: x.local(axis)? }, &vec![x.id; times])?;
                x.id = id;
                x.axes[axis] = Axis::Local(n * times);
            }
        }
        let once = |axis: Axis| matches!(axis, Axis::Local(n) if n > 1);
        let target: Vec<Int> = (0..repeats.len()).map(|axis| if once(x.axes[axis]) { x.axes[axis].int() } else { repeats[axis] }).collect();
        self.expanded(&x, &target)
    }
}

/// What of one example lies before and after the batch in an axis of `times` times the batch.
fn around(before: usize, times: usize, lengths: &[usize]) -> Lowered<(usize, usize)> {
    let own = quotient(before, product(lengths.iter().copied())?)?;
    Ok((own, quotient(times, own)?))
}

/// Where the batch of n goes in a shape of numbers alone: as an axis of its own if it can, else as the first part of one.
fn found(before: usize, total: usize, n: usize, lengths: &[usize]) -> Option<(usize, (usize, usize))> {
    let candidates = (0..lengths.len()).filter_map(|i| {
        let own = quotient(before, product(lengths[..i].iter().copied()).ok()?).ok()?;
        let after = quotient(lengths[i], own.checked_mul(n)?).ok()?;
        let behind = product(lengths[i + 1..].iter().copied()).ok()?;
        (before.checked_mul(after)?.checked_mul(behind) == Some(total)).then_some((i, (own, after)))
    });
    candidates.min_by_key(|&(_, (own, after))| (own != 1, after != 1))
}
