//! How often it works: pairs of seeds fixed beforehand, failures stay in the table.

use crate::shell;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
pub struct Args {
    /// Only this suite: `digits-mlp`, `digits-cnn`, `mnist-mlp`, `cifar10-resnet20`, `cifar10-vgg11_bn` or `text-gpt` [default: all but the
    /// last three, which take up to hours; started again they go on]
    #[arg(long)]
    suite: Option<String>,
    /// The folder with MNIST's files
    #[arg(long, default_value = "../shared/data/mnist")]
    mnist: PathBuf,
    /// The folder with CIFAR-10's binary files, as `prepare.py` beside the data writes them
    #[arg(long, default_value = "../shared/data/cifar-10-batches-bin")]
    cifar10: PathBuf,
    /// The text that GPTs learn: `bible -f Gen1:1-Deu34:12 | sed 's/^[^ ]* //'`, of Debian's `bible-kjv`
    #[arg(long, default_value = "target/pentateuch.txt")]
    text: PathBuf,
    /// Only write the tables anew, from the rows that are kept
    #[arg(long, conflicts_with = "suite")]
    report: bool,
    /// Where runs are kept while it works
    #[arg(long, default_value = "target/reliability")]
    work: PathBuf,
}

struct Suite {
    name: &'static str,
    title: &'static str,
    /// The seeds of the ends.
    pairs: Vec<[u64; 2]>,
    data: String,
    train: &'static [&'static str],
    connect: &'static [&'static str],
    /// Points along the line and the curve.
    samples: &'static str,
    /// Hours of work: only by name.
    long: bool,
}

impl Suite {
    /// Whether the next token is predicted, so that losses count and not errors.
    fn is_of_text(&self) -> bool {
        self.data.starts_with("text:")
    }
}

/// The pairs (0, 1), (2, 3), ….
fn apart(n_pairs: u64) -> Vec<[u64; 2]> {
    (0..n_pairs).map(|i| [2 * i, 2 * i + 1]).collect()
}

/// Runs the suites, keeps their rows in `docs/results/*.json` and puts the tables into `docs/RESULTS.md`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let root = shell::root();
    let suites = suites(args);
    if args.report {
        return write_tables(&root, &suites);
    }
    let chosen = |suite: &&Suite| args.suite.as_deref().map_or(!suite.long, |name| name == suite.name);
    if !suites.iter().any(|s| chosen(&s)) {
        let names = suites.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
        bail!("there is no suite `{}`; the suites are {names}", args.suite.as_deref().unwrap_or_default());
    }
    shell::run(Command::new("cargo").args(["build", "--release", "--locked", "-p", "landscape-cli"]).current_dir(&root))?;
    let binary = shell::target().join("release/landscape");
    for suite in suites.iter().filter(chosen) {
        let rows = suite
            .pairs
            .iter()
            .zip(0..)
            .map(|(&seeds, i)| pair(&binary, suite, i, seeds, &args.work))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let folder = root.join("docs/results");
        std::fs::create_dir_all(&folder)?;
        let text = serde_json::to_string_pretty(&json!({"suite": suite.name, "rows": rows}))? + "\n";
        std::fs::write(folder.join(format!("{}.json", suite.name)), text)?;
    }
    write_tables(&root, &suites)
}

const RESNET20: &[&str] = &["--model", "resnet20", "--epochs", "12", "--lr", "0.1"];
const VGG11_BN: &[&str] = &["--model", "vgg11_bn", "--epochs", "12", "--lr", "0.05"];

fn cifar10(args: &Args, name: &'static str, title: &'static str, train: &'static [&'static str]) -> Suite {
    let data = format!("cifar10:{}", args.cifar10.display());
    Suite { name, title, pairs: apart(1), data, train, connect: &["--epochs", "12", "--lr", "0.05"], samples: "11", long: true }
}

const GPT: [&str; 12] =
    ["--optimizer", "adam", "--lr", "0.001", "--weight-decay", "0", "--batch-size", "32", "--schedule", "cosine", "--epochs", "5"];
const GPT_CURVE: [&str; 12] = {
    let mut settings = GPT;
    settings[11] = "4";
    settings
};

fn suites(args: &Args) -> [Suite; 6] {
    [
        Suite {
            name: "digits-mlp",
            title: "Digits, MLP 64-256-256-10",
            pairs: apart(10),
            data: "digits".to_owned(),
            train: &["--model", "mlp:64-256-256-10", "--epochs", "40"],
            connect: &["--epochs", "200", "--weight-decay", "5e-4"],
            samples: "61",
            long: false,
        },
        Suite {
            name: "digits-cnn",
            title: "Digits, small CNN with batch norm",
            pairs: apart(10),
            data: "digits".to_owned(),
            train: &["--model", "cnn", "--epochs", "40"],
            connect: &["--epochs", "200", "--weight-decay", "5e-4"],
            samples: "61",
            long: false,
        },
        Suite {
            name: "mnist-mlp",
            title: "MNIST, MLP 784-512-512-512-10 (Adam 1e-3, 15 epochs, batch 500; `connect --epochs 10`)",
            pairs: apart(3),
            data: format!("mnist:{}", args.mnist.display()),
            train: &[
                "--model",
                "mlp:784-512-512-512-10",
                "--optimizer",
                "adam",
                "--lr",
                "1e-3",
                "--schedule",
                "constant",
                "--weight-decay",
                "0",
                "--epochs",
                "15",
                "--batch-size",
                "500",
            ],
            connect: &["--epochs", "10"],
            samples: "61",
            long: false,
        },
        cifar10(args, "cifar10-resnet20", "CIFAR-10, ResNet-20 (12 epochs, `--lr 0.1`; `connect --epochs 12 --lr 0.05`)", RESNET20),
        cifar10(
            args,
            "cifar10-vgg11_bn",
            "CIFAR-10, VGG11 with batch norm (12 epochs, `--lr 0.05`; `connect --epochs 12 --lr 0.05`)",
            VGG11_BN,
        ),
        Suite {
            name: "text-gpt",
            title: "Five books of the King James Bible, characters: GPT of 4 layers, width 128, 64 places (Adam 1e-3, cosine, batch 32, 5 epochs; `connect` the same, 4 epochs)",
            pairs: vec![[0, 1], [0, 2], [1, 2]],
            data: format!("text:{}@64", args.text.display()),
            train: &GPT,
            connect: &GPT_CURVE,
            samples: "11",
            long: true,
        },
    ]
}

/// Trains the ends of pair i, connects and profiles them; an end of several pairs is trained once.
fn pair(binary: &Path, suite: &Suite, i: u64, seeds: [u64; 2], work: &Path) -> anyhow::Result<Value> {
    let ends_folder = work.join(suite.name).join("ends");
    let folder = work.join(suite.name).join(i.to_string());
    std::fs::create_dir_all(&ends_folder)?;
    std::fs::create_dir_all(&folder)?;
    let landscape = |arguments: &[&str]| shell::json(Command::new(binary).args(arguments).args(["--json", "--quiet", "--resume"]));
    let mut ends = Vec::new();
    let mut files = Vec::new();
    let model: &[&str] = if suite.is_of_text() { &["--model", "gpt"] } else { &[] };
    for seed in seeds {
        let file = ends_folder.join(format!("{seed}.safetensors")).display().to_string();
        let seed = seed.to_string();
        let fixed = ["train", "--data", &suite.data, "--seed", &seed, "--out", &file, "--eval-every", "1000"];
        ends.push(landscape(&[&fixed, model, suite.train].concat())?);
        files.push(file);
    }
    let run = folder.join("curve").display().to_string();
    let fixed = ["connect", &files[0], &files[1], "--data", &suite.data, "--out", &run, "--seed"];
    let connected = landscape(&[&fixed[..], &[&i.to_string()], suite.connect].concat())?;
    let curve = landscape(&["profile", &run, "--samples", suite.samples])?;
    let line = landscape(&["profile", &run, "--samples", suite.samples, "--straight"])?;
    let pick = |document: &Value, quantity: &str, key: &str| document["summary"][quantity][key].clone();
    let mut row = json!({
        "seeds": seeds,
        "test_accuracy": [ends[0]["test"]["accuracy"], ends[1]["test"]["accuracy"]],
        "worse_end_train_loss": worse(&curve, "train_loss"),
        "worse_end_test_error": worse(&curve, "test_error"),
        "line_train_loss_max": pick(&line, "train_loss", "max"),
        "curve_train_loss_max": pick(&curve, "train_loss", "max"),
        "line_test_error_max": pick(&line, "test_error", "max"),
        "curve_test_error_max": pick(&curve, "test_error", "max"),
        "line_train_nll_barrier_a": line["barriers"]["train_nll"]["above_line"],
        "curve_train_nll_barrier_a": curve["barriers"]["train_nll"]["above_line"],
        "connect_wall_seconds": connected["wall_seconds"],
    });
    println!("{} {i}: {row}", suite.name);
    if suite.is_of_text() {
        for (name, document) in [("line", &line), ("curve", &curve)] {
            row[format!("{name}_train_nll_max")] = pick(document, "train_nll", "max");
            row[format!("{name}_test_nll_max")] = pick(document, "test_nll", "max");
        }
        row["worse_end_train_nll"] = json!(worse(&curve, "train_nll"));
        row["worse_end_test_nll"] = json!(worse(&curve, "test_nll"));
    } else if suite.long {
        row["line"] = points(&line);
        row["curve"] = points(&curve);
    }
    Ok(row)
}

/// What the table of a single pair shows of a profile.
fn points(profile: &Value) -> Value {
    let empty = Vec::new();
    let points = profile["points"].as_array().unwrap_or(&empty).iter().map(|p| {
        json!({
            "t": p["t"], "train_loss": p["train"]["loss"], "train_error": p["train"]["error"],
            "test_nll": p["test"]["nll"], "test_error": p["test"]["error"],
        })
    });
    points.collect()
}

fn worse(document: &Value, quantity: &str) -> f64 {
    let s = &document["summary"][quantity];
    s["start"].as_f64().unwrap_or(f64::NAN).max(s["end"].as_f64().unwrap_or(f64::NAN))
}

/// Replaces what stands between the markers of each suite in `docs/RESULTS.md`.
fn write_tables(root: &Path, suites: &[Suite]) -> anyhow::Result<()> {
    let path = root.join("docs/RESULTS.md");
    let mut text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    for suite in suites {
        let record = root.join("docs/results").join(format!("{}.json", suite.name));
        let Ok(json) = std::fs::read_to_string(&record) else { continue };
        let record = serde_json::from_str::<Value>(&json)?;
        let table = if suite.is_of_text() { table_of_text(suite.title, &record) } else { table(suite.title, &record) };
        let (begin, end) = (format!("<!-- begin {} -->\n", suite.name), format!("<!-- end {} -->", suite.name));
        let from = text.find(&begin).with_context(|| format!("`{begin}` is missing from `{}`", path.display()))? + begin.len();
        let to = text.find(&end).with_context(|| format!("`{end}` is missing from `{}`", path.display()))?;
        text.replace_range(from..to, &table);
    }
    Ok(std::fs::write(&path, text)?)
}

fn table(title: &str, record: &Value) -> String {
    let empty = Vec::new();
    let rows = record["rows"].as_array().unwrap_or(&empty);
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    let mut text = format!("### {title}\n\n");
    text += "| seeds | test accuracy of the ends, % | train loss: worse end | highest on the line | highest on the curve | excess of the line | excess of the curve | test error, %: worse end | line | curve |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|\n";
    let columns: [fn(&Value) -> f64; 4] = [
        |row| excess(row, "line_train_loss_max", "worse_end_train_loss"),
        |row| excess(row, "curve_train_loss_max", "worse_end_train_loss"),
        |row| 100.0 * excess(row, "line_test_error_max", "worse_end_test_error"),
        |row| 100.0 * excess(row, "curve_test_error_max", "worse_end_test_error"),
    ];
    for row in rows {
        let _ = writeln!(
            text,
            "| {}, {} | {:.2}, {:.2} | {:.4} | {:.4} | {:.4} | {:+.4} | {:+.4} | {:.2} | {:.2} | {:.2} |",
            row["seeds"][0],
            row["seeds"][1],
            100.0 * row["test_accuracy"][0].as_f64().unwrap_or(f64::NAN),
            100.0 * row["test_accuracy"][1].as_f64().unwrap_or(f64::NAN),
            number(row, "worse_end_train_loss"),
            number(row, "line_train_loss_max"),
            number(row, "curve_train_loss_max"),
            columns[0](row),
            columns[1](row),
            100.0 * number(row, "worse_end_test_error"),
            100.0 * number(row, "line_test_error_max"),
            100.0 * number(row, "curve_test_error_max"),
        );
    }
    if let [row] = rows.as_slice() {
        text += &point_by_point(row);
        return text;
    }
    text += "\n| excess over the worse end | mean | sd | least | worst |\n|---|---|---|---|---|\n";
    let names = ["train loss, line", "train loss, curve", "test error in points, line", "test error in points, curve"];
    for (name, column) in names.iter().zip(columns) {
        let values: Vec<f64> = rows.iter().map(column).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let sd = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let (least, worst) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
        let _ = writeln!(text, "| {name} | {mean:.4} | {sd:.4} | {least:.4} | {worst:.4} |");
    }
    text.push('\n');
    text
}

/// Losses in nats, and as perplexity.
fn table_of_text(title: &str, record: &Value) -> String {
    let empty = Vec::new();
    let mut text = format!("### {title}\n\n");
    text += "| seeds | train nll: worse end | highest on the line | highest on the curve | test nll: worse end | line | curve | test perplexity: worse end | line | curve |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|\n";
    for row in record["rows"].as_array().unwrap_or(&empty) {
        let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
        let of = |split: &str| [format!("worse_end_{split}_nll"), format!("line_{split}_nll_max"), format!("curve_{split}_nll_max")];
        let (train, test) = (of("train").map(|key| number(&key)), of("test").map(|key| number(&key)));
        let _ = write!(text, "| {}, {} |", row["seeds"][0], row["seeds"][1]);
        train.iter().chain(&test).for_each(|nll| text += &format!(" {nll:.4} |"));
        test.iter().for_each(|nll| text += &format!(" {:.3} |", nll.exp()));
        text.push('\n');
    }
    text.push('\n');
    text
}

/// The profiles of a single pair.
fn point_by_point(row: &Value) -> String {
    let empty = Vec::new();
    let points = |path: &str| row[path].as_array().unwrap_or(&empty).iter();
    let mut text =
        "\n| t | train loss: line | curve | train error, %: line | curve | test nll: line | curve | test error, %: line | curve |\n"
            .to_owned();
    text += "|---|---|---|---|---|---|---|---|---|\n";
    for (line, curve) in points("line").zip(points("curve")) {
        let _ = write!(text, "| {:.1} |", line["t"].as_f64().unwrap_or(f64::NAN));
        for (key, scale, decimals) in [("train_loss", 1.0, 4), ("train_error", 100.0, 2), ("test_nll", 1.0, 4), ("test_error", 100.0, 2)] {
            for path in [line, curve] {
                let _ = write!(text, " {:.decimals$} |", scale * path[key].as_f64().unwrap_or(f64::NAN));
            }
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

fn excess(row: &Value, high: &str, end: &str) -> f64 {
    row[high].as_f64().unwrap_or(f64::NAN) - row[end].as_f64().unwrap_or(f64::NAN)
}
