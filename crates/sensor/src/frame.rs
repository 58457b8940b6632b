//! The guest's registers as Xen saved them: `struct cpu_user_regs` on the stack of the physical CPU.
//!
//! Offsets are those of Xen public/arch-x86/xen-x86_64.h, which the assembly entry code shares; they have not
//! changed from 4.17 to 4.20.

use hypovisor_abi::Width;
use hypovisor_event::record::CallerMode;
use hypovisor_mapping::Mapping;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the saved registers (15 general ones, then what the processor pushes, then the segment selectors).
pub(crate) const FRAME_BYTES: usize = 200;

mod offset {
    pub(super) const RBP: usize = 32;
    pub(super) const RBX: usize = 40;
    pub(super) const R10: usize = 56;
    pub(super) const R9: usize = 64;
    pub(super) const R8: usize = 72;
    pub(super) const RAX: usize = 80;
    pub(super) const RCX: usize = 88;
    pub(super) const RDX: usize = 96;
    pub(super) const RSI: usize = 104;
    pub(super) const RDI: usize = 112;
    /// `error_code`, and `entry_vector` in the upper half.
    pub(super) const ERROR_CODE: usize = 120;
    pub(super) const RIP: usize = 128;
    pub(super) const CS: usize = 136;
    pub(super) const RSP: usize = 152;
}

/// Length of SYSCALL and of INT n: what Xen takes off a PV guest's RIP to have a preempted call issued again.
pub(crate) const PV_CALL_BYTES: u64 = 2;
/// Length of VMMCALL and of VMCALL.
const HVM_CALL_BYTES: u64 = 3;

/// `entry_vector` of a 32-bit PV guest's hypercall (`HYPERCALL_VECTOR`, Xen arch/x86).
const INT82_VECTOR: u16 = 0x82;

/// The saved registers where they stand, with what stands behind them. Each is read when it is asked for and as the word
/// that Xen stored: a wider copy right behind the stores would have to wait for them to reach the cache.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a>(&'a [AtomicU64; WORDS]);

/// Words of the frame and of the start of `struct cpu_info` behind it, where the current vCPU is noted.
const WORDS: usize = FRAME_BYTES / 8 + 7;

impl<'a> Frame<'a> {
    /// Bytes that a frame takes with what stands behind it.
    pub(crate) const BYTES: usize = 8 * WORDS;

    /// The frame at `at` in `memory`.
    #[inline]
    pub(crate) fn new(memory: &'a Mapping, at: usize) -> Option<Self> {
        memory.counters(at).map(Self)
    }

    /// The 64-bit word at `offset`, a multiple of 8; 0 outside.
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> u64 {
        self.0.get(offset / 8).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    pub(crate) fn rax(&self) -> u64 {
        self.word(offset::RAX)
    }

    pub(crate) fn rip(&self) -> u64 {
        self.word(offset::RIP)
    }

    pub(crate) fn rsp(&self) -> u64 {
        self.word(offset::RSP)
    }

    pub(crate) fn cs(&self) -> u16 {
        self.word(offset::CS) as u16
    }

    /// All of the guest's registers.
    pub(crate) fn save(&self) -> SavedFrame {
        SavedFrame(std::array::from_fn(|index| self.word(8 * index)))
    }

    /// Puts the guest's registers back.
    pub(crate) fn restore(&self, saved: &SavedFrame) {
        for (index, word) in saved.0.into_iter().enumerate() {
            self.set(8 * index, word);
        }
    }

    /// Has the guest make this call instead of its own.
    pub(crate) fn set_call(&self, number: u64, args: &[u64; 6], width: Width) {
        self.set_rax(number);
        for (at, value) in argument_offsets(width).into_iter().zip(args) {
            self.set(at, *value);
        }
    }

    pub(crate) fn set_rax(&self, value: u64) {
        self.set(offset::RAX, value);
    }

    /// Has the guest issue its call again once L1 lets it go. At the exit hook of a PV guest, RIP stands behind the
    /// instruction; at that of an HVM guest it stands on it, and L1 is about to add its length.
    pub(crate) fn issue_again(&self, mode: CallerMode) {
        let bytes = if mode.is_pv() { PV_CALL_BYTES } else { HVM_CALL_BYTES };
        self.set(offset::RIP, self.rip().wrapping_sub(bytes));
    }

    fn set(&self, offset: usize, value: u64) {
        if let Some(word) = self.0.get(offset / 8) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// How a PV guest entered.
    pub(crate) fn pv_mode(&self) -> CallerMode {
        let vector = (self.word(offset::ERROR_CODE) >> 32) as u16;
        if vector == INT82_VECTOR { CallerMode::Pv32 } else { CallerMode::Pv64 }
    }

    /// Arguments in the order of the caller's ABI (Xen public/arch-x86/xen-x86_64.h and xen-x86_32.h).
    #[inline]
    pub(crate) fn args(&self, width: Width) -> [u64; 6] {
        argument_offsets(width).map(|at| self.word(at))
    }
}

/// The guest's registers as they were.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SavedFrame([u64; FRAME_BYTES / 8]);

#[inline]
const fn argument_offsets(width: Width) -> [usize; 6] {
    use offset::{R8, R9, R10, RBP, RBX, RCX, RDI, RDX, RSI};
    match width {
        Width::Bits64 => [RDI, RSI, RDX, R10, R8, R9],
        Width::Bits32 => [RBX, RCX, RDX, RSI, RDI, RBP],
    }
}

/// The ABI a caller in this mode uses.
pub(crate) const fn width_of(mode: CallerMode) -> Width {
    if mode.is_64_bit() { Width::Bits64 } else { Width::Bits32 }
}
