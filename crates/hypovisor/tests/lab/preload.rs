//! The KVM adapter's library in processes that are not QEMU: a wrapper around it, or whatever else a user has there.

use std::process::Command;

use crate::support::{library, text};

/// `stty` lives on ioctls that fail and that succeed; the shell shows its environment.
const SCRIPT: &str = "stty -a 2>&1; echo status $?; stty size </dev/null 2>&1; echo status $?; env | sort";

#[test]
fn a_process_that_makes_no_virtual_machine_is_left_alone() {
    let library = library("libhypovisor_kvm.so");
    let options = "vcpus=1,socket=/nonexistent/control";
    let plain = Command::new("sh").args(["-c", SCRIPT]).env("HYPOVISOR_KVM", options).output().unwrap();
    let mut preloaded = Command::new("sh");
    preloaded.args(["-c", SCRIPT]).env("HYPOVISOR_KVM", options).env("LD_PRELOAD", &library);
    let preloaded = preloaded.output().unwrap();
    assert!(preloaded.status.success());
    let preload = format!("LD_PRELOAD={}\n", library.display());
    assert!(text(&preloaded.stdout).contains(&preload), "a wrapper passes it on to QEMU");
    assert_eq!(text(&preloaded.stdout).replace(&preload, ""), text(&plain.stdout));
    assert_eq!(text(&preloaded.stderr), text(&plain.stderr));
}
