//! All parts into one table, with what follows from them.

use crate::Options;
use crate::part::{self, Kind};
use anyhow::{Context, ensure};
use landscape_kernels::cuda::{Cuda, Libraries};
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

/// What the table says of the GPU and of the libraries that its products run on.
pub fn describe(place: &str, cuda: &Cuda) -> anyhow::Result<Value> {
    let (free_bytes, total_bytes) = cuda.memory_bytes()?;
    let Libraries { cublas, cudnn } = cuda.libraries();
    Ok(json!({
        "place": place, "name": cuda.name()?, "driver": cuda.driver_version()?, "free_bytes": free_bytes, "total_bytes": total_bytes,
        "libraries": {"cublas": cublas, "cudnn": cudnn},
    }))
}

/// Runs the parts and writes the table; fails, once it is written, where a part failed.
pub fn write(options: &Options, device: &Value) -> anyhow::Result<()> {
    let here = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    let mut parts = Vec::new();
    for (part, by) in PARTS.into_iter().filter(|(part, _)| options.only.as_ref().is_none_or(|only| only == part)) {
        println!("{part} ...");
        let row = match by {
            By::Ours => part::run(part, Kind::Rows, Command::new(std::env::current_exe()?).args(["--inside", part, &options.device])),
            By::Suite => {
                let mut suite = Command::new(here.join("conformance"));
                suite.args(["devices::", "weight_space::", "--nocapture"]).env("LANDSCAPE_TEST_DEVICE", &options.device);
                part::run(part, Kind::Tests, &mut suite)
            }
            By::Torch => {
                let how = part.trim_start_matches("torch-");
                part::run(part, Kind::Rows, Command::new(&options.python).arg(script(&here)).args([how, &options.device]))
            }
        };
        println!(
            "{part}: {:.0} s{}",
            row["seconds"].as_f64().unwrap_or_default(),
            row["failed"].as_str().map_or_else(String::new, |why| format!(", failed: {why}"))
        );
        parts.push(row);
    }
    let table = json!({
        "schema": "landscape-gpu/1",
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("LANDSCAPE_COMMIT"),
        "device": device,
        "ratios": ratios(&device["libraries"], &parts),
        "parts": &parts,
    });
    std::fs::write(&options.out, serde_json::to_vec_pretty(&table)?).with_context(|| format!("`{}`", options.out.display()))?;
    println!("wrote {}", options.out.display());
    let failed: Vec<&str> = parts.iter().filter(|part| !part["failed"].is_null()).filter_map(|part| part["part"].as_str()).collect();
    ensure!(failed.is_empty(), "{} of {} parts failed: {}", failed.len(), parts.len(), failed.join(", "));
    Ok(())
}

/// The script beside this program, or where the repository has it.
fn script(here: &std::path::Path) -> PathBuf {
    let packed = here.join("torch_gpu.py");
    if packed.exists() { packed } else { concat!(env!("CARGO_MANIFEST_DIR"), "/peers/torch_gpu.py").into() }
}

/// How far the losses of both sides may lie apart, as a share. Three steps without normalisation amplify rounding, and where PyTorch
/// computes in bf16 its activations are bf16 too.
fn tolerance(precision: &str) -> f64 {
    match precision {
        "f32" => 0.01,
        "tf32" => 0.02,
        _ => 0.05,
    }
}

/// Why two sides cannot be compared in a job; nothing if they can.
fn reason(libraries: &Value, precision: &str, job: &str, ours: &Value, theirs: &Value) -> Option<String> {
    if let Some(missing) = ["cublas", "cudnn"].into_iter().find(|name| libraries[name].is_null()) {
        return Some(format!("`{missing}` was not found, so products ran on own kernels"));
    }
    if let Some(why) = theirs["failed"].as_str() {
        return Some(format!("the peer failed: {why}"));
    }
    let losses = |side: &Value| -> Option<Vec<f64>> { side[format!("{job}_losses")].as_array()?.iter().map(Value::as_f64).collect() };
    let (Some(a), Some(b)) = (losses(ours), losses(theirs)) else { return Some("a side has no losses".to_owned()) };
    // The other way round a number that is none would pass.
    let near = |a: &f64, b: &f64| (a - b).abs() <= tolerance(precision) * b.abs();
    let agree = !a.is_empty() && a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| near(a, b));
    (!agree).then(|| format!("the losses differ: ours {a:?}, theirs {b:?}"))
}

/// Our seconds over PyTorch's where both were measured and say the same, and the shares of a copy's bandwidth, each with the mark it is
/// held to.
fn ratios(libraries: &Value, parts: &[Value]) -> Value {
    let rows = |name: &str| -> Vec<Value> {
        let part = parts.iter().find(|part| part["part"] == name);
        part.and_then(|part| part["rows"].as_array()).cloned().unwrap_or_default()
    };
    let mut ratios = Vec::new();
    for precision in ["f32", "tf32", "bf16"] {
        for ours in rows(&format!("steps-{precision}")) {
            for theirs in rows(&format!("torch-{precision}")).into_iter().filter(|row| row["model"] == ours["model"]) {
                let mark = if theirs["how"] == "eager" { 0.9 } else { 1.0 };
                for job in ["curve_step", "evaluation"] {
                    let mut row = json!({"job": job, "model": ours["model"], "precision": precision, "peer": theirs["how"]});
                    let key = format!("{job}_seconds");
                    match (reason(libraries, precision, job, &ours, &theirs), ours[&key].as_f64(), theirs[&key].as_f64()) {
                        (None, Some(a), Some(b)) => {
                            row["ratio"] = json!(a / b);
                            row["reach"] = json!(mark);
                            row["reached"] = json!(a / b <= mark);
                        }
                        (why, ..) => row["reason"] = json!(why.unwrap_or_else(|| "a side has no seconds".to_owned())),
                    }
                    ratios.push(row);
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

    fn both() -> Value {
        json!({"cublas": 130_100, "cudnn": 91_200})
    }

    fn side(losses: [f64; 3], seconds: [f64; 2]) -> Value {
        json!({
            "model": "resnet20", "how": "eager", "curve_step_losses": losses, "evaluation_losses": [2.5],
            "curve_step_seconds": seconds[0], "evaluation_seconds": seconds[1],
        })
    }

    fn part(name: &str, rows: Value) -> Value {
        json!({"part": name, "rows": rows})
    }

    #[test]
    fn ratios_are_ours_over_theirs_of_the_same_model_and_precision() {
        let losses = [2.3, 2.2, 2.1];
        let mut other = side(losses, [1.0, 0.5]);
        other["model"] = json!("vgg16");
        let theirs = json!([side(losses, [1.0, 0.5]), {"model": "resnet20", "how": "compiled", "failed": "no compiler"}, other]);
        let parts = [
            part("steps-tf32", json!([side(losses, [0.9, 1.0])])),
            part("torch-tf32", theirs.clone()),
            part("torch-f32", theirs),
            part("bandwidth", json!([{"kernel": "copy"}, {"kernel": "blend_k3", "share_of_copy": 0.8}])),
        ];
        let found = ratios(&both(), &parts);
        assert_eq!(found.as_array().map(Vec::len), Some(5));
        assert_eq!((&found[0]["ratio"], &found[0]["reached"], &found[0]["precision"]), (&json!(0.9), &json!(true), &json!("tf32")));
        assert_eq!((&found[1]["ratio"], &found[1]["reached"]), (&json!(2.0), &json!(false)));
        for idx in [2, 3] {
            let why = found[idx]["reason"].as_str().unwrap_or_default();
            assert!(why.contains("no compiler") && found[idx]["ratio"].is_null(), "{found}");
        }
        assert_eq!((&found[4]["kernel"], &found[4]["reached"]), (&json!("blend_k3"), &json!(false)));
    }

    /// Sides that do not say the same, or ran on other libraries, are not compared.
    #[test]
    fn there_is_a_reason_instead_of_a_ratio_where_answers_differ_or_libraries_are_missing() {
        let ours = [2.3, 2.2, 2.1];
        let of = |libraries: &Value, precision: &str, theirs: Value| {
            let parts = [
                part(&format!("steps-{precision}"), json!([side(ours, [1.0, 1.0])])),
                part(&format!("torch-{precision}"), json!([theirs])),
            ];
            ratios(libraries, &parts)
        };
        let apart = side([2.3, 2.2, 2.16], [1.0, 1.0]);
        let found = of(&both(), "f32", apart.clone());
        assert!(found[0]["ratio"].is_null() && found[0]["reason"].as_str().is_some_and(|why| why.contains("2.16")), "{found}");
        assert_eq!(found[1]["ratio"], 1.0, "the evaluations agree");
        assert_eq!(of(&both(), "bf16", apart)[0]["ratio"], 1.0, "bf16 may lie further apart");
        let mut none = side(ours, [1.0, 1.0]);
        none["curve_step_losses"] = json!([2.3, null, 2.1]);
        assert!(of(&both(), "f32", none)[0]["reason"].is_string());
        let mut fewer = side(ours, [1.0, 1.0]);
        fewer["curve_step_losses"] = json!([2.3]);
        assert!(of(&both(), "f32", fewer)[0]["reason"].is_string());
        for missing in ["cublas", "cudnn"] {
            let mut libraries = both();
            libraries[missing] = Value::Null;
            let found = of(&libraries, "f32", side(ours, [1.0, 1.0]));
            assert!(found[0]["ratio"].is_null() && found[0]["reason"].as_str().is_some_and(|why| why.contains(missing)), "{found}");
        }
    }
}
