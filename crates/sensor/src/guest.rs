//! Guest memory, copied into the record under construction.

use hypovisor_abi::capture::{
    MAX_SEGMENT_BYTES, MAX_SEGMENTS, Piece, Reader, SEGMENT_HEADER_BYTES, UNREADABLE,
};
use hypovisor_machine::nested::{self, GuestPaging};
use hypovisor_machine::{Gpa, Gva, MemoryError, PAGE_SIZE, PhysicalMemory, paging};
use hypovisor_mapping::Ram;

/// How a guest's virtual addresses lead to L1's RAM.
#[derive(Clone, Copy)]
pub(crate) enum AddressSpace {
    /// A PV guest: it shares its page tables with Xen.
    Pv { cr3: u64 },
    /// An HVM or PVH guest: its own tables, then nested ones.
    Hvm(GuestPaging),
}

impl AddressSpace {
    pub(crate) fn translate(&self, ram: &Ram, gva: Gva) -> Result<Gpa, MemoryError> {
        match self {
            Self::Pv { cr3 } => paging::translate(ram, *cr3, gva),
            Self::Hvm(paging) => nested::translate(ram, paging, gva),
        }
    }
}

/// Writes segments one behind the other into what a record has left.
pub(crate) struct SegmentWriter<'a> {
    ram: &'a Ram,
    space: AddressSpace,
    buf: &'a mut [u8],
    /// Bytes of `buf` in use.
    used: usize,
    /// Start of each segment's data in `buf`, and its length.
    pieces: [(usize, usize); MAX_SEGMENTS],
    count: usize,
    /// Something did not fit.
    cut: bool,
}

impl<'a> SegmentWriter<'a> {
    pub(crate) fn new(ram: &'a Ram, space: AddressSpace, buf: &'a mut [u8]) -> Self {
        Self { ram, space, buf, used: 0, pieces: [(0, 0); MAX_SEGMENTS], count: 0, cut: false }
    }

    /// Bytes written and whether something did not fit.
    pub(crate) const fn finish(self) -> (usize, bool) {
        (self.used, self.cut)
    }

    /// Copies up to `wanted` bytes at `gva` behind a segment header, page by page; stops early where `stop` finds its mark.
    fn segment(&mut self, gva: u64, requested: u64, stop: impl Fn(&[u8]) -> Option<usize>) -> Option<Piece> {
        let start = self.used + SEGMENT_HEADER_BYTES;
        let room = self.buf.len().saturating_sub(start) & !7;
        if self.count == MAX_SEGMENTS || room == 0 {
            self.cut = true;
            return None;
        }
        let wanted = requested.min(u64::from(MAX_SEGMENT_BYTES)).min(room as u64) as usize;
        let (len, readable) = self.copy(gva, start, wanted, stop);
        self.cut |= readable && (wanted as u64) < requested && len == wanted;
        self.write_header(gva, requested, len, readable);
        let padded = len.next_multiple_of(8);
        self.buf.get_mut(start + len..start + padded)?.fill(0);
        self.used = start + padded;
        *self.pieces.get_mut(self.count)? = (start, len);
        self.count += 1;
        Some(Piece(self.count - 1))
    }

    fn write_header(&mut self, gva: u64, requested: u64, len: usize, readable: bool) {
        let requested = u32::try_from(requested).unwrap_or(u32::MAX);
        let captured = len as u32 | if readable { 0 } else { UNREADABLE };
        let words = [gva, u64::from(requested) | (u64::from(captured) << 32)];
        let header = self.buf.get_mut(self.used..self.used + SEGMENT_HEADER_BYTES);
        for (slot, word) in header.into_iter().flat_map(|header| header.chunks_exact_mut(8)).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Bytes copied to `start`, and false if the guest's memory ended before `wanted`.
    fn copy(
        &mut self,
        gva: u64,
        start: usize,
        wanted: usize,
        stop: impl Fn(&[u8]) -> Option<usize>,
    ) -> (usize, bool) {
        let mut done = 0;
        while done < wanted {
            let at = Gva(gva).offset(done as u64);
            let end = wanted.min(done + (PAGE_SIZE - at.page_offset()) as usize);
            let Some(into) = self.buf.get_mut(start + done..start + end) else { return (done, true) };
            let copied = self.space.translate(self.ram, at).and_then(|gpa| self.ram.read(gpa, into));
            if copied.is_err() {
                return (done, false);
            }
            if let Some(mark) = stop(into) {
                return (done + mark, true);
            }
            done = end;
        }
        (done, true)
    }
}

impl Reader for SegmentWriter<'_> {
    fn capture(&mut self, gva: u64, len: u64) -> Option<Piece> {
        self.segment(gva, len, |_| None)
    }

    fn capture_text(&mut self, gva: u64, max: u32) -> Option<Piece> {
        let after_nul = |bytes: &[u8]| bytes.iter().position(|byte| *byte == 0).map(|at| at + 1);
        self.segment(gva, u64::from(max), after_nul)
    }

    fn integer(&self, piece: Piece, offset: u64, bytes: u32) -> Option<u64> {
        let (start, len) = *self.pieces.get(piece.0)?;
        let from = usize::try_from(offset).ok()?;
        let to = from.checked_add(bytes as usize).filter(|to| *to <= len)?;
        let mut word = [0; 8];
        word.get_mut(..bytes as usize)?.copy_from_slice(self.buf.get(start + from..start + to)?);
        Some(u64::from_le_bytes(word))
    }
}
