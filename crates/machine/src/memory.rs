//! Reading L1's memory, and how its physical address space maps onto the backing RAM.

use crate::{Gpa, Gva, PAGE_SIZE, paging};

/// Why memory could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// No RAM stands behind a guest-physical address (a device, or a hole).
    #[error("no RAM at guest-physical {0:#x}")]
    NoRam(Gpa),
    /// A virtual address is not mapped by the page tables in force.
    #[error("virtual address {0:#x} is not mapped")]
    NotMapped(Gva),
}

/// Reads L1's guest-physical memory.
pub trait PhysicalMemory {
    /// Fills `buf` from `gpa` on.
    ///
    /// # Errors
    /// [`MemoryError::NoRam`] when any byte of the range has no RAM behind it; `buf` may then be partly filled.
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError>;

    /// Reads a little-endian 64-bit word.
    ///
    /// # Errors
    /// As [`PhysicalMemory::read`].
    fn read_u64(&self, gpa: Gpa) -> Result<u64, MemoryError> {
        let mut bytes = [0; 8];
        self.read(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl<M: PhysicalMemory + ?Sized> PhysicalMemory for &M {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        (**self).read(gpa, buf)
    }
}

/// Physical memory seen through the page tables that a CR3 names.
#[derive(Clone, Copy)]
pub struct VirtualMemory<M> {
    memory: M,
    cr3: u64,
}

impl<M: PhysicalMemory> VirtualMemory<M> {
    /// Looks at `memory` through the four-level page tables at `cr3`.
    pub const fn new(memory: M, cr3: u64) -> Self {
        Self { memory, cr3 }
    }

    /// Fills `buf` from virtual address `gva` on, page by page.
    ///
    /// # Errors
    /// The first page that is not mapped or has no RAM behind it.
    pub fn read(&self, gva: Gva, buf: &mut [u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < buf.len() {
            let at = gva.offset(done as u64);
            let in_page = (PAGE_SIZE - at.page_offset()) as usize;
            let end = (done + in_page).min(buf.len());
            let gpa = paging::translate(&self.memory, self.cr3, at)?;
            self.memory.read(gpa, &mut buf[done..end])?;
            done = end;
        }
        Ok(())
    }

    /// Reads a little-endian 64-bit word.
    ///
    /// # Errors
    /// As [`VirtualMemory::read`].
    pub fn read_u64(&self, gva: Gva) -> Result<u64, MemoryError> {
        let mut bytes = [0; 8];
        self.read(gva, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads a little-endian 32-bit word.
    ///
    /// # Errors
    /// As [`VirtualMemory::read`].
    pub fn read_u32(&self, gva: Gva) -> Result<u32, MemoryError> {
        let mut bytes = [0; 4];
        self.read(gva, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The guest-physical address behind `gva`.
    ///
    /// # Errors
    /// [`MemoryError::NotMapped`] or, for a broken table, [`MemoryError::NoRam`].
    pub fn translate(&self, gva: Gva) -> Result<Gpa, MemoryError> {
        paging::translate(&self.memory, self.cr3, gva)
    }
}

/// A run of guest-physical addresses backed by consecutive bytes of the RAM file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRange {
    /// First guest-physical address.
    pub gpa: Gpa,
    /// Length in bytes.
    pub len: u64,
    /// Where the first byte stands in the RAM backend (a file offset).
    pub file_offset: u64,
}

/// The most ranges a [`RamLayout`] can hold. A PC has a handful: below and above the PCI hole, and the pieces
/// around the legacy VGA and BIOS windows.
pub const MAX_RAM_RANGES: usize = 32;

/// Where each guest-physical address stands in the RAM backend.
///
/// A PC's RAM is not one run of addresses: with 4 GiB on the `pc` machine the last gigabyte sits at 4 GiB,
/// behind the PCI hole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RamLayout {
    ranges: [Option<RamRange>; MAX_RAM_RANGES],
}

impl RamLayout {
    /// Takes up to [`MAX_RAM_RANGES`] ranges; the rest is left out and reads there fail as holes do.
    pub fn new(ranges: impl IntoIterator<Item = RamRange>) -> Self {
        let mut layout = Self::default();
        for (slot, range) in layout.ranges.iter_mut().zip(ranges) {
            *slot = Some(range);
        }
        layout
    }

    /// The ranges in the order they were given.
    pub fn ranges(&self) -> impl Iterator<Item = RamRange> + '_ {
        self.ranges.iter().map_while(|range| *range)
    }

    /// The backend offset of `gpa`, and how many bytes from there on are consecutive.
    #[must_use]
    pub fn locate(&self, gpa: Gpa) -> Option<(u64, u64)> {
        self.ranges().find_map(|range| {
            let within = gpa.0.checked_sub(range.gpa.0)?;
            let left = range.len.checked_sub(within).filter(|left| *left > 0)?;
            Some((range.file_offset + within, left))
        })
    }

    /// What stands at an offset of the backend, if that is RAM.
    #[must_use]
    pub fn gpa_of(&self, offset: u64) -> Option<Gpa> {
        self.ranges().find_map(|range| {
            let within = offset.checked_sub(range.file_offset).filter(|within| *within < range.len)?;
            Some(range.gpa.offset(within))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_finds_both_sides_of_the_pci_hole() {
        let gib = 1 << 30;
        let layout = RamLayout::new([
            RamRange { gpa: Gpa(0), len: 3 * gib, file_offset: 0 },
            RamRange { gpa: Gpa(4 * gib), len: gib, file_offset: 3 * gib },
        ]);
        assert_eq!(layout.locate(Gpa(0x1000)), Some((0x1000, 3 * gib - 0x1000)));
        assert_eq!(layout.locate(Gpa(3 * gib)), None);
        assert_eq!(layout.locate(Gpa(4 * gib + 5)), Some((3 * gib + 5, gib - 5)));
        assert_eq!(layout.locate(Gpa(5 * gib)), None);
        assert_eq!(layout.gpa_of(3 * gib + 7), Some(Gpa(4 * gib + 7)));
        assert_eq!(layout.gpa_of(0x1000), Some(Gpa(0x1000)));
        assert_eq!(layout.gpa_of(4 * gib), None);
    }
}
