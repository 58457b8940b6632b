//! `run --in-place`: the process that a manager such as libvirt starts is QEMU in the end.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hypovisor_engine::recording::{Recording, State};

use crate::support::{Driven, error_line, hypovisor, one_machine, run, text};

/// Says who it is and what it was given, as far as it is asked.
const FAKE_QEMU: &str = "#!/bin/sh
[ \"$1\" = -version ] || case \" $* \" in *' -version '*) set -- -version;; esac
[ \"$1\" = -version ] && echo 'QEMU emulator version 10.0.2' && exit
echo \"process $$: $* preload=$LD_PRELOAD\"
";

fn fake_qemu(dir: &Path) -> PathBuf {
    let path = dir.join("qemu-system-x86_64");
    std::fs::write(&path, FAKE_QEMU).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn in_place(options: &[&str], qemu: &Path, args: &[&str]) -> Command {
    let mut command = hypovisor();
    command.args(["run", "--in-place"]).args(options).arg("--").arg(qemu).args(args);
    command
}

/// Its process id, and what it said.
fn output(command: &mut Command) -> (u32, String) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let id = child.id();
    (id, text(&child.wait_with_output().unwrap().stdout))
}

#[test]
fn who_asks_qemu_about_itself_is_answered_by_qemu_alone() {
    let dir = tempfile::tempdir().unwrap();
    let qemu = fake_qemu(dir.path());
    let args = ["-S", "-machine", "none,accel=kvm:tcg", "-nographic"];
    let (id, said) = output(&mut in_place(&["--require"], &qemu, &args));
    assert_eq!(said, format!("process {id}: {} preload=\n", args.join(" ")));
}

#[test]
fn without_kvm_the_machine_runs_unwatched_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let qemu = fake_qemu(dir.path());
    let args = ["-machine", "q35,accel=tcg"];
    let (id, said) = output(&mut in_place(&[], &qemu, &args));
    assert_eq!(said, format!("process {id}: {} preload=\n", args.join(" ")));
    let refused = run(&mut in_place(&["--require"], &qemu, &args), 2);
    assert!(error_line(&refused).contains("--in-place is for KVM"));
}

#[test]
fn under_kvm_the_library_is_preloaded_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let qemu = fake_qemu(dir.path());
    let mut command = in_place(&[], &qemu, &["-S", "-accel", "kvm"]);
    let child = command.env("XDG_RUNTIME_DIR", dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let said = text(&child.wait_with_output().unwrap().stdout);
    assert!(said.starts_with(&format!("process {id}: -S -accel kvm -qmp unix:")), "{said}");
    assert!(said.trim_end().ends_with("libhypovisor_kvm.so"), "{said}");
    // The engine sees that QEMU has ended, and goes.
    let start = std::time::Instant::now();
    let left =
        || std::fs::read_dir(dir.path()).unwrap().filter(|entry| is_runtime(entry.as_ref().unwrap())).count();
    while left() > 0 {
        assert!(start.elapsed().as_secs() < 20, "the engine does not go");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn is_runtime(entry: &std::fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with("hypovisor-")
}

/// Ends by itself, with some calls before.
const SCRIPT: &str = "/lab/files/hcall --loop 100 29 0x48590007
echo first marks
sleep 5
";

#[test]
#[ignore = "needs KVM: `cargo xtask test --l0 kvm` runs it"]
fn the_process_that_was_started_is_qemu_and_is_watched() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let machine = Driven::new(dir.path(), SCRIPT);
    let recording = dir.path().join("recording");
    std::thread::scope(|scope| {
        let mut qemu: Child = machine.start_in_place(&recording);
        let driver = scope.spawn(|| machine.drive());
        machine.wait_for("first marks");
        let manifest = Recording::open(&recording).unwrap().manifest().clone();
        assert_eq!(manifest.qemu_pid, qemu.id());
        assert_ne!(manifest.engine_pid, qemu.id());
        driver.join().unwrap().unwrap();
        assert!(qemu.wait().unwrap().success());
    });
    let start = std::time::Instant::now();
    while Recording::open(&recording).unwrap().manifest().state != State::Complete {
        assert!(start.elapsed().as_secs() < 60, "the engine does not come to its end");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(Recording::open(&recording).unwrap().manifest().lost_calls(), 0);
    assert_eq!(crate::resets::marks(&recording, 7), 100);
}
