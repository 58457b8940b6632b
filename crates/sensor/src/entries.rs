//! How many calls of guests have passed the hooks of one vCPU, for who counts them elsewhere too.

use hypovisor_machine::KERNEL_HALF;
use std::sync::atomic::{AtomicU64, Ordering};

use hypovisor_event::control::HookKind;
use hypovisor_event::record::CallerMode;

use crate::frame::Frame;

/// Calls by how they are made. Written by one vCPU's thread, each count alone.
#[derive(Debug, Default)]
pub struct Entries {
    pv: AtomicU64,
    hvm: AtomicU64,
}

impl Entries {
    /// Of 64-bit PV guests by SYSCALL in the kernel half of the address space, where no user program is.
    pub fn pv(&self) -> u64 {
        self.pv.load(Ordering::Relaxed)
    }

    /// Of guests with hardware virtualisation.
    pub fn hvm(&self) -> u64 {
        self.hvm.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn count(&self, kind: HookKind, frame: &Frame<'_>) {
        let count = match kind {
            HookKind::PvEntry if frame.rip() >= KERNEL_HALF && frame.pv_mode() == CallerMode::Pv64 => {
                &self.pv
            }
            HookKind::HvmEntry => &self.hvm,
            _ => return,
        };
        // One writer: no need for a locked addition.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}
