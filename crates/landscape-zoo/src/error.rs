//! What can go wrong in architectures and data sets.

use std::path::{Path, PathBuf};

/// The result of a call into this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in architectures and data sets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is out of its range.
    #[error("`{field}` must be {expected}, got {got}")]
    Config {
        /// The field or argument.
        field: &'static str,
        /// The range.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A model that is not known.
    #[error("unknown model `{got}`: expected one of {known}, or widths such as `mlp:784-512-10`")]
    UnknownModel {
        /// What was asked for.
        got: String,
        /// What there is.
        known: String,
    },
    /// A model that does not fit the data.
    #[error("model `{spec}`: expected {expected}, got {got}")]
    Model {
        /// The model.
        spec: String,
        /// What it needs.
        expected: String,
        /// What there is.
        got: String,
    },
    /// An architecture that cannot be.
    #[error(transparent)]
    Graph(#[from] landscape_graph::Error),
    /// A data set that is not known.
    #[error("unknown data `{got}`: expected {known}")]
    UnknownData {
        /// What was asked for.
        got: String,
        /// What there is.
        known: String,
    },
    /// Files of a data set are not there; all that were looked for are named.
    #[error("`{}`: missing {}{hint}", dir.display(), missing.join("; "))]
    MissingFiles {
        /// The folder they were looked for in.
        dir: PathBuf,
        /// Per missing file, the names that would have done.
        missing: Vec<String>,
        /// What was found instead, if it explains the matter; empty or begins with a separator.
        hint: String,
    },
    /// A file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what its format asks for.
    #[error("`{}`: expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the format asks for.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// An array of an archive is not what was asked for.
    #[error("`{}`: array `{array}`: expected {expected}, found {found}", path.display())]
    Array {
        /// The archive.
        path: PathBuf,
        /// The array.
        array: String,
        /// What is asked for.
        expected: String,
        /// What the array holds.
        found: String,
    },
}

impl Error {
    /// An option out of its range.
    pub fn config(field: &'static str, expected: impl Into<String>, got: impl ToString) -> Self {
        Error::Config { field, expected: expected.into(), got: got.to_string() }
    }

    /// A file that is not in its format.
    pub(crate) fn format(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Error::Format { path: path.to_owned(), expected: expected.into(), found: found.into() }
    }

    /// A file that could not be read.
    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        Error::Read { path: path.to_owned(), source }
    }
}
