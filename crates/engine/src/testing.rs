//! Calls for tests.

use hypovisor_abi::Width;
use hypovisor_abi::capture::Registers;
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_event::verdict::Intervention;

use crate::call::{Call, CallId, Outcome};

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
