//! Ops on two values, whose axes are aligned at the last as ONNX does.

use super::{Call, Importer, Lowered};
use crate::ir::Id;
use crate::number::{Known, Numbers};
use crate::value::{Axis, Live, Value};
use landscape_graph::{Op, broadcast};
use std::rc::Rc;

/// Masked numbers below this leave nothing behind a softmax, whatever is added to them.
const HIDDEN: f64 = -1e30;

impl Importer {
    pub fn arithmetic(&mut self, op: &str, call: &Call) -> Lowered<Live> {
        let mut values = call.inputs.iter().flatten();
        let mut result = values.next().ok_or("it has no inputs")?.clone();
        let mut n_inputs = 1;
        for value in values {
            result = Value::Live(self.pair(op, &result, value)?);
            n_inputs += 1;
        }
        if n_inputs < 2 && !matches!(op, "Sum" | "Max" | "Min") { Err("it has one input".to_owned()) } else { self.live(&result) }
    }

    fn pair(&mut self, op: &str, a: &Value, b: &Value) -> Lowered<Live> {
        let (of_a, of_b) = (self.single(a, b)?, self.single(b, a)?);
        match (op, of_a, of_b) {
            ("Add" | "Sum", Some(c), None) => self.affine(b, 1.0, c),
            ("Add" | "Sum", _, Some(c)) => self.affine(a, 1.0, c),
            ("Sub", Some(c), None) => self.affine(b, -1.0, c),
            ("Sub", _, Some(c)) => self.affine(a, 1.0, -c),
            ("Mul", Some(c), None) => self.affine(b, c, 0.0),
            ("Mul", _, Some(c)) => self.affine(a, c, 0.0),
            ("Div", _, Some(c)) => self.affine(a, 1.0 / c, 0.0),
            ("Div", Some(c), None) => {
                let inverse = self.unary(b, Op::Power { exponent: -1.0 })?;
                self.affine(&Value::Live(inverse), c, 0.0)
            }
            ("Pow", _, Some(exponent)) => self.unary(a, Op::Power { exponent }),
            ("Pow", ..) => Err("the exponent must be one constant number".to_owned()),
            ("Max", Some(c), None) => self.at_least(b, c),
            ("Max", _, Some(c)) => self.at_least(a, c),
            ("Min", Some(c), None) => self.at_most(b, c),
            ("Min", _, Some(c)) => self.at_most(a, c),
            ("Max" | "Min", ..) => Err("of two values, one must be one constant number".to_owned()),
            ("Add" | "Sum", ..) => self.both(Op::Add, a, b),
            ("Mul", ..) => self.both(Op::Multiply, a, b),
            ("Sub", ..) => {
                let minus = self.negated(b)?;
                self.both(Op::Add, a, &minus)
            }
            ("Div", ..) => {
                let inverse = self.inverse(b)?;
                self.both(Op::Multiply, a, &inverse)
            }
            _ => Err("it is not an op on two values".to_owned()),
        }
    }

    /// The number of a constant that is one number and adds no axis to the other.
    fn single(&self, value: &Value, other: &Value) -> Lowered<Option<f64>> {
        let Value::Live(other) = other else { return self.single_of(value) };
        match self.known(value)? {
            Some(known) if known.dims.len() <= other.axes.len() => Ok(known.single()),
            _ => Ok(None),
        }
    }

    fn single_of(&self, value: &Value) -> Lowered<Option<f64>> {
        match value {
            Value::Stored(idx) if self.store[*idx].n_elements() != 1 => Ok(None),
            value => Ok(self.known(value)?.filter(|known| known.dims.is_empty()).and_then(|known| known.single())),
        }
    }

    fn negated(&mut self, value: &Value) -> Lowered<Value> {
        match self.numbers(value, |v| -v)? {
            Some(known) => Ok(known),
            None => self.affine(value, -1.0, 0.0).map(Value::Live),
        }
    }

    fn inverse(&mut self, value: &Value) -> Lowered<Value> {
        match self.numbers(value, |v| 1.0 / v)? {
            Some(known) => Ok(known),
            None => self.unary(value, Op::Power { exponent: -1.0 }).map(Value::Live),
        }
    }

    /// A constant with something done to each number.
    fn numbers(&mut self, value: &Value, f: impl Fn(f64) -> f64) -> Lowered<Option<Value>> {
        let Some(known) = self.known(value)? else { return Ok(None) };
        let values = crate::ir::constant_values(&known)?;
        self.spend(values.len())?;
        Ok(Some(Value::known(Known { dims: known.dims.clone(), numbers: Numbers::Float(values.into_iter().map(f).collect()) })))
    }

    pub fn affine(&mut self, value: &Value, scale: f64, shift: f64) -> Lowered<Live> {
        self.unary(value, Op::Affine { scale, shift })
    }

    fn at_least(&mut self, value: &Value, c: f64) -> Lowered<Live> {
        let op = if c == 0.0 { Op::Relu } else { Op::Hardtanh { min_val: c, max_val: f64::from(f32::MAX) } };
        self.unary(value, op)
    }

    fn at_most(&mut self, value: &Value, c: f64) -> Lowered<Live> {
        self.unary(value, Op::Hardtanh { min_val: f64::from(f32::MIN), max_val: c })
    }

    /// An op on each number alone.
    pub fn unary(&mut self, value: &Value, op: Op) -> Lowered<Live> {
        let x = self.live(value)?;
        let id = self.ir.push(op, &[x.id])?;
        Ok(x.with(id))
    }

    /// A sum or product of two values.
    pub fn both(&mut self, op: Op, a: &Value, b: &Value) -> Lowered<Live> {
        let (a, b) = (self.live(a)?, self.live(b)?);
        let (a, b, axes) = self.aligned(&a, &b)?;
        let id = self.ir.push(op, &[a, b])?;
        Ok(Live { id, axes })
    }

    /// Two values as nodes whose own axes meet where those of the values do, and the axes of the result.
    pub fn aligned(&mut self, a: &Live, b: &Live) -> Lowered<(Id, Id, Vec<Axis>)> {
        match (a.batch(), b.batch()) {
            (Some(_), None) => {
                let (b, axes) = self.beside(b, a)?;
                Ok((a.id, b, axes))
            }
            (None, Some(_)) => {
                let (a, axes) = self.beside(a, b)?;
                Ok((a, b.id, axes))
            }
            _ => {
                let rank = a.axes.len().max(b.axes.len());
                let mut axes = Vec::new();
                for back in (1..=rank).rev() {
                    let at = |live: &Live| live.axes.len().checked_sub(back).map(|axis| live.axes[axis]);
                    axes.push(common(at(a), at(b))?);
                }
                Ok((a.id, b.id, axes))
            }
        }
    }

    /// A value without a batch beside one with: its axis that meets the batch must have length 1, and goes.
    fn beside(&mut self, plain: &Live, of_batch: &Live) -> Lowered<(Id, Vec<Axis>)> {
        let (mut shape, mut axes) = (Vec::new(), Vec::new());
        for back in 1..=plain.axes.len().max(of_batch.axes.len()) {
            let at = |live: &Live| live.axes.len().checked_sub(back).map(|axis| live.axes[axis]);
            let (own, other) = (at(plain), at(of_batch));
            axes.push(match other {
                Some(Axis::Batch | Axis::Mixed { .. }) => {
                    let n = own.map_or(1, |axis| axis.locals().iter().product());
                    if n != 1 && Some(n) != self.batch {
                        return Err(format!("an axis of length {n} beside the batch"));
                    }
                    if n != 1 {
                        return Err(format!("numbers that differ from example to example: an axis of length {n} beside the batch"));
                    }
                    if own.is_some() {
                        shape.extend(other.map(|axis| vec![1; axis.locals().len()]).unwrap_or_default());
                    }
                    other.unwrap_or(Axis::Batch)
                }
                _ => {
                    shape.extend(own.map(|axis| axis.locals()).unwrap_or_default());
                    common(own, other)?
                }
            });
        }
        shape.reverse();
        axes.reverse();
        if shape.is_empty() {
            shape.push(1);
        }
        Ok((self.ir.push(Op::Reshape { shape }, &[plain.id])?, axes))
    }

    /// Where(condition, x, y) with a condition that is known.
    pub fn choose(&mut self, call: &Call) -> Lowered<Value> {
        let condition = self.constant(call.input(0)?, "the condition")?;
        let (x, y) = (call.input(1)?, call.input(2)?);
        let Numbers::Bool(chosen) = &condition.numbers else { return Err("the condition must be true or false".to_owned()) };
        let rank = |value: &Value| match value {
            Value::Live(live) => live.axes.len(),
            Value::Known(known) => known.dims.len(),
            Value::Stored(idx) => self.store[*idx].dims.len(),
            _ => 0,
        };
        // All of one value, as long as the others do not make it larger.
        for (all, value, other) in [(true, x, y), (false, y, x)] {
            let alone = condition.dims.len() <= rank(value) && condition.kept().iter().all(|&d| d == 1);
            if alone && rank(other) <= rank(value) && self.single_of_any(other)?.is_some() && chosen.iter().all(|&c| c == all) {
                return Ok(value.clone());
            }
            if alone && chosen.iter().all(|&c| c == all) && self.same_shape(value, other)? {
                return Ok(value.clone());
            }
        }
        self.spend(2 * chosen.len())?;
        let mask = |of: bool, hit: f64, miss: f64| {
            let numbers = Numbers::Float(chosen.iter().map(|&c| if c == of { hit } else { miss }).collect());
            Value::Known(Rc::new(Known { dims: condition.dims.clone(), numbers }))
        };
        for (of, value, other) in [(true, x, y), (false, y, x)] {
            if let Some(fill) = self.single_of_any(other)?
                && fill <= HIDDEN
            {
                return self.both(Op::Add, value, &mask(of, 0.0, fill)).map(Value::Live);
            }
        }
        let (x, y) = (self.both(Op::Multiply, x, &mask(true, 1.0, 0.0))?, self.both(Op::Multiply, y, &mask(false, 1.0, 0.0))?);
        self.both(Op::Add, &Value::Live(x), &Value::Live(y)).map(Value::Live)
    }

    fn single_of_any(&self, value: &Value) -> Lowered<Option<f64>> {
        Ok(self.known(value)?.and_then(|known| known.single()))
    }

    fn same_shape(&self, a: &Value, b: &Value) -> Lowered<bool> {
        match (a, b) {
            (Value::Live(a), Value::Live(b)) => Ok(a.axes == b.axes),
            _ => Ok(false),
        }
    }

    /// relu(x) + slope · (x − relu(x)).
    pub fn prelu(&mut self, call: &Call) -> Lowered<Live> {
        let x = call.input(0)?;
        let above = Value::Live(self.unary(x, Op::Relu)?);
        let minus = Value::Live(self.affine(&above, -1.0, 0.0)?);
        let below = Value::Live(self.both(Op::Add, x, &minus)?);
        let below = Value::Live(self.pair("Mul", &below, call.input(1)?)?);
        self.both(Op::Add, &above, &below)
    }
}

/// The axis of a result where two meet.
fn common(a: Option<Axis>, b: Option<Axis>) -> Lowered<Axis> {
    match (a, b) {
        (Some(a), Some(b)) if a == b => Ok(a),
        (Some(Axis::Local(a)), Some(Axis::Local(b))) => {
            let n = broadcast(&[a], &[b]).ok_or_else(|| format!("axes of lengths {a} and {b} meet"))?;
            Ok(Axis::Local(n[0]))
        }
        (Some(axis), None) | (None, Some(axis)) => Ok(axis),
        _ => Err("the batch of one value meets another axis of the other".to_owned()),
    }
}
