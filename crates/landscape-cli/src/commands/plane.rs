//! STUB by the lead so that the crate compiles; fr replaces this file.
use crate::args::*;
pub fn run(_: &Common, _: &PlaneArgs) -> anyhow::Result<()> { anyhow::bail!("stub") }
pub fn measure_run(_: &Common, _: &crate::path::MeasuredPath, _: &crate::run_folder::RunFolder, _: &RefreshArgs, _: [usize; 2]) -> anyhow::Result<serde_json::Value> { Ok(serde_json::Value::Null) }
