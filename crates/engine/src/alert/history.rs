//! What each domain did last, so that an alert can tell what led to it.
//!
//! A call is noted when it enters and completed when it ends. Memory is bounded: [`KEPT`] calls of at most
//! [`MAX_DOMAINS`] domains, each with at most [`MAX_MEMORY_BYTES`] of what was captured; a call with more is kept
//! without it and marked as cut.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::call::{Call, CallId};

/// Calls kept of each domain: more than are shown, because a call's predecessors are asked for when it ends.
const KEPT: usize = 24;
/// Calls shown before an alert's own.
const SHOWN: usize = 8;
/// Domains remembered; beyond it the one that was quiet for the longest is forgotten.
const MAX_DOMAINS: usize = 1024;
/// Captured memory kept of one call, in bytes.
const MAX_MEMORY_BYTES: usize = 4096;

/// A call, kept.
#[derive(Debug)]
struct Kept {
    call: Call<'static>,
    entry_segments: Vec<u8>,
    exit_segments: Vec<u8>,
}

#[derive(Debug, Default)]
struct Domain {
    /// Boxed, because they move through the queue all the time.
    calls: VecDeque<Box<Kept>>,
    last_ns: i64,
}

/// The last calls of each domain.
#[derive(Debug, Default)]
pub(super) struct History(FxHashMap<u16, Domain>);

impl History {
    /// Notes a call that has entered.
    pub(super) fn enter(&mut self, call: &Call<'_>) {
        if self.0.len() >= MAX_DOMAINS && !self.0.contains_key(&call.caller.domain) {
            self.forget_quietest();
        }
        let domain = self.0.entry(call.caller.domain).or_default();
        domain.last_ns = call.time_ns;
        let spare = if domain.calls.len() < KEPT { None } else { domain.calls.pop_front() };
        let mut kept = spare.unwrap_or_else(|| {
            Box::new(Kept { call: bare(call), entry_segments: Vec::new(), exit_segments: Vec::new() })
        });
        kept.fill(call);
        domain.calls.push_back(kept);
    }

    /// Completes a call that has ended.
    pub(super) fn end(&mut self, call: &Call<'_>) {
        let domain = self.0.get_mut(&call.caller.domain);
        if let Some(kept) =
            domain.and_then(|domain| domain.calls.iter_mut().rev().find(|kept| kept.call.id == call.id))
        {
            kept.fill(call);
        }
    }

    /// What the domain of `call` did before it, the oldest first.
    pub(super) fn before(&self, call: &Call<'_>) -> impl Iterator<Item = Call<'_>> {
        let calls = self.0.get(&call.caller.domain).map(|domain| &domain.calls);
        let at = calls.and_then(|calls| calls.iter().position(|kept| kept.call.id == call.id)).unwrap_or(0);
        calls.into_iter().flatten().take(at).skip(at.saturating_sub(SHOWN)).map(|kept| kept.as_call())
    }

    /// A call of `domain`, if it is still remembered.
    pub(super) fn find(&self, domain: u16, id: CallId) -> Option<Call<'_>> {
        let calls = &self.0.get(&domain)?.calls;
        calls.iter().rev().find(|kept| kept.call.id == id).map(|kept| kept.as_call())
    }

    #[cold]
    fn forget_quietest(&mut self) {
        if let Some(id) = self.0.iter().min_by_key(|(id, domain)| (domain.last_ns, **id)).map(|(id, _)| *id) {
            self.0.remove(&id);
        }
    }
}

impl Kept {
    fn fill(&mut self, call: &Call<'_>) {
        self.call = bare(call);
        self.call.cut |= keep(&mut self.entry_segments, call.entry_segments);
        self.call.cut |= keep(&mut self.exit_segments, call.exit_segments);
    }

    fn as_call(&self) -> Call<'_> {
        Call { entry_segments: &self.entry_segments, exit_segments: &self.exit_segments, ..self.call }
    }
}

/// A call without its memory.
fn bare(call: &Call<'_>) -> Call<'static> {
    let Call {
        id,
        time_ns,
        duration_ns,
        caller,
        parent,
        continues,
        registers,
        cut,
        intervention,
        outcome,
        ..
    } = *call;
    let (entry_segments, exit_segments) = (&[][..], &[][..]);
    Call {
        id,
        time_ns,
        duration_ns,
        caller,
        parent,
        continues,
        registers,
        entry_segments,
        exit_segments,
        cut,
        intervention,
        outcome,
    }
}

/// Copies what is not too long; says whether it was.
fn keep(kept: &mut Vec<u8>, bytes: &[u8]) -> bool {
    kept.clear();
    let fits = bytes.len() <= MAX_MEMORY_BYTES;
    kept.extend_from_slice(if fits { bytes } else { &[] });
    !fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Outcome;
    use crate::testing::call;

    fn numbered(sequence: u64) -> Call<'static> {
        Call {
            id: CallId { pcpu: 0, sequence },
            time_ns: sequence as i64,
            ..call(29, [0; 6], Outcome::Unfinished)
        }
    }

    #[test]
    fn the_calls_before_are_those_that_entered_before() {
        let mut history = History::default();
        (0..40).for_each(|sequence| history.enter(&numbered(sequence)));
        history.end(&Call { outcome: Outcome::Returned(5), ..numbered(30) });
        let before: Vec<(u64, Outcome)> =
            history.before(&numbered(32)).map(|call| (call.id.sequence, call.outcome)).collect();
        assert_eq!(
            before.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(),
            (24..32).collect::<Vec<_>>()
        );
        assert_eq!(before[6].1, Outcome::Returned(5));
        assert_eq!(history.before(&numbered(3)).count(), 0, "it is forgotten itself");
    }

    #[test]
    fn memory_is_bounded() {
        let mut history = History::default();
        let large = vec![0; MAX_MEMORY_BYTES + 1];
        history.enter(&Call { entry_segments: &large, ..numbered(0) });
        let kept = history.find(3, CallId { pcpu: 0, sequence: 0 }).unwrap();
        assert!(kept.cut && kept.entry_segments.is_empty());
        for domain in 0..5000 {
            let mut of_domain = numbered(u64::from(domain) + 1);
            of_domain.caller.domain = domain;
            history.enter(&of_domain);
        }
        assert_eq!(history.0.len(), MAX_DOMAINS);
        assert!(history.0.contains_key(&4999) && !history.0.contains_key(&7));
    }
}
