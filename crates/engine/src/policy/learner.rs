//! Makes a policy of calls.

use std::collections::{BTreeMap, HashMap, HashSet};

use hypovisor_abi::xen::XEN;
use hypovisor_abi::{FlagSet, decode};

use super::fields::{Fields, Limited, find, flag_names};
use super::{Entry, Limits, Matcher, Policy};
use crate::call::{Call, CallSink, Loss};
use crate::domains::{Domain, DomainKind, Domains};
use crate::profile::{CallerKind, Operation};
use crate::recording::RecordingError;

/// Different operations kept of an entry; a guest can make up as many as it likes.
const MAX_OPERATIONS: usize = 4096;

/// Takes the calls of one recording after the other, as [`replay`](crate::alert::replay) hands them on.
#[derive(Debug, Default)]
pub struct PolicyLearner {
    by_name: bool,
    recordings: u32,
    domains: Domains,
    names: HashMap<u16, String>,
    entries: BTreeMap<Matcher, Learned>,
    /// Domains that have called, in this recording.
    seen: HashSet<u16>,
}

#[derive(Debug, Default)]
struct Learned {
    domains: u64,
    calls: u64,
    operations: HashMap<Operation, Used>,
}

#[derive(Debug, Default)]
struct Used {
    calls: u64,
    max: BTreeMap<String, u64>,
    flags: HashMap<String, (FlagsOf, u64)>,
}

/// A set of flags, for `Debug`.
type FlagsOf = &'static FlagSet;

impl PolicyLearner {
    /// With an entry for each domain by its name, rather than for each kind of domain.
    #[must_use]
    pub fn by_name(by_name: bool) -> Self {
        Self { by_name, ..Self::default() }
    }

    /// Another recording begins, with these domains.
    pub fn begin<'d>(&mut self, domains: impl IntoIterator<Item = &'d Domain>) {
        self.recordings += 1;
        self.domains = Domains::default();
        self.seen.clear();
        self.names = domains.into_iter().map(|domain| (domain.id, domain.name.clone())).collect();
    }

    /// The policy.
    #[must_use]
    pub fn finish(self) -> Policy {
        let entries = self.entries.into_iter().map(|(matcher, learned)| learned.into_entry(matcher));
        Policy { recordings: self.recordings, entries: entries.collect() }
    }

    fn matcher(&self, domain: u16) -> Matcher {
        if self.by_name {
            let name = self.names.get(&domain).filter(|name| !name.is_empty());
            return Matcher::Name(name.cloned().unwrap_or_else(|| format!("dom{domain}")));
        }
        let kind = self.domains.get(domain).map_or(DomainKind::Unknown, |domain| domain.kind);
        Matcher::Kind(CallerKind::of(domain, kind))
    }
}

impl CallSink for PolicyLearner {
    type Error = RecordingError;

    fn entered(&mut self, call: &Call<'_>) -> Result<(), RecordingError> {
        self.domains.learn(call);
        // What an attack rehearsed, and what was refused, is nothing that the domain needs.
        if call.continues.is_none() && !call.intervention.injected {
            let matcher = self.matcher(call.caller.domain);
            let learned = self.entries.entry(matcher).or_default();
            learned.domains += u64::from(self.seen.insert(call.caller.domain));
            learned.learn(call);
        }
        Ok(())
    }

    fn call(&mut self, call: &Call<'_>) -> Result<(), RecordingError> {
        self.domains.learn(call);
        Ok(())
    }

    fn loss(&mut self, _: &Loss) -> Result<(), RecordingError> {
        Ok(())
    }
}

impl Learned {
    fn learn(&mut self, call: &Call<'_>) {
        self.calls += 1;
        let operation = Operation::of(call);
        if !operation.is_whole()
            || (self.operations.len() == MAX_OPERATIONS && !self.operations.contains_key(&operation))
        {
            return;
        }
        let used = self.operations.entry(operation).or_default();
        used.calls += 1;
        let Used { max, flags, .. } = used;
        let mut note = |path: String, limited: Limited, value: u64| match limited {
            Limited::Size => {
                let most = max.entry(path).or_default();
                *most = value.max(*most);
            }
            Limited::Flags(set) => flags.entry(path).or_insert((set, 0)).1 |= value,
        };
        decode::decode(&XEN, &call.captured(), &mut Fields::new(&mut note));
    }

    fn into_entry(self, matcher: Matcher) -> Entry {
        let allowed = self
            .operations
            .into_iter()
            .map(|(operation, used)| (operation.name(), used.into_limits(operation)));
        Entry { matcher, domains: self.domains, calls: self.calls, allowed: allowed.collect() }
    }
}

impl Used {
    /// Without the fields that share their path with another kind of field: nobody could tell which one is limited.
    fn into_limits(self, operation: Operation) -> Limits {
        let is_clear = |path: &String| find(operation, path).is_some();
        let flags = self.flags.into_iter().map(|(path, (set, word))| (path, flag_names(set, word)));
        Limits {
            calls: self.calls,
            max: self.max.into_iter().filter(|(path, _)| is_clear(path)).collect(),
            flags: flags.filter(|(path, _)| is_clear(path)).collect(),
        }
    }
}
