//! A place in captured memory, and what stands there.

use crate::op::{Side, Until};

/// A place in captured memory.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    /// The whole segments, at entry and after the call; empty if not captured.
    pub(super) entry: &'a [u8],
    pub(super) exit: &'a [u8],
    /// How many bytes the call refers to there.
    pub(super) requested: [u32; 2],
    pub(super) gva: u64,
    pub(super) offset: u64,
}

impl<'a> Cursor<'a> {
    fn whole(&self, side: Side) -> &'a [u8] {
        match side {
            Side::Entry => self.entry,
            Side::Exit => self.exit,
            Side::Either if self.entry.is_empty() => self.exit,
            Side::Either => self.entry,
        }
    }

    pub(super) fn bytes(&self, side: Side) -> &'a [u8] {
        let start = usize::try_from(self.offset).unwrap_or(usize::MAX);
        self.whole(side).get(start..).unwrap_or(&[])
    }

    /// Bytes that the call refers to from here on.
    pub(super) fn requested(&self, side: Side) -> u64 {
        let [entry, exit] = self.requested.map(u64::from);
        let all = match side {
            Side::Entry => entry,
            Side::Exit => exit,
            Side::Either => entry.max(exit),
        };
        all.saturating_sub(self.offset)
    }

    pub(super) const fn moved(mut self, bytes: u64) -> Self {
        self.offset = self.offset.saturating_add(bytes);
        self
    }
}

/// A little-endian C integer of `bytes` (1 to 8) bytes at the start of `memory`.
#[inline]
pub(super) fn integer(memory: &[u8], bytes: u8, signed: bool) -> Option<i128> {
    let unused = 64_u32.checked_sub(8 * u32::from(bytes)).filter(|unused| *unused < 64)?;
    let word = match memory.first_chunk() {
        // What follows the integer is shifted out.
        Some(word) => u64::from_le_bytes(*word) << unused,
        None => short_integer(memory, bytes)? << unused,
    };
    Some(if signed { i128::from(word.cast_signed() >> unused) } else { i128::from(word >> unused) })
}

fn short_integer(memory: &[u8], bytes: u8) -> Option<u64> {
    let memory = memory.get(..usize::from(bytes))?;
    Some(memory.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
}

pub(super) fn ends_at(base: &Cursor<'_>, until: Until) -> bool {
    let field = base.moved(u64::from(until.offset));
    integer(field.bytes(Side::Either), until.bytes, false) == Some(0)
}
