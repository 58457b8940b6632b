//! Picks one call of every kind from a recording, for the snapshot test of the decoders: `pick_captures RECORDING`.
//!
//! A kind is a hypercall and sub-op, the caller's ABI, and whether it succeeded; of each, the smallest capture that
//! has memory, if any has. One JSON object a line, what `testdata/captures.jsonl` holds.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use hypovisor_abi::Width;
use hypovisor_engine::call::Outcome;
use hypovisor_engine::recording::{RecordedCall, Recording};

type Kind = (u64, Option<u64>, bool, bool);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: pick_captures RECORDING")?);
    let mut picked: BTreeMap<Kind, RecordedCall> = BTreeMap::new();
    for call in Recording::open(&dir)?.calls()? {
        let call = call?;
        let wide = call.registers.width == Width::Bits64;
        let kind = (call.registers.number, call.sub_op_number, wide, call.outcome.failed());
        let better = picked.get(&kind).is_none_or(|best| size(&call) < size(best));
        if better && matches!(call.outcome, Outcome::Returned(_) | Outcome::Resumed) {
            picked.insert(kind, call);
        }
    }
    let mut out = std::io::stdout().lock();
    for call in picked.values() {
        writeln!(out, "{}", object(call))?;
    }
    Ok(())
}

/// Smaller is better, but a capture without memory shows little.
fn size(call: &RecordedCall) -> usize {
    let memory = call.entry_memory.len() + call.exit_memory.len();
    if memory == 0 { usize::MAX } else { memory }
}

fn object(call: &RecordedCall) -> serde_json::Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    serde_json::json!({
        "number": call.registers.number,
        "args": call.registers.args,
        "bits": if call.registers.width == Width::Bits64 { 64 } else { 32 },
        "entry": hex(&call.entry_memory),
        "exit": hex(&call.exit_memory),
        "result": call.outcome.result(),
    })
}
