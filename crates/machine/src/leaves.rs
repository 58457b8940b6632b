//! What a set of page tables maps, and with which rights (AMD APM vol. 2, §5.3 and §5.6).
//!
//! The tables may be hostile: the walk is three loops inside each other, no deeper, and whoever calls bounds it.

use crate::paging::{ADDRESS_MASK, PAGE_SIZE_BIT, PRESENT};
use crate::{Gpa, Gva, PhysicalMemory};

const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 63;
const ENTRIES: usize = 512;

/// What one entry allows together with those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Writes are allowed.
    pub write: bool,
    /// Code may run there.
    pub execute: bool,
    /// Ring 3 has access too.
    pub user: bool,
}

impl Rights {
    const ALL: Self = Self { write: true, execute: true, user: true };

    const fn narrowed(self, entry: u64) -> Self {
        Self {
            write: self.write && entry & WRITABLE != 0,
            execute: self.execute && entry & NO_EXECUTE == 0,
            user: self.user && entry & USER != 0,
        }
    }
}

/// A page that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its virtual address.
    pub gva: Gva,
    /// Its physical address.
    pub gpa: Gpa,
    /// 4 KiB, 2 MiB or 1 GiB.
    pub bytes: u64,
    /// Of all levels together.
    pub rights: Rights,
}

/// The page tables stand in memory that cannot be read, or there are more of them than the caller wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeavesError {
    /// A table has no RAM.
    #[error("a page table at guest-physical {0:#x} has no RAM")]
    NoRam(Gpa),
    /// The limit was reached.
    #[error("more than {0} page tables")]
    TooMany(usize),
}

/// How many tables may still be read: hostile ones have no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableBudget {
    left: usize,
    max: usize,
}

impl TableBudget {
    /// So many.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { left: max, max }
    }
}

/// Calls `each` for every page that entry `slot` (0 to 511) of the top-level table at `cr3` maps, by ascending address. Takes the tables
/// that it reads from the budget.
///
/// # Errors
/// [`LeavesError`] for the first table that cannot be read, and when the budget is used up; what was seen until then has
/// been handed out.
pub fn for_each_leaf(
    memory: &impl PhysicalMemory,
    cr3: u64,
    slot: usize,
    budget: &mut TableBudget,
    each: &mut impl FnMut(Leaf),
) -> Result<(), LeavesError> {
    let mut tables = Tables { memory, budget };
    let top = top_level_entry(memory, cr3, slot)?;
    if top & PRESENT == 0 {
        return Ok(());
    }
    let base = canonical((slot as u64) << 39);
    let rights = Rights::ALL.narrowed(top);
    for (index, third) in tables.read(top)?.into_iter().enumerate() {
        let (at, rights) = (base + ((index as u64) << 30), rights.narrowed(third));
        let Some(second_level) = tables.enter(third, at, 1 << 30, rights, each)? else { continue };
        for (index, second) in second_level.into_iter().enumerate() {
            let (at, rights) = (at + ((index as u64) << 21), rights.narrowed(second));
            let Some(first_level) = tables.enter(second, at, 1 << 21, rights, each)? else { continue };
            for (index, first) in first_level.into_iter().enumerate() {
                let at = at + ((index as u64) << 12);
                leaf(first & !PAGE_SIZE_BIT, at, 1 << 12, rights.narrowed(first), each);
            }
        }
    }
    Ok(())
}

/// One entry of the top-level table.
///
/// # Errors
/// [`LeavesError::NoRam`] if the table cannot be read.
pub fn top_level_entry(memory: &impl PhysicalMemory, cr3: u64, slot: usize) -> Result<u64, LeavesError> {
    let top = Gpa(cr3 & ADDRESS_MASK);
    memory.read_u64(top.offset(8 * (slot % ENTRIES) as u64)).map_err(|_| LeavesError::NoRam(top))
}

const fn canonical(address: u64) -> u64 {
    if address >> 47 & 1 == 0 { address } else { address | 0xffff_0000_0000_0000 }
}

fn leaf(entry: u64, at: u64, bytes: u64, rights: Rights, each: &mut impl FnMut(Leaf)) {
    if entry & PRESENT != 0 {
        let gpa = Gpa(entry & ADDRESS_MASK & !(bytes - 1));
        each(Leaf { gva: Gva(at), gpa, bytes, rights });
    }
}

struct Tables<'a, M> {
    memory: &'a M,
    budget: &'a mut TableBudget,
}

impl<M: PhysicalMemory> Tables<'_, M> {
    /// The table below an entry; `None` if there is none because it is absent or maps a page itself.
    fn enter(
        &mut self,
        entry: u64,
        at: u64,
        bytes: u64,
        rights: Rights,
        each: &mut impl FnMut(Leaf),
    ) -> Result<Option<[u64; ENTRIES]>, LeavesError> {
        if entry & PRESENT == 0 {
            return Ok(None);
        }
        if entry & PAGE_SIZE_BIT != 0 {
            leaf(entry, at, bytes, rights, each);
            return Ok(None);
        }
        self.read(entry).map(Some)
    }

    fn read(&mut self, entry: u64) -> Result<[u64; ENTRIES], LeavesError> {
        let TableBudget { left, max } = *self.budget;
        self.budget.left = left.checked_sub(1).ok_or(LeavesError::TooMany(max))?;
        let at = Gpa(entry & ADDRESS_MASK);
        let mut bytes = [0; 8 * ENTRIES];
        self.memory.read(at, &mut bytes).map_err(|_| LeavesError::NoRam(at))?;
        let mut table = [0; ENTRIES];
        for (word, bytes) in table.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryError;

    /// Tables of which only some words are not zero.
    struct Sparse(Vec<(u64, u64)>);

    impl PhysicalMemory for Sparse {
        fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
            if gpa.0 >= 0x10_0000 {
                return Err(MemoryError::NoRam(gpa));
            }
            buf.fill(0);
            for (at, word) in &self.0 {
                if let Some(into) = at.checked_sub(gpa.0).filter(|into| into + 8 <= buf.len() as u64) {
                    buf[into as usize..into as usize + 8].copy_from_slice(&word.to_le_bytes());
                }
            }
            Ok(())
        }
    }

    fn leaves(memory: &Sparse, max: usize) -> (Vec<Leaf>, Result<(), LeavesError>) {
        let mut found = Vec::new();
        let end =
            for_each_leaf(memory, 0x1000, 261, &mut TableBudget::new(max), &mut |leaf| found.push(leaf));
        (found, end)
    }

    fn tables() -> Sparse {
        Sparse(vec![
            (0x1000 + 8 * 261, 0x2000 | 7),
            (0x2000, 0x3000 | 3),
            (0x2008, 0x4000_0000 | 0x83 | NO_EXECUTE),
            (0x3000, 0x4000 | 1),
            (0x4008, 0x9000 | 0x83),
        ])
    }

    #[test]
    fn rights_are_those_of_all_levels() {
        let (found, end) = leaves(&tables(), 10);
        assert_eq!(end, Ok(()));
        let base = 0xffff_8280_0000_0000;
        let text = Rights { write: false, execute: true, user: false };
        let data = Rights { write: true, execute: false, user: false };
        assert_eq!(found[0], Leaf { gva: Gva(base + 0x1000), gpa: Gpa(0x9000), bytes: 0x1000, rights: text });
        let second =
            Leaf { gva: Gva(base + 0x4000_0000), gpa: Gpa(0x4000_0000), bytes: 1 << 30, rights: data };
        assert_eq!((found[1], found.len()), (second, 2));
    }

    #[test]
    fn broken_and_endless_tables_end() {
        assert_eq!(leaves(&tables(), 2).1, Err(LeavesError::TooMany(2)));
        let mut outside = tables();
        outside.0.push((0x2010, 0x20_0000 | 3));
        assert_eq!(leaves(&outside, 10).1, Err(LeavesError::NoRam(Gpa(0x20_0000))));
        let circle = Sparse(vec![(0x1000 + 8 * 261, 0x1000 | 7)]);
        assert_eq!(leaves(&circle, 100).0.len(), 1, "a table that maps itself is one page of its own tables");
    }
}
