//! One run of a lab machine, from its temporary directory to its exit code.
//!
//! ```text
//!     Session::new     makes the work's disks, listens on the channels' sockets
//!     command()        the caller starts QEMU, which connects to them
//!     drive()          greets dom0 (`hello`) when it is there, passes on what comes, until QEMU has closed every channel
//!     drop             removes the directory; dom0, its host gone, powers itself off if it still runs
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::channel::Channel;
use crate::command::{CommandError, QemuCommand};
use crate::ext4;
use crate::host::KvmHost;
use crate::machine::{CHANNELS, INITRD_LINK, KERNEL_LINK, Machine, SessionFiles, XEN_LINK};
use crate::notice::{LabDomainId, Lines, Notice};
use crate::prepare::Prepared;
use crate::work::Work;
use crate::workdir::WorkDir;

/// How often the observer is asked whether to go on, while nothing comes.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long a machine that was asked to power off is waited for.
const GRACE: Duration = Duration::from_secs(3);

/// How much of the console is kept for error messages.
const TAIL_BYTES: usize = 16 * 1024;

/// How many lines of it they show.
const TAIL_LINES: usize = 15;

/// Positions in [`CHANNELS`].
const CONSOLE: usize = 0;
const CONTROL: usize = 1;
const STDOUT: usize = 2;

/// Receives what comes out of a running machine. Every method has a default that ignores it.
pub trait Observer {
    /// Bytes from the serial console: Xen's, and dom0's kernel and init.
    fn console(&mut self, _bytes: &[u8]) {}
    /// Bytes that the work wrote to its standard output.
    fn stdout(&mut self, _bytes: &[u8]) {}
    /// Bytes that the work wrote to its standard error.
    fn stderr(&mut self, _bytes: &[u8]) {}
    /// Something that dom0 tells.
    fn notice(&mut self, _notice: &Notice) {}
    /// Asked some ten times a second: a reason to end the session now, such as that QEMU has exited.
    fn interrupt(&mut self) -> Option<String> {
        None
    }
}

/// How a session went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code of the work: the script's, or that of the ready-made domUs (0 when all did well).
    pub exit_code: i32,
    /// From the beginning of `drive` until dom0's toolstack was up.
    pub ready_after: Duration,
    /// From the beginning of `drive` until QEMU had closed everything.
    pub elapsed: Duration,
}

/// A session could not be set up, or did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The session's own files could not be made.
    #[error("cannot set up the lab session: {0}")]
    SetUp(#[source] io::Error),
    /// The image of the user's files could not be made.
    #[error("cannot pack {} for the lab: {source}", dir.display())]
    Files {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        source: CommandError,
    },
    /// The channels broke on this side.
    #[error("lost the lab machine's channels: {0}")]
    Channels(#[source] io::Error),
    /// Time is up.
    #[error("the lab machine did not finish within {} s{console}", after.as_secs())]
    Timeout {
        /// How long it ran.
        after: Duration,
        /// The end of its console.
        console: ConsoleTail,
    },
    /// The machine ended before its work did.
    #[error("the lab machine went down before its work was done{console}")]
    WentDown {
        /// The end of its console.
        console: ConsoleTail,
    },
    /// dom0 could not be made ready.
    #[error("dom0 did not come up: {reason}{console}")]
    Dom0 {
        /// What dom0 said.
        reason: String,
        /// The end of the console.
        console: ConsoleTail,
    },
    /// The observer ended it.
    #[error("the lab session was ended: {reason}{console}")]
    Interrupted {
        /// The observer's reason.
        reason: String,
        /// The end of the console.
        console: ConsoleTail,
    },
}

/// The last lines of a console, shown below an error's own line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsoleTail(pub Vec<String>);

impl std::fmt::Display for ConsoleTail {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        out.write_str("; the end of its console:")?;
        self.0.iter().try_for_each(|line| write!(out, "\n  | {line}"))
    }
}

/// A machine that is about to run, or runs.
pub struct Session {
    command: QemuCommand,
    channels: Vec<Channel>,
    lines: Lines,
    console: Vec<u8>,
    exit_code: Option<i32>,
    ready_after: Option<Duration>,
    failure: Option<String>,
    started: Instant,
    // Dropped last: the sockets above live in it.
    _dir: WorkDir,
}

impl Session {
    /// Sets up a session: makes the disks of its work and listens for QEMU, in a temporary directory of its own.
    pub fn new(prepared: &Prepared, machine: &Machine, work: &Work) -> Result<Self, SessionError> {
        let dir = WorkDir::new().map_err(SessionError::SetUp)?;
        let path = dir.path();
        link_boot_files(prepared, path).map_err(SessionError::SetUp)?;
        let control_disk = path.join("control.cpio");
        let shares = machine.kvm_host.as_ref().map(KvmHost::shares).unwrap_or_default();
        let control = work.control_disk(&shares).map_err(SessionError::SetUp)?;
        fs::write(&control_disk, control).map_err(SessionError::SetUp)?;
        let files_disk = work.files.as_deref().map(|files| pack_files(prepared, files, path)).transpose()?;
        let channels =
            CHANNELS.iter().map(|name| Channel::listen(&path.join(name))).collect::<io::Result<_>>();
        let command = machine.command(prepared, &SessionFiles { dir: path, control_disk, files_disk });
        Ok(Self {
            command,
            channels: channels.map_err(SessionError::SetUp)?,
            lines: Lines::default(),
            console: Vec::new(),
            exit_code: None,
            ready_after: None,
            failure: None,
            started: Instant::now(),
            _dir: dir,
        })
    }

    /// How to start QEMU. Add to it what you like, run it once, and call [`Session::drive`].
    pub fn command(&self) -> &QemuCommand {
        &self.command
    }

    /// Follows the machine until QEMU has ended, passing everything on to the observer.
    ///
    /// QEMU itself is the caller's: after an error it may still run. An observer that knows when it exits should say so
    /// through [`Observer::interrupt`], or a QEMU that never connected is waited for until the deadline.
    pub fn drive(&mut self, observer: &mut dyn Observer, deadline: Instant) -> Result<Outcome, SessionError> {
        self.started = Instant::now();
        let mut deadline = deadline;
        let mut interrupted = None;
        while !self.is_over(interrupted.is_some()) {
            if Instant::now() >= deadline {
                return Err(self.overdue(interrupted));
            }
            self.step(observer).map_err(SessionError::Channels)?;
            if interrupted.is_none() {
                interrupted = observer.interrupt();
                if interrupted.is_some() {
                    self.channels[CONTROL].send(b"stop\n");
                    deadline = deadline.min(Instant::now() + GRACE);
                }
            }
        }
        self.outcome(interrupted)
    }

    /// Waits a moment for something to come, and passes it on.
    fn step(&mut self, observer: &mut dyn Observer) -> io::Result<()> {
        self.wait()?;
        let mut buffer = [0; 16 * 1024];
        for index in 0..self.channels.len() {
            self.channels[index].accept()?;
            let length = self.channels[index].read(&mut buffer);
            if length > 0 {
                self.pass_on(index, &buffer[..length], observer);
            }
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds: Vec<PollFd<'_>> = self
            .channels
            .iter()
            .filter_map(Channel::fd)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let interval = Timespec::try_from(POLL_INTERVAL).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&interval)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn pass_on(&mut self, index: usize, bytes: &[u8], observer: &mut dyn Observer) {
        match index {
            CONSOLE => {
                self.console.extend_from_slice(bytes);
                let surplus = self.console.len().saturating_sub(TAIL_BYTES);
                self.console.drain(..surplus);
                observer.console(bytes);
            }
            CONTROL => {
                for notice in self.lines.push(bytes) {
                    self.note(&notice, observer);
                }
            }
            STDOUT => observer.stdout(bytes),
            _ => observer.stderr(bytes),
        }
    }

    fn note(&mut self, notice: &Notice, observer: &mut dyn Observer) {
        match notice {
            Notice::Here => self.channels[CONTROL].send(b"hello\n"),
            Notice::Ready => self.ready_after = Some(self.started.elapsed()),
            Notice::Exit(code) => self.exit_code = Some(*code),
            Notice::Failed(reason) => self.failure = Some(reason.clone()),
            _ => {}
        }
        observer.notice(notice);
        if *notice == Notice::Ready {
            // The toolstack names dom0 before anybody watches.
            observer.notice(&Notice::Domain { id: LabDomainId(0), name: "Domain-0".to_owned() });
        }
    }

    fn is_over(&self, interrupted: bool) -> bool {
        let never_came = || interrupted && !self.channels.iter().any(Channel::is_open);
        self.channels.iter().all(Channel::is_closed) || never_came()
    }

    fn overdue(&self, interrupted: Option<String>) -> SessionError {
        let console = self.console_tail();
        match interrupted {
            Some(reason) => SessionError::Interrupted { reason, console },
            None => SessionError::Timeout { after: self.started.elapsed(), console },
        }
    }

    fn outcome(&mut self, interrupted: Option<String>) -> Result<Outcome, SessionError> {
        let console = self.console_tail();
        match (self.failure.take(), self.exit_code, interrupted) {
            (Some(reason), _, _) => Err(SessionError::Dom0 { reason, console }),
            (None, Some(exit_code), _) => Ok(Outcome {
                exit_code,
                ready_after: self.ready_after.unwrap_or_default(),
                elapsed: self.started.elapsed(),
            }),
            (None, None, Some(reason)) => Err(SessionError::Interrupted { reason, console }),
            (None, None, None) => Err(SessionError::WentDown { console }),
        }
    }

    fn console_tail(&self) -> ConsoleTail {
        let text = String::from_utf8_lossy(&self.console);
        let printable = |line: &str| line.chars().filter(|sign| !sign.is_control()).collect::<String>();
        let lines: Vec<String> = text.lines().map(printable).filter(|line| !line.trim().is_empty()).collect();
        ConsoleTail(lines[lines.len().saturating_sub(TAIL_LINES)..].to_vec())
    }
}

fn link_boot_files(prepared: &Prepared, dir: &Path) -> io::Result<()> {
    symlink(prepared.xen_image(), dir.join(XEN_LINK))?;
    symlink(prepared.dom0_kernel(), dir.join(KERNEL_LINK))?;
    symlink(prepared.dom0_initrd(), dir.join(INITRD_LINK))
}

fn pack_files(prepared: &Prepared, files: &Path, dir: &Path) -> Result<PathBuf, SessionError> {
    let image = dir.join("files.ext4");
    ext4::make(&prepared.xen_tree, files, &image, 0)
        .map_err(|source| SessionError::Files { dir: files.to_owned(), source })?;
    Ok(image)
}
