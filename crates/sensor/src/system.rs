//! What L1 sets for good while it boots, and is told when it sets it otherwise.
//!
//! Some registers have one value on all processors, others one for each: what was set before L1's first guest ran is known,
//! wherever it was set, and anything else is told. Of control registers only protections count, and only their loss.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_machine::Gva;

/// Values of all registers that are known: a dozen for each of many processors.
const MAX_KNOWN: usize = 4096;
/// Changes that wait to be told. A hostile L1 can make any number; of those beyond, only their number is told.
const MAX_WAITING: usize = 16;
/// Of those that are nothing wrong in themselves: there is always room for others. The adapter tells such a one again.
const MAX_USED_VMCBS: usize = MAX_WAITING / 2;

/// MSR numbers (AMD APM vol. 2, appendix A.2).
const MSRS: [(u64, SystemRegister); 9] = [
    (0x174, SystemRegister::SysenterCs),
    (0x175, SystemRegister::SysenterEsp),
    (0x176, SystemRegister::SysenterEip),
    (0xc000_0080, SystemRegister::Efer),
    (0xc000_0081, SystemRegister::Star),
    (0xc000_0082, SystemRegister::Lstar),
    (0xc000_0083, SystemRegister::Cstar),
    (0xc000_0084, SystemRegister::Sfmask),
    (0xc001_0117, SystemRegister::VmHsavePa),
];

/// Write protection, paging, protected mode.
const CR0_OF_ANY_KERNEL: u64 = 1 << 16 | 1 << 31 | 1;

/// The bits that protect L1, of a register in which only those count; `None` if all of it does.
#[must_use]
pub const fn protections(register: SystemRegister) -> Option<u64> {
    match register {
        SystemRegister::Cr0 => Some(CR0_OF_ANY_KERNEL),
        SystemRegister::Cr4 => Some(1 << 11 | 1 << 20 | 1 << 21 | 1 << 23),
        SystemRegister::Efer => Some(1 << 0 | 1 << 8 | 1 << 11),
        _ => None,
    }
}

/// The register that an MSR is, if it is one that is watched.
#[must_use]
pub fn watched_msr(number: u64) -> Option<SystemRegister> {
    MSRS.into_iter().find(|(msr, _)| *msr == number).map(|(_, register)| register)
}

/// What all processors have set.
#[derive(Debug)]
pub(crate) struct SystemWatch {
    state: Mutex<State>,
    /// L1 has booted: what it has set is how it is to be.
    settled: AtomicBool,
    /// How many changes wait; so that nobody has to lock to see that none does.
    waiting: AtomicU64,
}

#[derive(Debug)]
struct State {
    known: Vec<(SystemRegister, u64)>,
    waiting: Vec<SystemChange>,
    /// Those that there was no room for.
    untold: u64,
}

impl State {
    /// With room for what may wait: once L1 has booted nothing is allocated.
    fn new() -> Self {
        Self { known: Vec::new(), waiting: Vec::with_capacity(MAX_WAITING), untold: 0 }
    }

    fn last(&self, register: SystemRegister) -> Option<u64> {
        self.known.iter().rev().find(|(known, _)| *known == register).map(|(_, value)| *value)
    }

    /// L1 boots: this is how it sets it.
    fn learn(&mut self, register: SystemRegister, value: u64) {
        if protections(register).is_some() {
            self.known.retain(|(known, _)| *known != register);
        }
        let new = (register, value);
        if self.known.len() < MAX_KNOWN && !self.known.contains(&new) {
            self.known.push(new);
        }
    }

    /// What L1 set before, if this is not it. A register that L1 never set while it booted has no wrong value, except for CR0, which
    /// it sets before its code stands where it is watched.
    fn differs(&self, register: SystemRegister, value: u64) -> Option<u64> {
        let last = match (self.last(register), register) {
            (None, SystemRegister::Cr0) => CR0_OF_ANY_KERNEL,
            (last, _) => last?,
        };
        let differs = match protections(register) {
            Some(bits) => last & bits & !value != 0,
            None => !self.known.contains(&(register, value)),
        };
        differs.then_some(last)
    }
}

impl SystemWatch {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::new()), settled: AtomicBool::new(false), waiting: AtomicU64::new(0) }
    }

    /// From now on, what L1 sets is compared.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// L1 sets a register while it boots.
    pub(crate) fn learn(&self, register: SystemRegister, value: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).learn(register, value);
    }

    /// The first of the values of a register that L1 set while it booted for which there is something.
    pub(crate) fn find<T>(&self, register: SystemRegister, find: impl FnMut(u64) -> Option<T>) -> Option<T> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let values = state.known.iter().filter(|(known, _)| *known == register).map(|(_, value)| *value);
        values.into_iter().find_map(find)
    }

    /// L1 sets a register while guests run; whether that is to be told.
    pub(crate) fn see(&self, register: SystemRegister, value: u64, rip: Gva) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = state.differs(register, value) else { return false };
        self.push(&mut state, SystemChange { register, before, now: value, rip })
    }

    /// Something that is wrong in itself.
    pub(crate) fn tell(&self, change: SystemChange) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.push(&mut state, change)
    }

    fn push(&self, state: &mut State, change: SystemChange) -> bool {
        if state.waiting.contains(&change) {
            return false;
        }
        let is_harmless = change.register == SystemRegister::UsedVmcb;
        if is_harmless && state.waiting.len() >= MAX_USED_VMCBS {
            return false;
        }
        if state.waiting.len() >= MAX_WAITING {
            state.untold += 1;
            return false;
        }
        state.waiting.push(change);
        self.waiting.store(state.waiting.len() as u64, Ordering::Release);
        true
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }

    /// Hands out what waits, as long as `send` takes it.
    pub(crate) fn flush(&self, mut send: impl FnMut(SystemChange) -> bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = state.waiting.iter().take_while(|change| send(**change)).count();
        state.waiting.drain(..sent);
        if state.waiting.is_empty() && state.untold > 0 && send(untold(state.untold)) {
            state.untold = 0;
        }
        let left = state.waiting.len() as u64 + u64::from(state.untold > 0);
        self.waiting.store(left, Ordering::Release);
    }

    /// L1 begins anew.
    pub(crate) fn forget(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::new();
        self.settled.store(false, Ordering::Release);
        self.waiting.store(0, Ordering::Release);
    }
}

const fn untold(count: u64) -> SystemChange {
    SystemChange { register: SystemRegister::Untold, before: 0, now: count, rip: Gva(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIP: Gva = Gva(0xffff_82d0_4020_0000);

    fn told(watch: &SystemWatch) -> Vec<(SystemRegister, u64, u64)> {
        let mut told = Vec::new();
        watch.flush(|change| {
            told.push((change.register, change.before, change.now));
            true
        });
        told
    }

    #[test]
    fn what_each_processor_set_is_known_on_all() {
        let watch = SystemWatch::new();
        watch.learn(SystemRegister::Lstar, 0x1000);
        watch.learn(SystemRegister::Lstar, 0x1080);
        assert!(!watch.see(SystemRegister::Lstar, 0x1000, RIP));
        assert!(!watch.see(SystemRegister::Cstar, 5, RIP), "L1 never set it");
        assert!(!watch.see(SystemRegister::Cr0, 0x8005_0033, RIP));
        assert!(watch.see(SystemRegister::Lstar, 0x2000, RIP));
        assert!(watch.is_waiting());
        assert_eq!(told(&watch), [(SystemRegister::Lstar, 0x1080, 0x2000)]);
        assert!(!watch.is_waiting());
    }

    #[test]
    fn only_the_loss_of_a_protection_counts() {
        let watch = SystemWatch::new();
        watch.learn(SystemRegister::Cr0, 0x8000_0011);
        watch.learn(SystemRegister::Cr0, 0x8005_0033);
        assert!(!watch.see(SystemRegister::Cr0, 0x8005_003b, RIP), "TS is nobody's business");
        assert!(watch.see(SystemRegister::Cr0, 0x8004_0033, RIP));
        assert_eq!(told(&watch), [(SystemRegister::Cr0, 0x8005_0033, 0x8004_0033)]);
    }

    #[test]
    fn what_cannot_be_sent_waits_and_a_flood_does_not() {
        let watch = SystemWatch::new();
        watch.learn(SystemRegister::Lstar, 1);
        for value in 0..100 {
            watch.see(SystemRegister::Lstar, 2 + value, RIP);
        }
        watch.flush(|_| false);
        let told_then = told(&watch);
        assert_eq!(told_then.len(), MAX_WAITING + 1);
        assert_eq!(told_then.last(), Some(&(SystemRegister::Untold, 0, 100 - MAX_WAITING as u64)));
        assert!(told(&watch).is_empty());
        for value in 0..100 {
            watch.see(SystemRegister::Lstar, 2 + value, RIP);
        }
        watch.flush(|change| change.register != SystemRegister::Untold);
        assert!(watch.is_waiting(), "the number is still to be told");
        assert_eq!(told(&watch).len(), 1);
        watch.forget();
        assert!(!watch.see(SystemRegister::Lstar, 7, RIP));
    }

    #[test]
    fn there_is_room_for_what_is_wrong() {
        let watch = SystemWatch::new();
        let change = |register, now| SystemChange { register, before: 0, now, rip: RIP };
        let used = (0..100).filter(|vmcb| watch.tell(change(SystemRegister::UsedVmcb, *vmcb)));
        assert_eq!(used.count(), MAX_USED_VMCBS);
        assert!(watch.tell(change(SystemRegister::Vmcb, 7)));
        assert_eq!(told(&watch).last(), Some(&(SystemRegister::Vmcb, 0, 7)));
    }
}
