//! One NumPy array: its header, and its elements in row-major order.
//!
//! The header is a Python dictionary of three known keys. It is read by a small parser of its own, because what stands in a file may be
//! anything: general parsers of Python literals recurse as deep as the text nests, and multiply shapes without looking.
//!
//! # Source
//! NumPy's description of the format, versions 1.0, 2.0 and 3.0 (`numpy.lib.format`).

use half::f16;
use std::io::Read;

/// NumPy refuses longer headers too unless told otherwise.
const MAX_HEADER_BYTES: usize = 10_000;

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `b1`
    Bool,
    /// `u1`, `u2`, `u4`, `u8`
    Unsigned,
    /// `i1`, `i2`, `i4`, `i8`
    Signed,
    /// `f2`, `f4`, `f8`
    Float,
}

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The dtype as it is written, e.g. `<f4`.
    pub(crate) dtype: String,
    pub(crate) kind: Kind,
    pub(crate) n_item_bytes: usize,
    big_endian: bool,
    fortran_order: bool,
    pub(crate) shape: Vec<usize>,
    /// Bytes of all elements.
    pub(crate) n_data_bytes: usize,
    /// Bytes up to the first element.
    pub(crate) n_header_bytes: usize,
}

/// Elements in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Elements {
    U8(Vec<u8>),
    Integers(Vec<i128>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// Reads the header; the error says what was expected and what was found.
pub(crate) fn read_header(reader: &mut dyn Read) -> Result<Header, (String, String)> {
    let truncated = |what: &'static str| move |e: std::io::Error| (what.to_owned(), e.to_string());
    let mut start = [0u8; 8];
    reader.read_exact(&mut start).map_err(truncated("the 8 bytes that an .npy array begins with"))?;
    if &start[..6] != b"\x93NUMPY" {
        return Err(("the magic string `\\x93NUMPY`".into(), format!("`{}`", start[..6].escape_ascii())));
    }
    let n_size_bytes = match (start[6], start[7]) {
        (1, 0) => 2,
        (2 | 3, 0) => 4,
        (major, minor) => return Err(("version 1.0, 2.0 or 3.0 of the format".into(), format!("{major}.{minor}"))),
    };
    let mut size = [0u8; 4];
    reader.read_exact(&mut size[..n_size_bytes]).map_err(truncated("the length of the header"))?;
    let n_text_bytes = u32::from_le_bytes(size) as usize;
    if n_text_bytes > MAX_HEADER_BYTES {
        return Err((format!("a header of at most {MAX_HEADER_BYTES} bytes"), n_text_bytes.to_string()));
    }
    let mut text = vec![0; n_text_bytes];
    reader.read_exact(&mut text).map_err(truncated("a whole header"))?;
    let found = || format!("`{}`", text.escape_ascii());
    let dict = Parser(&text).dict().ok_or_else(|| ("a header with `descr`, `fortran_order` and `shape`".to_owned(), found()))?;
    let (big_endian, kind, n_item_bytes) =
        element(&dict.descr).ok_or_else(|| ("elements that are numbers or booleans".to_owned(), format!("dtype `{}`", dict.descr)))?;
    let n_elements = dict.shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    let n_data_bytes = n_elements.and_then(|n| n.checked_mul(n_item_bytes));
    let n_data_bytes = n_data_bytes.ok_or_else(|| ("a shape that memory can hold".to_owned(), format!("{:?}", dict.shape)))?;
    Ok(Header {
        dtype: dict.descr,
        kind,
        n_item_bytes,
        big_endian,
        fortran_order: dict.fortran_order,
        shape: dict.shape,
        n_data_bytes,
        n_header_bytes: start.len() + n_size_bytes + n_text_bytes,
    })
}

/// Byte order, kind and size of a dtype.
fn element(descr: &str) -> Option<(bool, Kind, usize)> {
    let mut chars = descr.chars();
    let order = chars.next()?;
    let (kind, size) = match chars.as_str() {
        "b1" => (Kind::Bool, 1),
        "u1" => (Kind::Unsigned, 1),
        "u2" => (Kind::Unsigned, 2),
        "u4" => (Kind::Unsigned, 4),
        "u8" => (Kind::Unsigned, 8),
        "i1" => (Kind::Signed, 1),
        "i2" => (Kind::Signed, 2),
        "i4" => (Kind::Signed, 4),
        "i8" => (Kind::Signed, 8),
        "f2" => (Kind::Float, 2),
        "f4" => (Kind::Float, 4),
        "f8" => (Kind::Float, 8),
        _ => return None,
    };
    match order {
        '<' => Some((false, kind, size)),
        '>' => Some((true, kind, size)),
        '|' if size == 1 => Some((false, kind, size)),
        _ => None,
    }
}

impl Header {
    /// The elements that `data`, `n_data_bytes` long, holds.
    pub(crate) fn decode(&self, data: Vec<u8>) -> Elements {
        match (self.kind, self.n_item_bytes) {
            (Kind::Unsigned, 1) => Elements::U8(self.row_major(data)),
            (Kind::Float, 2) => Elements::F32(self.collect(&data, |bytes| f16::from_le_bytes(bytes).to_f32())),
            (Kind::Float, 4) => Elements::F32(self.collect(&data, f32::from_le_bytes)),
            (Kind::Float, _) => Elements::F64(self.collect(&data, f64::from_le_bytes)),
            (Kind::Bool, _) => Elements::Integers(self.collect(&data, |[byte]: [u8; 1]| i128::from(byte != 0))),
            (Kind::Unsigned, 2) => Elements::Integers(self.collect(&data, |bytes| u16::from_le_bytes(bytes).into())),
            (Kind::Unsigned, 4) => Elements::Integers(self.collect(&data, |bytes| u32::from_le_bytes(bytes).into())),
            (Kind::Unsigned, _) => Elements::Integers(self.collect(&data, |bytes| u64::from_le_bytes(bytes).into())),
            (Kind::Signed, 1) => Elements::Integers(self.collect(&data, |bytes| i8::from_le_bytes(bytes).into())),
            (Kind::Signed, 2) => Elements::Integers(self.collect(&data, |bytes| i16::from_le_bytes(bytes).into())),
            (Kind::Signed, 4) => Elements::Integers(self.collect(&data, |bytes| i32::from_le_bytes(bytes).into())),
            (Kind::Signed, _) => Elements::Integers(self.collect(&data, |bytes| i64::from_le_bytes(bytes).into())),
        }
    }

    fn collect<V: Copy, const N: usize>(&self, data: &[u8], from_le_bytes: impl Fn([u8; N]) -> V) -> Vec<V> {
        let (items, _) = data.as_chunks::<N>();
        let values = items.iter().map(|item| {
            let mut item = *item;
            if self.big_endian {
                item.reverse();
            }
            from_le_bytes(item)
        });
        self.row_major(values.collect())
    }

    /// Brings stored elements into row-major order.
    fn row_major<V: Copy>(&self, stored: Vec<V>) -> Vec<V> {
        if !self.fortran_order || self.shape.iter().filter(|&&n| n > 1).count() < 2 {
            return stored;
        }
        let strides: Vec<usize> = self.shape.iter().scan(1, |stride, &n| Some(std::mem::replace(stride, *stride * n))).collect();
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        let mut out = Vec::with_capacity(stored.len());
        for _ in 0..stored.len() {
            out.push(stored[at]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        out
    }
}

/// The three entries of a header.
struct Dict {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// What is left of a header's text.
struct Parser<'a>(&'a [u8]);

impl Parser<'_> {
    fn dict(mut self) -> Option<Dict> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while !self.take(b'}') {
            let key = self.string()?;
            self.expect(b':')?;
            match key.as_str() {
                "descr" if descr.is_none() => descr = Some(self.string()?),
                "fortran_order" if fortran_order.is_none() => fortran_order = Some(self.boolean()?),
                "shape" if shape.is_none() => shape = Some(self.shape()?),
                _ => return None,
            }
            if !self.take(b',') {
                self.expect(b'}')?;
                break;
            }
        }
        self.skip_spaces();
        if !self.0.is_empty() {
            return None;
        }
        Some(Dict { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }

    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_spaces();
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    /// Characters between quotes; none of the strings of a header has an escape.
    fn string(&mut self) -> Option<String> {
        self.skip_spaces();
        let (&quote, rest) = self.0.split_first().filter(|(byte, _)| matches!(byte, b'\'' | b'"'))?;
        let n = rest.iter().position(|&byte| byte == quote)?;
        let text = std::str::from_utf8(&rest[..n]).ok().filter(|text| !text.contains('\\'))?;
        self.0 = &rest[n + 1..];
        Some(text.to_owned())
    }

    fn boolean(&mut self) -> Option<bool> {
        self.skip_spaces();
        let (value, rest) = match (self.0.strip_prefix(b"True"), self.0.strip_prefix(b"False")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return None,
        };
        self.0 = rest;
        Some(value)
    }

    fn shape(&mut self) -> Option<Vec<usize>> {
        let mut shape = Vec::new();
        self.expect(b'(')?;
        while !self.take(b')') {
            self.skip_spaces();
            let n = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
            shape.push(std::str::from_utf8(&self.0[..n]).ok()?.parse().ok()?);
            self.0 = &self.0[n..];
            if !self.take(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Some(shape)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use npyz::WriterBuilder;
    use proptest::prelude::*;

    fn with_header(text: &str) -> Vec<u8> {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((text.len() as u16).to_le_bytes());
        file.extend(text.as_bytes());
        file
    }

    fn decode(file: &[u8]) -> (Vec<usize>, Elements) {
        let header = read_header(&mut &file[..]).unwrap();
        let data = file[header.n_header_bytes..].to_vec();
        assert_eq!(data.len(), header.n_data_bytes);
        (header.shape.clone(), header.decode(data))
    }

    /// An array as the crate `npyz` writes it.
    fn written<V: npyz::Serialize + Copy>(dtype: &str, order: npyz::Order, shape: &[u64], values: &[V]) -> Vec<u8> {
        let mut file = Vec::new();
        let dtype = npyz::DType::new_scalar(dtype.parse().unwrap());
        let mut writer = npyz::WriteOptions::new().dtype(dtype).order(order).shape(shape).writer(&mut file).begin_nd().unwrap();
        writer.extend(values.iter().copied()).unwrap();
        writer.finish().unwrap();
        file
    }

    #[test]
    fn arrays_of_another_writer_are_read() {
        let c = npyz::Order::C;
        assert_eq!(decode(&written::<u8>("|u1", c, &[3], &[1, 2, 255])), (vec![3], Elements::U8(vec![1, 2, 255])));
        assert_eq!(decode(&written::<f32>("<f4", c, &[1, 2], &[0.5, -2.0])), (vec![1, 2], Elements::F32(vec![0.5, -2.0])));
        assert_eq!(decode(&written::<f64>(">f8", c, &[2], &[0.1, -2.0])).1, Elements::F64(vec![0.1, -2.0]));
        assert_eq!(decode(&written::<i64>("<i8", c, &[2], &[i64::MIN, 7])).1, Elements::Integers(vec![i64::MIN.into(), 7]));
        assert_eq!(decode(&written::<u64>(">u8", c, &[1], &[u64::MAX])).1, Elements::Integers(vec![u64::MAX.into()]));
        assert_eq!(decode(&written::<i16>(">i2", c, &[2], &[-2, 300])).1, Elements::Integers(vec![-2, 300]));
        assert_eq!(decode(&written::<bool>("|b1", c, &[2], &[true, false])).1, Elements::Integers(vec![1, 0]));
    }

    #[test]
    fn column_major_arrays_are_turned() {
        // Element (i, j, k) of shape 2x3x4 is 100 i + 10 j + k; column-major, i runs fastest.
        let value = |i: i32, j: i32, k: i32| 100 * i + 10 * j + k;
        let stored: Vec<i32> = (0..4).flat_map(|k| (0..3).flat_map(move |j| (0..2).map(move |i| value(i, j, k)))).collect();
        let (shape, found) = decode(&written("<i4", npyz::Order::Fortran, &[2, 3, 4], &stored));
        let rows: Vec<i128> = (0..2).flat_map(|i| (0..3).flat_map(move |j| (0..4).map(move |k| value(i, j, k).into()))).collect();
        assert_eq!((shape, found), (vec![2, 3, 4], Elements::Integers(rows)));
    }

    #[test]
    fn half_precision_is_widened() {
        let mut file = with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (2,), }\n");
        file.extend([0x00, 0x3c, 0x00, 0xc0]);
        assert_eq!(decode(&file), (vec![2], Elements::F32(vec![1.0, -2.0])));
    }

    #[test]
    fn headers_that_are_none_are_refused() {
        let refused = |text: &str| {
            let (expected, found) = read_header(&mut &with_header(text)[..]).unwrap_err();
            format!("expected {expected}, found {found}")
        };
        assert!(refused("").contains("`descr`"));
        assert!(refused("{'descr': '<f4', 'fortran_order': False}").contains("`shape`"));
        assert!(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'shape': (3,)}").contains("`shape`"));
        assert!(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}").contains("`shape`"));
        assert!(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x").contains("`shape`"));
        assert!(refused("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}").contains("`descr`"));
        assert!(refused("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}").contains("dtype `|O`"));
        assert!(refused("{'descr': '<c8', 'fortran_order': False, 'shape': (2,)}").contains("dtype `<c8`"));
        assert!(refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}").contains("memory"));
        assert!(refused(&"(".repeat(9_000)).contains("`descr`"), "nesting costs nothing");
        assert!(refused(&" ".repeat(10_001)).contains("at most"));
        assert!(read_header(&mut &b"\x93NUMPY\x02\x00\xff\xff\xff\xff"[..]).unwrap_err().0.contains("at most"));
        assert!(read_header(&mut &b"\x93NUMPY\x07\x00"[..]).unwrap_err().1.contains("7.0"));
        assert!(read_header(&mut &b"PK\x03\x04aaaaaaaa"[..]).unwrap_err().0.contains("magic"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[{}()':, a-z0-9<|>]{0,80}") {
            let _ = read_header(&mut &with_header(&text)[..]);
        }

        #[test]
        fn both_orders_hold_the_same_array(shape in proptest::collection::vec(1u64..5, 1..5)) {
            let n = shape.iter().product::<u64>() as usize;
            let stored: Vec<i32> = (0..n as i32).collect();
            // Reversing the shape turns column-major into row-major: read(F, shape)[i..] = read(C, reversed)[..i].
            let (_, turned) = decode(&written("<i4", npyz::Order::Fortran, &shape, &stored));
            let Elements::Integers(turned) = turned else { panic!("integers") };
            let mut index = vec![0u64; shape.len()];
            for value in turned {
                let mut stride = 1;
                let expected: u64 = index.iter().zip(&shape).map(|(i, n)| { let term = i * stride; stride *= n; term }).sum();
                prop_assert_eq!(value, i128::from(expected));
                for axis in (0..shape.len()).rev() {
                    index[axis] += 1;
                    if index[axis] < shape[axis] { break; }
                    index[axis] = 0;
                }
            }
        }
    }
}
