//! Empties the rings in the order of time.
//!
//! A round notes the time, copies what every ring holds, and hands on the records up to that time, merged. Later
//! ones wait for the next round: what made one event happen on one CPU is then always seen before its effect on
//! another, however the copying of the rings interleaves with them. For the same reason a round ends where the first ring
//! ends of those that held more than a round copies: the others may be ahead of what is left in it.

use hypovisor_event::record::{Peek, Records};
use hypovisor_event::ring::{COST_BUCKETS, Consumer, RingCounters};
use hypovisor_machine::clock::now_ticks;

use crate::call::CallSink;
use crate::clock::Clock;
use crate::pairing::Pairing;

/// Bytes copied from one ring in one round.
const BATCH_BYTES: usize = 256 << 10;

struct Ring {
    consumer: Consumer,
    /// [`BATCH_BYTES`] for what is copied from the ring; the first `copied` count.
    batch: Box<[u8]>,
    copied: usize,
    /// Set when the ring held something that is no record: nothing more is read from it.
    malformed: bool,
}

/// The reading end of a session.
pub struct Drain {
    rings: Vec<Ring>,
    pairing: Pairing,
    records: u64,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Records handed on.
    pub records: u64,
    /// Rings that hold something that no sensor writes; they are read no further.
    pub malformed_rings: u64,
    /// A ring held more than one round takes: go on at once.
    pub more: bool,
}

impl Drain {
    /// Reads these rings; the position in the list is the physical CPU.
    #[must_use]
    pub fn new(consumers: Vec<Consumer>) -> Self {
        let pairing = Pairing::new(consumers.len());
        let rings = consumers
            .into_iter()
            .map(|consumer| Ring {
                consumer,
                batch: vec![0; BATCH_BYTES].into(),
                copied: 0,
                malformed: false,
            })
            .collect();
        Self { rings, pairing, records: 0 }
    }

    /// Records handed on so far.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// What the sensor counted, per physical CPU.
    pub fn counters(&self) -> impl Iterator<Item = RingCounters> + '_ {
        self.rings.iter().map(|ring| ring.consumer.counters())
    }

    /// What hook hits took on all CPUs, as a histogram.
    #[must_use]
    pub fn cost_counts(&self) -> [u64; COST_BUCKETS] {
        let mut sum = [0; COST_BUCKETS];
        for ring in &self.rings {
            for (sum, count) in sum.iter_mut().zip(ring.consumer.cost_counts()) {
                *sum += count;
            }
        }
        sum
    }

    /// Hands on what has happened until now.
    ///
    /// # Errors
    /// What the sink returns.
    pub fn round<S: CallSink>(&mut self, clock: &Clock, sink: &mut S) -> Result<Round, S::Error> {
        self.round_until(now_ticks(), clock, sink)
    }

    /// Hands on all that is left, whatever its time, and every call still in flight as unfinished.
    ///
    /// # Errors
    /// What the sink returns.
    pub fn finish<S: CallSink>(&mut self, clock: &Clock, sink: &mut S) -> Result<(), S::Error> {
        while self.round_until(u64::MAX, clock, sink)?.records > 0 {}
        self.pairing.finish(clock, sink)
    }

    fn round_until<S: CallSink>(
        &mut self,
        until: u64,
        clock: &Clock,
        sink: &mut S,
    ) -> Result<Round, S::Error> {
        let mut round = Round::default();
        for ring in &mut self.rings {
            ring.copied = if ring.malformed { 0 } else { ring.consumer.copy(&mut ring.batch) };
            round.more |= ring.copied == BATCH_BYTES;
        }
        let mut readers: Vec<Records<'_>> =
            self.rings.iter().map(|ring| Records::new(&ring.batch[..ring.copied])).collect();
        let mut malformed = vec![false; readers.len()];
        let full: Vec<bool> = self.rings.iter().map(|ring| ring.copied == BATCH_BYTES).collect();
        while let Some(pcpu) = earliest(&readers, &full, until) {
            match readers[pcpu].next() {
                Some(Ok(record)) => {
                    self.pairing.record(pcpu as u32, record, clock, sink)?;
                    round.records += 1;
                }
                Some(Err(_)) => malformed[pcpu] = true,
                None => break,
            }
        }
        for (reader, malformed) in readers.iter().zip(&mut malformed) {
            // A whole batch without one whole record: no sensor writes records that long.
            *malformed |= reader.offset() == 0 && reader.peek() == Peek::Incomplete;
        }
        let done: Vec<usize> = readers.iter().map(Records::offset).collect();
        for ((ring, done), malformed) in self.rings.iter_mut().zip(done).zip(malformed) {
            ring.consumer.release(done);
            ring.malformed |= malformed;
        }
        round.malformed_rings = self.rings.iter().filter(|ring| ring.malformed).count() as u64;
        self.records += round.records;
        Ok(round)
    }
}

/// The reader with the earliest record, if that is not later than `until` and no ring may hold an earlier one that was not
/// copied.
fn earliest(readers: &[Records<'_>], full: &[bool], until: u64) -> Option<usize> {
    let mut earliest = None;
    for (index, (reader, full)) in readers.iter().zip(full).enumerate() {
        match reader.peek() {
            Peek::Record { time_ticks } if time_ticks <= until => {
                earliest = earliest.into_iter().chain([(time_ticks, index)]).min();
            }
            Peek::Record { .. } => {}
            Peek::Incomplete | Peek::End if *full => return None,
            Peek::Incomplete | Peek::End => {}
        }
    }
    earliest.map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use hypovisor_event::record::{
        Caller, CallerMode, ENTRY_BYTES, Entry, Exit, Kind, PREEMPTED_BYTES, finish, head, write_entry,
        write_exit,
    };
    use hypovisor_event::ring::Producer;
    use hypovisor_event::verdict::Intervention;
    use hypovisor_event::{RingGeometry, Rings};

    use super::*;
    use crate::call::{Call, Loss};

    /// The CPUs of the calls in the order in which they are handed on.
    #[derive(Default)]
    struct Cpus(Vec<u32>);

    impl CallSink for Cpus {
        type Error = std::convert::Infallible;

        fn call(&mut self, call: &Call<'_>) -> Result<(), Self::Error> {
            self.0.push(call.id.pcpu);
            Ok(())
        }

        fn loss(&mut self, _: &Loss) -> Result<(), Self::Error> {
            Ok(())
        }
    }

    /// A call that enters and returns at this time.
    fn produce(producer: &mut Producer, sequence: u64, time_ticks: u64) {
        let mode = CallerMode::Pv64;
        let caller = Caller { domain: 1, vcpu: 0, mode, cpl: 3, cs: 0xe033, rip: 0, rsp: 0 };
        let (args, intervention) = ([0; 6], Intervention::default());
        let entry = Entry { sequence, time_ticks, caller, parent: None, number: 17, args, intervention };
        let mut bytes = [0; ENTRY_BYTES];
        write_entry(&mut bytes, &entry);
        finish(&mut bytes, head(ENTRY_BYTES, Kind::Entry, 0, mode, 3));
        put(producer, &bytes);
        let mut bytes = [0; PREEMPTED_BYTES];
        let len = write_exit(&mut bytes, &Exit { sequence, time_ticks, result: 0, reissue: None });
        finish(&mut bytes, head(len, Kind::Exit, 0, mode, 3));
        put(producer, &bytes[..len]);
    }

    fn put(producer: &mut Producer, bytes: &[u8]) {
        producer.reserve(bytes.len()).unwrap().copy_from_slice(bytes);
        producer.publish(bytes.len());
    }

    /// One CPU makes more calls than a round copies, another few, later ones.
    #[test]
    fn a_ring_that_is_ahead_waits_for_one_that_holds_much() {
        let calls = 3 * BATCH_BYTES as u64 / 144;
        let rings = Rings::create(RingGeometry::new(2, 2 << 20)).unwrap();
        let mut producers = [0, 1].map(|ring| rings.producer(ring).unwrap());
        for call in 0..calls {
            produce(&mut producers[0], call, 1000 + 2 * call);
        }
        for call in 0..10 {
            produce(&mut producers[1], call, 1001 + 2 * (calls - 20 + call));
        }
        let mut drain = Drain::new([0, 1].map(|ring| rings.consumer(ring).unwrap()).into());
        let (clock, mut sink) = (Clock::measure(), Cpus::default());
        let mut rounds = 0;
        while drain.round_until(u64::MAX, &clock, &mut sink).unwrap().records > 0 {
            rounds += 1;
        }
        assert!(rounds >= 3, "{rounds} rounds");
        assert_eq!(sink.0.len() as u64, calls + 10);
        let first_of_other = sink.0.iter().position(|pcpu| *pcpu == 1).unwrap();
        assert_eq!(first_of_other as u64, calls - 19, "after the call that was 1 tick before it");
    }
}
