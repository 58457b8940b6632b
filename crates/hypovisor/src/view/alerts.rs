//! `trace` with `--rules`, `--policy` or `--profile`: the alerts that a session with these would have raised.
//!
//! As text, each call that raised alerts with the alerts under it; as JSON, the lines that `--alerts FILE` would have
//! got, in that order.

use std::collections::HashMap;
use std::io::{BufWriter, Stdout, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use hypovisor_abi::text::Detail;
use hypovisor_engine::alert::{Alert, AlertFormat, Alerter, Detection, Report, replay};
use hypovisor_engine::call::{Call, CallId, CallSink, Loss};
use hypovisor_engine::domains::Domains;
use hypovisor_engine::event_line;
use hypovisor_engine::policy::Policy;
use hypovisor_engine::profile::Profile;
use hypovisor_engine::recording::{Manifest, Recording};
use hypovisor_engine::stats::printable;
use hypovisor_rules::Rules;

use super::Filter;
use crate::FINDINGS;
use crate::cli::TraceArgs;

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Alerts")]
pub(crate) struct AlertArgs {
    /// Print only what these rules find: each such call with its alerts, or with --json the alerts (docs/alerts.md); may be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Vec<PathBuf>,
    /// Print what this policy does not list (`hypovisor policy`)
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Print what deviates from this profile (`hypovisor learn`)
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
}

impl AlertArgs {
    /// Whether alerts are to be printed rather than all calls.
    pub(crate) const fn are_wanted(&self) -> bool {
        !self.rules.is_empty() || self.policy.is_some() || self.profile.is_some()
    }

    /// Loads what is to be looked for in this recording.
    fn load(&self, manifest: &Manifest) -> anyhow::Result<Detection> {
        let mut detection = Detection::default();
        if !self.rules.is_empty() {
            let paths = self.rules.iter().map(PathBuf::as_path);
            detection = detection.with_rules(Arc::new(Rules::load_with(paths, Vec::new())?));
        }
        if let Some(path) = &self.policy {
            let mut domains = Domains::default();
            manifest.domains.iter().for_each(|domain| domains.name(domain.id, &domain.name));
            detection = detection.with_rules(Arc::new(Policy::load(path)?.to_rules(&domains, false)?));
        }
        if let Some(path) = &self.profile {
            detection = detection.with_profile(&Profile::load(path)?);
        }
        Ok(detection)
    }
}

/// Prints alerts; exit code 1 if there are any.
pub(super) fn trace(args: &TraceArgs, filter: &Filter<'_>) -> anyhow::Result<u8> {
    if args.json && args.failed {
        bail!(
            "--failed does not go with --json here: whether a call fails is not known when it raises an alert"
        );
    }
    let recording = Recording::open(&args.recording)?;
    let calls = if args.follow { recording.follow()? } else { recording.calls()? };
    let mut alerter = Alerter::replaying(args.alerts.load(recording.manifest())?, Vec::new());
    for domain in &recording.manifest().domains {
        alerter.name(domain.id, &domain.name);
    }
    let mut printer = Printer {
        alerter,
        filter,
        json: args.json,
        flush: args.follow,
        detail: if args.full { Detail::Full } else { Detail::Line },
        waiting: HashMap::new(),
        out: BufWriter::new(std::io::stdout()),
        line: String::new(),
    };
    replay(calls, &mut printer)?;
    printer.finish()?;
    let any = printer.alerter.totals().iter().any(|total| total.alerts > 0);
    Ok(if any { FINDINGS } else { 0 })
}

/// Prints calls with their alerts.
struct Printer<'a> {
    alerter: Alerter<Vec<Report>>,
    filter: &'a Filter<'a>,
    json: bool,
    flush: bool,
    detail: Detail,
    /// Alerts of calls that have not ended yet.
    waiting: HashMap<CallId, Vec<Alert>>,
    out: BufWriter<Stdout>,
    line: String,
}

impl Printer<'_> {
    /// Takes what `call` raised.
    fn take(&mut self, call: &Call<'_>) -> anyhow::Result<()> {
        if self.alerter.output().is_empty() {
            return Ok(());
        }
        for report in std::mem::take(self.alerter.output()) {
            match report {
                Report::Alert(_) if !self.filter.concerns(call) => {}
                Report::Alert(alert) if !self.json => self.waiting.entry(call.id).or_default().push(*alert),
                report => self.print(&report)?,
            }
        }
        Ok(())
    }

    fn print(&mut self, report: &Report) -> anyhow::Result<()> {
        self.line.clear();
        match report {
            report if self.json => AlertFormat::Json.write_line(&mut self.line, report),
            Report::Alert(alert) => {
                let (severity, id, title) =
                    (alert.rule.severity.name(), &alert.rule.id, printable(&alert.rule.title));
                let reason = alert
                    .reason
                    .as_deref()
                    .map_or_else(String::new, |reason| format!(" ({})", printable(reason)));
                let taken = match alert.taken.name() {
                    "observed" => String::new(),
                    taken => format!(" [{taken}]"),
                };
                self.line = format!("    ^ {severity} {id}: {title}{reason}{taken}");
            }
            Report::RuleOff(off) => {
                self.line = format!("    ! {} took too long for this call and is switched off", off.rule.id);
            }
            Report::Integrity(alert) => self.line = format!("    ! {}", printable(&alert.finding.message)),
            Report::Storm(storm) => {
                self.line =
                    format!("    … {} more alerts of {} within a second", storm.held_back, storm.rule.id);
            }
        }
        self.line.push('\n');
        self.out.write_all(self.line.as_bytes())?;
        if self.flush {
            self.out.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.alerter.finish()?;
        for report in std::mem::take(self.alerter.output()) {
            self.print(&report)?;
        }
        self.out.flush()?;
        Ok(())
    }
}

impl CallSink for Printer<'_> {
    type Error = anyhow::Error;

    fn entered(&mut self, call: &Call<'_>) -> anyhow::Result<()> {
        self.alerter.entered(call)?;
        self.take(call)
    }

    fn call(&mut self, call: &Call<'_>) -> anyhow::Result<()> {
        self.alerter.ended(call)?;
        self.take(call)?;
        let Some(alerts) = self.waiting.remove(&call.id).filter(|_| self.filter.passes(call)) else {
            return Ok(());
        };
        self.line.clear();
        event_line::write_line(&mut self.line, call, self.detail);
        self.line.push('\n');
        self.out.write_all(self.line.as_bytes())?;
        alerts.into_iter().try_for_each(|alert| self.print(&Report::Alert(Box::new(alert))))
    }

    fn loss(&mut self, _: &Loss) -> anyhow::Result<()> {
        self.alerter.lost();
        Ok(())
    }
}
