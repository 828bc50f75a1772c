//! The tests of devices, once more as a child whose driver is the host driver: all launch code and all kernels, without a GPU.

#[path = "../host_driver/mod.rs"]
mod host_driver;

use std::path::Path;
use std::process::Command;

/// With the libraries that may be there and without; threads of a block run in either order, which must not matter.
#[test]
#[allow(clippy::print_stderr)]
fn devices_on_the_host_driver() {
    let folder = match host_driver::build(Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        Ok(folder) => folder,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    let with_libraries = format!("{}:{}", folder.display(), folder.join(host_driver::LIBRARIES).display());
    for (order, path) in
        [("forward", with_libraries), ("forward", folder.display().to_string()), ("reversed", folder.display().to_string())]
    {
        let output = Command::new(std::env::current_exe().expect("this test's program"))
            .args(["devices::", "weight_space::", "--nocapture"])
            .env("LD_LIBRARY_PATH", &path)
            .env("HOST_DRIVER_ORDER", order)
            .output()
            .expect("this test's program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{order}, {path}:\n{}\n{errors}", String::from_utf8_lossy(&output.stdout));
        assert!(!errors.contains("skipped"), "{order}, {path}: the host driver was not found:\n{errors}");
        // Said whenever the library is unloaded: the first time after a look whether it is there.
        let calls = errors.lines().rfind(|line| line.starts_with("host cuDNN: "));
        let libraries = path.contains(host_driver::LIBRARIES);
        assert_eq!(calls.is_some(), libraries, "{path}:\n{errors}");
        assert!(calls.is_none_or(|calls| !calls.contains(" 0 ")), "cuDNN was there and not called: {calls:?}");
    }
}
