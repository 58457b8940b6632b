//! Records of one vCPU's calls, on their way into its ring; or, where there is no room for them, their number.

use std::time::Duration;

use hypovisor_abi::capture::{self, Phase, Registers};
use hypovisor_abi::xen::XEN;
use hypovisor_event::injection::Injected;
use hypovisor_event::record::{self, CallerMode, Entry, Exit, Gap, Kind};
use hypovisor_event::ring::Producer;
use hypovisor_event::verdict::Intervention;
use hypovisor_mapping::Ram;

use crate::control::Control;
use crate::guest::{AddressSpace, SegmentWriter};

/// Bytes a record with captured memory may take.
const CAPTURE_RECORD_BYTES: usize = 24 * 1024;
/// How long a full ring holds its vCPU back before events are dropped.
const HOLD_BACK: Duration = Duration::from_millis(200);
/// Pause between two looks at a full ring.
const HOLD_BACK_STEP: Duration = Duration::from_micros(50);

/// Events that did not get into the ring.
#[derive(Clone, Copy, Default)]
struct Losses {
    calls: u64,
    results: u64,
    /// Of these, what the ring's gap records have told so far.
    told_calls: u64,
    told_results: u64,
    first_sequence: u64,
    waits: u64,
    /// Position of a consumer that did not move for [`HOLD_BACK`]: no use waiting for it again.
    stalled_at: Option<u64>,
}

/// The ring's writing end, with an account of what did not get in.
pub(crate) struct Recorder {
    control: &'static Control,
    producer: Producer,
    losses: Losses,
    /// For the memory of a call that is judged and finds no room in the ring.
    spare: Box<[u8]>,
}

/// Decides on a call when its memory has been captured.
pub(crate) trait Judge {
    /// `segments` is the captured memory in wire form; `cut` says that not all of it was.
    fn judge(&mut self, segments: &[u8], cut: bool) -> Intervention;
}

impl Recorder {
    pub(crate) fn new(control: &'static Control, producer: Producer) -> Self {
        let spare = vec![0; CAPTURE_RECORD_BYTES].into();
        Self { control, producer, losses: Losses::default(), spare }
    }

    /// Shows the number of calls seen so far.
    pub(crate) fn show_sequence(&self, calls: u64) {
        self.producer.show_sequence(calls);
    }

    /// Counts a hook hit that took so many ticks.
    pub(crate) fn count_cost(&self, ticks: u64) {
        self.producer.count_cost(ticks);
    }

    /// Writes the record of a call's entry, with the memory behind its pointers. False if it was lost.
    pub(crate) fn entry(
        &mut self,
        ram: &Ram,
        kind: Kind,
        entry: &mut Entry,
        capture: Option<&Capture<'_>>,
        judge: Option<&mut dyn Judge>,
    ) -> bool {
        let wanted = if capture.is_some() { CAPTURE_RECORD_BYTES } else { record::ENTRY_BYTES };
        if !self.make_room(wanted, entry.time_ticks) {
            self.lose_entry(ram, entry.sequence, capture, judge);
            return false;
        }
        let Some(buf) = self.producer.reserve(wanted) else { return false };
        let Some((fixed, rest)) = buf.split_first_chunk_mut() else { return false };
        let (used, cut) = capture.map_or((0, false), |capture| capture.write(ram, Phase::Entry, rest));
        if let Some(judge) = judge {
            let injected = entry.intervention.injected;
            entry.intervention = judge.judge(rest.get(..used).unwrap_or(&[]), cut);
            entry.intervention.injected = injected;
        }
        record::write_entry(fixed, entry);
        let len = record::ENTRY_BYTES + used;
        let flags = if cut { record::flag::CUT } else { 0 };
        let flags = flags | record::intervention_flags(&entry.intervention);
        record::finish(buf, record::head(len, kind, flags, entry.caller.mode, entry.caller.cpl));
        self.producer.publish(len);
        true
    }

    /// There is no room for a call. It is judged all the same.
    #[cold]
    fn lose_entry(
        &mut self,
        ram: &Ram,
        sequence: u64,
        capture: Option<&Capture<'_>>,
        judge: Option<&mut dyn Judge>,
    ) {
        self.losses.lose_call(sequence);
        self.producer.show_losses(self.losses.calls, self.losses.results);
        if let Some(judge) = judge {
            let write = |capture: &Capture<'_>| capture.write(ram, Phase::Entry, &mut self.spare);
            let (used, cut) = capture.map_or((0, false), write);
            judge.judge(self.spare.get(..used).unwrap_or(&[]), cut);
        }
    }

    /// Writes the record of a call's return, with the memory that L1 has written.
    pub(crate) fn exit(&mut self, ram: &Ram, exit: &Exit, mode: CallerMode, capture: Option<&Capture<'_>>) {
        let wanted = if capture.is_some() { CAPTURE_RECORD_BYTES } else { record::PREEMPTED_BYTES };
        if !self.make_room(wanted, exit.time_ticks) {
            self.losses.lose_result(exit.sequence);
            self.producer.show_losses(self.losses.calls, self.losses.results);
            return;
        }
        let Some(buf) = self.producer.reserve(wanted) else { return };
        let Some(fixed) = buf.first_chunk_mut() else { return };
        let start = record::write_exit(fixed, exit);
        let rest = buf.get_mut(start..).unwrap_or(&mut []);
        let (used, cut) = capture.map_or((0, false), |capture| capture.write(ram, Phase::Exit, rest));
        let preempted = if exit.reissue.is_some() { record::flag::PREEMPTED } else { 0 };
        let flags = preempted | if cut { record::flag::CUT } else { 0 };
        let len = start + used;
        record::finish(buf, record::head(len, Kind::Exit, flags, mode, 0));
        self.producer.publish(len);
    }

    /// Writes how an injection ended; `memory` is what its call brought along. Lost if there is no room.
    #[cold]
    pub(crate) fn injected(&mut self, injected: &Injected, memory: &[u8]) {
        let wanted = record::INJECTED_BYTES + memory.len().next_multiple_of(8);
        if !self.make_room(wanted, injected.time_ticks) {
            return;
        }
        let written =
            self.producer.reserve(wanted).and_then(|buf| record::write_injected(buf, injected, memory));
        if let Some(len) = written {
            self.producer.publish(len);
        }
    }

    /// Sees to it that `len` bytes are free, holding the vCPU back for a bounded time; tells of earlier losses first.
    #[inline]
    fn make_room(&mut self, len: usize, time_ticks: u64) -> bool {
        if self.losses.untold() {
            return self.make_room_and_tell(len, time_ticks);
        }
        self.producer.has_room(len) || self.hold_back(len)
    }

    #[cold]
    fn make_room_and_tell(&mut self, len: usize, time_ticks: u64) -> bool {
        let with_gap = len + record::GAP_BYTES;
        let room = self.producer.has_room(with_gap) || self.hold_back(with_gap);
        if room {
            self.tell_losses(time_ticks);
        }
        room
    }

    #[cold]
    fn hold_back(&mut self, len: usize) -> bool {
        let tail = self.producer.tail();
        if !self.control.engine_attached() || self.losses.stalled_at == Some(tail) {
            return false;
        }
        self.losses.waits += 1;
        self.producer.show_waits(self.losses.waits);
        for _ in 0..HOLD_BACK.as_nanos() / HOLD_BACK_STEP.as_nanos() {
            std::thread::sleep(HOLD_BACK_STEP);
            if self.producer.has_room(len) {
                self.losses.stalled_at = None;
                return true;
            }
            if !self.control.engine_attached() {
                return false;
            }
        }
        self.losses.stalled_at = Some(self.producer.tail());
        false
    }

    #[cold]
    fn tell_losses(&mut self, time_ticks: u64) {
        let losses = &mut self.losses;
        let gap = Gap {
            first_sequence: losses.first_sequence,
            time_ticks,
            calls: losses.calls - losses.told_calls,
            results: losses.results - losses.told_results,
        };
        let buf = self.producer.reserve(record::GAP_BYTES).and_then(|buf| buf.first_chunk_mut());
        if let Some(buf) = buf {
            record::write_gap(buf, &gap);
            losses.told_calls = losses.calls;
            losses.told_results = losses.results;
            self.producer.publish(record::GAP_BYTES);
        }
    }
}

/// What to copy of a guest's memory, and how to reach it.
pub(crate) struct Capture<'a> {
    pub(crate) registers: &'a Registers,
    pub(crate) space: AddressSpace,
}

impl Capture<'_> {
    /// Fills `rest`: bytes used, and whether something did not fit.
    fn write(&self, ram: &Ram, phase: Phase, rest: &mut [u8]) -> (usize, bool) {
        let mut writer = SegmentWriter::new(ram, self.space, rest);
        capture::capture(&XEN, self.registers, phase, &mut writer);
        writer.finish()
    }
}

impl Losses {
    const fn untold(&self) -> bool {
        self.calls != self.told_calls || self.results != self.told_results
    }

    fn note_first(&mut self, sequence: u64) {
        if !self.untold() {
            self.first_sequence = sequence;
        }
    }

    fn lose_call(&mut self, sequence: u64) {
        self.note_first(sequence);
        self.calls += 1;
    }

    fn lose_result(&mut self, sequence: u64) {
        self.note_first(sequence);
        self.results += 1;
    }
}
