//! What the README promises of the demo.

use anyhow::{Context, bail};
use serde_json::Value;
use std::path::Path;

/// Fails unless endpoints are above 96 %, the line has a barrier, the curve has none, and report and figure are there.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let demo: Value = serde_json::from_str(&text)?;
    let number = |pointer: &str| demo.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("`{pointer}` is missing"));
    for k in 0..2 {
        let accuracy = number(&format!("/endpoints/{k}/test/accuracy"))?;
        if accuracy <= 0.96 {
            bail!("endpoint {k} has a test accuracy of {accuracy}, expected more than 0.96");
        }
    }
    let line = number("/line/barriers/train_loss/above_worse_end")?;
    let curve = number("/curve/barriers/train_loss/above_worse_end")?;
    if line < 0.2 || curve > 0.02 {
        bail!("the line rises {line} above the worse end (expected at least 0.2), the curve {curve} (expected at most 0.02)");
    }
    for key in ["report", "figure"] {
        let file = demo[key].as_str().with_context(|| format!("`{key}` is missing"))?;
        if !Path::new(file).is_file() {
            bail!("`{file}` was not written");
        }
    }
    println!("demo: line {line:.3}, curve {curve:.3}, {:.1} s in all", number("/total_seconds")?);
    Ok(())
}
