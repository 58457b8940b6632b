//! What lab machines run on, and the chores that take place in the emulated KVM host.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::bench::Measurement;
use crate::build::{self, Profile};

/// What lab machines run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum L0 {
    /// QEMU's translator
    Tcg,
    /// Linux KVM, in a Linux that QEMU emulates
    Kvm,
}

impl L0 {
    /// As `hypovisor lab run --l0` takes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// The lab tests that are run under KVM, by the beginnings of their names: what depends on the adapter. The others are
/// about the engine, or boot a Linux that QEMU's emulation of SVM does not carry through.
const TESTS: [&str; 12] = [
    "completeness::xen_4_20_under_qemu_10_0",
    "blocking::",
    "injection::a_guest_is_as_before",
    "engine_killed::",
    "debugger::a_debugger_is_refused",
    "hotplug::",
    "in_place::",
    "resets::",
    "integrity::",
    "arsenal::",
    "bypass::",
    "stealth::",
];

/// Lab tests under KVM.
pub(crate) fn test(filter: Option<&str>) -> anyhow::Result<()> {
    let hypovisor = build::hypovisor(Profile::Dev)?;
    let names: Vec<&str> = filter.map_or_else(|| TESTS.to_vec(), |filter| vec![filter]);
    build::run(lab_tests_under_kvm(&hypovisor)?.arg("--include-ignored").args(names))
}

/// The command that boots once under KVM and records, with the one lab test of those that need KVM which stands for all: they
/// take too long for every change.
pub(crate) fn shortest(hypovisor: &Path) -> anyhow::Result<Command> {
    let mut tests = lab_tests_under_kvm(hypovisor)?;
    tests.args(["--ignored", "in_place::"]);
    Ok(tests)
}

/// The command that runs those lab tests under KVM that further arguments choose. They wait at
/// times, which then takes none.
fn lab_tests_under_kvm(hypovisor: &Path) -> anyhow::Result<Command> {
    let mut inside = kvm_host(hypovisor, &["--skip-idle-time".as_ref()]);
    inside.args(["env", "HYPOVISOR_TEST_L0=kvm"]).arg(lab_tests()?).args(["--test-threads", "1"]);
    Ok(inside)
}

/// Builds the lab tests; gives their program.
fn lab_tests() -> anyhow::Result<PathBuf> {
    let mut build = build::cargo();
    build.args(["test", "--locked", "--package", "hypovisor", "--test", "lab", "--no-run"]);
    let output = build.args(["--message-format", "json"]).output().context("cannot run cargo")?;
    std::io::stderr().write_all(&output.stderr)?;
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "lab").then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    programs.fold(None, |_, program| Some(program)).context("cargo built no lab tests")
}

/// The benchmark; `stealth` by itself.
pub(crate) fn bench(only: &[Measurement]) -> anyhow::Result<()> {
    let measurement: &[&str] = match only {
        [] => &[],
        [Measurement::Stealth] => &["stealth"],
        _ => anyhow::bail!("under KVM everything is measured in one go: name no measurement but stealth"),
    };
    let dir = build::target().join("bench");
    let hypovisor = crate::bench::prepare(&dir)?;
    xtask_under_kvm(&hypovisor, &dir, &[&["bench", "--inside"], measurement].concat())
}

/// Runs one of these chores in the emulated KVM host, where it can write to this directory.
pub(crate) fn xtask_under_kvm(hypovisor: &Path, dir: &Path, chore: &[&str]) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let mut inside =
        kvm_host(hypovisor, &["--skip-idle-time".as_ref(), "--writable".as_ref(), dir.as_os_str()]);
    inside.arg("env").arg(format!("CARGO_TARGET_DIR={}", build::target().display()));
    build::run(inside.arg(own).args(chore))
}

/// The command that runs what is appended in the emulated KVM host.
fn kvm_host(hypovisor: &Path, options: &[&OsStr]) -> Command {
    let mut command = Command::new(hypovisor);
    command.args(["lab", "kvm-host", "--timeout", "7200"]).args(options).arg("--");
    command
}
