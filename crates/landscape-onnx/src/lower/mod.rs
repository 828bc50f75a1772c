//! The ops of a file, one after the other, as nodes of the network or as numbers.

mod activation;
mod attention;
mod binary;
mod conv;
mod index;
mod matmul;
mod norm;
mod pool;
mod reduce;
mod reshape;

use crate::fold;
use crate::ir::{Id, Ir, constant_values};
use crate::number::{Dim, Int, Known};
use crate::proto::{AttributeProto, NodeProto};
use crate::store::Stored;
use crate::value::{Axis, Live, Value, axis_of, local_shape};
use landscape_core::tensor::Dtype as Element;
use landscape_graph::{Op, Role};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Why an op was not imported.
pub type Lowered<T> = Result<T, String>;

/// Everything that is known while a file is imported.
pub struct Importer {
    pub ir: Ir,
    pub store: Vec<Stored>,
    /// The version of ONNX's ops.
    pub opset: i64,
    /// The size of the batch, where the file fixes it.
    pub batch: Option<usize>,
    /// Whether the file says which tensors are parameters.
    pub says_kinds: bool,
    /// How many numbers may still be computed ahead; a file must not make a machine run full.
    pub budget: usize,
    stored_nodes: BTreeMap<usize, Id>,
    known_nodes: Vec<(Rc<Known>, Live)>,
}

/// An op with what it reads.
pub struct Call<'a> {
    pub node: &'a NodeProto,
    pub inputs: Vec<Option<Value>>,
}

impl<'a> Call<'a> {
    pub fn input(&self, idx: usize) -> Lowered<&Value> {
        self.optional(idx).ok_or_else(|| format!("input {idx} is missing"))
    }

    pub fn optional(&self, idx: usize) -> Option<&Value> {
        self.inputs.get(idx).and_then(Option::as_ref)
    }

    pub fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.attribute.iter().find(|a| a.name() == name)
    }

    pub fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name).and_then(|a| a.i)
    }

    pub fn flag(&self, name: &str) -> bool {
        self.int(name).unwrap_or(0) != 0
    }

    pub fn float(&self, name: &str) -> Option<f64> {
        self.attribute(name).and_then(|a| a.f).map(decimal)
    }

    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.attribute(name).and_then(|a| a.s.as_ref()).map(|s| String::from_utf8_lossy(s))
    }
}

fn is_vector(dims: &[usize]) -> bool {
    dims.iter().filter(|&&d| d > 1).count() < 2
}

/// The number that someone wrote who got this one in single precision: 1e-5 for 9.99999974737875e-6.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

impl Importer {
    pub fn new(store: Vec<Stored>, opset: i64, batch: Option<usize>, says_kinds: bool, budget: usize) -> Self {
        Importer { ir: Ir::default(), store, opset, batch, says_kinds, budget, stored_nodes: BTreeMap::new(), known_nodes: Vec::new() }
    }

    /// What an op yields, output by output.
    pub fn lower(&mut self, call: &Call) -> Lowered<Vec<Value>> {
        if let Some(attribute) = call.node.attribute.iter().find(|a| a.ref_attr_name.is_some()) {
            return Err(format!("attribute `{}` refers to a function's, and functions are not supported", attribute.name()));
        }
        if !matches!(call.node.domain(), "" | "ai.onnx") {
            return Err(format!("an op of `{}`, not of ONNX itself", call.node.domain()));
        }
        let inputs = call.inputs.iter().flatten();
        let op = call.node.op_type();
        if let Some(value) = self.passed_on(op, call)? {
            return Ok(vec![value]);
        }
        if fold::FOLDED.contains(&op) && inputs.clone().all(|value| self.is_known(value)) {
            let inputs = call.inputs.iter().map(|value| value.as_ref().map(|v| self.known(v)).transpose()).collect::<Lowered<Vec<_>>>()?;
            let inputs: Vec<Option<Rc<Known>>> = inputs.into_iter().map(Option::flatten).collect();
            let known = fold::fold(call, &inputs, self.budget)?;
            for known in &known {
                self.spend(known.numbers.len())?;
            }
            return Ok(known.into_iter().map(Value::known).collect());
        }
        self.network(op, call)
    }

    fn network(&mut self, op: &str, call: &Call) -> Lowered<Vec<Value>> {
        let one = |value: Live| vec![Value::Live(value)];
        match op {
            "Conv" => self.conv(call).map(one),
            "ConvTranspose" => self.conv_transpose(call).map(one),
            "MatMul" => self.mat_mul(call).map(one),
            "Gemm" => self.gemm(call).map(one),
            "Attention" => self.attention(call).map(one),
            "BatchNormalization" => self.batch_norm(call).map(one),
            "LayerNormalization" => self.layer_norm(call).map(one),
            "RMSNormalization" => self.rms_norm(call).map(one),
            "InstanceNormalization" => self.instance_norm(call).map(one),
            "GroupNormalization" => self.group_norm(call).map(one),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Sum" | "Max" | "Min" => self.arithmetic(op, call).map(one),
            "Where" => self.choose(call).map(|value| vec![value]),
            "PRelu" => self.prelu(call).map(one),
            "MaxPool" => self.max_pool(call).map(one),
            "AveragePool" => self.average_pool(call).map(one),
            "GlobalAveragePool" => self.global_average_pool(call).map(one),
            "Resize" | "Upsample" => self.resize(call).map(one),
            "ReduceMean" | "ReduceSum" => self.reduce(op, call).map(one),
            "Pad" => self.pad_op(call).map(one),
            "Shape" => self.shape(call).map(|value| vec![value]),
            "Size" => {
                let axes = self.live(call.input(0)?)?.axes;
                let size = axes.iter().try_fold(Int::of(1), |n, axis| n.mul(axis.int()));
                let size = size.ok_or("a size that depends on the batch in more than one way")?;
                Ok(vec![Value::known(Known::scalar(crate::number::Numbers::Int(vec![size])))])
            }
            "Flatten" => self.flatten(call).map(one),
            "Reshape" => self.reshape(call).map(one),
            "Transpose" => self.transpose(call).map(one),
            "Squeeze" => self.squeeze(call).map(one),
            "Unsqueeze" => self.unsqueeze(call).map(one),
            "Expand" => self.expand(call).map(one),
            "Tile" => self.tile(call).map(one),
            "Gather" => self.gather(call).map(one),
            "Slice" => self.slice(call).map(one),
            "Split" => Ok(self.split(call)?.into_iter().map(Value::Live).collect()),
            "SplitToSequence" => Ok(vec![Value::Sequence(Rc::new(self.split(call)?))]),
            "SequenceAt" => self.sequence_at(call).map(one),
            "Concat" => self.concat(call).map(one),
            "Softmax" => {
                let x = self.live(call.input(0)?)?;
                let dim = x.local(axis_of(call.int("axis").unwrap_or(-1), x.axes.len())?)?;
                let id = self.ir.push(Op::Softmax { dim }, &[x.id])?;
                Ok(one(x.with(id)))
            }
            // A softmax that has no row without places is never NaN.
            "IsNaN" => Ok(vec![Value::known(Known::scalar(crate::number::Numbers::Bool(vec![false])))]),
            "If" | "Loop" | "Scan" | "SequenceMap" => {
                Err("control flow: what a network computes must not depend on its numbers".to_owned())
            }
            "LogSoftmax" => Err("the losses here take logits: export the network without its last log-softmax".to_owned()),
            _ => self.activation(op, call).map(one),
        }
    }

    /// Ops that leave numbers as they are.
    fn passed_on(&mut self, op: &str, call: &Call) -> Lowered<Option<Value>> {
        let value = match op {
            "Identity" | "Cast" | "CastLike" => call.input(0)?,
            _ => return Ok(None),
        };
        match (op, value) {
            // Exporters keep one of several tensors that happen to be equal. Matrices are so only if they are shared; vectors, such as
            // the factors of new norms, are parameters each.
            ("Identity", &Value::Stored(idx)) if self.store[idx].learned && !self.says_kinds && is_vector(&self.store[idx].dims) => {
                let name = call.node.output.first().cloned().unwrap_or_default();
                self.store.push(Stored { name, ..self.store[idx].clone() });
                Ok(Some(Value::Stored(self.store.len() - 1)))
            }
            ("Identity", value) | ("Cast" | "CastLike", value @ (Value::Live(_) | Value::Sequence(_))) => Ok(Some(value.clone())),
            ("Cast", &Value::Stored(idx)) if self.store[idx].dtype.is_float() => {
                let to = crate::store::dtype(i32::try_from(call.int("to").unwrap_or(0)).unwrap_or(0))?;
                Ok(to.is_float().then_some(Value::Stored(idx)))
            }
            ("CastLike", &Value::Stored(idx)) if self.store[idx].learned => Ok(Some(Value::Stored(idx))),
            // What a constant becomes is a matter of its new type alone.
            ("CastLike", value) => {
                let Some(known) = self.known(value)? else { return Ok(None) };
                let like = match call.input(1)? {
                    Value::Live(_) => fold::Kind::Float,
                    &Value::Stored(idx) => fold::Kind::of(self.store[idx].dtype),
                    Value::Known(like) => fold::Kind::of_numbers(&like.numbers),
                    Value::Sequence(_) | Value::Lost => return Ok(None),
                };
                Ok(Some(Value::known(Known { dims: known.dims.clone(), numbers: fold::cast(&known.numbers, like)? })))
            }
            _ => Ok(None),
        }
    }

    /// Counts numbers that are computed ahead.
    pub fn spend(&mut self, n: usize) -> Lowered<()> {
        self.budget = self.budget.checked_sub(n).ok_or("the constants that the file computes are too large for its size")?;
        Ok(())
    }

    fn is_known(&self, value: &Value) -> bool {
        match value {
            Value::Known(_) => true,
            Value::Stored(idx) => !self.store[*idx].learned,
            _ => false,
        }
    }

    /// The numbers of a value that has some before any input is there.
    pub fn known(&self, value: &Value) -> Lowered<Option<Rc<Known>>> {
        match value {
            Value::Known(known) => Ok(Some(known.clone())),
            Value::Stored(idx) if !self.store[*idx].learned => {
                self.store[*idx].known().map(|known| Some(Rc::new(known))).map_err(|e| e.to_string())
            }
            _ => Ok(None),
        }
    }

    /// The numbers of an input that must have some.
    pub fn constant(&self, value: &Value, what: &str) -> Lowered<Rc<Known>> {
        self.known(value)?.ok_or_else(|| format!("{what} depends on the input, and a graph is static"))
    }

    /// Whole numbers that must be there.
    pub fn ints(&self, value: &Value, what: &str) -> Lowered<Vec<Int>> {
        let known = self.constant(value, what)?;
        known.as_ints().map(<[Int]>::to_vec).ok_or_else(|| format!("{what} must be whole numbers"))
    }

    /// Whole numbers that do not depend on the batch.
    pub fn fixed_ints(&self, value: &Value, what: &str) -> Lowered<Vec<i64>> {
        let ints = self.ints(value, what)?;
        ints.into_iter().map(|i| i.known().ok_or_else(|| format!("{what} depends on the size of the batch"))).collect()
    }

    /// One floating-point number that must be there.
    pub fn number(&self, value: &Value, what: &str) -> Lowered<f64> {
        self.constant(value, what)?.single().ok_or_else(|| format!("{what} must be one number"))
    }

    /// The value as a node.
    pub fn live(&mut self, value: &Value) -> Lowered<Live> {
        match value {
            Value::Live(live) => Ok(live.clone()),
            Value::Known(known) => {
                if let Some((_, live)) = self.known_nodes.iter().find(|(other, _)| Rc::ptr_eq(other, known)) {
                    return Ok(live.clone());
                }
                let values = constant_values(known)?;
                self.spend(values.len())?;
                let axes: Vec<Axis> = known.dims.iter().map(|&dim| Axis::of_dim(dim)).collect();
                let live = Live { id: self.ir.constant(local_shape(&axes), values)?, axes };
                self.known_nodes.push((known.clone(), live.clone()));
                Ok(live)
            }
            &Value::Stored(idx) => {
                let stored = &self.store[idx];
                let axes: Vec<Axis> = stored.dims.iter().map(|&d| Axis::Local(d)).collect();
                if let Some(&id) = self.stored_nodes.get(&idx) {
                    return Ok(Live { id, axes });
                }
                let id = if stored.learned {
                    self.ir.push_with(Op::Parameter { shape: local_shape(&axes) }, &[], BTreeMap::from([(Role::Parameter, idx)]))?
                } else {
                    let known = stored.known().map_err(|e| e.to_string())?;
                    self.spend(known.numbers.len())?;
                    self.ir.constant(local_shape(&axes), constant_values(&known)?)?
                };
                self.stored_nodes.insert(idx, id);
                Ok(Live { id, axes })
            }
            Value::Sequence(_) => Err("a list of values where one is expected".to_owned()),
            Value::Lost => Err("reads an op that was not imported".to_owned()),
        }
    }

    /// The tensor that an op learns, which must stand in the file.
    pub fn learned(&mut self, value: &Value, name: &str, what: &str) -> Lowered<usize> {
        let refused = || format!("{what} must be a tensor of the file, and is computed");
        match value {
            Value::Stored(idx) if self.store[*idx].dtype.is_float() => Ok(*idx),
            Value::Live(live) if live.batch().is_none() => crate::fuse::parameter(&self.ir, live.id).ok_or_else(refused),
            Value::Known(known) => {
                let crate::number::Numbers::Float(values) = &known.numbers else { return Err(refused()) };
                let dims: Option<Vec<usize>> = known.dims.iter().map(|&d| if let Dim::Fixed(n) = d { Some(n) } else { None }).collect();
                let dims = dims.ok_or_else(refused)?;
                let bytes: Vec<u8> = values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect();
                self.spend(values.len())?;
                self.store.push(Stored { name: name.to_owned(), dims, dtype: Element::F32, bytes: bytes.into(), learned: true });
                Ok(self.store.len() - 1)
            }
            _ => Err(refused()),
        }
    }

    /// The name of an input of a node.
    pub fn input_name<'a>(call: &Call<'a>, idx: usize) -> &'a str {
        call.node.input.get(idx).map_or("", String::as_str)
    }

    /// A vector that an op learns, of that length.
    pub fn learned_vector(&mut self, call: &Call, idx: usize, n: usize, what: &str) -> Lowered<usize> {
        let tensor = self.learned(call.input(idx)?, Self::input_name(call, idx), what)?;
        let found = self.store[tensor].n_elements();
        if found == n { Ok(tensor) } else { Err(format!("{what} must have {n} numbers, got {found}")) }
    }

    /// The same numbers with other axes.
    pub fn reaxed(&mut self, id: Id, axes: Vec<Axis>) -> Lowered<Live> {
        let id = self.ir.push(Op::Reshape { shape: local_shape(&axes) }, &[id])?;
        Ok(Live { id, axes })
    }

    /// A value whose first axis is the batch and whose others are the node's.
    pub fn batch_first(&mut self, value: &Value) -> Lowered<Live> {
        let live = self.live(value)?;
        match live.axes.split_first() {
            Some((Axis::Batch, rest)) if rest.iter().all(|axis| axis.is_local()) => Ok(live),
            _ => Err("the batch is not its first axis".to_owned()),
        }
    }
}
