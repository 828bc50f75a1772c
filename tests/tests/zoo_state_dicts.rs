//! The zoo's state dicts against those of torchvision, transformers and modules of the same layers
//! (`tests/golden/make_state_dicts.py`): names, shapes, order and counts.

use anyhow::{Context, Result, ensure};
use landscape_tests::golden::fnv1a64;
use serde_json::Value;
use std::path::Path;

#[test]
fn names_shapes_and_order_are_pytorchs() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/state_dicts.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let networks = golden["networks"].as_array().context("no networks")?;
    ensure!(networks.len() >= 49, "networks are missing: there are {}", networks.len());
    let mut failures = Vec::new();
    for network in networks {
        let number = |key: &str| network[key].as_u64().with_context(|| format!("no `{key}`"));
        let spec = network["spec"].as_str().context("no spec")?;
        let input_shape: Vec<usize> = serde_json::from_value(network["input_shape"].clone())?;
        let graph = landscape_zoo::models::build(spec, &input_shape, number("n_outputs")? as usize)?;
        let mut lines: Vec<String> = graph.state_dict().iter().map(|t| format!("{} {:?}\n", t.name, t.shape)).collect();
        if spec.starts_with("llama") {
            // Theirs lists a layer's norms after its linear layers, ours before what they feed.
            lines.sort();
        }
        let text = lines.concat();
        let found = (lines.len() as u64, graph.n_parameters() as u64, format!("{:016x}", fnv1a64(&text)));
        let expected = (number("n_tensors")?, number("n_parameters")?, network["hash"].as_str().unwrap_or_default().to_owned());
        if found != expected {
            failures.push(format!("{spec}: {found:?}, PyTorch {expected:?}; ours:\n{text}"));
        }
    }
    ensure!(failures.is_empty(), "`make_state_dicts.py --list` prints theirs: {}", failures.join("\n"));
    Ok(())
}
