//! A QEMU of our own, watched from its start to its end.
//!
//! QEMU is started stopped (`-S`), so that the sensor knows where RAM is before the machine runs its first
//! instruction, and is then let go. It is a plain child process: if the engine is killed it runs on, and
//! another engine can attach.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::call::CallSink;
use crate::command::{Accelerator, Additions, CommandError, QemuCommand, find_library};
use crate::qmp::{Qmp, QmpError};
use crate::runtime;
use crate::session::{START_TIMEOUT, Session, SessionError, Step, StepError, until};

/// How long QEMU may take to end once its sensor is gone, or once it was asked to.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two looks at a QEMU that runs unwatched.
const UNWATCHED_STEP: Duration = Duration::from_millis(50);

/// Why a QEMU cannot be watched, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Its command line.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The sensor.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// QEMU's monitor.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The directory for the sockets.
    #[error("cannot make a directory for the control socket: {0}")]
    RuntimeDir(io::Error),
    /// QEMU ended before it was up.
    #[error("QEMU ended at its start ({0}); its own message stands above")]
    EndedEarly(ExitStatus),
    /// QEMU cannot be waited for.
    #[error("lost sight of the QEMU process: {0}")]
    Wait(io::Error),
    /// L1 never came up.
    #[error("the guest ended without ever starting a Xen hypervisor")]
    NoXen,
}

impl WatchError {
    /// Whether QEMU would not run without us either.
    #[must_use]
    pub const fn is_qemus_own(&self) -> bool {
        let command = matches!(self, Self::Command(error) if error.is_qemus_own());
        command || matches!(self, Self::EndedEarly(_))
    }
}

/// How to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// L1's symbols; else those in its image.
    pub symbols: Option<PathBuf>,
    /// Ring size in bytes, if not the plugin's default.
    pub ring_bytes: Option<u64>,
    /// The hooks do nothing: for measuring their bare cost.
    pub only_hooks: bool,
    /// Called once if watching fails: QEMU then runs on unwatched. Without it, QEMU is ended.
    pub let_run: Option<LetRun>,
}

/// Tells why QEMU runs on unwatched.
pub type LetRun = fn(why: &dyn std::fmt::Display);

/// What the caller wants after each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    GoOn,
    /// Ask QEMU to end, in order.
    End,
}

/// A QEMU and the session with its sensor.
pub struct Watch {
    child: Child,
    session: Session,
    runtime: TempDir,
    let_run: Option<LetRun>,
    unwatched: bool,
}

impl Watch {
    /// Starts QEMU with the sensor in it and lets the machine run.
    ///
    /// # Errors
    /// [`WatchError`]; QEMU is then not left running.
    pub fn start(command: &QemuCommand, options: &WatchOptions) -> Result<Self, WatchError> {
        let accelerator = command.accelerator()?;
        let library = find_library(accelerator, command.version()?)?;
        let runtime = runtime::create().map_err(WatchError::RuntimeDir)?;
        let (control, qmp) = (runtime::control_socket(runtime.path()), runtime::qmp_socket(runtime.path()));
        let additions = Additions {
            control_socket: &control,
            qmp_socket: &qmp,
            ring_bytes: options.ring_bytes,
            only_hooks: options.only_hooks,
        };
        let watched = command.watched(accelerator, &library, &additions)?;
        let program = command.program.display().to_string();
        let missing = |source| CommandError::Missing { program, source };
        let mut child = watched.to_command().spawn().map_err(missing)?;
        match bring_up(&mut child, accelerator, &control, &qmp, options, !command.starts_stopped()) {
            Ok(mut session) => {
                session.use_monitor(qmp.clone());
                match session.listen(&runtime::engine_socket(runtime.path())) {
                    Ok(()) => {
                        Ok(Self { child, session, runtime, let_run: options.let_run, unwatched: false })
                    }
                    Err(error) => Err(end_early(&mut child, WatchError::RuntimeDir(error))),
                }
            }
            Err(error) => Err(end_early(&mut child, error)),
        }
    }

    /// The session with the sensor.
    pub const fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// QEMU's process id.
    #[must_use]
    pub fn qemu_pid(&self) -> u32 {
        self.child.id()
    }

    /// Where another engine can attach.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        runtime::control_socket(self.runtime.path())
    }

    /// Whether watching failed and QEMU ran on.
    #[must_use]
    pub const fn was_unwatched(&self) -> bool {
        self.unwatched
    }

    /// Hands every call to `sink` until QEMU ends; calls `tick` after each step.
    ///
    /// # Errors
    /// [`WatchError`] or what the sink or `tick` return; QEMU is ended then, or runs on as [`WatchOptions::let_run`] says.
    pub fn run<S, E>(
        &mut self,
        sink: &mut S,
        mut tick: impl FnMut(&mut Session, &mut S) -> Result<Wish, E>,
    ) -> Result<ExitStatus, E>
    where
        S: CallSink<Error = E>,
        E: From<WatchError> + std::fmt::Display,
    {
        let error = match self.run_to_end(sink, &mut tick) {
            Ok(status) => return Ok(status),
            Err(error) => error,
        };
        let Some(tell) = self.let_run.filter(|_| matches!(self.child.try_wait(), Ok(None))) else {
            kill(&mut self.child);
            return Err(error);
        };
        tell(&error);
        self.unwatched = true;
        self.run_unwatched(sink, &mut tick)
    }

    /// Waits for QEMU's end.
    fn run_unwatched<S, E>(
        &mut self,
        sink: &mut S,
        tick: &mut impl FnMut(&mut Session, &mut S) -> Result<Wish, E>,
    ) -> Result<ExitStatus, E>
    where
        E: From<WatchError>,
    {
        let mut asked = false;
        loop {
            if let Some(status) = self.child.try_wait().map_err(WatchError::Wait)? {
                return Ok(status);
            }
            // What fails now has failed before: only the wish counts.
            if matches!(tick(&mut self.session, sink), Ok(Wish::End)) && !asked {
                asked = true;
                terminate(&self.child);
            }
            std::thread::sleep(UNWATCHED_STEP);
        }
    }

    fn run_to_end<S, E>(
        &mut self,
        sink: &mut S,
        tick: &mut impl FnMut(&mut Session, &mut S) -> Result<Wish, E>,
    ) -> Result<ExitStatus, E>
    where
        S: CallSink<Error = E>,
        E: From<WatchError>,
    {
        let mut asked: Option<Instant> = None;
        loop {
            let step = self.session.step(sink).map_err(|error| match error {
                StepError::Session(error) => E::from(WatchError::from(error)),
                StepError::Sink(error) => error,
            })?;
            if step == Step::Ended {
                break;
            }
            if tick(&mut self.session, sink)? == Wish::End && asked.is_none() {
                asked = Some(Instant::now());
                terminate(&self.child);
            }
            if asked.is_some_and(|asked| asked.elapsed() > END_TIMEOUT) {
                kill(&mut self.child);
            }
        }
        self.session.finish(sink)?;
        tick(&mut self.session, sink)?;
        let status = wait(&mut self.child).map_err(|error| E::from(WatchError::Wait(error)))?;
        if self.session.note().profile.is_none() && asked.is_none() {
            let Some(tell) = self.let_run else { return Err(E::from(WatchError::NoXen)) };
            tell(&WatchError::NoXen);
            self.unwatched = true;
        }
        Ok(status)
    }
}

impl Drop for Watch {
    /// Whoever gives the watching up without having seen QEMU's end leaves no QEMU behind.
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

/// Connects to the sensor and the monitor, tells where RAM is, and lets the machine go.
fn bring_up(
    child: &mut Child,
    accelerator: Accelerator,
    control: &Path,
    qmp: &Path,
    options: &WatchOptions,
    go: bool,
) -> Result<Session, WatchError> {
    let mut in_time = until(START_TIMEOUT);
    let mut alive = || in_time() && matches!(child.try_wait(), Ok(None));
    let mut session = Session::connect(control, &mut alive)?;
    if let Some(symbols) = &options.symbols {
        session.use_symbols(symbols.clone());
    }
    let mut monitor = loop {
        match Qmp::connect(qmp) {
            Ok(monitor) => break monitor,
            Err(_) if alive() => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.into()),
        }
    };
    if accelerator == Accelerator::Tcg {
        session.describe_ram(&monitor.ram()?)?;
    }
    if go {
        monitor.cont()?;
    }
    Ok(session)
}

/// Ends a QEMU that did not come up; if it had ended by itself, that is the better error.
fn end_early(child: &mut Child, error: WatchError) -> WatchError {
    if let Ok(Some(status)) = child.try_wait() {
        return WatchError::EndedEarly(status);
    }
    kill(child);
    error
}

fn terminate(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself meanwhile.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

fn kill(child: &mut Child) {
    // Both fail only if it has ended already, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let mut in_time = until(END_TIMEOUT);
    while in_time() {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()
}
