//! Constants cut, put together and under other axes.

use super::Folding;
use super::elementwise::spread;
use crate::lower::Lowered;
use crate::number::{Dim, Int, Known, Numbers, places, strides};
use crate::value::axis_of;

pub fn moved(f: &Folding, op: &str) -> Lowered<Known> {
    let x = f.input(0)?;
    let rank = x.dims.len();
    match op {
        "Concat" => concat(f),
        "Expand" => {
            let target = f.dims(1)?;
            let dims = wider(&x.dims, &target)?;
            f.check(&dims)?;
            spread_to(x, dims)
        }
        "Tile" => {
            let repeats = f.ints(1)?;
            if repeats.len() != rank {
                return Err("as many repeats as axes".to_owned());
            }
            let dims: Option<Vec<Dim>> = x.dims.iter().zip(repeats).map(|(d, &times)| Dim::from_int(d.int().mul(times)?)).collect();
            let dims = dims.ok_or("a length that depends on the batch in another way")?;
            f.check(&dims)?;
            let (own, kept) = (x.kept(), dims.iter().map(|d| d.kept()).collect::<Vec<_>>());
            let steps = strides(&own);
            let at = places(&kept, |index| index.iter().zip(&own).zip(&steps).map(|((i, n), step)| i % n * step).sum());
            Ok(Known { numbers: x.numbers.pick(at), dims: dims.clone() })
        }
        "Flatten" => {
            let axis = f.call.int("axis").unwrap_or(1);
            let axis = if axis < 0 { axis + rank as i64 } else { axis };
            let axis = usize::try_from(axis).ok().filter(|&axis| axis <= rank).ok_or("`axis` out of range")?;
            let all = |dims: &[Dim]| dims.iter().try_fold(Int::of(1), |n, d| n.mul(d.int())).and_then(Dim::from_int);
            let (Some(a), Some(b)) = (all(&x.dims[..axis]), all(&x.dims[axis..])) else {
                return Err("a batch inside of an axis".to_owned());
            };
            Ok(Known { dims: vec![a, b], numbers: x.numbers.clone() })
        }
        "Reshape" => reshape(f),
        "Squeeze" => {
            let gone: Vec<usize> = match axes(f)? {
                Some(axes) => axes.into_iter().map(|axis| axis_of(axis, rank)).collect::<Lowered<_>>()?,
                None => (0..rank).filter(|&axis| x.dims[axis] == Dim::Fixed(1)).collect(),
            };
            if gone.iter().any(|&axis| x.dims[axis] != Dim::Fixed(1)) {
                return Err("an axis longer than 1".to_owned());
            }
            let dims = (0..rank).filter(|axis| !gone.contains(axis)).map(|axis| x.dims[axis]).collect();
            Ok(Known { dims, numbers: x.numbers.clone() })
        }
        "Unsqueeze" => {
            let new = axes(f)?.ok_or("the axes are missing")?;
            let rank = rank + new.len();
            let new = new.into_iter().map(|axis| axis_of(axis, rank)).collect::<Lowered<Vec<_>>>()?;
            let mut old = x.dims.iter().copied();
            let dims: Option<Vec<Dim>> = (0..rank).map(|axis| if new.contains(&axis) { Some(Dim::Fixed(1)) } else { old.next() }).collect();
            Ok(Known { dims: dims.ok_or("the same axis twice")?, numbers: x.numbers.clone() })
        }
        "Transpose" => {
            let order = match f.call.ints("perm") {
                Some(order) => order.iter().map(|&axis| axis_of(axis, rank)).collect::<Lowered<Vec<_>>>()?,
                None => (0..rank).rev().collect(),
            };
            let mut sorted = order.clone();
            sorted.sort_unstable();
            if !sorted.into_iter().eq(0..rank) {
                return Err(format!("`perm` must be an order of {rank} axes, got {order:?}"));
            }
            f.check(&x.dims)?;
            let steps = strides(&x.kept());
            let dims: Vec<Dim> = order.iter().map(|&axis| x.dims[axis]).collect();
            let kept: Vec<usize> = dims.iter().map(|d| d.kept()).collect();
            let at = places(&kept, |index| index.iter().zip(&order).map(|(i, &axis)| i * steps[axis]).sum());
            Ok(Known { numbers: x.numbers.pick(at), dims: dims.clone() })
        }
        "Slice" => slice(f),
        "Gather" => gather(f),
        "GatherElements" => gather_elements(f),
        "GatherND" => gather_nd(f),
        _ => Err("this op is not supported on constants".to_owned()),
    }
}

/// The axes that an op names, as an input or, before version 13, as an attribute.
fn axes(f: &Folding) -> Lowered<Option<Vec<i64>>> {
    match f.optional(1) {
        Some(_) => f.fixed_ints(1).map(Some),
        None => Ok(f.call.ints("axes").map(<[i64]>::to_vec)),
    }
}

fn wider(own: &[Dim], target: &[Dim]) -> Lowered<Vec<Dim>> {
    super::elementwise::broadcast(own, target)
}

fn spread_to(x: &Known, dims: Vec<Dim>) -> Lowered<Known> {
    let kept: Vec<usize> = dims.iter().map(|d| d.kept()).collect();
    Ok(Known { numbers: x.numbers.pick(spread(&x.kept(), &kept).into_iter()), dims })
}

fn reshape(f: &Folding) -> Lowered<Known> {
    let x = f.input(0)?;
    let mut dims = Vec::new();
    let mut rest = None;
    for (at, &int) in f.ints(1)?.iter().enumerate() {
        if int == Int::of(-1) {
            if rest.replace(at).is_some() {
                return Err("more than one length is -1".to_owned());
            }
            dims.push(Dim::Fixed(1));
        } else if int == Int::of(0) && !f.call.flag("allowzero") {
            dims.push(*x.dims.get(at).ok_or("it copies an axis that is not there")?);
        } else {
            dims.push(Dim::from_int(int).ok_or("a length that is none")?);
        }
    }
    let n = dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.kept())).ok_or("a size beyond any machine")?;
    let batches = |dims: &[Dim]| dims.iter().filter(|&&d| d == Dim::Batch).count();
    if let Some(at) = rest {
        let left = if n > 0 && x.numbers.len() % n == 0 { x.numbers.len() / n } else { return Err("lengths that do not fit".to_owned()) };
        dims[at] = if batches(&x.dims) > batches(&dims) && left == 1 { Dim::Batch } else { Dim::Fixed(left) };
    } else if n != x.numbers.len() {
        return Err("lengths that do not fit".to_owned());
    }
    if batches(&x.dims) != batches(&dims) || batches(&dims) > 1 {
        return Err("the batch inside of an axis".to_owned());
    }
    Ok(Known { dims, numbers: x.numbers.clone() })
}

fn concat(f: &Folding) -> Lowered<Known> {
    let parts = f.inputs.iter().flatten().collect::<Vec<_>>();
    let first = parts.first().ok_or("it has no inputs")?;
    let axis = axis_of(f.call.int("axis").ok_or("`axis` is missing")?, first.dims.len())?;
    let mut length = 0usize;
    let mut dims = first.dims.clone();
    for part in &parts {
        let fits = part.dims.len() == dims.len() && (0..dims.len()).all(|a| a == axis || part.dims[a] == dims[a]);
        let (true, Dim::Fixed(n)) = (fits, *part.dims.get(axis).unwrap_or(&Dim::Batch)) else {
            return Err("constants that do not fit, or along the batch".to_owned());
        };
        length = length.checked_add(n).ok_or("a size beyond any machine")?;
    }
    dims[axis] = Dim::Fixed(length);
    f.check(&dims)?;
    let inner = |known: &Known| known.kept()[axis..].iter().product::<usize>();
    let outer: usize = first.kept()[..axis].iter().product();
    macro_rules! joined {
        ($kind:ident) => {{
            let mut values = Vec::new();
            for row in 0..outer {
                for part in &parts {
                    let Numbers::$kind(own) = &part.numbers else { return Err("constants of different kinds".to_owned()) };
                    values.extend_from_slice(&own[row * inner(part)..(row + 1) * inner(part)]);
                }
            }
            Numbers::$kind(values)
        }};
    }
    let numbers = match &first.numbers {
        Numbers::Float(_) => joined!(Float),
        Numbers::Int(_) => joined!(Int),
        Numbers::Bool(_) => joined!(Bool),
    };
    Ok(Known { dims, numbers })
}

/// The places of an axis, taken in that order.
fn taken(x: &Known, axis: usize, at: &[usize]) -> Known {
    let kept = x.kept();
    let steps = strides(&kept);
    let mut shape = kept;
    shape[axis] = at.len();
    let numbers =
        x.numbers.pick(places(&shape, |index| index.iter().enumerate().map(|(a, &i)| steps[a] * if a == axis { at[i] } else { i }).sum()));
    let mut dims = x.dims.clone();
    dims[axis] = Dim::Fixed(at.len());
    Known { dims, numbers }
}

fn slice(f: &Folding) -> Lowered<Known> {
    let mut x = f.input(0)?.clone();
    let (starts, ends) = (f.ints(1)?, f.ints(2)?);
    let axes = match f.optional(3) {
        Some(_) => f.fixed_ints(3)?,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = match f.optional(4) {
        Some(_) => f.fixed_ints(4)?,
        None => vec![1; starts.len()],
    };
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("starts, ends, axes and steps must be as many".to_owned());
    }
    for at in 0..starts.len() {
        let axis = axis_of(axes[at], x.dims.len())?;
        let Dim::Fixed(n) = x.dims[axis] else {
            let whole = starts[at] == Int::of(0) && steps[at] == 1;
            let to_end = ends[at] == Int::batches(1) || ends[at].known().is_some_and(|end| end >= i64::from(i32::MAX));
            if whole && to_end {
                continue;
            }
            return Err("it cuts the batch".to_owned());
        };
        let (Some(start), Some(end), step) = (starts[at].known(), ends[at].known(), steps[at]) else {
            return Err("a place that depends on the size of the batch".to_owned());
        };
        let n = n as i64;
        let from_front = |place: i64| if place < 0 { place.saturating_add(n) } else { place };
        let list: Vec<usize> = match step {
            0 => return Err("a step of 0".to_owned()),
            1.. => (from_front(start).clamp(0, n)..from_front(end).clamp(0, n)).step_by(step as usize).map(|i| i as usize).collect(),
            _ => {
                let (start, end) = (from_front(start).clamp(-1, n - 1), from_front(end).clamp(-1, n - 1));
                (end + 1..=start).rev().step_by(step.unsigned_abs() as usize).map(|i| i as usize).collect()
            }
        };
        x = taken(&x, axis, &list);
    }
    f.check(&x.dims)?;
    Ok(x)
}

pub fn split(f: &Folding) -> Lowered<Vec<Known>> {
    let x = f.input(0)?;
    let axis = axis_of(f.call.int("axis").unwrap_or(0), x.dims.len())?;
    let Dim::Fixed(n) = x.dims[axis] else { return Err("it cuts the batch".to_owned()) };
    let n_parts = f.call.node.output.len().max(1);
    let sizes = match (f.optional(1), f.call.ints("split")) {
        (Some(_), _) => f.fixed_ints(1)?,
        (None, Some(sizes)) => sizes.to_vec(),
        (None, None) => vec![n.div_ceil(n_parts) as i64; n_parts],
    };
    f.check(&x.dims)?;
    let mut start = 0;
    let mut parts = Vec::new();
    for size in sizes {
        let end = usize::try_from(size).ok().and_then(|size| size.checked_add(start)).ok_or("a part of negative length")?.min(n);
        parts.push(taken(x, axis, &(start..end).collect::<Vec<_>>()));
        start = end;
    }
    if start == n { Ok(parts) } else { Err("the parts do not cover the axis".to_owned()) }
}

fn place_of(int: Int, n: usize) -> Lowered<usize> {
    axis_of(int.known().ok_or("a place that depends on the batch")?, n).map_err(|_| format!("a place {} of {n}", int.fixed))
}

fn gather(f: &Folding) -> Lowered<Known> {
    let (x, at) = (f.input(0)?, f.input(1)?);
    let axis = axis_of(f.call.int("axis").unwrap_or(0), x.dims.len())?;
    let Dim::Fixed(n) = x.dims[axis] else { return Err("it picks examples of the batch".to_owned()) };
    let list = f.ints(1)?.iter().map(|&int| place_of(int, n)).collect::<Lowered<Vec<_>>>()?;
    let dims = [&x.dims[..axis], &at.dims, &x.dims[axis + 1..]].concat();
    f.check(&dims)?;
    Ok(Known { dims, numbers: taken(x, axis, &list).numbers })
}

fn gather_elements(f: &Folding) -> Lowered<Known> {
    let (x, at) = (f.input(0)?, f.input(1)?);
    let axis = axis_of(f.call.int("axis").unwrap_or(0), x.dims.len())?;
    let (Dim::Fixed(n), true) = (x.dims[axis], x.dims.len() == at.dims.len()) else {
        return Err("it picks examples of the batch".to_owned());
    };
    let list = f.ints(1)?.iter().map(|&int| place_of(int, n)).collect::<Lowered<Vec<_>>>()?;
    let (own, kept) = (x.kept(), at.kept());
    if (0..own.len()).any(|a| a != axis && kept[a] > own[a]) {
        return Err("more places than there are".to_owned());
    }
    let steps = strides(&own);
    let mut next = list.iter();
    let from = places(&kept, |index| {
        let place = next.next().copied().unwrap_or(0);
        index.iter().enumerate().map(|(a, &i)| steps[a] * if a == axis { place } else { i }).sum()
    });
    let numbers = x.numbers.pick(from);
    Ok(Known { dims: at.dims.clone(), numbers })
}

/// Along the batch all numbers are equal, so any place there gives the same.
fn gather_nd(f: &Folding) -> Lowered<Known> {
    let (x, at) = (f.input(0)?, f.input(1)?);
    if f.call.int("batch_dims").unwrap_or(0) != 0 {
        return Err("`batch_dims` are not supported".to_owned());
    }
    let Some((&Dim::Fixed(depth), lead)) = at.dims.split_last() else { return Err("the places must be lists".to_owned()) };
    if depth == 0 || depth > x.dims.len() {
        return Err(format!("places of {depth} axes of {}", x.dims.len()));
    }
    let dims = [lead, &x.dims[depth..]].concat();
    f.check(&dims)?;
    let steps = strides(&x.kept());
    let inner: usize = x.kept()[depth..].iter().product();
    let mut from = Vec::new();
    for index in f.ints(1)?.chunks(depth) {
        let mut start = 0;
        for (axis, &int) in index.iter().enumerate() {
            if let Dim::Fixed(n) = x.dims[axis] {
                start += steps[axis] * place_of(int, n)?;
            }
        }
        from.extend(start..start + inner);
    }
    let numbers = x.numbers.pick(from.into_iter());
    Ok(Known { dims, numbers })
}
