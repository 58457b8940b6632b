//! Looking for Xen's page tables in an image that does not tell CR3.
//!
//! Of a top-level table of x86-64 (an "L4") Xen keeps slots 256 to 271 to itself, in every address space: that of its
//! idle processors, of each PV guest's processes, and of HVM guests' monitor tables (Xen 4.20
//! `arch/x86/include/asm/config.h`, "Memory layout", and `init_xen_l4_slots`):
//!
//! ```text
//!   258  the linear page table: the L4 itself           261  Xen's text and data, among others
//!   260  what belongs to the domain                     262  the direct map, or the array of page frames
//! ```
//!
//! Slot 256, the machine-to-phys table for guests, is not asked for: 18 of the 51 L4s in a dump of Xen 4.20 with PV
//! guests have none. A page that looks right may have been freed, or be a guest's forgery: the caller has to look
//! through it. What slot 260 maps differs between candidates; the rest of Xen's half is the same through all of them.

use hypovisor_machine::{Gpa, PAGE_SIZE, PhysicalMemory};

use crate::MemoryImage;

/// How much is read at a time.
const CHUNK_BYTES: u64 = 1 << 20;

const PRESENT: u64 = 1;
/// Guests may use what the entry leads to.
const USER: u64 = 1 << 2;
/// Must be zero in an L4's entries (AMD APM vol. 2, §5.3.3).
const PAGE_SIZE_BIT: u64 = 1 << 7;
/// Bits 51..12: where an entry leads.
const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// Slot of the linear page table.
const LINEAR_PT: usize = 258;
/// Slots that lead to Xen's own tables, too.
const XEN_ONLY: [usize; 2] = [261, 262];

/// The first CR3 in `image` that `is_xen` agrees with.
///
/// For images without [registers](MemoryImage::cpus). Reads the whole file if none is found, in pieces of bounded size.
pub fn find_page_tables(image: &MemoryImage, mut is_xen: impl FnMut(u64) -> bool) -> Option<u64> {
    PageTables::new(image).find(|cr3| is_xen(*cr3))
}

/// Values of CR3 that may be Xen's, by ascending address, found while they are asked for.
///
/// A table has to lie in one range of the image, in a part that the file has. Where the disk fails up to
/// a megabyte is passed over.
pub struct PageTables<'a> {
    image: &'a MemoryImage,
    /// The segment that is searched, and the address that is read next.
    segment: usize,
    next: u64,
    /// Pages that were read, the address of the first, and how many were looked at.
    chunk: Vec<u8>,
    chunk_gpa: Gpa,
    looked_at: usize,
}

impl<'a> PageTables<'a> {
    /// Begins at the image's lowest address; nothing is read yet.
    #[must_use]
    pub const fn new(image: &'a MemoryImage) -> Self {
        Self { image, segment: 0, next: 0, chunk: Vec::new(), chunk_gpa: Gpa(0), looked_at: 0 }
    }

    /// Reads the next pages; false at the end of the image.
    fn read_chunk(&mut self) -> bool {
        while let Some((gpa, held)) = self.image.segments().held(self.segment) {
            let start = gpa.0.next_multiple_of(PAGE_SIZE).max(self.next);
            let left = gpa.offset(held).page().0.saturating_sub(start);
            if left == 0 {
                self.segment += 1;
                continue;
            }
            let bytes = left.min(CHUNK_BYTES);
            self.next = start + bytes;
            self.chunk.resize(bytes as usize, 0);
            (self.chunk_gpa, self.looked_at) = (Gpa(start), 0);
            if self.image.read(self.chunk_gpa, &mut self.chunk).is_ok() {
                return true;
            }
        }
        self.chunk.clear();
        false
    }

    /// The next candidate among the pages that were read.
    fn in_chunk(&mut self) -> Option<u64> {
        for page in self.chunk.chunks_exact(PAGE_SIZE as usize).skip(self.looked_at) {
            let gpa = self.chunk_gpa.offset(self.looked_at as u64 * PAGE_SIZE);
            self.looked_at += 1;
            if is_candidate(gpa, page) {
                return Some(gpa.0);
            }
        }
        None
    }
}

impl Iterator for PageTables<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            if let Some(cr3) = self.in_chunk() {
                return Some(cr3);
            }
            if !self.read_chunk() {
                return None;
            }
        }
    }
}

/// Whether the page at `gpa` looks like an L4 of Xen's.
fn is_candidate(gpa: Gpa, page: &[u8]) -> bool {
    let leads_to = |slot: usize| {
        let entry = entry(page, slot)?;
        (entry & (PRESENT | USER | PAGE_SIZE_BIT) == PRESENT).then_some(Gpa(entry & ADDRESS_MASK))
    };
    leads_to(LINEAR_PT) == Some(gpa)
        && XEN_ONLY.iter().all(|slot| leads_to(*slot).is_some_and(|to| to != gpa))
}

fn entry(page: &[u8], slot: usize) -> Option<u64> {
    let bytes = page.get(slot * 8..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}
