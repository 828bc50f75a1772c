//! `landscape report`: runs in one self-contained HTML file.

use crate::args::{Common, ReportArgs};
use crate::output;
use crate::report::page;
use crate::report::rerun;
use crate::report::run::Section;
use crate::run_folder::RunFolder;
use anyhow::bail;
use landscape_core::whole::{self, Overwrite};
use serde_json::json;
use std::path::PathBuf;

const REPORT: &str = "report.html";

pub fn run(common: &Common, args: &ReportArgs) -> anyhow::Result<()> {
    let runs = args.runs.iter().map(|path| RunFolder::open(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let Some(first) = runs.first() else { bail!("a report needs a run") };
    let written = match &common.out {
        // A folder gets the report inside; any other name is the file.
        Some(out) if !out.is_dir() => write_file(out.clone(), &runs, common)?,
        Some(out) => write_file(out.join(REPORT), &runs, common)?,
        None => write_file(first.file(REPORT), &runs, common)?,
    };
    let result = json!({"schema": "landscape-report/1", "report": written, "runs": args.runs});
    output::result(common, &result, &format!("wrote {}", written.display()))
}

/// Writes the report of `runs` into the folder of the run that they are part of, replacing an earlier one; gives its path.
pub fn write(folder: &RunFolder, runs: &[RunFolder], common: &Common) -> anyhow::Result<PathBuf> {
    let renewed = Common { force: true, ..common.clone() };
    write_file(folder.file(REPORT), runs, &renewed)
}

fn write_file(file: PathBuf, runs: &[RunFolder], common: &Common) -> anyhow::Result<PathBuf> {
    if file.exists() && !common.force {
        if common.resume {
            return Ok(file);
        }
        bail!("`{}` exists already; `--force` replaces it", file.display());
    }
    let sections = runs.iter().enumerate().map(|(idx, run)| Section::of_run(idx, run)).collect::<anyhow::Result<Vec<_>>>()?;
    let title = match sections.as_slice() {
        [only] if !only.verdicts.is_empty() => "Two networks and the path between them".to_owned(),
        [only] => format!("Run {}", only.name),
        many => format!("{} runs", many.len()),
    };
    let page = page::of_sections(&title, &sections, rerun::report(runs, common.out.as_deref()))?;
    let overwrite = if common.force { Overwrite::Replace } else { Overwrite::Refuse };
    whole::write(&file, page.as_bytes(), overwrite)?;
    Ok(file)
}
