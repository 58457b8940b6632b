//! Four-level x86-64 page walks (AMD APM vol. 2, §5.3).

use crate::{Gpa, Gva, MemoryError, PhysicalMemory};

/// Bit 0 of every entry.
pub(crate) const PRESENT: u64 = 1;
/// Bit 7 of a level-3 or level-2 entry: it maps a 1 GiB or 2 MiB page itself.
pub(crate) const PAGE_SIZE_BIT: u64 = 1 << 7;
/// Bits 51..12: the physical address of the next table or page.
pub(crate) const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// One translation step: where a table's entry leads.
enum Entry {
    Table(Gpa),
    Page { base: Gpa, size: u64 },
}

/// Translates `gva` through the tables at `cr3`; the low 12 bits of `cr3` (PCID and cache bits) are ignored.
///
/// Permissions are not checked: the caller wants to know what is there, not whether an access would be allowed.
///
/// # Errors
/// [`MemoryError::NotMapped`] if an entry is not present or the address is not canonical,
/// [`MemoryError::NoRam`] if a table itself lies outside RAM.
pub fn translate(memory: &impl PhysicalMemory, cr3: u64, gva: Gva) -> Result<Gpa, MemoryError> {
    if !gva.is_canonical() {
        return Err(MemoryError::NotMapped(gva));
    }
    walk(gva, Gpa(cr3 & ADDRESS_MASK), |gpa| memory.read_u64(gpa))
}

/// The walk itself, over any way to read an 8-byte entry; [`crate::nested`] reads through a second set of tables.
pub(crate) fn walk(
    gva: Gva,
    root: Gpa,
    mut read_entry: impl FnMut(Gpa) -> Result<u64, MemoryError>,
) -> Result<Gpa, MemoryError> {
    let mut table = root;
    for level in (1..=4u32).rev() {
        let shift = 12 + 9 * (level - 1);
        let index = (gva.0 >> shift) & 0x1ff;
        let entry = read_entry(table.offset(index * 8))?;
        match classify(entry, level).ok_or(MemoryError::NotMapped(gva))? {
            Entry::Table(next) => table = next,
            Entry::Page { base, size } => return Ok(Gpa(base.0 + (gva.0 & (size - 1)))),
        }
    }
    Err(MemoryError::NotMapped(gva))
}

fn classify(entry: u64, level: u32) -> Option<Entry> {
    if entry & PRESENT == 0 {
        return None;
    }
    let address = entry & ADDRESS_MASK;
    let is_page = level == 1 || (level <= 3 && entry & PAGE_SIZE_BIT != 0);
    if !is_page {
        return Some(Entry::Table(Gpa(address)));
    }
    let size = 1u64 << (12 + 9 * (level - 1));
    Some(Entry::Page { base: Gpa(address & !(size - 1)), size })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries at their physical addresses; everything else is a hole.
    struct Sparse(Vec<(u64, u64)>);

    impl PhysicalMemory for Sparse {
        fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
            let found = self.0.iter().find(|(at, _)| *at == gpa.0);
            let (_, value) = found.ok_or(MemoryError::NoRam(gpa))?;
            buf.copy_from_slice(&value.to_le_bytes());
            Ok(())
        }
    }

    fn tables() -> Sparse {
        Sparse(vec![
            (0x1000 + 8 * 261, 0x2000 | 7),
            (0x2000, 0x3000 | 7),
            (0x2008, 0x4000_0000 | 0x87),
            (0x3000, 0x4000 | 7),
            (0x3008, 0x20_0000 | 0x87),
            (0x3010, 0),
            (0x4000, 0x8000_0000_0000_5000 | 7),
        ])
    }

    const BASE: u64 = 0xffff_8280_0000_0000;

    #[test]
    fn every_page_size_translates() {
        let memory = tables();
        assert_eq!(translate(&memory, 0x1003, Gva(BASE + 0x123)), Ok(Gpa(0x5123)));
        assert_eq!(translate(&memory, 0x1000, Gva(BASE + 0x20_0456)), Ok(Gpa(0x20_0456)));
        assert_eq!(translate(&memory, 0x1000, Gva(BASE + 0x4000_0789)), Ok(Gpa(0x4000_0789)));
    }

    #[test]
    fn what_is_not_mapped_says_so() {
        let memory = tables();
        let hole = Gva(BASE + 0x40_0000);
        assert_eq!(translate(&memory, 0x1000, hole), Err(MemoryError::NotMapped(hole)));
        let odd = Gva(0x8000_0000_0000);
        assert_eq!(translate(&memory, 0x1000, odd), Err(MemoryError::NotMapped(odd)));
        assert!(matches!(translate(&memory, 0x9000, Gva(BASE)), Err(MemoryError::NoRam(_))));
    }
}
