//! The zip archive around a pickle and its storages.

use std::io::{Read, Seek};
use zip::{CompressionMethod, ZipArchive};

/// The longest pickle that is read. It holds names and shapes, not numbers: 100,000 tensors take some 20 MB.
const MAX_PICKLE_BYTES: u64 = 32 << 20;
/// Deflate cannot make anything smaller than by this.
const MAX_DEFLATE_RATIO: u64 = 1032;

type Result<T> = std::result::Result<T, String>;

/// An opened archive; what goes wrong is told without the file's name.
pub(super) struct Archive<R> {
    zip: ZipArchive<R>,
    root: String,
    size_bytes: u64,
}

impl<R: Read + Seek> Archive<R> {
    /// Opens an archive and finds the folder that everything lies in.
    pub(super) fn open(from: R, size_bytes: u64) -> Result<Self> {
        let zip = ZipArchive::new(from).map_err(|e| format!("not a whole zip file of `torch.save`, truncated or corrupt: {e}"))?;
        if zip.has_duplicate_names() {
            return Err("the zip file holds two entries of the same name".to_owned());
        }
        let mut roots: Vec<String> = Vec::new();
        for name in zip.file_names() {
            let name = name.map_err(|e| format!("the zip file has an entry without a readable name: {e}"))?;
            if let Some((root, "data.pkl")) = name.split_once('/') {
                roots.push(root.to_owned());
            }
        }
        let [root] = <[String; 1]>::try_from(roots)
            .map_err(|roots| format!("expected one `data.pkl` as `torch.save` writes it in the zip file, found {}", roots.len()))?;
        let mut archive = Archive { zip, root, size_bytes };
        let byte_order = archive.name("byteorder");
        if archive.zip.index_for_name(&byte_order).is_some() {
            let found = archive.entry("byteorder", None, 16)?;
            if found != b"little" {
                return Err(format!("`{byte_order}` must be `little`, got `{}`", String::from_utf8_lossy(&found)));
            }
        }
        Ok(archive)
    }

    /// The full name of an entry.
    pub(super) fn name(&self, entry: &str) -> String {
        format!("{}/{entry}", self.root)
    }

    /// The pickle.
    pub(super) fn pickle(&mut self) -> Result<Vec<u8>> {
        self.entry("data.pkl", None, MAX_PICKLE_BYTES)
    }

    /// The bytes of a storage, of which there must be this many.
    pub(super) fn storage(&mut self, key: &str, size_bytes: usize) -> Result<Vec<u8>> {
        self.entry(&format!("data/{key}"), Some(size_bytes as u64), u64::MAX)
    }

    fn entry(&mut self, entry: &str, expected: Option<u64>, limit: u64) -> Result<Vec<u8>> {
        let name = self.name(entry);
        let corrupt = |e: &dyn std::fmt::Display| format!("`{name}` in the zip file cannot be read: {e}");
        let file = self.zip.by_name(&name).map_err(|e| corrupt(&e))?;
        let size = file.size();
        if let Some(expected) = expected.filter(|&expected| expected != size) {
            return Err(format!("`{name}` in the zip file must be {expected} bytes long, got {size}"));
        }
        let most = match file.compression() {
            CompressionMethod::Stored => self.size_bytes,
            _ => file.compressed_size().min(self.size_bytes).saturating_mul(MAX_DEFLATE_RATIO),
        };
        if size > most.min(limit) {
            return Err(format!("`{name}` in the zip file declares {size} bytes, and at most {} can be there", most.min(limit)));
        }
        // The buffer grows with what is there, so that a wrong size costs no memory.
        let mut bytes = Vec::new();
        file.take(size.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| corrupt(&e))?;
        if bytes.len() as u64 != size {
            return Err(corrupt(&format!("it declares {size} bytes and holds {} or more", bytes.len())));
        }
        Ok(bytes)
    }
}
