//! Plain data that a pickle builds: values that refer to each other by index, so that neither cycles nor depth matter.

use crate::tensor::Dtype;

/// What fails is told as the end of a sentence that begins with the pickle's name.
pub(super) type Result<T> = std::result::Result<T, String>;

/// A value; containers are indices into [`Data`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) enum Value {
    #[default]
    None,
    Bool(bool),
    Int(i64),
    /// A float, byte string or the like that no state dict needs.
    Other,
    Text(usize),
    /// A tuple, list or set.
    Items(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

/// The functions and classes that may be named; what they do is done here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    RebuildTensor,
    RebuildTensorV3,
    RebuildParameter,
    OrderedDict,
    /// `torch.Size` and `set`: the items they are made from.
    Collection,
    /// Devices, byte strings, numpy's scalars and options of a command line: often saved beside a state dict, never part of it.
    Beside,
    /// A class of typed storages.
    TypedStorage(Dtype),
    /// Storage counted in bytes.
    UntypedStorage,
    Dtype(Dtype),
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensorV3,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch", "Size") | ("builtins" | "__builtin__", "set") => Global::Collection,
            ("torch", "device")
            | ("_codecs", "encode")
            | ("numpy", "dtype")
            | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
            | ("argparse", "Namespace") => Global::Beside,
            ("torch.storage", "UntypedStorage") => Global::UntypedStorage,
            ("torch", class) => match storage_dtype(class) {
                Some(dtype) => Global::TypedStorage(dtype),
                None => Global::Dtype(torch_dtype(class)?),
            },
            _ => return None,
        })
    }
}

impl Value {
    /// What it is, for messages.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Value::None => "`None`",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "a whole number",
            Value::Other => "a value that is no tensor",
            Value::Text(_) => "a text",
            Value::Items(_) => "a list",
            Value::Dict(_) => "a dictionary",
            Value::Global(_) => "a class",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}

/// A run of numbers in an entry of its own.
#[derive(Debug)]
pub(super) struct Storage {
    /// A text of [`Data`]: many storages may be made of one key, so it is not copied.
    pub key: usize,
    pub size_bytes: usize,
    /// `None` for untyped bytes.
    pub dtype: Option<Dtype>,
}

/// A view of a storage. Offset and strides count elements.
#[derive(Debug)]
pub(super) struct Tensor {
    pub storage: usize,
    pub dtype: Dtype,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// What a pickle holds.
#[derive(Debug, Default)]
pub(super) struct Data {
    pub texts: Vec<String>,
    pub items: Vec<Vec<Value>>,
    pub dicts: Vec<Vec<(Value, Value)>>,
    pub storages: Vec<Storage>,
    pub tensors: Vec<Tensor>,
    pub root: Value,
}

impl Data {
    pub(super) fn text(&self, value: Value) -> Option<&str> {
        if let Value::Text(at) = value { Some(&self.texts[at]) } else { None }
    }

    pub(super) fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        if let Value::Dict(at) = value { Some(&self.dicts[at]) } else { None }
    }

    pub(super) fn tensor(&self, value: Value) -> Option<&Tensor> {
        if let Value::Tensor(at) = value { Some(&self.tensors[at]) } else { None }
    }

    pub(super) fn key(&self, storage: &Storage) -> &str {
        &self.texts[storage.key]
    }

    pub(super) fn items(&self, value: Value) -> Result<&[Value]> {
        if let Value::Items(at) = value { Ok(&self.items[at]) } else { Err(format!("needs a list, and has {}", value.describe())) }
    }

    pub(super) fn new_text(&mut self, text: &[u8]) -> Result<Value> {
        let text = std::str::from_utf8(text).map_err(|_| "holds a text that is no UTF-8".to_owned())?;
        self.texts.push(text.to_owned());
        Ok(Value::Text(self.texts.len() - 1))
    }

    pub(super) fn new_items(&mut self, items: Vec<Value>) -> Value {
        self.items.push(items);
        Value::Items(self.items.len() - 1)
    }

    pub(super) fn new_dict(&mut self, items: Vec<(Value, Value)>) -> Value {
        self.dicts.push(items);
        Value::Dict(self.dicts.len() - 1)
    }
}

/// The element type of a storage class or a dtype, by PyTorch's name.
fn storage_dtype(class: &str) -> Option<Dtype> {
    Some(match class {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::Bf16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        _ => return None,
    })
}

/// As [`storage_dtype`], for `torch.float32` and its like.
fn torch_dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float64" => Dtype::F64,
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::Bf16,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        "uint8" => Dtype::U8,
        "bool" => Dtype::Bool,
        _ => return None,
    })
}
