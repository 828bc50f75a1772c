//! Parts of values, and values put together.

use super::{Call, Importer, Lowered};
use crate::number::{Dim, Int, Known, Numbers};
use crate::value::{Axis, Live, Value, axis_of};
use landscape_graph::{Op, Role};
use std::collections::BTreeMap;

/// More pieces than these are no selection that anyone means.
const MAX_PIECES: usize = 256;
/// What a node takes, in numbers: one op of a file must not make a great many of them for nothing.
const NODE: usize = 32;

impl Importer {
    pub fn gather(&mut self, call: &Call) -> Lowered<Live> {
        let (data, indices) = (call.input(0)?, call.input(1)?);
        let axis = call.int("axis").unwrap_or(0);
        let table = match data {
            Value::Stored(idx) => Some(&self.store[*idx]).filter(|stored| stored.dims.len() == 2 && stored.dtype.is_float() && axis == 0),
            _ => None,
        };
        let rows = table.map(|table| (table.dims[0], table.dims[1]));
        match (rows, self.known(indices)?) {
            (Some((num_embeddings, embedding_dim)), known) if known.as_ref().is_none_or(|known| !known.dims.is_empty()) => {
                let weight = self.learned(data, Self::input_name(call, 0), "the table")?;
                let places = match &known {
                    Some(known) => Value::known(from_front(known, num_embeddings)?),
                    None => indices.clone(),
                };
                let ids = self.live(&places)?;
                let tensors = BTreeMap::from([(Role::Weight, weight)]);
                let id = self.ir.push_with(Op::Embedding { num_embeddings, embedding_dim }, &[ids.id], tensors)?;
                let mut axes = ids.axes;
                if axes.iter().all(|axis| axis.locals().is_empty()) {
                    return self.reaxed(id, [axes.as_slice(), &[Axis::Local(embedding_dim)]].concat());
                }
                axes.push(Axis::Local(embedding_dim));
                Ok(Live { id, axes })
            }
            (_, Some(known)) => {
                let x = self.live(data)?;
                let axis = axis_of(axis, x.axes.len())?;
                if let (&[Axis::Mixed { before: 1, after }], Some(&Dim::Batch)) = (x.axes.as_slice(), known.dims.first()) {
                    return self.picked_of_each(&x, after, &known);
                }
                let Axis::Local(n) = x.axes[axis] else { return Err("it picks examples of the batch".to_owned()) };
                self.picked(&x, axis, &from_front(&known, n)?)
            }
            (_, None) => Err("places that depend on the input can be looked up in a matrix of the file alone".to_owned()),
        }
    }

    /// Entries of an axis, one after the other.
    fn picked(&mut self, x: &Live, axis: usize, places: &Known) -> Lowered<Live> {
        let dim = x.local(axis)?;
        let list = places.as_ints().unwrap_or_default();
        let list: Vec<usize> = list.iter().filter_map(|i| usize::try_from(i.known()?).ok()).collect();
        if list.len() != places.numbers.len() || places.dims.len() > 1 || list.is_empty() {
            return Err("places in a list or a single one are supported".to_owned());
        }
        let mut pieces: Vec<(usize, usize)> = Vec::new();
        for &place in &list {
            match pieces.last_mut() {
                Some((_, end)) if *end == place => *end += 1,
                _ => pieces.push((place, place + 1)),
            }
        }
        if pieces.len() > MAX_PIECES {
            return Err(format!("more than {MAX_PIECES} places that are no neighbours"));
        }
        self.spend(NODE * pieces.len())?;
        let parts = pieces.into_iter().map(|(start, end)| self.ir.push(Op::Slice { dim, start, end, step: 1 }, &[x.id]));
        let parts = parts.collect::<Lowered<Vec<_>>>()?;
        let id = self.ir.push(Op::Concat { dim }, &parts)?;
        let mut axes = x.axes.clone();
        if places.dims.is_empty() {
            axes.remove(axis);
        } else {
            axes[axis] = Axis::Local(list.len());
        }
        self.reaxed(id, axes)
    }

    /// Of one axis of all numbers of all examples, those at b · after + place for every example b: exporters write strided views so.
    fn picked_of_each(&mut self, x: &Live, after: usize, places: &Known) -> Lowered<Live> {
        let own = |int: &Int| {
            let in_example = Int { place: int.place - after as i64, ..*int };
            in_example.known().filter(|place| (0..after as i64).contains(place)).map(Int::of)
        };
        let list = places.as_ints().and_then(|ints| ints.iter().map(own).collect::<Option<Vec<_>>>());
        let list = list.ok_or("it picks numbers of one example for another")?;
        let flat = Live { id: x.id, axes: vec![Axis::Batch, Axis::Local(after)] };
        let picked = self.picked(&flat, 1, &Known::ints(list))?;
        self.reaxed(picked.id, places.dims.iter().map(|&dim| Axis::of_dim(dim)).collect())
    }

    pub fn slice(&mut self, call: &Call) -> Lowered<Live> {
        let mut x = self.live(call.input(0)?)?;
        let starts = self.ints(call.input(1)?, "the starts")?;
        let ends = self.ints(call.input(2)?, "the ends")?;
        let axes = match call.optional(3) {
            Some(axes) => self.fixed_ints(axes, "the axes")?,
            None => (0..starts.len() as i64).collect(),
        };
        let steps = match call.optional(4) {
            Some(steps) => self.fixed_ints(steps, "the steps")?,
            None => vec![1; starts.len()],
        };
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err("starts, ends, axes and steps must be as many".to_owned());
        }
        for at in 0..starts.len() {
            let axis = axis_of(axes[at], x.axes.len())?;
            let Axis::Local(n) = x.axes[axis] else {
                let to_end = ends[at] == x.axes[axis].int()
                    || ends[at].known().is_some_and(|end| end >= i64::from(i32::MAX) || Some(end as usize) == self.batch);
                if starts[at] == Int::of(0) && to_end && steps[at] == 1 {
                    continue;
                }
                return Err("it cuts the batch".to_owned());
            };
            let step = usize::try_from(steps[at]).ok().filter(|&step| step > 0).ok_or("a step below 1")?;
            let place = |int: Int| {
                let place = int.known().ok_or("a place that depends on the size of the batch")?;
                let place = if place < 0 { place.saturating_add(n as i64) } else { place };
                Ok::<usize, String>(place.clamp(0, n as i64) as usize)
            };
            let (start, end) = (place(starts[at])?, place(ends[at])?);
            if start >= end {
                return Err("nothing would be left".to_owned());
            }
            x.id = self.ir.push(Op::Slice { dim: x.local(axis)?, start, end, step }, &[x.id])?;
            x.axes[axis] = Axis::Local((end - start).div_ceil(step));
        }
        Ok(x)
    }

    pub fn split(&mut self, call: &Call) -> Lowered<Vec<Live>> {
        let x = self.live(call.input(0)?)?;
        let axis = axis_of(call.int("axis").unwrap_or(0), x.axes.len())?;
        let Axis::Local(n) = x.axes[axis] else { return Err("it cuts the batch".to_owned()) };
        let to_sequence = call.node.op_type() == "SplitToSequence";
        let sizes = match (call.optional(1), call.ints("split")) {
            (Some(sizes), _) => {
                let known = self.constant(sizes, "the sizes")?;
                let sizes = self.fixed_ints(sizes, "the sizes")?;
                if to_sequence && known.dims.is_empty() { pieces(n, sizes[0])? } else { sizes }
            }
            (None, Some(sizes)) => sizes.to_vec(),
            (None, None) if to_sequence => vec![1; n],
            (None, None) => {
                let n_parts = call.int("num_outputs").unwrap_or(call.node.output.len() as i64);
                let n_parts = usize::try_from(n_parts).ok().filter(|&parts| parts > 0).ok_or("no outputs")?;
                pieces(n, n.div_ceil(n_parts) as i64)?
            }
        };
        if sizes.len() > MAX_PIECES {
            return Err(format!("more than {MAX_PIECES} parts"));
        }
        self.spend(NODE * sizes.len())?;
        let (mut start, mut parts) = (0usize, Vec::new());
        for size in sizes {
            let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size)).filter(|&end| end <= n && end > start);
            let end = end.ok_or_else(|| format!("a part of {size} of an axis of {n}"))?;
            let id = self.ir.push(Op::Slice { dim: x.local(axis)?, start, end, step: 1 }, &[x.id])?;
            let mut axes = x.axes.clone();
            axes[axis] = Axis::Local(end - start);
            let keep = !to_sequence || call.int("keepdims").unwrap_or(1) != 0 || call.optional(1).is_some();
            if !keep {
                axes.remove(axis);
            }
            parts.push(self.reaxed(id, axes)?);
            start = end;
        }
        if start == n { Ok(parts) } else { Err(format!("the parts cover {start} of {n}")) }
    }

    pub fn sequence_at(&mut self, call: &Call) -> Lowered<Live> {
        let Value::Sequence(values) = call.input(0)? else { return Err("it expects a list of values".to_owned()) };
        let at = self.fixed_ints(call.input(1)?, "the place")?;
        let at = axis_of(*at.first().ok_or("the place is missing")?, values.len())?;
        Ok(values[at].clone())
    }

    pub fn concat(&mut self, call: &Call) -> Lowered<Live> {
        let mut parts = Vec::new();
        for value in call.inputs.iter().flatten() {
            parts.push(self.live(value)?);
        }
        let rank = parts.first().ok_or("it has no inputs")?.axes.len();
        if parts.iter().any(|part| part.axes.len() != rank) {
            return Err("values with different numbers of axes".to_owned());
        }
        let axis = axis_of(call.int("axis").ok_or("`axis` is missing")?, rank)?;
        let batch = parts.iter().find_map(|part| part.batch().map(|at| (at, part.axes[at])));
        if let Some((at, own)) = batch {
            for part in &mut parts {
                if part.axes[at] == Axis::Local(1) && self.batch == Some(1) && own == Axis::Batch {
                    let mut axes = part.axes.clone();
                    axes[at] = Axis::Batch;
                    *part = self.reaxed(part.id, axes)?;
                } else if part.axes[at] != own || part.batch() != Some(at) {
                    return Err("the batch of one value meets another axis of the other".to_owned());
                }
            }
        }
        let dim = parts[0].local(axis)?;
        let ids: Vec<_> = parts.iter().map(|part| part.id).collect();
        let id = self.ir.push(Op::Concat { dim }, &ids)?;
        let mut axes = parts[0].axes.clone();
        axes[axis] = Axis::Local(self.ir.shape(id)[dim]);
        Ok(Live { id, axes })
    }
}

/// Parts of that size, the last one smaller if it must be.
fn pieces(n: usize, size: i64) -> Lowered<Vec<i64>> {
    let size = usize::try_from(size).ok().filter(|&size| size > 0).ok_or_else(|| format!("parts of {size}"))?;
    if n.div_ceil(size) > MAX_PIECES {
        return Err(format!("more than {MAX_PIECES} parts"));
    }
    Ok((0..n).step_by(size).map(|start| size.min(n - start) as i64).collect())
}

/// Places counted from the front, each checked to be there.
fn from_front(places: &Known, n: usize) -> Lowered<Known> {
    let ints = places.as_ints().ok_or("places must be whole numbers")?;
    let ints = ints.iter().map(|int| {
        let place = int.known().ok_or("places that depend on the batch")?;
        axis_of(place, n).map(|place| Int::of(place as i64)).map_err(|_| format!("place {place} of {n}"))
    });
    Ok(Known { dims: places.dims.clone(), numbers: Numbers::Int(ints.collect::<Lowered<_>>()?) })
}
