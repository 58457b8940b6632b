//! Boots a lab machine by hand, without monitoring:
//!
//! ```text
//!     cargo run -p hypovisor-lab --example boot -- [--xen 4.17] [--qemu 11.1] [--domu pv,pvh] [--script FILE]
//!         [--files DIR] [--console] [--parallel] [--qemu-arg ARG]... [--dom0-option OPTION]...
//!         [--xen-option OPTION]...
//!         [--seconds N]
//! ```
//!
//! The exit code is that of the work.

use std::error::Error;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hypovisor_lab::{
    Lab, Machine, Notice, Observer, Progress, QemuVersion, Session, Unit, Work, XenVersion, spawn_unmonitored,
};

struct Terminal {
    console: bool,
    started: Instant,
}

impl Terminal {
    fn say(&self, text: &str) {
        let _ = writeln!(stderr(), "[{:6.2} s] {text}", self.started.elapsed().as_secs_f64());
    }
}

impl Observer for Terminal {
    fn console(&mut self, bytes: &[u8]) {
        if self.console {
            let _ = stderr().write_all(bytes);
        }
    }

    fn stdout(&mut self, bytes: &[u8]) {
        let _ = stdout().write_all(bytes);
        let _ = stdout().flush();
    }

    fn stderr(&mut self, bytes: &[u8]) {
        let _ = stderr().write_all(bytes);
    }

    fn notice(&mut self, notice: &Notice) {
        self.say(&format!("{notice:?}"));
    }
}

impl Progress for Terminal {
    fn step(&mut self, name: &str, unit: Unit, total: Option<u64>) {
        self.say(&format!("{name} ({total:?} {unit:?})"));
    }

    fn finish(&mut self) {
        self.say("done");
    }
}

fn main() -> ExitCode {
    boot().unwrap_or_else(|error| {
        let _ = writeln!(stderr(), "{error}");
        ExitCode::from(2)
    })
}

fn boot() -> Result<ExitCode, Box<dyn Error>> {
    let (mut xen, mut qemu, mut work) = (XenVersion::default(), QemuVersion::default(), Work::default());
    let (mut console, mut extra, mut seconds) = (false, Vec::new(), 300);
    let (mut dom0, mut hypervisor, mut parallel) = (Vec::new(), Vec::new(), false);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if flag == "--parallel" {
            parallel = true;
            continue;
        }
        if flag == "--console" {
            console = true;
            continue;
        }
        let value = args.next().ok_or("a flag has no value")?;
        match flag.as_str() {
            "--xen" if value == "4.17" => xen = XenVersion::V4_17,
            "--xen" if value == "4.20" => xen = XenVersion::V4_20,
            "--qemu" if value == "11.1" => qemu = QemuVersion::V11_1,
            "--qemu" if value == "10.0" => qemu = QemuVersion::V10_0,
            "--domu" => work.domus = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--script" => work.script = Some(value.into()),
            "--files" => work.files = Some(value.into()),
            "--dom0-option" => dom0.push(value),
            "--xen-option" => hypervisor.push(value),
            "--qemu-arg" => extra.push(value),
            "--seconds" => seconds = value.parse()?,
            _ => return Err(format!("unknown: {flag} {value}").into()),
        }
    }
    let machine = Machine { parallel, dom0_options: dom0, xen_options: hypervisor, ..Machine::default() };
    let mut terminal = Terminal { console, started: Instant::now() };
    let prepared = Lab::open()?.prepare(xen, qemu, &mut terminal)?;
    let mut session = Session::new(&prepared, &machine, &work)?;
    let mut command = session.command().clone();
    command.args(extra);
    let mut qemu = spawn_unmonitored(&command)?;
    let outcome = qemu.drive(&mut session, &mut terminal, Instant::now() + Duration::from_secs(seconds))?;
    terminal.say(&format!("{outcome:?}"));
    Ok(ExitCode::from(u8::try_from(outcome.exit_code).unwrap_or(255)))
}
