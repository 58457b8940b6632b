//! `cargo xtask test`: everything that has to hold, with a single summary at the end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::build::{self, Profile};
use crate::l0;

/// What the lab tests boot: both versions of Xen and of QEMU.
const LABS: [[&str; 2]; 3] = [["4.20", "10.0"], ["4.20", "11.1"], ["4.17", "10.0"]];

pub(crate) fn test(filter: Option<&str>) -> anyhow::Result<()> {
    let hypovisor = build::hypovisor(Profile::Dev)?;
    for [xen, qemu] in LABS {
        build::run(Command::new(&hypovisor).args(["lab", "fetch", "--xen", xen, "--qemu", qemu]))?;
    }
    let mut totals = Totals { success: true, ..Totals::default() };
    let mut all = build::cargo();
    all.args(["test", "--locked", "--workspace", "--no-fail-fast"]).args(filter);
    run_tests(&mut all, &mut totals)?;
    let mut loom = build::cargo();
    loom.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", build::target().join("loom"));
    loom.args(["test", "--locked", "--package", "hypovisor-event", "--lib"]).args(filter);
    run_tests(&mut loom, &mut totals)?;
    if filter.is_none() {
        totals.make_up_for_ignored(&shortest_under_kvm(&hypovisor)?);
    }
    writeln!(
        std::io::stdout(),
        "\n{} passed, {} failed, {} skipped",
        totals.passed,
        totals.failed,
        totals.ignored
    )?;
    if totals.failed > 0 || !totals.success {
        bail!("tests failed");
    }
    Ok(())
}

/// The test under KVM that stands for all; once more if the machine stood still, which then has no summary.
fn shortest_under_kvm(hypovisor: &Path) -> anyhow::Result<Totals> {
    let mut totals = Totals::default();
    for tries in 1..=l0::TRIES {
        totals = Totals { success: true, ..Totals::default() };
        run_tests(&mut l0::shortest(hypovisor)?, &mut totals)?;
        if totals.passed + totals.failed > 0 {
            break;
        }
        l0::tell_no_end("in_place", tries)?;
    }
    Ok(totals)
}

/// Sums over all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
    success: bool,
}

/// Runs a `cargo test`, passes on what it prints, and adds its summaries up.
fn run_tests(tests: &mut Command, totals: &mut Totals) -> anyhow::Result<()> {
    let mut child = tests.stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what cargo test prints")?;
            writeln!(std::io::stdout(), "{line}")?;
            totals.add(&line);
        }
    }
    totals.success &= child.wait().context("cannot wait for cargo test")?.success();
    Ok(())
}

impl Totals {
    /// Adds a run of what was ignored before.
    const fn make_up_for_ignored(&mut self, run: &Self) {
        self.passed += run.passed;
        self.failed += run.failed;
        self.ignored = self.ignored.saturating_sub(run.passed + run.failed);
        self.success &= run.success;
    }

    /// Counts a line like `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; …`.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_all_test_programs_add_up() {
        let mut totals = Totals::default();
        totals.add(
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.25s",
        );
        totals.add("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out");
        totals.add("test tests::passed ... ok");
        assert_eq!(totals, Totals { passed: 7, failed: 3, ignored: 1, success: false });
        totals.make_up_for_ignored(&Totals { passed: 1, success: true, ..Totals::default() });
        assert_eq!(totals, Totals { passed: 8, failed: 3, ignored: 0, success: false });
    }
}
