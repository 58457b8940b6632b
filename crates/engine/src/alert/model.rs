//! An alert as an object: what `docs/alerts.md` describes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Version of the form. It grows when a key changes its meaning or goes away, not when one is added.
pub const SCHEMA: u32 = 1;

/// How bad it is. One scale for rules and alerts; `docs/alerts.md` maps it to those of OCSF and syslog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    #[default]
    Informational,
    /// Odd, and mostly harmless.
    Low,
    /// Odd enough to be looked at.
    Medium,
    /// An attack, or something that looks very much like one.
    High,
    /// An attack that gives the attacker the hypervisor.
    Critical,
}

impl Severity {
    /// The name in rules and alerts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The severity of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical]
            .into_iter()
            .find(|severity| severity.name() == name)
    }
}

/// Who raised an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A rule file.
    Rule,
    /// A policy.
    Policy,
    /// A learned profile.
    Profile,
    /// A look at L1 itself.
    Integrity,
}

/// What a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// To be told.
    Alert,
    /// To have the call refused.
    Deny,
    /// To have L1 stopped.
    Pause,
}

/// What was done with the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionTaken {
    /// Nothing: the call ran.
    Observed,
    /// Nothing, but it would have been refused if that were switched on.
    WouldDeny,
    /// It was refused before Xen ran it.
    Denied,
    /// L1 was stopped before the call ran.
    Paused,
}

impl ActionTaken {
    /// The name in alerts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::WouldDeny => "would-deny",
            Self::Denied => "denied",
            Self::Paused => "paused",
        }
    }
}

/// What an alert says of its rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRule {
    /// The rule's id; `profile/…` for deviations from a profile, `policy.…` for a policy.
    pub id: String,
    /// Its title.
    pub title: String,
    /// How bad it is.
    pub severity: Severity,
    /// Where the rule comes from.
    pub source: Source,
    /// XSA and CVE numbers and the like.
    pub references: Vec<String>,
    /// Free words.
    pub tags: Vec<String>,
    /// What it asks for.
    pub action: Action,
}

/// When the alert was raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertMoment {
    /// Before Xen ran the call: its result is not known yet.
    Entry,
    /// When it had ended.
    Return,
}

/// What a line of alerts is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportKind {
    /// An [`Alert`].
    Alert,
    /// A [`Storm`].
    Storm,
    /// A [`RuleOff`].
    #[serde(rename = "rule-off")]
    RuleOff,
    /// An [`IntegrityAlert`].
    Integrity,
}

/// An earlier step of a sequence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// The CPU of L1 that the call was made on.
    pub pcpu: u32,
    /// Its number there.
    pub sequence: u64,
    /// The event; `None` if it is too long ago to be at hand: a recording has it.
    pub event: Option<EventObject>,
}

/// An event as the object of `docs/events.md`.
pub type EventObject = Box<RawValue>;

/// One alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Alert {
    /// [`SCHEMA`].
    pub schema: u32,
    /// [`ReportKind::Alert`].
    #[serde(rename = "type")]
    pub kind: ReportKind,
    /// When it was raised, by the call's clock: its entry, or its end. RFC 3339 in UTC.
    pub time: String,
    /// The same in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// When the engine told of it, in nanoseconds since the Unix epoch; left out in a replay.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reported_ns: Option<i64>,
    /// Whether the call had ended.
    pub moment: AlertMoment,
    /// The rule.
    pub rule: Arc<AlertRule>,
    /// Alerts of this rule so far, this one included and those that were held back.
    pub count: u64,
    /// What is wrong in this case, if the rule's title does not say it.
    pub reason: Option<String>,
    /// What was done with the call.
    pub taken: ActionTaken,
    /// The calling domain.
    pub domain: u16,
    /// Its name, if it is known; whoever made the domain chose it.
    pub domain_name: Option<String>,
    /// The call on one line, for people.
    pub line: String,
    /// The event.
    pub event: EventObject,
    /// The earlier steps, if the rule is a sequence.
    pub steps: Vec<Step>,
    /// What the domain did before: up to eight calls, the oldest first.
    pub before: Vec<EventObject>,
}

/// So many alerts of one rule were not told one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storm {
    /// [`SCHEMA`].
    pub schema: u32,
    /// [`ReportKind::Storm`].
    #[serde(rename = "type")]
    pub kind: ReportKind,
    /// When the last of them was raised.
    pub time: String,
    /// The same in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// When the first of them was raised, in nanoseconds since the Unix epoch.
    pub from_ns: i64,
    /// The rule.
    pub rule: Arc<AlertRule>,
    /// How many were held back in this second.
    pub held_back: u64,
    /// Alerts of this rule so far, told or not.
    pub count: u64,
    /// Whose calls they were; the first eight of them.
    pub domains: Vec<u16>,
}

/// A rule is judged no more until rules are loaded again: it took too many steps. The sensor has dropped it at the same
/// call, if it was to refuse or pause calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleOff {
    /// [`SCHEMA`].
    pub schema: u32,
    /// [`ReportKind::RuleOff`].
    #[serde(rename = "type")]
    pub kind: ReportKind,
    /// When: the time of the call that it took too long for.
    pub time: String,
    /// The same in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// The rule.
    pub rule: Arc<AlertRule>,
    /// The domain whose call it was.
    pub domain: u16,
    /// The call on one line, for people.
    pub line: String,
}

/// Something of L1 itself is not as it should be.
#[derive(Clone, Debug, Serialize)]
pub struct IntegrityAlert {
    /// [`SCHEMA`].
    pub schema: u32,
    /// [`ReportKind::Integrity`].
    #[serde(rename = "type")]
    pub kind: ReportKind,
    /// When it was seen. RFC 3339 in UTC.
    pub time: String,
    /// The same in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// What stands for the rule: `integrity/` and what was looked at.
    pub rule: Arc<AlertRule>,
    /// Alerts of this kind so far.
    pub count: u64,
    /// What was done.
    pub taken: ActionTaken,
    /// What was found.
    pub finding: hypovisor_integrity::Finding,
}

/// What goes to an output.
#[derive(Clone, Debug)]
pub enum Report {
    /// Something of L1 itself.
    Integrity(Box<IntegrityAlert>),
    /// One alert.
    Alert(Box<Alert>),
    /// Many at once.
    Storm(Storm),
    /// A rule that is judged no more.
    RuleOff(RuleOff),
}
