//! Files that must be refused, each with a message that says where and why.

use crate::{Error, import, import_bytes, proto::*};
use proptest::prelude::*;
use prost::Message;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn dimension(length: Result<i64, &str>) -> tensor_shape_proto::Dimension {
    use tensor_shape_proto::dimension::Value;
    let value = match length {
        Ok(n) => Value::DimValue(n),
        Err(name) => Value::DimParam(name.to_owned()),
    };
    tensor_shape_proto::Dimension { value: Some(value) }
}

fn input(name: &str, shape: &[Result<i64, &str>]) -> ValueInfoProto {
    let shape = TensorShapeProto { dim: shape.iter().map(|&d| dimension(d)).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(shape) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), metadata_props: Vec::new() }
}

fn node(op: &str, name: &str, inputs: &[&str], output: &str) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
    NodeProto {
        input: owned(inputs),
        output: owned(&[output]),
        name: Some(name.to_owned()),
        op_type: Some(op.to_owned()),
        ..NodeProto::default()
    }
}

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let (name, dims) = (Some(name.to_owned()), dims.to_vec());
    TensorProto { name, dims, data_type: Some(1), float_data: values.to_vec(), ..TensorProto::default() }
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    let dims = vec![values.len() as i64];
    TensorProto { name: Some(name.to_owned()), dims, data_type: Some(7), int64_data: values.to_vec(), ..TensorProto::default() }
}

/// [batch, 4] to `y` by these nodes.
fn model(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        initializer,
        input: vec![input("x", &[Err("batch"), Ok(4)])],
        output: vec![ValueInfoProto { name: Some("y".to_owned()), ..ValueInfoProto::default() }],
        value_info: Vec::new(),
    };
    let opset = OperatorSetIdProto { domain: None, version: Some(17) };
    ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph) }
}

fn message(model: &ModelProto) -> String {
    import_bytes(model.encode_to_vec()).unwrap_err().to_string()
}

#[test]
fn ops_that_are_not_supported_are_listed_all_at_once() {
    let nodes = vec![
        node("Einsum", "first", &["x"], "a"),
        node("Relu", "fine", &["a"], "b"),
        node("If", "branch", &["b"], "c"),
        node("LogSoftmax", "end", &["x"], "d"),
        node("Erf", "lone", &["x"], "e"),
        NodeProto { domain: Some("com.example".to_owned()), ..node("Thing", "own", &["c"], "f") },
        node("Add", "sum", &["d", "e"], "y"),
    ];
    let Error::Unsupported { problems } = import_bytes(model(nodes, Vec::new()).encode_to_vec()).unwrap_err() else { panic!() };
    let listed: Vec<(&str, &str)> = problems.iter().map(|p| (p.op.as_str(), p.node.as_str())).collect();
    assert_eq!(listed, [("Einsum", "first"), ("If", "branch"), ("LogSoftmax", "end"), ("Thing", "own")]);
    assert!(problems[1].reason.contains("control flow"));
    // An error function that is no gelu is found at the end.
    let lone = message(&model(vec![node("Erf", "lone", &["x"], "y")], Vec::new()));
    assert!(lone.contains("Erf `lone`") && lone.contains("gelu"), "{lone}");
}

#[test]
fn what_a_file_lacks_is_named() {
    let cases = [
        (vec![node("Relu", "r", &["nowhere"], "y")], vec![], "`nowhere`"),
        (vec![node("Relu", "r", &["x"], "z")], vec![], "`y`"),
        (vec![node("Relu", "r", &["x"], "x")], vec![], "there already"),
        (vec![node("MatMul", "m", &["x", "w"], "y")], vec![tensor("w", &[4, 2], &[1.0; 7])], "`w`: 32 bytes"),
        (vec![node("MatMul", "m", &["x", "w"], "y")], vec![tensor("w", &[5, 2], &[1.0; 10])], "MatMul `m`: a weight for 5 numbers"),
        (vec![node("MatMul", "m", &["x", "w"], "y")], vec![tensor("w", &[-4, 2], &[])], "negative"),
        (vec![node("MatMul", "m", &["x", "w"], "y")], vec![tensor("w", &[i64::MAX, i64::MAX], &[])], "`w`"),
        (vec![node("Relu", "r", &["x"], "y")], vec![tensor("x", &[4], &[0.0; 4])], "no inputs"),
    ];
    for (nodes, initializer, needle) in cases {
        let found = message(&model(nodes, initializer));
        assert!(found.contains(needle), "{needle}: {found}");
    }
    assert!(import_bytes(Vec::new()).unwrap_err().to_string().contains("no graph"));
    assert!(import_bytes(b"\x89PNG\r\n\x1a\n a picture".to_vec()).is_err());
    assert!(matches!(import(Path::new("/nowhere/at/all.onnx")), Err(Error::Read { .. })));
    let mut old = model(vec![node("Relu", "r", &["x"], "y")], vec![]);
    old.opset_import[0].version = Some(9);
    assert!(message(&old).contains("version 9"));
}

#[test]
fn the_batch_stays_where_it_is_and_of_any_size() {
    let moved = vec![node("Transpose", "t", &["x"], "y")];
    assert!(message(&model(moved, vec![])).contains("output `y`: the batch is not its first axis"));
    let fixed = vec![node("Reshape", "r", &["x", "shape"], "y")];
    let found = message(&model(fixed, vec![ints("shape", &[2, 8])]));
    assert!(found.contains("Reshape `r`") && found.contains("fixes the size of the batch"), "{found}");
    let mixed = vec![node("Add", "a", &["x", "row"], "y")];
    let found = message(&model(mixed, vec![tensor("row", &[3, 4], &[0.0; 12])]));
    assert!(found.contains("Add `a`") && found.contains("beside the batch"), "{found}");
    for (shape, needle) in [(vec![Err("batch"), Err("length")], "`length`"), (vec![Ok(2)], "batch alone"), (vec![Ok(0), Ok(4)], "0 long")] {
        let mut any = model(vec![node("Relu", "r", &["x"], "y")], vec![]);
        any.graph.as_mut().unwrap().input = vec![input("x", &shape)];
        let found = message(&any);
        assert!(found.contains("input `x`") && found.contains(needle), "{found}");
    }
}

#[test]
fn weights_outside_must_lie_beside_the_file() {
    let external = |location: &str, length: &str| {
        let entry = |key: &str, value: &str| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) };
        let external_data = vec![entry("location", location), entry("offset", "4"), entry("length", length)];
        let weight = TensorProto { data_location: Some(1), external_data, float_data: Vec::new(), ..tensor("w", &[4, 2], &[]) };
        model(vec![node("MatMul", "m", &["x", "w"], "y")], vec![weight]).encode_to_vec()
    };
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(folder.path().join("secret.bin"), [0; 100]).unwrap();
    std::fs::write(inner.join("weights.bin"), [0; 36]).unwrap();
    std::fs::write(inner.join("short.bin"), [0; 20]).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../secret.bin", inner.join("link.bin")).unwrap();
    let path = inner.join("model.onnx");
    let refused = |location: &str, length: &str| {
        std::fs::write(&path, external(location, length)).unwrap();
        import(&path).unwrap_err().to_string()
    };
    for (location, length, needle) in [
        ("absent.bin", "32", "absent.bin"),
        ("../secret.bin", "32", "must lie in the folder"),
        ("/etc/passwd", "32", "must lie in the folder"),
        ("", "32", "must lie in the folder"),
        ("short.bin", "32", "which has 20"),
        ("weights.bin", "18446744073709551615", "which has 36"),
        ("weights.bin", "31", "32 bytes"),
        ("weights.bin", "many", "no number"),
    ] {
        let found = refused(location, length);
        assert!(found.contains(needle), "{location} {length}: {found}");
    }
    #[cfg(unix)]
    assert!(refused("link.bin", "32").contains("outside"));
    std::fs::write(&path, external("weights.bin", "32")).unwrap();
    import(&path).unwrap();
    assert!(import_bytes(external("weights.bin", "32")).unwrap_err().to_string().contains("not read from a folder"));
}

#[test]
fn a_small_file_computes_no_large_constants() {
    let size = ints("size", &[1 << 20, 1 << 20]);
    let found = message(&model(vec![node("ConstantOfShape", "zeros", &["size"], "z"), node("Add", "a", &["x", "z"], "y")], vec![size]));
    assert!(found.contains("ConstantOfShape `zeros`") && found.contains("too large"), "{found}");
    // Twice as long at every step.
    let mut nodes = vec![node("Identity", "i", &["c"], "c0")];
    for step in 0..40 {
        let from = format!("c{step}");
        let mut concat = node("Concat", &format!("concat{step}"), &[&from, &from], &format!("c{}", step + 1));
        concat.attribute.push(AttributeProto { name: Some("axis".to_owned()), i: Some(0), ..AttributeProto::default() });
        nodes.push(concat);
    }
    nodes.push(node("Reshape", "r", &["x", "c40"], "y"));
    let found = message(&model(nodes, vec![ints("c", &[1; 64])]));
    assert!(found.contains("too large"), "{found}");
}

const FILES: [&str; 5] = ["mlp.onnx", "convnet.onnx", "transformer.onnx", "mixed.onnx", "attention.onnx"];

#[test]
fn truncated_files_are_refused() {
    for file in FILES {
        let whole = std::fs::read(fixture(file)).unwrap();
        for end in (0..whole.len()).step_by(7) {
            // What is cut off may be the end that says which ops' version is used, or the last output, but never nothing.
            assert!(import_bytes(whole[..end].to_vec()).is_err(), "{file} up to {end} of {}", whole.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn changed_bytes_never_panic(file in 0..FILES.len(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
        let mut bytes = std::fs::read(fixture(FILES[file])).unwrap();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let _ = import_bytes(bytes.clone());
        bytes.truncate(cut.index(bytes.len()));
        let _ = import_bytes(bytes);
    }
}
