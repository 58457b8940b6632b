//! One single-producer, single-consumer ring of bytes in shared memory.
//!
//! ```text
//!   control page                                        data, mapped twice in a row
//!   0    head      bytes ever published  (producer)     ┌──────────────┬──────────────┐
//!   8    sequence  calls ever seen                      │ 0 … size - 1 │ 0 … size - 1 │
//!   16   lost_calls                                     └──────────────┴──────────────┘
//!   24   lost_results                                     a record never breaks at the end
//!   32   waits     times the vCPU was held back
//!   64   tail      bytes ever consumed   (consumer)
//!   1024 cost      histogram of what hook hits took, [`COST_BUCKETS`] counts
//! ```
//!
//! `head` and `tail` only grow; their difference is what is in flight. The producer publishes a record by
//! storing `head` with release order after its bytes, the consumer loads it with acquire order before it
//! copies them out, and gives the room back by storing `tail` with release order. That is all the protocol
//! there is; `Index` is that protocol alone, so that loom can try every interleaving of it.
//!
//! Neither side trusts the other with its memory safety: positions are masked, lengths are checked, and a
//! nonsensical `tail` or `head` can lose events but reach nothing outside the ring.

use hypovisor_mapping::Mapping;

use std::sync::atomic::{AtomicU64, Ordering};

use self::index::Index;

mod index;

/// Offsets of the counters in a ring's control page, in bytes.
pub(crate) mod offset {
    pub(crate) const HEAD: usize = 0;
    pub(crate) const SEQUENCE: usize = 8;
    pub(crate) const LOST_CALLS: usize = 16;
    pub(crate) const LOST_RESULTS: usize = 24;
    pub(crate) const WAITS: usize = 32;
    pub(crate) const TAIL: usize = 64;
    pub(crate) const COST: usize = 1024;
}

/// Words of a control page.
const CONTROL_WORDS: usize = 512;

/// The writing end. One per vCPU, used by that vCPU's thread only.
#[derive(Debug)]
pub struct Producer {
    control: Mapping,
    data: Mapping,
    size: u64,
    head: u64,
    /// Room known to be free without looking at `tail` again.
    known_room: u64,
}

impl Producer {
    /// Takes the writing end over a control page and a mirrored data mapping of twice `size` bytes (a power of two).
    #[must_use]
    pub fn new(control: Mapping, data: Mapping) -> Self {
        let size = data.len() as u64 / 2;
        let head = control.word(offset::HEAD).unwrap_or(0);
        Self { control, data, size, head, known_room: 0 }
    }

    #[inline]
    fn control(&self) -> Option<&[AtomicU64; CONTROL_WORDS]> {
        self.control.counters(0)
    }

    /// Whether `len` bytes are free. Looks at the consumer's position only when what was known to be free is used up.
    #[inline]
    pub fn has_room(&mut self, len: usize) -> bool {
        self.known_room >= len as u64 || self.look_for_room(len)
    }

    #[cold]
    fn look_for_room(&mut self, len: usize) -> bool {
        let (head, size) = (self.head, self.size);
        self.known_room = self.control().map_or(0, |control| index(control, size).room(head));
        self.known_room >= len as u64
    }

    /// `len` bytes to fill, or `None` while there is no room for them.
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        if !self.has_room(len) {
            return None;
        }
        let at = (self.head & (self.size - 1)) as usize;
        self.data.private_part(at, len)
    }

    /// Publishes the first `len` bytes of what [`Producer::reserve`] gave.
    #[inline]
    pub fn publish(&mut self, len: usize) {
        self.head = self.head.wrapping_add(len as u64);
        self.known_room = self.known_room.saturating_sub(len as u64);
        if let Some(control) = self.control() {
            index(control, self.size).publish(self.head);
        }
    }

    /// How far the consumer has come, to see whether it still moves.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.control.word(offset::TAIL).unwrap_or(0)
    }

    /// Shows the number of calls seen so far.
    #[inline]
    pub fn show_sequence(&self, calls: u64) {
        self.store(offset::SEQUENCE, calls);
    }

    /// Shows how many calls and results were lost so far.
    pub fn show_losses(&self, calls: u64, results: u64) {
        self.store(offset::LOST_CALLS, calls);
        self.store(offset::LOST_RESULTS, results);
    }

    /// Shows how often the vCPU was held back because the ring was full.
    pub fn show_waits(&self, waits: u64) {
        self.store(offset::WAITS, waits);
    }

    /// Counts a hook hit that took so many ticks.
    pub fn count_cost(&self, ticks: u64) {
        if let Some(control) = self.control() {
            let count = &control[offset::COST / 8 + cost_bucket(ticks)];
            // One writer: no other store can come in between.
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    #[inline]
    fn store(&self, offset: usize, value: u64) {
        if let Some(control) = self.control() {
            control[offset / 8].store(value, Ordering::Relaxed);
        }
    }
}

#[inline]
fn index(control: &[AtomicU64; CONTROL_WORDS], size: u64) -> Index<'_> {
    Index { head: &control[offset::HEAD / 8], tail: &control[offset::TAIL / 8], size }
}

/// What a ring's producer tells about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Calls seen, lost ones included.
    pub calls: u64,
    /// Calls of which nothing was recorded.
    pub lost_calls: u64,
    /// Calls recorded without their result.
    pub lost_results: u64,
    /// Times the vCPU was held back because the ring was full.
    pub waits: u64,
}

/// Buckets of the cost histogram: four for every power of two of ticks.
pub const COST_BUCKETS: usize = 256;

/// The bucket that counts hits of so many ticks.
fn cost_bucket(ticks: u64) -> usize {
    let ticks = ticks.max(4);
    let power = ticks.ilog2();
    (power * 4) as usize + ((ticks >> (power - 2)) & 3) as usize
}

/// The lowest number of ticks that bucket counts, from the first bucket in use (8) on.
fn bucket_start(bucket: usize) -> u64 {
    let (power, quarter) = (bucket / 4, (bucket % 4) as u64);
    if power < 2 { 0 } else { (4 + quarter) << (power - 2) }
}

/// The median of a cost histogram, in ticks; `None` if it is empty.
#[must_use]
pub fn median_cost_ticks(counts: &[u64; COST_BUCKETS]) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    let mut below = 0;
    counts.iter().enumerate().find_map(|(bucket, count)| {
        below += count;
        (total > 0 && 2 * below >= total).then(|| bucket_start(bucket))
    })
}

/// The reading end.
#[derive(Debug)]
pub struct Consumer {
    control: Mapping,
    data: Mapping,
    size: u64,
    tail: u64,
}

impl Consumer {
    /// Takes the reading end over; goes on where the last consumer left off.
    #[must_use]
    pub fn new(control: Mapping, data: Mapping) -> Self {
        let size = data.len() as u64 / 2;
        let tail = control.word(offset::TAIL).unwrap_or(0);
        Self { control, data, size, tail }
    }

    fn index(&self) -> Option<Index<'_>> {
        Some(index(self.control.counters(0)?, self.size))
    }

    /// Bytes waiting.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.index().map_or(0, |index| index.ready(self.tail))
    }

    /// Copies waiting bytes to the start of `batch`, as many as fit, without giving their room back yet, and returns
    /// how many.
    pub fn copy(&self, batch: &mut [u8]) -> usize {
        let len = self.waiting().min(batch.len() as u64) as usize;
        let at = (self.tail & (self.size - 1)) as usize;
        let copied = batch.get_mut(..len).is_some_and(|batch| self.data.copy_out(at, batch));
        if copied { len } else { 0 }
    }

    /// Gives the room of the first `len` waiting bytes back to the producer.
    pub fn release(&mut self, len: usize) {
        self.tail = self.tail.wrapping_add((len as u64).min(self.waiting()));
        if let Some(index) = self.index() {
            index.release(self.tail);
        }
    }

    /// Throws away all that waits; the way out of a malformed ring. Returns how many bytes.
    pub fn discard(&mut self) -> u64 {
        let waiting = self.waiting();
        self.release(waiting as usize);
        waiting
    }

    /// The producer's counters.
    #[must_use]
    pub fn counters(&self) -> RingCounters {
        let word = |at| self.control.word(at).unwrap_or(0);
        RingCounters {
            calls: word(offset::SEQUENCE),
            lost_calls: word(offset::LOST_CALLS),
            lost_results: word(offset::LOST_RESULTS),
            waits: word(offset::WAITS),
        }
    }

    /// The histogram of what hook hits took: see [`median_cost_ticks`].
    #[must_use]
    pub fn cost_counts(&self) -> [u64; COST_BUCKETS] {
        std::array::from_fn(|bucket| self.control.word(offset::COST + 8 * bucket).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{RingGeometry, Rings};
    use proptest::prelude::*;

    fn ring() -> (Producer, Consumer) {
        let rings = Rings::create(RingGeometry { rings: 1, ring_bytes: 4096 }).unwrap();
        (rings.producer(0).unwrap(), rings.consumer(0).unwrap())
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(lens in proptest::collection::vec(1usize..1500, 1..200)) {
            let (mut producer, mut consumer) = ring();
            let (mut sent, mut received) = (Vec::new(), Vec::new());
            for (n, len) in lens.into_iter().enumerate() {
                while producer.reserve(len).is_none() {
                    let mut batch = [0; 700];
                    let copied = consumer.copy(&mut batch);
                    prop_assert!(copied > 0, "a full ring has something to read");
                    received.extend_from_slice(&batch[..copied]);
                    consumer.release(copied);
                }
                producer.reserve(len).unwrap().fill(n as u8);
                producer.publish(len);
                sent.extend(std::iter::repeat_n(n as u8, len));
            }
            let mut batch = [0; 4096];
            let rest = consumer.copy(&mut batch);
            received.extend_from_slice(&batch[..rest]);
            consumer.release(rest);
            prop_assert_eq!(sent, received);
            prop_assert_eq!(consumer.waiting(), 0);
        }
    }

    #[test]
    fn the_median_cost_is_found_within_a_quarter_of_a_power_of_two() {
        let (producer, consumer) = ring();
        assert_eq!(median_cost_ticks(&consumer.cost_counts()), None);
        for ticks in [0, 90, 100, 110, u64::MAX] {
            producer.count_cost(ticks);
        }
        let median = median_cost_ticks(&consumer.cost_counts()).unwrap();
        assert!((96..=112).contains(&median), "{median}");
    }

    #[test]
    fn a_second_consumer_goes_on_where_the_first_stopped() {
        let rings = Rings::create(RingGeometry { rings: 1, ring_bytes: 4096 }).unwrap();
        let mut producer = rings.producer(0).unwrap();
        producer.reserve(16).unwrap().copy_from_slice(b"0123456789abcdef");
        producer.publish(16);
        rings.consumer(0).unwrap().release(10);
        let mut seen = [0; 100];
        let copied = rings.consumer(0).unwrap().copy(&mut seen);
        assert_eq!(&seen[..copied], b"abcdef");
    }

    #[test]
    fn a_nonsensical_position_reaches_nothing_outside() {
        let rings = Rings::create(RingGeometry { rings: 1, ring_bytes: 4096 }).unwrap();
        let consumer = rings.consumer(0).unwrap();
        let mut producer = rings.producer(0).unwrap();
        producer.head = u64::MAX - 100;
        producer.publish(0);
        assert_eq!(consumer.waiting(), 4096);
        assert_eq!(consumer.copy(&mut [0; 10_000]), 4096);
        assert!(producer.reserve(8).is_none(), "more in flight than the ring holds means no room");
    }
}
