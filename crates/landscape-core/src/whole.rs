//! Files that are whole or absent, also when the machine stops in the middle of writing them.
//!
//! The bytes go to a temporary file in the same folder, which is synced, renamed to its final name, and the folder is synced too.
//! A failure on the way removes the temporary file and leaves what was there before untouched. A killed process cannot clean up;
//! what it leaves begins with [`TEMPORARY_PREFIX`], and [`remove_stale`] and [`remove_stale_of`] delete it.

use crate::error::{Error, Result};
use crate::hash::sha256_hex;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// How the names of temporary files begin. The full name is this, 16 hexadecimal digits that stand for the final name, a `-` and
/// six random characters.
pub const TEMPORARY_PREFIX: &str = ".landscape-partial-";

/// What happens to a file that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// It stays, and the call fails with [`Error::Exists`]; also if it appears while the new one is being written.
    Refuse,
    /// It is replaced at once by the complete new one.
    Replace,
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// [`Error::Exists`] if it is there and must not be replaced; [`Error::Write`] if writing, syncing or renaming fails, or if the
/// place holds something that is no file.
///
/// ```
/// use landscape_core::whole::{self, Overwrite};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("note.txt");
/// whole::write(&path, b"first", Overwrite::Refuse)?;
/// assert!(whole::write(&path, b"second", Overwrite::Refuse).is_err());
/// assert_eq!(std::fs::read(&path)?, b"first");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(path: &Path, bytes: &[u8], overwrite: Overwrite) -> Result<()> {
    write_with(path, overwrite, |out| out.write_all(bytes))
}

/// Writes a file piece by piece, whole or not at all; `fill` gets a buffered writer.
///
/// # Errors
/// As [`write()`], and [`Error::Write`] with whatever `fill` failed with.
pub fn write_with(path: &Path, overwrite: Overwrite, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    write_through(path, overwrite, fill, |file| Box::new(file))
}

/// Removes the temporary files that killed runs left in `folder`; nothing else, and nothing if there is no such folder.
///
/// Only for folders in which no other process is writing just now; see [`remove_stale_of`].
///
/// # Errors
/// [`Error::Read`] if the folder cannot be listed, [`Error::Write`] if a file cannot be removed.
pub fn remove_stale(folder: &Path) -> Result<()> {
    remove_beginning_with(folder, TEMPORARY_PREFIX)
}

/// Removes the temporary files that killed runs left while they wrote `path`; those of other files in its folder stay.
///
/// # Errors
/// As [`remove_stale`].
pub fn remove_stale_of(path: &Path) -> Result<()> {
    remove_beginning_with(&folder_of(path), &temporary_prefix(path))
}

/// `wrap` stands between the buffer and the file; tests inject faults with it.
fn write_through(
    path: &Path,
    overwrite: Overwrite,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    wrap: impl for<'a> FnOnce(&'a File) -> Box<dyn Write + 'a>,
) -> Result<()> {
    let failed = |source: io::Error| Error::Write { path: path.to_owned(), source };
    check_place(path, overwrite)?;
    let folder = folder_of(path);
    let mut builder = tempfile::Builder::new();
    let prefix = temporary_prefix(path);
    builder.prefix(&prefix).rand_bytes(6);
    // tempfile's own default hides the file from other users; ours are ordinary files, subject to the umask.
    #[cfg(unix)]
    builder.permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
    let temporary = builder.tempfile_in(&folder).map_err(failed)?;
    // From here on every early return drops `temporary`, which removes the file.
    let mut out = Counted { inner: BufWriter::with_capacity(1 << 20, wrap(temporary.as_file())), n_bytes: 0 };
    fill(&mut out).and_then(|()| out.flush()).map_err(failed)?;
    let n_bytes = out.n_bytes;
    drop(out);
    temporary.as_file().sync_all().map_err(failed)?;
    let found = temporary.as_file().metadata().map_err(failed)?.len();
    if found != n_bytes {
        return Err(failed(io::Error::other(format!("{n_bytes} bytes were written, and the file holds {found}"))));
    }
    match overwrite {
        Overwrite::Replace => temporary.persist(path).map_err(|e| failed(e.error))?,
        Overwrite::Refuse => temporary.persist_noclobber(path).map_err(|e| match e.error.kind() {
            ErrorKind::AlreadyExists => Error::Exists { path: path.to_owned() },
            _ => failed(e.error),
        })?,
    };
    sync_folder(&folder).map_err(failed)
}

/// A rename would replace a device or a socket, and says of a folder only that it is one.
fn check_place(path: &Path, overwrite: Overwrite) -> Result<()> {
    let failed = |source: io::Error| Error::Write { path: path.to_owned(), source };
    if path.file_name().is_none() {
        return Err(failed(io::Error::new(ErrorKind::InvalidFilename, "expected the name of a file")));
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(failed(io::Error::new(ErrorKind::IsADirectory, "it is a folder"))),
        Ok(_) if overwrite == Overwrite::Refuse => Err(Error::Exists { path: path.to_owned() }),
        Ok(found) if !found.is_file() => Err(failed(io::Error::new(ErrorKind::AlreadyExists, "it is there and no regular file"))),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A hash rather than the name itself, so that a name of the greatest length still has room for its temporary.
fn temporary_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("{TEMPORARY_PREFIX}{}-", &sha256_hex(name.as_encoded_bytes())[..16])
}

/// The rename itself lasts only once the folder is on the disk.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file; renames are journalled by the system.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

fn remove_beginning_with(folder: &Path, prefix: &str) -> Result<()> {
    let unreadable = |source| Error::Read { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        let is_file = entry.file_type().map_err(unreadable)?.is_file();
        if is_file && entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            match fs::remove_file(entry.path()) {
                Err(source) if source.kind() != ErrorKind::NotFound => return Err(Error::Write { path: entry.path(), source }),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Counts what was handed over, to compare with what arrived.
struct Counted<W> {
    inner: W,
    n_bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.n_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Lets `n_good` bytes through, then misbehaves.
    struct Faulty<'a> {
        file: &'a File,
        n_good: usize,
        fault: Fault,
    }

    #[derive(Debug, Clone, Copy)]
    enum Fault {
        /// As a full disk does.
        Fails(ErrorKind),
        /// Takes nothing more without saying why.
        Stops,
        /// Claims to have written what it dropped.
        Drops,
    }

    impl Write for Faulty<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.n_good);
            let n_written = if n > 0 { self.file.write(&bytes[..n])? } else { 0 };
            self.n_good -= n_written;
            match self.fault {
                _ if n_written > 0 || bytes.is_empty() => Ok(n_written),
                Fault::Fails(kind) => Err(kind.into()),
                Fault::Stops => Ok(0),
                Fault::Drops => Ok(bytes.len()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn failing_and_truncated_writes_leave_what_was_there() {
        let new: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
        let faults = [Fault::Fails(ErrorKind::StorageFull), Fault::Fails(ErrorKind::FileTooLarge), Fault::Stops, Fault::Drops];
        for old in [None, Some(b"old".as_slice())] {
            for fault in faults {
                for n_good in [0, 1, 4096, new.len() - 1] {
                    let folder = tempfile::tempdir().unwrap();
                    let path = folder.path().join("out.bin");
                    if let Some(old) = old {
                        fs::write(&path, old).unwrap();
                    }
                    let result = write_through(
                        &path,
                        Overwrite::Replace,
                        |out| out.write_all(&new),
                        |file| Box::new(Faulty { file, n_good, fault }),
                    );
                    let error = result.unwrap_err();
                    let Error::Write { path: named, source } = &error else { panic!("{error}") };
                    assert_eq!(named, &path);
                    if let Fault::Fails(kind) = fault {
                        assert_eq!(source.kind(), kind);
                    }
                    assert!(error.to_string().contains("out.bin"), "{error}");
                    assert_eq!(fs::read(&path).ok().as_deref(), old, "{fault:?} after {n_good}");
                    assert_eq!(names(folder.path()).len(), usize::from(old.is_some()), "a temporary file stayed");
                }
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        write_through(
            &path,
            Overwrite::Replace,
            |out| out.write_all(&new),
            |file| Box::new(Faulty { file, n_good: usize::MAX, fault: Fault::Stops }),
        )
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), new);
    }

    #[test]
    fn a_writer_that_gives_up_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        let error = write_with(&path, Overwrite::Replace, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert!(error.unwrap_err().to_string().contains("no more"));
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn existing_files_are_refused_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        write(&path, b"first", Overwrite::Refuse).unwrap();
        assert!(matches!(write(&path, b"second", Overwrite::Refuse).unwrap_err(), Error::Exists { .. }));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write(&path, b"third", Overwrite::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        // A file that appears during the writing is not overwritten either.
        let late = folder.path().join("late.bin");
        let result = write_with(&late, Overwrite::Refuse, |out| {
            fs::write(&late, b"theirs")?;
            out.write_all(b"ours")
        });
        assert!(matches!(result.unwrap_err(), Error::Exists { .. }));
        assert_eq!(fs::read(&late).unwrap(), b"theirs");
        assert_eq!(names(folder.path()), ["late.bin", "out.bin"]);
    }

    #[test]
    fn places_that_cannot_be_written_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        for place in ["missing/out.bin", "folder", "file/out.bin", ".."] {
            let path = folder.path().join(place);
            let error = write(&path, b"x", Overwrite::Replace).unwrap_err();
            assert!(matches!(&error, Error::Write { path: named, .. } if *named == path), "{place}: {error}");
        }
        assert_eq!(names(folder.path()), ["file", "folder"]);
    }

    #[test]
    fn names_of_the_greatest_length_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255));
        write(&path, b"x", Overwrite::Refuse).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }

    #[test]
    fn stale_temporaries_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        let stale = |of: &str| folder.path().join(format!("{}abcdef", temporary_prefix(Path::new(of))));
        for kept in ["out.bin", "other", ".landscape-note"] {
            fs::write(folder.path().join(kept), b"kept").unwrap();
        }
        fs::write(stale("out.bin"), b"half").unwrap();
        fs::write(stale("other"), b"half").unwrap();
        remove_stale_of(&path).unwrap();
        assert!(!stale("out.bin").exists() && stale("other").exists());
        remove_stale(folder.path()).unwrap();
        assert_eq!(names(folder.path()), [".landscape-note", "other", "out.bin"]);
        remove_stale(&folder.path().join("absent")).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn files_have_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write(&ours, b"x", Overwrite::Refuse).unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
