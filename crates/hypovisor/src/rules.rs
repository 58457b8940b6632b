//! `rules check`, `rules test`, `rules schema`.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use hypovisor_engine::alert::{AlertError, AlertOutput, Alerter, Detection, Report, Severity, replay};
use hypovisor_engine::call::{Call, CallSink, Loss};
use hypovisor_engine::recording::Recording;
use hypovisor_engine::stats::printable;
use hypovisor_rules::{Enforce, Problem, Rules, RulesError};
use serde_json::json;

use crate::FINDINGS;

#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// Say what is wrong with rules, as file:line:column
    #[command(
        after_help = "Every file is read to its end, so all that is wrong is told at once. Rules that ask to \
        block a call where that is not possible are wrong.\n\nExit codes: 0 all rules can be used; 1 they cannot; 2 an \
        error."
    )]
    Check(CheckArgs),
    /// Say how often rules match in recordings
    #[command(
        after_help = "For a recording of ordinary work, which no rule should match, and for one of an attack. \
        `hypovisor trace RECORDING --rules DIR` shows the calls themselves.\n\nExit codes: 0 no rule matches; 1 some \
        do; 2 an error."
    )]
    Test(TestArgs),
    /// Print the JSON Schema of rule files, for editors that check as one types
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A directory of rules, or one rule (docs/rules.md)
    #[arg(value_name = "DIR")]
    pub(crate) rules: PathBuf,
    /// The outcome as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// A directory of rules, or one rule (docs/rules.md)
    #[arg(value_name = "DIR")]
    pub(crate) rules: PathBuf,
    /// The recording to try them on; may be repeated
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) recording: Vec<PathBuf>,
    /// The outcome as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn rules(command: &RulesCommand) -> anyhow::Result<u8> {
    match command {
        RulesCommand::Check(args) => check(args),
        RulesCommand::Test(args) => test(args),
        RulesCommand::Schema => {
            writeln!(std::io::stdout(), "{}", hypovisor_rules::reference::json_schema())?;
            Ok(0)
        }
    }
}

fn check(args: &CheckArgs) -> anyhow::Result<u8> {
    let loaded = Rules::load(&args.rules);
    // What cannot go to a sensor is found at the start of a session otherwise.
    let too_large = loaded.as_ref().ok().and_then(|rules| rules.for_sensor(Enforce::Deny).err());
    let mut out = std::io::stdout().lock();
    match (&loaded, too_large) {
        (Ok(rules), None) => {
            let text = if args.json { passed_json(rules) } else { passed(rules) };
            writeln!(out, "{text}")?;
            Ok(0)
        }
        (Ok(_), Some(error)) => {
            let message = error.to_string();
            let file = args.rules.clone();
            failed(
                &mut out,
                &[Problem { file, line: 0, column: 0, field: String::new(), message }],
                args.json,
            )
        }
        (Err(RulesError { problems }), _) => failed(&mut out, problems, args.json),
    }
}

/// `186 rules: 12 critical, 40 high, …; 3 block`
fn passed(rules: &Rules) -> String {
    let severities = hypovisor_rules::Severity::ALL.into_iter().rev().filter_map(|severity| {
        let count = rules.iter().filter(|rule| rule.severity == severity).count();
        (count > 0).then(|| format!("{count} {}", severity.name()))
    });
    let block = rules.iter().filter(|rule| rule.action.blocks()).count();
    let severities = severities.collect::<Vec<_>>().join(", ");
    format!("{} rules can be used: {severities}; {block} of them ask to block calls", rules.iter().count())
}

fn passed_json(rules: &Rules) -> String {
    let rule = |rule: &hypovisor_rules::Rule| {
        json!({
            "id": rule.id,
            "title": rule.title,
            "severity": rule.severity.name(),
            "blocks": rule.action.blocks(),
            "references": rule.references,
            "file": rule.file,
        })
    };
    let rules_list: Vec<_> = rules.iter().map(rule).collect();
    json!({ "ok": true, "fingerprint": rules.fingerprint(), "rules": rules_list, "problems": [] }).to_string()
}

fn failed(out: &mut impl std::io::Write, problems: &[Problem], json: bool) -> anyhow::Result<u8> {
    if json {
        let problem = |problem: &Problem| {
            let Problem { file, line, column, field, message } = problem;
            json!({ "file": file, "line": line, "column": column, "field": field, "message": message })
        };
        let problems: Vec<_> = problems.iter().map(problem).collect();
        writeln!(out, "{}", json!({ "ok": false, "problems": problems }))?;
    } else {
        for problem in problems {
            writeln!(out, "{problem}")?;
        }
        writeln!(out, "{} problems", problems.len())?;
    }
    Ok(FINDINGS)
}

/// Alerts that are only counted.
struct Nowhere;

impl AlertOutput for Nowhere {
    fn report(&mut self, _: &Report) -> Result<(), AlertError> {
        Ok(())
    }
}

/// Counts calls, and what rules say of them.
struct Trial {
    alerter: Alerter<Nowhere>,
    calls: u64,
}

impl CallSink for Trial {
    type Error = anyhow::Error;

    fn entered(&mut self, call: &Call<'_>) -> anyhow::Result<()> {
        self.calls += 1;
        Ok(self.alerter.entered(call)?)
    }

    fn call(&mut self, call: &Call<'_>) -> anyhow::Result<()> {
        Ok(self.alerter.ended(call)?)
    }

    fn loss(&mut self, _: &Loss) -> anyhow::Result<()> {
        Ok(())
    }
}

/// What a rule did in all recordings.
#[derive(Clone, Default)]
struct Matches {
    alerts: u64,
    undecided: u64,
    switched_off: bool,
}

fn test(args: &TestArgs) -> anyhow::Result<u8> {
    let rules = Arc::new(Rules::load(&args.rules)?);
    let mut matches = vec![Matches::default(); rules.iter().count()];
    let mut calls = 0;
    for path in &args.recording {
        let recording = Recording::open(path)?;
        let alerter = Alerter::replaying(Detection::default().with_rules(rules.clone()), Nowhere);
        let mut trial = Trial { alerter, calls: 0 };
        replay(recording.calls()?, &mut trial)?;
        calls += trial.calls;
        add(&mut matches, &trial, &rules);
    }
    let text = if args.json { tested_json(&rules, &matches, calls) } else { tested(&rules, &matches, calls) };
    write!(std::io::stdout(), "{text}")?;
    let any = matches.iter().any(|matches| matches.alerts > 0 || matches.switched_off);
    Ok(if any { FINDINGS } else { 0 })
}

fn add(matches: &mut [Matches], trial: &Trial, rules: &Rules) {
    for total in trial.alerter.totals() {
        if let Some(matches) =
            rules.index_of(&total.rule.id).and_then(|at| matches.get_mut(usize::from(at.0)))
        {
            matches.alerts += total.alerts;
        }
    }
    for counters in trial.alerter.detection().detectors().map(hypovisor_rules::Detector::counters) {
        for (matches, undecided) in matches.iter_mut().zip(&counters.undecided) {
            matches.undecided += undecided;
        }
        for rule in &counters.switched_off {
            if let Some(matches) = matches.get_mut(usize::from(rule.0)) {
                matches.switched_off = true;
            }
        }
    }
}

fn tested(rules: &Rules, matches: &[Matches], calls: u64) -> String {
    let mut out = String::new();
    let mut found: Vec<(&hypovisor_rules::Rule, &Matches)> =
        rules.iter().zip(matches).filter(|(_, matches)| matches.alerts > 0).collect();
    found.sort_by_key(|(rule, matches)| (std::cmp::Reverse((rule.severity, matches.alerts)), &rule.id));
    for (rule, matches) in &found {
        let (severity, id, title) = (rule.severity.name(), &rule.id, printable(&rule.title));
        out.push_str(&format!("{:>10}  {severity:<13}  {id:<20}  {title}\n", matches.alerts));
    }
    for (rule, _) in rules.iter().zip(matches).filter(|(_, matches)| matches.switched_off) {
        out.push_str(&format!("{} took too long and was switched off\n", rule.id));
    }
    let alerts: u64 = matches.iter().map(|matches| matches.alerts).sum();
    let high: u64 = found.iter().filter(|(rule, _)| is_high(rule)).map(|(_, matches)| matches.alerts).sum();
    out.push_str(&format!(
        "{calls} calls, {} rules: {alerts} alerts by {} rules, {high} of them high or critical\n",
        matches.len(),
        found.len()
    ));
    out
}

fn is_high(rule: &hypovisor_rules::Rule) -> bool {
    Severity::from_name(rule.severity.name()) >= Some(Severity::High)
}

fn tested_json(rules: &Rules, matches: &[Matches], calls: u64) -> String {
    let rule = |(rule, matches): (&hypovisor_rules::Rule, &Matches)| {
        json!({
            "id": rule.id,
            "severity": rule.severity.name(),
            "alerts": matches.alerts,
            "undecided": matches.undecided,
            "switched_off": matches.switched_off,
        })
    };
    let alerts: u64 = matches.iter().map(|matches| matches.alerts).sum();
    let rules: Vec<_> = rules.iter().zip(matches).map(rule).collect();
    format!("{}\n", json!({ "calls": calls, "alerts": alerts, "rules": rules }))
}
