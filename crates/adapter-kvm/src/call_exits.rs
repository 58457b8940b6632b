//! Hypercalls of L1's hardware-virtualised guests, counted by the kernel where it sees them: each ends a nested guest's run.
//!
//! The trace event `kvm:kvm_nested_vmexit` (Linux arch/x86/kvm/trace.h). Nothing is traced, and nobody is interrupted. SYSCALLs of PV
//! guests end nobody's run.

use core::ffi::CStr;
use std::os::fd::OwnedFd;

use crate::trace_event::TraceEvent;

/// VMMCALL under AMD (APM vol. 2, appendix C), VMCALL under Intel (SDM vol. 3, appendix C).
const FILTER: &CStr = c"(isa == 2 && exit_reason == 0x81) || (isa == 1 && exit_reason == 18)";
/// The calling thread.
const THIS: i32 = 0;

/// A count of one thread.
#[derive(Debug)]
pub(crate) struct CallExits(OwnedFd);

impl CallExits {
    /// Counts those of the calling thread from now on. `None` if there is no such event, or this process may not count it.
    pub(crate) fn of_this_thread() -> Option<Self> {
        TraceEvent::find(&["kvm_nested_vmexit"])?.count(THIS, FILTER).map(Self)
    }

    /// How many so far.
    pub(crate) fn count(&self) -> u64 {
        let mut bytes = [0; 8];
        // The kernel gives the count whole or not at all.
        let _ = rustix::io::read(&self.0, &mut bytes);
        u64::from_le_bytes(bytes)
    }
}
