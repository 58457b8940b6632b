//! Reading records: the engine's side, which believes nothing.

use super::{
    Caller, CallerMode, ENTRY_BYTES, EXIT_BYTES, Entry, Exit, GAP_BYTES, Gap, INJECTED_BYTES, Kind,
    MAX_RECORD_BYTES, PREEMPTED_BYTES, Record, Reissue, flag,
};
use crate::injection::{Injected, InjectionStatus};
use crate::verdict::{Intervention, Verdict};

/// A ring holds something that no sensor writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record at byte {offset} of a batch: {what}")]
pub struct MalformedRecord {
    /// Where in the batch it starts.
    pub offset: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

fn get(buf: &[u8], word: usize) -> u64 {
    buf.get(word * 8..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// What comes next in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// A record of this time, or something malformed.
    Record {
        /// Ticks of L0's TSC.
        time_ticks: u64,
    },
    /// The start of a record whose end the batch does not hold.
    Incomplete,
    /// Nothing.
    End,
}

/// Splits a batch of bytes into records. Stops for good at the first malformed one.
#[derive(Debug)]
pub struct Records<'a> {
    batch: &'a [u8],
    offset: usize,
}

impl<'a> Records<'a> {
    /// Reads `batch`, which starts at a record boundary.
    #[must_use]
    pub const fn new(batch: &'a [u8]) -> Self {
        Self { batch, offset: 0 }
    }

    /// Bytes read so far: where the next record starts.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// What comes next, without reading it.
    #[must_use]
    pub fn peek(&self) -> Peek {
        let rest = self.batch.get(self.offset..).unwrap_or(&[]);
        if rest.is_empty() {
            return Peek::End;
        }
        let len = (get(rest, 0) & 0xffff_ffff) as usize;
        if rest.len() < 24 || (len <= MAX_RECORD_BYTES && rest.len() < len) {
            return Peek::Incomplete;
        }
        Peek::Record { time_ticks: get(rest, 2) }
    }

    fn malformed(&mut self, what: &'static str) -> MalformedRecord {
        let offset = self.offset;
        self.offset = self.batch.len();
        MalformedRecord { offset, what }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, MalformedRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.batch.get(self.offset..).filter(|rest| !rest.is_empty())?;
        let len = (get(rest, 0) & 0xffff_ffff) as usize;
        let fits = (32..=MAX_RECORD_BYTES).contains(&len) && len.is_multiple_of(8);
        let Some(record) = rest.get(..len).filter(|_| fits) else {
            return Some(Err(self.malformed("its length is impossible")));
        };
        match parse(record) {
            Ok(parsed) => {
                self.offset += len;
                Some(Ok(parsed))
            }
            Err(what) => Some(Err(self.malformed(what))),
        }
    }
}

fn parse(record: &[u8]) -> Result<Record<'_>, &'static str> {
    let head = get(record, 0);
    let flags = (head >> 40) as u8;
    let cut = flags & flag::CUT != 0;
    let caller_bits = (head >> 48) as u8;
    let too_short = "it is shorter than its kind";
    match (head >> 32) as u8 {
        kind if kind == Kind::Entry as u8 || kind == Kind::InnerEntry as u8 => {
            let segments = record.get(ENTRY_BYTES..).ok_or(too_short)?;
            Ok(Record::Entry { entry: parse_entry(record, caller_bits, flags), segments, cut })
        }
        kind if kind == Kind::Exit as u8 => {
            let reissue = (flags & flag::PREEMPTED != 0).then(|| parse_reissue(record));
            let fixed = if reissue.is_some() { PREEMPTED_BYTES } else { EXIT_BYTES };
            let segments = record.get(fixed..).ok_or(too_short)?;
            let (sequence, time_ticks) = (get(record, 1), get(record, 2));
            let exit = Exit { sequence, time_ticks, result: get(record, 3) as i64, reissue };
            Ok(Record::Exit { exit, segments, cut })
        }
        kind if kind == Kind::Gap as u8 && record.len() == GAP_BYTES => Ok(Record::Gap(Gap {
            first_sequence: get(record, 1),
            time_ticks: get(record, 2),
            calls: get(record, 3),
            results: get(record, 4),
        })),
        kind if kind == Kind::Injected as u8 => parse_injected(record),
        _ => Err("its kind is unknown"),
    }
}

fn parse_injected(record: &[u8]) -> Result<Record<'_>, &'static str> {
    let status = get(record, 4);
    let injected = Injected {
        id: get(record, 1),
        time_ticks: get(record, 2),
        status: InjectionStatus::from_word(status & 0xffff_ffff)
            .ok_or("an injection ended in no known way")?,
        result: get(record, 3) as i64,
        sequence: get(record, 5),
        duration_ticks: get(record, 6),
    };
    let memory = record.get(INJECTED_BYTES..).and_then(|memory| memory.get(..(status >> 32) as usize));
    Ok(Record::Injected { injected, memory: memory.ok_or("it is shorter than its memory")? })
}

fn six_words(record: &[u8], from: usize) -> [u64; 6] {
    std::array::from_fn(|index| get(record, from + index))
}

fn parse_entry(record: &[u8], caller_bits: u8, flags: u8) -> Entry {
    let who = get(record, 3);
    let caller = Caller {
        domain: who as u16,
        vcpu: (who >> 16) as u16,
        cs: (who >> 32) as u16,
        mode: CallerMode::from_bits(caller_bits),
        cpl: (caller_bits >> 2) & 3,
        rip: get(record, 5),
        rsp: get(record, 6),
    };
    Entry {
        sequence: get(record, 1),
        time_ticks: get(record, 2),
        caller,
        parent: get(record, 7).checked_sub(1),
        number: get(record, 4),
        args: six_words(record, 8),
        intervention: Intervention {
            injected: flags & flag::INJECTED != 0,
            verdict: Verdict::from_bits(flags >> flag::VERDICT_SHIFT & 3),
            rule: ((who >> 48) as u16).checked_sub(1),
        },
    }
}

fn parse_reissue(record: &[u8]) -> Reissue {
    Reissue { rip: get(record, 4), rsp: get(record, 5), number: get(record, 6), args: six_words(record, 7) }
}
