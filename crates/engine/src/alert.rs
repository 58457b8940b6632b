//! Alerts: what rules, profile and policy say of a call, told at once.
//!
//! ```text
//!   entered ─┐                                   ┌─▶ storms held back, counted
//!            ├─▶ Detection ─▶ what was found ─▶ Alerter ─▶ AlertOutput: JSON, OCSF, syslog, the terminal
//!   call ────┘   rules, profile                  └─▶ history: the calls that led to it
//! ```
//!
//! [`AlertSink`] stands before another [`CallSink`](crate::call::CallSink) and passes every call on. A condition that
//! needs no result is judged when the call enters, so that a call which never returns is told of as well.
//!
//! **Replay.** [`replay()`] feeds a recording the way the session did: each call once when it entered and once when it
//! ended, in the order of both. Everything that decides about alerts depends on the calls and their times only, never
//! on the time of day, so that a replay gives the same alerts in the same order; `docs/alerts.md` names the limits.

mod detection;
mod history;
mod integrity;
mod model;
mod ocsf;
mod output;
mod replay;
mod sink;
mod storm;
mod syslog;
#[cfg(test)]
mod tests;

pub use detection::{Detection, guest_kind};
pub use model::{
    Action, ActionTaken, Alert, AlertMoment, AlertRule, EventObject, IntegrityAlert, Report, ReportKind,
    RuleOff, SCHEMA, Severity, Source, Step, Storm,
};
pub use output::{AlertError, AlertFormat, AlertOutput, AlertWriter};
pub use replay::replay;
pub use sink::{AlertSink, Alerter, RuleTotal};
pub use storm::REPORTS_PER_SECOND;
