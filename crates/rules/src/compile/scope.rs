//! What a condition is compiled for: a call, perhaps one sub-op of it, and the width of its callers.

use hypovisor_abi::types::Type;
use hypovisor_abi::{Arg, Hypercall, SubOp, SubOpFrom, Width};

/// What a condition is compiled for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    pub(crate) call: Option<&'static Hypercall>,
    pub(crate) sub_op: Option<&'static SubOp>,
    pub(crate) sub_op_number: Option<u64>,
    pub(crate) width: Width,
}

impl Scope {
    pub(crate) fn args(&self) -> &'static [Arg] {
        let Some(call) = self.call else { return &[] };
        match (call.sub_ops.map(|ops| ops.from), self.sub_op) {
            (Some(SubOpFrom::Arg { .. }), Some(op)) => op.args,
            _ => call.args,
        }
    }

    /// The arguments that a caller of this width passes, each with its first register.
    pub(crate) fn placed(&self) -> Vec<(u8, &'static Arg)> {
        let mut next = 0;
        let mut placed = Vec::new();
        for arg in self.args() {
            let taken = arg.registers(self.width);
            if taken > 0 {
                placed.push((next, arg));
            }
            next += taken;
        }
        placed
    }

    pub(crate) fn sub_op_from(&self) -> Option<SubOpFrom> {
        self.call?.sub_ops.map(|ops| ops.from)
    }

    pub(crate) fn bytes(&self, ty: &Type) -> u32 {
        ty.bytes(self.width)
    }
}
