//! Where a call returns to: the word at the stack pointer, at a function's first instruction.

use hypovisor_machine::{Gva, VirtualMemory};
use hypovisor_mapping::Ram;

/// Ways into the hooked functions that are remembered: each has its place on the physical CPU's one stack.
const PLACES: usize = 4;

/// Where the words stood that were read last.
#[derive(Debug, Default)]
pub(crate) struct ReturnAddresses {
    /// Stack pointers, and where they lead to in the RAM mapping.
    places: [(u64, usize); PLACES],
    next: usize,
}

impl ReturnAddresses {
    /// The word at `rsp`, if `accept` takes it. What is remembered of the stack's place is only believed if it does.
    pub(crate) fn find<T>(
        &mut self,
        ram: &Ram,
        cr3: u64,
        rsp: u64,
        accept: impl Fn(u64) -> Option<T>,
    ) -> Option<T> {
        let word = |at: usize| ram.mapping().word(at).and_then(&accept);
        let known = self.places.iter().find(|place| place.0 == rsp).and_then(|place| word(place.1));
        if known.is_some() {
            return known;
        }
        let gpa = VirtualMemory::new(ram, cr3).translate(Gva(rsp)).ok()?;
        let at = ram.offset_of(gpa, 8).ok()?;
        let found = word(at);
        if found.is_some() {
            self.remember(rsp, at);
        }
        found
    }

    fn remember(&mut self, rsp: u64, at: usize) {
        let known = self.places.iter().position(|place| place.0 == rsp);
        let index = known.unwrap_or(self.next);
        if known.is_none() {
            self.next = (self.next + 1) % PLACES;
        }
        if let Some(place) = self.places.get_mut(index) {
            *place = (rsp, at);
        }
    }
}
