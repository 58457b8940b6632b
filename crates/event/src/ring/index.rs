//! The protocol of a ring alone: two positions and the rules for moving them. Apart, so that loom can try every
//! interleaving of it (`RUSTFLAGS="--cfg loom" cargo test -p hypovisor-event --lib`).

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// The two positions of a ring and the rules for moving them.
#[derive(Clone, Copy)]
pub(crate) struct Index<'a> {
    pub(crate) head: &'a AtomicU64,
    pub(crate) tail: &'a AtomicU64,
    pub(crate) size: u64,
}

impl Index<'_> {
    /// Bytes free for the producer that stands at `head`.
    pub(crate) fn room(self, head: u64) -> u64 {
        let in_flight = head.wrapping_sub(self.tail.load(Ordering::Acquire));
        self.size.saturating_sub(in_flight)
    }

    pub(crate) fn publish(self, head: u64) {
        self.head.store(head, Ordering::Release);
    }

    /// Bytes that the consumer at `tail` may read; never more than the ring holds.
    pub(crate) fn ready(self, tail: u64) -> u64 {
        self.head.load(Ordering::Acquire).wrapping_sub(tail).min(self.size)
    }

    pub(crate) fn release(self, tail: u64) {
        self.tail.store(tail, Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    /// Two slots stand for the data; loom reports any access to one that is not ordered by the positions.
    struct Shared {
        head: AtomicU64,
        tail: AtomicU64,
        slots: [UnsafeCell<u64>; 2],
    }

    impl Shared {
        fn index(&self) -> Index<'_> {
            Index { head: &self.head, tail: &self.tail, size: 2 }
        }
    }

    #[test]
    fn no_slot_is_read_before_it_is_published_or_written_before_it_is_released() {
        loom::model(|| {
            let slots = [UnsafeCell::new(0), UnsafeCell::new(0)];
            let shared = Arc::new(Shared { head: AtomicU64::new(0), tail: AtomicU64::new(0), slots });
            let writer = Arc::clone(&shared);
            let producer = loom::thread::spawn(move || {
                for head in 0..3u64 {
                    while writer.index().room(head) == 0 {
                        loom::thread::yield_now();
                    }
                    #[expect(unsafe_code, reason = "loom checks that this access is ordered")]
                    // SAFETY: loom's cell panics in the model if another thread could be at it.
                    writer.slots[(head & 1) as usize].with_mut(|slot| unsafe { *slot = head + 1 });
                    writer.index().publish(head + 1);
                }
            });
            for tail in 0..3u64 {
                while shared.index().ready(tail) == 0 {
                    loom::thread::yield_now();
                }
                #[expect(unsafe_code, reason = "loom checks that this access is ordered")]
                // SAFETY: as above.
                let seen = shared.slots[(tail & 1) as usize].with(|slot| unsafe { *slot });
                assert_eq!(seen, tail + 1);
                shared.index().release(tail + 1);
            }
            producer.join().unwrap();
        });
    }
}
