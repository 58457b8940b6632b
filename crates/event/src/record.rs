//! Records: what one event looks like in a ring.
//!
//! A call makes two records, one when it enters and one when it returns, because a call that crashes the
//! hypervisor has no return and must be seen all the same. All words are little-endian and 8 bytes; the first
//! three are common:
//!
//! ```text
//!  word  all records                                       entry                          exit
//!  0     length (32) │ kind (8) │ flags (8) │ caller (8)
//!  1     sequence number                                   of this call                   of the call that returns
//!  2     time, ticks of L0's TSC
//!  3                                                       domain │ vcpu │ cs │ rule + 1   result (RAX)
//!                                                          (16 bits each)
//!  4                                                       number (RAX)                   preempted only: RIP
//!  5                                                       RIP                            preempted only: RSP
//!  6                                                       RSP                            preempted only: RAX, arguments
//!  7                                                       parent's sequence number + 1     (7 words)
//!  8–13                                                    arguments
//!  14…                                                     captured segments              (or from word 4) segments
//! ```
//!
//! Segments are those of `hypovisor_abi::capture`; this crate only carries their bytes.
//!
//! The result of an injected call stands in a record of its own, behind that call's exit: word 1 is the injection's id,
//! word 3 the result, 4 what became of it and the bytes of memory, 5 the call's sequence number, 6 its duration in
//! ticks; then the memory that the call brought, as L1 left it.

use crate::injection::Injected;
use crate::verdict::Intervention;

mod read;
mod write;

pub use self::read::{MalformedRecord, Peek, Records};
pub use self::write::{finish, head, intervention_flags, write_entry, write_exit, write_gap, write_injected};

/// Bytes in an entry record before its segments.
pub const ENTRY_BYTES: usize = 14 * 8;
/// Bytes in an exit record of a completed call before its segments.
pub const EXIT_BYTES: usize = 4 * 8;
/// Bytes in an exit record of a preempted call.
pub const PREEMPTED_BYTES: usize = 13 * 8;
/// Bytes in a gap record.
pub const GAP_BYTES: usize = 5 * 8;
/// Bytes in an injection's record before its memory.
pub const INJECTED_BYTES: usize = 7 * 8;
/// Upper bound of a record's length in bytes.
pub const MAX_RECORD_BYTES: usize = 32 * 1024;

/// What a record reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A hypercall enters the hypervisor.
    Entry = 1,
    /// One inner call of a multicall is about to run.
    InnerEntry = 2,
    /// A call has returned, or was preempted.
    Exit = 3,
    /// Events were lost.
    Gap = 4,
    /// An injection has ended.
    Injected = 5,
}

/// Bits of a record's flag byte.
pub mod flag {
    /// The call did not finish: Xen will have the guest issue it again.
    pub const PREEMPTED: u8 = 1;
    /// The capture was cut short: more memory belongs to the call than fits.
    pub const CUT: u8 = 2;
    /// The call was injected.
    pub const INJECTED: u8 = 4;
    /// Where the [`Verdict`](crate::verdict::Verdict) stands: two bits.
    pub const VERDICT_SHIFT: u32 = 3;
}

/// How the caller entered the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CallerMode {
    /// A 64-bit PV guest, by SYSCALL.
    Pv64 = 0,
    /// A 32-bit PV guest, by INT 0x82.
    Pv32 = 1,
    /// An HVM or PVH guest in 64-bit mode.
    Hvm64 = 2,
    /// An HVM or PVH guest in 32-bit or compatibility mode.
    Hvm32 = 3,
}

impl CallerMode {
    /// Whether the guest passes arguments in 64-bit registers.
    #[must_use]
    pub const fn is_64_bit(self) -> bool {
        matches!(self, Self::Pv64 | Self::Hvm64)
    }

    /// Whether it is a PV guest.
    #[must_use]
    pub const fn is_pv(self) -> bool {
        matches!(self, Self::Pv64 | Self::Pv32)
    }

    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Pv64,
            1 => Self::Pv32,
            2 => Self::Hvm64,
            _ => Self::Hvm32,
        }
    }
}

/// Who makes a call, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Domain id.
    pub domain: u16,
    /// vCPU number within the domain.
    pub vcpu: u16,
    /// How it entered.
    pub mode: CallerMode,
    /// Privilege level, 0 to 3. The kernel of a 64-bit PV guest runs at 3.
    pub cpl: u8,
    /// Code segment selector; 0 where the hypervisor does not save it (HVM guests).
    pub cs: u16,
    /// Where the guest goes on after the call.
    pub rip: u64,
    /// The guest's stack pointer.
    pub rsp: u64,
}

/// A call enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the call on this ring, without gaps.
    pub sequence: u64,
    /// Ticks of L0's TSC.
    pub time_ticks: u64,
    /// The caller.
    pub caller: Caller,
    /// Sequence number of the multicall that this is an inner call of.
    pub parent: Option<u64>,
    /// RAX.
    pub number: u64,
    /// Arguments in the order of the caller's ABI.
    pub args: [u64; 6],
    /// What the sensor did with it.
    pub intervention: Intervention,
}

/// The registers a preempted call will be issued again with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reissue {
    /// Address of the instruction after the hypercall instruction: what the re-issued call's RIP will be.
    pub rip: u64,
    /// The guest's stack pointer.
    pub rsp: u64,
    /// RAX.
    pub number: u64,
    /// Arguments.
    pub args: [u64; 6],
}

/// A call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Sequence number of the call.
    pub sequence: u64,
    /// Ticks of L0's TSC.
    pub time_ticks: u64,
    /// RAX as the guest will see it; meaningless for a preempted call.
    pub result: i64,
    /// Set if the call was preempted.
    pub reissue: Option<Reissue>,
}

/// Events were lost on this ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Sequence number of the first call that may be missing.
    pub first_sequence: u64,
    /// When there was room again, ticks of L0's TSC.
    pub time_ticks: u64,
    /// Calls whose entry was lost.
    pub calls: u64,
    /// Calls whose entry is there but whose result was lost.
    pub results: u64,
}

/// One record, with the bytes of its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A call, or an inner call, enters.
    Entry {
        /// The call.
        entry: Entry,
        /// Captured memory in wire form.
        segments: &'a [u8],
        /// Not all of the memory fitted.
        cut: bool,
    },
    /// A call returns.
    Exit {
        /// The return.
        exit: Exit,
        /// Memory captured after the call, in wire form.
        segments: &'a [u8],
        /// Not all of the memory fitted.
        cut: bool,
    },
    /// Events were lost.
    Gap(Gap),
    /// An injection has ended.
    Injected {
        /// How.
        injected: Injected,
        /// The memory that the call brought, as L1 left it.
        memory: &'a [u8],
    },
}

#[cfg(test)]
mod tests;
