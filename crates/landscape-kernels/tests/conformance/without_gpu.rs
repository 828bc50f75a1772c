//! The tests of devices, once more as a child whose driver is the host driver: all launch code and all kernels, without a GPU.

#[path = "../host_driver/mod.rs"]
mod host_driver;

use crate::devices::CONVOLUTION;
use host_driver::{Beside, run_as_child};
use landscape_kernels::conv2d;
use landscape_kernels::{Device, Memory};
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
    // Where the library does not run what it said it takes, own kernels do.
    run_as_child(&folder, Beside::CublasAndCudnn, &["devices::accelerators"], &[("HOST_CUDNN", "stubborn")]);
    let runs =
        [("forward", "cuda:0", Beside::CublasAndCudnn), ("forward", "cuda:1", Beside::Nothing), ("reversed", "cuda:0", Beside::Nothing)];
    for (order, device, beside) in runs {
        let variables = [("HOST_DRIVER_ORDER", order), ("LANDSCAPE_TEST_DEVICE", device)];
        let errors = run_as_child(&folder, beside, &["devices::", "moves::", "weight_space::"], &variables);
        // Said whenever the library is unloaded: the first time after a look whether it is there.
        let calls = errors.lines().rfind(|line| line.starts_with("host cuDNN: "));
        assert_eq!(calls.is_some(), beside == Beside::CublasAndCudnn, "{beside:?}:\n{errors}");
        assert!(calls.is_none_or(|calls| !calls.contains(" 0 ")), "cuDNN was there and not called: {calls:?}");
    }
}

/// A device that is asked for by name must be there: neither a number that no machine has nor a driver that cannot load the PTX is skipped.
#[test]
#[allow(clippy::print_stderr)]
fn a_named_device_that_does_not_open_fails_the_suite() {
    let folder = match host_driver::build(Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        Ok(folder) => folder,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    let path = host_driver::library_path(&folder, Beside::Nothing);
    for (device, version, why) in [("cuda:60000", "13000", "numbered from 0"), ("cuda:0", "12080", "12.8")] {
        let mut child = std::process::Command::new(std::env::current_exe().expect("this test's program"));
        child.args(["devices::accelerators", "--nocapture"]).env("LD_LIBRARY_PATH", &path);
        let output =
            child.env("LANDSCAPE_TEST_DEVICE", device).env("HOST_DRIVER_VERSION", version).output().expect("this test's program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(why), "{device}, {version}: {errors}");
    }
}

/// After a fault every call of a device is an error, and giving it back is none of them: cudarc's handles would panic.
#[test]
#[allow(clippy::print_stderr)]
fn a_device_with_a_fault_is_given_back_in_silence() {
    if std::env::var("HOST_DRIVER_FAULT").is_err() {
        match host_driver::build(Path::new(env!("CARGO_TARGET_TMPDIR"))) {
            Ok(folder) => {
                run_as_child(&folder, Beside::CublasAndCudnn, &["a_device_with_a_fault"], &[("HOST_DRIVER_FAULT", "5")]);
            }
            Err(reason) => eprintln!("skipped: {reason}"),
        }
        return;
    }
    let device = Device::parse("cuda:0").expect("the host driver");
    let shape = CONVOLUTION;
    let (x, packed) = (Memory::<f32>::zeros(&device, shape.in_len()), Memory::<f32>::zeros(&device, shape.weight_len()));
    let mut y = Memory::<f32>::zeros(&device, shape.out_len());
    let mut forward = || conv2d::forward(&shape, x.view(), packed.view(), None, y.view_mut(), (&mut Vec::new()).into());
    assert!(forward().is_ok(), "the first launches are good");
    assert!((0..20).any(|_| forward().is_err()), "then there is a fault");
    assert!(y.to_host().is_err());
}
