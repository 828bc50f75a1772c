//! Tensors as files hold them: an element type, a shape, and the bytes.

use crate::error::{Error, Result};
use crate::mapped::MappedFile;
use half::{bf16, f16};
use landscape_kernels::Real;
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;

/// The element types that are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dtype {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float, IEEE.
    F16,
    /// 16-bit float with the exponent of a 32-bit one.
    Bf16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 16-bit signed integer.
    I16,
    /// 8-bit signed integer.
    I8,
    /// 64-bit unsigned integer.
    U64,
    /// 32-bit unsigned integer.
    U32,
    /// 16-bit unsigned integer.
    U16,
    /// 8-bit unsigned integer.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Dtype; 13] = [
        Dtype::F64,
        Dtype::F32,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::I64,
        Dtype::I32,
        Dtype::I16,
        Dtype::I8,
        Dtype::U64,
        Dtype::U32,
        Dtype::U16,
        Dtype::U8,
        Dtype::Bool,
    ];

    /// The type that holds every [`Real`] of this kind exactly.
    pub fn of<T: Real>() -> Self {
        if T::NAME == "f64" { Dtype::F64 } else { Dtype::F32 }
    }

    /// Bytes per element.
    pub fn size_bytes(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16)
    }

    /// Its name in safetensors files.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "F64",
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
            Dtype::I64 => "I64",
            Dtype::I32 => "I32",
            Dtype::I16 => "I16",
            Dtype::I8 => "I8",
            Dtype::U64 => "U64",
            Dtype::U32 => "U32",
            Dtype::U16 => "U16",
            Dtype::U8 => "U8",
            Dtype::Bool => "BOOL",
        }
    }

    /// The type of that name in safetensors files, if it is one of these.
    pub fn from_name(name: &str) -> Option<Self> {
        Dtype::ALL.into_iter().find(|d| d.name() == name)
    }

    /// What a tensor of that shape needs, or `None` if no machine could hold it.
    pub fn tensor_bytes(self, shape: &[usize]) -> Option<usize> {
        // Half the address space is the most that Rust allocates.
        let limit = isize::MAX.unsigned_abs();
        let size = shape.iter().try_fold(self.size_bytes(), |n, &d| n.checked_mul(d))?;
        // An empty dimension must not hide an impossible one: [2^40, 2^40, 0] is refused like [2^40, 2^40].
        shape.iter().filter(|&&d| d > 0).try_fold(self.size_bytes(), |n, &d| n.checked_mul(d))?;
        (size <= limit).then_some(size)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tensor in the representation of its file: row-major, little-endian.
///
/// ```
/// use landscape_core::tensor::{Dtype, RawTensor};
/// let tensor = RawTensor::from_f64(Dtype::Bf16, vec![2], &[1.5, -2.0])?;
/// assert_eq!(tensor.bytes().len(), 4);
/// assert_eq!(tensor.to_f64_vec(), [1.5, -2.0]);
/// # Ok::<(), landscape_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RawTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Bytes,
}

/// The elements: in memory, or a part of a file that stays on disk.
#[derive(Clone)]
enum Bytes {
    Owned(Vec<u8>),
    Mapped(MappedFile, Range<usize>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped(file, range) => &file.bytes()[range.clone()],
        }
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Bytes {}

/// Bytes of a mapped file that are written at once, before their memory is given back.
const PIECE_BYTES: usize = 4 << 20;

/// Decodes with one expression per type.
macro_rules! decode {
    ($bytes:expr, $n:literal, $from:expr) => {
        $bytes.as_chunks::<$n>().0.iter().map(|b| $from(*b)).collect()
    };
}

impl RawTensor {
    /// A tensor from its bytes.
    ///
    /// # Errors
    /// If there are more or fewer bytes than the shape asks for.
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self> {
        match dtype.tensor_bytes(&shape) {
            Some(size) if size == bytes.len() => Ok(RawTensor { dtype, shape, bytes: Bytes::Owned(bytes) }),
            Some(size) => Err(Error::config("bytes", format!("{size} for shape {shape:?} of {dtype}"), bytes.len())),
            None => Err(Error::config("shape", "a size that fits in memory", format!("{shape:?} of {dtype}"))),
        }
    }

    /// A tensor whose elements are these bytes of a file, which must be as many as its shape asks for.
    pub(crate) fn mapped(dtype: Dtype, shape: Vec<usize>, file: &MappedFile, range: Range<usize>) -> Self {
        RawTensor { dtype, shape, bytes: Bytes::Mapped(file.clone(), range) }
    }

    /// Rounds numbers to the nearest of `dtype`.
    ///
    /// # Errors
    /// If there are more or fewer numbers than the shape asks for, a finite one is too large for the type, or an integer type is to
    /// hold something else than a whole number.
    pub fn from_f64(dtype: Dtype, shape: Vec<usize>, values: &[f64]) -> Result<Self> {
        let out_of_range = |value: f64| Error::config("value", format!("a number that {dtype} can hold"), value);
        let mut bytes = Vec::with_capacity(values.len().saturating_mul(dtype.size_bytes()));
        for &value in values {
            macro_rules! float {
                ($encoded:expr) => {{
                    let encoded = $encoded;
                    if value.is_finite() && !encoded.is_finite() {
                        return Err(out_of_range(value));
                    }
                    bytes.extend_from_slice(&encoded.to_le_bytes());
                }};
            }
            macro_rules! integer {
                ($t:ty) => {{
                    // The way back tells a fraction, an overflow (casts saturate) and NaN; 2^63 and 2^64 themselves saturate to a
                    // number that rounds back up to them.
                    let encoded = value as $t;
                    if encoded as f64 != value || (encoded == <$t>::MAX && size_of::<$t>() == 8) {
                        return Err(out_of_range(value));
                    }
                    bytes.extend_from_slice(&encoded.to_le_bytes());
                }};
            }
            match dtype {
                Dtype::F64 => float!(value),
                Dtype::F32 => float!(value as f32),
                Dtype::F16 => float!(f16::from_f64(value)),
                Dtype::Bf16 => float!(bf16::from_f64(value)),
                Dtype::I64 => integer!(i64),
                Dtype::I32 => integer!(i32),
                Dtype::I16 => integer!(i16),
                Dtype::I8 => integer!(i8),
                Dtype::U64 => integer!(u64),
                Dtype::U32 => integer!(u32),
                Dtype::U16 => integer!(u16),
                Dtype::U8 => integer!(u8),
                Dtype::Bool if value == 0.0 || value == 1.0 => bytes.push(value as u8),
                Dtype::Bool => return Err(out_of_range(value)),
            }
        }
        RawTensor::new(dtype, shape, bytes)
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major and little-endian.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Writes the elements as they are; of a file on disk no more is in memory at any time than a small piece.
    pub(crate) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let size = self.dtype.size_bytes();
        for (idx, piece) in self.bytes().chunks(PIECE_BYTES).enumerate() {
            out.write_all(piece)?;
            let start = idx * PIECE_BYTES / size;
            self.release(start..start + piece.len() / size);
        }
        Ok(())
    }

    /// Gives back the memory that reading these elements took, where they are a file's.
    pub(crate) fn release(&self, elements: Range<usize>) {
        if let Bytes::Mapped(file, range) = &self.bytes {
            let size = self.dtype.size_bytes();
            file.release(range.start + elements.start * size..range.start + elements.end * size);
        }
    }

    /// Elements `range` of a floating-point tensor, rounded to the nearest of this precision.
    ///
    /// # Panics
    /// If `range` reaches past the end, or `into` is not as long.
    pub(crate) fn decode<T: Real>(&self, range: Range<usize>, into: &mut [T]) {
        let size = self.dtype.size_bytes();
        let bytes = &self.bytes()[range.start * size..range.end * size];
        assert_eq!(bytes.len(), into.len() * size, "as many numbers as there is room for");
        macro_rules! decode_into {
            ($n:literal, $from:expr) => {
                into.iter_mut().zip(bytes.as_chunks::<$n>().0).for_each(|(v, b)| *v = T::from_f64($from(*b)))
            };
        }
        match self.dtype {
            Dtype::F64 => decode_into!(8, f64::from_le_bytes),
            Dtype::F32 => decode_into!(4, |b| f64::from(f32::from_le_bytes(b))),
            Dtype::F16 => decode_into!(2, |b| f16::from_le_bytes(b).to_f64()),
            Dtype::Bf16 => decode_into!(2, |b| bf16::from_le_bytes(b).to_f64()),
            _ => {
                let values = self.to_f64_vec();
                into.iter_mut().zip(&values[range]).for_each(|(v, &value)| *v = T::from_f64(value));
            }
        }
    }

    /// How many elements it has.
    pub fn n_elements(&self) -> usize {
        self.bytes().len() / self.dtype.size_bytes()
    }

    /// The elements in double precision; exact but for 64-bit integers beyond 2^53. A boolean that is not 0 counts as 1.
    pub fn to_f64_vec(&self) -> Vec<f64> {
        let bytes = self.bytes();
        match self.dtype {
            Dtype::F64 => decode!(bytes, 8, f64::from_le_bytes),
            Dtype::F32 => decode!(bytes, 4, |b| f64::from(f32::from_le_bytes(b))),
            Dtype::F16 => decode!(bytes, 2, |b| f16::from_le_bytes(b).to_f64()),
            Dtype::Bf16 => decode!(bytes, 2, |b| bf16::from_le_bytes(b).to_f64()),
            Dtype::I64 => decode!(bytes, 8, |b| i64::from_le_bytes(b) as f64),
            Dtype::I32 => decode!(bytes, 4, |b| f64::from(i32::from_le_bytes(b))),
            Dtype::I16 => decode!(bytes, 2, |b| f64::from(i16::from_le_bytes(b))),
            Dtype::I8 => decode!(bytes, 1, |b| f64::from(i8::from_le_bytes(b))),
            Dtype::U64 => decode!(bytes, 8, |b| u64::from_le_bytes(b) as f64),
            Dtype::U32 => decode!(bytes, 4, |b| f64::from(u32::from_le_bytes(b))),
            Dtype::U16 => decode!(bytes, 2, |b| f64::from(u16::from_le_bytes(b))),
            Dtype::U8 => decode!(bytes, 1, |[b]: [u8; 1]| f64::from(b)),
            Dtype::Bool => decode!(bytes, 1, |[b]: [u8; 1]| f64::from(u8::from(b != 0))),
        }
    }

    /// The elements in single or double precision, rounded to the nearest.
    pub fn to<T: Real>(&self) -> Vec<T> {
        if self.dtype == Dtype::F32 {
            // The common case, without a copy of the whole in double precision.
            return decode!(self.bytes(), 4, |b| T::from_f64(f64::from(f32::from_le_bytes(b))));
        }
        self.to_f64_vec().into_iter().map(T::from_f64).collect()
    }

    /// The first element that is NaN or infinite, with its row-major index.
    pub fn first_not_finite(&self) -> Option<(usize, f64)> {
        if !self.dtype.is_float() {
            return None;
        }
        self.to_f64_vec().into_iter().enumerate().find(|(_, value)| !value.is_finite())
    }
}

impl fmt::Debug for RawTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawTensor({} {:?}, {} bytes)", self.dtype, self.shape, self.bytes().len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_dtype_gives_back_what_it_can_hold() {
        for dtype in Dtype::ALL {
            let values: &[f64] = match dtype {
                Dtype::Bool => &[0.0, 1.0],
                Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => &[0.0, 1.0, 255.0],
                Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => &[-128.0, 0.0, 127.0],
                _ => &[-1.5, 0.0, 0.25, f64::INFINITY],
            };
            let tensor = RawTensor::from_f64(dtype, vec![values.len()], values).unwrap();
            assert_eq!(tensor.to_f64_vec(), values, "{dtype}");
            assert_eq!(tensor.to::<f32>().len(), tensor.n_elements());
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
            assert_eq!(tensor.first_not_finite().map(|(idx, _)| idx), dtype.is_float().then_some(3));
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_errors() {
        let limits = [
            (Dtype::F16, 65520.0),
            (Dtype::F32, 1e39),
            (Dtype::I64, 9_223_372_036_854_775_808.0),
            (Dtype::U64, 18_446_744_073_709_551_616.0),
            (Dtype::U64, -1.0),
            (Dtype::I8, 128.0),
            (Dtype::I32, 0.5),
            (Dtype::I32, f64::NAN),
            (Dtype::Bool, 2.0),
        ];
        for (dtype, value) in limits {
            assert!(RawTensor::from_f64(dtype, vec![1], &[value]).is_err(), "{value} as {dtype}");
        }
        assert_eq!(RawTensor::from_f64(Dtype::F16, vec![1], &[65504.0]).unwrap().to_f64_vec(), [65504.0]);
        assert_eq!(RawTensor::from_f64(Dtype::I32, vec![1], &[2147483647.0]).unwrap().to_f64_vec(), [2147483647.0]);
    }

    #[test]
    fn shapes_must_match_the_bytes() {
        assert!(RawTensor::new(Dtype::F32, vec![2, 2], vec![0; 15]).is_err());
        assert!(RawTensor::new(Dtype::F32, vec![usize::MAX, 2], vec![0; 8]).is_err());
        assert!(RawTensor::new(Dtype::F32, vec![1 << 40, 1 << 40, 0], vec![]).is_err());
        assert_eq!(RawTensor::new(Dtype::F32, vec![], vec![0; 4]).unwrap().n_elements(), 1);
        assert_eq!(RawTensor::new(Dtype::F32, vec![3, 0], vec![]).unwrap().n_elements(), 0);
    }

    proptest! {
        #[test]
        fn f32_bits_survive_the_way_through_f64(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(!value.is_nan());
            let tensor = RawTensor::from_f64(Dtype::F32, vec![1], &[f64::from(value)]).unwrap();
            prop_assert_eq!(tensor.bytes(), bits.to_le_bytes());
            prop_assert_eq!(tensor.to::<f32>()[0].to_bits(), bits);
        }
    }
}
