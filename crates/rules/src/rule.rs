//! A rule as its file has it, checked.

use std::path::PathBuf;

use hypovisor_verdict::{Action, Moment};

/// How bad it is if what a rule sees is an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Informational,
    /// Small.
    Low,
    /// In between.
    Medium,
    /// The host or another guest is in danger.
    High,
    /// The host is likely taken over.
    Critical,
}

impl Severity {
    /// All, the least first.
    pub const ALL: [Self; 5] = [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical];

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
        Self::ALL.into_iter().find(|severity| severity.name() == name)
    }
}

/// Calls that a rule concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As the file has it, e.g. `memory_op/XENMEM_exchange`.
    pub name: String,
    /// The hypercall; `None`: every one.
    pub number: Option<u16>,
    /// The sub-op; `None`: every one.
    pub sub_op: Option<u64>,
}

/// How long calls count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Nanoseconds of the events' own time.
    Nanoseconds(u64),
    /// Calls of the domain.
    Calls(u64),
}

/// So many matches of one domain within a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many make the rule match.
    pub count: u32,
    /// Within what.
    pub window: Window,
}

/// One step of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The calls.
    pub on: Vec<Target>,
    /// The condition in CEL; empty: always.
    pub when: String,
    /// When it is judged.
    pub moment: Moment,
}

/// Steps that one domain takes in order within a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// In order; two or more.
    pub steps: Vec<Step>,
    /// From the first to the last.
    pub window: Window,
}

/// Where a rule does not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The condition in CEL.
    pub when: String,
    /// Why.
    pub reason: String,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique in the set.
    pub id: String,
    /// One line.
    pub title: String,
    /// What the attack does and how the rule sees it.
    pub description: String,
    /// What the rule cannot see.
    pub blind_spots: String,
    /// Advisories, CVEs, commits.
    pub references: Vec<String>,
    /// How bad it is.
    pub severity: Severity,
    /// For selection.
    pub tags: Vec<String>,
    /// The calls; empty for a sequence.
    pub on: Vec<Target>,
    /// The condition in CEL; empty: always.
    pub when: String,
    /// When the condition is judged; for a sequence, that of its last step.
    pub moment: Moment,
    /// Set if one match is not enough.
    pub rate: Option<Rate>,
    /// Set if it takes several calls.
    pub sequence: Option<Sequence>,
    /// What to do.
    pub action: Action,
    /// Where it does not apply.
    pub exceptions: Vec<Exception>,
    /// The file it comes from.
    pub file: PathBuf,
}
