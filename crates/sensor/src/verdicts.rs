//! The rules in force in the sensor, and what has to be remembered to judge by them.
//!
//! Rules come from the engine, as a whole set at a time. Each vCPU holds on to the set it knows and looks at one atomic
//! to see whether there is another; nothing else is shared unless a call is preempted or L1 is being paused.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hypovisor_verdict::{GuestKind, RuleSet};

/// Preempted calls remembered, to know a continuation when it comes. The oldest is forgotten: its vCPU died or sleeps.
const MAX_PREEMPTED: usize = 256;
/// Calls that wait for L1 to be stopped. One too many is judged again, and has L1 stopped again.
const MAX_PAUSES: usize = 64;
/// Domain ids are below this (`DOMID_FIRST_RESERVED`, Xen public/xen.h).
const DOMAINS: usize = 0x7ff0;
/// How long the engine may take to stop L1 for a paused call; then the call is refused instead.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What tells one call from another when it is issued again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Issue {
    pub(crate) domain: u16,
    pub(crate) rip: u64,
    pub(crate) rsp: u64,
    pub(crate) number: u64,
    pub(crate) args: [u64; 6],
}

/// A rule set and how it is meant.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) set: RuleSet,
    /// Whether calls are really refused.
    pub(crate) enforce: bool,
}

/// What a vCPU holds on to.
#[derive(Debug, Default)]
pub(crate) struct Known {
    generation: u64,
    rules: Option<Arc<InForce>>,
}

/// L1 is being stopped for this call.
#[derive(Clone, Copy, Debug)]
struct Pause {
    call: Issue,
    since: Instant,
    /// L1 was stopped and runs again: the call may pass, once.
    released: bool,
}

impl Pause {
    /// What becomes of the call.
    fn waiting(&self) -> Waiting {
        if self.released {
            Waiting::Pass
        } else if self.since.elapsed() < PAUSE_TIMEOUT {
            Waiting::Again
        } else {
            Waiting::Refuse
        }
    }
}

/// What to do with a call while L1 is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// It has nothing to do with it.
    No,
    /// Have the guest issue it again, after a moment.
    Again,
    /// Let it run: L1 was stopped and goes on.
    Pass,
    /// L1 could not be stopped: refuse it.
    Refuse,
}

/// Shared by all vCPUs.
#[derive(Debug)]
pub(crate) struct Verdicts {
    generation: AtomicU64,
    current: Mutex<Option<Arc<InForce>>>,
    any_preempted: AtomicBool,
    preempted: Mutex<VecDeque<Issue>>,
    /// What kind of guest each domain is, by id, as [`GuestKind`] numbers them.
    kinds: Box<[AtomicU8]>,
    pausing: AtomicBool,
    pauses: Mutex<VecDeque<Pause>>,
}

impl Verdicts {
    pub(crate) fn new() -> Self {
        Self {
            generation: AtomicU64::new(0),
            current: Mutex::new(None),
            any_preempted: AtomicBool::new(false),
            preempted: Mutex::new(VecDeque::with_capacity(MAX_PREEMPTED + 1)),
            kinds: (0..DOMAINS).map(|_| AtomicU8::new(GuestKind::Unknown as u8)).collect(),
            pausing: AtomicBool::new(false),
            pauses: Mutex::new(VecDeque::with_capacity(MAX_PAUSES + 1)),
        }
    }

    /// Judges by these rules from now on; by none if there are none.
    pub(crate) fn set(&self, rules: Option<InForce>) {
        *lock(&self.current) = rules.filter(|rules| !rules.set.is_empty()).map(Arc::new);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The rules in force, by way of what the vCPU holds on to.
    #[inline]
    pub(crate) fn rules<'a>(&self, known: &'a mut Known) -> Option<&'a Arc<InForce>> {
        let generation = self.generation.load(Ordering::Acquire);
        if known.generation != generation {
            self.refresh(known, generation);
        }
        known.rules.as_ref()
    }

    #[cold]
    fn refresh(&self, known: &mut Known, generation: u64) {
        known.rules.clone_from(&lock(&self.current));
        known.generation = generation;
    }

    /// Notes what kind of guest a domain is.
    pub(crate) fn set_kind(&self, domain: u16, kind: u8) {
        if let Some(slot) = self.kinds.get(usize::from(domain)) {
            slot.store(kind, Ordering::Relaxed);
        }
    }

    /// What kind of guest a domain is, as far as the engine has told.
    pub(crate) fn kind(&self, domain: u16) -> GuestKind {
        let kind = self.kinds.get(usize::from(domain)).map(|slot| slot.load(Ordering::Relaxed));
        let known = kind.and_then(|kind| GuestKind::ALL.get(usize::from(kind)));
        known.copied().unwrap_or_default()
    }

    /// L1 has preempted a call, which will be issued again like this.
    #[cold]
    pub(crate) fn note_preempted(&self, call: Issue) {
        let mut preempted = lock(&self.preempted);
        if preempted.len() == MAX_PREEMPTED {
            preempted.pop_front();
        }
        preempted.push_back(call);
        self.any_preempted.store(true, Ordering::Relaxed);
    }

    /// Whether this call continues a preempted one; then that is forgotten.
    #[inline]
    pub(crate) fn continues(&self, call: &Issue) -> bool {
        self.any_preempted.load(Ordering::Relaxed) && self.take_preempted(call)
    }

    #[cold]
    fn take_preempted(&self, call: &Issue) -> bool {
        let mut preempted = lock(&self.preempted);
        let Some(at) = preempted.iter().rposition(|one| one == call) else { return false };
        preempted.remove(at);
        self.any_preempted.store(!preempted.is_empty(), Ordering::Relaxed);
        true
    }

    /// Whether L1 is being stopped, or a call that it was stopped for has not passed yet.
    #[inline]
    pub(crate) fn is_pausing(&self) -> bool {
        self.pausing.load(Ordering::Relaxed)
    }

    /// L1 is to be stopped for this call, which waits meanwhile.
    #[cold]
    pub(crate) fn begin_pause(&self, call: Issue) {
        let mut pauses = lock(&self.pauses);
        if pauses.len() == MAX_PAUSES {
            pauses.pop_front();
        }
        pauses.push_back(Pause { call, since: Instant::now(), released: false });
        self.pausing.store(true, Ordering::Relaxed);
    }

    /// What to do with this call, while L1 is being stopped.
    #[cold]
    pub(crate) fn waiting(&self, call: &Issue) -> Waiting {
        let mut pauses = lock(&self.pauses);
        let Some(at) = pauses.iter().position(|pause| pause.call == *call) else { return Waiting::No };
        let waiting = pauses[at].waiting();
        if waiting != Waiting::Again {
            pauses.remove(at);
            self.pausing.store(!pauses.is_empty(), Ordering::Relaxed);
        }
        waiting
    }

    /// L1 was stopped; the calls that waited for that may pass when L1 goes on.
    pub(crate) fn release(&self) {
        lock(&self.pauses).iter_mut().for_each(|pause| pause.released = true);
    }

    /// A domain is gone, and its calls never come again: another domain's that look like them are not theirs.
    pub(crate) fn domain_ended(&self, domain: u16) {
        self.forget(|call| call.domain == domain);
    }

    /// L1 begins anew, and no call of before comes again.
    pub(crate) fn forget_calls(&self) {
        self.forget(|_| true);
    }

    fn forget(&self, is_gone: impl Fn(&Issue) -> bool) {
        let mut pauses = lock(&self.pauses);
        pauses.retain(|pause| !is_gone(&pause.call));
        self.pausing.store(!pauses.is_empty(), Ordering::Relaxed);
        drop(pauses);
        let mut preempted = lock(&self.preempted);
        preempted.retain(|call| !is_gone(call));
        self.any_preempted.store(!preempted.is_empty(), Ordering::Relaxed);
    }
}

/// What is locked is whole between any two statements, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u64) -> Issue {
        Issue { domain: 1, rip: 2, rsp: 3, number, args: [4; 6] }
    }

    #[test]
    fn a_continuation_is_known_once() {
        let verdicts = Verdicts::new();
        verdicts.note_preempted(call(1));
        verdicts.note_preempted(call(2));
        assert!(!verdicts.continues(&call(3)));
        assert!(verdicts.continues(&call(1)));
        assert!(!verdicts.continues(&call(1)));
        assert!(verdicts.continues(&call(2)));
        for number in 0..=MAX_PREEMPTED as u64 {
            verdicts.note_preempted(call(number));
        }
        assert!(!verdicts.continues(&call(0)), "the oldest is forgotten");
    }

    #[test]
    fn a_paused_call_passes_once_after_its_release() {
        let verdicts = Verdicts::new();
        verdicts.begin_pause(call(1));
        assert_eq!(verdicts.waiting(&call(2)), Waiting::No);
        assert_eq!(verdicts.waiting(&call(1)), Waiting::Again);
        verdicts.release();
        assert_eq!(verdicts.waiting(&call(1)), Waiting::Pass);
        assert!(!verdicts.is_pausing());
        assert_eq!(verdicts.waiting(&call(1)), Waiting::No);
    }

    #[test]
    fn calls_that_wait_are_told_apart_and_forgotten() {
        let verdicts = Verdicts::new();
        verdicts.begin_pause(call(1));
        verdicts.begin_pause(call(2));
        verdicts.release();
        verdicts.begin_pause(call(3));
        assert_eq!(verdicts.waiting(&call(2)), Waiting::Pass);
        assert_eq!(verdicts.waiting(&call(3)), Waiting::Again, "L1 was stopped before");
        assert!(verdicts.is_pausing());
        verdicts.note_preempted(call(4));
        verdicts.domain_ended(2);
        assert!(verdicts.is_pausing() && verdicts.continues(&call(4)), "another domain");
        verdicts.note_preempted(call(4));
        verdicts.domain_ended(1);
        assert!(!verdicts.is_pausing() && !verdicts.continues(&call(4)));
        assert_eq!(verdicts.waiting(&call(1)), Waiting::No, "what looks like it later is judged");
        (0..=MAX_PAUSES as u64).for_each(|number| verdicts.begin_pause(call(number)));
        assert_eq!(verdicts.waiting(&call(0)), Waiting::No, "the oldest is forgotten");
    }

    #[test]
    fn a_domain_is_of_the_kind_it_was_told() {
        let verdicts = Verdicts::new();
        verdicts.set_kind(5, GuestKind::Pvh as u8);
        verdicts.set_kind(u16::MAX, 1);
        verdicts.set_kind(6, 200);
        let kinds = [5, 6, u16::MAX].map(|domain| verdicts.kind(domain));
        assert_eq!(kinds, [GuestKind::Pvh, GuestKind::Unknown, GuestKind::Unknown]);
    }

    #[test]
    fn a_vcpu_learns_of_new_rules() {
        let verdicts = Verdicts::new();
        let mut known = Known::default();
        assert!(verdicts.rules(&mut known).is_none());
        verdicts.set(Some(InForce { set: RuleSet::default(), enforce: true }));
        assert!(verdicts.rules(&mut known).is_none(), "an empty set is none");
    }
}
