//! What the lab tests share.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hypovisor_engine::remote::Engine;
use hypovisor_lab::guests;

/// Held by a test while its machine runs: two machines would only slow each other down.
pub(crate) fn one_machine() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lab machine with the small guests in `/lab/files`, whose script says on its standard output how far it is.
pub(crate) struct LabRun {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    runtime: PathBuf,
}

impl LabRun {
    pub(crate) fn start(dir: &Path, script: &str, args: &[&OsStr]) -> Self {
        let (files, runtime, script_file) = (dir.join("files"), dir.join("runtime"), dir.join("script"));
        guests::build(&files).unwrap();
        std::fs::create_dir(&runtime).unwrap();
        std::fs::write(&script_file, script).unwrap();
        let mut command = hypovisor();
        command.args(["lab", "run", "--files"]).arg(&files).arg("--script").arg(&script_file).args(args);
        command.env("XDG_RUNTIME_DIR", &runtime).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, runtime }
    }

    /// The next line that begins so; panics if the script ends before.
    pub(crate) fn next_line(&mut self, start: &str) -> String {
        let found = self.lines.by_ref().map(Result::unwrap).find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("nothing more was said, and no {start}"))
    }

    /// The engine, to be asked for things.
    pub(crate) fn engine(&self) -> Engine {
        let session = std::fs::read_dir(&self.runtime).unwrap().next().unwrap().unwrap().path();
        Engine::connect(&session.join("engine")).unwrap()
    }

    /// Waits for the script's end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.lines.by_ref().for_each(drop);
        self.child.wait().unwrap()
    }
}

impl Drop for LabRun {
    fn drop(&mut self) {
        // After a failed test, QEMU ends with the process that watches it only if that ends in order.
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32);
        let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        let _ = self.child.wait();
    }
}

/// The program under test.
pub(crate) fn hypovisor() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hypovisor"));
    // The plugins stand where cargo puts libraries, one directory above test programs.
    command.env("HYPOVISOR_PLUGIN_DIR", plugin_dir());
    command
}

fn plugin_dir() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_hypovisor"));
    let dir = program.parent().unwrap().to_owned();
    assert!(
        dir.join("libhypovisor_tcg_v4.so").exists(),
        "the plugins are not built: run `cargo xtask test`, or `cargo build --workspace` first"
    );
    dir
}

/// Runs to the end; panics with all output unless the exit code is the expected one.
pub(crate) fn run(command: &mut Command, expected_code: i32) -> Output {
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(expected_code),
        "{command:?}\nstdout: {}\nstderr: {}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// Bytes as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The one line an error is told in.
pub(crate) fn error_line(output: &Output) -> String {
    let stderr = text(&output.stderr);
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("hypovisor: ")).collect();
    assert_eq!(lines.len(), 1, "one clear line is wanted, not: {stderr}");
    lines[0].to_owned()
}

/// Processes whose command line contains `needle`.
pub(crate) fn processes_with(needle: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let lines = entries.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    let lines = lines.map(|line| text(&line).replace('\0', " "));
    lines.filter(|line| line.contains(needle)).collect()
}
