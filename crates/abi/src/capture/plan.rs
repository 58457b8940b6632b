//! Which calls have memory to capture at all: asked on every call of every guest, so worked out beforehand.

use super::{Phase, Registers, handle_wants, placed};
use crate::call::{Abi, Arg, Hypercall, SubOpFrom};
use crate::layout::Width;
use crate::types::Type;

/// Sub-operation numbers up to here are looked up in a table; Xen's go to 51.
const MAX_TABLED_SUB_OPS: u64 = 256;

/// At which phases a call has memory to capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Before L1 runs the call.
    pub entry: bool,
    /// After it.
    pub exit: bool,
}

/// The argument registers that hold pointers to follow, a bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Pointers {
    entry: u8,
    exit: u8,
}

/// A call's pointers, by sub-operation where a register holds its number.
#[derive(Clone, Debug, Default)]
struct CallPlan {
    sub_op: Option<(u8, u64)>,
    by_sub_op: Box<[Pointers]>,
    otherwise: Pointers,
}

/// What an ABI's calls have to capture.
#[derive(Clone, Debug)]
pub struct Plan {
    calls: [Box<[CallPlan]>; 2],
}

impl Plan {
    /// Works the ABI's tables through.
    #[must_use]
    pub fn new(abi: &Abi) -> Self {
        let calls = [Width::Bits32, Width::Bits64].map(|width| {
            abi.calls
                .iter()
                .map(|call| call.map_or_else(CallPlan::default, |call| CallPlan::new(call, width)))
                .collect()
        });
        Self { calls }
    }

    /// Whether anything is to be captured for this call.
    #[must_use]
    #[inline]
    pub fn wanted(&self, registers: &Registers) -> Wanted {
        let calls = &self.calls[usize::from(registers.width == Width::Bits64)];
        let call = usize::try_from(registers.number).ok().and_then(|number| calls.get(number));
        call.map_or(Wanted::default(), |call| call.wanted(registers))
    }
}

impl CallPlan {
    fn new(call: &'static Hypercall, width: Width) -> Self {
        let otherwise = Pointers::of(call.args, width);
        let Some((index, mask, ops)) = call.sub_ops.and_then(|ops| match ops.from {
            SubOpFrom::Arg { index, mask } => Some((index, mask, ops.ops)),
            SubOpFrom::Memory { .. } | SubOpFrom::FirstBuffer { .. } => None,
        }) else {
            return Self { otherwise, ..Self::default() };
        };
        let tabled = ops.iter().map(|op| op.number + 1).filter(|len| *len <= MAX_TABLED_SUB_OPS).max();
        let by_sub_op = (0..tabled.unwrap_or(0))
            .map(|number| call.sub_op(number).map_or(otherwise, |op| Pointers::of(op.args, width)))
            .collect();
        Self { sub_op: Some((index, mask)), by_sub_op, otherwise }
    }

    #[inline]
    fn wanted(&self, registers: &Registers) -> Wanted {
        let by_sub_op = self.sub_op.and_then(|(index, mask)| {
            usize::try_from(registers.arg(index) & mask).ok().and_then(|number| self.by_sub_op.get(number))
        });
        let pointers = by_sub_op.unwrap_or(&self.otherwise);
        if pointers.entry | pointers.exit == 0 {
            return Wanted::default();
        }
        let present =
            (0..6).filter(|index| registers.arg(*index) != 0).fold(0, |set, index| set | 1 << index);
        Wanted { entry: pointers.entry & present != 0, exit: pointers.exit & present != 0 }
    }
}

impl Pointers {
    fn of(args: &'static [Arg], width: Width) -> Self {
        let mut pointers = Self::default();
        for (index, arg) in placed(args, width) {
            if let Type::Handle(handle) = arg.ty.for_width(width) {
                pointers.entry |= u8::from(handle_wants(handle, Phase::Entry)) << index;
                pointers.exit |= u8::from(handle_wants(handle, Phase::Exit)) << index;
            }
        }
        pointers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::XEN;

    /// No sub-op number is beyond the table: one that is would be taken for an unknown one.
    #[test]
    fn every_sub_op_of_xen_is_in_the_table() {
        for call in XEN.calls.iter().flatten() {
            for op in call.sub_ops.map_or(&[][..], |ops| ops.ops) {
                let in_register = matches!(call.sub_ops.map(|ops| ops.from), Some(SubOpFrom::Arg { .. }));
                assert!(!in_register || op.number < MAX_TABLED_SUB_OPS, "{} {}", call.name, op.name);
            }
        }
    }
}
