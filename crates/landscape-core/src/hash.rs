//! The one hash of file contents: SHA-256, in hexadecimal.

use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::io;

/// The SHA-256 of some bytes, as 64 lower-case hexadecimal digits.
///
/// ```
/// let hash = landscape_core::hash::sha256_hex(b"abc");
/// assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// ```
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex_of(&Sha256::digest(bytes))
}

fn hex_of(digest: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in digest {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
    }
    hex
}

/// Hashes what is written to it.
#[derive(Default)]
pub(crate) struct HashWriter(Sha256);

impl HashWriter {
    /// The SHA-256 of all of it.
    pub fn hex(self) -> String {
        hex_of(&self.0.finalize())
    }
}

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
