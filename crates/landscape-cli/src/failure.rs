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

/// Training ended with weights that are no numbers.
#[derive(Debug)]
pub struct NoNumbers;

impl std::fmt::Display for NoNumbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("training ended with weights that are no numbers; try a smaller `--lr`")
    }
}

/// Some of many networks diverged; the others are trained.
#[derive(Debug)]
pub struct SomeFailed {
    pub n_failed: usize,
    pub n_networks: usize,
}

impl std::fmt::Display for SomeFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} networks diverged; try a smaller `--lr`", self.n_failed, self.n_networks)
    }
}

impl std::error::Error for SomeFailed {}

/// Whether training came to numbers that are none.
pub fn is_divergence(error: &anyhow::Error) -> bool {
    let diverged = |cause: &(dyn std::error::Error + 'static)| matches!(cause.downcast_ref(), Some(TrainError::Diverged { .. }));
    error.downcast_ref::<NoNumbers>().is_some() || error.chain().any(diverged)
}

/// Prints the error and gives its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let code = exit_code(error);
    let label = if code == 130 { "landscape" } else { "error" };
    // A closed stderr is no reason to fail differently.
    let _ = writeln!(std::io::stderr(), "{label}: {}", message(error));
    ExitCode::from(code)
}

/// The chain of causes. Errors of the libraries end with their cause, which is not said twice.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        if !text.ends_with(&part) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{part}");
        }
    }
    text
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if is_divergence(error) || error.downcast_ref::<SomeFailed>().is_some() {
        return 1;
    }
    for cause in error.chain() {
        if cause.is::<Interrupted>() {
            return 130;
        }
        let core = match cause.downcast_ref::<TrainError>() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let source = std::io::Error::from(ErrorKind::NotFound);
        let said = source.to_string();
        let error = anyhow::Error::from(CoreError::Write { path: "x".into(), source }).context("`run`");
        assert_eq!(message(&error), format!("`run`: cannot write `x`: {said}"));
    }

    #[test]
    fn a_full_disk_is_a_failed_run_and_a_wrong_place_a_wrong_request() {
        let code = |kind: ErrorKind| exit_code(&anyhow::Error::from(CoreError::Write { path: "x".into(), source: kind.into() }));
        assert_eq!([ErrorKind::StorageFull, ErrorKind::FileTooLarge, ErrorKind::QuotaExceeded, ErrorKind::Other].map(code), [1; 4]);
        assert_eq!([ErrorKind::NotFound, ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem].map(code), [2; 3]);
        assert_eq!(exit_code(&anyhow::anyhow!("`--points` must be at least 2")), 2);
        let not_finite = || CoreError::NotFinite { tensor: "w".into(), idx: 0, value: f64::NAN };
        assert_eq!(exit_code(&not_finite().into()), 2, "in an input");
        assert_eq!(exit_code(&anyhow::Error::from(not_finite()).context(NoNumbers)), 1, "after training");
        let diverged = || anyhow::Error::from(TrainError::Diverged { step: 3, loss_nats: f64::NAN });
        assert!(is_divergence(&diverged()) && is_divergence(&diverged().context("seed 3")) && !is_divergence(&not_finite().into()));
        assert_eq!([exit_code(&diverged()), exit_code(&SomeFailed { n_failed: 1, n_networks: 2 }.into())], [1; 2]);
        assert_eq!(exit_code(&Interrupted { resume_hint: String::new() }.into()), 130);
    }
}
