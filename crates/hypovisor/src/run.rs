//! `hypovisor run`: a QEMU command line of the user's own.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitStatus;

use anyhow::{Context as _, bail};
use hypovisor_engine::command::{Accelerator, CommandError, QemuCommand};
use hypovisor_engine::recording::Manifest;
use hypovisor_engine::session::Session;
use hypovisor_engine::watch::{LetRun, Watch, WatchError, WatchOptions, Wish};
use hypovisor_event::control::Hello;

use crate::FINDINGS;
use crate::cli::RunArgs;
use crate::detect::{Detecting, Watched};
use crate::in_place;
use crate::output::Output;
use crate::signals::StopRequest;

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let command = QemuCommand::from_line(&args.command)?;
    check_symbols(args)?;
    if args.in_place {
        return in_place::run(args, &command);
    }
    if let Some(dir) = &args.record {
        refuse_used(dir)?;
    }
    let mut detecting = Detecting::load(&args.detect)?;
    let stop = StopRequest::install()?;
    let options = WatchOptions {
        symbols: args.symbols.clone(),
        ring_bytes: Some(args.ring_mib << 20),
        only_hooks: false,
        let_run: may_run_unwatched(args, &command).then_some(tell_unwatched as LetRun),
    };
    let mut watch = match Watch::start(&command, &options) {
        Ok(watch) => watch,
        Err(error) if options.let_run.is_some() && !error.is_qemus_own() => {
            tell_unwatched(&error);
            return run_unwatched(&command, &stop);
        }
        Err(error) => return Err(error.into()),
    };
    detecting.arm(watch.session())?;
    let output = match &args.record {
        Some(dir) => {
            let (pid, socket) = (watch.qemu_pid(), watch.control_socket());
            Output::record(dir, manifest(&command, watch.session().hello(), pid, &socket), false)?
        }
        None => Output::print(args.json),
    };
    let mut watched = detecting.before(output)?;
    let status = follow(&mut watch, &mut detecting, &mut watched, |_| Ok(stop.is_set()))?;
    let lost: u64 =
        watch.session().counters().map(|counters| counters.lost_calls + counters.lost_results).sum();
    finish(watched)?;
    if !status.success() && !stop.is_set() {
        bail!("QEMU ended with {status}");
    }
    Ok(if lost > 0 || watch.was_unwatched() { FINDINGS } else { 0 })
}

/// Under KVM there are machines that people depend on.
fn may_run_unwatched(args: &RunArgs, command: &QemuCommand) -> bool {
    !args.require && command.accelerator().is_ok_and(|accelerator| accelerator == Accelerator::Kvm)
}

pub(crate) fn tell_unwatched(why: &dyn std::fmt::Display) {
    let _ =
        writeln!(std::io::stderr(), "hypovisor: {why}; the VM runs on unwatched (--require would end it)");
}

/// QEMU as the user wrote it.
fn run_unwatched(command: &QemuCommand, stop: &StopRequest) -> anyhow::Result<u8> {
    let mut child = command.to_command().spawn().context("cannot start QEMU")?;
    let mut asked = false;
    loop {
        if let Some(status) = child.try_wait().context("lost sight of the QEMU process")? {
            return if status.success() || asked { Ok(FINDINGS) } else { bail!("QEMU ended with {status}") };
        }
        if stop.is_set() && !asked {
            asked = true;
            let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Watches until QEMU ends. `tick` is asked after each step whether to end it now.
pub(crate) fn follow(
    watch: &mut Watch,
    detecting: &mut Detecting,
    watched: &mut Watched,
    mut tick: impl FnMut(&mut Session) -> anyhow::Result<bool>,
) -> anyhow::Result<ExitStatus> {
    watch.run(watched, |session, watched: &mut Watched| {
        watched.inner.tick(session)?;
        detecting.tick(session, watched)?;
        Ok::<_, anyhow::Error>(if tick(session)? { Wish::End } else { Wish::GoOn })
    })
}

/// Tells and writes what is left.
pub(crate) fn finish(mut watched: Watched) -> anyhow::Result<()> {
    if let Some(alerter) = &mut watched.alerter {
        alerter.finish()?;
    }
    watched.inner.finish()?;
    Ok(())
}

/// A new recording's manifest, as far as it is known at the start.
pub(crate) fn manifest(command: &QemuCommand, hello: &Hello, qemu_pid: u32, socket: &Path) -> Manifest {
    let words = std::iter::once(command.program.as_os_str()).chain(command.args.iter().map(AsRef::as_ref));
    Manifest {
        qemu_command: words.map(|word| word.to_string_lossy().into_owned()).collect(),
        qemu_pid,
        control_socket: socket.display().to_string(),
        plugin_api: hello.plugin_api as u32,
        vcpus: hello.vcpus as u32,
        ..Manifest::default()
    }
}

/// Refuses a directory with a recording in it before anything is started.
pub(crate) fn refuse_used(dir: &Path) -> anyhow::Result<()> {
    if dir.join("recording.json").exists() {
        bail!("{} already holds a recording; choose another directory", dir.display());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot record into {}", dir.display()))
}

fn check_symbols(args: &RunArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.symbols {
        std::fs::File::open(path).with_context(|| format!("cannot read symbol file {}", path.display()))?;
    }
    match args.command.first() {
        None => Err(WatchError::from(CommandError::Empty).into()),
        Some(_) => Ok(()),
    }
}
