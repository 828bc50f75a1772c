//! Finished pieces of a long measurement, one JSON line each, so that `--resume` measures only what is left.
//!
//! The first line is the configuration of the measurement; pieces of another one are not used. Numbers are written so that they
//! read back exactly, so a resumed measurement gives the bits of an unbroken one.

use landscape_core::record::{self, RecordWriter};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::path::Path;

/// The pieces of one measurement.
pub struct Partial<P> {
    writer: RecordWriter,
    /// What earlier sittings finished, in order.
    pub done: Vec<P>,
}

impl<P: Serialize + DeserializeOwned> Partial<P> {
    /// Takes up what `path` holds of a measurement of this configuration, if asked to; else begins anew.
    pub fn open(path: &Path, config: &Value, resume: bool) -> anyhow::Result<Self> {
        let mut done = Vec::new();
        if resume && path.is_file() {
            let lines = record::read_records(path)?;
            if lines.first() == Some(config) {
                done = lines.into_iter().skip(1).map(serde_json::from_value).collect::<Result<_, _>>()?;
            }
        }
        let mut writer = RecordWriter::resume_at(path, 0)?;
        writer.append(config)?;
        let mut partial = Partial { writer, done: Vec::new() };
        for piece in done {
            partial.push(piece)?;
        }
        Ok(partial)
    }

    /// Adds a finished piece.
    pub fn push(&mut self, piece: P) -> anyhow::Result<()> {
        self.writer.append(&serde_json::to_value(&piece)?)?;
        self.done.push(piece);
        Ok(())
    }
}

/// Takes the file away, if it is there: the measurement is written elsewhere.
pub fn discard(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(landscape_core::Error::Write { path: path.to_owned(), source }.into())
        }
        _ => Ok(()),
    }
}
