//! Files of data sets: found by name, read whole, unpacked no further than their headers promise.

use crate::error::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Deflate cannot pack better than 1032 to 1, so a header that promises more than this lies.
pub(crate) const MAX_DEFLATE_RATIO: u64 = 1032;

/// Reads a file whole.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::read(path, source))
}

/// Finds in `dir` one file for each list of names that would do. All that are missing are reported together.
pub(crate) fn find(dir: &Path, wanted: &[&[&str]]) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        let found = if dir.exists() { "a file; the folder that holds the data files is asked for" } else { "nothing there" };
        return Err(Error::format(dir, "a folder", found));
    }
    let locate = |dir: &Path, names: &[&str]| names.iter().map(|name| dir.join(name)).find(|path| path.is_file());
    let found: Vec<_> = wanted.iter().map(|names| locate(dir, names)).collect();
    if found.iter().all(Option::is_some) {
        return Ok(found.into_iter().flatten().collect());
    }
    let missing = wanted.iter().zip(&found).filter(|(_, path)| path.is_none());
    let missing = missing.map(|(names, _)| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" or ")).collect();
    let mut below: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    below.sort();
    let whole = below.into_iter().find(|dir| wanted.iter().all(|names| locate(dir, names).is_some()));
    let hint = whole.map_or(String::new(), |dir| format!(" (the folder `{}` has them all)", dir.display()));
    Err(Error::MissingFiles { dir: dir.to_owned(), missing, hint })
}

/// The bytes of a file that may be packed with gzip, and the most that they can unpack to.
pub(crate) fn unpacked(file: &[u8]) -> (Box<dyn Read + '_>, u64) {
    if file.starts_with(&[0x1f, 0x8b]) {
        (Box::new(MultiGzDecoder::new(file)), (file.len() as u64).saturating_mul(MAX_DEFLATE_RATIO))
    } else {
        (Box::new(file), file.len() as u64)
    }
}

/// Reads exactly `n_bytes` to the end of `reader`.
///
/// The caller has checked that `n_bytes` can come from the file; a shorter or longer stream is refused, and with it the checksum
/// that follows the data is checked.
pub(crate) fn read_rest(path: &Path, what: &str, reader: &mut dyn Read, n_bytes: usize) -> Result<Vec<u8>> {
    let expected = || format!("{n_bytes} bytes of {what}");
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(n_bytes).map_err(|_| Error::format(path, expected(), "no memory for so many"))?;
    let result = reader.take(n_bytes as u64).read_to_end(&mut bytes).and_then(|_| {
        let mut more = [0u8; 1];
        reader.read(&mut more)
    });
    match result {
        Err(source) => Err(Error::format(path, expected(), format!("a damaged file after {}: {source}", bytes.len()))),
        Ok(_) if bytes.len() < n_bytes => Err(Error::format(path, expected(), format!("{} (the file is truncated)", bytes.len()))),
        Ok(0) => Ok(bytes),
        Ok(_) => Err(Error::format(path, expected(), "more: bytes follow after the data")),
    }
}
