//! `landscape import`: an ONNX file as a checkpoint that has its network in it.

use crate::args::{Common, ImportArgs};
use crate::job;
use crate::output;
use anyhow::{Context, bail};
use landscape_core::whole::{self, Overwrite};
use landscape_graph::{Dtype, Graph, NodeId};
use serde_json::{Value, json};

pub fn run(common: &Common, args: &ImportArgs) -> anyhow::Result<()> {
    let out = common.out.clone().context("`import` needs `--out FILE`: which file is to be written?")?;
    job::check_output_file(&out)?;
    if common.resume {
        bail!("`--resume` is for runs, and `import` is done at once");
    }
    if out.exists() && !common.force {
        bail!("`{}` exists already and is not overwritten; `--force` replaces it", out.display());
    }
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        bail!("cannot write `{}`: there is no folder `{}`", out.display(), folder.display());
    }
    whole::remove_stale_of(&out)?;
    let imported = landscape_onnx::import(&args.file).with_context(|| args.file.display().to_string())?;
    imported.checkpoint.check_finite().with_context(|| args.file.display().to_string())?;
    let overwrite = if common.force { Overwrite::Replace } else { Overwrite::Refuse };
    imported.checkpoint.write(&out, overwrite)?;
    let graph = &imported.graph;
    let document = json!({
        "schema": "landscape-import/1",
        "file": args.file,
        "checkpoint": out,
        "sha256": job::content_hash(&imported.checkpoint)?,
        "n_tensors": imported.checkpoint.tensors.len(),
        "n_parameters": graph.n_parameters(),
        "forward_flops": graph.cost().forward_flops,
        "inputs": graph.inputs().map(|id| place(graph, id)).collect::<Vec<_>>(),
        "outputs": graph.outputs().iter().map(|&id| place(graph, id)).collect::<Vec<_>>(),
    });
    output::result(common, &document, &describe(&document))
}

fn place(graph: &Graph, id: NodeId) -> Value {
    let node = graph.node(id);
    let whole = matches!(node.op, landscape_graph::Op::Input { dtype: Dtype::Int });
    json!({"name": node.name, "shape": node.shape, "whole_numbers": whole})
}

fn describe(document: &Value) -> String {
    let list = |places: &Value| {
        let place = |p: &Value| format!("{} {}", p["name"].as_str().unwrap_or_default(), p["shape"]);
        places.as_array().into_iter().flatten().map(place).collect::<Vec<_>>().join(", ")
    };
    format!(
        "{} parameters, {:.1} MFLOP per example forward\nfrom {} to {}\nwrote {}",
        document["n_parameters"],
        document["forward_flops"].as_f64().unwrap_or(0.0) / 1e6,
        list(&document["inputs"]),
        list(&document["outputs"]),
        document["checkpoint"].as_str().unwrap_or_default()
    )
}
