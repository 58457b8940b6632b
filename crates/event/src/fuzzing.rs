//! What the fuzz targets and the tests that replay their seeds hold of records and control messages.

use crate::control::Message;
use crate::injection::{Injected, InjectionStatus};
use crate::record::{
    self, ENTRY_BYTES, Exit, GAP_BYTES, Kind, MAX_RECORD_BYTES, PREEMPTED_BYTES, Peek, Record, Records, flag,
};
use crate::record::{Caller, CallerMode, Entry};
use crate::verdict::Intervention;

/// Any bytes are a batch of records: reading ends, stays inside, and what was read can be written and read again.
/// Says how many records there are.
///
/// # Panics
/// When one of that does not hold.
pub fn read_records(data: &[u8]) -> usize {
    let (read, offset) = read_all(data);
    assert!(offset <= data.len() && read.len() <= data.len() / 32);
    let mut written = Vec::new();
    for record in &read {
        write(&mut written, record);
    }
    let (again, offset) = read_all(&written);
    assert_eq!((&again, offset), (&read, written.len()));
    read.len()
}

/// The records up to the first malformed one, and where reading ended.
fn read_all(batch: &[u8]) -> (Vec<Record<'_>>, usize) {
    let mut records = Records::new(batch);
    let mut read = Vec::new();
    loop {
        let peek = records.peek();
        match records.next() {
            None => {
                assert_eq!(peek, Peek::End);
                return (read, records.offset());
            }
            Some(Err(_)) => assert!(records.next().is_none(), "it stops for good"),
            Some(Ok(record)) => {
                assert_eq!(peek, Peek::Record { time_ticks: time_ticks(&record) });
                read.push(record);
            }
        }
    }
}

const fn time_ticks(record: &Record<'_>) -> u64 {
    match record {
        Record::Entry { entry, .. } => entry.time_ticks,
        Record::Exit { exit, .. } => exit.time_ticks,
        Record::Gap(gap) => gap.time_ticks,
        Record::Injected { injected, .. } => injected.time_ticks,
    }
}

/// Appends a record as a sensor writes it.
///
/// # Panics
/// When it is longer than records are.
pub fn write(out: &mut Vec<u8>, record: &Record<'_>) {
    let start = out.len();
    match record {
        Record::Entry { entry, segments, cut } => {
            let mut fixed = [0; ENTRY_BYTES];
            record::write_entry(&mut fixed, entry);
            let flags = cut_flag(*cut) | record::intervention_flags(&entry.intervention);
            append(out, &fixed, segments, Kind::Entry, flags, &entry.caller);
        }
        Record::Exit { exit, segments, cut } => {
            let mut fixed = [0; PREEMPTED_BYTES];
            let len = record::write_exit(&mut fixed, exit);
            let preempted = if exit.reissue.is_some() { flag::PREEMPTED } else { 0 };
            append(out, &fixed[..len], segments, Kind::Exit, preempted | cut_flag(*cut), &NOBODY);
        }
        Record::Gap(gap) => {
            let mut fixed = [0; GAP_BYTES];
            record::write_gap(&mut fixed, gap);
            out.extend(fixed);
        }
        Record::Injected { injected, memory } => {
            let mut buf = [0; MAX_RECORD_BYTES];
            let len = record::write_injected(&mut buf, injected, memory);
            assert!(len.is_some(), "its memory came out of a record");
            out.extend(&buf[..len.unwrap_or(0)]);
        }
    }
    assert!(out.len() - start <= MAX_RECORD_BYTES);
}

/// An exit has no caller of its own.
const NOBODY: Caller = Caller { domain: 0, vcpu: 0, mode: CallerMode::Pv64, cpl: 0, cs: 0, rip: 0, rsp: 0 };

const fn cut_flag(cut: bool) -> u8 {
    if cut { flag::CUT } else { 0 }
}

fn append(out: &mut Vec<u8>, fixed: &[u8], segments: &[u8], kind: Kind, flags: u8, caller: &Caller) {
    let start = out.len();
    out.extend(fixed);
    out.extend(segments);
    let head = record::head(out.len() - start, kind, flags, caller.mode, caller.cpl);
    record::finish(&mut out[start..], head);
}

/// Some records of each kind, to start from: a call that returns, one that is preempted and goes on, a gap.
#[must_use]
pub fn sample_records(number: u64, segments: &[u8]) -> Vec<u8> {
    let caller =
        Caller { domain: 1, vcpu: 0, mode: CallerMode::Pv64, cpl: 3, cs: 0xe033, rip: 0x1000, rsp: 0x2000 };
    let args = [1, 2, 3, 4, 5, 6];
    let entry = |sequence, parent| {
        let intervention = Intervention::default();
        let time_ticks = 10 * sequence;
        let entry = Entry { sequence, time_ticks, caller, parent, number, args, intervention };
        Record::Entry { entry, segments, cut: false }
    };
    let exit = |sequence, reissue| {
        let exit = Exit { sequence, time_ticks: 10 * sequence + 5, result: -22, reissue };
        Record::Exit { exit, segments: &[], cut: true }
    };
    let reissue = record::Reissue { rip: caller.rip, rsp: caller.rsp, number, args };
    let gap = record::Gap { first_sequence: 9, time_ticks: 99, calls: 3, results: 1 };
    let records = [
        entry(0, None),
        entry(1, Some(0)),
        exit(1, None),
        exit(0, Some(reissue)),
        entry(2, None),
        exit(2, None),
    ];
    let mut out = Vec::new();
    let status = InjectionStatus::Done;
    let injected = Injected { id: 1, time_ticks: 100, status, result: -22, sequence: 2, duration_ticks: 50 };
    let injected = Record::Injected { injected, memory: &[1, 2, 3] };
    for record in records.iter().chain([&Record::Gap(gap), &injected]) {
        write(&mut out, record);
    }
    out
}

/// Any bytes are a control message or an error; a message can be written and read again.
///
/// # Panics
/// When it is read as another one.
#[must_use]
pub fn decode_message(data: &[u8]) -> Option<Message> {
    let message = Message::decode(data).ok()?;
    let again = Message::decode(&message.encode());
    assert_eq!(again.ok().as_ref(), Some(&message));
    Some(message)
}

/// The bytes of a message, to start from.
#[must_use]
pub fn encode_message(message: &Message) -> Vec<u8> {
    message.encode()
}
