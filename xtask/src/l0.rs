//! What lab machines run on, and the chores that take place in the emulated KVM host.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
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

/// How often the emulated machine may stand still before the tests in it count as failed (docs/support.md).
pub(crate) const TRIES: u32 = 2;
/// How long the tests of one machine may take, in seconds: some three times what the longest took.
const TESTS_SECONDS: &str = "1800";
/// The same for the one test that stands for all.
const SHORTEST_SECONDS: &str = "600";
/// How long everything else in one machine may take.
const CHORE_SECONDS: &str = "7200";
/// What the program ends with if the machine came to no end, or could not be run. (Tests that fail end with 101.)
const NO_END: i32 = 2;

/// Lab tests under KVM. Each kind has a machine of its own, so that one that stands still takes no others with it.
pub(crate) fn test(filter: Option<&str>) -> anyhow::Result<()> {
    let hypovisor = build::hypovisor(Profile::Dev)?;
    // Once: what is tested is one state of the sources, whatever becomes of them in that hour.
    let program = lab_tests()?;
    let kinds: Vec<&str> = filter.map_or_else(|| TESTS.to_vec(), |filter| vec![filter]);
    let mut failed = Vec::new();
    for kind in &kinds {
        if !passes(&hypovisor, &program, kind)? {
            failed.push(*kind);
        }
    }
    writeln!(std::io::stdout(), "\n{} kinds passed, {} failed", kinds.len() - failed.len(), failed.len())?;
    if !failed.is_empty() {
        bail!("failed under KVM: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs the tests whose names begin so; once more if the machine stood still.
fn passes(hypovisor: &Path, program: &Path, kind: &str) -> anyhow::Result<bool> {
    for tries in 1..=TRIES {
        let mut tests = lab_tests_under_kvm(hypovisor, program, TESTS_SECONDS);
        let status = tests.args(["--include-ignored", kind]).status().context("cannot run the tests")?;
        if status.code() != Some(NO_END) {
            return Ok(status.success());
        }
        tell_no_end(kind, tries)?;
    }
    Ok(false)
}

/// Says so: a second try is not to pass for a first one.
pub(crate) fn tell_no_end(kind: &str, tries: u32) -> std::io::Result<()> {
    let then = if tries < TRIES { "; trying once more" } else { "" };
    writeln!(
        std::io::stderr(),
        "xtask: {kind}: the emulated machine came to no end, or could not be run (docs/support.md says what is known){then}"
    )
}

/// The command that boots once under KVM and records, with the one lab test of those that need KVM which stands for all: they
/// take too long for every change.
pub(crate) fn shortest(hypovisor: &Path) -> anyhow::Result<Command> {
    let mut tests = lab_tests_under_kvm(hypovisor, &lab_tests()?, SHORTEST_SECONDS);
    tests.args(["--ignored", "in_place::"]);
    Ok(tests)
}

/// The command that runs those lab tests of this program under KVM that further arguments choose. They wait at
/// times, which then takes none.
fn lab_tests_under_kvm(hypovisor: &Path, program: &Path, seconds: &str) -> Command {
    let mut inside = kvm_host(hypovisor, seconds, &["--skip-idle-time".as_ref()]);
    inside.args(["env", "HYPOVISOR_TEST_L0=kvm"]).arg(program).args(["--test-threads", "1"]);
    inside
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
    let options = ["--skip-idle-time".as_ref(), "--writable".as_ref(), dir.as_os_str()];
    let mut inside = kvm_host(hypovisor, CHORE_SECONDS, &options);
    inside.arg("env").arg(format!("CARGO_TARGET_DIR={}", build::target().display()));
    build::run(inside.arg(own).args(chore))
}

/// The command that runs what is appended in the emulated KVM host.
fn kvm_host(hypovisor: &Path, seconds: &str, options: &[&OsStr]) -> Command {
    let mut command = Command::new(hypovisor);
    command.args(["lab", "kvm-host", "--timeout", seconds]).args(options).arg("--");
    command
}
