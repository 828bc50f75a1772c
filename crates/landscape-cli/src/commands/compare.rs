//! `landscape compare`: can two checkpoints be merged, or connected?

use crate::args::{Common, CompareArgs};
use crate::job::{self, Data, Endpoint};
use crate::output;
use crate::path::MeasuredPath;
use anyhow::bail;
use landscape_core::barrier::Thresholds;
use landscape_core::checkpoint::Checkpoint;
use landscape_core::length::uniform_ts;
use landscape_core::profile::{self, Measured, Profile, Quantity, Values};
use landscape_core::{Batches, ParamLayout, Pass, Seed, Stateful};
use landscape_graph::Graph;
use landscape_kernels::loss::IGNORED;
use landscape_network::NetworkObjective;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// Points of the straight line that are measured, both ends included.
const N_SAMPLES: usize = 11;
/// An error barrier under this is called stable (Frankle et al. 2020, section 2: "less than 2 %").
const STABLE_ERROR: f64 = 0.02;
/// How many of the tensors that lie furthest apart are named.
const N_NAMED: usize = 3;

pub fn run(common: &Common, args: &CompareArgs) -> anyhow::Result<()> {
    if args.examples == 0 {
        bail!("`--examples` must be at least 1, got 0");
    }
    let started = Instant::now();
    let pair = [args.a.clone(), args.b.clone()];
    let checkpoints = [job::read_checkpoint(&args.a)?, job::read_checkpoint(&args.b)?];
    let mut data = Data::open(&args.data, checkpoints[0].metadata.as_ref(), Some(&args.a))?;
    let graphs = [0, 1].map(|idx| network(&checkpoints[idx], &pair[idx], args, &data));
    let [first, second] = graphs;
    let mut document = json!({"schema": "landscape-compare/1", "a": args.a, "b": args.b, "data": data.to_json()});
    let differences = differences(&first?, &second?)?;
    document["same_network"] = json!(differences.is_empty());
    document["differences"] = json!(differences);
    if differences.is_empty() {
        data.measure_in_batches_of(args.batch_size)?;
        let largest = data.dataset.train.n_examples.max(data.dataset.test.n_examples);
        if args.examples < largest {
            data.take_fraction(args.examples as f64 / largest as f64, Seed::new(common.seed).child("compare"))?;
        }
        let path = MeasuredPath::between(common, &pair, data, args.model.model.as_deref())?;
        measure(common, args, &path, &mut document)?;
    }
    let (verdict, next) = verdict(&document, &pair);
    document["verdict"] = json!(verdict);
    document["next"] = json!(next);
    document["wall_seconds"] = json!(started.elapsed().as_secs_f64());
    output::result(common, &document, &describe(&document))
}

/// The network of a checkpoint: the one it describes, else `--model`'s.
fn network(checkpoint: &Checkpoint, path: &Path, args: &CompareArgs, data: &Data) -> anyhow::Result<Graph> {
    match (checkpoint.metadata.as_ref().and_then(|m| m.graph.clone()), &args.model.model) {
        (Some(graph), _) => Ok(graph),
        (None, Some(spec)) => job::build(spec, data),
        (None, None) => {
            bail!("`{}` does not say which network it is for; name it with `--model`, for example `--model resnet20`", path.display())
        }
    }
}

/// What keeps two networks from being one; nothing if they are.
fn differences(a: &Graph, b: &Graph) -> anyhow::Result<Vec<String>> {
    let tensors = ParamLayout::of_graph(a)?.check_same("A", &ParamLayout::of_graph(b)?, "B");
    Ok(match tensors {
        Err(landscape_core::Error::Layout { differences, .. }) => differences,
        Err(other) => return Err(other.into()),
        Ok(()) if a != b => vec!["their tensors have the same names and shapes, and other ops between them".to_owned()],
        Ok(()) => Vec::new(),
    })
}

/// Distances, the straight line, and how the two answer.
fn measure(common: &Common, args: &CompareArgs, path: &MeasuredPath, document: &mut Value) -> anyhow::Result<()> {
    document["distance"] = distances(path)?;
    let device = common.device()?;
    let graph = path.endpoints[0].graph.clone();
    let mut objective = NetworkObjective::<f32>::in_precision(graph, &device, path.data.loss(), common.precision)?;
    document["answers"] = answers(&mut objective, path)?;
    let points = path.points.clone().on_device(&device)?;
    let ts = uniform_ts(N_SAMPLES)?;
    let statistics = path.data.refresh_batches(&args.refresh, Seed::new(common.seed))?;
    let samples = profile::measure_path(&mut objective, &points, path.curve.as_ref(), &ts, |objective, _| {
        objective.refresh(job::norm_refresh(args.refresh.refresh), &statistics)?;
        let values = |tally| Values::new(&tally, 0.0, 0.0);
        let (train, test) = (path.data.measure_train(objective)?, path.data.measure_test(objective)?);
        Ok::<_, anyhow::Error>(Measured { train: values(train), test: Some(values(test)) })
    })?;
    document["line"] = serde_json::to_value(Profile::of(samples, path.curve.as_ref(), 0.0, Thresholds::PROJECT)?)?;
    document["n_train"] = json!(path.data.train_batches()?.n_examples());
    document["n_test"] = json!(path.data.test_batches()?.n_examples());
    Ok(())
}

/// ‖A‖, ‖B‖, ‖A − B‖ and the cosine, of all weights and of the tensors that lie furthest apart for their size.
fn distances(path: &MeasuredPath) -> anyhow::Result<Value> {
    let [a, b] = [0, 1].map(|idx| path.endpoints[idx].row.point());
    let (a, b) = (a.to_vec(), b.to_vec());
    let of = |range: std::ops::Range<usize>| {
        let mut sums = [0.0f64; 4];
        for (&a, &b) in a[range.clone()].iter().zip(&b[range]) {
            let (a, b) = (f64::from(a), f64::from(b));
            [a * a, b * b, a * b, (a - b) * (a - b)].iter().zip(&mut sums).for_each(|(v, sum)| *sum += v);
        }
        sums
    };
    let [aa, bb, ab, dd] = of(0..a.len());
    let mut tensors: Vec<(f64, &str)> = Vec::new();
    for spec in path.endpoints[0].row.layout().tensors() {
        let [aa, bb, _, dd] = of(spec.range());
        // Two independent vectors of one length lie √2 of it apart.
        let relative = if dd == 0.0 { 0.0 } else { (dd / (0.5 * (aa + bb))).sqrt() };
        tensors.push((relative, &spec.name));
    }
    tensors.sort_by(|x, y| y.0.total_cmp(&x.0));
    let furthest: Vec<Value> = tensors.iter().take(N_NAMED).map(|(d, name)| json!({"tensor": name, "relative_distance": d})).collect();
    Ok(json!({
        "norm_a": aa.sqrt(),
        "norm_b": bb.sqrt(),
        "distance": dd.sqrt(),
        "relative_distance": if dd == 0.0 { 0.0 } else { (dd / (0.5 * (aa + bb))).sqrt() },
        "cosine": ab / (aa * bb).sqrt(),
        "furthest": furthest,
    }))
}

/// The answers of both on the test examples, with the statistics that they came with: the share on which they differ.
fn answers(objective: &mut NetworkObjective<f32>, path: &MeasuredPath) -> anyhow::Result<Value> {
    let [a, b] = [0, 1].map(|idx| of_endpoint(objective, path, &path.endpoints[idx]));
    let ((a, a_values), (b, b_values)) = (a?, b?);
    let mut answers = json!({"a": a_values, "b": b_values});
    match path.data.chance() {
        Some(_) => {
            let n_classes = *path.endpoints[0].graph.output_shape().last().unwrap_or(&1);
            let differ = a.chunks(n_classes).zip(b.chunks(n_classes)).filter(|(a, b)| largest(a) != largest(b)).count();
            answers["disagreement"] = json!(differ as f64 / (a.len() / n_classes) as f64);
        }
        None => {
            let squares: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            answers["rms_difference"] = json!((squares / a.len() as f64).sqrt());
        }
    }
    Ok(answers)
}

fn of_endpoint(objective: &mut NetworkObjective<f32>, path: &MeasuredPath, endpoint: &Endpoint) -> anyhow::Result<(Vec<f32>, Values)> {
    job::stand_at(objective, endpoint)?;
    let (mut outputs, batches) = (Vec::new(), path.data.test_batches()?);
    for idx in 0..batches.n_batches() {
        let batch = batches.batch(0, idx)?;
        objective.executor_mut().evaluate(&batch.inputs, batch.n_examples, Pass::EVALUATE)?;
        outputs.extend(objective.executor().output().read()?.iter());
    }
    let tally = path.data.measure_test(objective)?;
    Ok((outputs, Values::new(&tally, 0.0, 0.0)))
}

/// The first of the largest.
fn largest(values: &[f32]) -> u32 {
    let at = values.iter().enumerate().fold(None, |best: Option<(usize, f32)>, (idx, &v)| match best {
        Some((_, most)) if v.partial_cmp(&most) != Some(std::cmp::Ordering::Greater) => best,
        _ => Some((idx, v)),
    });
    at.map_or(IGNORED, |(idx, _)| idx as u32)
}

/// One paragraph, and the command to run next.
fn verdict(document: &Value, [a, b]: &[std::path::PathBuf; 2]) -> (String, String) {
    let (a, b) = (a.display(), b.display());
    if document["same_network"] == false {
        let text = "These are checkpoints of different networks: there is no line between their weights, so they can be neither averaged nor \
                    joined by a curve. Their predictions can still be averaged.";
        return (text.to_owned(), format!("landscape inspect {b}"));
    }
    let Ok(line) = serde_json::from_value::<Profile>(document["line"].clone()) else {
        return ("The line between them could not be measured.".to_owned(), format!("landscape inspect {a}"));
    };
    let barrier = |quantity| line.barriers.get(quantity).map_or(f64::NAN, |b| b.above_line);
    let nll = barrier(Quantity::TestNll).max(barrier(Quantity::TrainNll));
    let errors = [Quantity::TrainError, Quantity::TestError].map(|q| line.barriers.get(q).map(|b| b.above_line));
    let error = errors.iter().flatten().copied().reduce(f64::max);
    let differ = document["answers"]["disagreement"].as_f64();
    let answers = differ.map(|d| format!(" They answer differently on {:.1} % of the test examples.", 100.0 * d)).unwrap_or_default();
    if document["distance"]["distance"] == 0.0 {
        return (
            "Their weights are the same numbers: there is nothing to merge or to connect.".to_owned(),
            format!("landscape inspect {a}"),
        );
    }
    if !nll.is_finite() {
        let text = format!("The loss on the line between them is not finite: their weights must not be averaged.{answers}");
        return (text, format!("landscape connect {a} {b}"));
    }
    let rise = match error {
        Some(error) => format!("{nll:.3} nats and {:.1} points of error", 100.0 * error),
        None => format!("{nll:.4}"),
    };
    // Where there are classes but too many for an error to say much (tokens), the loss decides as for regression.
    let by_loss = line.verdicts.is_lmc;
    let stable = match error {
        Some(error) if document["data"]["n_places"].is_null() => error < STABLE_ERROR,
        _ => by_loss,
    };
    if stable {
        let text = format!(
            "They are linearly connected: on the straight line the loss rises by at most {rise} above the line between the ends. Averaging \
             their weights is safe on these data.{answers}"
        );
        (text, format!("landscape profile {a} {b}"))
    } else {
        let text = format!(
            "They are not linearly connected: on the straight line the loss rises by {rise} above the line between the ends, so an average \
             of their weights is worse than either. Networks trained apart mostly are; a curve of low loss may still join them.{answers}"
        );
        (text, format!("landscape connect {a} {b}"))
    }
}

fn describe(document: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let mut text = String::new();
    let differences = document["differences"].as_array().map_or(&[][..], Vec::as_slice);
    if document["same_network"] == true {
        let d = &document["distance"];
        text += &format!(
            "same network; norms {:.3} and {:.3}, distance {:.3} ({:.2} of their size), cosine {:.3}\n",
            number(&d["norm_a"]),
            number(&d["norm_b"]),
            number(&d["distance"]),
            number(&d["relative_distance"]),
            number(&d["cosine"])
        );
        let furthest = d["furthest"].as_array().into_iter().flatten();
        let named = furthest.map(|f| format!("`{}` ({:.2})", f["tensor"].as_str().unwrap_or_default(), number(&f["relative_distance"])));
        text += &format!("furthest apart for their size: {}\n", named.collect::<Vec<_>>().join(", "));
        text += &format!(
            "straight line, {N_SAMPLES} points, {} training and {} test examples:\n{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
            document["n_train"], document["n_test"], "", "A", "B", "worst", "at t", "barrier"
        );
        if let Ok(line) = serde_json::from_value::<Profile>(document["line"].clone()) {
            for quantity in [Quantity::TrainNll, Quantity::TrainError, Quantity::TestNll, Quantity::TestError] {
                let (Some(s), Some(b)) = (line.summary.get(quantity), line.barriers.get(quantity)) else { continue };
                let (name, barrier) = (quantity.name(), b.above_line);
                text += &format!("{name:<12}{:>10.4}{:>10.4}{:>10.4}{:>10.2}{barrier:>10.4}\n", s.start, s.end, s.max, s.t_max);
            }
        }
        let answers = &document["answers"];
        if let Some(share) = answers["disagreement"].as_f64() {
            text += &format!("their answers differ on {:.2} % of the test examples\n", 100.0 * share);
        }
        if let Some(rms) = answers["rms_difference"].as_f64() {
            text += &format!("their outputs differ by {rms:.4} (root mean square) on the test examples\n");
        }
    } else {
        let more = differences.len().saturating_sub(10);
        text += "different networks:\n";
        for difference in differences.iter().take(10) {
            text += &format!("  {}\n", difference.as_str().unwrap_or_default());
        }
        if more > 0 {
            text += &format!("  and {more} more\n");
        }
    }
    text += &format!("\n{}\n\nnext: {}", document["verdict"].as_str().unwrap_or_default(), document["next"].as_str().unwrap_or_default());
    text
}
