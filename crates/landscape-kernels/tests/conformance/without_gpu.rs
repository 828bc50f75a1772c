//! The tests of devices, once more as a child whose driver is the host driver: all launch code and all kernels, without a GPU.

#[path = "../host_driver/mod.rs"]
mod host_driver;

use host_driver::{Beside, run_as_child};
use std::path::Path;

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
    for (order, beside) in [("forward", Beside::CublasAndCudnn), ("forward", Beside::Nothing), ("reversed", Beside::Nothing)] {
        let errors = run_as_child(&folder, beside, &["devices::", "weight_space::"], &[("HOST_DRIVER_ORDER", order)]);
        // Said whenever the library is unloaded: the first time after a look whether it is there.
        let calls = errors.lines().rfind(|line| line.starts_with("host cuDNN: "));
        assert_eq!(calls.is_some(), beside == Beside::CublasAndCudnn, "{beside:?}:\n{errors}");
        assert!(calls.is_none_or(|calls| !calls.contains(" 0 ")), "cuDNN was there and not called: {calls:?}");
    }
}
