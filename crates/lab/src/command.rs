//! Programs: the one that is handed to the caller (QEMU) and the small ones run here (apt-get, dpkg-deb, mke2fs, ...).

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// How many lines of a failed program's complaint are shown.
const COMPLAINT_LINES: usize = 3;

/// A program with its arguments and the variables added to its environment: how QEMU is to be started. Arguments may be
/// appended (`-plugin`, a memory backend); the order of those given does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuCommand {
    /// The program to execute.
    pub program: PathBuf,
    /// Its arguments, without the program's own name.
    pub args: Vec<OsString>,
    /// Variables to add to the environment.
    pub env: Vec<(OsString, OsString)>,
}

impl QemuCommand {
    /// Appends arguments.
    pub fn args<T: Into<OsString>>(&mut self, args: impl IntoIterator<Item = T>) -> &mut Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The same as a [`Command`], ready to be spawned.
    pub fn to_command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A program that the lab needs did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not on this machine.
    #[error("{program} is missing; install the Debian package {package}")]
    Missing {
        /// The program.
        program: String,
        /// Where Debian keeps it.
        package: &'static str,
    },
    /// It could not be started, or talked to.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It said that it failed.
    #[error("{program} failed ({status}): {complaint}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        complaint: String,
    },
}

/// Finds a program in `$PATH`, and where administrators' programs live, which users often have not in theirs.
pub(crate) fn find(program: &str, package: &'static str) -> Result<PathBuf, CommandError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| CommandError::Missing { program: program.to_owned(), package })
}

/// Runs a program to its end and returns what it wrote to its standard output.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>, CommandError> {
    let output = command.stdin(Stdio::null()).output().map_err(start_error(command))?;
    check(command, &output).map(|()| output.stdout)
}

/// An error if the program ended badly, with the end of its standard error, or else of its standard output.
pub(crate) fn check(command: &Command, output: &Output) -> Result<(), CommandError> {
    if output.status.success() {
        return Ok(());
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(CommandError::Failed {
        program: name(command),
        status: output.status.to_string(),
        complaint: complaint(said),
    })
}

pub(crate) fn start_error(command: &Command) -> impl FnOnce(io::Error) -> CommandError + use<> {
    let program = name(command);
    move |source| CommandError::Start { program, source }
}

/// The last lines of a program's complaint, errors first, as one line.
pub(crate) fn complaint(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let errors: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("E:")).collect();
    let chosen = if errors.is_empty() { lines } else { errors };
    chosen[chosen.len().saturating_sub(COMPLAINT_LINES)..].join("; ")
}

fn name(command: &Command) -> String {
    let is_loader = |path: &OsStr| {
        Path::new(path).file_name().is_some_and(|file| file.to_string_lossy().starts_with("ld-linux"))
    };
    // The loader's arguments are --library-path, a path, and the program; or --argv0 and a name before those.
    let program = match command.get_args().next() {
        Some(first) if is_loader(command.get_program()) => {
            command.get_args().nth(if first == "--argv0" { 1 } else { 2 }).unwrap_or(command.get_program())
        }
        _ => command.get_program(),
    };
    Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_the_program_and_its_complaint() {
        let error = run(Command::new("/bin/sh").args(["-c", "echo a >&2; echo 'E: no route' >&2; exit 3"]))
            .unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit status: 3): E: no route");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = find("no-such-program-here", "some-package").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no-such-program-here is missing; install the Debian package some-package"
        );
    }
}
