//! Everything that needs a GPU, as one program that carries its data with it: what `cargo xtask gpu` runs, and what it packs to run where
//! there is no cargo.
//!
//! `landscape-gpu [--out TABLE] [--python PYTHON] [--part PART] [cuda:N]` runs the parts, each as a process of its own that is ended after
//! eight minutes, and writes one JSON table. A part that fails leaves its reason and the rows it had in the table, and the exit code is 1.
//! Where there is no GPU it says why, writes nothing and ends well.

#![allow(clippy::print_stdout, reason = "its result goes to whoever called it")]

mod measure;
mod part;
mod table;

use anyhow::{Context, bail};
use landscape_kernels::{Device, Error};
use std::path::PathBuf;

/// What the command line asks for.
struct Options {
    out: PathBuf,
    python: PathBuf,
    /// One part alone, in this process, printed.
    inside: Option<String>,
    /// One part alone, into the table.
    only: Option<String>,
    device: String,
}

fn main() -> anyhow::Result<()> {
    let options = options(std::env::args().skip(1))?;
    let device = match Device::parse(&options.device) {
        Err(Error::NoDevice { device, reason }) => {
            println!("nothing was run and no table written: `{device}` cannot be opened: {reason}");
            return Ok(());
        }
        device => device?,
    };
    let Device::Cuda(cuda) = &device else { bail!("the device must be a GPU, got `{}`", options.device) };
    if let Some(part) = &options.inside {
        return measure::part(part, &device, cuda, &mut |row| println!("{row}"));
    }
    let about = table::describe(&options.device, cuda)?;
    // The parts have the GPU to themselves.
    drop(device);
    table::write(&options, &about)
}

fn options(mut args: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let mut options = Options { out: "table.json".into(), python: "python3".into(), inside: None, only: None, device: "cuda:0".to_owned() };
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("`{arg}` needs a value"));
        match arg.as_str() {
            "--out" => options.out = value()?.into(),
            "--python" => options.python = value()?.into(),
            "--part" => options.only = Some(value()?),
            "--inside" => options.inside = Some(value()?),
            device if device.starts_with("cuda") => options.device = arg,
            _ => bail!("expected `--out TABLE`, `--python PYTHON`, `--part PART` or `cuda:N`, got `{arg}`"),
        }
    }
    if let Some(part) = options.only.as_ref().filter(|part| !table::PARTS.iter().any(|(name, _)| name == part)) {
        bail!("`--part` must be one of {:?}, got `{part}`", table::PARTS.map(|(name, _)| name));
    }
    Ok(options)
}
