//! `gpu`: everything that needs a GPU, into one JSON table; and an archive of it that runs where there is no cargo.

use crate::shell::{root, run as shell, target};
use anyhow::{Context, Result, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What an archive may weigh.
const MAX_ARCHIVE_BYTES: u64 = 40 << 20;
/// The program, and the folder in the archive.
const NAME: &str = "landscape-gpu";
/// What PyTorch's part needs, besides PyTorch and NumPy.
const SCRIPTS: [&str; 3] = ["torch_gpu.py", "torch_models.py", "values.py"];

/// Options of `gpu`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Make `target/gpu/landscape-gpu.tar.gz`, which runs where there are a driver, Python and PyTorch, and run nothing here
    #[arg(long)]
    pack: bool,
    /// Run this part alone, into `target/gpu/PART.json`: kernels, errors, determinism, bandwidth, steps-f32, torch-f32, ...
    #[arg(long, conflicts_with = "pack")]
    part: Option<String>,
    /// The Python that has PyTorch
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Which GPU
    #[arg(long, default_value = "cuda:0")]
    device: String,
}

/// Runs the parts, or packs what runs them elsewhere.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = target().join("gpu");
    let inside = folder.join(NAME);
    gather(&built()?, &suite()?, &inside)?;
    if args.pack {
        let archive = folder.join(format!("{NAME}.tar.gz"));
        let n_bytes = pack(&inside, &archive)?;
        println!("{} ({n_bytes} bytes)", archive.display());
        return Ok(());
    }
    let out = match &args.part {
        Some(part) => folder.join(format!("{part}.json")),
        None => root().join("benches/records/gpu.json"),
    };
    let mut command = Command::new(inside.join(NAME));
    command.arg("--out").arg(&out).arg("--python").arg(&args.python).arg(&args.device);
    shell(command.args(args.part.iter().flat_map(|part| ["--part", part])))
}

/// The program, built with this commit's name.
fn built() -> Result<PathBuf> {
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=10"]).current_dir(root()).output();
    let commit = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let build = ["build", "--release", "--locked", "-p", "landscape-benches", "--features", "cuda", "--bin", NAME];
    shell(Command::new("cargo").args(build).env("LANDSCAPE_COMMIT", commit).current_dir(root()))?;
    Ok(target().join("release").join(NAME))
}

/// The conformance suite of the kernels as a program.
fn suite() -> Result<PathBuf> {
    let build = ["test", "--release", "--locked", "-p", "landscape-kernels", "--features", "cuda", "--test", "conformance", "--no-run"];
    let output = Command::new("cargo")
        .args(build)
        .arg("--message-format=json-render-diagnostics")
        .stderr(std::process::Stdio::inherit())
        .current_dir(root())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "the conformance suite does not build");
    program_of(&String::from_utf8_lossy(&output.stdout), "conformance").context("cargo must name the conformance suite's program")
}

/// The program of a target in what cargo says in JSON.
fn program_of(messages: &str, target: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == target);
    programs.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// Puts all that runs into one folder.
fn gather(program: &Path, suite: &Path, inside: &Path) -> Result<()> {
    if inside.exists() {
        fs::remove_dir_all(inside).with_context(|| format!("`{}`", inside.display()))?;
    }
    fs::create_dir_all(inside).with_context(|| format!("`{}`", inside.display()))?;
    let copy = |from: &Path, name: &str| {
        fs::copy(from, inside.join(name)).map(|_| ()).with_context(|| format!("`{}` to `{}`", from.display(), inside.display()))
    };
    copy(program, NAME)?;
    copy(suite, "conformance")?;
    for script in SCRIPTS {
        copy(&root().join("benches/peers").join(script), script)?;
    }
    fs::write(inside.join("README.md"), README).with_context(|| format!("`{}`", inside.display()))
}

/// Writes the folder into an archive; how many bytes that is.
fn pack(inside: &Path, archive: &Path) -> Result<u64> {
    let file = File::create(archive).with_context(|| format!("`{}`", archive.display()))?;
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::best()));
    let mut entries = fs::read_dir(inside)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().context("a file has a name")?;
        tar.append_path_with_name(&path, Path::new(NAME).join(name)).with_context(|| format!("`{}`", path.display()))?;
    }
    tar.into_inner()?.finish()?;
    let n_bytes = fs::metadata(archive)?.len();
    if n_bytes > MAX_ARCHIVE_BYTES {
        bail!("the archive must be at most {MAX_ARCHIVE_BYTES} bytes, got {n_bytes}");
    }
    Ok(n_bytes)
}

const README: &str = "\
# Landscape on a GPU

Conformance of the kernels, errors against double precision, determinism, bandwidth of the weight-space kernels, steps and evaluation,
and the same steps by PyTorch, eager and compiled: synthetic data, one JSON table.

Needs x86-64 Linux with an NVIDIA driver of release 580 or later (CUDA 13) and, for its parts, Python 3 with PyTorch and NumPy. No cargo
and no CUDA toolkit. cuBLAS and cuDNN are used where they are found; those that PyTorch brings are found by

    SP=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()[\"purelib\"])')
    export LD_LIBRARY_PATH=$(ls -d $SP/nvidia/*/lib | paste -sd:):$LD_LIBRARY_PATH

Then

    ./landscape-gpu

runs all parts, each ended after eight minutes, and writes `table.json`. `--out TABLE`, `--python PYTHON`, `--part PART` (kernels, errors,
determinism, bandwidth, steps-f32, steps-tf32, steps-bf16, torch-f32, torch-tf32, torch-bf16) and `cuda:N` as its last words say
otherwise. Without a GPU it says why, and writes nothing.
";

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// What is packed comes out again, with its right to run, in one folder.
    #[test]
    fn an_archive_holds_programs_scripts_and_a_readme() -> Result<()> {
        let temp = tempfile::tempdir()?;
        let program = temp.path().join("program");
        fs::write(&program, "#!/bin/sh\necho no device\n")?;
        let mut rights = fs::metadata(&program)?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut rights, 0o755);
        fs::set_permissions(&program, rights)?;
        let (inside, archive) = (temp.path().join("inside"), temp.path().join("a.tar.gz"));
        gather(&program, &program, &inside)?;
        assert_eq!(pack(&inside, &archive)?, fs::metadata(&archive)?.len());
        let mut unpacked = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&archive)?));
        let mut found = Vec::new();
        for entry in unpacked.entries()? {
            let mut entry = entry?;
            let (name, mode) = (entry.path()?.display().to_string(), entry.header().mode()?);
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            assert!(!text.is_empty());
            assert_eq!(mode & 0o111 != 0, !name.contains('.'), "{name}");
            found.push(name);
        }
        let names = ["README.md", "conformance", NAME, "torch_gpu.py", "torch_models.py", "values.py"];
        assert_eq!(found, names.map(|name| format!("{NAME}/{name}")));
        Ok(())
    }

    #[test]
    fn cargo_says_where_a_program_is() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"half\"},\"executable\":null}\nno json\n\
            {\"target\":{\"name\":\"conformance\"},\"executable\":\"/a/conformance-1\"}";
        assert_eq!(program_of(messages, "conformance"), Some(PathBuf::from("/a/conformance-1")));
        assert_eq!(program_of(messages, "half"), None);
    }
}
