//! STUB by the lead so that the crate compiles; fr replaces this file.
pub mod npz { pub fn write_curve(_: &std::path::Path, _: &landscape_core::profile::Profile) -> anyhow::Result<()> { Ok(()) } }
pub mod profile { pub fn draw_run(_: &crate::run_folder::RunFolder) -> anyhow::Result<()> { Ok(()) } }
