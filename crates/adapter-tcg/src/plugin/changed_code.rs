//! L1's code that is not what it was, seen as it is translated to be executed.
//!
//! When somebody writes to code, QEMU forgets what it has made of it. So changed code is translated before it is executed, even if
//! the change is undone a microsecond later; what is compared are the bytes that the translation is made from. Code that was
//! translated before the change costs nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_machine::{Gpa, Gva, PAGE_SIZE, PhysicalMemory as _};
use hypovisor_mapping::Ram;

use super::Plugin;
use super::foreign_code::OWN_PART;
use crate::sys::{Block, Instruction};
use crate::system::MAX_BYTES;

/// The most pages that are kept: no Xen has more code and constants.
const MAX_PAGES: usize = 8192;
/// As many bytes of an instruction are told.
const TOLD_BYTES: usize = 8;

type Page = [u8; PAGE_SIZE as usize];

/// Pages as they are to be, by where they begin.
#[derive(Debug, Default)]
pub(super) struct ChangedCode(Mutex<HashMap<Gpa, Box<Page>>>);

impl ChangedCode {
    fn pages(&self) -> MutexGuard<'_, HashMap<Gpa, Box<Page>>> {
        // Whole between any two statements, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps these pages as they are now.
    fn keep(&self, ram: &Ram, runs: &[(Gpa, u64)]) {
        let pages = runs
            .iter()
            .flat_map(|(start, len)| (0..len / PAGE_SIZE).map(move |index| start.offset(index * PAGE_SIZE)));
        let mut kept = self.pages();
        for page in pages {
            let mut bytes = Box::new([0; PAGE_SIZE as usize]);
            if kept.len() < MAX_PAGES && ram.read(page, &mut *bytes).is_ok() {
                kept.insert(page, bytes);
            }
        }
    }

    pub(super) fn forget(&self) {
        self.pages().clear();
    }
}

/// What is kept of these bytes, as far as it is: those from a page that is not are taken for unchanged.
fn kept_of(pages: &HashMap<Gpa, Box<Page>>, at: Gpa, bytes: &[u8]) -> Option<[u8; MAX_BYTES]> {
    let mut kept = [0; MAX_BYTES];
    kept.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let in_first = bytes.len().min((PAGE_SIZE - at.page_offset()) as usize);
    let (first, second) = kept[..bytes.len()].split_at_mut(in_first);
    let mut is_any = false;
    for (at, part) in [(at, first), (at.offset(in_first as u64), second)] {
        let page = if part.is_empty() { None } else { pages.get(&at.page()) };
        let from = page.and_then(|page| page.get(at.page_offset() as usize..)?.get(..part.len()));
        is_any |= from.map(|from| part.copy_from_slice(from)).is_some();
    }
    is_any.then_some(kept)
}

/// The first bytes of an instruction as a number, the first byte lowest.
pub(super) fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; TOLD_BYTES];
    let len = bytes.len().min(TOLD_BYTES);
    word[..len].copy_from_slice(&bytes[..len]);
    u64::from_le_bytes(word)
}

impl Plugin {
    /// From now on, tells of these pages' code if it is executed otherwise than as it stands there now.
    pub(super) fn watch_code(&self, runs: &[(Gpa, u64)]) {
        if let Some(ram) = self.control.ram() {
            self.changed_code.keep(ram, runs);
        }
    }

    /// A block is about to be executed for the first time, or for the first time since somebody wrote to it.
    pub(super) fn look_at_code(&self, block: Block) {
        let Some(ram) = self.control.ram() else { return };
        let pages = self.changed_code.pages();
        if pages.is_empty() {
            return;
        }
        let changed = block.instructions().find_map(|instruction| changed(&pages, ram, instruction));
        let first = block.instructions().next().filter(|first| is_foreign(&pages, ram, *first));
        drop(pages);
        changed.into_iter().for_each(|change| self.control.l1_does(change));
        first.into_iter().for_each(|first| self.watch_foreign(block, first));
    }
}

/// Whether it is in L1's part of the address space, and in none of the pages that have its code.
fn is_foreign(pages: &HashMap<Gpa, Box<Page>>, ram: &Ram, instruction: Instruction) -> bool {
    let is_kept = |gpa: Gpa| pages.contains_key(&gpa.page());
    OWN_PART.contains(&instruction.address()) && !ram.gpa_at(instruction.host_address()).is_some_and(is_kept)
}

fn changed(pages: &HashMap<Gpa, Box<Page>>, ram: &Ram, instruction: Instruction) -> Option<SystemChange> {
    let at = ram.gpa_at(instruction.host_address())?;
    let mut bytes = [0; MAX_BYTES];
    let bytes = instruction.bytes(&mut bytes);
    let kept = kept_of(pages, at, bytes)?;
    let kept = &kept[..bytes.len()];
    (kept != bytes).then(|| SystemChange {
        register: SystemRegister::Code,
        before: word(kept),
        now: word(bytes),
        rip: Gva(instruction.address()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> HashMap<Gpa, Box<Page>> {
        let mut page = Box::new([0x90; PAGE_SIZE as usize]);
        page[PAGE_SIZE as usize - 1] = 0xe9;
        HashMap::from([(Gpa(0x5000), page)])
    }

    #[test]
    fn what_is_kept_is_compared_byte_by_byte() {
        let pages = pages();
        let kept =
            |at, bytes: &[u8]| kept_of(&pages, Gpa(at), bytes).map(|kept| kept[..bytes.len()].to_vec());
        assert_eq!(kept(0x5010, &[0xcc, 0x90]), Some(vec![0x90, 0x90]));
        assert_eq!(kept(0x5fff, &[0xe8, 1, 2]), Some(vec![0xe9, 1, 2]), "the next page is not watched");
        assert_eq!(kept(0x6000, &[0xcc]), None);
        assert_eq!(kept(0x5000, &[0; MAX_BYTES + 1]), None);
    }

    #[test]
    fn eight_bytes_are_told() {
        assert_eq!(word(&[0xcc]), 0xcc);
        assert_eq!(word(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), 0x0807_0605_0403_0201);
    }
}
