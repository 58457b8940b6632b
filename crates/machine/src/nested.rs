//! Two-dimensional walks: a virtual address of an HVM or PVH guest (L2), through its own page tables and then
//! through the nested page tables that L1 keeps for it (AMD APM vol. 2, §15.25).

use crate::{Gpa, Gva, MemoryError, PAGE_SIZE, PhysicalMemory, paging};

/// Control bits of an L2 vCPU that decide how its virtual addresses translate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestPaging {
    /// L2's CR0; bit 31 (PG) turns paging on.
    pub cr0: u64,
    /// L2's CR3, an L2 guest-physical address.
    pub cr3: u64,
    /// L2's CR4; bit 5 (PAE) selects 8-byte entries.
    pub cr4: u64,
    /// L2's EFER; bit 10 (LMA) selects four levels.
    pub efer: u64,
    /// Root of L1's nested page tables, an L1 guest-physical address (the VMCB's nCR3).
    pub nested_cr3: u64,
}

const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LMA: u64 = 1 << 10;

/// Translates `gva`, a virtual address of L2, to L1 guest-physical memory.
///
/// # Errors
/// [`MemoryError::NotMapped`] if either set of tables has no entry, [`MemoryError::NoRam`] if a table lies
/// outside RAM.
pub fn translate(memory: &impl PhysicalMemory, paging: &GuestPaging, gva: Gva) -> Result<Gpa, MemoryError> {
    let l2_physical = l2_translate(memory, paging, gva)?;
    l2_to_l1(memory, paging, l2_physical)
}

/// One step through the nested tables. L2's physical address plays the part of the virtual one.
fn l2_to_l1(memory: &impl PhysicalMemory, paging: &GuestPaging, l2_gpa: u64) -> Result<Gpa, MemoryError> {
    paging::translate(memory, paging.nested_cr3, Gva(l2_gpa))
}

fn l2_translate(memory: &impl PhysicalMemory, paging: &GuestPaging, gva: Gva) -> Result<u64, MemoryError> {
    if paging.cr0 & CR0_PG == 0 {
        return Ok(gva.0 & 0xffff_ffff);
    }
    let read_entry = |at: Gpa| memory.read_u64(l2_to_l1(memory, paging, at.0)?);
    if paging.efer & EFER_LMA != 0 {
        if !gva.is_canonical() {
            return Err(MemoryError::NotMapped(gva));
        }
        let root = Gpa(paging.cr3 & 0x000f_ffff_ffff_f000);
        return paging::walk(gva, root, read_entry).map(|gpa| gpa.0);
    }
    let gva = Gva(gva.0 & 0xffff_ffff);
    if paging.cr4 & CR4_PAE != 0 { walk_pae(memory, paging, gva) } else { walk_32_bit(memory, paging, gva) }
}

/// Three-level PAE tables (AMD APM vol. 2, §5.2.3): four level-3 entries, then two levels of 512.
fn walk_pae(memory: &impl PhysicalMemory, paging: &GuestPaging, gva: Gva) -> Result<u64, MemoryError> {
    let read = |at: u64| memory.read_u64(l2_to_l1(memory, paging, at)?);
    let present = |entry: u64| (entry & 1 != 0).then_some(entry).ok_or(MemoryError::NotMapped(gva));
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    let level3 = present(read((paging.cr3 & 0xffff_ffe0) + (gva.0 >> 30) * 8)?)?;
    let level2 = present(read((level3 & ADDRESS) + ((gva.0 >> 21) & 0x1ff) * 8)?)?;
    if level2 & 0x80 != 0 {
        return Ok((level2 & ADDRESS & !0x1f_ffff) + (gva.0 & 0x1f_ffff));
    }
    let level1 = present(read((level2 & ADDRESS) + ((gva.0 >> 12) & 0x1ff) * 8)?)?;
    Ok((level1 & ADDRESS) + gva.page_offset())
}

/// Two-level tables with 4-byte entries (AMD APM vol. 2, §5.2.2).
fn walk_32_bit(memory: &impl PhysicalMemory, paging: &GuestPaging, gva: Gva) -> Result<u64, MemoryError> {
    let read = |at: u64| -> Result<u64, MemoryError> {
        let mut bytes = [0; 4];
        memory.read(l2_to_l1(memory, paging, at)?, &mut bytes)?;
        let entry = u64::from(u32::from_le_bytes(bytes));
        (entry & 1 != 0).then_some(entry).ok_or(MemoryError::NotMapped(gva))
    };
    let level2 = read((paging.cr3 & 0xffff_f000) + (gva.0 >> 22) * 4)?;
    if level2 & 0x80 != 0 {
        return Ok((level2 & 0xffc0_0000) + (gva.0 & 0x3f_ffff));
    }
    let level1 = read((level2 & 0xffff_f000) + ((gva.0 >> 12) & 0x3ff) * 4)?;
    Ok((level1 & 0xffff_f000) + gva.0 % PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One flat array of memory from address 0.
    struct Flat(Vec<u8>);

    impl PhysicalMemory for Flat {
        fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
            let from = gpa.0 as usize;
            let bytes = self.0.get(from..from + buf.len()).ok_or(MemoryError::NoRam(gpa))?;
            buf.copy_from_slice(bytes);
            Ok(())
        }
    }

    impl Flat {
        fn put(&mut self, at: usize, value: u64) {
            self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Nested tables at 0x1000.. that move every L2 address up by 2 MiB.
    fn shifted() -> Flat {
        let mut memory = Flat(vec![0; 0x60_0000]);
        memory.put(0x1000, 0x2007);
        memory.put(0x2000, 0x3007);
        memory.put(0x3000, 0x20_0087);
        memory.put(0x3008, 0x40_0087);
        memory
    }

    #[test]
    fn without_paging_only_the_nested_tables_count() {
        let paging = GuestPaging { nested_cr3: 0x1000, ..GuestPaging::default() };
        assert_eq!(translate(&shifted(), &paging, Gva(0x1234)), Ok(Gpa(0x20_1234)));
    }

    #[test]
    fn long_mode_goes_through_both_sets_of_tables() {
        let mut memory = shifted();
        memory.put(0x20_5000, 0x6007);
        memory.put(0x20_6000, 0x7007);
        memory.put(0x20_7000, 0x8007);
        memory.put(0x20_8000 + 8, 0x9007);
        let paging =
            GuestPaging { cr0: CR0_PG | 1, cr3: 0x5000, cr4: CR4_PAE, efer: EFER_LMA, nested_cr3: 0x1000 };
        assert_eq!(translate(&memory, &paging, Gva(0x1042)), Ok(Gpa(0x20_9042)));
        let hole = Gva(0x2000);
        assert_eq!(translate(&memory, &paging, hole), Err(MemoryError::NotMapped(hole)));
    }

    #[test]
    fn protected_mode_tables_of_both_kinds_translate() {
        let mut memory = shifted();
        memory.put(0x20_5000, 0x6001);
        memory.put(0x20_6000, 0x87);
        let pae = GuestPaging { cr0: CR0_PG, cr3: 0x5000, cr4: CR4_PAE, efer: 0, nested_cr3: 0x1000 };
        assert_eq!(translate(&memory, &pae, Gva(0x1_0042)), Ok(Gpa(0x21_0042)));

        memory.put(0x20_a000, 0xb007);
        memory.put(0x20_b000, 0xc007);
        let classic = GuestPaging { cr0: CR0_PG, cr3: 0xa000, cr4: 0, efer: 0, nested_cr3: 0x1000 };
        assert_eq!(translate(&memory, &classic, Gva(0x42)), Ok(Gpa(0x20_c042)));
    }
}
