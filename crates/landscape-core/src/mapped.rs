//! Files whose bytes are read where they are.
//!
//! A mapped file takes no memory of the process but the pages that were touched last, and those can be given back.

use crate::checkpoint::open;
use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A file, mapped to read.
#[derive(Clone)]
pub(crate) struct MappedFile(Arc<Mmap>);

impl MappedFile {
    /// Maps a regular file.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be opened or the system has no mapped files.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, _) = open(path)?;
        // SAFETY: the bytes are only ever read, as bytes or numbers of which every pattern is one, and no reference outlives the map. What
        // the compiler cannot know is that nobody else writes to the file meanwhile; `Checkpoint::map` asks that of its caller.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Ok(MappedFile(Arc::new(map)))
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives back the memory of the pages that lie wholly in `range`; reading them again costs another look into the system's cache.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            const PAGE: usize = 4096;
            let (start, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
            if start < end {
                // SAFETY: the map is shared and never written to, so what is read afterwards is the file again.
                // A system that refuses keeps the pages, which is no error.
                let _ = unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MappedFile({} bytes)", self.0.len())
    }
}
