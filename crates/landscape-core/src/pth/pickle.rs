//! The part of the pickle language that builds plain data.
//!
//! A pickle is a program for a stack machine. This machine knows the opcodes of protocols 0 to 5 that make numbers, texts, tuples,
//! lists and dictionaries; of functions and classes it knows [`Global`], which it carries out itself. Everything else is refused
//! with its name. All values live in vectors and refer to each other by index, so that neither cycles nor depth matter, and what a
//! pickle can make is bounded by its own length times a small constant.
//!
//! # Source
//! The opcodes as CPython's `pickletools` documents them; persistent ids and rebuilding functions as `torch/_utils.py` has them.

use super::data::{Data, Global, Result, Storage, Tensor, Value};
use crate::tensor::Dtype;
use std::collections::BTreeMap;

/// Runs a pickle; what is wrong is told as the end of a sentence that begins with the pickle's name.
pub(super) fn load(bytes: &[u8]) -> Result<Data> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        budget: 2 * bytes.len(),
        data: Data::default(),
    };
    loop {
        let start = machine.at;
        match machine.step() {
            Ok(false) => {}
            Ok(true) => return Ok(machine.data),
            Err(Stop::Refused(name)) => {
                return Err(format!(
                    "asks to run `{name}`; refused: nothing in a file is executed (in PyTorch, save `model.state_dict()` alone)"
                ));
            }
            Err(Stop::Wrong(reason)) => return Err(format!("is no sound pickle: byte {start}: it {reason}")),
        }
    }
}

enum Stop {
    /// It names what is not on the list.
    Refused(String),
    Wrong(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Stop::Wrong(reason)
    }
}

impl From<&str> for Stop {
    fn from(reason: &str) -> Self {
        Stop::Wrong(reason.to_owned())
    }
}

type Stepped<T> = std::result::Result<T, Stop>;

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Value>,
    /// How many values may still be copied. Without it a short pickle could copy one long list again and again; a sound one
    /// writes most of its lists out, at two bytes or more per number.
    budget: usize,
    data: Data,
}

impl<'a> Machine<'a> {
    /// Carries out one opcode; `true` at the end.
    fn step(&mut self) -> Stepped<bool> {
        let [opcode] = self.take_array()?;
        match opcode {
            // PROTO, FRAME: how the rest is written, which shows anyway.
            0x80 => {
                let [version] = self.take_array()?;
                if version > 5 {
                    return Err(format!("has protocol {version}, expected at most 5").into());
                }
            }
            0x95 => drop(self.take_array::<8>()?),
            // STOP
            b'.' => {
                self.data.root = self.pop()?;
                return Ok(true);
            }
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            // BININT, BININT1, BININT2, LONG1, LONG4, INT, LONG
            b'J' => {
                let value = i32::from_le_bytes(self.take_array()?);
                self.stack.push(Value::Int(value.into()));
            }
            b'K' => {
                let [value] = self.take_array()?;
                self.stack.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.take_array()?);
                self.stack.push(Value::Int(value.into()));
            }
            0x8a | 0x8b => {
                let n = if opcode == 0x8a { self.length::<1>()? } else { self.length::<4>()? };
                let value = long(self.take(n)?);
                self.stack.push(value);
            }
            b'I' | b'L' => {
                let value = match self.take_line()? {
                    b"00" => Value::Bool(false),
                    b"01" => Value::Bool(true),
                    line => {
                        let text = std::str::from_utf8(line).map_err(|_| "holds a number that is no text")?;
                        text.trim_end_matches('L').parse().map_or(Value::Other, Value::Int)
                    }
                };
                self.stack.push(value);
            }
            // BINFLOAT, FLOAT
            b'G' => {
                self.take_array::<8>()?;
                self.stack.push(Value::Other);
            }
            b'F' => {
                self.take_line()?;
                self.stack.push(Value::Other);
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, UNICODE; STRING, BINSTRING, SHORT_BINSTRING of Python 2
            b'X' | b'T' => self.push_text::<4>()?,
            0x8c | b'U' => self.push_text::<1>()?,
            0x8d => self.push_text::<8>()?,
            b'V' | b'S' => {
                let line = self.take_line()?;
                let unquoted = line.strip_prefix(b"'").and_then(|l| l.strip_suffix(b"'")).filter(|_| opcode == b'S');
                let text = self.data.new_text(unquoted.unwrap_or(line))?;
                self.stack.push(text);
            }
            // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
            b'B' => self.skip_bytes::<4>()?,
            b'C' => self.skip_bytes::<1>()?,
            0x8e | 0x96 => self.skip_bytes::<8>()?,
            // EMPTY_TUPLE, EMPTY_LIST, EMPTY_SET
            b')' | b']' | 0x8f => self.push_items(Vec::new()),
            // TUPLE, LIST, FROZENSET
            b't' | b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push_items(items);
            }
            // TUPLE1, TUPLE2, TUPLE3
            0x85..=0x87 => {
                let n = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(n).filter(|&s| self.marks.last().is_none_or(|&m| m <= s));
                let items = self.stack.split_off(start.ok_or("takes more than there is on the stack")?);
                self.push_items(items);
            }
            // APPEND; APPENDS, ADDITEMS
            b'a' => {
                let item = self.pop()?;
                self.extend_items(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend_items(items)?;
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => {
                let dict = self.data.new_dict(Vec::new());
                self.stack.push(dict);
            }
            b'd' => {
                let items = pairs(&self.pop_mark()?)?;
                let dict = self.data.new_dict(items);
                self.stack.push(dict);
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(vec![(key, value)])?;
            }
            b'u' => {
                let items = pairs(&self.pop_mark()?)?;
                self.extend_dict(items)?;
            }
            // BINPUT, LONG_BINPUT, PUT, MEMOIZE
            b'q' => {
                let [at] = self.take_array()?;
                self.remember(at.into())?;
            }
            b'r' => {
                let at = u32::from_le_bytes(self.take_array()?);
                self.remember(at.into())?;
            }
            b'p' => {
                let at = self.take_index()?;
                self.remember(at)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            // BINGET, LONG_BINGET, GET
            b'h' => {
                let [at] = self.take_array()?;
                self.recall(at.into())?;
            }
            b'j' => {
                let at = u32::from_le_bytes(self.take_array()?);
                self.recall(at.into())?;
            }
            b'g' => {
                let at = self.take_index()?;
                self.recall(at)?;
            }
            // GLOBAL, INST; STACK_GLOBAL
            b'c' | b'i' => {
                let (module, name) = (self.take_line()?, self.take_line()?);
                let (module, name) = (String::from_utf8_lossy(module), String::from_utf8_lossy(name));
                if opcode == b'i' {
                    return Err(Stop::Refused(format!("{module}.{name}")));
                }
                self.push_global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(module), Some(name)) = (self.data.text(module), self.data.text(name)) else {
                    return Err("names a class by something else than texts".into());
                };
                let (module, name) = (module.to_owned(), name.to_owned());
                self.push_global(&module, &name)?;
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let Value::Global(global) = callable else {
                    return Err(format!("calls {}", callable.describe()).into());
                };
                let made = self.call(global, arguments)?;
                self.stack.push(made);
            }
            // BUILD: attributes, such as the `_metadata` of a state dict, are passed over.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.stack.push(storage);
            }
            other => return Err(format!("has opcode {other:#04x}, which no state dict needs").into()),
        }
        Ok(false)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len()).ok_or("ends too early")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were asked for"))
    }

    fn take_line(&mut self) -> Result<&'a [u8]> {
        let n = self.bytes[self.at..].iter().position(|&b| b == b'\n').ok_or("ends within a line")?;
        let line = self.take(n)?;
        self.at += 1;
        Ok(line)
    }

    fn take_index(&mut self) -> Result<u64> {
        let line = self.take_line()?;
        std::str::from_utf8(line).ok().and_then(|l| l.parse().ok()).ok_or_else(|| "has an index that is no number".to_owned())
    }

    /// An unsigned length of N bytes.
    fn length<const N: usize>(&mut self) -> Result<usize> {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(self.take(N)?);
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| "ends too early".to_owned())
    }

    fn push_text<const N: usize>(&mut self) -> Result<()> {
        let n = self.length::<N>()?;
        let text = self.take(n)?;
        let text = self.data.new_text(text)?;
        self.stack.push(text);
        Ok(())
    }

    fn skip_bytes<const N: usize>(&mut self) -> Result<()> {
        let n = self.length::<N>()?;
        self.take(n)?;
        self.stack.push(Value::Other);
        Ok(())
    }

    fn push_items(&mut self, items: Vec<Value>) {
        let items = self.data.new_items(items);
        self.stack.push(items);
    }

    fn push_global(&mut self, module: &str, name: &str) -> Stepped<()> {
        let global = Global::find(module, name).ok_or_else(|| Stop::Refused(format!("{module}.{name}")))?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn top(&self) -> Result<Value> {
        let above_mark = self.marks.last().is_none_or(|&mark| self.stack.len() > mark);
        self.stack.last().copied().filter(|_| above_mark).ok_or_else(|| "takes more than there is on the stack".to_owned())
    }

    fn pop(&mut self) -> Result<Value> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or("takes up to a mark that is not there")?;
        Ok(self.stack.split_off(mark))
    }

    fn extend_items(&mut self, more: Vec<Value>) -> Result<()> {
        let Value::Items(at) = self.top()? else { return Err(format!("appends to {}", self.top()?.describe())) };
        self.data.items[at].extend(more);
        Ok(())
    }

    fn extend_dict(&mut self, more: Vec<(Value, Value)>) -> Result<()> {
        let Value::Dict(at) = self.top()? else { return Err(format!("sets items of {}", self.top()?.describe())) };
        self.data.dicts[at].extend(more);
        Ok(())
    }

    fn remember(&mut self, at: u64) -> Result<()> {
        let value = self.top()?;
        self.memo.insert(at, value);
        Ok(())
    }

    fn recall(&mut self, at: u64) -> Result<()> {
        let value = *self.memo.get(&at).ok_or_else(|| format!("recalls value {at}, which it never stored"))?;
        self.stack.push(value);
        Ok(())
    }

    /// Takes the length of a list off the budget.
    fn pay(&mut self, list: Value) -> Result<()> {
        let n = self.data.items(list)?.len();
        self.budget = self.budget.checked_sub(n).ok_or("copies lists again and again")?;
        Ok(())
    }

    /// What a call of a listed function gives.
    fn call(&mut self, global: Global, arguments: Value) -> Result<Value> {
        let arguments = self.data.items(arguments)?;
        let n_arguments = arguments.len();
        let mut first = [Value::None; 7];
        let n_first = n_arguments.min(first.len());
        first[..n_first].copy_from_slice(&arguments[..n_first]);
        match (global, &first[..n_first]) {
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => self.tensor(storage, offset, shape, strides, None),
            (Global::RebuildTensorV3, &[storage, offset, shape, strides, _, _, dtype, ..]) => {
                let Value::Global(Global::Dtype(dtype)) = dtype else { return Err("makes a tensor without a dtype".to_owned()) };
                self.tensor(storage, offset, shape, strides, Some(dtype))
            }
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), ..]) => Ok(tensor),
            (Global::OrderedDict, []) => Ok(self.data.new_dict(Vec::new())),
            (Global::OrderedDict, &[list]) => {
                self.pay(list)?;
                let items = self.data.items(list)?.iter().map(|&pair| match *self.data.items(pair)? {
                    [key, value] => Ok((key, value)),
                    _ => Err("makes a dictionary of something else than pairs".to_owned()),
                });
                let items = items.collect::<Result<Vec<_>>>()?;
                Ok(self.data.new_dict(items))
            }
            (Global::Collection, []) => Ok(self.data.new_items(Vec::new())),
            (Global::Collection, &[list @ Value::Items(_)]) => Ok(list),
            (Global::Beside, _) => Ok(Value::Other),
            _ => Err(format!("calls `{global:?}` with {} arguments that it does not take", n_arguments)),
        }
    }

    fn tensor(&mut self, storage: Value, offset: Value, shape: Value, strides: Value, dtype: Option<Dtype>) -> Result<Value> {
        let Value::Storage(storage) = storage else { return Err(format!("makes a tensor of {}", storage.describe())) };
        self.pay(shape)?;
        self.pay(strides)?;
        let number = |value: Value| match value {
            Value::Int(n) => usize::try_from(n).map_err(|_| format!("makes a tensor with the size, stride or offset {n}")),
            other => Err(format!("makes a tensor with {} for a size, stride or offset", other.describe())),
        };
        let numbers = |values: Value| self.data.items(values)?.iter().map(|&v| number(v)).collect::<Result<Vec<usize>>>();
        let (offset, shape, strides) = (number(offset)?, numbers(shape)?, numbers(strides)?);
        if shape.len() != strides.len() {
            return Err(format!("makes a tensor of shape {shape:?} with {} strides", strides.len()));
        }
        let dtype = dtype.or(self.data.storages[storage].dtype).ok_or("makes a tensor of untyped bytes")?;
        self.data.tensors.push(Tensor { storage, dtype, offset, shape, strides });
        Ok(Value::Tensor(self.data.tensors.len() - 1))
    }

    /// `('storage', class, key, device, n_elements)`.
    fn storage(&mut self, id: Value) -> Result<Value> {
        let &[kind, class, key, _device, n_elements] = self.data.items(id)? else {
            return Err("refers to data by something else than the five parts of a storage".to_owned());
        };
        let (Some("storage"), Value::Global(class), Value::Text(key), Value::Int(n_elements)) =
            (self.data.text(kind), class, key, n_elements)
        else {
            return Err("refers to data by something else than a storage".to_owned());
        };
        let dtype = match class {
            Global::TypedStorage(dtype) | Global::Dtype(dtype) => Some(dtype),
            Global::UntypedStorage => None,
            other => return Err(format!("refers to a storage of class `{other:?}`")),
        };
        let size_bytes = usize::try_from(n_elements)
            .ok()
            .and_then(|n| n.checked_mul(dtype.map_or(1, Dtype::size_bytes)))
            .ok_or_else(|| format!("refers to a storage of {n_elements} elements"))?;
        self.data.storages.push(Storage { key, size_bytes, dtype });
        Ok(Value::Storage(self.data.storages.len() - 1))
    }
}

/// A little-endian two's complement number; those beyond 64 bits are none that a state dict needs.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Other;
    }
    let fill = if bytes.last().is_some_and(|&b| b >= 0x80) { 0xff } else { 0 };
    let mut all = [fill; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}

fn pairs(items: &[Value]) -> Result<Vec<(Value, Value)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    } else {
        Err("sets a key without a value".to_owned())
    }
}
