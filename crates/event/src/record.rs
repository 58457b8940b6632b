//! Records: what one event looks like in a ring.
//!
//! A call makes two records, one when it enters and one when it returns, because a call that crashes the
//! hypervisor has no return and must be seen all the same. All words are little-endian and 8 bytes; the first
//! three are common:
//!
//! ```text
//!  word  all records                                       entry                          exit
//!  0     length (32) │ kind (8) │ flags (8) │ caller (8)
//!  1     sequence number                                   of this call                   of the call that returns
//!  2     time, ticks of L0's TSC
//!  3                                                       domain │ vcpu │ cs │ rule + 1   result (RAX)
//!                                                          (16 bits each)
//!  4                                                       number (RAX)                   preempted only: RIP
//!  5                                                       RIP                            preempted only: RSP
//!  6                                                       RSP                            preempted only: RAX, arguments
//!  7                                                       parent's sequence number + 1     (7 words)
//!  8–13                                                    arguments
//!  14…                                                     captured segments              (or from word 4) segments
//! ```
//!
//! Segments are those of `hypovisor_abi::capture`; this crate only carries their bytes.
//!
//! The result of an injected call stands in a record of its own, behind that call's exit: word 1 is the injection's id,
//! word 3 the result, 4 what became of it and the bytes of memory, 5 the call's sequence number, 6 its duration in
//! ticks; then the memory that the call brought, as L1 left it.

use crate::injection::{Injected, InjectionStatus};
use crate::verdict::{Intervention, Verdict};

/// Bytes in an entry record before its segments.
pub const ENTRY_BYTES: usize = 14 * 8;
/// Bytes in an exit record of a completed call before its segments.
pub const EXIT_BYTES: usize = 4 * 8;
/// Bytes in an exit record of a preempted call.
pub const PREEMPTED_BYTES: usize = 13 * 8;
/// Bytes in a gap record.
pub const GAP_BYTES: usize = 5 * 8;
/// Bytes in an injection's record before its memory.
pub const INJECTED_BYTES: usize = 7 * 8;
/// Upper bound of a record's length in bytes.
pub const MAX_RECORD_BYTES: usize = 32 * 1024;

/// What a record reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A hypercall enters the hypervisor.
    Entry = 1,
    /// One inner call of a multicall is about to run.
    InnerEntry = 2,
    /// A call has returned, or was preempted.
    Exit = 3,
    /// Events were lost.
    Gap = 4,
    /// An injection has ended.
    Injected = 5,
}

/// Bits of a record's flag byte.
pub mod flag {
    /// The call did not finish: Xen will have the guest issue it again.
    pub const PREEMPTED: u8 = 1;
    /// The capture was cut short: more memory belongs to the call than fits.
    pub const CUT: u8 = 2;
    /// The call was injected.
    pub const INJECTED: u8 = 4;
    /// Where the [`Verdict`](crate::verdict::Verdict) stands: two bits.
    pub const VERDICT_SHIFT: u32 = 3;
}

/// How the caller entered the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CallerMode {
    /// A 64-bit PV guest, by SYSCALL.
    Pv64 = 0,
    /// A 32-bit PV guest, by INT 0x82.
    Pv32 = 1,
    /// An HVM or PVH guest in 64-bit mode.
    Hvm64 = 2,
    /// An HVM or PVH guest in 32-bit or compatibility mode.
    Hvm32 = 3,
}

impl CallerMode {
    /// Whether the guest passes arguments in 64-bit registers.
    #[must_use]
    pub const fn is_64_bit(self) -> bool {
        matches!(self, Self::Pv64 | Self::Hvm64)
    }

    /// Whether it is a PV guest.
    #[must_use]
    pub const fn is_pv(self) -> bool {
        matches!(self, Self::Pv64 | Self::Pv32)
    }

    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Pv64,
            1 => Self::Pv32,
            2 => Self::Hvm64,
            _ => Self::Hvm32,
        }
    }
}

/// Who makes a call, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Domain id.
    pub domain: u16,
    /// vCPU number within the domain.
    pub vcpu: u16,
    /// How it entered.
    pub mode: CallerMode,
    /// Privilege level, 0 to 3. The kernel of a 64-bit PV guest runs at 3.
    pub cpl: u8,
    /// Code segment selector; 0 where the hypervisor does not save it (HVM guests).
    pub cs: u16,
    /// Where the guest goes on after the call.
    pub rip: u64,
    /// The guest's stack pointer.
    pub rsp: u64,
}

/// A call enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the call on this ring, without gaps.
    pub sequence: u64,
    /// Ticks of L0's TSC.
    pub time_ticks: u64,
    /// The caller.
    pub caller: Caller,
    /// Sequence number of the multicall that this is an inner call of.
    pub parent: Option<u64>,
    /// RAX.
    pub number: u64,
    /// Arguments in the order of the caller's ABI.
    pub args: [u64; 6],
    /// What the sensor did with it.
    pub intervention: Intervention,
}

/// The registers a preempted call will be issued again with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reissue {
    /// Address of the instruction after the hypercall instruction: what the re-issued call's RIP will be.
    pub rip: u64,
    /// The guest's stack pointer.
    pub rsp: u64,
    /// RAX.
    pub number: u64,
    /// Arguments.
    pub args: [u64; 6],
}

/// A call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Sequence number of the call.
    pub sequence: u64,
    /// Ticks of L0's TSC.
    pub time_ticks: u64,
    /// RAX as the guest will see it; meaningless for a preempted call.
    pub result: i64,
    /// Set if the call was preempted.
    pub reissue: Option<Reissue>,
}

/// Events were lost on this ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Sequence number of the first call that may be missing.
    pub first_sequence: u64,
    /// When there was room again, ticks of L0's TSC.
    pub time_ticks: u64,
    /// Calls whose entry was lost.
    pub calls: u64,
    /// Calls whose entry is there but whose result was lost.
    pub results: u64,
}

/// One record, with the bytes of its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A call, or an inner call, enters.
    Entry {
        /// The call.
        entry: Entry,
        /// Captured memory in wire form.
        segments: &'a [u8],
        /// Not all of the memory fitted.
        cut: bool,
    },
    /// A call returns.
    Exit {
        /// The return.
        exit: Exit,
        /// Memory captured after the call, in wire form.
        segments: &'a [u8],
        /// Not all of the memory fitted.
        cut: bool,
    },
    /// Events were lost.
    Gap(Gap),
    /// An injection has ended.
    Injected {
        /// How.
        injected: Injected,
        /// The memory that the call brought, as L1 left it.
        memory: &'a [u8],
    },
}

/// A ring holds something that no sensor writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record at byte {offset} of a batch: {what}")]
pub struct MalformedRecord {
    /// Where in the batch it starts.
    pub offset: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

fn put(buf: &mut [u8], word: usize, value: u64) {
    if let Some(slot) = buf.get_mut(word * 8..).and_then(|rest| rest.first_chunk_mut::<8>()) {
        *slot = value.to_le_bytes();
    }
}

fn get(buf: &[u8], word: usize) -> u64 {
    buf.get(word * 8..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
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

#[cfg(test)]
mod tests;
