//! The processor's four breakpoints: which hook stands in which, and what QEMU's own debugger may have beside them.
//!
//! ```text
//!   DR0, DR1, DR2   entries: PV hypercalls, HVM hypercalls, inner calls of multicalls
//!   DR3             where the call under way returns to
//! ```
//!
//! Where a call returns to hardly ever changes: all 64-bit PV calls share one return address, all HVM calls another. So DR3
//! is only set when it has to be, and the usual call costs no system call.

use hypovisor_event::control::{Hook, HookKind};
use hypovisor_machine::Gva;
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, kvm_guest_debug,
    kvm_guest_debug_arch,
};

/// Breakpoints for entries; the fourth is for results.
const ENTRIES: usize = 3;
/// The breakpoint that moves.
const RESULT: usize = 3;
/// DR7 with no breakpoint enabled: exact breakpoints, and the bit that is always set (AMD APM vol. 2, §13.1.1.4).
const DR7_NONE: u64 = 0x0600;
/// All of DR7's bits that enable a breakpoint.
const DR7_ENABLES: u64 = 0xff;
/// The register that DR7 is among `debugreg`.
const DR7: usize = 7;

/// The hooks that the engine asked for, as far as there are breakpoints for them. The same for all vCPUs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hooks {
    entries: [Option<Hook>; ENTRIES],
    results: Vec<Hook>,
    /// L1's VMRUNs. They need no breakpoint: the sensor finds the VMCB in L1's own structures.
    pub(crate) vmruns: Vec<Gva>,
    /// Entries that there is no breakpoint for.
    pub(crate) left_out: usize,
}

impl Hooks {
    /// Divides them up.
    pub(crate) fn new(hooks: &[Hook]) -> Self {
        let mut divided = Self::default();
        let mut used = 0;
        for hook in hooks {
            match hook.kind {
                HookKind::PvEntry | HookKind::HvmEntry | HookKind::InnerEntry => {
                    match divided.entries.get_mut(used) {
                        Some(entry) => *entry = Some(*hook),
                        None => divided.left_out += 1,
                    }
                    used += 1;
                }
                HookKind::PvExit | HookKind::HvmExit | HookKind::InnerExit => divided.results.push(*hook),
                HookKind::Vmrun => divided.vmruns.push(hook.gva),
            }
        }
        divided
    }

    /// Where the first of them stands.
    pub(crate) fn first(&self) -> Option<Gva> {
        self.entries.iter().flatten().map(|hook| hook.gva).next()
    }

    /// Whether calls of this kind can return to `address`.
    pub(crate) fn returns_to(&self, kind: HookKind, address: u64) -> Option<Hook> {
        self.results.iter().copied().find(|hook| hook.kind == kind && hook.gva.0 == address)
    }
}

/// One vCPU's breakpoints.
#[derive(Debug)]
pub(crate) struct Breakpoints {
    hooks: [Option<Hook>; ENTRIES + 1],
    /// What QEMU's debugger asked for last.
    debugger: kvm_guest_debug,
}

impl Breakpoints {
    pub(crate) fn new() -> Self {
        Self { hooks: [None; ENTRIES + 1], debugger: nothing() }
    }

    /// Whether there are any of ours.
    pub(crate) fn any(&self) -> bool {
        self.hooks.iter().any(Option::is_some)
    }

    /// Places the entries.
    pub(crate) fn place(&mut self, hooks: &Hooks) {
        for (place, entry) in self.hooks.iter_mut().zip(hooks.entries) {
            *place = entry;
        }
    }

    /// Takes all of ours away.
    pub(crate) const fn clear(&mut self) {
        self.hooks = [None; ENTRIES + 1];
    }

    /// Moves the one for results. False if it stands there already.
    pub(crate) fn move_result(&mut self, hook: Hook) -> bool {
        let moved = self.hooks[RESULT] != Some(hook);
        self.hooks[RESULT] = Some(hook);
        moved
    }

    /// What stands at this address.
    pub(crate) fn at(&self, address: u64) -> Option<HookKind> {
        self.hooks.iter().flatten().find(|hook| hook.gva.0 == address).map(|hook| hook.kind)
    }

    /// QEMU's debugger wants something. False, and nothing is changed, if that is the breakpoints that are in use here.
    pub(crate) fn set_debugger(&mut self, wish: kvm_guest_debug) -> bool {
        let wants_registers =
            wish.control & KVM_GUESTDBG_USE_HW_BP != 0 && wish.arch.debugreg[DR7] & DR7_ENABLES != 0;
        if wants_registers && self.any() {
            return false;
        }
        self.debugger = wish;
        true
    }

    /// What KVM is to be told: ours and the debugger's. The debugger's software breakpoints and single steps go along.
    pub(crate) fn to_kvm(&self) -> kvm_guest_debug {
        let mut both = self.debugger;
        if !self.any() {
            return both;
        }
        if both.control & KVM_GUESTDBG_ENABLE == 0 {
            both = nothing();
        }
        both.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        both.arch.debugreg = [0; 8];
        let mut dr7 = DR7_NONE;
        for (index, hook) in self.hooks.iter().enumerate() {
            if let Some(hook) = hook {
                both.arch.debugreg[index] = hook.gva.0;
                // Locally and globally; the four bits from 16 on stay 0: on execution.
                dr7 |= 0b11 << (2 * index);
            }
        }
        both.arch.debugreg[DR7] = dr7;
        both
    }

    /// Whether an exit for debugging can be one for QEMU's debugger.
    pub(crate) const fn debugger_is_there(&self) -> bool {
        self.debugger.control & (KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP) != 0
    }
}

const fn nothing() -> kvm_guest_debug {
    kvm_guest_debug { control: 0, pad: 0, arch: kvm_guest_debug_arch { debugreg: [0; 8] } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::KVM_GUESTDBG_SINGLESTEP;

    fn hook(kind: HookKind, at: u64) -> Hook {
        Hook { kind, gva: Gva(at) }
    }

    fn xen() -> Hooks {
        use HookKind::{HvmEntry, HvmExit, InnerEntry, InnerExit, PvEntry, PvExit, Vmrun};
        Hooks::new(&[
            hook(PvEntry, 0x10),
            hook(PvExit, 0x11),
            hook(PvExit, 0x12),
            hook(HvmEntry, 0x20),
            hook(HvmExit, 0x21),
            hook(InnerEntry, 0x30),
            hook(InnerExit, 0x31),
            hook(Vmrun, 0x40),
        ])
    }

    #[test]
    fn three_entries_stand_and_the_result_moves() {
        let hooks = xen();
        let mut breakpoints = Breakpoints::new();
        breakpoints.place(&hooks);
        assert_eq!(breakpoints.to_kvm().arch.debugreg, [0x10, 0x20, 0x30, 0, 0, 0, 0, 0x063f]);
        let result = hooks.returns_to(HookKind::PvExit, 0x12).unwrap();
        assert!(breakpoints.move_result(result));
        assert!(!breakpoints.move_result(result), "it is there already");
        assert_eq!(breakpoints.to_kvm().arch.debugreg, [0x10, 0x20, 0x30, 0x12, 0, 0, 0, 0x06ff]);
        assert_eq!(breakpoints.at(0x12), Some(HookKind::PvExit));
        assert_eq!(breakpoints.at(0x11), None);
        assert_eq!(hooks.returns_to(HookKind::HvmExit, 0x12), None);
    }

    #[test]
    fn what_has_no_breakpoint_is_counted() {
        let fourth = hook(HookKind::InnerEntry, 0x50);
        let all = [HookKind::PvEntry, HookKind::HvmEntry, HookKind::InnerEntry].map(|kind| hook(kind, 1));
        assert_eq!(Hooks::new(&all).left_out, 0);
        assert_eq!(Hooks::new(&[&all[..], &[fourth]].concat()).left_out, 1);
    }

    #[test]
    fn the_debugger_has_its_own_but_not_the_registers() {
        let mut breakpoints = Breakpoints::new();
        let mut wish = nothing();
        wish.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        wish.arch.debugreg = [0x99, 0, 0, 0, 0, 0, 0, 0x603];
        assert!(breakpoints.set_debugger(wish), "nobody else uses them");
        assert_eq!(breakpoints.to_kvm(), wish, "and it is passed on as it is");
        breakpoints.place(&xen());
        assert!(!breakpoints.set_debugger(wish));
        wish = nothing();
        wish.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_SINGLESTEP;
        assert!(breakpoints.set_debugger(wish));
        assert_eq!(breakpoints.to_kvm().control, wish.control | KVM_GUESTDBG_USE_HW_BP);
        breakpoints.clear();
        assert_eq!(breakpoints.to_kvm(), wish);
    }
}
