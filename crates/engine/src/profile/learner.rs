//! Learns a profile from calls.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{CallerKind, KindProfile, Operation, OperationProfile, Profile};
use crate::call::{Call, CallSink, Loss};
use crate::domains::{DomainKind, Domains};
use crate::recording::errno_name;
use crate::stats::Histogram;

const SECOND_NS: i64 = 1_000_000_000;
/// Different operations kept of a kind; a guest can make up as many as it likes.
const MAX_OPERATIONS: usize = 4096;
/// Sequences kept of a kind.
const MAX_SEQUENCES: usize = 500_000;

/// Takes the calls of one recording after the other, as [`replay`](crate::alert::replay) hands them on.
#[derive(Debug, Default)]
pub struct Learner {
    recordings: u32,
    domains: Domains,
    kinds: BTreeMap<CallerKind, Kind>,
    /// What a vCPU called last, and before that.
    last: HashMap<(u16, u16), [Option<u32>; 2]>,
    seconds: HashMap<u16, Second>,
    /// Domains that have called, in this recording.
    seen: HashSet<u16>,
}

/// What is learned of one kind.
#[derive(Debug, Default)]
struct Kind {
    domains: u64,
    calls: u64,
    cut: bool,
    ids: HashMap<Operation, u32>,
    operations: Vec<(Operation, Learned)>,
    sequences: HashSet<[u32; 3]>,
}

#[derive(Debug, Default)]
struct Learned {
    calls: u64,
    max_per_second: u64,
    per_second: Histogram,
    failures: BTreeMap<i64, u64>,
}

/// What a domain did in the current second.
#[derive(Debug)]
struct Second {
    number: i64,
    kind: CallerKind,
    counts: HashMap<u32, u64>,
}

impl Learner {
    /// Another recording begins: what comes now does not follow upon what came before.
    pub fn begin(&mut self) {
        self.end_recording();
        self.recordings += 1;
    }

    fn end_recording(&mut self) {
        self.domains = Domains::default();
        self.last.clear();
        self.seen.clear();
        for (_, second) in std::mem::take(&mut self.seconds) {
            self.close(second);
        }
    }

    /// The profile.
    #[must_use]
    pub fn finish(mut self) -> Profile {
        self.end_recording();
        let kinds = self.kinds.into_iter().map(|(kind, learned)| (kind, learned.into_profile())).collect();
        Profile { kinds, ..Profile::new(self.recordings) }
    }

    fn kind_of(&self, domain: u16) -> CallerKind {
        CallerKind::of(domain, self.domains.get(domain).map_or(DomainKind::Unknown, |domain| domain.kind))
    }

    fn learn(&mut self, call: &Call<'_>) {
        let domain = call.caller.domain;
        self.domains.learn(call);
        let name = self.kind_of(domain);
        let kind = self.kinds.entry(name).or_default();
        kind.domains += u64::from(self.seen.insert(domain));
        kind.calls += 1;
        let id = kind.id(Operation::of(call));
        let last = self.last.entry((domain, call.caller.vcpu)).or_default();
        kind.note_sequence(*last, id);
        *last = [last[1], id];
        if let Some(id) = id {
            self.count(domain, name, id, call.time_ns);
        }
    }

    fn count(&mut self, domain: u16, kind: CallerKind, id: u32, time_ns: i64) {
        let number = time_ns.div_euclid(SECOND_NS);
        let new = || Second { number, kind, counts: HashMap::new() };
        let second = self.seconds.entry(domain).or_insert_with(new);
        let mut over = None;
        if second.number != number || second.kind != kind {
            over = Some(std::mem::replace(second, new()));
        }
        *second.counts.entry(id).or_default() += 1;
        if let Some(over) = over {
            self.close(over);
        }
    }

    fn close(&mut self, second: Second) {
        let Some(kind) = self.kinds.get_mut(&second.kind) else { return };
        for (id, count) in second.counts {
            let learned = &mut kind.operations[id as usize].1;
            learned.max_per_second = learned.max_per_second.max(count);
            learned.per_second.add(count);
        }
    }
}

impl Kind {
    /// The number of an operation; `None` if there are too many already.
    fn id(&mut self, operation: Operation) -> Option<u32> {
        let known = self.ids.get(&operation).copied();
        if known.is_none() && self.operations.len() == MAX_OPERATIONS {
            self.cut = true;
            return None;
        }
        let id = known.unwrap_or_else(|| {
            let id = self.operations.len() as u32;
            self.ids.insert(operation, id);
            self.operations.push((operation, Learned::default()));
            id
        });
        self.operations[id as usize].1.calls += 1;
        Some(id)
    }

    fn note_sequence(&mut self, last: [Option<u32>; 2], id: Option<u32>) {
        let ([Some(first), Some(second)], Some(third)) = (last, id) else { return };
        if self.sequences.len() < MAX_SEQUENCES {
            self.sequences.insert([first, second, third]);
        } else {
            self.cut |= !self.sequences.contains(&[first, second, third]);
        }
    }

    fn into_profile(self) -> KindProfile {
        let names: Vec<String> = self.operations.iter().map(|(operation, _)| operation.name()).collect();
        let name = |id: u32| names[id as usize].clone();
        let mut sequences: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
        for [first, second, third] in self.sequences {
            sequences.entry(name(first)).or_default().entry(name(second)).or_default().push(name(third));
        }
        sequences.values_mut().flat_map(BTreeMap::values_mut).for_each(|third| third.sort_unstable());
        let learned = self.operations.into_iter().map(|(_, learned)| learned.into_profile());
        let operations = names.iter().cloned().zip(learned).collect();
        KindProfile { domains: self.domains, calls: self.calls, cut: self.cut, operations, sequences }
    }
}

impl Learned {
    fn into_profile(self) -> OperationProfile {
        let p99 = self.per_second.quantile(0.99).unwrap_or(0).min(self.max_per_second);
        OperationProfile {
            calls: self.calls,
            max_per_second: self.max_per_second,
            p99_per_second: p99,
            failures: self.failures.into_iter().map(|(errno, count)| (errno_name(errno), count)).collect(),
        }
    }
}

impl CallSink for Learner {
    type Error = crate::recording::RecordingError;

    fn entered(&mut self, call: &Call<'_>) -> Result<(), Self::Error> {
        if call.continues.is_none() && !call.intervention.injected {
            self.learn(call);
        }
        Ok(())
    }

    fn call(&mut self, call: &Call<'_>) -> Result<(), Self::Error> {
        self.domains.learn(call);
        let errno = call.outcome.result().filter(|_| call.outcome.failed()).map(|result| -result);
        let kind = self.kind_of(call.caller.domain);
        // What a rule refused did not fail by itself.
        let own = !call.intervention.injected && call.intervention.verdict.is_none();
        if let (Some(errno), true, Some(kind)) = (errno, own, self.kinds.get_mut(&kind))
            && let Some(id) = kind.ids.get(&Operation::of(call))
        {
            *kind.operations[*id as usize].1.failures.entry(errno).or_default() += 1;
        }
        Ok(())
    }

    fn loss(&mut self, _: &Loss) -> Result<(), Self::Error> {
        // What came after does not follow upon what came before.
        self.last.clear();
        Ok(())
    }
}
