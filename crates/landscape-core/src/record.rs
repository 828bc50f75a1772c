//! Records: a file of JSON lines that grows as a run goes on.
//!
//! A line counts once its line break is there. A killed run may leave part of a line, or lines after its last saved state;
//! [`RecordWriter::resume_at`] cuts those off, and [`read_records`] passes over a torn last line.

use crate::checkpoint::open;
use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Appends records to a file.
///
/// ```
/// use landscape_core::record::{RecordWriter, read_records};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("records.jsonl");
/// let mut records = RecordWriter::resume_at(&path, 0)?;
/// records.append(&serde_json::json!({"step": 1}))?;
/// let saved = records.position();
/// records.append(&serde_json::json!({"step": 2}))?;
///
/// let mut records = RecordWriter::resume_at(&path, saved)?;
/// records.append(&serde_json::json!({"step": 3}))?;
/// let steps: Vec<_> = read_records(&path)?.iter().map(|r| r["step"].as_u64()).collect();
/// assert_eq!(steps, [Some(1), Some(3)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RecordWriter {
    file: File,
    path: PathBuf,
    size_bytes: u64,
}

impl RecordWriter {
    /// Goes on with a file at the length that a saved state names; what comes after is cut off. With length 0 the file begins
    /// anew, and need not be there.
    ///
    /// # Errors
    /// [`Error::Write`] if it cannot be opened or cut; [`Error::Format`] if it is shorter, or `size_bytes` is not the end of a line.
    pub fn resume_at(path: &Path, size_bytes: u64) -> Result<Self> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if found < size_bytes {
            let reason = format!("expected at least the {size_bytes} bytes of records that the saved state counted, found {found}");
            return Err(Error::Format { path: path.to_owned(), reason });
        }
        if size_bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(size_bytes - 1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
            if last != *b"\n" {
                let reason = format!("expected the end of a record at byte {size_bytes}, where the saved state goes on");
                return Err(Error::Format { path: path.to_owned(), reason });
            }
        }
        file.set_len(size_bytes).and_then(|()| file.seek(SeekFrom::Start(size_bytes))).map_err(failed)?;
        Ok(RecordWriter { file, path: path.to_owned(), size_bytes })
    }

    /// Goes on after the last complete record; a torn line after it is cut off.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read, and as [`RecordWriter::resume_at`].
    pub fn resume(path: &Path) -> Result<Self> {
        let size_bytes = match read_bytes(path) {
            Ok(bytes) => complete(&bytes).len() as u64,
            Err(Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Self::resume_at(path, size_bytes)
    }

    /// Appends one record as one line.
    ///
    /// # Errors
    /// [`Error::Write`]; the file is cut back to the records before it. [`Error::Config`] if the record is no JSON.
    pub fn append(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(|e| Error::config("record", "expressible as JSON", e))?;
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line) {
            // If this fails too, the torn line stays, which readers pass over.
            let _ = self.file.set_len(self.size_bytes);
            let _ = self.file.seek(SeekFrom::Start(self.size_bytes));
            return Err(Error::Write { path: self.path.clone(), source });
        }
        self.size_bytes += line.len() as u64;
        Ok(())
    }

    /// Waits until all records are on the disk; to be called before a state is saved that names [`RecordWriter::position`].
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|source| Error::Write { path: self.path.clone(), source })
    }

    /// The file's length in bytes, to give to [`RecordWriter::resume_at`].
    pub fn position(&self) -> u64 {
        self.size_bytes
    }
}

/// All complete records of a file.
///
/// # Errors
/// [`Error::Read`], or [`Error::Format`] with the number of the line that is no JSON.
pub fn read_records(path: &Path) -> Result<Vec<Value>> {
    let bytes = read_bytes(path)?;
    let mut records = Vec::new();
    for (idx, line) in complete(&bytes).split_inclusive(|&byte| byte == b'\n').enumerate() {
        let record = serde_json::from_slice(line)
            .map_err(|e| Error::Format { path: path.to_owned(), reason: format!("line {}: expected one JSON record: {e}", idx + 1) })?;
        records.push(record);
    }
    Ok(records)
}

/// The lines that end.
fn complete(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    &bytes[..end]
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let (mut file, _) = open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::fs;

    #[test]
    fn a_torn_last_line_is_passed_over_and_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let whole = b"{\"a\":1}\n{\"a\":2}\n";
        for torn in [&b""[..], b"{", b"{\"a\":3}"] {
            fs::write(&path, [whole, torn].concat()).unwrap();
            assert_eq!(read_records(&path).unwrap(), [json!({"a": 1}), json!({"a": 2})]);
            let mut records = RecordWriter::resume(&path).unwrap();
            assert_eq!(records.position(), whole.len() as u64);
            records.append(&json!({"a": 4})).unwrap();
            records.sync().unwrap();
            assert_eq!(read_records(&path).unwrap()[2], json!({"a": 4}));
            assert_eq!(fs::metadata(&path).unwrap().len(), records.position());
        }
    }

    #[test]
    fn wrong_lengths_and_lines_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        fs::write(&path, b"{\"a\":1}\nnot json\n").unwrap();
        let message = read_records(&path).unwrap_err().to_string();
        assert!(message.contains("records.jsonl") && message.contains("line 2"), "{message}");
        for wrong in [3, 18] {
            assert!(matches!(RecordWriter::resume_at(&path, wrong).unwrap_err(), Error::Format { .. }));
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), 17, "a refused file is left as it was");
        assert!(matches!(read_records(folder.path()).unwrap_err(), Error::Read { .. }));
        assert!(matches!(RecordWriter::resume_at(folder.path(), 0).unwrap_err(), Error::Write { .. }));
    }

    proptest! {
        /// A kill is a cut at any byte: what is read is a prefix of the records, and going on loses none of it.
        #[test]
        fn any_cut_leaves_a_prefix(values in prop::collection::vec("[a-z\n\"\\\\]{0,6}", 0..6), share in 0.0..=1.0f64) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("records.jsonl");
            let mut records = RecordWriter::resume_at(&path, 0).unwrap();
            let mut ends = Vec::new();
            for value in &values {
                records.append(value).unwrap();
                ends.push(records.position());
            }
            let cut = (share * records.position() as f64) as u64;
            File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
            let n_whole = ends.iter().filter(|&&end| end <= cut).count();
            let expected: Vec<Value> = values[..n_whole].iter().map(|v| json!(v)).collect();
            prop_assert_eq!(&read_records(&path).unwrap(), &expected);
            RecordWriter::resume(&path).unwrap().append(&json!("next")).unwrap();
            prop_assert_eq!(read_records(&path).unwrap().len(), n_whole + 1);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("records.jsonl");
            fs::write(&path, bytes).unwrap();
            let _ = read_records(&path);
            RecordWriter::resume(&path).unwrap();
        }
    }
}
