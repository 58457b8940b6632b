//! From records to calls: entries meet their exits, inner calls their multicall, continuations what they continue.
//!
//! One [`Pairing`] takes the records of all rings in the order of their time. A call is announced when it enters and
//! handed on when it has returned; a multicall's inner calls wait for it, so that calls of a ring come out in the
//! order they entered.
//!
//! **Time.** No two calls enter at the same nanosecond, and a later one never at an earlier time: what the clock gives
//! is moved up as far as that takes. So whoever sorts a recording by time has the order in which calls were
//! announced. Only where the clock was set back by more than [`MAX_STEP_BACK_NS`] does time go back here too.
//!
//! **Continuations.** Xen preempts a long call by setting the guest's registers so that it issues the call again.
//! The re-issued call is the one of the same vCPU with the instruction pointer, stack pointer, number and
//! arguments that Xen left behind; an interrupt taken in between makes other calls from the same instruction, but
//! on another stack. For a preempted multicall the count of remaining calls tells whether its last inner call
//! finished or goes on as the first inner call of the re-issued multicall (Xen common/multicall.c).

use std::collections::HashMap;

use hypovisor_abi::Width;
use hypovisor_abi::capture::Registers;
use hypovisor_event::record::{Entry, Exit, Record, Reissue};

use crate::call::{Call, CallId, CallSink, Loss, Outcome};
use crate::clock::Clock;

/// `__HYPERVISOR_multicall` (Xen public/xen.h).
const MULTICALL: u64 = 13;
/// `__HYPERVISOR_iret` (Xen public/xen.h): RAX afterwards is what the guest had pushed, not a result.
const IRET: u64 = 23;
/// Inner calls held until their multicall returns; beyond this they are handed on before it.
const MAX_HELD: usize = 4096;
/// Preempted calls remembered per vCPU of a domain; more than one only if interrupts nest.
const MAX_PREEMPTED: usize = 16;
/// vCPUs of domains with preempted calls; more means that they never came back.
const MAX_PREEMPTED_VCPUS: usize = 4096;

/// How far the clock may step back, when it is measured again, without time going back; 10 ms.
const MAX_STEP_BACK_NS: i64 = 10_000_000;

/// A call that has entered.
#[derive(Debug)]
struct Held {
    entry: Entry,
    /// When it entered, in nanoseconds since the Unix epoch.
    time_ns: i64,
    segments: Vec<u8>,
    continues: Option<CallId>,
    cut: bool,
    exit: Option<Exit>,
    exit_segments: Vec<u8>,
    preempted: bool,
}

/// A preempted call that has not been issued again yet.
#[derive(Clone, Copy, Debug)]
struct Preempted {
    id: CallId,
    reissue: Reissue,
    /// A multicall's inner call that goes on with it.
    inner: Option<CallId>,
}

/// The calls of one ring that are in flight: `held[0]` is the outer one, behind it its inner calls.
#[derive(Debug, Default)]
struct RingCalls {
    held: Vec<Held>,
    /// Emptied calls, for their buffers.
    spare: Vec<Held>,
    inner_calls: u64,
    /// The inner call that the first inner call of this multicall continues.
    inner_continues: Option<CallId>,
}

/// Pairs the records of a session.
#[derive(Debug)]
pub struct Pairing {
    rings: Vec<RingCalls>,
    preempted: HashMap<(u16, u16), Vec<Preempted>>,
    /// When the last call entered.
    last_entry_ns: i64,
}

impl Pairing {
    /// For a session with so many rings.
    #[must_use]
    pub fn new(rings: usize) -> Self {
        let rings = (0..rings).map(|_| RingCalls::default()).collect();
        Self { rings, preempted: HashMap::new(), last_entry_ns: i64::MIN }
    }

    /// Takes the next record of ring `pcpu`, and hands on what it completes.
    ///
    /// # Errors
    /// What the sink returns.
    pub fn record<S: CallSink>(
        &mut self,
        pcpu: u32,
        record: Record<'_>,
        clock: &Clock,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        match record {
            Record::Entry { entry, segments, cut } => self.entry(pcpu, entry, segments, cut, clock, sink),
            Record::Exit { exit, segments, cut } => self.exit(pcpu, exit, segments, cut, clock, sink),
            Record::Injected { injected, memory } => sink.injected(pcpu, &injected, memory),
            Record::Gap(gap) => sink.loss(&Loss {
                pcpu,
                time_ns: clock.unix_ns(gap.time_ticks),
                first_sequence: gap.first_sequence,
                calls: gap.calls,
                results: gap.results,
            }),
        }
    }

    /// Hands on every call still in flight, as unfinished: the session is over.
    ///
    /// # Errors
    /// What the sink returns.
    pub fn finish<S: CallSink>(&mut self, clock: &Clock, sink: &mut S) -> Result<(), S::Error> {
        for pcpu in 0..self.rings.len() as u32 {
            self.flush(pcpu, clock, sink)?;
        }
        Ok(())
    }

    fn entry<S: CallSink>(
        &mut self,
        pcpu: u32,
        entry: Entry,
        segments: &[u8],
        cut: bool,
        clock: &Clock,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let full = self.ring(pcpu).is_none_or(|ring| ring.held.len() > MAX_HELD);
        if entry.parent.is_none() || full {
            self.flush(pcpu, clock, sink)?;
        }
        let again = if entry.parent.is_none() { self.take_preempted(&entry) } else { None };
        let time_ns = self.entry_time(clock.unix_ns(entry.time_ticks));
        let Some(ring) = self.ring(pcpu) else { return Ok(()) };
        let continues = if entry.parent.is_some() {
            ring.inner_calls += 1;
            ring.inner_continues.take()
        } else {
            ring.inner_calls = 0;
            ring.inner_continues = again.and_then(|preempted| preempted.inner);
            again.map(|preempted| preempted.id)
        };
        sink.entered(&ring.hold(entry, time_ns, segments, cut, continues).call(pcpu, clock))
    }

    /// The time of the next entry, for which the clock says `time_ns`.
    fn entry_time(&mut self, time_ns: i64) -> i64 {
        let next = self.last_entry_ns.saturating_add(1);
        let time_ns =
            if next.saturating_sub(time_ns) > MAX_STEP_BACK_NS { time_ns } else { time_ns.max(next) };
        self.last_entry_ns = time_ns;
        time_ns
    }

    fn exit<S: CallSink>(
        &mut self,
        pcpu: u32,
        exit: Exit,
        segments: &[u8],
        cut: bool,
        clock: &Clock,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let Some(ring) = self.ring(pcpu) else { return Ok(()) };
        // The exit belongs to the last call entered or, once inner calls are done, to the first.
        let found = ring.held.iter_mut().rev().find(|held| held.entry.sequence == exit.sequence);
        let Some(held) = found else { return Ok(()) };
        held.exit = Some(exit);
        held.cut |= cut;
        held.exit_segments.extend_from_slice(segments);
        if held.entry.parent.is_some() {
            return Ok(());
        }
        if let Some(reissue) = exit.reissue {
            self.note_preempted(pcpu, reissue);
        }
        self.flush(pcpu, clock, sink)
    }

    fn ring(&mut self, pcpu: u32) -> Option<&mut RingCalls> {
        self.rings.get_mut(pcpu as usize)
    }

    /// The outer call of `pcpu` was preempted.
    #[cold]
    fn note_preempted(&mut self, pcpu: u32, reissue: Reissue) {
        let Some(ring) = self.ring(pcpu) else { return };
        let inner = ring.preempted_inner(&reissue).map(|sequence| CallId { pcpu, sequence });
        let Some(outer) = ring.held.first() else { return };
        let id = CallId { pcpu, sequence: outer.entry.sequence };
        let key = (outer.entry.caller.domain, outer.entry.caller.vcpu);
        if self.preempted.len() > MAX_PREEMPTED_VCPUS {
            self.preempted.clear();
        }
        let waiting = self.preempted.entry(key).or_default();
        if waiting.len() == MAX_PREEMPTED {
            waiting.remove(0);
        }
        waiting.push(Preempted { id, reissue, inner });
    }

    /// The preempted call that `entry` continues.
    fn take_preempted(&mut self, entry: &Entry) -> Option<Preempted> {
        if self.preempted.is_empty() {
            return None;
        }
        let key = (entry.caller.domain, entry.caller.vcpu);
        let waiting = self.preempted.get_mut(&key)?;
        let same = |reissue: &Reissue| {
            (reissue.rip, reissue.rsp) == (entry.caller.rip, entry.caller.rsp)
                && (reissue.number, reissue.args) == (entry.number, entry.args)
        };
        let at = waiting.iter().rposition(|preempted| same(&preempted.reissue))?;
        let found = waiting.remove(at);
        if waiting.is_empty() {
            self.preempted.remove(&key);
        }
        Some(found)
    }

    fn flush<S: CallSink>(&mut self, pcpu: u32, clock: &Clock, sink: &mut S) -> Result<(), S::Error> {
        let Some(ring) = self.ring(pcpu) else { return Ok(()) };
        for held in &ring.held {
            sink.call(&held.call(pcpu, clock))?;
        }
        ring.spare.append(&mut ring.held);
        Ok(())
    }
}

impl RingCalls {
    fn hold(
        &mut self,
        entry: Entry,
        time_ns: i64,
        segments: &[u8],
        cut: bool,
        continues: Option<CallId>,
    ) -> &Held {
        let mut held = self.spare.pop().unwrap_or_else(|| Held {
            entry,
            time_ns,
            segments: Vec::new(),
            continues: None,
            cut: false,
            exit: None,
            exit_segments: Vec::new(),
            preempted: false,
        });
        (held.entry, held.time_ns) = (entry, time_ns);
        held.segments.clear();
        held.segments.extend_from_slice(segments);
        held.exit_segments.clear();
        (held.continues, held.cut, held.exit, held.preempted) = (continues, cut, None, false);
        let at = self.held.len();
        self.held.push(held);
        &self.held[at]
    }

    /// Marks the last inner call as preempted if the multicall's remaining count says so.
    fn preempted_inner(&mut self, reissue: &Reissue) -> Option<u64> {
        let outer = self.held.first()?;
        if outer.entry.number != MULTICALL || self.inner_calls == 0 {
            return None;
        }
        let count = |args: &[u64; 6]| args[1] & 0xffff_ffff;
        let goes_on = self.inner_calls + count(&reissue.args) == count(&outer.entry.args) + 1;
        let last = self.held.last_mut().filter(|held| goes_on && held.entry.parent.is_some())?;
        last.preempted = true;
        Some(last.entry.sequence)
    }
}

impl Held {
    fn call(&self, pcpu: u32, clock: &Clock) -> Call<'_> {
        let entry = &self.entry;
        let width = if entry.caller.mode.is_64_bit() { Width::Bits64 } else { Width::Bits32 };
        let outcome = match self.exit {
            None => Outcome::Unfinished,
            Some(exit) if exit.reissue.is_some() || self.preempted => Outcome::Preempted,
            Some(_) if entry.number == IRET => Outcome::Resumed,
            Some(exit) => Outcome::Returned(exit.result),
        };
        let elapsed = self.exit.map(|exit| exit.time_ticks.saturating_sub(entry.time_ticks));
        Call {
            id: CallId { pcpu, sequence: entry.sequence },
            time_ns: self.time_ns,
            duration_ns: elapsed.map(|ticks| clock.duration_ns(ticks)),
            caller: entry.caller,
            parent: entry.parent.map(|sequence| CallId { pcpu, sequence }),
            continues: self.continues,
            registers: Registers { number: entry.number, args: entry.args, width },
            entry_segments: &self.segments,
            exit_segments: &self.exit_segments,
            cut: self.cut,
            intervention: entry.intervention,
            outcome,
        }
    }
}

#[cfg(test)]
mod tests;
