//! Small files of every format that the command reads, made here byte by byte, so that each can be broken in one place.

use std::io::{Cursor, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A safetensors file with this header.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// An archive without compression, as `torch.save` and `numpy.savez` write it.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        archive.start_file(*name, SimpleFileOptions::default().compression_method(CompressionMethod::Stored)).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// A NumPy array.
pub fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let shape: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A NumPy archive.
pub fn npz(arrays: &[(&str, &[u8])]) -> Vec<u8> {
    let names: Vec<String> = arrays.iter().map(|(name, _)| format!("{name}.npy")).collect();
    zip(&names.iter().zip(arrays).map(|(name, (_, bytes))| (name.as_str(), *bytes)).collect::<Vec<_>>())
}

/// An IDX file of bytes.
pub struct Idx {
    pub sizes: Vec<u32>,
    pub data: Vec<u8>,
}

impl Idx {
    pub fn images(n: usize, side: usize) -> Self {
        Idx { sizes: vec![n as u32, side as u32, side as u32], data: (0..n * side * side).map(|i| (i % 251) as u8).collect() }
    }

    pub fn labels(n: usize) -> Self {
        Idx { sizes: vec![n as u32], data: (0..n).map(|i| (i % 10) as u8).collect() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, self.sizes.len() as u8];
        self.sizes.iter().for_each(|n| bytes.extend(n.to_be_bytes()));
        bytes.extend(&self.data);
        bytes
    }
}

/// CIFAR-10's binary files, all alike.
pub struct Cifar {
    pub n_records: usize,
}

impl Cifar {
    pub fn bytes(&self) -> Vec<u8> {
        (0..self.n_records).flat_map(|i| std::iter::once((i % 10) as u8).chain((0..3072).map(move |p| (p * (i + 1) % 256) as u8))).collect()
    }

    pub fn bytes_with_label(&self, record: usize, label: u8) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes[record * 3073] = label;
        bytes
    }

    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let names = (1..=5).map(|i| format!("data_batch_{i}.bin")).chain(["test_batch.bin".to_owned()]);
        names.map(|name| (name, self.bytes())).collect()
    }
}
