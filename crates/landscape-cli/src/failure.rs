//! Errors to exit codes: 1 the run failed, 2 the request or an input is wrong, 130 interrupted.

use landscape_core::Error as CoreError;
use landscape_train::Error as TrainError;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// The run was interrupted and its state saved.
#[derive(Debug)]
pub struct Interrupted {
    /// What to type to go on.
    pub resume_hint: String,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted; the state is saved: {}", self.resume_hint)
    }
}

impl std::error::Error for Interrupted {}

/// Prints the error and gives its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let code = exit_code(error);
    let label = if code == 130 { "landscape" } else { "error" };
    // A closed stderr is no reason to fail differently.
    let _ = writeln!(std::io::stderr(), "{label}: {error:#}");
    ExitCode::from(code)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Interrupted>() {
            return 130;
        }
        let core = match cause.downcast_ref::<TrainError>() {
            Some(TrainError::Diverged { .. }) => return 1,
            Some(TrainError::Core(core)) => Some(core),
            _ => cause.downcast_ref::<CoreError>(),
        };
        if let Some(CoreError::Write { source, .. }) = core {
            return write_code(source);
        }
    }
    2
}

/// A place that cannot be written to is a wrong request; a disk that fills up is a failed run.
fn write_code(source: &std::io::Error) -> u8 {
    match source.kind() {
        ErrorKind::PermissionDenied
        | ErrorKind::NotFound
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::InvalidFilename
        | ErrorKind::AlreadyExists => 2,
        _ => 1,
    }
}
