//! Wrong input gets one clear line and exit code 2, and leaves nothing behind.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{error_line, hypovisor, one_machine, processes_with, run};
use hypovisor_lab::{Lab, Machine, Prepared, QemuVersion, Session, Silent, Work, XenVersion};

fn prepared(xen: XenVersion) -> Prepared {
    Lab::open().unwrap().prepare(xen, QemuVersion::V10_0, &mut Silent).unwrap()
}

/// QEMU itself with its loader and libraries, without a machine.
fn bare_qemu(command: &hypovisor_lab::QemuCommand) -> Vec<std::ffi::OsString> {
    let until_machine = command.args.iter().take_while(|arg| *arg != "-no-user-config");
    std::iter::once(command.program.clone().into()).chain(until_machine.cloned()).collect()
}

#[test]
fn a_missing_qemu_is_named() {
    let output = run(hypovisor().args(["run", "--", "/nonexistent/qemu-system-x86_64"]), 2);
    assert!(error_line(&output).contains("/nonexistent/qemu-system-x86_64"));
}

#[test]
fn no_command_says_how_to_give_one() {
    let output = run(hypovisor().arg("run"), 2);
    assert!(error_line(&output).contains("hypovisor run -- qemu-system-x86_64"));
}

#[test]
fn a_qemu_with_too_old_a_plugin_interface_is_refused() {
    // Debian 12's QEMU, as far as it gets here: what it answers when it is asked for its version.
    let dir = tempfile::tempdir().unwrap();
    let qemu = dir.path().join("qemu-system-x86_64");
    std::fs::write(&qemu, "#!/bin/sh\necho 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)'\n")
        .unwrap();
    std::fs::set_permissions(&qemu, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(hypovisor().arg("run").arg("--").arg(&qemu), 2);
    assert!(error_line(&output).contains("7.2 is too old"));
}

#[test]
fn a_program_that_is_not_qemu_is_refused() {
    let output = run(hypovisor().args(["run", "--", "/bin/true"]), 2);
    assert!(error_line(&output).contains("does not tell a QEMU version"));
}

#[test]
fn an_unreadable_recording_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["trace", "stats", "report", "attach"] {
        let output = run(hypovisor().arg(command).arg(dir.path()), 2);
        assert!(error_line(&output).contains("is not a recording"), "{command}");
        let output = run(hypovisor().arg(command).arg(dir.path().join("none")), 2);
        assert!(error_line(&output).contains("none"), "{command}");
    }
}

#[test]
fn a_recording_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("recording.json"), "{}").unwrap();
    let output = run(hypovisor().arg("run").arg("--record").arg(dir.path()).args(["--", "/bin/true"]), 2);
    assert!(error_line(&output).contains("already holds a recording"));
}

#[test]
fn a_bad_option_and_a_bad_file_are_told() {
    let output = run(hypovisor().args(["trace", "--colour"]), 2);
    assert!(crate::support::text(&output.stderr).contains("--colour"));
    let output = run(hypovisor().args(["run", "--symbols", "/nonexistent", "--", "/bin/true"]), 2);
    assert!(error_line(&output).contains("/nonexistent"));
    let output = run(hypovisor().args(["lab", "run", "--script", "/nonexistent"]), 2);
    assert!(error_line(&output).contains("/nonexistent"));
    let output = run(hypovisor().args(["lab", "run", "--files", "/nonexistent"]), 2);
    assert!(error_line(&output).contains("/nonexistent"));
}

#[test]
fn qemus_own_complaint_is_passed_on() {
    let prepared = prepared(XenVersion::V4_20);
    let session = Session::new(&prepared, &Machine::default(), &Work::default()).unwrap();
    let mut command = hypovisor();
    command.arg("run").arg("--").args(bare_qemu(session.command())).args(["-device", "no-such-device"]);
    let output = run(&mut command, 2);
    assert!(error_line(&output).contains("QEMU ended at its start"));
    assert!(crate::support::text(&output.stderr).contains("no-such-device"));
}

#[test]
fn a_guest_that_is_not_xen_is_refused_and_nothing_is_left_running() {
    let _machine = one_machine();
    let prepared = prepared(XenVersion::V4_20);
    let session = Session::new(&prepared, &Machine::default(), &Work::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("recording");
    let mut command = hypovisor();
    command.arg("run").arg("--record").arg(&recording).arg("--").args(bare_qemu(session.command()));
    command.args(["-nodefaults", "-display", "none", "-accel", "tcg", "-m", "512", "-no-reboot"]);
    command.arg("-kernel").arg(prepared.dom0_kernel()).args(["-append", "panic=-1", "-name", "not-xen-test"]);
    let output = run(&mut command, 2);
    let line = error_line(&output);
    assert!(line.contains("not a Xen hypervisor"), "{line}");
    assert_eq!(processes_with("not-xen-test"), Vec::<String>::new());
    assert_nothing_half_written(&recording);
}

#[test]
fn symbols_of_another_build_are_refused() {
    let _machine = one_machine();
    let other = prepared(XenVersion::V4_17).xen_symbols();
    let mut command = hypovisor();
    command.args(["lab", "run", "--timeout", "120", "--symbols"]).arg(&other);
    let line = error_line(&run(&mut command, 2));
    assert!(line.contains("of another build") && line.contains(&other.display().to_string()), "{line}");
}

#[test]
fn a_full_disk_ends_the_recording_and_the_machine() {
    let _machine = one_machine();
    let script = "mount -t tmpfs -o size=200k none \"$1\" && shift && exec \"$@\"";
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("recording");
    let program = hypovisor();
    let mut command = std::process::Command::new("unshare");
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(dir.path());
    command.arg(program.get_program()).args(["lab", "run", "--timeout", "120", "--record"]).arg(&recording);
    let line = error_line(&run(&mut command, 2));
    assert!(line.contains("cannot write") && line.contains("No space left"), "{line}");
    assert_eq!(processes_with(&recording.display().to_string()), Vec::<String>::new());
}

/// Every visible file of a recording is whole: segments are renamed into place when they are.
fn assert_nothing_half_written(recording: &Path) {
    let entries = std::fs::read_dir(recording).map(|entries| entries.flatten().collect::<Vec<_>>());
    for entry in entries.unwrap_or_default() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(!name.ends_with(".tmp"), "{name} was left behind");
    }
}
