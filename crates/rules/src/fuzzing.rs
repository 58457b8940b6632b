//! What the fuzz targets and the property tests share.

use std::path::PathBuf;

use hypovisor_abi::Width;
use hypovisor_abi::capture::{Registers, Segments};
use hypovisor_abi::decode::Call;
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_verdict::{End, Facts, GuestKind, Judged, Moment, Outcome, RuleSet};

use crate::rules::Rules;

/// Registers in front of the memory of a made-up call.
const HEADER_BYTES: usize = 64;

/// Loads a file that holds these bytes; what can be compiled survives the wire. `None`: it is no rule.
///
/// # Panics
/// If a compiled set does not come back as it was.
#[must_use]
pub fn rule_file(data: &[u8]) -> Option<Rules> {
    let text = String::from_utf8_lossy(data).into_owned();
    let rules = Rules::from_texts(vec![(PathBuf::from("fuzz.yaml"), text)]).ok()?;
    let bytes = rules.compiled().to_bytes();
    assert_eq!(RuleSet::from_bytes(&bytes).as_ref(), Ok(rules.compiled()), "lost on the wire");
    Some(rules)
}

/// Judges a call made of arbitrary bytes by a set made of arbitrary bytes. `None`: it is no set.
///
/// # Panics
/// If a bound is not kept.
#[must_use]
pub fn rule_set(set: &[u8], call: &[u8]) -> Option<[Judged; 2]> {
    let set = RuleSet::from_bytes(set).ok()?;
    Some(judge(&set, call))
}

/// As [`rule_set`], from one input: the length of the set in 4 bytes, the set, the call.
#[must_use]
pub fn rule_set_input(data: &[u8]) -> Option<[Judged; 2]> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let (set, call) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    rule_set(set, call)
}

/// Judges a call made of arbitrary bytes, at both moments.
///
/// # Panics
/// If a bound is not kept.
#[must_use]
pub fn judge(set: &RuleSet, call: &[u8]) -> [Judged; 2] {
    let mut header = [0; HEADER_BYTES];
    let fixed = call.len().min(HEADER_BYTES);
    header[..fixed].copy_from_slice(&call[..fixed]);
    let memory = &call[fixed..];
    let (entry, exit) = memory.split_at((memory.len() / 2).next_multiple_of(8).min(memory.len()));
    let word = |index: usize| u64::from_le_bytes(std::array::from_fn(|byte| header[8 * index + byte]));
    let mode = [CallerMode::Pv64, CallerMode::Pv32, CallerMode::Hvm64, CallerMode::Hvm32]
        [usize::from(header[0] & 3)];
    let width = if mode.is_64_bit() { Width::Bits64 } else { Width::Bits32 };
    let registers =
        Registers { number: u64::from(header[1]), args: std::array::from_fn(|arg| word(arg + 1)), width };
    let call = Call { registers, entry: Segments(entry), exit: Segments(exit) };
    let end = End { outcome: Outcome::Returned, result: Some(word(7).cast_signed()), duration_ns: None };
    let facts = Facts {
        call: &call,
        caller: Caller { domain: u16::from(header[2]), vcpu: 0, mode, cpl: 0, cs: 0, rip: word(7), rsp: 0 },
        pcpu: 0,
        kind: GuestKind::Unknown,
        privileged: header[3] & 1 != 0,
        inner: header[3] & 2 != 0,
        continuation: header[3] & 4 != 0,
        cut: false,
        end: Some(end),
    };
    [Moment::Entry, Moment::Return].map(|moment| {
        let judged = set.judge(&facts, moment, &mut |_| {});
        assert!(judged.steps <= hypovisor_verdict::MAX_STEPS_PER_CALL, "{judged:?}");
        judged
    })
}
