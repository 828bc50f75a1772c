//! The files that `tests/golden/make_pth_fixtures.py` made with PyTorch, read without it.
#![allow(clippy::unwrap_used)]

use landscape_core::checkpoint::Checkpoint;
use landscape_core::foreign::{How, match_names, read_state_dict};
use landscape_core::tensor::Dtype;
use landscape_graph::{Bias, Conv2d, Graph, GraphBuilder};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read(name: &str) -> Checkpoint {
    read_state_dict(&fixture(name)).unwrap()
}

/// Element i of the tensor with tag j.
fn element(tag: usize, i: usize) -> f64 {
    (((7 * i + 13 * tag) % 64) as f64 - 32.0) / 32.0
}

fn filled(tag: usize, indices: impl IntoIterator<Item = usize>) -> Vec<f64> {
    indices.into_iter().map(|i| element(tag, i)).collect()
}

fn check(checkpoint: &Checkpoint, name: &str, shape: &[usize], expected: &[f64]) {
    let tensor = checkpoint.get(name).unwrap_or_else(|| panic!("`{name}` is missing"));
    assert_eq!((tensor.shape(), tensor.to_f64_vec()), (shape, expected.to_vec()), "{name}");
}

fn check_mlp(checkpoint: &Checkpoint, dtype: Dtype, file: &str) {
    let shapes: [(&str, &[usize]); 4] = [("0.weight", &[5, 4]), ("0.bias", &[5]), ("2.weight", &[3, 5]), ("2.bias", &[3])];
    let names: Vec<&str> = checkpoint.tensors.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, shapes.map(|(name, _)| name), "{file}: in the order of the state dict, and nothing else");
    for (tag, (name, shape)) in shapes.into_iter().enumerate() {
        check(checkpoint, name, shape, &filled(tag, 0..shape.iter().product()));
        assert_eq!(checkpoint.get(name).unwrap().dtype(), dtype, "{file}");
    }
}

#[test]
fn every_float_protocol_wrapper_and_prefix_is_read() {
    let names = ["plain", "protocol3", "protocol4", "protocol5", "deflated", "data_parallel_compiled"];
    let wrapped = ["state_dict", "model_state", "model_state_dict", "model"].map(|w| format!("wrapped_{w}"));
    for name in names.into_iter().map(str::to_owned).chain(wrapped) {
        check_mlp(&read(&format!("{name}.pth")), Dtype::F32, &name);
    }
    for (name, dtype) in [("bf16.pth", Dtype::Bf16), ("f16.pth", Dtype::F16), ("f64.pth", Dtype::F64)] {
        check_mlp(&read(name), dtype, name);
    }
}

#[test]
fn whole_numbers_scalars_and_empty_tensors_are_read() {
    let checkpoint = read("integers.pth");
    for dtype in [Dtype::I64, Dtype::I32, Dtype::I16, Dtype::I8, Dtype::U64, Dtype::U32, Dtype::U16, Dtype::U8] {
        let name = dtype.name().replace('I', "int").replace('U', "uint");
        check(&checkpoint, &name, &[3], &[0.0, 1.0, 100.0]);
        assert_eq!(checkpoint.get(&name).unwrap().dtype(), dtype);
    }
    check(&checkpoint, "bool", &[3], &[0.0, 1.0, 1.0]);
    check(&checkpoint, "scalar", &[], &[7.0]);
    check(&checkpoint, "empty", &[0, 3], &[]);
}

#[test]
fn views_are_laid_out_row_major() {
    let checkpoint = read("strided.pth");
    check(&checkpoint, "transposed", &[5, 4], &filled(0, (0..5).flat_map(|r| (0..4).map(move |c| c * 5 + r))));
    check(&checkpoint, "columns", &[4, 3], &filled(0, (0..4).flat_map(|r| [1, 3, 5].map(move |c| r * 6 + c))));
    let permuted = (0..4).flat_map(|c| (0..2).flat_map(move |a| (0..3).map(move |b| (a * 3 + b) * 4 + c)));
    check(&checkpoint, "permuted", &[4, 2, 3], &filled(1, permuted));
    check(&checkpoint, "slice", &[2, 3], &filled(2, 21..27));
    check(&checkpoint, "unit", &[1, 3, 2], &filled(3, 0..6));
}

#[test]
fn shared_storages_are_read_for_each_tensor() {
    let checkpoint = read("shared.pth");
    for name in ["encoder.weight", "decoder.weight"] {
        check(&checkpoint, name, &[3, 4], &filled(0, 0..12));
    }
    check(&checkpoint, "decoder.transposed", &[4, 3], &filled(0, (0..4).flat_map(|r| (0..3).map(move |c| c * 4 + r))));
    check(&checkpoint, "row", &[4], &filled(0, 4..8));
}

#[test]
fn parameters_are_read_as_tensors() {
    let checkpoint = read("parameters.pth");
    check(&checkpoint, "weight", &[3, 4], &filled(0, 0..12));
    check(&checkpoint, "bias", &[3], &filled(1, 0..3));
}

fn convolutional() -> Graph {
    let mut b = GraphBuilder::new([1, 4, 4]);
    let x = b.conv2d("conv", b.input(), Conv2d::new(2, 3)).unwrap();
    let x = b.batch_norm("bn", x).unwrap();
    let x = b.relu("relu", x).unwrap();
    let x = b.flatten("flatten", x).unwrap();
    let x = b.linear("fc", x, 3, Bias::On).unwrap();
    b.finish(x).unwrap()
}

#[test]
fn a_network_with_batch_norm_is_matched_and_read() {
    let (graph, checkpoint) = (convolutional(), read("batch_norm.pth"));
    let mapping = match_names(&graph, &checkpoint).unwrap();
    assert_eq!(mapping.how, How::ByOrderAndShape);
    let pairs: Vec<(&str, &str)> = mapping.pairs.iter().map(|(t, o)| (t.as_str(), o.as_str())).collect();
    assert_eq!(pairs[6], ("1.num_batches_tracked", "bn.num_batches_tracked"));
    assert_eq!(pairs[7], ("4.weight", "fc.weight"));
    let buffers = checkpoint.renamed(&mapping).unwrap().buffers(&graph).unwrap();
    assert_eq!(buffers.get("bn.running_var").unwrap(), filled(5, 0..2));
    assert_eq!(buffers.get("bn.num_batches_tracked").unwrap(), [5.0]);
}

fn refused(name: &str, parts: &[&str]) {
    let message = read_state_dict(&fixture(name)).unwrap_err().to_string();
    for part in parts.iter().chain([&name]) {
        assert!(message.contains(part), "{name}: expected `{part}` in: {message}");
    }
}

#[test]
fn pickles_that_want_to_run_code_are_refused_by_name() {
    for name in ["evil0.pth", "evil2.pth", "evil4.pth"] {
        refused(name, &["`archive/data.pkl` asks to run `posix.system`", "refused"]);
    }
    refused("evil_inst.pth", &["asks to run `os.system`"]);
    refused("whole_module.pth", &["asks to run `torch.nn.modules.linear.Linear`", "save `model.state_dict()` alone"]);
}

#[test]
fn other_contents_are_refused_with_a_reason() {
    refused("legacy.pth", &["before version 1.6", "_use_new_zipfile_serialization=True"]);
    refused("no_tensors.pth", &["no state dict", "epoch"]);
    refused("list.pth", &["holds a list, expected a dictionary of tensors"]);
    refused("wrapped_twice.pth", &["both `model` and `state_dict`"]);
    refused("big_endian.pth", &["must be `little`, got `big`"]);
}
