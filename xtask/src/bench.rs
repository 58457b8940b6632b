//! `cargo xtask bench`: what watching costs, side by side in one run.
//!
//! Machines are noisy, so ways are measured in turn, several rounds each, and medians are compared. The method stands
//! in `docs/performance.md`.

mod cpu_time;
mod gdb;
mod kvm;
mod lab;
mod rules;
mod stealth;
mod trace;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::build::{self, Profile};
use crate::l0::L0;
use lab::{Bench, NullTicks, Way};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measurement {
    /// A hypercall that does next to nothing, by a PV guest in a loop
    Null,
    /// The same with 500 rules loaded, and with the call denied
    Rules,
    /// From QEMU's start to a shell in dom0 with the toolstack up
    Boot,
    /// Real calls through the engine, decoded and recorded, on one core
    Engine,
    /// What L1 can tell of being watched, with a thousand trials of each test
    Stealth,
}

/// Rounds of each way.
const NULL_ROUNDS: usize = 3;
const BOOT_ROUNDS: usize = 3;
/// Calls through the engine.
const ENGINE_CALLS: u64 = 10_000_000;

/// Measures on machines that QEMU translates.
pub(crate) fn tcg(only: &[Measurement]) -> anyhow::Result<()> {
    let dir = build::target().join("bench");
    let bench = Bench::new(&prepare(&dir)?, &dir, L0::Tcg)?;
    let results = dir.join("results.json");
    let wanted = |what| only.is_empty() || only.contains(&what);
    let mut all = read_results(&results);
    if wanted(Measurement::Null) {
        all["null_hypercall"] = null_hypercall(&bench)?;
    }
    if wanted(Measurement::Rules) {
        all["rules"] = with_rules(&bench)?;
    }
    if wanted(Measurement::Boot) {
        all["boot"] = boot(&bench)?;
    }
    if wanted(Measurement::Engine) {
        all["engine"] = engine(&bench)?;
    }
    if wanted(Measurement::Stealth) {
        all["stealth"] = stealth::measure(&bench)?;
    }
    report(&results, &all)
}

/// Measures under KVM: to be run in the emulated KVM host, where everything is built and fetched already.
/// What is not measured now is kept.
pub(crate) fn inside_kvm_host(only: &[Measurement]) -> anyhow::Result<()> {
    let dir = build::target().join("bench");
    let bench = Bench::new(&build::program(Profile::Release), &dir, L0::Kvm)?;
    let results = dir.join("results-kvm.json");
    let mut all = read_results(&results);
    if only.contains(&Measurement::Stealth) {
        all["stealth"] = stealth::measure(&bench)?;
    } else {
        let stealth = all["stealth"].take();
        all = kvm::measure(&bench)?;
        all["stealth"] = stealth;
    }
    report(&results, &all)
}

fn report(path: &Path, all: &Value) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(all)? + "\n";
    std::fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    write!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// Builds what is measured, and fetches what it is measured with; gives the program.
pub(crate) fn prepare(dir: &Path) -> anyhow::Result<PathBuf> {
    let hypovisor = build::hypovisor(Profile::Release)?;
    build::run(Command::new(&hypovisor).args(["lab", "fetch"]))?;
    std::fs::create_dir_all(dir)?;
    Ok(hypovisor)
}

/// Earlier results are kept for what is not measured now.
fn read_results(path: &Path) -> Value {
    let read = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    read.unwrap_or_else(|| json!({}))
}

/// Ticks of a null hypercall in three ways, measured in turn: the medians of all rounds' medians and of their leasts.
fn in_turn(bench: &Bench, ways: [Way; 3]) -> anyhow::Result<([u64; 3], [u64; 3])> {
    let mut measured: [Vec<NullTicks>; 3] = Default::default();
    for _ in 0..NULL_ROUNDS {
        for (way, measured) in ways.into_iter().zip(&mut measured) {
            measured.push(bench.null_ticks(way)?);
        }
    }
    let medians =
        measured.each_ref().map(|all| median(&mut all.iter().map(|ticks| ticks.median).collect::<Vec<_>>()));
    let least =
        measured.each_ref().map(|all| median(&mut all.iter().map(|ticks| ticks.least).collect::<Vec<_>>()));
    Ok((medians, least))
}

fn ratio(ticks: u64, to: u64) -> f64 {
    ticks as f64 / to as f64
}

fn with_rules(bench: &Bench) -> anyhow::Result<Value> {
    let (medians, least) = in_turn(bench, Way::RULES)?;
    let figures = |ticks: [u64; 3]| {
        json!({
            "none_ticks": ticks[0],
            "rules_500_ticks": ticks[1],
            "denied_ticks": ticks[2],
            "rules_500_ratio": ratio(ticks[1], ticks[0]),
            "denied_ratio": ratio(ticks[2], ticks[1]),
        })
    };
    let mut all = figures(medians);
    all["least"] = figures(least);
    Ok(all)
}

fn null_hypercall(bench: &Bench) -> anyhow::Result<Value> {
    let (medians, least) = in_turn(bench, Way::ALL)?;
    Ok(json!({
        "unmonitored_ticks": medians[0],
        "empty_hook_ticks": medians[1],
        "hypovisor_ticks": medians[2],
        "gdb_ticks": bench.gdb_ticks()?,
        "empty_hook_ratio": ratio(medians[1], medians[0]),
        "hypovisor_ratio": ratio(medians[2], medians[0]),
        "least": {
            "unmonitored_ticks": least[0],
            "empty_hook_ticks": least[1],
            "hypovisor_ticks": least[2],
            "empty_hook_ratio": ratio(least[1], least[0]),
            "hypovisor_ratio": ratio(least[2], least[0]),
        },
    }))
}

fn boot(bench: &Bench) -> anyhow::Result<Value> {
    let (mut unmonitored, mut hypovisor) = (Vec::new(), Vec::new());
    for _ in 0..BOOT_ROUNDS {
        unmonitored.push(bench.boot_ms(Way::Unmonitored)?);
        hypovisor.push(bench.boot_ms(Way::Hypovisor)?);
    }
    let (unmonitored, hypovisor) = (median(&mut unmonitored), median(&mut hypovisor));
    Ok(json!({
        "unmonitored_s": unmonitored as f64 / 1e3,
        "hypovisor_s": hypovisor as f64 / 1e3,
        "ratio": hypovisor as f64 / unmonitored as f64,
    }))
}

/// Replays the recording of a boot.
fn engine(bench: &Bench) -> anyhow::Result<Value> {
    let recording = bench.boot_recording()?;
    let mut build = build::cargo();
    build.args([
        "build",
        "--locked",
        "--release",
        "--package",
        "hypovisor-engine",
        "--example",
        "engine_speed",
    ]);
    build::run(&mut build)?;
    let program = build::target().join("release/examples/engine_speed");
    let output = Command::new(&program).arg(&recording).arg(ENGINE_CALLS.to_string()).output()?;
    serde_json::from_slice(&output.stdout).context("engine_speed did not print JSON")
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
