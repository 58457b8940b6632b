//! What was called: hypercall and sub-op, without arguments.

use hypovisor_abi::decode;
use hypovisor_abi::xen::XEN;

use crate::call::Call;
use crate::recording::call_name;

/// A hypercall, or one sub-op of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Operation {
    /// The hypercall's number.
    pub(crate) number: u64,
    /// The sub-op's number, if the call has sub-ops and it was read.
    pub(crate) sub_op: Option<u64>,
}

impl Operation {
    /// Of a call.
    pub(crate) fn of(call: &Call<'_>) -> Self {
        let identity = decode::identify(&XEN, &call.captured());
        Self { number: call.registers.number, sub_op: identity.sub_op_number }
    }

    /// Whether it says all that there is to say: of a call with sub-ops, which one.
    pub(crate) fn is_whole(self) -> bool {
        self.sub_op.is_some() || XEN.call(self.number).is_none_or(|call| call.sub_ops.is_none())
    }

    /// As rules name it: `memory_op/XENMEM_exchange`, `memory_op/99`, `iret`, `hypercall_77`.
    pub(crate) fn name(self) -> String {
        let call = call_name(self.number);
        match self.sub_op_name() {
            Some(sub_op) => format!("{call}/{sub_op}"),
            None => call,
        }
    }

    /// The sub-op's name, or its number if it has none.
    pub(crate) fn sub_op_name(self) -> Option<String> {
        let number = self.sub_op?;
        let known = XEN.call(self.number).and_then(|call| call.sub_op(number));
        Some(known.map_or_else(|| number.to_string(), |sub_op| sub_op.name.to_owned()))
    }

    /// The operation of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (call, sub_op) = name.split_once('/').map_or((name, None), |(call, sub_op)| (call, Some(sub_op)));
        let numbered = || call.strip_prefix("hypercall_").unwrap_or(call).parse().ok();
        let number = XEN.call_named(call).map(|call| call.number).or_else(numbered)?;
        let sub_op = sub_op.map(|sub_op| Self::parse_sub_op(number, sub_op).ok_or(())).transpose().ok()?;
        Some(Self { number, sub_op })
    }

    /// The number of the sub-op of this name.
    pub(crate) fn parse_sub_op(number: u64, name: &str) -> Option<u64> {
        let ops = XEN.call(number)?.sub_ops?.ops;
        ops.iter().find(|op| op.name == name).map(|op| op.number).or_else(|| name.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in [
            "memory_op/XENMEM_exchange",
            "memory_op/99",
            "iret",
            "hypercall_77",
            "domctl/XEN_DOMCTL_pausedomain",
        ] {
            assert_eq!(Operation::parse(name).unwrap().name(), name);
        }
        for name in [
            "",
            "memory_op/",
            "memory_op/XENMEM_no_such",
            "no_such",
            "iret/1x",
            "hypercall_",
            "hypercall_77/1",
        ] {
            assert_eq!(Operation::parse(name), None, "{name}");
        }
    }
}
