//! The programs that take part: built, installed, found.

use super::suite::{self, Case, Peer, PeerProgram};
use crate::shell::{self, target};
use anyhow::{Context, bail};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which peers take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Ours alone, also where ours is compared with itself.
    None,
    /// Those of `target/peers`, which is made where it is not there.
    Installed,
    /// Those that this Python has.
    Given(PathBuf),
}

/// How our programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

/// Everything that can be started.
#[derive(Debug)]
pub struct Programs {
    job: PathBuf,
    landscape: PathBuf,
    python: Option<PathBuf>,
    /// Our own packages among the peers, by name.
    packages: BTreeMap<String, PathBuf>,
    pub peers: BTreeMap<String, Peer>,
}

impl Programs {
    /// Builds what is ours, and what of the peers these cases need, and installs the rest.
    pub fn build(profile: Profile, peers: Peers, cases: &[&Case]) -> anyhow::Result<Self> {
        let all = suite::read_peers()?;
        let release = |package: &str| {
            let mut cargo = Command::new("cargo");
            shell::run(cargo.args(["build", "--quiet", "--locked", "--release", "-p", package]).current_dir(shell::root()))
        };
        let folder = target().join(if profile == Profile::Release { "release" } else { "debug" });
        if profile == Profile::Dev {
            // As `cargo test --workspace` builds, so that what it has built is not built again.
            let mut cargo = Command::new("cargo");
            shell::run(cargo.args(["build", "--quiet", "--locked", "--workspace", "--bins", "--tests"]).current_dir(shell::root()))?;
        } else {
            // One call each, so that no package gets the features that another asks of a dependency.
            release("landscape-benches")?;
            if cases.iter().any(|case| case.command.is_some()) {
                release("landscape-cli")?;
            }
        }
        let mut packages = BTreeMap::new();
        if peers != Peers::None {
            for peer in cases.iter().flat_map(|case| &case.peers).filter_map(|name| all.get(name)) {
                if let PeerProgram::Cargo(package) = &peer.program
                    && !packages.contains_key(package)
                {
                    release(package)?;
                    packages.insert(package.clone(), folder.join(package));
                }
            }
        }
        let python = match peers {
            Peers::None => None,
            Peers::Given(python) => Some(std::path::absolute(python)?),
            Peers::Installed => Some(install()?),
        };
        Ok(Programs { job: folder.join("landscape-bench-job"), landscape: folder.join("landscape"), python, packages, peers: all })
    }

    /// Whether that peer can be started in this run.
    pub fn has(&self, peer: &Peer) -> bool {
        match &peer.program {
            PeerProgram::Python(_) => self.python.is_some(),
            PeerProgram::Cargo(package) => self.packages.contains_key(package),
            PeerProgram::Ours => true,
        }
    }

    /// Our own job as a process.
    pub fn job(&self, job: &Map<String, Value>) -> Command {
        let mut command = Command::new(&self.job);
        command.arg(Value::Object(job.clone()).to_string());
        with_threads(command, job)
    }

    /// A peer's job as a process.
    pub fn peer(&self, peer: &Peer, job: &Map<String, Value>) -> anyhow::Result<Command> {
        let mut command = match &peer.program {
            PeerProgram::Ours => return Ok(self.job(job)),
            PeerProgram::Cargo(package) => Command::new(self.packages.get(package).context("the peers were not built")?),
            PeerProgram::Python(script) => {
                let mut command = Command::new(self.python.as_ref().context("there is no Python with the peers")?);
                command.arg(shell::root().join("benches/peers").join(script));
                command
            }
        };
        command.arg(Value::Object(job.clone()).to_string());
        Ok(with_threads(command, job))
    }

    /// `landscape` itself.
    pub fn landscape(&self) -> Command {
        Command::new(&self.landscape)
    }
}

/// Every thread pool that a side may have obeys the case.
fn with_threads(mut command: Command, job: &Map<String, Value>) -> Command {
    let threads = job.get("threads").map_or_else(|| "1".to_owned(), Value::to_string);
    for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"] {
        command.env(variable, &threads);
    }
    // XLA and torch.compile compile once, not once per process.
    command.env("TORCHINDUCTOR_CACHE_DIR", target().join("peers-cache"));
    command
}

/// The peers' virtual environment, made anew when the requirements have changed.
fn install() -> anyhow::Result<PathBuf> {
    let folder = target().join("peers");
    let requirements = shell::root().join("benches/peers/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).with_context(|| format!("cannot read `{}`", requirements.display()))?;
    let (stamp, python) = (folder.join("requirements.txt"), folder.join("bin/python"));
    if python.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("installing the peers into `{}`", folder.display());
    let system = ["python3", "python"].into_iter().find(|name| works(name));
    let Some(system) = system else { bail!("there is no `python3`; peers need one, or `--python PATH`") };
    shell::run(Command::new(system).args(["-m", "venv", "--clear"]).arg(&folder))?;
    shell::run(pip(&python).arg("-r").arg(&requirements))?;
    std::fs::write(&stamp, &wanted)?;
    Ok(python)
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"]);
    command
}

fn works(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
