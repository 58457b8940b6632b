//! KVM where there is none: the same command again, inside an emulated Linux that has it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use hypovisor_lab::{
    EMULATED_VARIABLE, KvmHost, KvmProbe, Lab, Machine, Outcome, Prepared, QemuVersion,
    Session as LabSession, Work, XenVersion, spawn_unmonitored,
};

use super::{Shared, Terminal, progress};
use crate::cli::{KvmHostArgs, LabRunArgs};
use crate::signals::StopRequest;

/// Memory of the emulated Linux, in MiB: the lab machine's, and as much again for everything else.
const MEMORY_MIB: u32 = 8192;
/// A directory in memory, inside.
const SCRATCH: &str = "/run/lab";

/// Whether this machine can run the lab's Xen under its own KVM.
pub(super) fn kvm_nests_here(prepared: &Prepared) -> anyhow::Result<bool> {
    let is_there = Path::new("/dev/kvm").exists();
    Ok(is_there && prepared.probe_kvm().context("cannot try KVM out")? == KvmProbe::Runs { nested: true })
}

/// `lab run` inside the emulated Linux, with the same arguments.
pub(super) fn run(args: &LabRunArgs) -> anyhow::Result<u8> {
    let mut writable = Vec::new();
    if let Some(dir) = &args.record {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot record into {}", dir.display()))?;
        writable.push(dir.clone());
    }
    if let Some(parent) = args.detect.alerts.as_deref().and_then(Path::parent) {
        writable.push(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() });
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let command: Vec<OsString> = [own.into()].into_iter().chain(std::env::args_os().skip(1)).collect();
    let timeout = args.timeout;
    let console = args.console;
    host(&KvmHostArgs { writable, timeout, console, skip_idle_time: false, command })
}

/// `lab kvm-host`: any command inside the emulated Linux; its output is passed on.
pub(crate) fn host(args: &KvmHostArgs) -> anyhow::Result<u8> {
    let lab = Lab::open()?;
    let prepared = lab.prepare(XenVersion::V4_20, QemuVersion::V10_0, &mut progress::Bars::new())?;
    let absolute =
        |path: &PathBuf| path.canonicalize().with_context(|| format!("cannot use {}", path.display()));
    let mut writable: Vec<PathBuf> = args.writable.iter().map(absolute).collect::<anyhow::Result<_>>()?;
    writable.push(lab.dir().to_owned());
    let kvm_host = Some(KvmHost { writable, skips_idle_time: args.skip_idle_time });
    let machine = Machine { kvm_host, vcpus: 1, memory_mib: MEMORY_MIB, ..Machine::default() };
    let script = tempfile::NamedTempFile::new().context("cannot write a script")?;
    let here = std::env::current_dir().context("cannot tell where we are")?;
    std::fs::write(script.path(), KvmHost::script(&here, &variables(&lab), &args.command))
        .context("cannot write a script")?;
    let work = Work { script: Some(script.path().to_owned()), ..Work::default() };
    let outcome = follow(&mut LabSession::new(&prepared, &machine, &work)?, args)?;
    u8::try_from(outcome.exit_code)
        .map_err(|_| anyhow!("the command inside ended with {}", outcome.exit_code))
}

fn follow(session: &mut LabSession, args: &KvmHostArgs) -> anyhow::Result<Outcome> {
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let stop = StopRequest::install()?;
    let shared = Shared::default();
    let mut qemu = spawn_unmonitored(session.command())?;
    let mut terminal = Terminal { console: args.console, shared: &shared, stop: &stop, over: &|| false };
    Ok(qemu.drive(session, &mut terminal, deadline)?)
}

/// What the command inside has to know: where the lab is, and that files of its own belong into memory.
fn variables(lab: &Lab) -> Vec<(&'static str, OsString)> {
    let passed = ["HYPOVISOR_PLUGIN_DIR", "NO_COLOR", "RUST_BACKTRACE", "PATH"];
    let passed = passed.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let own = [
        ("HYPOVISOR_LAB_DIR", lab.dir().into()),
        (EMULATED_VARIABLE, "1".into()),
        ("HOME", SCRATCH.into()),
        ("TMPDIR", SCRATCH.into()),
        ("XDG_RUNTIME_DIR", SCRATCH.into()),
    ];
    passed.chain(own).collect()
}
