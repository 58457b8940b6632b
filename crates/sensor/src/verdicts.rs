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
    pause: Mutex<Option<Pause>>,
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
            pause: Mutex::new(None),
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

    /// Asks for L1 to be stopped for this call. False if it is being stopped for another already.
    #[cold]
    pub(crate) fn begin_pause(&self, call: Issue) -> bool {
        let mut pause = lock(&self.pause);
        if pause.is_some() {
            return false;
        }
        *pause = Some(Pause { call, since: Instant::now(), released: false });
        self.pausing.store(true, Ordering::Relaxed);
        true
    }

    /// What to do with this call, while L1 is being stopped.
    #[cold]
    pub(crate) fn waiting(&self, call: &Issue) -> Waiting {
        let mut pause = lock(&self.pause);
        let Some(current) = pause.filter(|pause| pause.call == *call) else { return Waiting::No };
        if !current.released && current.since.elapsed() < PAUSE_TIMEOUT {
            return Waiting::Again;
        }
        *pause = None;
        self.pausing.store(false, Ordering::Relaxed);
        if current.released { Waiting::Pass } else { Waiting::Refuse }
    }

    /// L1 was stopped; the call may pass when L1 goes on.
    pub(crate) fn release(&self) {
        if let Some(pause) = lock(&self.pause).as_mut() {
            pause.released = true;
        }
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
        assert!(verdicts.begin_pause(call(1)) && !verdicts.begin_pause(call(2)));
        assert_eq!(verdicts.waiting(&call(2)), Waiting::No);
        assert_eq!(verdicts.waiting(&call(1)), Waiting::Again);
        verdicts.release();
        assert_eq!(verdicts.waiting(&call(1)), Waiting::Pass);
        assert!(!verdicts.is_pausing());
        assert_eq!(verdicts.waiting(&call(1)), Waiting::No);
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
