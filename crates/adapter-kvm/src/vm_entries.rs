//! VMRUNs of L1's, as the kernel sees them: which control block each runs, and where in L1 the instruction stands.
//!
//! The trace event `kvm:kvm_nested_vmenter` (Linux arch/x86/kvm/trace.h), sampled twice for each vCPU's thread:
//!
//! ```text
//!   elsewhere   not L1's own instructions: there are none, so that each sample is one to tell
//!   own         L1's own, with a control block that the filter does not leave out
//! ```
//!
//! Whose a control block is, the engine can say. A block is told to it twice, a second apart, so that one whose guest has just
//! ended is not taken for a foreign one; then the filter leaves it out for half a minute. In between the kernel has nothing to write down.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hypovisor_machine::{Gva, PAGE_SIZE};
use hypovisor_mapping::{Access, Mapping};

use crate::trace_event::{TraceEvent, set_filter};

/// The event's names: since Linux 6.3, and before.
pub(crate) const EVENTS: [&str; 2] = ["kvm_nested_vmenter", "kvm_nested_vmrun"];

/// Length of VMRUN. The event has the address behind it (since Linux 5.12), which is where L1 goes on.
const VMRUN_BYTES: u64 = 3;
/// Bytes for samples, a power of two of pages.
const RING_BYTES: usize = 16 << 12;
/// `struct perf_event_mmap_page` (Linux include/uapi/linux/perf_event.h): how far the kernel has written, and how far we have read.
const HEAD: usize = 0x400;
const TAIL: usize = 0x408;
/// `PERF_RECORD_SAMPLE`.
const SAMPLE: u32 = 9;
/// Bytes of `struct perf_event_header`, and behind it of the length of the event's own record.
const HEADER_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;
/// No sample of this event is longer.
const MAX_SAMPLE: usize = 256;
/// Until a control block is told a second time.
const AGAIN: Duration = Duration::from_secs(1);
/// Until one that was told twice is told anew.
const QUIET: Duration = Duration::from_secs(30);
/// The most control blocks that the filter leaves out: the kernel takes a page of text, and each needs 31 bytes at most.
const MAX_LEFT_OUT: usize = 96;
/// The most control blocks that are remembered as told.
const MAX_TOLD: usize = 4096;

/// One VMRUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the instruction stands.
    pub(crate) rip: Gva,
    /// The control block's guest-physical address.
    pub(crate) vmcb: u64,
}

/// Those of one thread.
#[derive(Debug)]
pub(crate) struct VmEntries {
    elsewhere: Samples,
    own: Samples,
    left_out: Vec<u64>,
}

impl VmEntries {
    /// From now on. `None` if this process may not sample the event. `vmruns` are L1's own instructions.
    pub(crate) fn open(event: &TraceEvent, thread: i32, vmruns: &[Gva]) -> Option<Self> {
        let elsewhere = Samples::open(event, thread, &format!("!({})", is_own(vmruns)))?;
        let own = Samples::open(event, thread, &own_but(vmruns, &[]))?;
        Some(Self { elsewhere, own, left_out: Vec::new() })
    }

    /// Those by instructions that are not L1's own, since the last time.
    pub(crate) fn elsewhere(&self, each: impl FnMut(Entry)) {
        self.elsewhere.take(each);
    }

    /// Those by L1's own that were not left out.
    pub(crate) fn own(&self, each: impl FnMut(Entry)) {
        self.own.take(each);
    }

    /// Has the kernel leave these control blocks out, and no others.
    pub(crate) fn leave_out(&mut self, vmruns: &[Gva], vmcbs: &[u64]) {
        if self.left_out != vmcbs {
            self.own.set_filter(&own_but(vmruns, vmcbs));
            self.left_out = vmcbs.to_vec();
        }
    }
}

/// The filter for L1's own instructions.
fn is_own(vmruns: &[Gva]) -> String {
    let places = vmruns.iter().flat_map(|vmrun| [vmrun.0, vmrun.offset(VMRUN_BYTES).0]);
    places.map(|place| format!("rip == {place:#x}")).collect::<Vec<_>>().join(" || ")
}

fn own_but(vmruns: &[Gva], vmcbs: &[u64]) -> String {
    let others = vmcbs.iter().take(MAX_LEFT_OUT).map(|vmcb| format!(" && vmcb != {vmcb:#x}"));
    format!("({}){}", is_own(vmruns), others.collect::<String>())
}

/// Which control blocks were told, and when.
#[derive(Debug, Default)]
pub(crate) struct Told(HashMap<u64, (Instant, bool)>);

impl Told {
    /// Whether a block that was run is to be told now; it then counts as told.
    pub(crate) fn is_due(&mut self, vmcb: u64, now: Instant) -> bool {
        let again = match self.0.get(&vmcb) {
            None => false,
            Some((first, false)) if now.duration_since(*first) >= AGAIN => true,
            Some(_) => return false,
        };
        if self.0.len() >= MAX_TOLD {
            self.0.clear();
        }
        self.0.insert(vmcb, (now, again));
        true
    }

    /// Those that nobody needs to be told of for a while.
    pub(crate) fn quiet(&mut self, now: Instant) -> Vec<u64> {
        self.0.retain(|_, (last, _)| now.duration_since(*last) < QUIET);
        let is_quiet = |(last, twice): &(Instant, bool)| *twice || now.duration_since(*last) < AGAIN;
        let mut quiet: Vec<u64> =
            self.0.iter().filter(|(_, told)| is_quiet(told)).map(|(vmcb, _)| *vmcb).collect();
        quiet.sort_unstable();
        quiet
    }
}

/// Samples of one event, in the ring that the kernel writes them to.
#[derive(Debug)]
struct Samples {
    event: OwnedFd,
    ring: Ring,
}

impl Samples {
    fn open(event: &TraceEvent, thread: i32, filter: &str) -> Option<Self> {
        let [rip, vmcb] = ["rip", "vmcb"].map(|field| event.offset_of(field));
        let event = event.sample(thread, &CString::new(filter).ok()?)?;
        let memory = Mapping::of_device(&event, PAGE_SIZE as usize + RING_BYTES, Access::ReadWrite).ok()?;
        Some(Self { event, ring: Ring { memory, rip: rip?, vmcb: vmcb? } })
    }

    fn take(&self, each: impl FnMut(Entry)) {
        self.ring.take(each);
    }

    fn set_filter(&self, filter: &str) {
        // The kernel keeps the filter that it has if it does not take another one.
        let _ = CString::new(filter).map(|filter| set_filter(&self.event, &filter));
    }
}

#[derive(Debug)]
struct Ring {
    memory: Mapping,
    /// Where in the event's record the two fields stand.
    rip: usize,
    vmcb: usize,
}

impl Ring {
    /// Takes what has come. The kernel drops what does not fit.
    fn take(&self, mut each: impl FnMut(Entry)) {
        let (Some(head), Some(tail)) = (self.memory.counter(HEAD), self.memory.counter(TAIL)) else { return };
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        while at < end {
            let mut record = [0; MAX_SAMPLE];
            self.copy(at, &mut record[..HEADER_BYTES]);
            let kind = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
            let len = usize::from(u16::from_le_bytes([record[6], record[7]]));
            if len < HEADER_BYTES {
                break;
            }
            self.copy(at, &mut record[..len.min(MAX_SAMPLE)]);
            if kind == SAMPLE
                && let Some(entry) = self.read(&record)
            {
                each(entry);
            }
            at += len as u64;
        }
        tail.store(end, Ordering::Release);
    }

    fn read(&self, record: &[u8; MAX_SAMPLE]) -> Option<Entry> {
        let word = |field: usize| {
            let bytes = record.get(HEADER_BYTES + LENGTH_BYTES + field..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        Some(Entry { rip: Gva(word(self.rip)?.wrapping_sub(VMRUN_BYTES)), vmcb: word(self.vmcb)? })
    }

    /// Copies out of the ring, in which a record may wrap around. Records are of whole words.
    fn copy(&self, at: u64, to: &mut [u8]) {
        for (index, word) in to.chunks_mut(8).enumerate() {
            let place = (at as usize).wrapping_add(8 * index) % RING_BYTES;
            // Outside the mapping there is nothing: the words stay zero.
            let _ = self.memory.copy_out(PAGE_SIZE as usize + place, word);
        }
    }
}

#[cfg(test)]
mod tests {
    use hypovisor_mapping::create_memfd;

    use super::*;

    const VMRUN: Gva = Gva(0xffff_82d0_4020_1000);

    #[test]
    fn filters_name_both_addresses_and_what_is_left_out() {
        assert_eq!(is_own(&[VMRUN]), "rip == 0xffff82d040201000 || rip == 0xffff82d040201003");
        let filter = own_but(&[VMRUN], &[0x1000, 0x2000]);
        assert!(filter.ends_with(") && vmcb != 0x1000 && vmcb != 0x2000"), "{filter}");
        let longest = own_but(&[VMRUN; 4], &[u64::MAX; MAX_LEFT_OUT + 1]);
        assert!(longest.len() < PAGE_SIZE as usize, "{}", longest.len());
    }

    #[test]
    fn a_block_is_told_twice_and_then_left_out_for_a_while() {
        let (mut told, start) = (Told::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(told.is_due(7, start));
        assert!(!told.is_due(7, start));
        assert_eq!(told.quiet(start), [7]);
        assert_eq!(told.quiet(after(1)), Vec::<u64>::new(), "it is to be seen once more");
        assert!(told.is_due(7, after(1)));
        assert_eq!(told.quiet(after(30)), [7]);
        assert_eq!(told.quiet(after(31)), Vec::<u64>::new());
        assert!(told.is_due(7, after(31)));
    }

    #[test]
    fn samples_are_taken_once_and_may_wrap_around() {
        let len = PAGE_SIZE as usize + RING_BYTES;
        let memory = Mapping::new(create_memfd("ring", len).unwrap(), 0, len, Access::ReadWrite).unwrap();
        let ring = Ring { memory, rip: 8, vmcb: 16 };
        let put = |at: usize, word: u64| {
            assert!(ring.memory.copy_in(PAGE_SIZE as usize + at % RING_BYTES, &word.to_le_bytes()));
        };
        let start = RING_BYTES - 16;
        // The event's own record begins four bytes behind the header.
        let (rip, vmcb) = (VMRUN.0 + VMRUN_BYTES, 0x5000_u64);
        let sample = [40 << 48 | u64::from(SAMPLE), 0, rip << 32, rip >> 32 | vmcb << 32, vmcb >> 32];
        sample.into_iter().enumerate().for_each(|(index, word)| put(start + 8 * index, word));
        put(start + 40, 8 << 48 | 2);
        let set = |place: usize, value: usize| {
            ring.memory.counter(place).unwrap().store(value as u64, Ordering::Relaxed);
        };
        set(TAIL, start);
        set(HEAD, start + 48);
        let mut seen = Vec::new();
        ring.take(|entry| seen.push(entry));
        ring.take(|entry| seen.push(entry));
        assert_eq!(seen, [Entry { rip: VMRUN, vmcb: 0x5000 }]);
    }
}
