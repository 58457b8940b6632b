//! `cargo xtask soak`: domains of all kinds at work for a long time, watched with rules and with `--integrity`. Nothing may be told.
//!
//! Leaves `alerts.json` and `results.json` in `target/soak/`: what ran, what was told, and how much processor time the thread that looks
//! at L1 took.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::build::{self, Profile};
use crate::l0::{self, L0};

/// What dom0 does.
const SCRIPT: &str =
    concat!(include_str!("../../crates/hypovisor/src/eval/workloads.sh"), include_str!("soak.sh"));
/// For booting, and for the workload that is under way when the time is over.
const SPARE_SECONDS: u64 = 900;
/// Time in the emulated KVM host passes slower than outside: its machine has a limit of its own.
const SPARE_SECONDS_UNDER_KVM: u64 = 10_000;
/// Between two looks at how long the thread has run: its file is gone when it ends.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Runs it here, or in the emulated KVM host.
pub(crate) fn soak(minutes: u64, l0: L0, inside: bool) -> anyhow::Result<()> {
    let dir = build::target().join("soak");
    if inside {
        return run(&build::program(Profile::Release), &dir, minutes, l0);
    }
    let hypovisor = build::hypovisor(Profile::Release)?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    build::run(Command::new(&hypovisor).args(["lab", "fetch"]))?;
    if l0 == L0::Tcg {
        return run(&hypovisor, &dir, minutes, l0);
    }
    let minutes = minutes.to_string();
    l0::xtask_under_kvm(&hypovisor, &dir, &["soak", "--l0", "kvm", "--inside", "--minutes", &minutes])
}

fn run(hypovisor: &Path, dir: &Path, minutes: u64, l0: L0) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let (files, script) = (scratch.path().join("files"), scratch.path().join("script"));
    let alerts = dir.join("alerts.json");
    build::run(Command::new(hypovisor).args(["lab", "guests"]).arg(&files).stdout(Stdio::null()))?;
    let linux_pvh = if l0 == L0::Tcg { "yes" } else { "no" };
    std::fs::write(&script, format!("seconds={}\nlinux_pvh={linux_pvh}\n{SCRIPT}", 60 * minutes))?;
    if alerts.exists() {
        std::fs::remove_file(&alerts)?;
    }
    let spare = if l0 == L0::Tcg { SPARE_SECONDS } else { SPARE_SECONDS_UNDER_KVM };
    let mut command = Command::new(hypovisor);
    command.args(["lab", "run", "--integrity", "--l0", l0.name(), "--timeout"]);
    command.arg((60 * minutes + spare).to_string()).arg("--rules").arg(build::root().join("rules/xen"));
    command.arg("--alerts").arg(&alerts).arg("--record").arg(scratch.path().join("recording"));
    command.arg("--files").arg(&files).arg("--script").arg(&script).stdout(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().context("cannot start the lab")?;
    let said = child.stdout.take().context("the lab has no output")?;
    let looker =
        std::thread::spawn(move || time_of_thread(child.id(), "integrity").map(|time| (child, time)));
    let workloads = follow(said)?;
    let (mut child, looked) = looker.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    let status = child.wait()?;
    let recording = scratch.path().join("recording");
    let results = json!({
        "l0": l0.name(),
        "seconds": started.elapsed().as_secs(),
        "workloads": &workloads,
        "integrity_thread": { "cpu_ms": looked.0.as_millis() as u64, "of_ms": looked.1.as_millis() as u64 },
        "events": stats(hypovisor, &recording)?,
        "alerts": told(&alerts)?,
    });
    std::fs::write(dir.join("results.json"), serde_json::to_string_pretty(&results)? + "\n")?;
    writeln!(std::io::stdout(), "{results:#}")?;
    if !status.success() {
        bail!("the lab ended with {status}");
    }
    if let Some((name, _)) = workloads.iter().find(|(_, [ok, _])| *ok == 0) {
        bail!("the workload {name} never ended well");
    }
    if workloads.is_empty() {
        bail!("no workload was run");
    }
    if results["alerts"].as_object().is_none_or(|alerts| !alerts.is_empty()) {
        bail!("something was told: see {}", alerts.display());
    }
    Ok(())
}

/// Each workload, and how often it ended well or not.
fn follow(said: ChildStdout) -> anyhow::Result<BTreeMap<String, [u64; 2]>> {
    let (mut workloads, mut under_way) = (BTreeMap::<String, [u64; 2]>::new(), String::new());
    for line in BufReader::new(said).lines() {
        let line = line.context("cannot read what the lab prints")?;
        if let Some(name) = line.strip_prefix("begin ") {
            name.clone_into(&mut under_way);
        } else if let Some(end) = line.strip_prefix("end ") {
            workloads.entry(under_way.clone()).or_default()[usize::from(end != "ok")] += 1;
            if end != "ok" {
                writeln!(std::io::stderr(), "{under_way}: {end}")?;
            }
        }
    }
    Ok(workloads)
}

/// How long the thread of this name ran, of how long it was there, until the process ends.
fn time_of_thread(process: u32, name: &str) -> anyhow::Result<(Duration, Duration)> {
    let (mut thread, mut ran, mut since): (Option<PathBuf>, _, _) = (None, Duration::ZERO, Instant::now());
    while Path::new(&format!("/proc/{process}/fd")).read_dir().is_ok_and(|mut files| files.next().is_some()) {
        if let Some(thread) = &thread {
            let schedstat = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
            // The first of three numbers (Linux Documentation/scheduler/sched-stats.rst).
            let time = schedstat.split_whitespace().next().and_then(|time| time.parse().ok());
            ran = time.map_or(ran, Duration::from_nanos);
        } else {
            thread = find_thread(process, name);
            since = Instant::now();
        }
        std::thread::sleep(LOOK_PERIOD);
    }
    thread.map(|_| (ran, since.elapsed())).context("the hypervisor itself was never watched")
}

fn find_thread(process: u32, name: &str) -> Option<PathBuf> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let is_it =
        |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
    threads.flatten().map(|thread| thread.path()).find(is_it)
}

fn stats(hypovisor: &Path, recording: &Path) -> anyhow::Result<Value> {
    let output = Command::new(hypovisor).args(["stats", "--json"]).arg(recording).output()?;
    let stats: Value = serde_json::from_slice(&output.stdout).context("hypovisor did not print JSON")?;
    Ok(json!({ "seen": stats["events"], "dropped": stats["dropped"] }))
}

/// How often each rule was told.
fn told(alerts: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let text = std::fs::read_to_string(alerts).unwrap_or_default();
    let mut told = BTreeMap::new();
    for line in text.lines() {
        let alert: Value = serde_json::from_str(line).context("an alert is no JSON")?;
        *told.entry(alert["rule"]["id"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
    }
    Ok(told)
}
