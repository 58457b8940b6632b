//! The figures of a recording in one piece: `summary.json`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{FailureKey, Stats, counted_name};
use crate::domains::DomainKind;
use crate::recording::Manifest;

/// The figures of a recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of the watched Xen.
    pub xen_version: String,
    /// Events recorded, continuations included.
    pub events: u64,
    /// Events lost.
    pub dropped: u64,
    /// How long the recording ran, in seconds.
    pub wall_seconds: f64,
    /// The domains, by id.
    pub domains: Vec<DomainSummary>,
    /// The hypercalls of each domain, the most frequent first.
    pub hypercalls: Vec<HypercallSummary>,
    /// What failed, the most frequent first.
    pub failures: Vec<FailureSummary>,
}

/// The figures of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSummary {
    /// Its id.
    pub id: u16,
    /// Its name; empty if it is not known.
    pub name: String,
    /// What kind of guest it is.
    #[serde(rename = "type")]
    pub kind: DomainKind,
    /// Its events, continuations included.
    pub events: u64,
    /// Those that ended in an errno.
    pub failed: u64,
}

impl DomainSummary {
    /// Id and name, or `dom` and the id if it has no name of its own. Not escaped.
    #[must_use]
    pub fn label(&self) -> String {
        let unnamed = format!("dom{}", self.id);
        if self.name.is_empty() || self.name == unnamed {
            unnamed
        } else {
            format!("{} {}", self.id, self.name)
        }
    }
}

/// The figures of a hypercall as one domain makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HypercallSummary {
    /// The domain.
    pub domain: u16,
    /// The hypercall.
    pub name: String,
    /// Calls, continuations not included.
    pub count: u64,
    /// Continuations.
    pub continuations: u64,
    /// Those that ended in an errno.
    pub failed: u64,
    /// Median of the durations, in nanoseconds; `None` if no call returned.
    pub p50_ns: Option<u64>,
    /// 99th percentile of the durations, in nanoseconds.
    pub p99_ns: Option<u64>,
}

/// One way to fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureSummary {
    /// The domain.
    pub domain: u16,
    /// The hypercall.
    pub hypercall: String,
    /// The sub-op, if it is known.
    pub sub_op: Option<String>,
    /// The errno, e.g. `EPERM`.
    pub errno: String,
    /// How often.
    pub count: u64,
    /// The first such call, decoded.
    pub example: String,
}

impl Stats {
    /// All figures; the manifest knows the domains' names, the losses and the times.
    #[must_use]
    pub fn summary(&self, manifest: &Manifest) -> Summary {
        Summary {
            xen_version: manifest.xen_version.clone(),
            events: self.events,
            dropped: manifest.lost_calls(),
            wall_seconds: manifest.wall_seconds(),
            domains: self.domain_summaries(manifest),
            hypercalls: self.hypercall_summaries(),
            failures: self.failure_summaries(),
        }
    }

    fn domain_summaries(&self, manifest: &Manifest) -> Vec<DomainSummary> {
        let known = manifest.domains.iter().map(|domain| domain.id);
        let ids: BTreeSet<u16> = self.domains.keys().copied().chain(known).collect();
        let summary = |id| {
            let totals = self.domains.get(&id).copied().unwrap_or_default();
            let domain = manifest.domain(id).cloned().unwrap_or_default();
            let (events, failed) = (totals.events, totals.failed);
            DomainSummary { id, name: domain.name, kind: domain.kind, events, failed }
        };
        ids.into_iter().map(summary).collect()
    }

    fn hypercall_summaries(&self) -> Vec<HypercallSummary> {
        let summary = |((domain, number), stats): (&(u16, u64), &super::CallStats)| HypercallSummary {
            domain: *domain,
            name: counted_name(*number),
            count: stats.count,
            continuations: stats.continuations,
            failed: stats.failed,
            p50_ns: stats.durations.quantile(0.5),
            p99_ns: stats.durations.quantile(0.99),
        };
        let mut all: Vec<_> = self.calls.iter().map(summary).collect();
        all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (a.domain, &a.name).cmp(&(b.domain, &b.name))));
        all
    }

    fn failure_summaries(&self) -> Vec<FailureSummary> {
        let mut all: Vec<_> = self.failures.iter().collect();
        all.sort_by(|(a, one), (b, other)| other.count.cmp(&one.count).then_with(|| a.cmp(b)));
        let summary = |(key, failure): (&FailureKey, &super::Failure)| FailureSummary {
            domain: key.domain,
            hypercall: key.hypercall(),
            sub_op: key.sub_op.map(str::to_owned),
            errno: key.errno_name(),
            count: failure.count,
            example: failure.example.clone(),
        };
        all.into_iter().map(summary).collect()
    }
}
