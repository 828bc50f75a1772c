//! STUB by the lead so that the crate compiles; fr replaces this file.
use crate::args::*;
use crate::run_folder::RunFolder;
pub fn run(_: &Common, _: &ReportArgs) -> anyhow::Result<()> { anyhow::bail!("stub") }
pub fn write(folder: &RunFolder, _: &[RunFolder], _: &Common) -> anyhow::Result<std::path::PathBuf> { Ok(folder.file("report.html")) }
