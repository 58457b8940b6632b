//! A hypercall: its number, name, arguments and sub-operations.

use crate::layout::Width;
use crate::types::{Show, Type};

/// One register argument.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// The name the headers or Xen's handler use.
    pub name: &'static str,
    /// Its meaning. An integer is cut to its size; a handle is followed. A 64-bit integer takes two registers
    /// of a 32-bit caller, the lower half first.
    pub ty: Type,
    /// The callers that have it, if only those of one width do.
    pub only: Option<Width>,
}

impl Arg {
    /// How many registers it takes.
    #[must_use]
    pub const fn registers(&self, width: Width) -> u8 {
        match (self.only, &self.ty, width) {
            (Some(Width::Bits64), _, Width::Bits32) | (Some(Width::Bits32), _, Width::Bits64) => 0,
            (_, Type::Int(scalar), Width::Bits32) if scalar.int.bytes(Width::Bits32) == 8 => 2,
            _ => 1,
        }
    }
}

/// Where a call keeps its sub-op number.
#[derive(Clone, Copy, Debug)]
pub enum SubOpFrom {
    /// In an argument register, of which only `mask` counts (continuations keep state in the other bits).
    Arg {
        /// Which argument, 0-based.
        index: u8,
        /// The bits that hold the number.
        mask: u64,
    },
    /// In the first 4 bytes of the memory behind an argument (`domctl.cmd`, `physdev_op_compat.cmd`).
    Memory {
        /// Which argument, 0-based.
        index: u8,
    },
    /// In the first 4 bytes of the buffer that the first handle behind an argument leads to (`dm_op`).
    /// That buffer is captured and shown as what it holds, the further ones as the list's elements say.
    FirstBuffer {
        /// The argument that leads to the list of buffers, 0-based.
        index: u8,
        /// What the first buffer holds.
        ty: &'static Type,
    },
}

/// One sub-operation.
#[derive(Clone, Copy, Debug)]
pub struct SubOp {
    /// Its number.
    pub number: u64,
    /// The header's constant, e.g. `XENMEM_exchange`.
    pub name: &'static str,
    /// All arguments of the call, the sub-op number included.
    pub args: &'static [Arg],
    /// Meaning of a result that is not an errno.
    pub returns: Show,
}

/// The sub-operations of a call.
#[derive(Clone, Copy, Debug)]
pub struct SubOps {
    /// Where the number stands.
    pub from: SubOpFrom,
    /// The known ones, in any order.
    pub ops: &'static [SubOp],
}

/// One hypercall.
#[derive(Clone, Copy, Debug)]
pub struct Hypercall {
    /// The number in (E)RAX.
    pub number: u64,
    /// The name behind `__HYPERVISOR_`.
    pub name: &'static str,
    /// Arguments when there is no sub-op or an unknown one.
    pub args: &'static [Arg],
    /// Sub-operations, if it has any.
    pub sub_ops: Option<SubOps>,
    /// Meaning of a result that is not an errno.
    pub returns: Show,
}

impl Hypercall {
    /// The sub-op with this number.
    #[must_use]
    pub fn sub_op(&self, number: u64) -> Option<&'static SubOp> {
        let ops = self.sub_ops?.ops;
        match ops.get(number as usize) {
            Some(op) if op.number == number => Some(op),
            _ => ops.iter().find(|op| op.number == number),
        }
    }
}

/// A hypervisor's hypercall ABI.
#[derive(Debug)]
pub struct Abi {
    /// The hypervisor's name.
    pub name: &'static str,
    /// Hypercalls by number; a hole is a number the ABI does not use.
    pub calls: &'static [Option<&'static Hypercall>],
}

impl Abi {
    /// The hypercall with this number.
    #[must_use]
    pub fn call(&self, number: u64) -> Option<&'static Hypercall> {
        self.calls.get(usize::try_from(number).ok()?).copied().flatten()
    }

    /// The hypercall with this name (without `__HYPERVISOR_`).
    #[must_use]
    pub fn call_named(&self, name: &str) -> Option<&'static Hypercall> {
        self.calls.iter().copied().flatten().find(|call| call.name == name)
    }
}

/// Cuts a register to what a caller of this width can pass.
#[must_use]
pub(crate) const fn cut_to_width(value: u64, width: Width) -> u64 {
    match width {
        Width::Bits64 => value,
        Width::Bits32 => value & 0xffff_ffff,
    }
}
