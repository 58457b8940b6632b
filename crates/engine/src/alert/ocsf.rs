//! Alerts as Detection Findings of the Open Cybersecurity Schema Framework, version 1.4.0 (schema.ocsf.io, class 2004).
//!
//! What the schema has no place for stands whole under `unmapped.hypovisor`.

use serde_json::{Value, json};

use super::model::{Action, ActionTaken, Alert, AlertRule, IntegrityAlert, Report, RuleOff, Severity, Storm};

const VERSION: &str = "1.4.0";
const CATEGORY_FINDINGS: u32 = 2;
const CLASS_DETECTION_FINDING: u32 = 2004;
const ACTIVITY_CREATE: u32 = 1;
const STATUS_NEW: u32 = 1;
const ANALYTIC_RULE: u32 = 1;
const ANALYTIC_BEHAVIORAL: u32 = 2;
const ANALYTIC_FINGERPRINTING: u32 = 5;

/// Appends a report as one line, without its end.
pub(super) fn write_line(out: &mut String, report: &Report) {
    let object = match report {
        Report::Alert(alert) => of_alert(alert),
        Report::Storm(storm) => of_storm(storm),
        Report::RuleOff(off) => of_rule_off(off),
        Report::Integrity(alert) => of_integrity(alert),
    };
    out.push_str(&object.to_string());
}

fn of_alert(alert: &Alert) -> Value {
    let message = alert.reason.as_deref().unwrap_or(&alert.rule.title);
    let call = event_id(alert);
    let uid = format!("{}:{call}:{}", alert.rule.id, alert.count);
    let mut object = finding(&alert.rule, alert.time_ns, message, &uid, 1);
    let name = alert.domain_name.clone().unwrap_or_else(|| format!("dom{}", alert.domain));
    object["resources"] = json!([{ "type": "domain", "uid": alert.domain.to_string(), "name": name }]);
    let (action_id, action) = match alert.taken {
        ActionTaken::Denied => (2, "Denied"),
        ActionTaken::Observed | ActionTaken::WouldDeny | ActionTaken::Paused => (1, "Allowed"),
    };
    let (disposition_id, disposition) = match alert.taken {
        ActionTaken::Denied => (2, "Blocked"),
        ActionTaken::Paused => (99, "Paused"),
        ActionTaken::Observed | ActionTaken::WouldDeny => (15, "Detected"),
    };
    object["action_id"] = action_id.into();
    object["action"] = action.into();
    object["disposition_id"] = disposition_id.into();
    object["disposition"] = disposition.into();
    object["raw_data"] = alert.line.clone().into();
    object["unmapped"] = json!({ "hypovisor": alert });
    object
}

fn of_storm(storm: &Storm) -> Value {
    let message = format!("{} more alerts within a second: {}", storm.held_back, storm.rule.title);
    let uid = format!("{}:storm:{}", storm.rule.id, storm.count);
    let mut object = finding(&storm.rule, storm.time_ns, &message, &uid, storm.held_back);
    object["start_time"] = milliseconds(storm.from_ns).into();
    object["end_time"] = milliseconds(storm.time_ns).into();
    let resource = |domain: &u16| json!({ "type": "domain", "uid": domain.to_string() });
    object["resources"] = storm.domains.iter().map(resource).collect();
    object["unmapped"] = json!({ "hypovisor": storm });
    object
}

fn of_rule_off(off: &RuleOff) -> Value {
    let message = format!("The rule took too long and is switched off: {}", off.rule.title);
    let uid = format!("{}:off:{}", off.rule.id, off.time_ns);
    let mut object = finding(&off.rule, off.time_ns, &message, &uid, 1);
    object["resources"] = json!([{ "type": "domain", "uid": off.domain.to_string() }]);
    object["raw_data"] = off.line.clone().into();
    object["unmapped"] = json!({ "hypovisor": off });
    object
}

fn of_integrity(alert: &IntegrityAlert) -> Value {
    let uid = format!("{}:{}:{}", alert.rule.id, alert.time_ns, alert.count);
    let mut object = finding(&alert.rule, alert.time_ns, &alert.finding.message, &uid, 1);
    object["resources"] = json!([{ "type": "hypervisor", "name": alert.finding.place }]);
    object["unmapped"] = json!({ "hypovisor": alert });
    object
}

/// What all findings have.
fn finding(rule: &AlertRule, time_ns: i64, message: &str, uid: &str, count: u64) -> Value {
    let (severity_id, severity) = severity(rule.severity);
    let mut object = json!({
        "activity_id": ACTIVITY_CREATE,
        "activity_name": "Create",
        "category_uid": CATEGORY_FINDINGS,
        "category_name": "Findings",
        "class_uid": CLASS_DETECTION_FINDING,
        "class_name": "Detection Finding",
        "type_uid": CLASS_DETECTION_FINDING * 100 + ACTIVITY_CREATE,
        "type_name": "Detection Finding: Create",
        "time": milliseconds(time_ns),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": STATUS_NEW,
        "status": "New",
        "is_alert": true,
        "count": count,
        "message": message,
        "metadata": {
            "version": VERSION,
            "profiles": ["security_control"],
            "product": { "name": "Hypovisor", "vendor_name": "Hypovisor", "version": env!("CARGO_PKG_VERSION") },
            "labels": rule.tags,
        },
        "finding_info": finding_info(rule, time_ns, message, uid),
    });
    let vulnerabilities: Vec<Value> = rule
        .references
        .iter()
        .filter(|reference| is_cve(reference))
        .map(|cve| json!({ "cve": { "uid": cve } }))
        .collect();
    if !vulnerabilities.is_empty() {
        object["vulnerabilities"] = vulnerabilities.into();
    }
    object
}

fn finding_info(rule: &AlertRule, time_ns: i64, message: &str, uid: &str) -> Value {
    let (type_id, kind) = match rule.source {
        super::Source::Rule | super::Source::Policy => (ANALYTIC_RULE, "Rule"),
        super::Source::Profile => (ANALYTIC_BEHAVIORAL, "Behavioral"),
        super::Source::Integrity => (ANALYTIC_FINGERPRINTING, "Fingerprinting"),
    };
    let asked = match rule.action {
        Action::Alert => "alert",
        Action::Deny => "deny",
        Action::Pause => "pause",
    };
    json!({
        "uid": uid,
        "title": rule.title,
        "desc": message,
        "created_time": milliseconds(time_ns),
        "types": [asked],
        "analytic": { "uid": rule.id, "name": rule.title, "type_id": type_id, "type": kind },
    })
}

/// `pcpu-sequence` of the event.
fn event_id(alert: &Alert) -> String {
    let event: Value = serde_json::from_str(alert.event.get()).unwrap_or_default();
    format!("{}-{}", event["pcpu"], event["sequence"])
}

fn is_cve(reference: &str) -> bool {
    reference.starts_with("CVE-")
}

const fn milliseconds(time_ns: i64) -> i64 {
    time_ns.div_euclid(1_000_000)
}

const fn severity(severity: Severity) -> (u32, &'static str) {
    match severity {
        Severity::Informational => (1, "Informational"),
        Severity::Low => (2, "Low"),
        Severity::Medium => (3, "Medium"),
        Severity::High => (4, "High"),
        Severity::Critical => (5, "Critical"),
    }
}
