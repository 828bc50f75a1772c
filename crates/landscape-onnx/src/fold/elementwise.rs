//! Numbers computed one by one, and along axes.

use super::{Folding, Kind};
use crate::lower::Lowered;
use crate::number::{Dim, Int, Known, Numbers, places, strides};
use crate::value::axis_of;

const UNKNOWN: &str = "numbers that depend on the size of the batch";

/// The same numbers as ones of another kind.
pub fn cast(numbers: &Numbers, to: Kind) -> Lowered<Numbers> {
    Ok(match (numbers, to) {
        (Numbers::Int(v), Kind::Int) => Numbers::Int(v.clone()),
        (numbers, Kind::Float) => Numbers::Float(numbers.to_f64().ok_or(UNKNOWN)?),
        (numbers, Kind::Int) => Numbers::Int(numbers.to_f64().ok_or(UNKNOWN)?.into_iter().map(|v| Int::of(v as i64)).collect()),
        (numbers, Kind::Bool) => Numbers::Bool(numbers.to_f64().ok_or(UNKNOWN)?.into_iter().map(|v| v != 0.0).collect()),
    })
}

pub fn computed(f: &Folding, op: &str) -> Lowered<Known> {
    match op {
        "Cast" => {
            let to = crate::store::dtype(i32::try_from(f.call.int("to").unwrap_or(0)).unwrap_or(0))?;
            let x = f.input(0)?;
            Ok(Known { dims: x.dims.clone(), numbers: cast(&x.numbers, Kind::of(to))? })
        }
        "Not" => {
            let x = f.input(0)?;
            let Numbers::Bool(values) = &x.numbers else { return Err("it expects truths".to_owned()) };
            Ok(Known { dims: x.dims.clone(), numbers: Numbers::Bool(values.iter().map(|v| !v).collect()) })
        }
        "IsNaN" => {
            let x = f.input(0)?;
            let values = x.numbers.to_f64().ok_or(UNKNOWN)?;
            Ok(Known { dims: x.dims.clone(), numbers: Numbers::Bool(values.into_iter().map(f64::is_nan).collect()) })
        }
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Max" | "Min" | "And" | "Or" | "Xor" | "Equal" | "Less" | "LessOrEqual"
        | "Greater" | "GreaterOrEqual" => {
            let mut result = f.input(0)?.clone();
            for idx in 1..f.inputs.len() {
                result = pair(f, op, &result, f.input(idx)?)?;
            }
            Ok(result)
        }
        "Where" => choose(f),
        "CumSum" => cumsum(f),
        "Trilu" => trilu(f),
        "MatMul" => matmul(f),
        "Clip" => {
            let x = f.input(0)?;
            let bound = |idx: usize, default: f64| f.optional(idx).map_or(Some(default), Known::single).ok_or("a bound must be one number");
            let (min, max) = (bound(1, f64::NEG_INFINITY)?, bound(2, f64::INFINITY)?);
            let values = x.numbers.to_f64().ok_or(UNKNOWN)?.into_iter().map(|v| v.max(min).min(max)).collect();
            Ok(Known { dims: x.dims.clone(), numbers: cast(&Numbers::Float(values), Kind::of_numbers(&x.numbers))? })
        }
        "ReduceMax" | "ReduceMean" | "ReduceMin" | "ReduceProd" | "ReduceSum" => reduce(f, op),
        "Softmax" => Err("a softmax of constants is not supported".to_owned()),
        _ => single(f, op),
    }
}

fn single(f: &Folding, op: &str) -> Lowered<Known> {
    let x = f.input(0)?;
    let dims = x.dims.clone();
    if let (Numbers::Int(values), "Neg" | "Abs") = (&x.numbers, op) {
        let values = values.iter().map(|&v| match (op, v.known()) {
            ("Neg", _) => v.mul(Int::of(-1)),
            (_, known) => known.and_then(i64::checked_abs).map(Int::of),
        });
        return Ok(Known { dims, numbers: Numbers::Int(values.collect::<Option<_>>().ok_or(UNKNOWN)?) });
    }
    let function: fn(f64) -> f64 = match op {
        "Abs" => f64::abs,
        "Neg" => |v| -v,
        "Sqrt" => f64::sqrt,
        "Exp" => libm::exp,
        "Log" => libm::log,
        "Sin" => libm::sin,
        "Cos" => libm::cos,
        "Tanh" => libm::tanh,
        "Sigmoid" => |v| 1.0 / (1.0 + libm::exp(-v)),
        "Reciprocal" => |v| 1.0 / v,
        "Floor" => f64::floor,
        "Ceil" => f64::ceil,
        "Round" => f64::round_ties_even,
        _ => return Err("this op is not supported on constants".to_owned()),
    };
    let Numbers::Float(values) = &x.numbers else { return Err("it expects floating-point numbers".to_owned()) };
    Ok(Known { dims, numbers: Numbers::Float(values.iter().map(|&v| function(v)).collect()) })
}

/// The lengths of two together.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Lowered<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[Dim], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(Dim::Fixed(1), |axis| dims[axis]);
    let common = |axis| match (at(a, axis), at(b, axis)) {
        (a, b) if a == b => Ok(a),
        (Dim::Fixed(1), other) | (other, Dim::Fixed(1)) => Ok(other),
        (a, b) => Err(format!("lengths {a:?} and {b:?} meet")),
    };
    (0..rank).map(common).collect()
}

/// Where the numbers of `own` stand that a result of lengths `kept` reads.
pub fn spread(own: &[usize], kept: &[usize]) -> Vec<usize> {
    let steps = strides(own);
    let lead = kept.len() - own.len();
    let steps: Vec<usize> = own.iter().zip(steps).map(|(&n, step)| if n == 1 { 0 } else { step }).collect();
    places(kept, |index| index[lead..].iter().zip(&steps).map(|(i, step)| i * step).sum()).collect()
}

fn pair(f: &Folding, op: &str, a: &Known, b: &Known) -> Lowered<Known> {
    let dims = broadcast(&a.dims, &b.dims)?;
    f.check(&dims)?;
    let kept: Vec<usize> = dims.iter().map(|d| d.kept()).collect();
    let at = spread(&a.kept(), &kept).into_iter().zip(spread(&b.kept(), &kept));
    let numbers = match (&a.numbers, &b.numbers) {
        (Numbers::Int(x), Numbers::Int(y)) => match op {
            "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => {
                let compare = |(i, j): (usize, usize)| match op {
                    "Equal" => x[i].equals(y[j]),
                    "LessOrEqual" => x[i].at_most(y[j]),
                    "GreaterOrEqual" => y[j].at_most(x[i]),
                    "Less" => y[j].at_most(x[i]).map(|v| !v),
                    _ => x[i].at_most(y[j]).map(|v| !v),
                };
                Numbers::Bool(at.map(compare).collect::<Option<_>>().ok_or(UNKNOWN)?)
            }
            _ => {
                let compute = |(i, j): (usize, usize)| {
                    let (p, q) = (x[i], y[j]);
                    match op {
                        "Add" => p.add(q),
                        "Sub" => p.sub(q),
                        "Mul" => p.mul(q),
                        "Div" => p.div(q),
                        "Mod" if !f.call.flag("fmod") => p.known()?.checked_rem_euclid(q.known()?.checked_abs()?).map(Int::of),
                        "Pow" => p.known()?.checked_pow(u32::try_from(q.known()?).ok()?).map(Int::of),
                        // Exporters take the larger of two lists of places only to see how long it is.
                        "Max" => Some(p.at_most(q).map_or(Int::UNKNOWN, |less| if less { q } else { p })),
                        "Min" => Some(p.at_most(q).map_or(Int::UNKNOWN, |less| if less { p } else { q })),
                        _ => None,
                    }
                };
                Numbers::Int(
                    at.map(compute)
                        .collect::<Option<_>>()
                        .ok_or_else(|| format!("{op} of numbers that are too large, or depend on the batch"))?,
                )
            }
        },
        (Numbers::Bool(x), Numbers::Bool(y)) => Numbers::Bool(
            at.map(|(i, j)| match op {
                "And" => Ok(x[i] && y[j]),
                "Or" => Ok(x[i] || y[j]),
                "Xor" => Ok(x[i] != y[j]),
                "Equal" => Ok(x[i] == y[j]),
                _ => Err("it expects numbers".to_owned()),
            })
            .collect::<Lowered<_>>()?,
        ),
        (x, y) => {
            let (x, y) = (x.to_f64().ok_or(UNKNOWN)?, y.to_f64().ok_or(UNKNOWN)?);
            match op {
                "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => Numbers::Bool(
                    at.map(|(i, j)| match op {
                        "Equal" => x[i] == y[j],
                        "Less" => x[i] < y[j],
                        "LessOrEqual" => x[i] <= y[j],
                        "Greater" => x[i] > y[j],
                        _ => x[i] >= y[j],
                    })
                    .collect(),
                ),
                _ => Numbers::Float(
                    at.map(|(i, j)| match op {
                        "Add" => Ok(x[i] + y[j]),
                        "Sub" => Ok(x[i] - y[j]),
                        "Mul" => Ok(x[i] * y[j]),
                        "Div" => Ok(x[i] / y[j]),
                        "Pow" => Ok(libm::pow(x[i], y[j])),
                        "Max" => Ok(x[i].max(y[j])),
                        "Min" => Ok(x[i].min(y[j])),
                        "Mod" => Ok(x[i] % y[j]),
                        _ => Err("it expects truths".to_owned()),
                    })
                    .collect::<Lowered<_>>()?,
                ),
            }
        }
    };
    Ok(Known { dims, numbers })
}

fn choose(f: &Folding) -> Lowered<Known> {
    let (condition, x, y) = (f.input(0)?, f.input(1)?, f.input(2)?);
    let Numbers::Bool(chosen) = &condition.numbers else { return Err("the condition must be true or false".to_owned()) };
    let dims = broadcast(&broadcast(&condition.dims, &x.dims)?, &y.dims)?;
    f.check(&dims)?;
    let kept: Vec<usize> = dims.iter().map(|d| d.kept()).collect();
    let [at, of_x, of_y] = [condition.kept(), x.kept(), y.kept()].map(|own| spread(&own, &kept));
    let rows = || at.iter().zip(of_x.iter().zip(&of_y)).map(|(&c, (&i, &j))| (chosen[c], i, j));
    let numbers = match (&x.numbers, &y.numbers) {
        (Numbers::Int(x), Numbers::Int(y)) => Numbers::Int(rows().map(|(c, i, j)| if c { x[i] } else { y[j] }).collect()),
        (Numbers::Bool(x), Numbers::Bool(y)) => Numbers::Bool(rows().map(|(c, i, j)| if c { x[i] } else { y[j] }).collect()),
        (x, y) => {
            let (x, y) = (x.to_f64().ok_or(UNKNOWN)?, y.to_f64().ok_or(UNKNOWN)?);
            Numbers::Float(rows().map(|(c, i, j)| if c { x[i] } else { y[j] }).collect())
        }
    };
    Ok(Known { dims, numbers })
}

/// The axis of an input, which must not be the batch.
fn fixed_axis(known: &Known, axis: i64) -> Lowered<usize> {
    let axis = axis_of(axis, known.dims.len())?;
    if known.dims[axis] == Dim::Batch { Err("along the batch".to_owned()) } else { Ok(axis) }
}

fn cumsum(f: &Folding) -> Lowered<Known> {
    let x = f.input(0)?;
    if f.call.flag("exclusive") || f.call.flag("reverse") {
        return Err("`exclusive` and `reverse` are not supported".to_owned());
    }
    let axis = fixed_axis(x, *f.fixed_ints(1)?.first().ok_or("the axis is missing")?)?;
    let kept = x.kept();
    let step = strides(&kept)[axis];
    let mut result = x.clone();
    for (place, index) in places(&kept, |index| index[axis]).enumerate() {
        if index > 0 {
            match &mut result.numbers {
                Numbers::Int(v) => v[place] = v[place].add(v[place - step]).ok_or(UNKNOWN)?,
                Numbers::Float(v) => v[place] += v[place - step],
                Numbers::Bool(_) => return Err("it expects numbers".to_owned()),
            }
        }
    }
    Ok(result)
}

fn trilu(f: &Folding) -> Lowered<Known> {
    let x = f.input(0)?;
    let shift = f.optional(1).map_or(Some(0.0), Known::single).ok_or("the diagonal must be one number")?;
    let upper = f.call.int("upper").unwrap_or(1) != 0;
    let kept = x.kept();
    let rank = kept.len();
    if rank < 2 {
        return Err("it expects matrices".to_owned());
    }
    let stays: Vec<usize> = places(&kept, |index| {
        let above = index[rank - 1] as f64 - index[rank - 2] as f64;
        usize::from(if upper { above >= shift } else { above <= shift })
    })
    .collect();
    let mut result = x.clone();
    for (place, _) in stays.iter().enumerate().filter(|&(_, &stays)| stays == 0) {
        match &mut result.numbers {
            Numbers::Int(v) => v[place] = Int::of(0),
            Numbers::Float(v) => v[place] = 0.0,
            Numbers::Bool(v) => v[place] = false,
        }
    }
    Ok(result)
}

/// Products of matrices without a list of them, or with one on both sides.
fn matmul(f: &Folding) -> Lowered<Known> {
    let (a, b) = (f.input(0)?, f.input(1)?);
    let (ka, kb) = (a.kept(), b.kept());
    let (&[.., m, k], &[.., k_b, n]) = (ka.as_slice(), kb.as_slice()) else { return Err("it expects matrices".to_owned()) };
    let (lead_a, lead_b) = (&a.dims[..ka.len() - 2], &b.dims[..kb.len() - 2]);
    if k != k_b || [a.dims[ka.len() - 1], b.dims[kb.len() - 2]].contains(&Dim::Batch) {
        return Err("matrices that do not fit".to_owned());
    }
    let lead = broadcast(lead_a, lead_b)?;
    let dims = [lead.as_slice(), &[a.dims[ka.len() - 2], b.dims[kb.len() - 1]]].concat();
    let size = f.check(&dims)?;
    if size.checked_mul(k).is_none_or(|work| work > 1 << 28) {
        return Err("a product of constants that is too large".to_owned());
    }
    let (Some(x), Some(y)) = (a.numbers.to_f64(), b.numbers.to_f64()) else { return Err(UNKNOWN.to_owned()) };
    let kept: Vec<usize> = lead.iter().map(|d| d.kept()).collect();
    let at = spread(&ka[..ka.len() - 2], &kept).into_iter().zip(spread(&kb[..kb.len() - 2], &kept));
    let mut values = Vec::with_capacity(size);
    for (i, j) in at {
        for row in 0..m {
            for column in 0..n {
                values.push((0..k).map(|c| x[(i * m + row) * k + c] * y[(j * k + c) * n + column]).sum());
            }
        }
    }
    Ok(Known { dims, numbers: Numbers::Float(values) })
}

fn reduce(f: &Folding, op: &str) -> Lowered<Known> {
    let x = f.input(0)?;
    let rank = x.dims.len();
    let axes = match (f.optional(1), f.call.ints("axes")) {
        (Some(_), _) => f.fixed_ints(1)?,
        (None, Some(axes)) => axes.to_vec(),
        (None, None) => (0..rank as i64).collect(),
    };
    let axes = axes.into_iter().map(|axis| fixed_axis(x, axis)).collect::<Lowered<Vec<_>>>()?;
    let kept: Vec<usize> = x.kept();
    let narrow: Vec<usize> = kept.iter().enumerate().map(|(axis, &n)| if axes.contains(&axis) { 1 } else { n }).collect();
    let to = spread(&narrow, &kept);
    let n_results: usize = narrow.iter().product();
    let numbers = match (&x.numbers, op) {
        (Numbers::Int(values), "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin") => {
            let mut results: Vec<Option<Int>> = vec![None; n_results];
            for (&value, &place) in values.iter().zip(&to) {
                results[place] = Some(match results[place] {
                    None => value,
                    Some(so_far) => match op {
                        "ReduceProd" => so_far.mul(value),
                        "ReduceSum" => so_far.add(value),
                        "ReduceMax" => so_far.at_most(value).map(|less| if less { value } else { so_far }),
                        _ => so_far.at_most(value).map(|less| if less { so_far } else { value }),
                    }
                    .ok_or(UNKNOWN)?,
                });
            }
            Numbers::Int(results.into_iter().collect::<Option<_>>().ok_or("there is nothing to reduce")?)
        }
        (Numbers::Float(values), _) => {
            let start = match op {
                "ReduceProd" => 1.0,
                "ReduceMax" => f64::NEG_INFINITY,
                "ReduceMin" => f64::INFINITY,
                _ => 0.0,
            };
            let mut results = vec![start; n_results];
            for (&value, &place) in values.iter().zip(&to) {
                let so_far: f64 = results[place];
                results[place] = match op {
                    "ReduceProd" => so_far * value,
                    "ReduceMax" => so_far.max(value),
                    "ReduceMin" => so_far.min(value),
                    _ => so_far + value,
                };
            }
            let divisor = if op == "ReduceMean" { (values.len() / n_results.max(1)).max(1) as f64 } else { 1.0 };
            Numbers::Float(results.into_iter().map(|v| v / divisor).collect())
        }
        _ => return Err("it expects numbers".to_owned()),
    };
    let keep = f.call.int("keepdims").unwrap_or(1) != 0;
    let dims = x.dims.iter().enumerate().filter_map(|(axis, &dim)| match axes.contains(&axis) {
        true => keep.then_some(Dim::Fixed(1)),
        false => Some(dim),
    });
    Ok(Known { dims: dims.collect(), numbers })
}
