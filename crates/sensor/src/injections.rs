//! Injections that wait for a vCPU to borrow, and those whose call L1 has preempted.
//!
//! An atomic tells vCPUs whether there is anything at all. Only while there is do they share a lock, which is held for
//! a few loads and stores at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hypovisor_event::injection::Injection;

use crate::borrow::{Job, Wanted};

/// Injections that may wait at a time; the engine sends no more before some have ended.
pub(crate) const MAX_WAITING: usize = 256;
/// Preempted calls that may be under way at a time. They are not forgotten while their domain lives: a guest that comes
/// back to one has to get its own registers back.
const MAX_SUSPENDED: usize = 64;
/// Hypercalls of the right domain at which an injection found no room, before that is reported.
const MAX_MISSES: u32 = 2000;

/// The lists, and whether there is anything in them.
#[derive(Debug)]
pub(crate) struct Injections {
    any: AtomicBool,
    lists: Mutex<Lists>,
}

#[derive(Debug)]
struct Lists {
    waiting: VecDeque<Box<Job>>,
    suspended: VecDeque<Box<Job>>,
}

impl Injections {
    /// With nothing in them, and room for all that may come: a vCPU never makes them grow.
    pub(crate) fn new() -> Self {
        let waiting = VecDeque::with_capacity(MAX_WAITING + 1);
        let lists = Lists { waiting, suspended: VecDeque::with_capacity(MAX_SUSPENDED + 1) };
        Self { any: AtomicBool::new(false), lists: Mutex::new(lists) }
    }

    /// Whether a vCPU has to look at all.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Takes an injection in; false if too many wait.
    pub(crate) fn push(&self, injection: Injection) -> bool {
        let mut lists = self.lock();
        let room = lists.waiting.len() < MAX_WAITING;
        if room {
            lists.waiting.push_back(Box::new(Job::new(injection)));
        }
        self.note(&lists);
        room
    }

    /// Forgets one that has not begun.
    pub(crate) fn cancel(&self, id: u64) {
        let mut lists = self.lock();
        lists.waiting.retain(|job| job.id() != id);
        self.note(&lists);
    }

    /// Forgets those that have not begun.
    pub(crate) fn drop_waiting(&self) {
        let mut lists = self.lock();
        lists.waiting.clear();
        self.note(&lists);
    }

    /// A preempted call that this one continues, or else the first that waits for such a caller.
    pub(crate) fn take(&self, wanted: &Wanted) -> Option<Box<Job>> {
        let mut lists = self.lock();
        let found = lists.continued(wanted).or_else(|| lists.next_for(wanted));
        self.note(&lists);
        found
    }

    /// Puts an injection back for which this call had no room. Gives it back if that was so too often.
    pub(crate) fn put_back(&self, mut job: Box<Job>) -> Option<Box<Job>> {
        job.misses += 1;
        if job.misses > MAX_MISSES {
            return Some(job);
        }
        let mut lists = self.lock();
        lists.waiting.push_front(job);
        self.note(&lists);
        None
    }

    /// Keeps an injection whose call L1 preempted until the guest comes back to it.
    pub(crate) fn suspend(&self, job: Box<Job>) {
        let mut lists = self.lock();
        lists.suspended.push_back(job);
        self.note(&lists);
    }

    /// Forgets all that was for this domain.
    pub(crate) fn domain_ended(&self, domain: u16) {
        let mut lists = self.lock();
        lists.waiting.retain(|job| job.domain() != domain);
        lists.suspended.retain(|job| job.domain() != domain);
        self.note(&lists);
    }

    fn note(&self, lists: &Lists) {
        self.any.store(!lists.waiting.is_empty() || !lists.suspended.is_empty(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        // The lists are whole between any two statements, so a panic elsewhere does not spoil them.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lists {
    fn continued(&mut self, wanted: &Wanted) -> Option<Box<Job>> {
        let at = self.suspended.iter().position(|job| job.is_continued_by(wanted))?;
        self.suspended.remove(at)
    }

    fn next_for(&mut self, wanted: &Wanted) -> Option<Box<Job>> {
        if self.suspended.len() >= MAX_SUSPENDED || !wanted.may_be_borrowed {
            return None;
        }
        let at = self.waiting.iter().position(|job| job.is_for(wanted))?;
        self.waiting.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use hypovisor_event::record::CallerMode;

    use super::*;

    fn injection(id: u64, domain: u16) -> Injection {
        Injection {
            id,
            domain,
            vcpu: None,
            is_64_bit: true,
            number: 17,
            registers: [0; 6],
            memory: Vec::new(),
            relocations: Vec::new(),
        }
    }

    fn caller(domain: u16) -> Wanted {
        let mode = CallerMode::Pv64;
        Wanted { domain, vcpu: 0, mode, rip: 0, rsp: 0, number: 29, args: [0; 6], may_be_borrowed: true }
    }

    #[test]
    fn a_domain_gets_its_own_in_order() {
        let injections = Injections::new();
        for (id, domain) in [(1, 5), (2, 7), (3, 5)] {
            assert!(injections.push(injection(id, domain)));
        }
        let ids = [5, 5, 5, 7].map(|domain| injections.take(&caller(domain)).map(|job| job.id()));
        assert_eq!(ids, [Some(1), Some(3), None, Some(2)]);
        assert!(!injections.any());
    }

    #[test]
    fn calls_of_domains_that_died_in_them_take_no_room() {
        let injections = Injections::new();
        for id in 0..MAX_SUSPENDED as u64 {
            injections.suspend(Box::new(Job::new(injection(id, 5))));
        }
        injections.push(injection(100, 7));
        assert!(injections.take(&caller(7)).is_none(), "no more may be under way");
        injections.domain_ended(5);
        assert_eq!(injections.take(&caller(7)).map(|job| job.id()), Some(100));
        assert!(!injections.any());
    }
}
