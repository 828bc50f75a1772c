//! Text, tokens and labels at places through `train`, `connect` and `profile`; several labels at once.
#![allow(clippy::unwrap_used)]

mod common;
#[allow(dead_code, reason = "files of other formats are not needed here")]
mod files;

use common::Sandbox;
use serde_json::Value;

const MODEL: &str = "gpt:layers=1,width=16,heads=2";

/// Text in which each letter but the last of a round is certain.
fn text() -> Vec<u8> {
    "the cat sat on the mat. ".repeat(80).into_bytes()
}

fn train(sandbox: &Sandbox, data: &str, seed: &str, out: &str) -> Value {
    let args = ["train", "--model", MODEL, "--data", data, "--optimizer", "adam", "--lr", "0.01", "--batch-size", "8", "--epochs", "4"];
    sandbox.json(&[&args[..], &["--seed", seed, "--out", out]].concat())
}

#[test]
fn a_gpt_learns_a_text_and_two_of_them_are_joined() {
    let sandbox = Sandbox::new();
    sandbox.write("cat.txt", text());
    let data = "text:cat.txt@12";
    let first = train(&sandbox, data, "0", "a.safetensors");
    train(&sandbox, data, "1", "b.safetensors");
    let [nll, perplexity] = ["nll", "perplexity"].map(|name| first["test"][name].as_f64().unwrap());
    assert!((perplexity - nll.exp()).abs() < 1e-9 * perplexity);
    // Twelve characters as likely as each other would be 12.
    assert!(perplexity < 4.0, "{first}");
    sandbox.ok(&["connect", "a.safetensors", "b.safetensors", "--epochs", "1", "--batch-size", "8", "--optimizer", "adam", "--out", "run"]);
    let answer = sandbox.ok(&["profile", "run", "--samples", "3"]);
    assert!(answer.stdout.contains("test_ppl") && answer.stdout.contains("train_ppl"), "{answer}");
    let profile: Value = serde_json::from_slice(&sandbox.read("run/profile.json")).unwrap();
    assert_eq!((&profile["points"][0]["test"]["nll"], &profile["settings"]["data"]["n_places"]), (&first["test"]["nll"], &Value::from(12)));
    let compared = sandbox.json(&["compare", "a.safetensors", "b.safetensors"]);
    assert_eq!(compared["same_network"], true);
    assert!((0.0..1.0).contains(&compared["answers"]["disagreement"].as_f64().unwrap()), "{compared}");
}

#[test]
fn bytes_and_tokens_of_an_archive() {
    let sandbox = Sandbox::new();
    sandbox.write("cat.txt", text());
    let by_byte = train(&sandbox, "bytes:cat.txt@12", "0", "bytes.safetensors");
    assert!(by_byte["test"]["perplexity"].as_f64().unwrap() < 6.0, "{by_byte}");
    // Tokens 1, 2, 3, 0, 1, …; the label of the first place of each row is ignored.
    let tokens = |first: u16, n: u16| (0..n).flat_map(|i| ((first + i) % 4).to_le_bytes()).collect::<Vec<u8>>();
    let labels: Vec<u8> = (0..120i64).flat_map(|i| if i % 6 == 0 { -100i64 } else { (i + 1) % 4 }.to_le_bytes()).collect();
    let x = files::npy("<u2", &[20, 6], &tokens(0, 120));
    let y = files::npy("<i8", &[20, 6], &labels);
    sandbox.write("tokens.npz", files::npz(&[("x_train", &x), ("y_train", &y), ("x_test", &x), ("y_test", &y)]));
    let of_tokens = train(&sandbox, "npz:tokens.npz", "0", "tokens.safetensors");
    assert!(of_tokens["train"]["perplexity"].as_f64().unwrap() < 3.0, "{of_tokens}");
    assert_eq!(of_tokens["train"]["nll"], of_tokens["test"]["nll"]);
    sandbox.refused(&["train", "--model", MODEL, "--data", "text:cat.txt@5000"], &["cat.txt", "at least 50010 tokens"]);
    sandbox.refused(&["train", "--model", "mlp", "--data", "text:cat.txt"], &["text:cat.txt"]);
    sandbox.refused(&["train", "--model", MODEL, "--data", "digits"], &["gpt", "tokens"]);
}

#[test]
fn several_labels_at_once_are_learnt_and_remembered() {
    let sandbox = Sandbox::new();
    // Two numbers; the labels are their signs.
    let pairs: Vec<[f32; 2]> = (0..200).map(|i| [(i as f32 * 0.7).sin(), (i as f32 * 1.3).cos()]).collect();
    let x: Vec<u8> = pairs.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let y: Vec<u8> = pairs.iter().flatten().flat_map(|v| f32::from(u8::from(*v > 0.0)).to_le_bytes()).collect();
    let (x, y) = (files::npy("<f4", &[200, 2], &x), files::npy("<f4", &[200, 2], &y));
    sandbox.write("signs.npz", files::npz(&[("x_train", &x), ("y_train", &y), ("x_test", &x), ("y_test", &y)]));
    let train = ["train", "--model", "mlp:2-16-2", "--data", "npz:signs.npz", "--epochs", "40", "--lr", "0.5", "--weight-decay", "0"];
    let result = sandbox.json(&[&train[..], &["--loss", "binary-cross-entropy", "--out", "a.safetensors"]].concat());
    assert!(result["test"]["accuracy"].as_f64().unwrap() > 0.85, "{result}");
    // What follows takes the loss from the run beside the checkpoint.
    let compared = sandbox.json(&["compare", "a.safetensors", "a.safetensors"]);
    let nll = compared["answers"]["a"]["nll"].as_f64().unwrap();
    assert!((nll - result["test"]["nll"].as_f64().unwrap()).abs() < 1e-6, "{compared}");
    assert!(compared["verdict"].as_str().unwrap().contains("the same numbers"));
    sandbox.refused(&[&train[..], &["--loss", "cross-entropy", "--out", "c.safetensors"]].concat(), &["--loss", "numbers"]);
    sandbox.refused(&["train", "--loss", "squared-error", "--out", "d.safetensors"], &["--loss", "class labels"]);
}

/// A limit on activations changes memory alone; one that cannot be kept says what could.
#[test]
fn a_limit_on_activations_changes_no_bit() {
    let sandbox = Sandbox::new();
    let train = ["train", "--model", "resnet56", "--data", "digits", "--batch-size", "64", "--max-steps", "1", "--eval-every", "99"];
    let limited = |out: &str, mib: &str| sandbox.ok(&[&train[..], &["--activation-mib", mib, "--out", out]].concat());
    sandbox.ok(&[&train[..], &["--out", "all.safetensors"]].concat());
    limited("some.safetensors", "8");
    assert!(sandbox.read("all.safetensors") == sandbox.read("some.safetensors"), "the weights differ");
    let answer = sandbox.run(&[&train[..], &["--activation-mib", "1", "--out", "none.safetensors"]].concat());
    assert_ne!(answer.code, Some(0), "{answer}");
    let answer = sandbox.run(&["inspect", "all.safetensors", "--activation-mib", "1"]);
    answer.check_message(&["--activation-mib", "`train` and `connect`"]);
}
