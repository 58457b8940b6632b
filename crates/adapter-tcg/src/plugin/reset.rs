//! A reset of the machine, seen as a processor executes its first instruction again.

use core::ffi::{c_uint, c_void};
use std::sync::atomic::Ordering;

use super::{Plugin, guarded};
use crate::sys::{self, Block};
use crate::vcpu::TcgVcpu;

/// Where a processor begins after a reset (AMD APM vol. 2, §14.1.3).
const RESET_VECTOR: u64 = 0xffff_fff0;

extern "C" fn on_reset_vector(vcpu: c_uint, _: *mut c_void) {
    guarded(|plugin| plugin.at_reset_vector(vcpu));
}

impl Plugin {
    /// The firmware's first block; also a guest's that begins there.
    pub(super) fn watch_reset(block: Block) {
        if block.address() == RESET_VECTOR
            && let Some(first) = block.instructions().next()
        {
            first.on_execute(on_reset_vector, 0);
        }
    }

    /// A processor after a reset has an EFER of zero. A guest of L1's has SVME set in its own (AMD APM vol. 2, §15.5.1).
    #[cold]
    fn at_reset_vector(&self, index: c_uint) {
        let Some(vcpu) = self.any_vcpu(index) else { return };
        if self.hooks.get().is_some() && vcpu.registers.efer() == Some(0) {
            self.l1_was_reset();
        }
    }

    /// The machine begins anew: nothing of L1 stands where it stood, and what to hook is asked again when its kernel runs. One processor
    /// executes this, and no other runs before that one starts it.
    fn l1_was_reset(&self) {
        self.text_distance.store(0, Ordering::Release);
        self.l1_code.store(0, Ordering::Release);
        self.stacks.forget();
        self.guests.forget();
        self.changed_code.forget();
        self.foreign_code.forget();
        self.control.l1_was_reset();
        self.probing.store(true, Ordering::Release);
        sys::log("L1 was reset; it is watched again as soon as its hypervisor runs");
    }

    /// What a vCPU knows of an L1 that was there before a reset is of no use.
    pub(super) fn note_resets(&self, vcpu: &mut TcgVcpu) {
        let resets = self.control.resets();
        if vcpu.resets != resets {
            vcpu.forget(resets);
        }
    }
}
