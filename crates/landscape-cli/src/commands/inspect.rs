//! `landscape inspect`: what is in a checkpoint, and whether anything is wrong with it.

use crate::args::{Common, InspectArgs};
use crate::job::{self, Data};
use crate::output;
use landscape_core::checkpoint::Checkpoint;
use landscape_core::foreign;
use serde_json::{Value, json};

pub fn run(common: &Common, args: &InspectArgs) -> anyhow::Result<()> {
    let checkpoint = job::read_checkpoint(&args.file)?;
    let finite = checkpoint.check_finite().err().map(|e| e.to_string());
    let graph = match (&checkpoint.metadata, &args.model.model) {
        (Some(metadata), _) if metadata.graph.is_some() => metadata.graph.clone(),
        (_, Some(spec)) => {
            let data = Data::open(&args.data, None, None)?;
            Some(job::build(spec, &data)?)
        }
        _ => None,
    };
    let fits = graph.as_ref().map(|graph| foreign::match_names(graph, &checkpoint));
    let n_parameters = graph.as_ref().map(landscape_graph::Graph::n_parameters);
    let tensors: Vec<Value> = checkpoint
        .tensors
        .iter()
        .map(|(name, tensor)| {
            let values = tensor.to_f64_vec();
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            json!({"name": name, "dtype": tensor.dtype().name(), "shape": tensor.shape(), "n_elements": values.len(), "mean": mean, "std": std})
        })
        .collect();
    let fit = match &fits {
        None => json!(null),
        Some(Ok(mapping)) => json!({"matches": true, "renamed": mapping.pairs.iter().filter(|(a, b)| a != b).count()}),
        Some(Err(error)) => json!({"matches": false, "reason": error.to_string()}),
    };
    let document = json!({
        "schema": "landscape-inspect/1",
        "file": args.file,
        "sha256": job::content_hash(&checkpoint)?,
        "n_tensors": tensors.len(),
        "n_parameters": n_parameters,
        "forward_flops": graph.as_ref().map(|g| g.cost().forward_flops),
        "tensors": tensors,
        "metadata": checkpoint.metadata,
        "graph": fit,
        "not_finite": finite,
    });
    output::result(common, &document, &describe(&document, &checkpoint))
}

fn describe(document: &Value, checkpoint: &Checkpoint) -> String {
    let mut text = String::new();
    for tensor in document["tensors"].as_array().into_iter().flatten() {
        text += &format!(
            "{:<40} {:<6} {:<22} mean {:>11.4e}  std {:>11.4e}\n",
            tensor["name"].as_str().unwrap_or_default(),
            tensor["dtype"].as_str().unwrap_or_default(),
            tensor["shape"].to_string(),
            tensor["mean"].as_f64().unwrap_or(f64::NAN),
            tensor["std"].as_f64().unwrap_or(f64::NAN),
        );
    }
    if let Some(n) = document["n_parameters"].as_u64() {
        text += &format!("{n} parameters, {:.1} MFLOP per example forward\n", document["forward_flops"].as_f64().unwrap_or(0.0) / 1e6);
    }
    if let Some(metadata) = &checkpoint.metadata {
        if let Some(data) = &metadata.data {
            text += &format!("trained on {} ({})\n", data.name, &data.sha256[..12.min(data.sha256.len())]);
        }
        for (name, value) in &metadata.metrics {
            text += &format!("{name} {value:.4}\n");
        }
        if let Some(point) = &metadata.point {
            text += &format!("point t = {} of a {} curve with {} control points\n", point.t, point.curve, point.n_points);
        }
    }
    if let Some(reason) = document["graph"]["reason"].as_str() {
        text += &format!("does not fit the network: {reason}\n");
    }
    match document["not_finite"].as_str() {
        Some(problem) => text + problem,
        None => text + "every number is finite",
    }
}
