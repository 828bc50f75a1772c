//! All parts into one table, with what follows from them.

use crate::Options;
use crate::part::{self, Kind};
use anyhow::Context;
use landscape_kernels::cuda::Cuda;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

/// What runs a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// This program, in a process of its own.
    Ours,
    /// The conformance suite of the kernels, beside this program.
    Suite,
    /// PyTorch.
    Torch,
}

/// The parts in their order.
pub const PARTS: [(&str, By); 10] = [
    ("kernels", By::Suite),
    ("errors", By::Ours),
    ("determinism", By::Ours),
    ("bandwidth", By::Ours),
    ("steps-f32", By::Ours),
    ("steps-tf32", By::Ours),
    ("steps-bf16", By::Ours),
    ("torch-f32", By::Torch),
    ("torch-tf32", By::Torch),
    ("torch-bf16", By::Torch),
];

/// Runs the parts and writes the table.
pub fn write(options: &Options, cuda: &Cuda) -> anyhow::Result<()> {
    let here = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    let (name, (free_bytes, total_bytes)) = (cuda.name()?, cuda.memory_bytes()?);
    let mut parts = Vec::new();
    for (part, by) in PARTS.into_iter().filter(|(part, _)| options.only.as_ref().is_none_or(|only| only == part)) {
        println!("{part} ...");
        let row = match by {
            By::Ours => part::run(part, Kind::Document, Command::new(std::env::current_exe()?).args(["--inside", part, &options.device])),
            By::Suite => part::run(part, Kind::Tests, Command::new(here.join("conformance")).args(["devices::", "weight_space::"])),
            By::Torch => {
                let how = part.trim_start_matches("torch-");
                part::run(part, Kind::Document, Command::new(&options.python).arg(script(&here)).args([how, &options.device]))
            }
        };
        println!(
            "{part}: {:.0} s{}",
            row["seconds"].as_f64().unwrap_or_default(),
            row["result"]["failed"].as_str().map_or_else(String::new, |why| format!(", failed: {why}"))
        );
        parts.push(row);
    }
    let table = json!({
        "schema": "landscape-gpu/1",
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("LANDSCAPE_COMMIT"),
        "device": {"place": options.device, "name": name, "free_bytes": free_bytes, "total_bytes": total_bytes},
        "ratios": ratios(&parts),
        "parts": parts,
    });
    std::fs::write(&options.out, serde_json::to_vec_pretty(&table)?).with_context(|| format!("`{}`", options.out.display()))?;
    println!("wrote {}", options.out.display());
    Ok(())
}

/// The script beside this program, or where the repository has it.
fn script(here: &std::path::Path) -> PathBuf {
    let packed = here.join("torch_gpu.py");
    if packed.exists() { packed } else { concat!(env!("CARGO_MANIFEST_DIR"), "/peers/torch_gpu.py").into() }
}

/// Our seconds over PyTorch's where both were measured, and the shares of a copy's bandwidth, each with the mark it is held to.
fn ratios(parts: &[Value]) -> Value {
    let rows = |name: &str| -> Vec<Value> {
        let part = parts.iter().find(|part| part["part"] == name);
        part.and_then(|part| part["result"].as_array()).cloned().unwrap_or_default()
    };
    let mut ratios = Vec::new();
    for precision in ["f32", "tf32", "bf16"] {
        for ours in rows(&format!("steps-{precision}")) {
            for theirs in rows(&format!("torch-{precision}")).into_iter().filter(|row| row["model"] == ours["model"]) {
                let mark = if theirs["how"] == "eager" { 0.9 } else { 1.0 };
                for job in ["curve_step", "evaluation"] {
                    let key = format!("{job}_seconds");
                    let (Some(a), Some(b)) = (ours[&key].as_f64(), theirs[&key].as_f64()) else { continue };
                    ratios.push(json!({
                        "job": job, "model": ours["model"], "precision": precision, "peer": theirs["how"],
                        "ratio": a / b, "reach": mark, "reached": a / b <= mark,
                    }));
                }
            }
        }
    }
    for row in rows("bandwidth") {
        if let Some(share) = row["share_of_copy"].as_f64() {
            ratios.push(
                json!({"job": "weight space", "kernel": row["kernel"], "share_of_copy": share, "reach": 0.85, "reached": share >= 0.85}),
            );
        }
    }
    Value::Array(ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_ours_over_theirs_of_the_same_model_and_precision() {
        let ours = json!([{"model": "resnet20", "curve_step_seconds": 0.9, "evaluation_seconds": 1.0}]);
        let theirs = json!([
            {"model": "resnet20", "how": "eager", "curve_step_seconds": 1.0, "evaluation_seconds": 0.5},
            {"model": "resnet20", "how": "compiled", "skipped": "no compiler"},
            {"model": "vgg16", "how": "eager", "curve_step_seconds": 1.0, "evaluation_seconds": 0.5},
        ]);
        let parts = [
            json!({"part": "steps-tf32", "result": ours}),
            json!({"part": "torch-tf32", "result": theirs}),
            json!({"part": "torch-f32", "result": theirs}),
            json!({"part": "bandwidth", "result": [{"kernel": "copy"}, {"kernel": "blend_k3", "share_of_copy": 0.8}]}),
        ];
        let found = ratios(&parts);
        assert_eq!(found.as_array().map(Vec::len), Some(3));
        assert_eq!((&found[0]["ratio"], &found[0]["reached"], &found[0]["precision"]), (&json!(0.9), &json!(true), &json!("tf32")));
        assert_eq!((&found[1]["ratio"], &found[1]["reached"]), (&json!(2.0), &json!(false)));
        assert_eq!((&found[2]["kernel"], &found[2]["reached"]), (&json!("blend_k3"), &json!(false)));
    }
}
