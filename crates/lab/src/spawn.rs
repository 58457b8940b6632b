//! Starts QEMU without any monitoring: for tests, and for baselines to compare with.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use crate::command::{CommandError, QemuCommand, find, start_error};
use crate::notice::Notice;
use crate::session::{Observer, Outcome, Session, SessionError};

/// A QEMU of our own. Dropping it ends it.
pub struct Unmonitored {
    child: Child,
}

/// Starts the command as it is. Its output is discarded, except for complaints, which go to our standard error.
///
/// QEMU also ends when the thread that called this does, if the machine has `setpriv` (every Debian has).
pub fn spawn_unmonitored(qemu: &QemuCommand) -> Result<Unmonitored, CommandError> {
    let mut command = with_parent(qemu);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.spawn().map_err(start_error(&command))?;
    Ok(Unmonitored { child })
}

/// The command, started through `setpriv` so that the kernel ends it with its parent. `setpriv` becomes the program, so
/// the process id is the program's.
fn with_parent(qemu: &QemuCommand) -> Command {
    let plain = qemu.to_command();
    let Ok(setpriv) = find("setpriv", "util-linux") else { return plain };
    let mut wrapped = QemuCommand { program: setpriv, args: Vec::new(), env: qemu.env.clone() };
    wrapped.args(["--pdeathsig", "KILL", "--"]).args([PathBuf::from(&qemu.program)]).args(qemu.args.clone());
    wrapped.to_command()
}

impl Unmonitored {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended, if it has.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Drives the session whose QEMU this is, and ends early if this QEMU exits.
    pub fn drive(
        &mut self,
        session: &mut Session,
        observer: &mut dyn Observer,
        deadline: Instant,
    ) -> Result<Outcome, SessionError> {
        session.drive(&mut Watching { child: &mut self.child, inner: observer }, deadline)
    }
}

impl Drop for Unmonitored {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An observer that also looks after the process.
struct Watching<'a> {
    child: &'a mut Child,
    inner: &'a mut dyn Observer,
}

impl Observer for Watching<'_> {
    fn console(&mut self, bytes: &[u8]) {
        self.inner.console(bytes);
    }

    fn stdout(&mut self, bytes: &[u8]) {
        self.inner.stdout(bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.inner.stderr(bytes);
    }

    fn notice(&mut self, notice: &Notice) {
        self.inner.notice(notice);
    }

    fn interrupt(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => self.inner.interrupt(),
            Ok(Some(status)) => Some(format!("QEMU ended with {status}")),
            Err(error) => Some(format!("QEMU is lost: {error}")),
        }
    }
}
