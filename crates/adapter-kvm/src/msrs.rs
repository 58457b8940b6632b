//! WRMSR by L1 of registers that decide where guests enter, seen as it is executed.
//!
//! KVM hands those to userspace that a filter denies it (Linux Documentation/virt/kvm/api.rst, on `KVM_X86_SET_MSR_FILTER` and
//! `KVM_CAP_X86_USER_SPACE_MSR`). QEMU has a filter of its own, for other registers: ours goes into the places it
//! leaves free. The value is then set as L1 wanted it. L1 writes these when it boots, and under Intel when it switches between kinds of
//! guests; VMLOAD, which sets them under AMD, meets no filter.
//!
//! EFER is left out: KVM would take values from userspace that it refuses from L1. It is among the registers of every exit.

use core::ffi::c_int;

use hypovisor_event::control::SystemRegister;
use hypovisor_sensor::watched_msr;
use kvm_bindings::{
    KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER, KVM_MSR_FILTER_DEFAULT_DENY,
    KVM_MSR_FILTER_WRITE, kvm_enable_cap, kvm_msr_filter, kvm_msr_filter_range,
};

use crate::kvm;

/// First number and count of runs of them: SYSENTER's; STAR, LSTAR, CSTAR, SFMASK; VM_HSAVE_PA (AMD APM vol. 2, appendix A.2).
const RANGES: [(u32, u32); 3] = [(0x174, 3), (0xc000_0081, 4), (0xc001_0117, 1)];

/// One bit for each register of a range: 0 denies it.
static DENIED: [u8; 8] = [0; 8];

/// The register, if the filter hands it over.
pub(crate) fn handed_over(number: u32) -> Option<SystemRegister> {
    let ours = RANGES.iter().any(|(first, count)| (*first..first + count).contains(&number));
    watched_msr(number.into()).filter(|_| ours)
}

/// QEMU's filter with ours in the places that it leaves free; `None` if there are too few, or if it denies what it does not name.
pub(crate) fn with_ours(theirs: &kvm_msr_filter) -> Option<kvm_msr_filter> {
    if theirs.flags & KVM_MSR_FILTER_DEFAULT_DENY != 0 {
        return None;
    }
    let mut both = *theirs;
    let mut free = both.ranges.iter_mut().filter(|range| range.nmsrs == 0);
    for (base, nmsrs) in RANGES {
        let bitmap = DENIED.as_ptr().cast_mut();
        *free.next()? = kvm_msr_filter_range { flags: KVM_MSR_FILTER_WRITE, nmsrs, base, bitmap };
    }
    Some(both)
}

/// What QEMU enables, with what is needed here.
pub(crate) const fn with_exits(theirs: &kvm_enable_cap) -> kvm_enable_cap {
    let mut both = *theirs;
    if both.cap == KVM_CAP_X86_USER_SPACE_MSR {
        both.args[0] |= KVM_MSR_EXIT_REASON_FILTER as u64;
    }
    both
}

/// Sets the filter where QEMU has none of its own. Whether KVM has such a thing: since Linux 5.10.
pub(crate) fn set_filter(vm: c_int) -> bool {
    let wish = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..kvm_enable_cap::default() };
    kvm::enable_cap(vm, &mut with_exits(&wish)) == 0
        && with_ours(&kvm_msr_filter::default())
            .is_some_and(|mut filter| kvm::set_msr_filter(vm, &mut filter) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_keeps_its_filter() {
        let mut theirs = kvm_msr_filter::default();
        theirs.ranges[0] = kvm_msr_filter_range { flags: 1, nmsrs: 1, base: 0x35, ..Default::default() };
        let both = with_ours(&theirs).unwrap();
        let bases: Vec<_> = both.ranges.iter().map(|range| (range.base, range.nmsrs)).take(5).collect();
        assert_eq!(bases, [(0x35, 1), (0x174, 3), (0xc000_0081, 4), (0xc001_0117, 1), (0, 0)]);
        theirs.ranges = [theirs.ranges[0]; 16];
        assert!(with_ours(&theirs).is_none(), "there is no room");
        let allowing = kvm_msr_filter { flags: KVM_MSR_FILTER_DEFAULT_DENY, ..kvm_msr_filter::default() };
        assert!(with_ours(&allowing).is_none());
    }

    #[test]
    fn every_register_of_the_filter_is_known() {
        for number in RANGES.into_iter().flat_map(|(first, count)| first..first + count) {
            assert!(handed_over(number).is_some(), "{number:#x}");
        }
        assert_eq!(handed_over(0xc000_0080), None, "EFER");
        assert_eq!(handed_over(0x35), None);
    }
}
