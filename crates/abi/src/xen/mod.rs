//! Xen's public hypercall ABI.
//!
//! Facts come from the public headers that Debian ships in `libxen-dev` 4.20 (`xen/*.h`, MIT licence); the names
//! are the headers'. One file per family. Where 4.17 lays a struct out differently, a union picks the form by
//! `interface_version`, so that either hypervisor decodes right.

mod argo;
mod bitmap;
mod commands;
mod dm;
mod domctl;
mod event_channel;
mod flask;
mod grant_table;
mod guest_context;
mod hvm;
mod hypfs;
mod kexec;
mod mca;
mod memory;
mod misc;
mod mmu;
mod physdev;
mod platform;
mod pmu;
mod pv;
mod sched;
mod sysctl;
mod vcpu;
mod version;
mod xenoprof;

use crate::call::{Abi, Hypercall};

/// Xen's ABI: every number of `xen.h`.
pub static XEN: Abi = Abi { name: "xen", calls: &CALLS };

/// One more than the largest number in use (`__HYPERVISOR_arch_7`).
const NUMBERS: usize = 56;

static CALLS: [Option<&'static Hypercall>; NUMBERS] = by_number(&[
    &argo::ARGO_OP,
    &dm::DM_OP,
    &domctl::DOMCTL,
    &event_channel::EVENT_CHANNEL_OP,
    &event_channel::EVENT_CHANNEL_OP_COMPAT,
    &flask::XSM_OP,
    &grant_table::GRANT_TABLE_OP,
    &hvm::HVM_OP,
    &hypfs::HYPFS_OP,
    &kexec::KEXEC_OP,
    &mca::MCA,
    &memory::MEMORY_OP,
    &misc::ARCH_1,
    &misc::ARCH_2,
    &misc::ARCH_3,
    &misc::ARCH_4,
    &misc::ARCH_5,
    &misc::ARCH_6,
    &misc::ARCH_7,
    &misc::CONSOLE_IO,
    &misc::MULTICALL,
    &misc::TMEM_OP,
    &mmu::MMUEXT_OP,
    &mmu::MMU_UPDATE,
    &mmu::UPDATE_VA_MAPPING,
    &mmu::UPDATE_VA_MAPPING_OTHERDOMAIN,
    &physdev::PHYSDEV_OP,
    &physdev::PHYSDEV_OP_COMPAT,
    &platform::PLATFORM_OP,
    &pmu::XENPMU_OP,
    &pv::CALLBACK_OP,
    &pv::FPU_TASKSWITCH,
    &pv::GET_DEBUGREG,
    &pv::IRET,
    &pv::NMI_OP,
    &pv::SET_CALLBACKS,
    &pv::SET_DEBUGREG,
    &pv::SET_GDT,
    &pv::SET_SEGMENT_BASE,
    &pv::SET_TIMER_OP,
    &pv::SET_TRAP_TABLE,
    &pv::STACK_SWITCH,
    &pv::UPDATE_DESCRIPTOR,
    &pv::VM_ASSIST,
    &sched::SCHED_OP,
    &sched::SCHED_OP_COMPAT,
    &sysctl::SYSCTL,
    &vcpu::VCPU_OP,
    &version::XEN_VERSION,
    &xenoprof::XENOPROF_OP,
]);

/// Puts each call into the slot of its number; fails to compile when two claim the same one.
const fn by_number(calls: &[&'static Hypercall]) -> [Option<&'static Hypercall>; NUMBERS] {
    let mut slots = [None; NUMBERS];
    let mut i = 0;
    while i < calls.len() {
        let number = calls[i].number as usize;
        assert!(slots[number].is_none(), "two hypercalls have the same number");
        slots[number] = Some(calls[i]);
        i += 1;
    }
    slots
}

/// Shorthands of the tables.
mod prelude {
    pub(super) use crate::call::{Arg, Hypercall, SubOp, SubOpFrom, SubOps};
    pub(super) use crate::types::{Case, Count, Direction, Field, Int, Show, Tag, Type, Union, field};
    pub(super) use crate::{FlagSet, Width};
    #[allow(unused_imports, reason = "not every family has flexible arrays or wide handles")]
    pub(super) use crate::{enumeration, flag_set, handle, handle64, structure, tail};

    /// An argument.
    pub(super) const fn arg(name: &'static str, ty: Type) -> Arg {
        Arg { name, ty, only: None }
    }

    impl Arg {
        /// Only 64-bit callers pass it.
        pub(super) const fn only64(mut self) -> Self {
            self.only = Some(Width::Bits64);
            self
        }

        /// Only 32-bit callers pass it.
        pub(super) const fn only32(mut self) -> Self {
            self.only = Some(Width::Bits32);
            self
        }
    }

    /// A sub-op that returns zero or an errno.
    pub(super) const fn op(number: u64, name: &'static str, args: &'static [Arg]) -> SubOp {
        SubOp { number, name, args, returns: Show::Errno }
    }

    impl SubOp {
        /// Says what a result means that is not an errno.
        pub(super) const fn returning(mut self, returns: Show) -> Self {
            self.returns = returns;
            self
        }
    }

    /// A union member selected by these tag values.
    pub(super) const fn case(when: &'static [u64], name: &'static str, ty: Type) -> Case {
        Case { when, name, ty, direction: Direction::In }
    }
}
