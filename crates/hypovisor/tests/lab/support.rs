//! What the lab tests share.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by a test while its machine runs: two machines would only slow each other down.
pub(crate) fn one_machine() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
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
