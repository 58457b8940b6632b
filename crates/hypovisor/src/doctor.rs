//! `hypovisor doctor`: what this machine can do, and what to do about what is missing.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use hypovisor_engine::command::{Accelerator, CommandError, QemuCommand, QemuVersion, find_library};
use hypovisor_lab::{KvmProbe, probe_kvm};
use serde_json::json;

use crate::FINDINGS;
use crate::cli::DoctorArgs;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Something does not work that is not needed for everything.
    Missing,
}

/// One thing that was looked at.
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Good, found: found.into(), advice: None }
    }

    fn missing(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Missing, found: found.into(), advice: Some(advice.into()) }
    }

    fn is_good(&self) -> bool {
        self.verdict == Verdict::Good
    }
}

pub(crate) fn doctor(args: &DoctorArgs) -> anyhow::Result<u8> {
    let qemu = QemuCommand { program: args.qemu.clone(), ..QemuCommand::default() };
    let version = qemu.version();
    let tcg = [qemu_check(args, &version), tcg_check(&version)];
    let mut kvm = vec![kvm_device()];
    if kvm[0].is_good() {
        kvm.extend(kvm_guest(args, &version));
    }
    kvm.push(kvm_library());
    let tcg_works = tcg.iter().all(Check::is_good);
    let kvm_works = tcg[0].is_good() && kvm.iter().all(Check::is_good);
    let at_once = [page_protection(), trace_events()];
    let at_once_works = kvm_works && at_once.iter().all(Check::is_good);
    let checks: Vec<Check> = tcg.into_iter().chain([kernel()]).chain(kvm).chain(at_once).collect();
    if args.json {
        let list: Vec<_> = checks.iter().map(check_json).collect();
        let summary = json!({
            "version": 1,
            "tcg": tcg_works,
            "kvm": kvm_works,
            "kvm_integrity_at_once": at_once_works,
            "checks": list,
        });
        writeln!(std::io::stdout(), "{summary:#}")?;
    } else {
        print(&checks, tcg_works, kvm_works)?;
    }
    Ok(if kvm_works { 0 } else { FINDINGS })
}

fn qemu_check(args: &DoctorArgs, version: &Result<QemuVersion, CommandError>) -> Check {
    match version {
        Ok(QemuVersion { major, minor }) => {
            Check::good("QEMU", format!("{} is {major}.{minor}", args.qemu.display()))
        }
        Err(error) => Check::missing("QEMU", error.to_string(), "install QEMU, or name one with --qemu"),
    }
}

fn tcg_check(version: &Result<QemuVersion, CommandError>) -> Check {
    let name = "TCG plugin";
    let Ok(version) = version else { return Check::missing(name, "not looked for", "see QEMU") };
    match find_library(Accelerator::Tcg, *version) {
        Ok(path) => Check::good(name, path.display().to_string()),
        Err(error @ CommandError::TooOld { .. }) => {
            Check::missing(name, error.to_string(), "use QEMU 10.0 or later (Debian 13 has it), or KVM")
        }
        Err(error) => Check::missing(name, error.to_string(), "build it: cargo build --release --workspace"),
    }
}

fn kvm_library() -> Check {
    match find_library(Accelerator::Kvm, QemuVersion { major: 0, minor: 0 }) {
        Ok(path) => Check::good("KVM library", path.display().to_string()),
        Err(error) => {
            Check::missing("KVM library", error.to_string(), "build it: cargo build --release --workspace")
        }
    }
}

fn kernel() -> Check {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(|sign: char| !sign.is_ascii_digit()).map(|number| number.parse::<u32>());
    let version = (numbers.next().and_then(Result::ok), numbers.next().and_then(Result::ok));
    let (Some(major), Some(minor)) = version else {
        return Check::missing("Linux", format!("release {release:?}"), "Linux 4.17 or later is needed");
    };
    if (major, minor) < (4, 17) {
        return Check::missing("Linux", release, "KVM shares registers from Linux 4.17 on");
    }
    let note = if (major, minor) < (6, 11) { "; from 6.11 on KVM also tells L1 from its guests" } else { "" };
    Check::good("Linux", format!("{release}{note}"))
}

fn kvm_device() -> Check {
    let name = "KVM device";
    let device = Path::new("/dev/kvm");
    if !device.exists() {
        let advice =
            "load kvm_amd or kvm_intel; in a virtual machine, have nested virtualization switched on for it";
        return Check::missing(name, "there is no /dev/kvm", advice);
    }
    match std::fs::File::options().read(true).write(true).open(device) {
        Ok(_) => Check::good(name, "/dev/kvm can be opened"),
        Err(error) => Check::missing(
            name,
            format!("/dev/kvm: {error}"),
            "add your user to the group kvm, and log in again",
        ),
    }
}

/// With `--integrity` under KVM, QEMU has the kernel tell of writes to the hypervisor's code.
fn page_protection() -> Check {
    let name = "page faults";
    let needs = "for --integrity under KVM to tell of writes to the hypervisor's code as they are done";
    let is_open = || File::options().read(true).write(true).open("/dev/userfaultfd").is_ok();
    let unprivileged = || read_word("/proc/sys/vm/unprivileged_userfaultfd");
    if is_root() || is_open() || unprivileged() == Some(1) {
        return Check::good(name, format!("userfaultfd may be used, {needs}"));
    }
    Check::missing(
        name,
        format!("userfaultfd may not be used here, {needs}"),
        "sysctl vm.unprivileged_userfaultfd=1, access to /dev/userfaultfd (Linux 6.1), or QEMU as root; without, code is looked at ten times \
         a second",
    )
}

/// With `--integrity` under KVM, the kernel counts hypercalls and picks out VMRUNs by its trace events.
fn trace_events() -> Check {
    const EVENTS: [&str; 2] = ["/sys/kernel/tracing/events/kvm", "/sys/kernel/debug/tracing/events/kvm"];
    let name = "trace events";
    let is_readable = EVENTS.iter().any(|dir| read_word(&format!("{dir}/kvm_nested_vmexit/id")).is_some());
    // Who may trace without a capability (Linux Documentation/admin-guide/sysctl/kernel.rst, perf_event_paranoid).
    let may_trace =
        is_root() || read_word("/proc/sys/kernel/perf_event_paranoid").is_some_and(|level| level < 0);
    match (is_readable, may_trace) {
        (true, true) => Check::good(
            name,
            "KVM's may be used, for --integrity under KVM to count hypercalls and see VMRUNs",
        ),
        (false, _) => Check::missing(
            name,
            "KVM's cannot be read, by which --integrity under KVM counts hypercalls and sees VMRUNs",
            "load the module kvm, mount tracefs at /sys/kernel/tracing, and let QEMU's user read it",
        ),
        (true, false) => Check::missing(
            name,
            "KVM's may not be used, by which --integrity under KVM counts hypercalls and sees VMRUNs",
            "give QEMU CAP_PERFMON, or run it as root",
        ),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The number that a file of the kernel's holds.
fn read_word(path: &str) -> Option<i64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// That the device can be opened says little: a guest has to run.
fn kvm_guest(args: &DoctorArgs, version: &Result<QemuVersion, CommandError>) -> Vec<Check> {
    let (runs, nests) = ("KVM guest", "nested KVM");
    if version.is_err() {
        return vec![Check::missing(runs, "not tried", "see QEMU")];
    }
    match probe_kvm(std::process::Command::new(&args.qemu)) {
        Ok(KvmProbe::Runs { nested: true }) => vec![
            Check::good(runs, "a guest ran"),
            Check::good(nests, "a guest's processor can run guests in turn"),
        ],
        Ok(KvmProbe::Runs { nested: false }) => vec![
            Check::good(runs, "a guest ran"),
            Check::missing(
                nests,
                "a guest's processor cannot run guests: Xen runs its PV guests only",
                "modprobe -r kvm_amd && modprobe kvm_amd nested=1 (or kvm_intel), with all guests off",
            ),
        ],
        Ok(KvmProbe::Fails(why)) => vec![Check::missing(
            runs,
            why,
            "this processor, or the virtual machine that this is, does not let KVM run an ordinary guest; \
             `hypovisor lab kvm-host` emulates one that does",
        )],
        Err(error) => vec![Check::missing(runs, error.to_string(), "see QEMU")],
    }
}

fn check_json(check: &Check) -> serde_json::Value {
    json!({ "name": check.name, "good": check.is_good(), "found": check.found, "advice": check.advice })
}

fn print(checks: &[Check], tcg_works: bool, kvm_works: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let colour =
        out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value: OsString| value.is_empty());
    for check in checks {
        let (mark, code) = if check.is_good() { ("ok", 32) } else { ("no", 31) };
        let mark = if colour { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_owned() };
        writeln!(out, "{mark}  {:12} {}", check.name, check.found)?;
        if let Some(advice) = &check.advice {
            writeln!(out, "    {:12} -> {advice}", "")?;
        }
    }
    let can = |works| if works { "can be watched" } else { "cannot be watched here" };
    writeln!(out, "\nA hypervisor under TCG {}, under KVM {}.", can(tcg_works), can(kvm_works))
}
