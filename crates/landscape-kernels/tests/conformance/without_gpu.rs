//! The tests of devices, once more as a child whose driver is the host driver: all launch code and all kernels, without a GPU.

#[path = "../host_driver/mod.rs"]
mod host_driver;

use std::path::Path;
use std::process::Command;

/// Threads of a block run in either order, which must not matter.
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
    for order in ["forward", "reversed"] {
        let output = Command::new(std::env::current_exe().expect("this test's program"))
            .args(["devices::", "--nocapture"])
            .env("LD_LIBRARY_PATH", &folder)
            .env("HOST_DRIVER_ORDER", order)
            .output()
            .expect("this test's program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{order}:\n{}\n{errors}", String::from_utf8_lossy(&output.stdout));
        assert!(!errors.contains("skipped"), "{order}: the host driver was not found:\n{errors}");
    }
}
