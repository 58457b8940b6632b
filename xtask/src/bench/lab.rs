//! Lab machines for the benchmark, watched in different ways.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};

use super::gdb::Breakpoint;
use crate::l0::L0;

/// How a machine is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Not at all: a plain QEMU without our plugin, with RAM of its own.
    Unmonitored,
    /// Hooks that do nothing: the least that any hook costs.
    EmptyHook,
    /// Everything captured, decoded and recorded.
    Hypovisor,
    /// Recorded, and L1's integrity looked at all the time.
    Everything,
    /// Recorded, with 500 rules judged in the sensor and in the engine.
    Rules,
    /// As before, and one rule more that denies the null hypercall.
    Denied,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Unmonitored, Self::EmptyHook, Self::Hypovisor];
    pub(crate) const RULES: [Self; 3] = [Self::Hypovisor, Self::Rules, Self::Denied];
}

/// Ticks of a null hypercall, over the guest's rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NullTicks {
    pub(crate) median: u64,
    pub(crate) least: u64,
    /// With what else ran on the vCPU's processor meanwhile.
    pub(crate) mean: u64,
}

impl NullTicks {
    fn told(said: &str) -> anyhow::Result<Self> {
        let figure = |name: &str| said.split(name).nth(1)?.split_whitespace().next()?.parse().ok();
        let told = |name| figure(name).with_context(|| format!("the guest did not measure: {said}"));
        Ok(Self { median: told("median_ticks=")?, least: told("min_ticks=")?, mean: told("mean_ticks=")? })
    }
}

/// A boot and the null hypercall, in instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvmRun {
    /// From start to the first word from dom0's shell: with what anything else did on the one processor, and with waits.
    pub(crate) boot: u64,
    /// What QEMU's threads ran of it, the guest among them.
    pub(crate) boot_of_qemu: u64,
    pub(crate) null: NullTicks,
}

impl KvmRun {
    /// Of each figure by itself.
    pub(crate) fn medians(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> u64| super::median(&mut runs.iter().map(figure).collect::<Vec<_>>());
        let null = NullTicks {
            median: of(|run| run.null.median),
            least: of(|run| run.null.least),
            mean: of(|run| run.null.mean),
        };
        Self { boot: of(|run| run.boot), boot_of_qemu: of(|run| run.boot_of_qemu), null }
    }
}

/// How much the guest `null` does, and how much less under emulated KVM, where each call takes long and all take the same.
const NULL_USUALLY: &str = "rounds=200 calls=1000 warmup=20000";
const NULL_UNDER_KVM: &str = "rounds=1000 calls=20 warmup=1000";
/// Runs the guest `null` and prints what it said.
const NULL_SCRIPT: &str = "set -e
xl create /lab/files/null-pv.cfg >&2
sleep 4
tries=0
while xl domid null-pv >/dev/null 2>&1; do tries=$((tries + 1)); [ $tries -lt 60 ]; sleep 2; done
cat /var/log/xen/console/guest-null-pv.log
";
/// Waits for the debugger, then makes so many calls that a handful of stops can be timed.
const GDB_SCRIPT: &str = "echo ready
sleep 3
/lab/files/hcall --loop 100000 17 0 >/dev/null
";
/// Stops that are timed with the debugger.
const GDB_STOPS: usize = 200;

/// What the measurements share.
pub(crate) struct Bench {
    hypovisor: PathBuf,
    dir: PathBuf,
    l0: L0,
    scratch: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(hypovisor: &Path, dir: &Path, l0: L0) -> anyhow::Result<Self> {
        let scratch = tempfile::tempdir()?;
        let files = scratch.path().join("files");
        let mut guests = Command::new(hypovisor);
        crate::build::run(guests.args(["lab", "guests"]).arg(&files).stdout(Stdio::null()))?;
        if l0 == L0::Kvm {
            let config = files.join("null-pv.cfg");
            let text = std::fs::read_to_string(&config)?;
            std::fs::write(&config, text.replace(NULL_USUALLY, NULL_UNDER_KVM))?;
        }
        Ok(Self { hypovisor: hypovisor.to_owned(), dir: dir.to_owned(), l0, scratch })
    }

    /// The program that is measured.
    pub(crate) fn hypovisor(&self) -> &Path {
        &self.hypovisor
    }

    /// What dom0 sees at `/lab/files`.
    pub(crate) fn files(&self) -> PathBuf {
        self.scratch.path().join("files")
    }

    /// A lab run with this script; the recording, if one is made, replaces the last.
    pub(crate) fn lab_run(&self, way: Way, script: &str) -> anyhow::Result<Command> {
        let path = self.scratch.path().join("script");
        std::fs::write(&path, script)?;
        let mut run = Command::new(&self.hypovisor);
        match self.l0 {
            L0::Tcg => run.args(["lab", "run", "--timeout", "180"]),
            L0::Kvm => run.args(["lab", "run", "--timeout", "3600", "--l0", "kvm"]),
        };
        run.arg("--files").arg(self.files()).arg("--script").arg(path);
        match way {
            Way::Unmonitored => run.arg("--unmonitored"),
            Way::EmptyHook => run.arg("--only-hooks"),
            Way::Hypovisor | Way::Everything | Way::Rules | Way::Denied => {
                if way == Way::Everything {
                    run.arg("--integrity");
                }
                if matches!(way, Way::Rules | Way::Denied) {
                    let rules = self.scratch.path().join(format!("{way:?}"));
                    super::rules::write(&rules, way == Way::Denied)?;
                    run.args(["--enforce", "deny", "--rules"]).arg(rules);
                }
                if way != Way::Hypovisor {
                    run.arg("--alerts").arg(self.scratch.path().join("alerts.json"));
                }
                let recording = self.recording();
                if recording.exists() {
                    std::fs::remove_dir_all(&recording)?;
                }
                run.arg("--record").arg(recording)
            }
        };
        run.stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(run)
    }

    fn recording(&self) -> PathBuf {
        self.dir.join("recording")
    }

    /// Ticks of a null hypercall.
    pub(crate) fn null_ticks(&self, way: Way) -> anyhow::Result<NullTicks> {
        let output = self.lab_run(way, NULL_SCRIPT)?.arg("--parallel").output()?;
        let ticks = NullTicks::told(&String::from_utf8_lossy(&output.stdout))?;
        writeln!(std::io::stderr(), "null hypercall, {way:?}: {ticks:?}")?;
        Ok(ticks)
    }

    /// A boot and the null hypercall in one run, where clocks count instructions.
    pub(crate) fn kvm_run(&self, way: Way) -> anyhow::Result<KvmRun> {
        let start = Instant::now();
        let mut run = self.lab_run(way, &format!("echo up\n{NULL_SCRIPT}"))?.spawn()?;
        let mut lines = output_of(&mut run)?;
        wait_for(&mut lines, "up")?;
        let boot = start.elapsed().as_nanos() as u64;
        let boot_of_qemu = super::cpu_time::of_qemu_below(run.id())?;
        writeln!(std::io::stderr(), "boot, {way:?}: {boot} instructions, {boot_of_qemu} of them QEMU's")?;
        let said: Vec<String> = lines.collect::<Result<_, _>>()?;
        run.wait()?;
        let null = NullTicks::told(&said.join("\n"))?;
        writeln!(std::io::stderr(), "null hypercall, {way:?}: {null:?}")?;
        Ok(KvmRun { boot, boot_of_qemu, null })
    }

    /// Boots and records; gives how many calls were recorded.
    pub(crate) fn recorded_calls(&self) -> anyhow::Result<u64> {
        self.boot_ms(Way::Hypovisor)?;
        self.manifest()?["events"].as_u64().context("no number of calls in the recording")
    }

    /// Milliseconds from starting `lab run` to the first word from dom0's shell.
    pub(crate) fn boot_ms(&self, way: Way) -> anyhow::Result<u64> {
        let start = Instant::now();
        let mut run = self.lab_run(way, "echo up\n")?.spawn()?;
        wait_for(&mut output_of(&mut run)?, "up")?;
        let elapsed = start.elapsed().as_millis() as u64;
        run.wait()?;
        writeln!(std::io::stderr(), "boot, {way:?}: {elapsed} ms")?;
        Ok(elapsed)
    }

    /// The recording of a boot.
    pub(crate) fn boot_recording(&self) -> anyhow::Result<PathBuf> {
        if !self.recording().join("recording.json").exists() {
            self.boot_ms(Way::Hypovisor)?;
        }
        Ok(self.recording())
    }

    /// Ticks of a stop with QEMU's gdbstub: a hardware breakpoint where PV hypercalls enter, one register and 200
    /// bytes of memory read, and on. The median of [`GDB_STOPS`].
    pub(crate) fn gdb_ticks(&self) -> anyhow::Result<u64> {
        let socket = self.scratch.path().join("gdb");
        let mut run = self.lab_run(Way::Unmonitored, GDB_SCRIPT)?;
        run.arg("--gdb").arg(format!("unix:{},server=on,wait=off", socket.display()));
        let mut run = run.spawn()?;
        wait_for(&mut output_of(&mut run)?, "ready")?;
        let measured =
            Breakpoint::at(&socket, &self.symbols()?).and_then(|stops| stops.median_ticks(GDB_STOPS));
        // The machine has done its part whatever came out.
        let _ = run.kill();
        run.wait()?;
        let ticks = measured?;
        writeln!(std::io::stderr(), "a stop with gdb: {ticks} ticks")?;
        Ok(ticks)
    }

    fn symbols(&self) -> anyhow::Result<PathBuf> {
        self.boot_recording()?;
        let manifest = self.manifest()?;
        Ok(manifest["profile_source"].as_str().context("no symbol file in the recording")?.into())
    }

    fn manifest(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.recording().join("recording.json"))?)?)
    }
}

/// The lines that a child prints.
fn output_of(child: &mut Child) -> anyhow::Result<Lines<BufReader<ChildStdout>>> {
    Ok(BufReader::new(child.stdout.take().context("no output to read")?).lines())
}

/// Reads until a line says this.
fn wait_for(lines: &mut Lines<BufReader<ChildStdout>>, word: &str) -> anyhow::Result<()> {
    for line in lines {
        if line?.trim() == word {
            return Ok(());
        }
    }
    bail!("the lab machine ended before it said {word:?}");
}
