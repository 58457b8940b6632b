//! Calls for tests.

use hypovisor_abi::Width;
use hypovisor_abi::capture::Registers;
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_event::verdict::Intervention;

use crate::call::{Call, CallId, Outcome};
use crate::recording::{RecordedCall, call_name};

/// A call of domain 3 on CPU 1, at 22:13:20.000123456, that took 14.2 µs.
pub(crate) fn call(number: u64, args: [u64; 6], outcome: Outcome) -> Call<'static> {
    let mode = CallerMode::Pv64;
    Call {
        id: CallId { pcpu: 1, sequence: 7 },
        time_ns: 1_700_000_000_000_123_456,
        duration_ns: Some(14_200),
        caller: Caller { domain: 3, vcpu: 0, mode, cpl: 3, cs: 0xe033, rip: 0x1000, rsp: 0x2000 },
        parent: None,
        continues: None,
        registers: Registers { number, args, width: Width::Bits64 },
        entry_segments: &[],
        exit_segments: &[],
        cut: false,
        intervention: Intervention::default(),
        outcome,
    }
}

/// A call as a recording has it.
pub(crate) fn recorded(call: &Call<'_>) -> RecordedCall {
    let identity = hypovisor_abi::decode::identify(&hypovisor_abi::xen::XEN, &call.captured());
    RecordedCall {
        id: call.id,
        time_ns: call.time_ns,
        duration_ns: call.duration_ns,
        caller: call.caller,
        parent: call.parent,
        continues: call.continues,
        registers: call.registers,
        hypercall: call_name(call.registers.number).into(),
        sub_op_number: identity.sub_op_number,
        sub_op: identity.sub_op.map(|sub_op| sub_op.name.into()),
        entry_memory: call.entry_segments.to_vec(),
        exit_memory: call.exit_segments.to_vec(),
        cut: call.cut,
        intervention: call.intervention,
        outcome: call.outcome,
    }
}
