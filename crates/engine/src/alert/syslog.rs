//! Alerts as lines of syslog (RFC 5424).
//!
//! ```text
//! <82>1 2026-11-22T22:45:45.123456Z host hypovisor 4711 alert [hypovisor@32473 rule="XSA-212" severity="critical" …] Title: line
//! ```

use std::fmt::Write as _;
use std::sync::OnceLock;

use super::model::{AlertRule, Report, Severity};

/// `authpriv`: messages of security (RFC 5424, table 1).
const FACILITY: u32 = 10;
/// The number for examples and private use (RFC 5612): we have none of our own.
const ENTERPRISE: u32 = 32473;
/// Characters of a rule's title and reason that are passed on.
const MAX_TEXT: usize = 1024;

/// Appends a report as one line, without its end.
pub(super) fn write_line(out: &mut String, report: &Report) {
    let (kind, rule, time) = match report {
        Report::Alert(alert) => ("alert", &alert.rule, &alert.time),
        Report::Storm(storm) => ("storm", &storm.rule, &storm.time),
        Report::RuleOff(off) => ("rule-off", &off.rule, &off.time),
        Report::Integrity(alert) => ("integrity", &alert.rule, &alert.time),
    };
    write_header(out, rule, time, kind);
    let _ = write!(out, "[hypovisor@{ENTERPRISE}");
    write_parameter(out, "rule", &rule.id);
    write_parameter(out, "severity", rule.severity.name());
    match report {
        Report::Alert(alert) => {
            write_parameter(out, "domain", &alert.domain.to_string());
            if let Some(name) = &alert.domain_name {
                write_parameter(out, "domain_name", name);
            }
            write_parameter(out, "taken", alert.taken.name());
            write_parameter(out, "count", &alert.count.to_string());
            out.push_str("] ");
            write_text(out, alert.reason.as_deref().unwrap_or(&rule.title));
            out.push_str(": ");
            out.push_str(&alert.line);
        }
        Report::Storm(storm) => {
            write_parameter(out, "held_back", &storm.held_back.to_string());
            write_parameter(out, "count", &storm.count.to_string());
            let _ = write!(out, "] {} more alerts within a second: ", storm.held_back);
            write_text(out, &rule.title);
        }
        Report::RuleOff(off) => {
            write_parameter(out, "domain", &off.domain.to_string());
            out.push_str("] The rule took too long and is switched off: ");
            out.push_str(&off.line);
        }
        Report::Integrity(alert) => {
            write_parameter(out, "place", &alert.finding.place);
            write_parameter(out, "taken", alert.taken.name());
            write_parameter(out, "count", &alert.count.to_string());
            out.push_str("] ");
            write_text(out, &rule.title);
            out.push_str(": ");
            write_text(out, &alert.finding.message);
        }
    }
}

fn write_header(out: &mut String, rule: &AlertRule, time: &str, kind: &str) {
    let severity = match rule.severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Informational => 6,
    };
    // A fraction of at most six digits (RFC 5424 §6.2.3).
    let time = time.get(..26).unwrap_or(time);
    let _ = write!(
        out,
        "<{}>1 {time}Z {} hypovisor {} {kind} ",
        FACILITY * 8 + severity,
        host(),
        std::process::id()
    );
}

/// This machine's name.
fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let printable: String = name.chars().filter(char::is_ascii_graphic).take(255).collect();
        if printable.is_empty() { "-".to_owned() } else { printable }
    })
}

/// ` name="value"`, with what has to be escaped (RFC 5424 §6.3.3).
fn write_parameter(out: &mut String, name: &str, value: &str) {
    let _ = write!(out, " {name}=\"");
    for character in value.chars().take(MAX_TEXT) {
        match character {
            '"' | '\\' | ']' => out.extend(['\\', character]),
            control if control.is_control() => out.push('?'),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Text of a rule, on one line.
fn write_text(out: &mut String, text: &str) {
    out.extend(
        text.chars().take(MAX_TEXT).map(|character| if character.is_control() { ' ' } else { character }),
    );
}
