//! `cargo xtask bench`: the suites of `benches/suites`, ours interleaved with the peers, into `benches/records` and `docs/PERFORMANCE.md`.
//!
//! Every side of a case is a process of its own that was set up before and waits; blocks of repetitions are then run in turn, A B C A B
//! C, on the same threads and data, so that whatever else the machine does falls on all sides alike. What is compared is the ratio of
//! medians within a round; its median and quartiles over the rounds are reported.

mod suite;
mod programs;
mod worker;
mod command;
mod run;
mod answer;
mod statistics;
mod machine;
mod record;
mod report;
mod figure;

use anyhow::{Context, bail};
use programs::{Peers, Profile, Programs};
use std::path::PathBuf;
use suite::{Case, Suite};

#[derive(clap::Args)]
pub struct Args {
    /// Only these suites (files in `benches/suites`, without `.toml`)
    suites: Vec<String>,
    /// Only the cases whose names contain this
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Install the peers into `target/peers` and run them interleaved with ours
    #[arg(long)]
    peers: bool,
    /// A Python that has the peers already, instead of `target/peers`
    #[arg(long, value_name = "PATH", requires = "peers")]
    python: Option<PathBuf>,
    /// Run the cheapest case of each suite once, in the dev profile, and compare its answer only; nothing is timed or recorded
    #[arg(long, conflicts_with_all = ["peers", "report", "case"])]
    check: bool,
    /// Write the tables and figures of `docs/PERFORMANCE.md` from the records; alone, nothing is run
    #[arg(long)]
    report: bool,
    /// Rounds per case [default: the case's own]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// List suites and cases
    #[arg(long, conflicts_with_all = ["peers", "report", "check"])]
    list: bool,
}

/// Runs what was asked for.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let all = suite::read_all()?;
    for name in &args.suites {
        if !all.iter().any(|s| s.name == *name) {
            bail!("there is no suite `{name}`; the suites are {}", all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", "));
        }
    }
    let chosen: Vec<&Suite> = all.iter().filter(|s| args.suites.is_empty() || args.suites.contains(&s.name)).collect();
    if args.list {
        return list(&chosen);
    }
    if args.check {
        return check(&chosen);
    }
    if !args.report || args.peers || args.case.is_some() || !args.suites.is_empty() {
        measure(args, &chosen)?;
    }
    if args.report {
        report::write(&all)?;
    }
    Ok(())
}

fn list(suites: &[&Suite]) -> anyhow::Result<()> {
    for suite in suites {
        println!("{}: {}", suite.name, suite.title);
        for case in &suite.cases {
            println!("    {}: {}", case.name, case.row);
        }
    }
    Ok(())
}

/// The answers of the cheapest cases.
fn check(suites: &[&Suite]) -> anyhow::Result<()> {
    let cases = suites.iter().map(|suite| suite.cheapest()).collect::<anyhow::Result<Vec<_>>>()?;
    let programs = Programs::build(Profile::Dev, Peers::None, &cases)?;
    for (suite, case) in suites.iter().zip(cases) {
        let answer = run::answer_of(&programs, suite, case)?;
        answer::check("expected", &case.expect, &answer, case.expect_tolerance).with_context(|| format!("{} {}", suite.name, case.name))?;
        println!("{} {}: {answer:?} as expected", suite.name, case.name);
    }
    Ok(())
}

fn measure(args: &Args, suites: &[&Suite]) -> anyhow::Result<()> {
    let peers = match (args.peers, &args.python) {
        (false, _) => Peers::None,
        (true, None) => Peers::Installed,
        (true, Some(python)) => Peers::Given(python.clone()),
    };
    let is_chosen = |case: &Case| args.case.as_ref().is_none_or(|text| case.name.contains(text));
    let chosen: Vec<(&Suite, &Case)> =
        suites.iter().flat_map(|s| s.cases.iter().map(move |c| (*s, c))).filter(|(_, c)| is_chosen(c)).collect();
    if chosen.is_empty() {
        bail!("no case has a name with `{}` in it", args.case.as_deref().unwrap_or_default());
    }
    let cases: Vec<&Case> = chosen.iter().map(|(_, case)| *case).collect();
    let programs = Programs::build(Profile::Release, peers, &cases)?;
    let provenance = machine::Provenance::now()?;
    for (suite, case) in chosen {
        println!("== {} {}", suite.name, case.name);
        let measured = run::case(&programs, suite, case, args.rounds)?;
        let record = record::Case::of(case, measured, &provenance);
        println!("{}", record.line());
        record::merge(suite, record)?;
    }
    Ok(())
}
