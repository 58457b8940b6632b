//! Reads what Xen itself says about hypercalls: the binary file that `xentrace` writes in dom0.
//!
//! The file is a sequence of 32-bit little-endian words. A record is
//!
//! ```text
//!     31          30..28   27..0
//!     has a TSC   n        event        then the TSC in two words if it has one, then n words of data
//! ```
//!
//! and the record TRC_TRACE_CPU_CHANGE, which the tool writes, not Xen, says that the next so many bytes come from one
//! pCPU. Within a pCPU the order is that of Xen's buffer, which is written with interrupts off: the order in which things
//! happened. Between pCPUs there is no order but the TSC's.
//!
//! What is taken from it (Xen 4.17 and 4.20, public/trace.h, common/trace.c, arch/x86/pv/hypercall.c):
//!
//! | event | meaning |
//! | --- | --- |
//! | TRC_PV_HYPERCALL_V2 | a PV domain's call, in `pv_hypercall` before anything is refused; the number, and some arguments |
//! | TRC_PV_HYPERCALL_SUBCALL | an entry of a multicall, of any kind of domain, just before it is carried out; the same |
//! | TRC_HVM_VMMCALL | a VMMCALL of an HVM or PVH domain, before `hvm_hypercall`; EAX, no TSC |
//! | TRC_SCHED_RUNSTATE_CHANGE, TRC_SCHED_CONTINUE_RUNNING | which vCPU runs on the pCPU from here on |
//! | TRC_LOST_RECORDS | so many records did not fit: what surrounds it is no witness |
//!
//! Arguments are there only for mmu_update, mmuext_op, multicall (the count), grant_table_op (command and count), vcpu_op
//! (command and vCPU) and sched_op (command). That is why marks are `sched_op` calls. The number shares its word with 12
//! bits that say which arguments follow, so only 20 bits of it are certain.
//!
//! The file may be anything: reading it fails with an error or yields records, and takes memory proportional to its size.

use std::collections::BTreeMap;
use std::io::{self, Read};

use flate2::read::GzDecoder;

use crate::guests::{MARK_NUMBER, mark_number};

pub mod witness;

/// The events that a traced window needs, for `xentrace -e`: classes and subclasses of PV calls and traps, inner calls, HVM
/// exits and handlers, scheduling. Classes and subclasses are matched each for themselves, so that some more come along.
pub const MASK: u32 = 0x002a_3000;

/// The same without HVM.
pub const MASK_WITHOUT_HVM: u32 = 0x0022_3000;

const LOST_RECORDS: u32 = 0x0001_f001;
const CPU_CHANGE: u32 = 0x0001_f003;
const CONTINUE_RUNNING: u32 = 0x0002_1002;
const RUNSTATE_CHANGE: u32 = 0x0002_1001;
/// In a change of run state, the old and the new state are part of the event's number.
const RUNSTATE_MASK: u32 = 0x0fff_f00f;
const RUNSTATE_NEW: u32 = 0x0000_00f0;
const PV_HYPERCALL_V2: u32 = 0x0020_100d;
const PV_HYPERCALL_SUBCALL: u32 = 0x0020_200e;
const HVM_VMMCALL: u32 = 0x0008_2012;

/// The bits of a number that the records of PV calls keep.
pub const NUMBER_MASK: u64 = 0xf_ffff;

/// The most that a compressed trace may unpack to.
const UNPACKED_MAX_BYTES: u64 = 2 << 30;

/// How a call came to Xen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// From a PV domain.
    Pv,
    /// As an entry of a multicall.
    Multicall,
    /// By VMMCALL from an HVM or PVH domain.
    Vmmcall,
}

/// A vCPU, as Xen's trace names it. Domain 0x7fff is the idle one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TracedVcpu {
    /// The domain's number.
    pub domain: u16,
    /// The vCPU's number in it.
    pub vcpu: u16,
}

/// A hypercall in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedCall {
    /// How it came.
    pub via: Via,
    /// Its number: the low 20 bits of it, or of a VMMCALL the low 32.
    pub number: u32,
    /// The low 32 bits of those arguments that were recorded.
    pub arguments: [Option<u32>; 6],
    /// Whose it is, as far as the trace tells.
    pub vcpu: Option<TracedVcpu>,
    /// When, in ticks of the pCPU's TSC.
    pub tsc: Option<u64>,
}

impl TracedCall {
    /// The number of the mark that it is, if it is one. Those of HVM and PVH domains are not told: their arguments are
    /// not recorded.
    pub fn mark(&self) -> Option<u16> {
        let is_plain = self.via == Via::Pv && u64::from(self.number) == MARK_NUMBER;
        self.arguments[0].filter(|_| is_plain).and_then(mark_number)
    }
}

/// Records that did not fit into Xen's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The call, by its position in [`PcpuTrace::calls`], before which they were lost.
    pub before_call: usize,
    /// How many.
    pub records: u32,
}

/// What happened on one pCPU, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcpuTrace {
    /// The hypercalls.
    pub calls: Vec<TracedCall>,
    /// The losses.
    pub losses: Vec<Loss>,
    running: Option<TracedVcpu>,
}

/// A trace, pCPU by pCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// By the pCPU's number.
    pub pcpus: BTreeMap<u32, PcpuTrace>,
    /// How many records of any kind were read.
    pub records: u64,
}

/// A file is not a trace of xentrace's.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It ends within a record.
    #[error("the trace ends within the record at byte {at:#x}")]
    Truncated {
        /// Where the record begins.
        at: usize,
    },
    /// It has no pCPU to begin with.
    #[error("the record at byte {at:#x} belongs to no pCPU")]
    NoPcpu {
        /// Where the record begins.
        at: usize,
    },
    /// A record is not within what one pCPU wrote.
    #[error("the record at byte {at:#x} reaches over the end of its pCPU's part")]
    Torn {
        /// Where the record begins.
        at: usize,
    },
    /// A record that is read has too little data.
    #[error("the record at byte {at:#x} (event {event:#x}) has {words} words of data, which are too few")]
    TooShort {
        /// Where the record begins.
        at: usize,
        /// Its event.
        event: u32,
        /// How many there are.
        words: usize,
    },
    /// It is compressed, and cannot be unpacked.
    #[error("the trace cannot be unpacked: {0}")]
    Unpack(#[source] io::Error),
    /// It is compressed, and larger than anything that was traced here.
    #[error("the trace unpacks to more than {UNPACKED_MAX_BYTES} bytes")]
    TooLarge,
}

impl Trace {
    /// Reads a file's contents, as xentrace wrote it or compressed by gzip.
    ///
    /// # Errors
    ///
    /// When it is not a trace; nothing is returned of one that is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, TraceError> {
        if bytes.starts_with(&[0x1f, 0x8b]) {
            Self::parse_plain(&unpack(bytes)?)
        } else {
            Self::parse_plain(bytes)
        }
    }

    fn parse_plain(bytes: &[u8]) -> Result<Self, TraceError> {
        let mut trace = Self::default();
        let mut at = 0;
        let mut part: Option<(u32, usize)> = None;
        while at < bytes.len() {
            let record = Record::read(bytes, at).ok_or(TraceError::Truncated { at })?;
            let end = at + record.length;
            trace.records += 1;
            match part {
                Some((_, until)) if end > until && at < until => return Err(TraceError::Torn { at }),
                Some((pcpu, until)) if at < until => {
                    trace.pcpus.entry(pcpu).or_default().take(at, &record)?
                }
                _ => {
                    let (pcpu, length) = record.cpu_change(at)?;
                    trace.pcpus.entry(pcpu).or_default();
                    part = Some((pcpu, end.saturating_add(length)));
                }
            }
            at = end;
        }
        match part {
            Some((_, until)) if until > at => Err(TraceError::Truncated { at }),
            _ => Ok(trace),
        }
    }

    /// How many records were lost in all.
    pub fn lost_records(&self) -> u64 {
        self.pcpus.values().flat_map(|pcpu| &pcpu.losses).map(|loss| u64::from(loss.records)).sum()
    }
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, TraceError> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).take(UNPACKED_MAX_BYTES + 1).read_to_end(&mut plain).map_err(TraceError::Unpack)?;
    if plain.len() as u64 > UNPACKED_MAX_BYTES { Err(TraceError::TooLarge) } else { Ok(plain) }
}

/// A record, taken apart.
struct Record {
    event: u32,
    tsc: Option<u64>,
    data: [u32; 7],
    words: usize,
    length: usize,
}

impl Record {
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let word = |index: usize| {
            let from = at + 4 * index;
            Some(u32::from_le_bytes(bytes.get(from..from + 4)?.try_into().ok()?))
        };
        let header = word(0)?;
        let tsc = match header >> 31 {
            0 => None,
            _ => Some(u64::from(word(1)?) | u64::from(word(2)?) << 32),
        };
        let first = if tsc.is_some() { 3 } else { 1 };
        let words = (header >> 28 & 7) as usize;
        let mut data = [0; 7];
        for (index, place) in data.iter_mut().take(words).enumerate() {
            *place = word(first + index)?;
        }
        Some(Self { event: header & 0x0fff_ffff, tsc, data, words, length: 4 * (first + words) })
    }

    /// The data, of which there has to be so much.
    fn data(&self, at: usize, least: usize) -> Result<&[u32], TraceError> {
        if self.words < least {
            return Err(TraceError::TooShort { at, event: self.event, words: self.words });
        }
        Ok(&self.data[..self.words])
    }

    /// The pCPU and the bytes that follow of it.
    fn cpu_change(&self, at: usize) -> Result<(u32, usize), TraceError> {
        if self.event != CPU_CHANGE {
            return Err(TraceError::NoPcpu { at });
        }
        let data = self.data(at, 2)?;
        Ok((data[0], data[1] as usize))
    }

    fn vcpu(&self, at: usize) -> Result<TracedVcpu, TraceError> {
        let word = self.data(at, 1)?[0];
        Ok(TracedVcpu { domain: (word >> 16) as u16, vcpu: word as u16 })
    }
}

impl PcpuTrace {
    fn take(&mut self, at: usize, record: &Record) -> Result<(), TraceError> {
        match record.event {
            PV_HYPERCALL_V2 => self.call(Via::Pv, record, record.data(at, 1)?),
            PV_HYPERCALL_SUBCALL => self.call(Via::Multicall, record, record.data(at, 1)?),
            HVM_VMMCALL => self.call(Via::Vmmcall, record, record.data(at, 1)?),
            LOST_RECORDS => {
                let records = record.data(at, 1)?[0];
                self.losses.push(Loss { before_call: self.calls.len(), records });
                // Among what was lost there may have been a switch.
                self.running = None;
            }
            CONTINUE_RUNNING => self.running = Some(record.vcpu(at)?),
            event if event & RUNSTATE_MASK == RUNSTATE_CHANGE && event & RUNSTATE_NEW == 0 => {
                self.running = Some(record.vcpu(at)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn call(&mut self, via: Via, record: &Record, data: &[u32]) {
        let (number, arguments) = match via {
            Via::Vmmcall => (data[0], [None; 6]),
            Via::Pv | Via::Multicall => (data[0] & NUMBER_MASK as u32, arguments(data)),
        };
        self.calls.push(TracedCall { via, number, arguments, vcpu: self.running, tsc: record.tsc });
    }
}

/// The arguments behind the first word, whose upper bits say which there are: two bits each, 1 for one of 32 bits, 2 for one
/// of 64. They belong to the guest's number when that is absurdly large, so what they announce need not be there.
fn arguments(data: &[u32]) -> [Option<u32>; 6] {
    let mut rest = data[1..].iter().copied();
    let mut found = [None; 6];
    for (index, place) in found.iter_mut().enumerate() {
        match data[0] >> (20 + 2 * index) & 3 {
            1 => *place = rest.next(),
            2 => {
                *place = rest.next();
                rest.next();
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests;
