//! Writing records: the sensor's side, on a vCPU's path.

use super::{
    CallerMode, ENTRY_BYTES, EXIT_BYTES, Entry, Exit, GAP_BYTES, Gap, INJECTED_BYTES, Kind, PREEMPTED_BYTES,
    flag,
};
use crate::injection::Injected;
use crate::verdict::Intervention;

fn put(buf: &mut [u8], word: usize, value: u64) {
    if let Some(slot) = buf.get_mut(word * 8..).and_then(|rest| rest.first_chunk_mut::<8>()) {
        *slot = value.to_le_bytes();
    }
}

/// Packs a record's first word. `len` is the whole record's length in bytes, a multiple of 8.
#[must_use]
pub const fn head(len: usize, kind: Kind, flags: u8, mode: CallerMode, cpl: u8) -> u64 {
    let caller = (mode as u64) | ((cpl as u64 & 3) << 2);
    (len as u64) | ((kind as u64) << 32) | ((flags as u64) << 40) | (caller << 48)
}

/// Writes an entry record's fixed part; the segments follow at [`ENTRY_BYTES`], the first word comes last
/// through [`finish`].
#[inline]
pub fn write_entry(buf: &mut [u8; ENTRY_BYTES], entry: &Entry) {
    let caller = &entry.caller;
    let rule = entry.intervention.rule.map_or(0, |rule| u64::from(rule) + 1);
    let who = u64::from(caller.domain)
        | (u64::from(caller.vcpu) << 16)
        | (u64::from(caller.cs) << 32)
        | (rule << 48);
    let args = &entry.args;
    let words = [
        entry.sequence,
        entry.time_ticks,
        who,
        entry.number,
        caller.rip,
        caller.rsp,
        entry.parent.map_or(0, |parent| parent + 1),
        args[0],
        args[1],
        args[2],
        args[3],
        args[4],
        args[5],
    ];
    // A loop over a known number of words, which the compiler unrolls: this runs on every call of every guest.
    let slots = buf.as_chunks_mut::<8>().0.iter_mut().skip(1);
    for (slot, word) in slots.zip(words) {
        *slot = word.to_le_bytes();
    }
}

/// The flags of an entry record for what the sensor did with the call.
#[must_use]
pub const fn intervention_flags(intervention: &Intervention) -> u8 {
    let verdict = match intervention.verdict {
        Some(verdict) => (verdict as u8) << flag::VERDICT_SHIFT,
        None => 0,
    };
    verdict | if intervention.injected { flag::INJECTED } else { 0 }
}

/// Writes the record of an injection's end, whole; returns its length in bytes, or `None` if `buf` is too short.
pub fn write_injected(buf: &mut [u8], injected: &Injected, memory: &[u8]) -> Option<usize> {
    let len = INJECTED_BYTES + memory.len().next_multiple_of(8);
    let (fixed, rest) = buf.get_mut(..len)?.split_at_mut(INJECTED_BYTES);
    let Injected { id, time_ticks, status, result, sequence, duration_ticks } = *injected;
    let status = status as u64 | (memory.len() as u64) << 32;
    let head = head(len, Kind::Injected, 0, CallerMode::Pv64, 0);
    let words = [head, id, time_ticks, result as u64, status, sequence, duration_ticks];
    for (index, word) in words.into_iter().enumerate() {
        put(fixed, index, word);
    }
    let (bytes, padding) = rest.split_at_mut(memory.len());
    bytes.copy_from_slice(memory);
    padding.fill(0);
    Some(len)
}

/// Writes an exit record's fixed part and returns its length: segments follow there.
pub fn write_exit(buf: &mut [u8; PREEMPTED_BYTES], exit: &Exit) -> usize {
    put(buf, 1, exit.sequence);
    put(buf, 2, exit.time_ticks);
    put(buf, 3, exit.result as u64);
    let Some(reissue) = &exit.reissue else { return EXIT_BYTES };
    let fixed = [reissue.rip, reissue.rsp, reissue.number];
    for (index, word) in fixed.into_iter().chain(reissue.args).enumerate() {
        put(buf, 4 + index, word);
    }
    PREEMPTED_BYTES
}

/// Writes a whole gap record.
pub fn write_gap(buf: &mut [u8; GAP_BYTES], gap: &Gap) {
    put(buf, 0, head(GAP_BYTES, Kind::Gap, 0, CallerMode::Pv64, 0));
    put(buf, 1, gap.first_sequence);
    put(buf, 2, gap.time_ticks);
    put(buf, 3, gap.calls);
    put(buf, 4, gap.results);
}

/// Writes the first word, once the length is known.
pub fn finish(buf: &mut [u8], head: u64) {
    put(buf, 0, head);
}
