//! Files, flags and outputs that must be refused: each with exit code 2, a message that names what is wrong, and no byte changed.
#![allow(clippy::unwrap_used)]

mod common;
mod files;

use common::{MODEL, Sandbox};
use files::{Cifar, Idx, npy, npz, safetensors, zip};
use landscape_core::checkpoint::Checkpoint;
use landscape_core::tensor::RawTensor;
use landscape_core::whole::Overwrite;

/// Every command that reads a checkpoint, with the damaged one in every place.
fn refuse_checkpoint(sandbox: &Sandbox, file: &str, needles: &[&str]) {
    let (a, b) = ("a.safetensors", "b.safetensors");
    let model = ["--model", MODEL];
    for args in [
        &["connect", file, b, "--out", "new"][..],
        &["connect", a, file, "--out", "new"],
        &["connect", a, b, file, "--out", "new"],
        &["profile", a, file],
        &["plane", a, b, file],
        &["train", "--init-from", file, "--out", "new.safetensors"],
        &["inspect", file],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(model).collect();
        sandbox.refused(&args, &[&[file], needles].concat());
    }
}

#[test]
fn damaged_safetensors_are_refused() {
    let sandbox = Sandbox::with_pair();
    let whole = sandbox.read("a.safetensors");
    for n_bytes in [0, 1, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        sandbox.write("bad.safetensors", &whole[..n_bytes]);
        refuse_checkpoint(&sandbox, "bad.safetensors", &[]);
    }
    let with_length = |n: u64| [&n.to_le_bytes()[..], &whole[8..]].concat();
    let tensor = |dtype: &str, shape: &str, end: usize| {
        safetensors(&format!(r#"{{"fc1.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#), &[0; 64])
    };
    for (bytes, needle) in [
        ([&whole[..], b"more"].concat(), "data"),
        (with_length(u64::MAX), "safetensors "),
        (with_length(0), "safetensors "),
        (with_length(whole.len() as u64), "safetensors "),
        (safetensors("{]", b""), "safetensors "),
        (safetensors("[]", b""), "safetensors "),
        (tensor("F99", "[4,4]", 64), "F99"),
        (tensor("F32", "[4,5]", 64), "fc1.weight"),
        (tensor("F32", "[4,4]", 65), "fc1.weight"),
        (tensor("F32", "[4611686018427387904,4]", 64), "fc1.weight"),
        (tensor("F32", "[-4,-4]", 64), "fc1.weight"),
        (b"\x89PNG\r\n\x1a\n a picture, not a checkpoint".to_vec(), "expected a safetensors file"),
    ] {
        sandbox.write("bad.safetensors", bytes);
        refuse_checkpoint(&sandbox, "bad.safetensors", &[needle]);
    }
    refuse_checkpoint(&sandbox, "absent.safetensors", &["No such file"]);
    std::fs::create_dir(sandbox.path("folder")).unwrap();
    for args in [&["connect", "a.safetensors", "folder"][..], &["inspect", "folder"]] {
        sandbox.refused(args, &["folder", "it is a folder"]);
    }
}

#[test]
fn metadata_of_ours_that_is_damaged_is_refused() {
    let sandbox = Sandbox::with_pair();
    let text = String::from_utf8_lossy(&sandbox.read("a.safetensors")[8..]).into_owned();
    assert!(text.contains(r#"\"op\":\"relu\""#), "the graph is in the header");
    for (old, new) in [(r#"\"op\":\"relu\""#, r#"\"op\":\"rely\""#), (r#"\"out_features\":16"#, r#"\"out_features\":99"#)] {
        assert_eq!(old.len(), new.len());
        let mut bytes = sandbox.read("a.safetensors");
        let at = bytes.windows(old.len()).position(|w| w == old.as_bytes()).unwrap();
        bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
        sandbox.write("bad.safetensors", bytes);
        sandbox.refused(&["connect", "bad.safetensors", "b.safetensors"], &["bad.safetensors"]);
        sandbox.refused(&["connect", "a.safetensors", "bad.safetensors"], &["bad.safetensors"]);
    }
}

#[test]
fn damaged_pth_files_are_refused() {
    let sandbox = Sandbox::with_pair();
    let whole = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/foreign_a.pth")).unwrap();
    sandbox.write("good.pth", &whole);
    sandbox.ok(&["inspect", "good.pth"]);
    for n_bytes in [1, 4, 30, whole.len() / 2, whole.len() - 1] {
        sandbox.write("bad.pth", &whole[..n_bytes]);
        refuse_checkpoint(&sandbox, "bad.pth", &[]);
    }
    // The bytes of a weight, which the archive's checksum covers.
    let mut flipped = whole.clone();
    let at = flipped.windows(8).position(|w| w == b"data/0FB").map_or(whole.len() / 2, |at| at + 200);
    flipped[at] ^= 1;
    sandbox.write("bad.pth", flipped);
    refuse_checkpoint(&sandbox, "bad.pth", &[]);
}

#[test]
fn a_pickle_that_wants_to_run_code_is_refused_and_not_run() {
    let sandbox = Sandbox::with_pair();
    for program in [
        &b"cposix\nsystem\n(S'touch pwned'\ntR."[..],
        b"\x80\x02cos\nsystem\nX\x0b\x00\x00\x00touch pwned\x85R.",
        b"\x80\x02}X\x08\x00\x00\x000.weightcbuiltins\nexec\nX\x0b\x00\x00\x00touch pwned\x85Rs.",
        b"(S'touch pwned'\nios\nsystem\n.",
    ] {
        sandbox.write("evil.pth", zip(&[("archive/data.pkl", program), ("archive/version", b"3\n"), ("archive/byteorder", b"little")]));
        refuse_checkpoint(&sandbox, "evil.pth", &["refused", "executed"]);
    }
    // Small files that ask for a lot of memory or depth.
    let deep: Vec<u8> = b"(".repeat(1 << 20);
    let long = [&b"\x80\x02\x8e"[..], &u64::MAX.to_le_bytes()].concat();
    for program in [&deep[..], &long, b"\x80\x02.", b"", b"\x80\x02"] {
        sandbox.write("evil.pth", zip(&[("archive/data.pkl", program), ("archive/version", b"3\n")]));
        refuse_checkpoint(&sandbox, "evil.pth", &[]);
    }
    assert!(!sandbox.path("pwned").exists());
}

#[test]
fn endpoints_that_differ_are_refused_with_every_difference() {
    let sandbox = Sandbox::with_pair();
    sandbox.ok(&["train", "--model", "mlp:64-20-10", "--epochs", "1", "--out", "wide.safetensors"]);
    sandbox.ok(&["train", "--model", "mlp:64-16-16-10", "--epochs", "1", "--out", "deep.safetensors"]);
    for command in ["connect", "profile"] {
        let shapes = ["fc1.weight", "[16, 64]", "[20, 64]", "fc1.bias", "fc2.weight", "[10, 16]", "[10, 20]"];
        sandbox.refused(&[command, "a.safetensors", "wide.safetensors"], &[&["a.safetensors", "wide.safetensors"], &shapes[..]].concat());
        let answer =
            sandbox.refused(&[command, "a.safetensors", "deep.safetensors"], &["fc2.weight", "fc2.bias", "fc3.weight", "fc3.bias"]);
        assert!(!answer.stderr.contains("fc1"), "only what differs: {answer}");
    }
    // The same tensors in another network.
    let path = sandbox.path("b.safetensors");
    let mut checkpoint = Checkpoint::read(&path).unwrap();
    let metadata = checkpoint.metadata.as_mut().unwrap();
    let text = metadata.graph.as_ref().unwrap().to_json().replace(r#""op":"relu""#, r#""op":"gelu","approximate":"none""#);
    metadata.graph = Some(landscape_graph::Graph::from_json(&text).unwrap());
    checkpoint.write(&sandbox.path("gelu.safetensors"), Overwrite::Refuse).unwrap();
    for command in ["connect", "profile"] {
        sandbox.refused(&[command, "a.safetensors", "gelu.safetensors"], &["a.safetensors", "gelu.safetensors", "different networks"]);
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let sandbox = Sandbox::with_pair();
    for (value, shown) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        let mut checkpoint = Checkpoint::read(&sandbox.path("a.safetensors")).unwrap();
        let (name, tensor) = &mut checkpoint.tensors[2];
        let mut values = tensor.to_f64_vec();
        values[7] = value;
        let name = name.clone();
        *tensor = RawTensor::from_f64(tensor.dtype(), tensor.shape().to_vec(), &values).unwrap();
        checkpoint.write(&sandbox.path("bad.safetensors"), Overwrite::Replace).unwrap();
        let needles = ["bad.safetensors", &name, shown, "element 7", "finite"];
        for args in [
            &["connect", "bad.safetensors", "b.safetensors"][..],
            &["connect", "a.safetensors", "bad.safetensors"],
            &["profile", "bad.safetensors", "b.safetensors"],
            &["train", "--init-from", "bad.safetensors", "--out", "new.safetensors"],
        ] {
            sandbox.refused(args, &needles);
        }
        let seen = sandbox.ok(&["inspect", "bad.safetensors"]);
        assert!(seen.stdout.contains(&name) && seen.stdout.contains(shown), "inspect tells of it: {seen}");
    }
}

/// `train` on data that must be refused.
fn refuse_data(sandbox: &Sandbox, spec: &str, needles: &[&str]) {
    sandbox.refused(&["train", "--model", "mlp", "--data", spec, "--epochs", "1", "--out", "new.safetensors"], needles);
}

fn accept_data(sandbox: &Sandbox, spec: &str) {
    sandbox.ok(&["train", "--model", "mlp", "--data", spec, "--epochs", "1", "--out", "good.safetensors", "--force"]);
}

#[test]
fn damaged_idx_files_are_refused() {
    let sandbox = Sandbox::new();
    let images = |n: usize| Idx::images(n, 28).bytes();
    let labels = |n: usize| Idx::labels(n).bytes();
    let good = [
        ("d/train-images-idx3-ubyte", images(20)),
        ("d/train-labels-idx1-ubyte", labels(20)),
        ("d/t10k-images-idx3-ubyte", images(10)),
        ("d/t10k-labels-idx1-ubyte", labels(10)),
    ];
    let restore = || good.iter().for_each(|(name, bytes)| sandbox.write(name, bytes));
    restore();
    accept_data(&sandbox, "mnist:d");
    let wrong_magic = |mut bytes: Vec<u8>| {
        bytes[2] = 0x0d;
        bytes
    };
    let mut label_10 = labels(20);
    label_10[8 + 5] = 10;
    for (name, bytes, needles) in [
        ("d/train-images-idx3-ubyte", images(20)[..700].to_vec(), &["bytes"][..]),
        ("d/train-images-idx3-ubyte", images(20)[..3].to_vec(), &[]),
        ("d/train-images-idx3-ubyte", Vec::new(), &[]),
        ("d/train-images-idx3-ubyte", [images(20), vec![0]].concat(), &[]),
        ("d/train-images-idx3-ubyte", wrong_magic(images(20)), &["expected"]),
        ("d/train-images-idx3-ubyte", labels(20), &["expected"]),
        ("d/train-images-idx3-ubyte", Idx::images(20, 27).bytes(), &["28", "27"]),
        ("d/train-images-idx3-ubyte", images(0), &[]),
        ("d/train-labels-idx1-ubyte", labels(19), &["20", "19"]),
        ("d/train-labels-idx1-ubyte", label_10, &["10"]),
        ("d/t10k-labels-idx1-ubyte", images(10), &["expected"]),
    ] {
        sandbox.write(name, bytes);
        refuse_data(&sandbox, "mnist:d", &[&[name], needles].concat());
        restore();
    }
    std::fs::remove_file(sandbox.path("d/t10k-labels-idx1-ubyte")).unwrap();
    refuse_data(&sandbox, "mnist:d", &["d", "t10k-labels-idx1-ubyte"]);
    refuse_data(&sandbox, "mnist:d/t10k-images-idx3-ubyte", &["expected a folder"]);
    refuse_data(&sandbox, "mnist:absent", &["absent", "expected a folder"]);
    refuse_data(&sandbox, "mnist:", &["mnist:"]);
    refuse_data(&sandbox, "mnist", &["mnist"]);
}

#[test]
fn damaged_cifar_files_are_refused() {
    let sandbox = Sandbox::new();
    let good = Cifar { n_records: 3 };
    let restore = || good.files().into_iter().for_each(|(name, bytes)| sandbox.write(&format!("d/{name}"), bytes));
    restore();
    accept_data(&sandbox, "cifar10:d");
    for (bytes, needle) in [
        (good.bytes()[..5000].to_vec(), "5000"),
        (Vec::new(), "0 bytes"),
        (good.bytes_with_label(1, 10), "label 10"),
        (good.bytes_with_label(2, 255), "label 255"),
    ] {
        sandbox.write("d/data_batch_4.bin", bytes);
        refuse_data(&sandbox, "cifar10:d", &["d/data_batch_4.bin", needle]);
        restore();
    }
    std::fs::remove_file(sandbox.path("d/test_batch.bin")).unwrap();
    refuse_data(&sandbox, "cifar10:d", &["d", "test_batch.bin"]);
    refuse_data(&sandbox, "cifar100:d", &["d", "train.bin"]);
}

#[test]
fn damaged_npz_files_are_refused() {
    let sandbox = Sandbox::new();
    let inputs = |n: usize| npy("<f4", &[n, 6], &(0..n * 6).flat_map(|i| (i as f32).to_le_bytes()).collect::<Vec<_>>());
    let labels = |of: &[i64]| npy("<i8", &[of.len()], &of.iter().flat_map(|l| l.to_le_bytes()).collect::<Vec<_>>());
    let archive = |x_train: &[u8], y_train: &[u8], x_test: &[u8], y_test: &[u8]| {
        npz(&[("x_train", x_train), ("y_train", y_train), ("x_test", x_test), ("y_test", y_test)])
    };
    let (x4, x2, y4, y2) = (inputs(4), inputs(2), labels(&[0, 1, 2, 0]), labels(&[1, 2]));
    let good = archive(&x4, &y4, &x2, &y2);
    sandbox.write("d.npz", &good);
    accept_data(&sandbox, "npz:d.npz");
    let nan = npy("<f4", &[4, 6], &f32::NAN.to_le_bytes().repeat(24));
    let object = npy("|O", &[4, 6], &[0; 192]);
    let huge = npy("<f4", &[usize::MAX / 4, 6], &[0; 96]);
    for (bytes, needles) in [
        (good[..good.len() / 2].to_vec(), &[][..]),
        (good[..10].to_vec(), &[]),
        (Vec::new(), &[]),
        (b"not an archive".to_vec(), &["npz"]),
        (npz(&[("x_train", &x4), ("y_train", &y4), ("x_test", &x2)]), &["y_test"]),
        (archive(&x4, &labels(&[0, 1, -1, 0]), &x2, &y2), &["y_train", "-1"]),
        (archive(&x4, &labels(&[0, 1, i64::MAX, 0]), &x2, &y2), &["y_train"]),
        (archive(&x4, &labels(&[0, 1, 2]), &x2, &y2), &["y_train", "4", "3"]),
        (archive(&inputs(0), &labels(&[]), &x2, &y2), &["x_train"]),
        (archive(&x4, &y4, &inputs(0), &labels(&[])), &["x_test"]),
        (archive(&nan, &y4, &x2, &y2), &["x_train", "NaN"]),
        (archive(&object, &y4, &x2, &y2), &["x_train", "O"]),
        (archive(&huge, &y4, &x2, &y2), &["x_train"]),
        (archive(&x4, &x4, &x2, &y2), &["y_t"]),
        (archive(b"", &y4, &x2, &y2), &["x_train"]),
    ] {
        sandbox.write("d.npz", bytes);
        refuse_data(&sandbox, "npz:d.npz", &[&["d.npz"], needles].concat());
    }
    refuse_data(&sandbox, "npz:absent.npz", &["absent.npz", "No such file"]);
    refuse_data(&sandbox, "npz:.", &["`.`"]);
}

#[test]
fn networks_and_data_that_do_not_go_together_are_refused() {
    let sandbox = Sandbox::with_pair();
    let zeros = |n: usize, features: usize| npy("<f4", &[n, features], &vec![0; 4 * n * features]);
    let labels = |n: usize, classes: i64| npy("<i8", &[n], &(0..n as i64).flat_map(|i| (i % classes).to_le_bytes()).collect::<Vec<_>>());
    let data = |features, classes| {
        npz(&[
            ("x_train", &zeros(24, features)),
            ("y_train", &labels(24, classes)),
            ("x_test", &zeros(24, features)),
            ("y_test", &labels(24, classes)),
        ])
    };
    sandbox.write("wide.npz", data(65, 10));
    sandbox.write("many.npz", data(64, 12));
    let (a, b) = ("a.safetensors", "b.safetensors");
    sandbox.refused(&["connect", a, b, "--data", "wide.npz"], &["unknown data `wide.npz`", "npz:FILE"]);
    sandbox.refused(&["connect", a, b, "--data", "npz:wide.npz"], &["npz:wide.npz", "[65]", "[1, 8, 8]"]);
    sandbox.refused(&["profile", a, b, "--data", "npz:wide.npz"], &["npz:wide.npz", "[65]", "[1, 8, 8]"]);
    sandbox.refused(&["train", "--model", MODEL, "--data", "npz:many.npz", "--out", "new.safetensors"], &["12", "10"]);
    sandbox.refused(&["train", "--model", "vgg11", "--out", "new.safetensors"], &["vgg11"]);
    sandbox.refused(&["train", "--init-from", a, "--data", "npz:many.npz", "--out", "new.safetensors"], &["[64]", "[1, 8, 8]"]);
    // Another normalisation is no mistake, and is said.
    let answer = sandbox.ok(&["profile", a, b, "--normalize", "0.5/2", "--samples", "2", "--out", "normalized"]);
    assert!(answer.stderr.contains("`a.safetensors` was trained with another normalisation"), "{answer}");
    // Data that changed since the training.
    sandbox.write("own.npz", data(6, 3));
    sandbox.ok(&["train", "--model", "mlp:6-4-3", "--data", "npz:own.npz", "--epochs", "1", "--out", "own.safetensors"]);
    sandbox.ok(&["profile", "own.safetensors", "own.safetensors", "--samples", "2", "--out", "p"]);
    sandbox.write("own.npz", data(6, 2));
    sandbox.refused(&["connect", "own.safetensors", "own.safetensors"], &["own.npz", "hash"]);
    std::fs::rename(sandbox.path("own.npz"), sandbox.path("moved.npz")).unwrap();
    sandbox.refused(&["connect", "own.safetensors", "own.safetensors"], &["own.safetensors", "npz:own.npz", "--data"]);
    std::fs::remove_dir_all(sandbox.path("own.run")).unwrap();
    sandbox.refused(&["connect", "own.safetensors", "own.safetensors"], &["own.safetensors", "--data"]);
}

#[test]
fn foreign_files_that_do_not_fit_are_refused_with_the_list() {
    let sandbox = Sandbox::new();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/foreign_a.pth");
    sandbox.refused(&["connect", fixture, fixture], &["foreign_a.pth", "--model"]);
    sandbox.refused(&["connect", fixture, fixture, "--model", "nope"], &["nope", "mlp", "resnet20"]);
    let listed =
        ["foreign_a.pth", "`0.weight` [16, 64]", "`fc1.weight` [20, 64]", "`0.bias`", "`2.weight` [10, 16]", "`fc2.weight` [10, 20]"];
    sandbox.refused(&["connect", fixture, fixture, "--model", "mlp:64-20-10"], &listed);
    sandbox.refused(&["connect", fixture, fixture, "--model", "cnn"], &["foreign_a.pth", "conv1.weight", "0.weight"]);
}
