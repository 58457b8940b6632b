//! Who is calling: from the current `struct vcpu` to domain id and vCPU number.
//!
//! The structures are read on every call, never remembered: a `struct vcpu` that is freed may come back as
//! another domain's. What is remembered is where they stand in RAM, because Xen's direct map does not move.

use hypovisor_event::control::FrameLayout;
use hypovisor_machine::{Gpa, Gva, VirtualMemory};
use hypovisor_mapping::Ram;

use crate::vmcb::Vmcb;

/// Domain and vCPU as L1 numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) domain: u16,
    pub(crate) vcpu: u16,
}

impl Who {
    /// Shown when L1's structures could not be followed: no domain has this id (`DOMID_INVALID`).
    pub(crate) const UNKNOWN: Self = Self { domain: 0x7ff4, vcpu: 0 };
}

/// An L1 virtual address and where it stands in the RAM mapping.
#[derive(Clone, Copy, Default)]
struct Place {
    gva: u64,
    offset: usize,
}

/// The last structures met on one physical CPU.
#[derive(Clone, Copy, Default)]
pub(crate) struct WhoCache {
    vcpu: Place,
    domain: Place,
}

impl WhoCache {
    /// Follows `vcpu`, a pointer to the current `struct vcpu`. `cr3` is only asked for when a place is new.
    pub(crate) fn identify(
        &mut self,
        ram: &Ram,
        layout: &FrameLayout,
        vcpu: u64,
        mut cr3: impl FnMut() -> Option<u64>,
    ) -> Option<Who> {
        let vcpu_at = self.vcpu.find(ram, vcpu, &mut cr3)?;
        let domain = ram.mapping().word(vcpu_at + layout.vcpu_domain as usize)?;
        let domain_at = self.domain.find(ram, domain, &mut cr3)?;
        let number = |at: usize| ram.mapping().half_word(at);
        Some(Who {
            domain: number(domain_at + layout.domain_id as usize)?,
            vcpu: number(vcpu_at + layout.vcpu_id as usize)?,
        })
    }

    /// The VMCB of the current `struct vcpu`, found by the last [`WhoCache::identify`].
    pub(crate) fn vmcb(&self, ram: &Ram, layout: &FrameLayout) -> Option<Vmcb> {
        ram.mapping().word(self.vcpu.offset + layout.vcpu_vmcb as usize).map(|at| Vmcb(Gpa(at)))
    }

    /// Where the current `struct vcpu`, found by the last [`WhoCache::identify`], stands in the RAM mapping.
    pub(crate) const fn vcpu_offset(&self) -> usize {
        self.vcpu.offset
    }
}

impl Place {
    fn find(&mut self, ram: &Ram, gva: u64, cr3: &mut impl FnMut() -> Option<u64>) -> Option<usize> {
        if self.gva != gva {
            let gpa = VirtualMemory::new(ram, cr3()?).translate(Gva(gva)).ok()?;
            *self = Self { gva, offset: ram.offset_of(gpa, 8).ok()? };
        }
        Some(self.offset)
    }
}
