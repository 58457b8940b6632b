//! What is looked for while a session runs, and what is done about it.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use hypovisor_engine::alert::{
    ActionTaken, AlertError, AlertFormat, AlertOutput, AlertSink, AlertWriter, Alerter, Detection,
    IntegrityAlert, Report, Severity,
};
use hypovisor_engine::domains::Domains;
use hypovisor_engine::policy::Policy;
use hypovisor_engine::profile::Profile;
use hypovisor_engine::remote::Request;
use hypovisor_engine::session::Session;
use hypovisor_rules::{Enforce, Rules};
use serde_json::json;

use crate::integrity::Integrity;
use crate::output::Output;

/// How often storms that are over are looked for.
const TICK: Duration = Duration::from_millis(200);

/// Where a session's calls go: past what looks for attacks, then to the recording or the terminal.
pub(crate) type Watched = AlertSink<Output, Box<dyn AlertOutput>>;

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Detection")]
pub(crate) struct DetectArgs {
    /// Rules to look for: a directory or a file (docs/rules.md); may be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Vec<PathBuf>,
    /// What becomes of calls that a rule would deny or pause
    #[arg(long, value_enum, default_value = "observe")]
    pub(crate) enforce: EnforceArg,
    /// Look for deviations from this profile (`hypovisor learn`)
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// Only what this policy lists is expected (`hypovisor policy`); with --enforce deny, the rest is refused
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Append alerts to this file; without it they are shown on standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) alerts: Option<PathBuf>,
    /// The form of alerts in the file
    #[arg(long, value_enum, default_value = "json", requires = "alerts")]
    pub(crate) alert_format: FormatArg,
    /// Watch the hypervisor itself: its code, page tables, registers, gates and lists of domains (docs/integrity.md)
    #[arg(long)]
    pub(crate) integrity: bool,
    /// What to do when the hypervisor was tampered with
    #[arg(long, value_enum, default_value = "alert", requires = "integrity")]
    pub(crate) on_tamper: TamperArg,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TamperArg {
    /// Tell
    #[default]
    Alert,
    /// Tell, and stop the machine until `hypovisor resume`
    Pause,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnforceArg {
    /// They run; alerts are raised
    #[default]
    Observe,
    /// They run; the sensor decides as if, and the recording and the alerts say what it would have done
    WouldDeny,
    /// They do not run
    Deny,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// JSON lines (docs/alerts.md)
    #[default]
    Json,
    /// OCSF Detection Findings
    Ocsf,
    /// RFC 5424 lines
    Syslog,
}

impl From<EnforceArg> for Enforce {
    fn from(argument: EnforceArg) -> Self {
        match argument {
            EnforceArg::Observe => Self::Observe,
            EnforceArg::WouldDeny => Self::WouldDeny,
            EnforceArg::Deny => Self::Deny,
        }
    }
}

/// Rules, profile and where alerts go, loaded before anything is started.
pub(crate) struct Detecting {
    args: DetectArgs,
    /// The rules, the policy's among them.
    rules: Option<Arc<Rules>>,
    profile: Option<Profile>,
    integrity: Integrity,
    ticked: Instant,
}

impl Detecting {
    /// Loads and checks all of it.
    pub(crate) fn load(args: &DetectArgs) -> anyhow::Result<Self> {
        let rules = load_rules(args)?.map(Arc::new);
        let profile = args.profile.as_deref().map(Profile::load).transpose()?;
        let integrity = Integrity::new(args.integrity, args.on_tamper == TamperArg::Pause);
        Ok(Self { args: args.clone(), rules, profile, integrity, ticked: Instant::now() })
    }

    /// Puts what looks for attacks before `output`.
    pub(crate) fn before(&self, output: Output) -> anyhow::Result<Watched> {
        let detection = self.detection();
        let alerter = if detection.is_empty() && !self.args.integrity {
            None
        } else {
            Some(Alerter::live(detection, self.target()?))
        };
        Ok(AlertSink { inner: output, alerter })
    }

    pub(crate) const fn has_rules(&self) -> bool {
        self.rules.is_some()
    }

    /// Tells the sensor what to refuse; nothing, if there are no rules.
    pub(crate) fn arm(&self, session: &mut Session) -> anyhow::Result<()> {
        let enforce = self.args.enforce.into();
        let blocking = self.rules.as_ref().map(|rules| rules.for_sensor(enforce)).transpose()?;
        let compiled = blocking.filter(|blocking| !blocking.is_empty()).map(|blocking| blocking.to_bytes());
        session.set_rules(compiled.as_deref(), enforce == Enforce::Deny)?;
        Ok(())
    }

    /// To be called after each step: tells of storms and pauses, and does what other processes ask.
    pub(crate) fn tick(&mut self, session: &mut Session, watched: &mut Watched) -> anyhow::Result<()> {
        if let Some(call) = session.take_paused() {
            let (pcpu, sequence) = (call.pcpu, call.sequence);
            let _ = writeln!(
                std::io::stderr(),
                "hypovisor: the machine is stopped before call {pcpu}:{sequence}; `hypovisor resume` lets it go on"
            );
        }
        if self.ticked.elapsed() < TICK {
            return Ok(());
        }
        self.ticked = Instant::now();
        if let Some(alerter) = &mut watched.alerter {
            alerter.tick()?;
            self.integrity.tick(session, alerter)?;
        }
        self.answer(session, watched)
    }

    fn answer(&mut self, session: &mut Session, watched: &mut Watched) -> anyhow::Result<()> {
        let commands = session.remote().map(|remote| remote.take_commands()).unwrap_or_default();
        for command in commands {
            let answer = match &command.request {
                Request::ReloadRules {} => self.reload(session, watched),
                Request::UnloadRules {} => self.replace_rules(None, session, watched),
                Request::Resume {} => {
                    session.resume().map(|stopped| json!({ "resumed": stopped })).map_err(Into::into)
                }
                Request::Status {} => Ok(self.status(session, watched)),
                Request::Inject(_) => continue,
            };
            let answer = answer.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
            if let Some(remote) = session.remote() {
                remote.answer(&command, &answer);
            }
        }
        Ok(())
    }

    /// Rules with errors leave those in force that are.
    fn reload(&mut self, session: &mut Session, watched: &mut Watched) -> anyhow::Result<serde_json::Value> {
        let rules = load_rules(&self.args)?.context("this engine was started without --rules or --policy")?;
        self.replace_rules(Some(rules), session, watched)
    }

    fn replace_rules(
        &mut self,
        rules: Option<Rules>,
        session: &mut Session,
        watched: &mut Watched,
    ) -> anyhow::Result<serde_json::Value> {
        self.rules = rules.map(Arc::new);
        self.arm(session)?;
        let detection = self.detection();
        if let Some(alerter) = &mut watched.alerter {
            alerter.look_for(detection);
        }
        Ok(json!({ "rules": self.rule_count() }))
    }

    fn status(&self, session: &Session, watched: &Watched) -> serde_json::Value {
        let totals = watched.alerter.iter().flat_map(Alerter::totals);
        let alerts: serde_json::Map<_, _> =
            totals.map(|total| (total.rule.id.clone(), json!(total.alerts))).collect();
        json!({
            "rules": self.rule_count(),
            "alerts": alerts,
            "domains": session.note().domains.iter().collect::<Vec<_>>(),
        })
    }

    fn rule_count(&self) -> usize {
        self.rules.as_ref().map_or(0, |rules| rules.iter().count())
    }

    fn detection(&self) -> Detection {
        let mut detection = Detection::default();
        if let Some(rules) = &self.rules {
            detection = detection.with_rules(rules.clone());
        }
        if let Some(profile) = &self.profile {
            detection = detection.with_profile(profile);
        }
        detection
    }

    fn target(&self) -> anyhow::Result<Box<dyn AlertOutput>> {
        let format = match self.args.alert_format {
            FormatArg::Json => AlertFormat::Json,
            FormatArg::Ocsf => AlertFormat::Ocsf,
            FormatArg::Syslog => AlertFormat::Syslog,
        };
        Ok(match &self.args.alerts {
            Some(path) => Box::new(AlertWriter::append(path, format)?),
            None => Box::new(Terminal::new()),
        })
    }
}

/// Rules and policy, which the sensor takes as one set. They are checked for it, too.
fn load_rules(args: &DetectArgs) -> anyhow::Result<Option<Rules>> {
    if args.rules.is_empty() && args.policy.is_none() {
        return Ok(None);
    }
    let deny = args.enforce != EnforceArg::Observe;
    let policy = args.policy.as_deref().map(Policy::load).transpose()?;
    let texts = policy.map(|policy| policy.to_rule_texts(&Domains::default(), deny)).transpose()?;
    let texts = texts.into_iter().flatten().map(|(id, text)| (PathBuf::from(format!("{id}.yaml")), text));
    let rules = Rules::load_with(args.rules.iter().map(PathBuf::as_path), texts.collect())?;
    rules.for_sensor(args.enforce.into())?;
    Ok(Some(rules))
}

/// Shows alerts on standard error, two lines each.
pub(crate) struct Terminal {
    colour: bool,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Self { colour: std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn mark(&self, severity: Severity) -> (&'static str, &'static str) {
        match severity {
            _ if !self.colour => ("", ""),
            Severity::High | Severity::Critical => ("\x1b[1;31m", "\x1b[0m"),
            Severity::Medium => ("\x1b[33m", "\x1b[0m"),
            Severity::Low | Severity::Informational => ("\x1b[2m", "\x1b[0m"),
        }
    }
}

impl Terminal {
    fn integrity(&self, out: &mut impl Write, alert: &IntegrityAlert) -> std::io::Result<()> {
        let (on, off) = self.mark(alert.rule.severity);
        let (id, title, message) = (&alert.rule.id, &alert.rule.title, alert.finding.message.escape_debug());
        let taken = if alert.taken == ActionTaken::Paused { " paused" } else { "" };
        let severity = alert.rule.severity.name();
        writeln!(out, "\rALERT {on}{severity} {id}{off}: {title}{taken}\n    {message}")?;
        for (name, lines) in [("was", &alert.finding.expected), ("is", &alert.finding.found)] {
            for line in lines {
                writeln!(out, "    {name:<4} {line}")?;
            }
        }
        Ok(())
    }
}

impl AlertOutput for Terminal {
    fn report(&mut self, report: &Report) -> Result<(), AlertError> {
        let mut out = std::io::stderr().lock();
        // A closed standard error is no reason to stop watching.
        let _ = match report {
            Report::Alert(alert) => {
                let (on, off) = self.mark(alert.rule.severity);
                let (id, title) = (&alert.rule.id, &alert.rule.title);
                let reason =
                    alert.reason.as_deref().map_or_else(String::new, |reason| format!(" ({reason})"));
                let taken = if alert.taken == ActionTaken::Observed { "" } else { alert.taken.name() };
                let severity = alert.rule.severity.name();
                writeln!(out, "\r{on}ALERT {severity} {id}{off}: {title}{reason} {taken}\n    {}", alert.line)
            }
            Report::RuleOff(off) => writeln!(
                out,
                "\rRULE OFF {}: it took too long; `hypovisor reload` switches it on again\n    {}",
                off.rule.id, off.line
            ),
            Report::Integrity(alert) => self.integrity(&mut out, alert),
            Report::Storm(storm) => {
                writeln!(out, "\rALERT {}: {} more in a second", storm.rule.id, storm.held_back)
            }
        };
        Ok(())
    }
}
