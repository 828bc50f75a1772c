//! `ptx`: kernels for GPUs, compiled ahead with one pinned compiler and committed beside their sources.
//!
//! The compiler is NVRTC from its wheel on PyPI, which needs neither a GPU nor a driver nor a CUDA installation. A `.ptx` begins with the
//! hash of what it was made of, so that anyone can tell whether it is of the present source; whoever has the wheel compiles anew and compares.

use crate::shell::{root, run as shell, target};
use anyhow::{Context, Result, bail, ensure};
use libloading::{Library, Symbol};
use sha2::{Digest, Sha256};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, ptr};

/// The one compiler.
const WHEEL: &str = "nvidia-cuda-nvrtc==13.0.88";
/// Sums are contracted where the source says `fma`, and nowhere else: the bits are those of the kernels for the processor.
const FLAGS: [&str; 3] = ["--gpu-architecture=compute_80", "--fmad=false", "--std=c++17"];
const SOURCES: &str = "crates/landscape-kernels/src";

/// Options of `ptx`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing: fail where a `.ptx` is not of its source, and, if the compiler is installed, where it compiles to something else
    #[arg(long)]
    check: bool,
}

/// Compiles or checks every `.cu` of the kernels' crate.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut sources = Vec::new();
    collect(&root().join(SOURCES), &mut sources)?;
    sources.sort();
    ensure!(!sources.is_empty(), "`{SOURCES}` must hold `.cu` files, got none");
    if args.check {
        return check(&sources);
    }
    let compiler = Compiler::load(&installed().map_or_else(install, Ok)?)?;
    for source in &sources {
        let text = fs::read_to_string(source).with_context(|| format!("`{}`", source.display()))?;
        fs::write(source.with_extension("ptx"), whole(&text, &compiler.compile(source, &text)?))?;
        println!("{}", source.with_extension("ptx").display());
    }
    Ok(())
}

/// Every `.cu` below `folder`.
fn collect(folder: &Path, sources: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("`{}`", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|ending| ending == "cu") {
            sources.push(path);
        }
    }
    Ok(())
}

fn check(sources: &[PathBuf]) -> Result<()> {
    let compiler = installed().map(|library| Compiler::load(&library)).transpose()?;
    let mut stale = Vec::new();
    for source in sources {
        let text = fs::read_to_string(source).with_context(|| format!("`{}`", source.display()))?;
        let committed = fs::read_to_string(source.with_extension("ptx")).unwrap_or_default();
        let body = committed.split_once("\n\n").map_or("", |(_, body)| body);
        let good = match &compiler {
            _ if committed != whole(&text, body) => false,
            Some(compiler) => compiler.compile(source, &text)? == body,
            None => true,
        };
        if !good {
            stale.push(source.display().to_string());
        }
    }
    ensure!(stale.is_empty(), "run `cargo xtask ptx`: what is committed is not of the present `{}`", stale.join("`, `"));
    let how = if compiler.is_some() { "hashes agree, and compiling gives the same" } else { "hashes agree; the compiler is not installed" };
    println!("{} files of PTX: {how}", sources.len());
    Ok(())
}

/// A `.ptx` file: what it was made of, then what the compiler wrote.
fn whole(source: &str, body: &str) -> String {
    let hash = |parts: &[&str]| {
        let mut hash = Sha256::new();
        parts.iter().for_each(|part| hash.update(part));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let flags = FLAGS.join(" ");
    let made_of = hash(&[source, "\n", &flags, "\n", WHEEL]);
    format!(
        "// By `cargo xtask ptx` with {WHEEL} {flags}\n// sha256 of source, flags and compiler {made_of}\n// sha256 of what follows {}\n\n{body}",
        hash(&[body])
    )
}

/// Where the compiler is installed.
fn venv() -> PathBuf {
    target().join("ptx/venv")
}

/// The compiler's library, if the wheel is installed below `target`.
fn installed() -> Option<PathBuf> {
    let python = fs::read_dir(venv().join("lib")).ok()?.flatten().next()?.path();
    let library = python.join("site-packages/nvidia/cu13/lib/libnvrtc.so.13");
    library.exists().then_some(library)
}

fn install() -> Result<PathBuf> {
    shell(Command::new("python3").args(["-m", "venv"]).arg(venv()))?;
    shell(Command::new(venv().join("bin/pip")).args(["install", "--quiet", "--no-deps", WHEEL]))?;
    installed().context("the wheel must hold `nvidia/cu13/lib/libnvrtc.so.13`")
}

type Program = *mut c_void;
type CreateProgram =
    unsafe extern "C" fn(*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int;
type CompileProgram = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type DestroyProgram = unsafe extern "C" fn(*mut Program) -> c_int;

/// NVRTC.
struct Compiler {
    nvrtc: Library,
    /// NVRTC looks for it by its name alone, which finds it once it is loaded.
    _builtins: Library,
}

impl Compiler {
    fn load(library: &Path) -> Result<Self> {
        // SAFETY: the libraries are NVIDIA's, from the pinned wheel; they have no initialiser that asks anything of its caller.
        let load = |path: &Path| unsafe { Library::new(path) }.with_context(|| format!("`{}`", path.display()));
        Ok(Compiler { _builtins: load(&library.with_file_name("libnvrtc-builtins.so.13.0"))?, nvrtc: load(library)? })
    }

    fn function<T>(&self, name: &str) -> Result<Symbol<'_, T>> {
        // SAFETY: the types above are those of `nvrtc.h`.
        unsafe { self.nvrtc.get(name.as_bytes()) }.with_context(|| format!("NVRTC must have `{name}`"))
    }

    fn compile(&self, path: &Path, source: &str) -> Result<String> {
        // The name goes into messages; the path below the sources is the same on every machine.
        let name = CString::new(path.strip_prefix(root().join(SOURCES)).unwrap_or(path).to_string_lossy().as_bytes())?;
        let source = CString::new(source)?;
        let flags: Vec<CString> = FLAGS.iter().map(|flag| CString::new(*flag)).collect::<std::result::Result<_, _>>()?;
        let flags: Vec<*const c_char> = flags.iter().map(|flag| flag.as_ptr()).collect();
        let create = self.function::<CreateProgram>("nvrtcCreateProgram")?;
        let compile = self.function::<CompileProgram>("nvrtcCompileProgram")?;
        let destroy = self.function::<DestroyProgram>("nvrtcDestroyProgram")?;
        let mut program = ptr::null_mut();
        // SAFETY: all strings end in zero and outlive the calls; the program is destroyed once, after its last use.
        unsafe {
            ensure!(create(&mut program, source.as_ptr(), name.as_ptr(), 0, ptr::null(), ptr::null()) == 0, "NVRTC made no program");
            let status = compile(program, flags.len() as c_int, flags.as_ptr());
            let log = self.text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog");
            let ptx = if status == 0 { self.text(program, "nvrtcGetPTXSize", "nvrtcGetPTX") } else { Ok(String::new()) };
            destroy(&mut program);
            if status != 0 {
                bail!("`{}` does not compile:\n{}", path.display(), log?);
            }
            ptx
        }
    }

    /// A text of the program, by the functions that give its size and itself.
    ///
    /// # Safety
    /// The program must be one that was not destroyed.
    unsafe fn text(&self, program: Program, size: &str, text: &str) -> Result<String> {
        let mut n_bytes = 0;
        // SAFETY: the second call writes as many bytes as the first says, zero at the end included.
        unsafe {
            ensure!(self.function::<Size>(size)?(program, &mut n_bytes) == 0, "NVRTC does not say a size");
            let mut bytes = vec![0_u8; n_bytes.max(1)];
            ensure!(self.function::<Text>(text)?(program, bytes.as_mut_ptr().cast()) == 0, "NVRTC gives no text");
            Ok(CStr::from_bytes_until_nul(&bytes)?.to_string_lossy().into_owned())
        }
    }
}
