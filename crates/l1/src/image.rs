//! Xen's image as bytes with addresses, read from a running L1.
//!
//! At the first instructions that Xen executes in its high half (`__high_start`) the boot page tables map the
//! image with 2 MiB pages, which reach beyond its end; later it is mapped with exact permissions and the init
//! sections are gone. Both look the same here: the mapped pages around an instruction pointer, holes as zeros.
//!
//! Xen moves its image to the top of low memory early in `__start_xen`, at unchanged virtual addresses: physical
//! addresses taken before that ([`Image::runs`]) do not hold afterwards.

use hypovisor_machine::{Gpa, Gva, PAGE_SIZE, PhysicalMemory, VirtualMemory};

/// The most that is taken for one image; Xen has been below 8 MiB for all of its life.
pub const MAX_IMAGE_BYTES: u64 = 32 << 20;

/// A hole of this size ends the image; smaller ones are freed init sections and guard pages.
const MAX_HOLE_BYTES: u64 = 2 << 20;

/// The region that Xen reserves for its image is aligned to this (`XEN_VIRT_START`, a level-2 table's reach).
const REGION_BYTES: u64 = 1 << 30;

/// Why no image could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The instruction pointer is not in the upper half, where hypervisors and kernels live.
    #[error("{0:#x} is not in the upper half of the address space")]
    NotHighHalf(Gva),
    /// The instruction pointer itself is not mapped.
    #[error("{0:#x} is not mapped")]
    NotMapped(Gva),
}

/// A run of pages that are consecutive both virtually and physically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// First virtual address.
    pub gva: Gva,
    /// The guest-physical address behind it.
    pub gpa: Gpa,
    /// Length in bytes.
    pub len: u64,
}

/// Bytes of an L1 image at their virtual addresses.
#[derive(Clone, Debug)]
pub struct Image {
    base: Gva,
    bytes: Vec<u8>,
    runs: Vec<PageRun>,
}

impl Image {
    pub(crate) const fn new(base: Gva, bytes: Vec<u8>, runs: Vec<PageRun>) -> Self {
        Self { base, bytes, runs }
    }

    /// Collects what is mapped around `rip`, at most [`MAX_IMAGE_BYTES`].
    ///
    /// # Errors
    /// When `rip` is not a mapped address of the upper half.
    pub fn from_memory<M: PhysicalMemory>(memory: &VirtualMemory<M>, rip: Gva) -> Result<Self, ImageError> {
        if !rip.is_canonical() || rip.0 >> 63 == 0 {
            return Err(ImageError::NotHighHalf(rip));
        }
        memory.translate(rip).map_err(|_| ImageError::NotMapped(rip))?;
        let (first, end) = mapped_extent(memory, rip.page());
        let mut image = Self::new(first, vec![0; (end - first.0) as usize], Vec::new());
        image.fill(memory);
        Ok(image)
    }

    fn fill<M: PhysicalMemory>(&mut self, memory: &VirtualMemory<M>) {
        for (index, page) in self.bytes.chunks_mut(PAGE_SIZE as usize).enumerate() {
            let gva = self.base.offset(index as u64 * PAGE_SIZE);
            let Ok(gpa) = memory.translate(gva) else { continue };
            // A page without RAM (a device mapped behind a wide boot page) reads as a hole.
            if memory.read(gva, page).is_err() {
                page.fill(0);
                continue;
            }
            extend_runs(&mut self.runs, gva, gpa);
        }
    }

    /// The virtual address of the first byte.
    #[must_use]
    pub const fn base(&self) -> Gva {
        self.base
    }

    /// All bytes from the base on; holes are zero.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The 1 GiB region of the address space that the image lies in.
    #[must_use]
    pub const fn region(&self) -> Gva {
        Gva(self.base.0 & !(REGION_BYTES - 1))
    }

    /// Whether an address lies in the image.
    #[must_use]
    pub fn contains(&self, gva: Gva) -> bool {
        gva.0.wrapping_sub(self.base.0) < self.bytes.len() as u64
    }

    /// The bytes from `gva` to the image's end.
    #[must_use]
    pub fn from(&self, gva: Gva) -> Option<&[u8]> {
        let offset = usize::try_from(gva.0.checked_sub(self.base.0)?).ok()?;
        self.bytes.get(offset..)
    }

    /// The bytes of `start..end`, cut at the image's end; empty when `start` lies outside.
    #[must_use]
    pub fn slice(&self, start: Gva, end: Gva) -> &[u8] {
        let rest = self.from(start).unwrap_or_default();
        let len = end.0.saturating_sub(start.0).min(rest.len() as u64) as usize;
        &rest[..len]
    }

    /// Where the image stands in guest-physical memory, by ascending virtual address.
    ///
    /// For an image from a file: the physical addresses it was linked for.
    #[must_use]
    pub fn runs(&self) -> &[PageRun] {
        &self.runs
    }

    /// The guest-physical address behind a virtual one of the image.
    #[must_use]
    pub fn physical(&self, gva: Gva) -> Option<Gpa> {
        let end = self.runs.partition_point(|run| run.gva <= gva);
        let run = self.runs.get(end.checked_sub(1)?)?;
        let within = gva.0 - run.gva.0;
        (within < run.len).then(|| run.gpa.offset(within))
    }

    /// The addresses of all aligned 8-byte words with this value: pointers to something.
    pub fn words_equal(&self, value: u64) -> impl Iterator<Item = Gva> + '_ {
        let wanted = value.to_le_bytes();
        let words = self.bytes.chunks_exact(8).enumerate().filter(move |(_, word)| *word == wanted);
        words.map(|(index, _)| self.base.offset(index as u64 * 8))
    }
}

/// First mapped page and end of the mapped pages around `page`, inside its region.
fn mapped_extent<M: PhysicalMemory>(memory: &VirtualMemory<M>, page: Gva) -> (Gva, u64) {
    let region = page.0 & !(REGION_BYTES - 1);
    let lowest = region.max(page.0.saturating_sub(MAX_IMAGE_BYTES / 2));
    let first = last_reached(memory, page, |at| at.0.checked_sub(PAGE_SIZE).filter(|at| *at >= lowest));
    let highest = (first.0 - region + MAX_IMAGE_BYTES).min(REGION_BYTES) - PAGE_SIZE;
    let last = last_reached(memory, page, |at| (at.0 - region < highest).then(|| at.0 + PAGE_SIZE));
    // Inclusive up to here: one past the last page of the address space is 2^64.
    (first, last.0.saturating_add(PAGE_SIZE))
}

/// Steps from page to page until the bound or a hole of [`MAX_HOLE_BYTES`]; the last mapped page met.
fn last_reached<M: PhysicalMemory>(
    memory: &VirtualMemory<M>,
    start: Gva,
    step: impl Fn(Gva) -> Option<u64>,
) -> Gva {
    let (mut at, mut reached) = (start, start);
    while let Some(next) = step(at) {
        at = Gva(next);
        if memory.translate(at).is_ok() {
            reached = at;
        } else if at.0.abs_diff(reached.0) >= MAX_HOLE_BYTES {
            break;
        }
    }
    reached
}

fn extend_runs(runs: &mut Vec<PageRun>, gva: Gva, gpa: Gpa) {
    if let Some(last) = runs.last_mut()
        && last.gva.offset(last.len) == gva
        && last.gpa.offset(last.len) == gpa
    {
        last.len += PAGE_SIZE;
        return;
    }
    runs.push(PageRun { gva, gpa, len: PAGE_SIZE });
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypovisor_machine::MemoryError;

    /// Flat RAM that starts at guest-physical 0.
    struct Ram(Vec<u8>);

    impl PhysicalMemory for Ram {
        fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
            let start = usize::try_from(gpa.0).map_err(|_| MemoryError::NoRam(gpa))?;
            let bytes = self.0.get(start..start + buf.len()).ok_or(MemoryError::NoRam(gpa))?;
            buf.copy_from_slice(bytes);
            Ok(())
        }
    }

    const REGION: u64 = 0xffff_8a00_8000_0000;

    /// Tables at 0x1000..0x4000; level-2 slot `n` of the region holds `large_pages[n]`.
    fn machine(large_pages: &[(u64, u64)]) -> Ram {
        let mut ram = vec![0; 8 << 20];
        let mut put =
            |at: u64, value: u64| ram[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        put(0x1000 + 8 * ((REGION >> 39) & 0x1ff), 0x2003);
        put(0x2000 + 8 * ((REGION >> 30) & 0x1ff), 0x3003);
        for (slot, gpa) in large_pages {
            put(0x3000 + 8 * slot, gpa | 0x83);
        }
        ram[4 << 20] = 0x5a;
        Ram(ram)
    }

    #[test]
    fn the_mapped_pages_around_rip_are_the_image() {
        let ram = machine(&[(1, 4 << 20), (2, 6 << 20)]);
        let memory = VirtualMemory::new(&ram, 0x1000);
        let image = Image::from_memory(&memory, Gva(REGION + (3 << 20))).unwrap();
        assert_eq!(image.base(), Gva(REGION + (2 << 20)));
        assert_eq!((image.bytes().len(), image.bytes()[0]), (4 << 20, 0x5a));
        assert_eq!(image.physical(Gva(REGION + (2 << 20) + 5)), Some(Gpa((4 << 20) + 5)));
        assert_eq!(image.physical(Gva(REGION + (6 << 20))), None);
        assert_eq!(image.runs().len(), 1);
        assert_eq!(image.region(), Gva(REGION));
    }

    #[test]
    fn what_is_not_mapped_or_low_is_refused() {
        let ram = machine(&[(1, 4 << 20)]);
        let memory = VirtualMemory::new(&ram, 0x1000);
        assert_eq!(
            Image::from_memory(&memory, Gva(0x1000)).unwrap_err(),
            ImageError::NotHighHalf(Gva(0x1000))
        );
        let hole = Gva(REGION);
        assert_eq!(Image::from_memory(&memory, hole).unwrap_err(), ImageError::NotMapped(hole));
    }

    #[test]
    fn everything_mapped_still_ends_at_the_bound() {
        let all: Vec<(u64, u64)> = (0..512).map(|slot| (slot, 4 << 20)).collect();
        let ram = machine(&all);
        let memory = VirtualMemory::new(&ram, 0x1000);
        let image = Image::from_memory(&memory, Gva(REGION + (512 << 20))).unwrap();
        assert!(image.bytes().len() as u64 <= MAX_IMAGE_BYTES);
        assert!(image.contains(Gva(REGION + (512 << 20))));
    }
}
