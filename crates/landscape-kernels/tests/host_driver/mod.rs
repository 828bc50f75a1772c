//! Builds the host driver: a `libcuda.so.1` that runs the `.cu` files of this crate on the processor.
//!
//! Every file is compiled as C++ by `g++` (or `CXX`), wrapped so that its kernels can be launched by name, and linked with `driver.cpp`. With
//! the folder on the library path, everything above the driver runs as on a GPU, only slowly; PTX is not looked at.
// Each test that includes this file uses its part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The folder of the kernels, whichever crate of the workspace includes this file.
const CRATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../landscape-kernels");

/// The folder in that of the driver that holds what may be there or not: cuBLAS and cuDNN.
const LIBRARIES: &str = "libraries";

/// Which libraries a child finds beside the driver.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Beside {
    CublasAndCudnn,
    Nothing,
}

/// The folders of the driver and of the libraries, for `LD_LIBRARY_PATH`.
pub fn library_path(folder: &Path, beside: Beside) -> String {
    match beside {
        Beside::CublasAndCudnn => format!("{}:{}", folder.display(), folder.join(LIBRARIES).display()),
        Beside::Nothing => folder.display().to_string(),
    }
}

/// Runs tests of this program once more, as a child whose driver is the host driver; what it wrote to standard error.
///
/// # Panics
/// If a test fails, or is skipped because the driver was not found.
pub fn run_as_child(folder: &Path, beside: Beside, filters: &[&str], variables: &[(&str, &str)]) -> String {
    let path = library_path(folder, beside);
    let output = Command::new(std::env::current_exe().expect("this test's program"))
        .args(filters)
        .arg("--nocapture")
        .env("LD_LIBRARY_PATH", &path)
        .envs(variables.iter().copied())
        .output()
        .expect("this test's program runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{variables:?}, {path}:\n{}\n{errors}", String::from_utf8_lossy(&output.stdout));
    assert!(!errors.contains("skipped"), "{variables:?}, {path}: the host driver was not found:\n{errors}");
    errors
}

/// The folder that holds `libcuda.so.1`, or why there is none: no compiler. Built once per state of the sources.
///
/// # Panics
/// If the sources do not compile.
pub fn build(temp: &Path) -> Result<PathBuf, String> {
    // Tests of one program would build in the same folder at once.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    let version = Command::new(&compiler).arg("--version").output().map_err(|error| format!("no C++ compiler `{compiler}`: {error}"))?;
    let here = Path::new(CRATE).join("tests/host_driver");
    let units = units(&compiler, &here);
    // The state of the sources is compared as a whole; a hash would save a few hundred kilobytes and tell less.
    let mut state = version.stdout;
    for (name, text) in &units {
        state.extend(format!("{name}\n{text}\n").bytes());
    }
    for (name, _, text) in cu_files() {
        state.extend(format!("{name}\n{text}\n").bytes());
    }
    for name in ["device.hpp", "cublas.cpp", "cudnn.cpp"] {
        state.extend(std::fs::read(here.join(name)).expect("a source of this crate"));
    }

    let folder = temp.join("host_driver");
    if std::fs::read(folder.join("state")).is_ok_and(|built| built == state) {
        return Ok(folder);
    }
    let fresh = temp.join(format!("host_driver_{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&fresh);
    std::fs::create_dir_all(&fresh).expect("a folder for the build");
    let mut objects = Vec::new();
    for (name, text) in &units {
        let source = fresh.join(format!("{name}.cpp"));
        std::fs::write(&source, text).expect("a source of the build");
        let object = fresh.join(format!("{name}.o"));
        // Contraction would give other bits than the CPU's loops; wrapping and aliasing are as a device has them.
        let flags = ["-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-fwrapv", "-w", "-c"];
        run(Command::new(&compiler).args(flags).arg("-I").arg(&here).arg(&source).arg("-o").arg(&object));
        objects.push(object);
    }
    run(Command::new(&compiler).arg("-shared").args(&objects).arg("-o").arg(fresh.join("libcuda.so.1")));
    // In a folder of its own: with it on the library path products are the libraries', without it own kernels'.
    std::fs::create_dir(fresh.join(LIBRARIES)).expect("a folder for the build");
    for (source, library) in [("cublas.cpp", "libcublas.so.13"), ("cudnn.cpp", "libcudnn.so.9")] {
        let flags = ["-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-shared"];
        run(Command::new(&compiler).args(flags).arg(here.join(source)).arg("-o").arg(fresh.join(LIBRARIES).join(library)));
    }
    std::fs::write(fresh.join("state"), &state).expect("the state of the build");
    // Whoever is first has built the same.
    let _ = std::fs::remove_dir_all(&folder);
    if std::fs::rename(&fresh, &folder).is_err() {
        return Ok(fresh);
    }
    Ok(folder)
}

/// Runs a command of the compiler; what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("the compiler was there a moment ago");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The names and texts of the C++ files to compile.
fn units(compiler: &str, here: &Path) -> Vec<(String, String)> {
    let mut units = vec![("driver".to_owned(), std::fs::read_to_string(here.join("driver.cpp")).expect("a source of this crate"))];
    for (name, path, text) in cu_files() {
        let waits = text.contains("__syncthreads") || text.contains("_sync(") || text.contains("__syncwarp");
        let mut unit = format!("#include \"device.hpp\"\nnamespace {name} {{\n#include \"{}\"\n", path.display());
        // Macros put the names together, so they are known once the preprocessor has run.
        let preprocessed = run(Command::new(compiler).args(["-E", "-P", "-D__launch_bounds__(...)=", "-x", "c++"]).arg(&path));
        for kernel in kernel_names(&preprocessed) {
            unit += &format!("static host::Register register_{kernel}(\"{kernel}\", host::Call<{kernel}>::invoke, {waits});\n");
        }
        unit += "}\n";
        units.push((name, unit));
    }
    units
}

/// Every `.cu` file of the crate: a name for its namespace, its path, its text.
fn cu_files() -> Vec<(String, PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(CRATE).join("src")];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(&folder).expect("a folder of sources").flatten().map(|e| e.path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "cu") {
                let text = std::fs::read_to_string(&path).expect("a source of this crate");
                let inner = path.strip_prefix(Path::new(CRATE).join("src")).expect("a path below the sources").with_extension("");
                let name = inner.to_string_lossy().replace(['/', '-', '.'], "_");
                files.push((format!("cu_{name}"), path, text));
            }
        }
    }
    files.sort();
    files
}

/// The kernels that a preprocessed file makes: the names after `__global__ void`.
fn kernel_names(preprocessed: &str) -> Vec<String> {
    let kernels = preprocessed.split("__global__").skip(1);
    kernels.filter_map(|rest| Some(rest.split_once("void")?.1.split_once('(')?.0.trim().to_owned())).collect()
}
