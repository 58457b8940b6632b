//! What the lab tests share.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hypovisor_engine::remote::{Engine, InjectionRequest};
use hypovisor_lab::{
    Accelerator, Lab, Machine, Observer, Outcome, QemuVersion, Session, Silent, Work, XenVersion, guests,
};

/// Names what the tests' machines run on: `tcg` unless set, or `kvm`. `cargo xtask test --l0 kvm` sets it.
const L0_VARIABLE: &str = "HYPOVISOR_TEST_L0";

/// Whether the tests' machines run on KVM.
pub(crate) fn is_kvm() -> bool {
    std::env::var_os(L0_VARIABLE).is_some_and(|l0| l0 == "kvm")
}

/// `hypovisor lab run` on what the tests run on.
pub(crate) fn lab_run() -> Command {
    let mut command = hypovisor();
    // Emulated KVM is slow.
    let arguments =
        if is_kvm() { ["--l0", "kvm", "--timeout", "3000"] } else { ["--l0", "tcg", "--timeout", "600"] };
    command.args(["lab", "run"]).args(arguments);
    command
}

/// The usual machine on what the tests run on.
pub(crate) fn machine() -> Machine {
    Machine::on(if is_kvm() { Accelerator::Kvm } else { Accelerator::Tcg })
}

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
        std::fs::create_dir_all(&runtime).unwrap();
        std::fs::write(&script_file, script).unwrap();
        let mut command = lab_run();
        command.arg("--files").arg(&files).arg("--script").arg(&script_file).args(args);
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
        engine_in(&self.runtime).unwrap()
    }

    /// What the program says that is run beside the one that watches.
    pub(crate) fn ask(&self, args: &[&str]) -> String {
        text(&run(hypovisor().env("XDG_RUNTIME_DIR", &self.runtime).args(args), 0).stdout)
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

/// The engine whose sockets are in this runtime directory, if one listens.
fn engine_in(runtime: &Path) -> Option<Engine> {
    let session = std::fs::read_dir(runtime).unwrap().next()?.unwrap().path();
    Engine::connect(&session.join("engine")).ok()
}

/// A lab machine that the test drives itself, in the background, so that it can do things to the processes that watch it.
pub(crate) struct Driven {
    session: Mutex<Session>,
    said: Mutex<String>,
    /// How it ended.
    end: OnceLock<Result<(), String>>,
    symbols: PathBuf,
    runtime: PathBuf,
}

/// How long anything in a driven machine may take.
const PATIENCE: Duration = Duration::from_secs(600);

impl Driven {
    /// With the small guests in `/lab/files`.
    pub(crate) fn new(dir: &Path, script: &str) -> Self {
        let (files, runtime, script_file) = (dir.join("files"), dir.join("runtime"), dir.join("script"));
        guests::build(&files).unwrap();
        std::fs::create_dir(&runtime).unwrap();
        std::fs::write(&script_file, script).unwrap();
        let lab = Lab::open().unwrap();
        let prepared = lab.prepare(XenVersion::V4_20, QemuVersion::V10_0, &mut Silent).unwrap();
        let work = Work { script: Some(script_file), files: Some(files), ..Work::default() };
        let session = Session::new(&prepared, &machine(), &work).unwrap();
        Self {
            session: Mutex::new(session),
            said: Mutex::new(String::new()),
            end: OnceLock::new(),
            symbols: prepared.xen_symbols(),
            runtime,
        }
    }

    /// The file with Xen's symbols.
    pub(crate) fn symbols(&self) -> &Path {
        &self.symbols
    }

    /// Starts QEMU, watched.
    pub(crate) fn start(&self, recording: &Path) -> Child {
        self.start_with(recording, &[])
    }

    /// The same with more in QEMU's command line.
    pub(crate) fn start_with(&self, recording: &Path, qemu_args: &[OsString]) -> Child {
        self.watched(&[], recording, qemu_args).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn watched(&self, options: &[&str], recording: &Path, qemu_args: &[OsString]) -> Command {
        let session = self.session.lock().unwrap();
        let qemu = session.command();
        let mut command = hypovisor();
        command.envs(qemu.env.iter().cloned()).arg("run").args(options).arg("--record").arg(recording);
        command.arg("--").arg(&qemu.program).args(&qemu.args).args(qemu_args);
        command.env("XDG_RUNTIME_DIR", &self.runtime);
        command
    }

    /// As [`Driven::start_with`], and L1 itself is watched; alerts go to this file.
    pub(crate) fn start_guarded(&self, recording: &Path, alerts: &Path, qemu_args: &[OsString]) -> Child {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (symbols, alerts) = (path(&self.symbols), path(alerts));
        let options = ["--integrity", "--symbols", &symbols, "--alerts", &alerts];
        self.watched(&options, recording, qemu_args).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// QEMU in the place of the process that is started.
    pub(crate) fn start_in_place(&self, recording: &Path) -> Child {
        self.watched(&["--in-place", "--require"], recording, &[]).spawn().unwrap()
    }

    /// The command of an engine that takes over.
    pub(crate) fn attach(&self) -> Command {
        let mut command = hypovisor();
        command.env("XDG_RUNTIME_DIR", &self.runtime).arg("attach");
        command
    }

    /// Follows the machine to its end, and tells what kept its script from success.
    pub(crate) fn drive(&self) -> Result<(), String> {
        struct Listener<'a> {
            said: &'a Mutex<String>,
            stderr: Vec<u8>,
        }
        impl Observer for Listener<'_> {
            fn stdout(&mut self, bytes: &[u8]) {
                self.said.lock().unwrap().push_str(&text(bytes));
            }
            fn stderr(&mut self, bytes: &[u8]) {
                self.stderr.extend_from_slice(bytes);
            }
        }
        let mut listener = Listener { said: &self.said, stderr: Vec::new() };
        let outcome = self.session.lock().unwrap().drive(&mut listener, Instant::now() + PATIENCE);
        let stderr = text(&listener.stderr);
        let end = match outcome {
            Ok(Outcome { exit_code: 0, .. }) => Ok(()),
            Ok(Outcome { exit_code, .. }) => Err(format!("the script ended with {exit_code}: {stderr}")),
            Err(error) => Err(format!("{error}: {stderr}")),
        };
        self.end.get_or_init(|| end).clone()
    }

    /// Waits until the script has said this, and returns the rest of that line.
    pub(crate) fn wait_for(&self, what: &str) -> String {
        self.wait_for_nth(1, what)
    }

    /// Waits until the script has said this so many times, and returns the rest of that line.
    pub(crate) fn wait_for_nth(&self, times: usize, what: &str) -> String {
        let start = Instant::now();
        loop {
            let end = self.end.get();
            let said = self.said.lock().unwrap();
            let rest = said.splitn(times + 1, what).nth(times);
            if let Some((line, _)) = rest.and_then(|rest| rest.split_once('\n')) {
                return line.to_owned();
            }
            let in_time = end.is_none() && start.elapsed() < PATIENCE;
            assert!(in_time, "{what:?} was not said {times} times, but {said:?}; the end: {end:?}");
            drop(said);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The engine that watches, to be asked for things; waits for one.
    pub(crate) fn engine(&self) -> Engine {
        let start = Instant::now();
        loop {
            if let Some(engine) = engine_in(&self.runtime) {
                return engine;
            }
            assert!(start.elapsed() < PATIENCE, "no engine listens");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The program under test.
pub(crate) fn hypovisor() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hypovisor"));
    // The plugins stand where cargo puts libraries, one directory above test programs.
    command.env("HYPOVISOR_PLUGIN_DIR", plugin_dir());
    command
}

/// An adapter's library.
pub(crate) fn library(name: &str) -> PathBuf {
    plugin_dir().join(name)
}

fn plugin_dir() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_hypovisor"));
    let dir = program.parent().unwrap().to_owned();
    assert!(
        ["libhypovisor_tcg_v4.so", "libhypovisor_kvm.so"].iter().all(|name| dir.join(name).exists()),
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

/// A call without memory.
pub(crate) fn injection(domain: u16, number: u64, first: [u64; 2]) -> InjectionRequest {
    InjectionRequest {
        id: 1,
        domain,
        vcpu: None,
        is_64_bit: true,
        number,
        registers: [first[0], first[1], 0, 0, 0, 0],
        memory: Vec::new(),
        registers_to: Vec::new(),
        memory_to: Vec::new(),
    }
}

/// Processes whose command line contains `needle`.
pub(crate) fn processes_with(needle: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let lines = entries.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    let lines = lines.map(|line| text(&line).replace('\0', " "));
    lines.filter(|line| line.contains(needle)).collect()
}
