//! Statistics of a recording: counts, failures and durations by domain and hypercall.
//!
//! What Xen preempted and had the guest issue again is one call of the guest's but several events: the first counts
//! as a call, the others as continuations. Durations and results are those of the events, one by one.
//!
//! Memory depends on how many different calls there are, not on how many calls. A guest can make up as many
//! unknown hypercall numbers as it likes, so only the first of them are told apart.

mod histogram;
mod summary;
mod table;
mod timeline;
pub mod units;

use std::collections::{BTreeMap, HashMap};

use hypovisor_abi::text::Detail;
use hypovisor_abi::{decode, xen};

pub use histogram::Histogram;
pub use summary::{DomainSummary, FailureSummary, HypercallSummary, Summary};
pub use table::{printable, table};
pub use timeline::Timeline;

use crate::call::Call;
use crate::event_line;
use crate::recording::{RecordedCall, call_name, errno_name};

/// Unknown hypercall numbers that are told apart.
const UNKNOWN_NUMBERS: usize = 64;
/// Stands for all further unknown numbers.
const OTHER: u64 = u64::MAX;

/// Totals of one domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainStats {
    /// Events, continuations included.
    pub events: u64,
    /// Events that ended in an errno.
    pub failed: u64,
}

/// One hypercall as one domain makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    /// Calls, continuations not included.
    pub count: u64,
    /// Continuations.
    pub continuations: u64,
    /// Events that ended in an errno.
    pub failed: u64,
    /// Durations in nanoseconds, where a return was seen.
    pub durations: Histogram,
}

/// What failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FailureKey {
    /// The caller.
    pub domain: u16,
    /// The hypercall's number.
    pub number: u64,
    /// The sub-op's name, if it is known.
    pub sub_op: Option<&'static str>,
    /// The errno, positive.
    pub errno: i64,
}

/// How often it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How often.
    pub count: u64,
    /// The first such call, decoded.
    pub example: String,
}

/// Statistics of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// All events.
    pub events: u64,
    /// By domain.
    pub domains: BTreeMap<u16, DomainStats>,
    /// By domain and hypercall number.
    pub calls: HashMap<(u16, u64), CallStats>,
    /// By domain, call and errno.
    pub failures: HashMap<FailureKey, Failure>,
    /// Over time.
    pub timeline: Timeline,
    unknown: Vec<u64>,
}

impl Stats {
    /// Counts all calls of a recording.
    ///
    /// # Errors
    /// The first error of the iterator.
    pub fn from_calls<E>(calls: impl IntoIterator<Item = Result<RecordedCall, E>>) -> Result<Self, E> {
        let mut stats = Self::default();
        for call in calls {
            stats.add(&call?.as_call());
        }
        Ok(stats)
    }

    /// Counts one call.
    pub fn add(&mut self, call: &Call<'_>) {
        let domain = call.caller.domain;
        let number = self.known_number(call.registers.number);
        self.events += 1;
        self.timeline.add(domain, call.time_ns);
        let failed = u64::from(call.outcome.failed());
        let totals = self.domains.entry(domain).or_default();
        totals.events += 1;
        totals.failed += failed;
        let stats = self.calls.entry((domain, number)).or_default();
        match call.continues {
            Some(_) => stats.continuations += 1,
            None => stats.count += 1,
        }
        stats.failed += failed;
        if let Some(duration) = call.duration_ns {
            stats.durations.add(duration);
        }
        if let Some(result) = call.outcome.result().filter(|_| failed > 0) {
            self.add_failure(call, number, -result);
        }
    }

    fn add_failure(&mut self, call: &Call<'_>, number: u64, errno: i64) {
        let sub_op = decode::identify(&xen::XEN, &call.captured()).sub_op.map(|sub_op| sub_op.name);
        let key = FailureKey { domain: call.caller.domain, number, sub_op, errno };
        let failure = self.failures.entry(key).or_insert_with(|| {
            let mut example = String::new();
            event_line::write_call(&mut example, &Call { parent: None, ..*call }, Detail::Line);
            Failure { count: 0, example }
        });
        failure.count += 1;
    }

    /// The number to count a call under.
    fn known_number(&mut self, number: u64) -> u64 {
        if xen::XEN.call(number).is_some() || self.unknown.contains(&number) {
            return number;
        }
        if self.unknown.len() < UNKNOWN_NUMBERS {
            self.unknown.push(number);
            return number;
        }
        OTHER
    }
}

/// The name of a number that calls are counted under.
pub(crate) fn counted_name(number: u64) -> String {
    if number == OTHER { "hypercall_other".to_owned() } else { call_name(number) }
}

impl FailureKey {
    /// The hypercall's name.
    #[must_use]
    pub fn hypercall(&self) -> String {
        counted_name(self.number)
    }

    /// The errno's name.
    #[must_use]
    pub fn errno_name(&self) -> String {
        errno_name(self.errno)
    }
}
