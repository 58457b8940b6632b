//! What the fuzz target and the tests of the decoder share: a call made of arbitrary bytes, and a [`Reader`]
//! that copies from made-up memory.
//!
//! ```text
//!  0       1        2                50
//!  +-------+--------+----------------+------------------------------+
//!  | flags | number | six arguments  | segments, or a guest's memory |
//!  +-------+--------+----------------+------------------------------+
//! ```
//!
//! Flags: 1, a 32-bit caller; 2, the rest is memory to capture from, not segments; 4, the call has returned.
//! The rest is one half for the entry and one for the exit. Addresses in made-up memory wrap around, and every
//! other turn is unmapped.

use crate::capture::{
    self, MAX_SEGMENT_BYTES, MAX_SEGMENTS, Phase, Piece, Reader, Registers, Segments, UNREADABLE,
};
use crate::decode::Call;
use crate::layout::Width;
use crate::text::Detail;
use crate::xen::XEN;
use crate::{json, text};

const NARROW: u8 = 1;
const FROM_MEMORY: u8 = 2;
const RETURNED: u8 = 4;
const HEADER_BYTES: usize = 50;

/// A call in each of its forms.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    /// A bounded line.
    pub line: String,
    /// All that was captured.
    pub full: String,
    /// The arguments as JSON.
    pub json: String,
}

impl Rendered {
    /// Writes the call in each form.
    #[must_use]
    pub fn of(abi: &crate::Abi, call: &Call<'_>) -> Self {
        let mut rendered = Self { line: String::new(), full: String::new(), json: String::new() };
        text::write_call(&mut rendered.line, abi, call, Detail::Line);
        text::write_call(&mut rendered.full, abi, call, Detail::Full);
        json::write_arguments(&mut rendered.json, abi, call);
        rendered
    }
}

/// Takes the bytes apart, captures if they say so, and writes the call in each form. `None`: too few bytes.
#[must_use]
pub fn decode_call(data: &[u8]) -> Option<Rendered> {
    let (header, rest) = data.split_at_checked(HEADER_BYTES)?;
    let flags = header[0];
    let word =
        |index: usize| Some(u64::from_le_bytes(header.get(2 + 8 * index..)?.get(..8)?.try_into().ok()?));
    let mut args = [0; 6];
    for (index, arg) in args.iter_mut().enumerate() {
        *arg = word(index)?;
    }
    let width = if flags & NARROW != 0 { Width::Bits32 } else { Width::Bits64 };
    let registers = Registers { number: u64::from(header[1]), args, width };
    let (entry, exit) = rest.split_at((rest.len() / 2).next_multiple_of(8).min(rest.len()));
    let copy = |half: &[u8], phase| match flags & FROM_MEMORY {
        0 => half.to_vec(),
        _ => capture_from(&registers, phase, half),
    };
    let entry = copy(entry, Phase::Entry);
    let exit = if flags & RETURNED != 0 { copy(exit, Phase::Exit) } else { Vec::new() };
    let call = Call { registers, entry: Segments(&entry), exit: Segments(&exit) };
    Some(Rendered::of(&XEN, &call))
}

fn capture_from(registers: &Registers, phase: Phase, memory: &[u8]) -> Vec<u8> {
    let turn = (memory.len() as u64 * 2).max(1);
    let mut copier = Copier::new(|gva: u64| memory.get((gva % turn) as usize).copied());
    capture::capture(&XEN, registers, phase, &mut copier);
    copier.out
}

/// A [`Reader`] that keeps the bounds and writes the wire form, from memory that a function stands for.
pub struct Copier<F> {
    byte_at: F,
    /// The segments so far.
    pub out: Vec<u8>,
    /// Where each piece's bytes lie in `out`: start and length.
    pub pieces: Vec<(usize, usize)>,
}

impl<F: Fn(u64) -> Option<u8>> Copier<F> {
    /// Nothing copied yet.
    pub const fn new(byte_at: F) -> Self {
        Self { byte_at, out: Vec::new(), pieces: Vec::new() }
    }

    fn segment(&mut self, gva: u64, requested: u64, until_nul: bool) -> Option<Piece> {
        if self.pieces.len() == MAX_SEGMENTS {
            return None;
        }
        let wanted = requested.min(u64::from(MAX_SEGMENT_BYTES));
        let mut bytes = Vec::new();
        let mut readable = true;
        for offset in 0..wanted {
            let byte = (self.byte_at)(gva.wrapping_add(offset));
            readable = byte.is_some();
            bytes.extend(byte);
            if !readable || (until_nul && byte == Some(0)) {
                break;
            }
        }
        let unreadable = if readable { 0 } else { UNREADABLE };
        self.out.extend(gva.to_le_bytes());
        self.out.extend(u32::try_from(requested).unwrap_or(u32::MAX).to_le_bytes());
        self.out.extend((bytes.len() as u32 | unreadable).to_le_bytes());
        self.pieces.push((self.out.len(), bytes.len()));
        self.out.extend(bytes);
        self.out.resize(self.out.len().next_multiple_of(8), 0);
        Some(Piece(self.pieces.len() - 1))
    }
}

impl<F: Fn(u64) -> Option<u8>> Reader for Copier<F> {
    fn capture(&mut self, gva: u64, len: u64) -> Option<Piece> {
        self.segment(gva, len, false)
    }

    fn capture_text(&mut self, gva: u64, max: u32) -> Option<Piece> {
        self.segment(gva, u64::from(max), true)
    }

    fn integer(&self, piece: Piece, offset: u64, bytes: u32) -> Option<u64> {
        let &(start, len) = self.pieces.get(piece.0)?;
        let data = self.out.get(start..start + len)?;
        crate::decode::little_endian(data.get(usize::try_from(offset).ok()?..)?, bytes as usize)
    }
}
