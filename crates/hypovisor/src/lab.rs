//! `hypovisor lab`: real hypervisors, fetched and booted.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use hypovisor_engine::command::QemuCommand;
use hypovisor_engine::watch::{Watch, WatchOptions};
use hypovisor_lab::arsenal::{Arsenal, BuildId, Options};
use hypovisor_lab::{
    Accelerator, DomuKind, Lab, Machine, Notice, Observer, Outcome, Prepared, QemuVersion,
    Session as LabSession, Work, XenVersion, spawn_unmonitored,
};

use crate::cli::{ArsenalArgs, DomuArg, FetchArgs, GuestsArgs, L0Arg, LabRunArgs, QemuArg, XenArg};
use crate::detect::Detecting;
use crate::output::Output;
use crate::run;
use crate::signals::StopRequest;

pub(crate) mod nested;
mod progress;
pub(crate) mod witness;

pub(crate) fn guests(args: &GuestsArgs) -> anyhow::Result<u8> {
    let built = hypovisor_lab::guests::build(&args.directory)?;
    writeln!(std::io::stdout(), "{}", built.dir().display())?;
    Ok(0)
}

pub(crate) fn arsenal(args: &ArsenalArgs) -> anyhow::Result<u8> {
    let xen = BuildId::read(&prepare(&args.parts)?.xen_symbols())?;
    let options = Options {
        flicker_us: args.flicker_us,
        flicker_times: args.flicker_times,
        flicker_gap_us: args.flicker_gap_us,
        hidden_domain: args.hide_domain,
        vector: args.vector,
    };
    let built = Arsenal::build(&args.directory, &xen, &options)?;
    writeln!(std::io::stdout(), "{}", built.dir().display())?;
    Ok(0)
}

pub(crate) fn fetch(args: &FetchArgs) -> anyhow::Result<u8> {
    let prepared = prepare(args)?;
    writeln!(std::io::stdout(), "{}", prepared.xen_image().display())?;
    Ok(0)
}

pub(crate) fn prepare(args: &FetchArgs) -> anyhow::Result<Prepared> {
    let xen = match args.xen {
        XenArg::V4_20 => XenVersion::V4_20,
        XenArg::V4_17 => XenVersion::V4_17,
    };
    let qemu = match args.qemu {
        QemuArg::V10_0 => QemuVersion::V10_0,
        QemuArg::V11_1 => QemuVersion::V11_1,
    };
    let lab = Lab::open()?;
    Ok(lab.prepare(xen, qemu, &mut progress::Bars::new())?)
}

pub(crate) fn run(args: &LabRunArgs) -> anyhow::Result<u8> {
    let work = work(args)?;
    let detecting = Detecting::load(&args.detect)?;
    if let Some(dir) = &args.record {
        run::refuse_used(dir)?;
    }
    let prepared = prepare(&args.parts)?;
    if args.l0 == L0Arg::Kvm && !nested::kvm_nests_here(&prepared)? {
        return nested::run(args);
    }
    let machine = machine(args);
    let mut session = LabSession::new(&prepared, &machine, &work)?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let outcome = if args.unmonitored {
        unmonitored(args, &mut session, deadline)?
    } else {
        monitored(args, detecting, &prepared, &mut session, deadline)?
    };
    u8::try_from(outcome.exit_code).map_err(|_| anyhow!("the script ended with {}", outcome.exit_code))
}

fn machine(args: &LabRunArgs) -> Machine {
    let mut machine = Machine::on(match args.l0 {
        L0Arg::Tcg => Accelerator::Tcg,
        L0Arg::Kvm => Accelerator::Kvm,
    });
    machine.vcpus = args.vcpus.unwrap_or(machine.vcpus);
    machine.parallel = args.parallel;
    machine.xen_options.extend(args.xen_option.iter().cloned());
    machine.dom0_options.extend(args.dom0_option.iter().cloned());
    machine
}

fn work(args: &LabRunArgs) -> anyhow::Result<Work> {
    let domus = args.domu.iter().filter_map(|kind| match kind {
        DomuArg::Pv => Some(DomuKind::Pv),
        DomuArg::Pvh => Some(DomuKind::Pvh),
        DomuArg::Hvm => Some(DomuKind::Hvm),
        DomuArg::None => None,
    });
    if let Some(script) = &args.script {
        std::fs::File::open(script).with_context(|| format!("cannot read script {}", script.display()))?;
    }
    if let Some(files) = args.files.as_ref().filter(|files| !files.is_dir()) {
        bail!("{} is not a directory", files.display());
    }
    Ok(Work {
        domus: domus.collect(),
        script: args.script.clone(),
        files: args.files.clone(),
        stay_up: false,
    })
}

fn unmonitored(args: &LabRunArgs, session: &mut LabSession, deadline: Instant) -> anyhow::Result<Outcome> {
    let stop = StopRequest::install()?;
    let mut command = session.command().clone();
    add_gdb(args, &mut command.args);
    let shared = Shared::default();
    let qemu = spawn_unmonitored(&command)?;
    let mut observer = Terminal { console: args.console, shared: &shared, stop: &stop, over: &|| false };
    let outcome = session.drive(&mut observer, deadline);
    drop(qemu);
    Ok(outcome?)
}

fn add_gdb(args: &LabRunArgs, command: &mut Vec<std::ffi::OsString>) {
    if let Some(address) = &args.gdb {
        command.extend(["-gdb".into(), address.into()]);
    }
}

/// What the thread that follows the machine tells the one that watches it.
#[derive(Default)]
struct Shared {
    names: Mutex<Vec<(u16, String)>>,
    end: AtomicBool,
}

impl Shared {
    fn take_names(&self) -> Vec<(u16, String)> {
        self.names.lock().map(|mut names| std::mem::take(&mut *names)).unwrap_or_default()
    }
}

/// Two threads: one watches (engine), one follows the machine's channels.
fn monitored(
    args: &LabRunArgs,
    detecting: Detecting,
    prepared: &Prepared,
    session: &mut LabSession,
    deadline: Instant,
) -> anyhow::Result<Outcome> {
    let stop = StopRequest::install()?;
    let lab_command = session.command().clone();
    let mut command =
        QemuCommand { program: lab_command.program, args: lab_command.args, env: lab_command.env };
    add_gdb(args, &mut command.args);
    let options =
        WatchOptions { symbols: symbols(args, prepared), only_hooks: args.only_hooks, ..Default::default() };
    let shared = Shared::default();
    std::thread::scope(|scope| {
        let engine = scope.spawn(|| watch(args, detecting, &command, &options, &shared));
        let over = || engine.is_finished();
        let mut observer = Terminal { console: args.console, shared: &shared, stop: &stop, over: &over };
        let outcome = session.drive(&mut observer, deadline);
        if outcome.is_err() {
            shared.end.store(true, Ordering::Relaxed);
        }
        let watched = engine.join().map_err(|_| anyhow!("the engine stopped on an internal error"))?;
        // Why the watching failed says more than that the machine then went down.
        watched?;
        Ok(outcome?)
    })
}

fn symbols(args: &LabRunArgs, prepared: &Prepared) -> Option<PathBuf> {
    match args.symbols.as_str() {
        "image" => None,
        "file" => Some(prepared.xen_symbols()),
        path => Some(PathBuf::from(path)),
    }
}

fn watch(
    args: &LabRunArgs,
    mut detecting: Detecting,
    command: &QemuCommand,
    options: &WatchOptions,
    shared: &Shared,
) -> anyhow::Result<()> {
    let mut watch = Watch::start(command, options)?;
    detecting.arm(watch.session())?;
    let output = match &args.record {
        Some(dir) => {
            let (pid, socket) = (watch.qemu_pid(), watch.control_socket());
            Output::record(dir, run::manifest(command, watch.session().hello(), pid, &socket), true)?
        }
        None => Output::nothing(!args.only_hooks),
    };
    let mut watched = detecting.before(output)?;
    let status = run::follow(&mut watch, &mut detecting, &mut watched, |session| {
        for (id, name) in shared.take_names() {
            session.domains_mut().name(id, &name);
        }
        Ok(shared.end.load(Ordering::Relaxed))
    })?;
    run::finish(watched)?;
    if !status.success() && !shared.end.load(Ordering::Relaxed) {
        bail!("QEMU ended with {status}");
    }
    Ok(())
}

/// Passes on what the machine says.
pub(crate) struct Terminal<'a> {
    console: bool,
    shared: &'a Shared,
    stop: &'a StopRequest,
    over: &'a dyn Fn() -> bool,
}

impl Observer for Terminal<'_> {
    fn console(&mut self, bytes: &[u8]) {
        if self.console {
            let _ = std::io::stderr().write_all(bytes);
        }
    }

    fn stdout(&mut self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        // Somebody who closed our output does not want the machine stopped.
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }

    fn stderr(&mut self, bytes: &[u8]) {
        let _ = std::io::stderr().write_all(bytes);
    }

    fn notice(&mut self, notice: &Notice) {
        if let (Notice::Domain { id, name }, Ok(mut names)) = (notice, self.shared.names.lock()) {
            names.push((id.0, name.clone()));
        }
    }

    fn interrupt(&mut self) -> Option<String> {
        if self.stop.is_set() {
            Some("it was interrupted".into())
        } else {
            (self.over)().then(|| "QEMU ended".into())
        }
    }
}
