//! Figures, drawn from records alone: what a run's folder holds is enough to draw them again.

pub mod axis;
pub mod color;
pub mod contour;
pub mod npz;
pub mod plane;
pub mod plane_record;
pub mod profile;
pub mod scene;
pub mod surface;

use landscape_core::whole::{self, Overwrite};
use scene::Scene;
use std::path::Path;

/// Writes a drawing as `STEM.svg` and `STEM.png`, replacing what was there.
pub fn write_figure(stem: &Path, scene: &Scene) -> anyhow::Result<()> {
    whole::write(&stem.with_extension("svg"), scene.svg()?.as_bytes(), Overwrite::Replace)?;
    Ok(whole::write(&stem.with_extension("png"), &scene.png()?, Overwrite::Replace)?)
}
