//! `hypovisor run --in-place`: for managers such as libvirt, which look after the process that they started.
//!
//! ```text
//!   hypovisor run --in-place ──────── becomes QEMU, the sensor in it ─────────▶
//!        └─ a helper without QEMU's open files, which is gone at once
//!             └─ the engine, beside QEMU ─────────────────────────────────────▶
//! ```
//!
//! All three are this program with the same arguments; an environment variable tells the latter two what they are.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use hypovisor_engine::command::{Accelerator, Additions, QemuCommand, find_library};
use hypovisor_engine::qmp::Qmp;
use hypovisor_engine::runtime;
use hypovisor_engine::session::{START_TIMEOUT, Session, until};
use hypovisor_engine::watch::WatchError;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::attach::follow;
use crate::cli::RunArgs;
use crate::detect::Detecting;
use crate::output::Output;
use crate::run::{finish, manifest, refuse_used, tell_unwatched};
use crate::signals::StopRequest;
use crate::{FINDINGS, in_one_line};

/// `helper,PID,DIR` or `engine,PID,DIR`: QEMU's process id, and the runtime directory.
const ROLE: &str = "HYPOVISOR_IN_PLACE";
/// The first open file that a process does not need for standard input, output and error.
const FIRST_OF_QEMUS_FILES: i32 = 3;

pub(crate) fn run(args: &RunArgs, command: &QemuCommand) -> anyhow::Result<u8> {
    if let Some(role) = std::env::var_os(ROLE) {
        let (role, qemu, dir) = parse(&role).with_context(|| format!("{ROLE} is not for users to set"))?;
        return if role == "helper" { start_engine(qemu, &dir) } else { engine(args, command, qemu, &dir) };
    }
    if command.makes_no_machine() {
        return become_qemu(command);
    }
    match prepare(args, command) {
        Ok(watched) => become_qemu(&watched),
        Err(error) if args.require => Err(error),
        Err(error) => {
            tell_unwatched(&in_one_line(&error));
            become_qemu(command)
        }
    }
}

fn parse(role: &OsString) -> Option<(String, Pid, PathBuf)> {
    let mut parts = role.as_bytes().splitn(3, |byte| *byte == b',');
    let mut text = || String::from_utf8(parts.next()?.to_vec()).ok();
    let (role, pid) = (text()?, text()?.parse().ok()?);
    Some((role, Pid::from_raw(pid)?, OsString::from_vec(parts.next()?.to_vec()).into()))
}

fn become_qemu(command: &QemuCommand) -> anyhow::Result<u8> {
    let error = command.to_command().exec();
    Err(error).with_context(|| format!("cannot run {}", command.program.display()))
}

/// Checks what can be checked, and starts the engine; gives the command of a QEMU with the sensor in it.
fn prepare(args: &RunArgs, command: &QemuCommand) -> anyhow::Result<QemuCommand> {
    let accelerator = command.accelerator()?;
    ensure!(
        accelerator == Accelerator::Kvm,
        "--in-place is for KVM: this command line names another accelerator"
    );
    if let Some(dir) = &args.record {
        refuse_used(dir)?;
    }
    Detecting::load(&args.detect)?;
    let library = find_library(accelerator, command.version()?)?;
    let runtime = runtime::create().context("cannot make a directory for the control socket")?;
    let control = runtime::control_socket(runtime.path());
    let additions = Additions {
        control_socket: &control,
        qmp_socket: &runtime::qmp_beside(&control),
        ring_bytes: Some(args.ring_mib << 20),
        only_hooks: false,
    };
    let watched = command.watched(accelerator, &library, &additions)?;
    let mut helper = start_as("helper", rustix::process::getpid(), runtime.path())?;
    ensure!(helper.wait().is_ok_and(|status| status.success()), "the engine cannot be started");
    // The engine removes it.
    let _ = runtime.keep();
    Ok(watched)
}

/// Starts this program once more with the same arguments.
fn start_as(role: &str, qemu: Pid, dir: &Path) -> anyhow::Result<std::process::Child> {
    let mut value = OsString::from(format!("{role},{},", qemu.as_raw_nonzero()));
    value.push(dir);
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = Command::new(own);
    command.args(std::env::args_os().skip(1)).env(ROLE, value).stdin(Stdio::null());
    command.spawn().context("cannot start the engine")
}

/// What the manager gave QEMU stays QEMU's alone, and the engine is no child of QEMU.
fn start_engine(qemu: Pid, dir: &Path) -> anyhow::Result<u8> {
    close_fds::set_fds_cloexec(FIRST_OF_QEMUS_FILES, &[]);
    start_as("engine", qemu, dir)?;
    Ok(0)
}

/// Watches until QEMU ends or somebody ends this engine; QEMU then runs on, and another can attach.
fn engine(args: &RunArgs, command: &QemuCommand, qemu: Pid, dir: &Path) -> anyhow::Result<u8> {
    let process = rustix::process::pidfd_open(qemu, PidfdFlags::empty()).context("QEMU has ended")?;
    let control = runtime::control_socket(dir);
    let watched = watch(args, command, (qemu, &process), &control);
    if !is_alive(&process) {
        runtime::remove(&control);
        return watched;
    }
    match watched {
        Err(error) if !args.require => {
            tell_unwatched(&in_one_line(&error));
            Ok(FINDINGS)
        }
        Err(error) => {
            rustix::process::pidfd_send_signal(&process, Signal::TERM).context("cannot end QEMU")?;
            Err(error)
        }
        stopped => stopped,
    }
}

fn watch(
    args: &RunArgs,
    command: &QemuCommand,
    (qemu, process): (Pid, &OwnedFd),
    control: &Path,
) -> anyhow::Result<u8> {
    let stop = StopRequest::install()?;
    let mut detecting = Detecting::load(&args.detect)?;
    let mut session = connect(command, process, control)?;
    if let Some(symbols) = &args.symbols {
        session.use_symbols(symbols.clone());
    }
    session.use_monitor(runtime::qmp_beside(control));
    session.listen(&runtime::engine_beside(control)).context("cannot listen for other processes")?;
    detecting.arm(&mut session)?;
    let output = match &args.record {
        Some(dir) => {
            let pid = qemu.as_raw_nonzero().get().unsigned_abs();
            Output::record(dir, manifest(command, session.hello(), pid, control), false)?
        }
        None => Output::print(args.json),
    };
    let mut watched = detecting.before(output)?;
    let ended = follow(&mut session, &mut detecting, &mut watched, &stop)?;
    let lost: u64 = session.counters().map(|counters| counters.lost_calls + counters.lost_results).sum();
    finish(watched)?;
    if ended {
        runtime::remove(control);
        if session.note().profile.is_none() {
            return Err(WatchError::NoXen.into());
        }
    }
    Ok(if lost > 0 { FINDINGS } else { 0 })
}

/// Waits for the sensor, and lets the machine go unless somebody else wants to.
fn connect(command: &QemuCommand, qemu: &OwnedFd, control: &Path) -> anyhow::Result<Session> {
    let mut in_time = until(START_TIMEOUT);
    let mut go_on = || in_time() && is_alive(qemu);
    let session = Session::connect(control, &mut go_on)?;
    if command.starts_stopped() {
        return Ok(session);
    }
    loop {
        match Qmp::connect(&runtime::qmp_beside(control)) {
            Ok(mut monitor) => {
                monitor.cont()?;
                return Ok(session);
            }
            Err(_) if go_on() => std::thread::sleep(std::time::Duration::from_millis(5)),
            Err(error) => bail!(error),
        }
    }
}

/// A process's descriptor can be read from when it has ended (pidfd_open(2)).
fn is_alive(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_may_contain_commas() {
        let (role, pid, dir) = parse(&"engine,12,/run/a,b".into()).unwrap();
        assert_eq!((role.as_str(), pid.as_raw_nonzero().get(), dir), ("engine", 12, "/run/a,b".into()));
        assert!(parse(&"engine,0,/run".into()).is_none());
        assert!(parse(&"engine".into()).is_none());
    }
}
