//! Imports a file, computes its first output in single precision, and tells how far that is from what another program computed:
//!
//! `compare MODEL.onnx INPUTS.f32 OUTPUTS.f32 N`: raw little-endian numbers of N examples (for several inputs: example by example, input
//! after input). Prints one JSON line. `tests/golden/compare_onnx.py` runs it on networks that PyTorch exports.

use landscape_core::{ParamLayout, Pass};
use landscape_kernels::Device;
use landscape_network::Executor;
use std::path::Path;
use std::sync::Arc;

fn numbers(path: &str) -> std::io::Result<Vec<f32>> {
    Ok(std::fs::read(path)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, inputs, outputs, n] = args.as_slice() else { return Err("expected MODEL INPUTS OUTPUTS N".into()) };
    let n: usize = n.parse()?;
    let imported = landscape_onnx::import(Path::new(model))?;
    let (inputs, expected) = (numbers(inputs)?, numbers(outputs)?);
    let graph = Arc::new(imported.graph);
    let layout = Arc::new(ParamLayout::of_graph(&graph)?);
    let mut executor = Executor::<f32>::new(graph.clone(), &Device::Cpu)?;
    executor.load(&imported.checkpoint.params(&layout)?)?;
    executor.set_buffers(&imported.checkpoint.buffers(&graph)?)?;
    executor.evaluate(&inputs, n, Pass::EVALUATE)?;
    let got = executor.output().host().to_vec();
    let scale = expected.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
    let off = got.iter().zip(&expected).fold(0f64, |m, (a, b)| m.max((f64::from(*a) - f64::from(*b)).abs()));
    let mut ops = std::collections::BTreeMap::<&str, usize>::new();
    graph.nodes().iter().for_each(|node| *ops.entry(node.op.name()).or_default() += 1);
    let names: Vec<String> = graph.params().into_iter().map(|t| t.name).collect();
    println!(
        "{}",
        serde_json::json!({"n_parameters": graph.n_parameters(), "shape": graph.output_shape(), "fits": got.len() == expected.len(),
            "largest": scale, "largest_difference": off, "ops": ops, "names": names})
    );
    Ok(())
}
