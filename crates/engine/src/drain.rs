//! Empties the rings in the order of time.
//!
//! A round notes the time, copies what every ring holds, and hands on the records up to that time, merged. Later
//! ones wait for the next round: what made one event happen on one CPU is then always seen before its effect on
//! another, however the copying of the rings interleaves with them.

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
        while let Some(pcpu) = earliest(&readers, until) {
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

/// The reader with the earliest record, if that is not later than `until`.
fn earliest(readers: &[Records<'_>], until: u64) -> Option<usize> {
    let times = readers.iter().enumerate().filter_map(|(index, reader)| match reader.peek() {
        Peek::Record { time_ticks } if time_ticks <= until => Some((time_ticks, index)),
        _ => None,
    });
    times.min().map(|(_, index)| index)
}
