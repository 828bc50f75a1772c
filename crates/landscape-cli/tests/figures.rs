//! `plane`, `report` and `profile --npz` from the outside.
#![allow(clippy::unwrap_used)]

mod common;

use common::Sandbox;
use serde_json::Value;
use std::io::{Cursor, Read};

/// A run of `connect` long enough for its bend to leave the line.
fn with_bend() -> Sandbox {
    let sandbox = Sandbox::with_pair();
    sandbox.ok(&["connect", "a.safetensors", "b.safetensors", "--epochs", "3", "--out", "run", "--quiet"]);
    sandbox
}

const PLANE: [&str; 6] = ["plane", "run", "--grid", "7x5", "--fraction", "0.2"];

#[test]
fn a_plane_of_a_run_has_record_figures_and_the_curve() {
    let sandbox = with_bend();
    let document = sandbox.json(&PLANE);
    assert_eq!(document["schema"], "landscape-plane/1");
    let rows = |surface: &Value| surface.as_array().unwrap().iter().map(|row| row.as_array().unwrap().len()).collect::<Vec<_>>();
    for surface in [&document["train"]["loss"], &document["train"]["error"], &document["test"]["nll"]] {
        assert_eq!(rows(surface), [7; 5]);
    }
    assert_eq!((document["alphas"].as_array().unwrap().len(), document["betas"].as_array().unwrap().len()), (7, 5));
    let curve = document["curve"]["samples"].as_array().unwrap();
    let last = curve.last().unwrap();
    assert!((last["x"].as_f64().unwrap() / document["dx"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    assert!(curve.iter().all(|s| s["distance"].as_f64().unwrap() < 1e-5 * document["dx"].as_f64().unwrap()), "three points span the curve");
    assert_eq!(serde_json::from_slice::<Value>(&sandbox.read("run/plane.json")).unwrap(), document);
    assert!(sandbox.read("run/plane.png").starts_with(b"\x89PNG"));
    assert!(String::from_utf8(sandbox.read("run/plane.svg")).unwrap().contains("Test error (%)"));
    assert!(String::from_utf8(sandbox.read("run/plane.html")).unwrap().contains("\"surface\""));
    assert!(!sandbox.path("run/plane.partial.jsonl").exists());
    sandbox.refused(&PLANE, &["run/plane.json", "--force"]);
}

#[test]
fn a_plane_that_stopped_goes_on_to_the_same_bits() {
    let sandbox = with_bend();
    sandbox.ok(&PLANE);
    let whole = sandbox.read("run/plane.json");
    // As a kill leaves it: some cells and part of a line, with one cell marked to see that it is not measured again.
    let resume: Vec<&str> = PLANE.iter().copied().chain(["--resume", "--json", "--threads", "1"]).collect();
    let settings = &serde_json::from_slice::<Value>(&whole).unwrap()["settings"];
    std::fs::remove_file(sandbox.path("run/plane.json")).unwrap();
    let cell = |loss: f64| {
        format!("{{\"train\":{{\"loss\":{loss},\"nll\":1.0,\"error\":0.5}},\"test\":{{\"loss\":1.0,\"nll\":1.0,\"error\":0.5}}}}\n")
    };
    sandbox.write("run/plane.partial.jsonl", format!("{settings}\n{}{{\"train\":{{\"lo", cell(0.123_456_789)));
    let resumed: Value = serde_json::from_str(&sandbox.ok(&resume).stdout).unwrap();
    let mut expected: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(resumed["train"]["loss"][0][0], 0.123_456_789);
    for (split, quantity) in [("train", "loss"), ("train", "nll"), ("train", "error"), ("test", "loss"), ("test", "nll"), ("test", "error")]
    {
        expected[split][quantity][0][0] = resumed[split][quantity][0][0].clone();
    }
    assert_eq!(resumed, expected);
    // Done already: nothing changes, and other settings are refused.
    let before = sandbox.tree();
    sandbox.ok(&resume);
    common::assert_same_tree(&before, &sandbox.tree(), "resumed twice");
    sandbox.refused(&["plane", "run", "--grid", "7x6", "--fraction", "0.2", "--resume"], &["run/plane.json", "grid"]);
}

#[test]
fn cells_do_not_depend_on_threads() {
    let sandbox = with_bend();
    let one = sandbox.json(&["plane", "run", "--grid", "5x4", "--threads", "1"]);
    let two = sandbox.json(&["plane", "run", "--grid", "5x4", "--threads", "2", "--force"]);
    assert_eq!(one, two);
}

#[test]
fn any_three_checkpoints_span_a_plane_whose_corners_are_they() {
    let sandbox = Sandbox::with_pair();
    sandbox.ok(&["train", "--model", common::MODEL, "--epochs", "1", "--seed", "9", "--out", "c.safetensors", "--quiet"]);
    // The corners (0, 0) and (1, 0) are cells of this grid.
    let args = ["plane", "a.safetensors", "c.safetensors", "b.safetensors", "--grid", "2x3", "--margin", "0", "--out", "p"];
    let document = sandbox.json(&args);
    let names: Vec<&str> = document["points"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "c", "b"]);
    assert!(document.get("curve").is_none());
    let line = sandbox.json(&["profile", "a.safetensors", "b.safetensors", "--samples", "2", "--out", "line"]);
    for (cell, point) in [(0, 0), (1, 1)] {
        for quantity in ["loss", "nll", "error"] {
            let on_plane = document["test"][quantity][0][cell].as_f64().unwrap();
            let on_line = line["points"][point]["test"][quantity].as_f64().unwrap();
            assert_eq!(on_plane, on_line, "{quantity} at corner {cell}");
        }
    }
    // The run is finished.
    let mut again = args.to_vec();
    again.push("--resume");
    assert_eq!(sandbox.json(&again), document);
}

#[test]
fn wrong_planes_are_refused_by_name() {
    let sandbox = Sandbox::with_run();
    for (args, needle) in [
        (vec!["plane", "run", "--grid", "0x5"], "--grid"),
        (vec!["plane", "run", "--grid", "5"], "--grid"),
        (vec!["plane", "run", "--grid", "1x5"], "2 or more cells"),
        (vec!["plane", "run", "--fraction", "0"], "--fraction"),
        (vec!["plane", "run", "--margin", "-0.5"], "--margin"),
        (vec!["plane", "a.safetensors", "b.safetensors"], "three checkpoints"),
        (vec!["plane", "a.safetensors"], "run folder"),
        (vec!["plane", "a.safetensors", "a.safetensors", "b.safetensors", "--out", "p"], "not on one line"),
        (vec!["plane", "nowhere", "--grid", "3x3"], "nowhere"),
        (vec!["report", "nowhere"], "nowhere"),
    ] {
        sandbox.refused(&args, &[needle]);
    }
}

#[test]
fn a_report_tells_of_its_runs_and_fetches_nothing() {
    let sandbox = with_bend();
    sandbox.ok(&["profile", "run", "--samples", "7"]);
    sandbox.ok(&["profile", "run", "--samples", "7", "--straight"]);
    sandbox.ok(&PLANE);
    let document = sandbox.json(&["report", "run"]);
    assert_eq!(document["report"], "run/report.html");
    let page = String::from_utf8(sandbox.read("run/report.html")).unwrap();
    for text in [
        "Along the straight line the training loss",
        "Along the Bézier curve the training loss",
        "The networks at the ends",
        "A above line",
        "type=\"range\"",
        "landscape connect a.safetensors b.safetensors --data digits --curve bezier --points 3",
        "landscape profile run --force",
        "--straight",
        "landscape plane run --force",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("plotly.js v").count(), 1, "plotly's script stands in the page once");
    for fetching in ["<script src", "<link", "<img", "<iframe", "@import"] {
        assert!(!page.contains(fetching), "{fetching}");
    }
    assert!(!page.contains(sandbox.folder().to_str().unwrap()), "a machine's path");
    // A report is made from records: the same records give the same page.
    sandbox.refused(&["report", "run"], &["run/report.html", "--force"]);
    sandbox.ok(&["report", "run", "--force"]);
    assert_eq!(sandbox.read("run/report.html"), page.as_bytes());
    // Several runs, into a file of one's own that is not overwritten.
    sandbox.ok(&["train", "--model", common::MODEL, "--epochs", "1", "--seed", "5", "--out", "d.safetensors", "--quiet"]);
    sandbox.ok(&["report", "run", "d.run", "--out", "both.html"]);
    let both = String::from_utf8(sandbox.read("both.html")).unwrap();
    assert!(both.contains("href=\"#run-1\"") && both.contains("landscape train --model mlp:64-16-10"));
    // The ends' own command lines are given where their folders are still there.
    sandbox.ok(&["train", "--model", common::MODEL, "--epochs", "1", "--seed", "6", "--out", "e.safetensors", "--quiet"]);
    sandbox.ok(&["connect", "d.safetensors", "e.safetensors", "--epochs", "1", "--out", "de", "--quiet"]);
    sandbox.ok(&["report", "de"]);
    let page = String::from_utf8(sandbox.read("de/report.html")).unwrap();
    assert!(page.contains("--seed 6 --eval-every 1 --out e.safetensors"));
    sandbox.refused(&["report", "run", "d.run", "--out", "both.html"], &["both.html", "--force"]);
}

#[test]
fn the_reference_s_npz_holds_the_profile_in_percent() {
    let sandbox = with_bend();
    let document = sandbox.json(&["profile", "run", "--samples", "5", "--npz"]);
    let mut archive = zip::ZipArchive::new(Cursor::new(sandbox.read("run/curve.npz"))).unwrap();
    let mut read = |name: &str| {
        let mut bytes = Vec::new();
        archive.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
        npyz::NpyFile::new(bytes.as_slice()).unwrap().into_vec::<f64>().unwrap()
    };
    let errors: Vec<f64> = document["points"].as_array().unwrap().iter().map(|p| 100.0 * p["test"]["error"].as_f64().unwrap()).collect();
    assert_eq!(read("te_err"), errors);
    assert_eq!(read("ts"), [0.0, 0.25, 0.5, 0.75, 1.0]);
    assert_eq!(read("tr_loss_int"), [document["summary"]["train_loss"]["integral"].as_f64().unwrap()]);
}
