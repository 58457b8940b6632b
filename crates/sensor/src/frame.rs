//! The guest's registers as Xen saved them: `struct cpu_user_regs` on the stack of the physical CPU.
//!
//! Offsets are those of Xen public/arch-x86/xen-x86_64.h, which the assembly entry code shares; they have not
//! changed from 4.17 to 4.20.

use hypovisor_abi::Width;
use hypovisor_event::record::CallerMode;

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
    pub(super) const ENTRY_VECTOR: usize = 124;
    pub(super) const RIP: usize = 128;
    pub(super) const CS: usize = 136;
    pub(super) const RSP: usize = 152;
}

/// `entry_vector` of a 32-bit PV guest's hypercall (`HYPERCALL_VECTOR`, Xen arch/x86).
const INT82_VECTOR: u16 = 0x82;

/// A copy of the saved registers, with what stands behind them.
#[derive(Clone, Copy)]
pub(crate) struct Frame(pub(crate) [u8; Frame::COPIED_BYTES]);

impl Frame {
    /// The frame and the start of `struct cpu_info` behind it, where the current vCPU is noted.
    pub(crate) const COPIED_BYTES: usize = FRAME_BYTES + 56;

    pub(crate) const fn zeroed() -> Self {
        Self([0; Self::COPIED_BYTES])
    }

    /// The 64-bit word at `offset`; 0 outside.
    pub(crate) fn word(&self, offset: usize) -> u64 {
        self.0.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn half_word(&self, offset: usize) -> u16 {
        self.word(offset) as u16
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
        self.half_word(offset::CS)
    }

    /// How a PV guest entered.
    pub(crate) fn pv_mode(&self) -> CallerMode {
        if self.half_word(offset::ENTRY_VECTOR) == INT82_VECTOR { CallerMode::Pv32 } else { CallerMode::Pv64 }
    }

    /// Arguments in the order of the caller's ABI (Xen public/arch-x86/xen-x86_64.h and xen-x86_32.h).
    pub(crate) fn args(&self, width: Width) -> [u64; 6] {
        use offset::{R8, R9, R10, RBP, RBX, RCX, RDI, RDX, RSI};
        let order = match width {
            Width::Bits64 => [RDI, RSI, RDX, R10, R8, R9],
            Width::Bits32 => [RBX, RCX, RDX, RSI, RDI, RBP],
        };
        order.map(|at| self.word(at))
    }
}

/// The ABI a caller in this mode uses.
pub(crate) const fn width_of(mode: CallerMode) -> Width {
    if mode.is_64_bit() { Width::Bits64 } else { Width::Bits32 }
}
