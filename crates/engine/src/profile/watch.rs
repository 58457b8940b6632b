//! Compares calls with a profile.
//!
//! A deviation of a domain is told once, and again when the profile's quiet time has passed, with how often it occurred
//! meanwhile; all are counted. State is bounded per domain and in the number of domains.

use std::collections::{HashMap, HashSet};

use super::{CallerKind, KindProfile, Operation, Profile, Tolerance};
use crate::call::Call;
use crate::recording::errno_name;

const SECOND_NS: i64 = 1_000_000_000;
/// Domains that are followed; beyond it the one that was quiet for the longest is forgotten.
const MAX_DOMAINS: usize = 1024;
/// vCPUs of a domain whose sequences are followed.
const MAX_VCPUS: usize = 1024;
/// Different deviations of a domain that are told apart within the quiet time.
const MAX_DEVIATIONS: usize = 256;
/// An operation that the profile does not have.
const NEW: u32 = u32::MAX;

/// What kind of deviation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviationKind {
    /// No domain of this kind was learned from.
    UnknownKind,
    /// A call or sub-op that no such domain made.
    Operation,
    /// Calls that never followed upon each other.
    Sequence,
    /// More calls within a second than ever.
    Rate,
    /// It failed in a way that it never did.
    Failure,
    /// More different deviations than are told apart.
    Many,
}

impl DeviationKind {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::UnknownKind, Self::Operation, Self::Sequence, Self::Rate, Self::Failure, Self::Many];
}

/// A deviation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// What kind.
    pub kind: DeviationKind,
    /// What it is, in words; `None` if the same was told a short time ago.
    pub reason: Option<String>,
}

/// Tells one deviation of a domain from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    UnknownKind,
    Operation(Operation),
    Sequence([u32; 3]),
    Rate(u32),
    Failure(u32, i64),
    Many,
}

impl Key {
    const fn kind(self) -> DeviationKind {
        match self {
            Self::UnknownKind => DeviationKind::UnknownKind,
            Self::Operation(_) => DeviationKind::Operation,
            Self::Sequence(_) => DeviationKind::Sequence,
            Self::Rate(_) => DeviationKind::Rate,
            Self::Failure(..) => DeviationKind::Failure,
            Self::Many => DeviationKind::Many,
        }
    }
}

/// What was learned of one kind, ready to be looked up.
#[derive(Debug)]
struct Learned {
    cut: bool,
    ids: HashMap<Operation, u32>,
    operations: Vec<Known>,
    sequences: HashSet<[u32; 3]>,
}

#[derive(Debug)]
struct Known {
    name: String,
    max_per_second: u64,
    failures: Vec<String>,
}

/// What is known of a domain's recent past.
#[derive(Debug, Default)]
struct Domain {
    kind: Option<CallerKind>,
    last_ns: i64,
    second: i64,
    counts: Vec<u64>,
    /// What each vCPU called last, and before that.
    last: HashMap<u16, [Option<u32>; 2]>,
    told: HashMap<Key, Told>,
}

#[derive(Debug)]
struct Told {
    time_ns: i64,
    since: u64,
}

/// Follows all domains.
#[derive(Debug)]
pub struct ProfileWatch {
    recordings: u32,
    tolerance: Tolerance,
    learned: HashMap<CallerKind, Learned>,
    domains: HashMap<u16, Domain>,
}

impl ProfileWatch {
    /// Compares with `profile`.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        let learned = profile.kinds.iter().map(|(kind, learned)| (*kind, Learned::new(learned))).collect();
        Self {
            recordings: profile.recordings,
            tolerance: profile.tolerance,
            learned,
            domains: HashMap::new(),
        }
    }

    /// A call of a domain of this kind has entered.
    pub fn entered(&mut self, call: &Call<'_>, kind: CallerKind, found: &mut impl FnMut(Deviation)) {
        if call.continues.is_some() {
            return;
        }
        let (operation, tolerance) = (Operation::of(call), self.tolerance);
        self.make_room(call.caller.domain);
        let Self { learned, domains, recordings, .. } = self;
        let domain = domains.entry(call.caller.domain).or_default();
        domain.begin(kind, call.time_ns);
        let Some(learned) = learned.get(&kind) else {
            let reason = || unknown_kind(call, kind, *recordings);
            return domain.tell(Key::UnknownKind, call, &tolerance, found, reason);
        };
        let id = learned.ids.get(&operation).copied().unwrap_or(NEW);
        if id == NEW && !learned.cut {
            let reason = || unknown_operation(call, kind, operation, *recordings);
            domain.tell(Key::Operation(operation), call, &tolerance, found, reason);
        }
        if let Some(sequence) = domain.follow(call.caller.vcpu, id)
            && !learned.cut
            && !sequence.contains(&NEW)
            && !learned.sequences.contains(&sequence)
        {
            let reason = || unknown_sequence(call, kind, sequence.map(|id| learned.name(id)), *recordings);
            domain.tell(Key::Sequence(sequence), call, &tolerance, found, reason);
        }
        if let Some(known) = learned.operations.get(id as usize) {
            let count = domain.count(id, learned.operations.len());
            let limit = limit(known.max_per_second, &tolerance);
            if count > limit {
                let reason = || too_many(call, kind, known, limit);
                domain.tell(Key::Rate(id), call, &tolerance, found, reason);
            }
        }
    }

    /// A call has ended.
    pub fn ended(&mut self, call: &Call<'_>, kind: CallerKind, found: &mut impl FnMut(Deviation)) {
        // What a rule refused did not fail by itself.
        let Some(result) = call.outcome.result().filter(|_| call.outcome.failed()) else { return };
        if call.intervention.verdict == Some(hypovisor_event::verdict::Verdict::Denied) {
            return;
        }
        let (Some(learned), Some(domain)) =
            (self.learned.get(&kind), self.domains.get_mut(&call.caller.domain))
        else {
            return;
        };
        let Some(id) = learned.ids.get(&Operation::of(call)).copied() else { return };
        let Some(known) = learned.operations.get(id as usize) else { return };
        let errno = errno_name(-result);
        if !known.failures.contains(&errno) {
            let reason = || new_failure(call, kind, known, &errno);
            domain.tell(Key::Failure(id, -result), call, &self.tolerance, found, reason);
        }
    }

    /// Events were lost: what comes now need not follow upon what came before.
    pub fn lost(&mut self) {
        self.domains.values_mut().for_each(|domain| domain.last.clear());
    }

    fn make_room(&mut self, domain: u16) {
        if self.domains.len() < MAX_DOMAINS || self.domains.contains_key(&domain) {
            return;
        }
        let quietest =
            self.domains.iter().min_by_key(|(id, domain)| (domain.last_ns, **id)).map(|(id, _)| *id);
        if let Some(quietest) = quietest {
            self.domains.remove(&quietest);
        }
    }
}

impl Learned {
    fn new(profile: &KindProfile) -> Self {
        let names = profile.operations.keys().enumerate();
        let ids: HashMap<&str, u32> = names.map(|(id, name)| (name.as_str(), id as u32)).collect();
        let id = |name: &String| ids.get(name.as_str()).copied().unwrap_or(NEW);
        let mut sequences = HashSet::new();
        for (first, then) in &profile.sequences {
            for (second, third) in then {
                sequences.extend(third.iter().map(|third| [id(first), id(second), id(third)]));
            }
        }
        let known = profile.operations.iter().map(|(name, learned)| Known {
            name: name.clone(),
            max_per_second: learned.max_per_second,
            failures: learned.failures.keys().cloned().collect(),
        });
        let operations: Vec<Known> = known.collect();
        let ids =
            profile.operations.keys().filter_map(|name| Some((Operation::parse(name)?, id(name)))).collect();
        Self { cut: profile.cut, ids, operations, sequences }
    }

    fn name(&self, id: u32) -> &str {
        self.operations.get(id as usize).map_or("?", |known| &known.name)
    }
}

impl Domain {
    fn begin(&mut self, kind: CallerKind, time_ns: i64) {
        self.last_ns = time_ns;
        if self.kind != Some(kind) {
            // Its numbers of operations are those of another table.
            self.kind = Some(kind);
            self.last.clear();
            self.counts.clear();
        }
        let second = time_ns.div_euclid(SECOND_NS);
        if self.second != second {
            self.second = second;
            self.counts.fill(0);
        }
    }

    /// The last three operations of a vCPU, once there are three.
    fn follow(&mut self, vcpu: u16, id: u32) -> Option<[u32; 3]> {
        if self.last.len() == MAX_VCPUS && !self.last.contains_key(&vcpu) {
            self.last.clear();
        }
        let last = self.last.entry(vcpu).or_default();
        let [first, second] = *last;
        *last = [second, Some(id)];
        Some([first?, second?, id])
    }

    /// How often the operation was made in this second.
    fn count(&mut self, id: u32, operations: usize) -> u64 {
        if self.counts.len() != operations {
            self.counts.resize(operations, 0);
        }
        let count = &mut self.counts[id as usize];
        *count += 1;
        *count
    }

    fn tell(
        &mut self,
        mut key: Key,
        call: &Call<'_>,
        tolerance: &Tolerance,
        found: &mut impl FnMut(Deviation),
        reason: impl FnOnce() -> String,
    ) {
        let quiet_ns = i64::try_from(tolerance.quiet_seconds).unwrap_or(i64::MAX).saturating_mul(SECOND_NS);
        let is_over = |told: &Told| call.time_ns.saturating_sub(told.time_ns).saturating_abs() >= quiet_ns;
        let kind = key.kind();
        if self.told.len() >= MAX_DEVIATIONS && !self.told.contains_key(&key) {
            self.told.retain(|_, told| !is_over(told));
            if self.told.len() >= MAX_DEVIATIONS {
                key = Key::Many;
            }
        }
        let told = self.told.get_mut(&key);
        let Some(told) = told else {
            self.told.insert(key, Told { time_ns: call.time_ns, since: 0 });
            let reason = if key == Key::Many { many(call) } else { reason() };
            return found(Deviation { kind: key.kind(), reason: Some(reason) });
        };
        if !is_over(told) {
            told.since += 1;
            return found(Deviation { kind, reason: None });
        }
        let mut reason = if key == Key::Many { many(call) } else { reason() };
        if told.since > 0 {
            reason.push_str(&format!("; {} more since this was last told", grouped(told.since)));
        }
        *told = Told { time_ns: call.time_ns, since: 0 };
        found(Deviation { kind: key.kind(), reason: Some(reason) });
    }
}

fn limit(learned: u64, tolerance: &Tolerance) -> u64 {
    // A product that is too large for an integer becomes the largest one.
    tolerance.rate_floor.max((learned as f64 * tolerance.rate_factor) as u64)
}

fn unknown_kind(call: &Call<'_>, kind: CallerKind, recordings: u32) -> String {
    let from = learned_from(recordings);
    format!("{} calls, and there was no {} domain in {from}", who(call, kind), kind.name())
}

fn unknown_operation(call: &Call<'_>, kind: CallerKind, operation: Operation, recordings: u32) -> String {
    let (who, name, from) = (who(call, kind), operation.name(), learned_from(recordings));
    format!("{who} made {name}, which no {} domain did in {from}", kind.name())
}

fn unknown_sequence(
    call: &Call<'_>,
    kind: CallerKind,
    [first, second, third]: [&str; 3],
    recordings: u32,
) -> String {
    let (who, from) = (who(call, kind), learned_from(recordings));
    format!("{who} made {first} → {second} → {third}, a sequence never seen in {from}")
}

fn too_many(call: &Call<'_>, kind: CallerKind, known: &Known, limit: u64) -> String {
    let (who, name) = (who(call, kind), &known.name);
    let (limit, max) = (grouped(limit), grouped(known.max_per_second));
    format!("{who} made more than {limit} calls of {name} in 1 s, learned maximum {max}")
}

fn new_failure(call: &Call<'_>, kind: CallerKind, known: &Known, errno: &str) -> String {
    let who = who(call, kind);
    let as_known = match known.failures.as_slice() {
        [] => "never failed".to_owned(),
        failures => format!("only failed with {}", failures.join(", ")),
    };
    format!("{} of {who} failed with {errno}; in what was learned it {as_known}", known.name)
}

fn many(call: &Call<'_>) -> String {
    let domain = call.caller.domain;
    format!(
        "domain {domain} deviates in more than {MAX_DEVIATIONS} ways at once; further ones are only counted"
    )
}

fn who(call: &Call<'_>, kind: CallerKind) -> String {
    format!("{} domain {}", kind.name(), call.caller.domain)
}

fn learned_from(recordings: u32) -> String {
    if recordings == 1 {
        "the recording learned from".to_owned()
    } else {
        format!("the {recordings} recordings learned from")
    }
}

/// With a comma after every third digit.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
