//! The command lines that make a run again, from its records.

use crate::figures::plane_record::PlaneRecord;
use crate::run_folder::RunFolder;
use serde_json::Value;
use std::path::Path;

/// What to type to make the run again, and what was measured of it; paths as they were given.
pub fn commands(run: &str, config: &Value, profiles: &[(Value, Straight)], plane: Option<&PlaneRecord>) -> Vec<String> {
    let command = config["command"].as_str().unwrap_or_default();
    let mut lines = Vec::new();
    match command {
        "train" => lines.push(train(run, config)),
        "train-seeds" => lines.push(train_into(run, config).option("--seeds", &config["seeds"])),
        "connect" => lines.push(connect(run, config)),
        "demo" => lines.push(Line::new("demo").option("--model", &config["model"]).computed(config).out(run)),
        _ => {}
    }
    for (profile, straight) in profiles {
        let mut line = measured("profile", run, config, &profile["settings"]);
        line = line.option("--samples", &profile["settings"]["n_samples"]);
        let thresholds = &profile["settings"]["thresholds"];
        line = line.option("--lmc-fraction", &thresholds["lmc_fraction"]).option("--connected-ratio", &thresholds["connected_ratio"]);
        if *straight == Straight::Yes && command == "connect" {
            line = line.flag("--straight");
        }
        lines.push(line);
    }
    if let Some(plane) = plane {
        let mut line =
            measured("plane", run, config, &plane.settings).word("--grid").word(&format!("{}x{}", plane.grid.n_x, plane.grid.n_y));
        line = line.option("--margin", &plane.settings["grid"]["margins"]["left"]);
        lines.push(line.option("--fraction", &plane.settings["fraction"]));
    }
    lines.into_iter().map(|line| line.text).collect()
}

/// What to type to train the ends of a connection again, where the folders that `train` left beside them are still there.
pub fn endpoints(config: &Value) -> Vec<String> {
    let files = config["checkpoints"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let trained = files.filter_map(|file| {
        let folder = RunFolder::beside(Path::new(file));
        let config = folder.config().ok().filter(|config| config["command"] == "train")?;
        Some(train(&folder.path().display().to_string(), &config).text)
    });
    trained.collect()
}

/// What to type to make the report again.
pub fn report(runs: &[RunFolder], out: Option<&Path>) -> String {
    let line = runs.iter().fold(Line::new("report"), |line, run| line.word(&run.path().display().to_string()));
    match out {
        Some(out) => line.flag("--force").out(&out.display().to_string()).text,
        None => line.text,
    }
}

/// Whether a profile is of the straight line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Straight {
    Yes,
    No,
}

/// A command line that grows.
struct Line {
    text: String,
}

impl Line {
    fn new(command: &str) -> Self {
        Line { text: format!("landscape {command}") }
    }

    fn word(mut self, word: &str) -> Self {
        self.text += " ";
        self.text += &quoted(word);
        self
    }

    fn flag(self, flag: &str) -> Self {
        self.word(flag)
    }

    /// `--name value`; nothing if the record has none.
    fn option(self, name: &str, value: &Value) -> Self {
        match plain(value) {
            Some(text) => self.word(name).word(&text),
            None => self,
        }
    }

    /// Seed, and what else the numbers depend on.
    fn computed(self, record: &Value) -> Self {
        let keys = ["seed", "device", "precision", "algorithms"];
        keys.into_iter().fold(self, |line, key| line.option(&format!("--{key}"), &record[key]))
    }

    fn out(self, run: &str) -> Self {
        self.word("--out").word(run)
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// `BatchAverage` to `batch-average`.
fn kebab(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(c.to_lowercase());
    }
    text
}

fn train(run: &str, config: &Value) -> Line {
    // The folder `X.run` stands beside the checkpoint that `--out` named.
    train_into(&format!("{}.safetensors", run.strip_suffix(".run").unwrap_or(run)), config)
}

fn train_into(out: &str, config: &Value) -> Line {
    let line = Line::new("train").option("--model", &config["model"]).option("--data", &config["data"]["spec"]);
    fitted(line, config, &config["fit"]).option("--init-from", &config["init_from"]).option("--eval-every", &config["eval_every"]).out(out)
}

fn connect(run: &str, config: &Value) -> Line {
    let connect = &config["connect"];
    let mut line = checkpoints(Line::new("connect"), config);
    line = line.option("--data", &config["data"]["spec"]).option("--curve", &connect["curve"]).option("--points", &connect["points"]);
    line = line.option("--init", &connect["init"]);
    let free = connect["free_ends"].as_str().unwrap_or_default();
    for (end, flag) in [("start", "--free-start"), ("end", "--free-end")] {
        if free == end || free == "both" {
            line = line.flag(flag);
        }
    }
    fitted(line.option("--decay-on", &connect["fit"]["decay_on"]), config, &connect["fit"]).out(run)
}

fn checkpoints(line: Line, config: &Value) -> Line {
    let files = config["checkpoints"].as_array().into_iter().flatten();
    files.filter_map(Value::as_str).fold(line, |line, file| line.word(file))
}

fn fitted(line: Line, config: &Value, fit: &Value) -> Line {
    let optimizer = fit["optimizer"]["kind"].as_str().unwrap_or_default().replace('_', "");
    let mut line = line.option("--epochs", &fit["epochs"]).option("--batch-size", &config["batch_size"]);
    line = line.option("--optimizer", &Value::String(optimizer)).option("--lr", &fit["optimizer"]["lr"]);
    line = line.option("--schedule", &Value::String(schedule(&fit["schedule"]))).option("--weight-decay", &fit["weight_decay"]);
    if config["augment"] == false {
        line = line.flag("--no-augment");
    }
    line.computed(config)
}

fn schedule(schedule: &Value) -> String {
    let number = |key: &str| plain(&schedule[key]).unwrap_or_default();
    match schedule["kind"].as_str().unwrap_or_default() {
        "garipov2018" => "garipov".to_owned(),
        "step" => {
            let milestones: Vec<String> = schedule["milestones"].as_array().into_iter().flatten().filter_map(plain).collect();
            format!("step:{}/{}", milestones.join(","), number("gamma"))
        }
        "triangular" => format!("triangular:{}/{}", number("cycle_epochs"), number("low")),
        other => other.to_owned(),
    }
}

/// The part that `profile` and `plane` share: a run of `connect` is measured in place, checkpoints into a folder of their own.
fn measured(command: &str, run: &str, config: &Value, settings: &Value) -> Line {
    let line = Line::new(command);
    let mut line = if config["command"] == "connect" {
        line.word(run).flag("--force")
    } else {
        checkpoints(line, config).option("--data", &config["data"]["spec"]).out(run)
    };
    line = line.option("--weight-decay", &settings["weight_decay"]).option("--batch-size", &settings["batch_size"]);
    line = line.option("--refresh", &settings["refresh"].as_str().map(kebab).into());
    if settings["refresh_augmented"] == true {
        line = line.flag("--refresh-augmented");
    }
    if settings["shared_first_layer"] == true {
        line = line.flag("--shared-first-layer");
    }
    line.computed(settings)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use serde_json::json;

    fn parsed(line: &str) -> Cli {
        Cli::try_parse_from(line.split(' ').map(|word| word.trim_matches('\''))).unwrap()
    }

    fn connect_config() -> Value {
        json!({
            "command": "connect", "checkpoints": ["a.safetensors", "b.safetensors"], "data": {"spec": "mnist:data/mnist"},
            "connect": {
                "curve": "polychain", "points": 4, "init": "arc", "free_ends": "end",
                "fit": {
                    "epochs": 7, "optimizer": {"kind": "adam_w", "lr": 0.002}, "weight_decay": 0.0005, "decay_on": "control-points",
                    "schedule": {"kind": "step", "milestones": [0.5, 0.75], "gamma": 0.1},
                },
            },
            "batch_size": 64, "augment": false, "seed": 5,
        })
    }

    #[test]
    fn the_line_of_a_connection_parses_to_what_was_run() {
        let lines = commands("runs/x", &connect_config(), &[], None);
        let Command::Connect(args) = parsed(&lines[0]).command else { panic!("{lines:?}") };
        assert_eq!(args.checkpoints.len(), 2);
        assert_eq!((args.points, args.epochs, args.batch_size, args.lr), (Some(4), 7, 64, Some(0.002)));
        assert_eq!((args.free_start, args.free_end, args.no_augment), (false, true, true));
        assert_eq!((args.schedule.as_str(), args.weight_decay), ("step:0.5,0.75/0.1", 0.0005));
        assert!(
            lines[0].contains("--optimizer adamw") && lines[0].contains("--decay-on control-points") && lines[0].ends_with("--out runs/x")
        );
    }

    #[test]
    fn measurements_are_repeated_with_their_settings() {
        let settings = json!({"n_samples": 31, "weight_decay": 0.0, "batch_size": 500, "refresh": "TorchCumulative", "seed": 0});
        let profiles = [(json!({"settings": settings}), Straight::Yes), (json!({"settings": settings}), Straight::No)];
        let lines = commands("runs/x", &connect_config(), &profiles, None);
        assert_eq!(lines.len(), 3);
        let Command::Profile(args) = parsed(&lines[1]).command else { panic!("{lines:?}") };
        assert!(args.straight && args.samples == 31 && lines[1].contains("--refresh torch-cumulative"));
        assert!(!lines[2].contains("--straight"));
        let plane = crate::figures::plane_record::tests::example(9, 7, 0);
        let line = commands("runs/x", &connect_config(), &[], Some(&plane)).pop().unwrap();
        let Command::Plane(args) = parsed(&line).command else { panic!("{line}") };
        assert_eq!(args.grid, "9x7");
    }

    /// Numbers of a GPU are made again on one.
    #[test]
    fn what_computed_is_said_where_it_was_recorded() {
        let mut config = connect_config();
        assert!(!commands("runs/x", &config, &[], None)[0].contains("--device"));
        let numerics = json!({"device": "cuda", "precision": "tf32", "algorithms": "any"});
        let mut settings = json!({"n_samples": 31, "refresh": "BatchAverage", "seed": 0});
        for (key, value) in numerics.as_object().unwrap() {
            config[key] = value.clone();
            settings[key] = value.clone();
        }
        for line in commands("runs/x", &config, &[(json!({"settings": settings}), Straight::No)], None) {
            let common = parsed(&line).common;
            assert_eq!((common.device.as_str(), common.precision.name()), ("cuda", "tf32"), "{line}");
            assert!(line.contains("--algorithms any"), "{line}");
        }
    }

    #[test]
    fn words_that_a_shell_would_split_are_quoted() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("runs/0001-connect"), "runs/0001-connect");
    }
}
