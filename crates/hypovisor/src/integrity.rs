//! `--integrity`: what is found of L1 itself becomes alerts.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, bail};
use hypovisor_engine::alert::{ActionTaken, AlertOutput, Alerter};
use hypovisor_engine::integrity::{self, ExecutedCode, IntegrityOptions, IntegrityWatch, Repeats, Told};
use hypovisor_engine::session::Session;
use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_integrity::{Finding, Item};
use hypovisor_l1::SymbolSource;
use hypovisor_machine::Gpa;

/// How far watching L1 is.
enum State {
    Off,
    /// L1 is not known yet.
    Waiting,
    On(IntegrityWatch),
    Ended,
}

/// Watches L1 itself, if that is wished for.
pub(crate) struct Integrity {
    state: State,
    pause: bool,
    repeats: Repeats,
}

impl Integrity {
    pub(crate) fn new(wanted: bool, pause: bool) -> Self {
        let state = if wanted { State::Waiting } else { State::Off };
        Self { state, pause, repeats: Repeats::default() }
    }

    /// Begins as soon as L1 is known; hands on what was found since the last time.
    pub(crate) fn tick<O: AlertOutput>(
        &mut self,
        session: &mut Session,
        alerter: &mut Alerter<O>,
    ) -> anyhow::Result<()> {
        if matches!(self.state, State::Waiting) && session.note().profile.is_some() {
            self.state = State::On(self.start(session)?);
        }
        let changes = session.take_system_changes();
        if matches!(self.state, State::Off) {
            return Ok(());
        }
        let (to_look_at, changes): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_to_be_looked_at);
        let findings: Vec<Finding> = changes.iter().map(integrity::judge).collect();
        let is_to_stop = self.pause && findings.iter().any(Finding::is_tampering);
        let end = is_to_stop.then(|| session.stop());
        let stopped = matches!(end, Some(Ok(())));
        let not_stopped = end.and_then(Result::err).map(|error| not_stopped(&error));
        for finding in findings.into_iter().chain(not_stopped) {
            if self.repeats.is_news(&finding, Instant::now()) {
                alert(integrity::now_ns(), finding, stopped, alerter)?;
            }
        }
        let State::On(watch) = &self.state else { return Ok(()) };
        if session.take_reset() {
            watch.was_reset();
        }
        session.take_written().into_iter().for_each(|page| watch.written(page));
        to_look_at.iter().for_each(|change| hand_on(watch, change));
        let told: Vec<Told> = watch.take().collect();
        for told in told {
            self.tell(told, session, alerter)?;
        }
        Ok(())
    }

    fn start(&self, session: &Session) -> anyhow::Result<IntegrityWatch> {
        let profile = session.note().profile.as_ref();
        let Some(SymbolSource::File(symbols)) = profile.map(|profile| &profile.symbols) else {
            bail!(
                "--integrity needs --symbols: the file that Xen was made with (xen-syms of its debug package)"
            );
        };
        let monitor =
            session.monitor().context("--integrity needs QEMU's monitor, which is not there")?.to_owned();
        let options = IntegrityOptions { monitor, symbols: PathBuf::from(symbols), pause: self.pause };
        IntegrityWatch::start(options).context("cannot start a thread to watch the hypervisor")
    }

    fn tell<O: AlertOutput>(
        &mut self,
        told: Told,
        session: &Session,
        alerter: &mut Alerter<O>,
    ) -> anyhow::Result<()> {
        match told {
            // A sensor that is gone has ended the session, which says so.
            Told::WatchWrites(pages) => {
                session.watch_writes(&pages).unwrap_or_default();
                Ok(())
            }
            Told::Watching { report, bytes } => {
                let mut out = std::io::stderr().lock();
                let _ = writeln!(
                    out,
                    "\rhypovisor: the hypervisor itself is watched: {} KiB compared every 100 ms",
                    bytes >> 10
                );
                for skipped in &report.skipped {
                    let _ = writeln!(out, "hypovisor: not watched: {}", skipped.what);
                }
                Ok(())
            }
            Told::Reset => {
                let line = "the hypervisor was reset; it is watched again once it has booted";
                let _ = writeln!(std::io::stderr(), "\rhypovisor: {line}");
                Ok(())
            }
            Told::Finding { time_ns, finding, stopped } => alert(time_ns, *finding, stopped, alerter),
            Told::NotStopped(error) => alert(integrity::now_ns(), not_stopped(&error), false, alerter),
            Told::Ended(error) => {
                self.state = State::Ended;
                let message = format!("the hypervisor itself is no longer watched: {error}");
                let finding = Finding::unknown(Item::Watch, "watch", message, "what that error comes from");
                alert(integrity::now_ns(), finding, false, alerter)
            }
        }
    }
}

fn alert<O: AlertOutput>(
    time_ns: i64,
    finding: Finding,
    stopped: bool,
    alerter: &mut Alerter<O>,
) -> anyhow::Result<()> {
    let paused = stopped && finding.is_tampering();
    let taken = if paused { ActionTaken::Paused } else { ActionTaken::Observed };
    Ok(alerter.integrity(time_ns, finding, taken)?)
}

/// Of this its user hopes that it stops an attacker: that it did not is worth an alert.
fn not_stopped(error: &dyn std::error::Error) -> Finding {
    let message = format!("the machine could not be stopped for tampering: {error}");
    Finding::unknown(Item::Watch, "machine", message, "whether it runs on: `query-status` at QEMU's monitor")
}

/// What to think of it depends on what L1's memory holds.
const fn is_to_be_looked_at(change: &SystemChange) -> bool {
    use SystemRegister::{Code, ForeignCode, UsedVmcb};
    matches!(change.register, UsedVmcb | Code | ForeignCode)
}

fn hand_on(watch: &IntegrityWatch, change: &SystemChange) {
    let genuine = (change.register == SystemRegister::Code).then(|| change.before.to_le_bytes());
    match change.register {
        SystemRegister::UsedVmcb => watch.used(Gpa(change.now), change.rip),
        _ => watch.executed(ExecutedCode { rip: change.rip, genuine, executed: change.now.to_le_bytes() }),
    }
}
