//! What may never change while L1 runs, copied once, and compared as often as anybody likes.
//!
//! A comparison reads the same physical memory again, so that nobody who changes page tables can show it something else. What
//! L1 changed at boot is in the copy; it was compared with the file when the copy was made.

use hypovisor_machine::{Gpa, Gva, PAGE_SIZE, PhysicalMemory};

use crate::finding::{Finding, Item};
use crate::livepatch::LivePatches;
use crate::mappings;
use crate::reference::Range;
use crate::target::Target;
use crate::{tasks, text};

/// A gate's byte that L1 changes as it goes from guest to guest: which stack an interrupt takes (AMD APM vol. 2, §8.9.3).
const GATE_STACK: usize = 4;
const GATE_BYTES: usize = 16;
const IDT_BYTES: usize = 4096;
/// From the start of the page that a processor's task segment is in to the end of the segment (`struct tss_page`, xen/arch/x86/include/asm/processor.h).
const TSS_BYTES: usize = 64 + 104;
/// The code of one processor's stubs that SYSCALL enters by; what follows is scratch space for emulation.
const STUB_BYTES: usize = 64;
/// The most findings of one look.
const MAX_FINDINGS: usize = 64;

/// Bytes that stand together in physical memory.
#[derive(Clone, Debug)]
struct Piece {
    item: Item,
    /// Whose it is, by L1's number, if it is one processor's.
    cpu: Option<u64>,
    gva: Gva,
    gpa: Gpa,
    bytes: Box<[u8]>,
}

impl Piece {
    /// Whether it is a page that L1 maps read-only.
    fn is_never_written(&self) -> bool {
        matches!(self.item, Item::Text | Item::Pointers | Item::Constants)
            && self.bytes.len() as u64 == PAGE_SIZE
    }

    /// Whether a byte is to be as it was.
    const fn counts(&self, at: usize) -> bool {
        !matches!(self.item, Item::Idt) || at % GATE_BYTES != GATE_STACK
    }
}

/// A copy of what may never change.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    pieces: Vec<Piece>,
}

impl Baseline {
    /// Copies code, constants, and of each processor the gates and the code that SYSCALL enters by.
    #[must_use]
    pub fn take<M: PhysicalMemory>(target: &Target<'_, M>) -> Self {
        let mut baseline = Self::default();
        let parts = target.reference.parts();
        baseline.add(target, Item::Text, None, parts.text);
        baseline.add(target, Item::Pointers, None, parts.set_at_boot);
        let constants = Range { start: parts.set_at_boot.end, end: parts.constants.end };
        baseline.add(target, Item::Constants, None, constants);
        for stub in mappings::stubs(target) {
            let tables = [
                (Item::Registers, Some(stub.at), STUB_BYTES),
                (Item::Idt, mappings::idt(target, stub.cpu), IDT_BYTES),
                (Item::Tss, tasks::page(target, stub.cpu), TSS_BYTES),
            ];
            for (item, at, len) in tables {
                let range = at.map(|at| Range { start: at, end: at.offset(len as u64) });
                range.into_iter().for_each(|range| baseline.add(target, item, Some(stub.cpu), range));
            }
        }
        baseline
    }

    fn add<M: PhysicalMemory>(&mut self, target: &Target<'_, M>, item: Item, cpu: Option<u64>, range: Range) {
        for (gva, bytes) in target.pages(range) {
            let gpa = target.memory().translate(gva);
            if let (Ok(gpa), Some(bytes)) = (gpa, bytes) {
                self.pieces.push(Piece { item, cpu, gva, gpa, bytes: bytes.into() });
            }
        }
    }

    /// How much is compared, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes.len() as u64).sum()
    }

    /// Runs of whole pages of code and constants, of which L1 writes to none: first address and bytes.
    #[must_use]
    pub fn never_written(&self) -> Vec<(Gpa, u64)> {
        let mut runs: Vec<(Gpa, u64)> = Vec::new();
        for page in self.pieces.iter().filter(|piece| piece.is_never_written()) {
            match runs.last_mut() {
                Some((start, len)) if start.0 + *len == page.gpa.0 => *len += PAGE_SIZE,
                _ => runs.push((page.gpa, PAGE_SIZE)),
            }
        }
        runs
    }

    /// What to think of a page of these that was written to, and holds what it held.
    #[must_use]
    pub fn put_back<M: PhysicalMemory>(&self, target: &Target<'_, M>, page: Gpa) -> Option<Finding> {
        let piece = self.pieces.iter().find(|piece| piece.is_never_written() && piece.gpa == page)?;
        let place = target.name(piece.gva);
        let message = format!("the page at {place} was written to, and holds again what it held");
        Some(Finding::tampering(piece.item, place, message).at(piece.gva, 0))
    }

    /// What has changed since.
    pub fn compare<M: PhysicalMemory>(&self, target: &Target<'_, M>, patches: &LivePatches) -> Vec<Finding> {
        let mut now = [0; PAGE_SIZE as usize];
        let mut findings = Vec::new();
        for piece in &self.pieces {
            let now = &mut now[..piece.bytes.len()];
            if target.physical.read(piece.gpa, now).is_err()
                || *now == *piece.bytes
                || !is_in_use(target, piece)
            {
                continue;
            }
            for run in changed_runs(piece, now) {
                if findings.len() < MAX_FINDINGS {
                    findings.push(text::changed_since(
                        target,
                        patches,
                        piece.item,
                        piece.gva,
                        &piece.bytes,
                        now,
                        run,
                    ));
                }
            }
        }
        findings
    }
}

/// A processor that L1 has taken offline leaves its tables behind, to be used for something else.
fn is_in_use<M: PhysicalMemory>(target: &Target<'_, M>, piece: &Piece) -> bool {
    let Some(cpu) = piece.cpu else { return true };
    let now = match piece.item {
        Item::Idt => mappings::idt(target, cpu),
        Item::Tss => tasks::page(target, cpu),
        _ => mappings::stub(target, cpu).map(|stub| stub.at),
    };
    mappings::is_online(target, cpu) && now == Some(piece.gva)
}

/// Which bytes of a piece have changed, as first and end.
fn changed_runs(piece: &Piece, now: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let changed = (0..now.len()).filter(|at| piece.counts(*at) && now[*at] != piece.bytes[*at]);
    for at in changed {
        match runs.last_mut() {
            Some((_, end)) if at - *end < text::GAP_BYTES as usize => *end = at + 1,
            _ => runs.push((at, at + 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_pages_are_never_written() {
        let piece = |item, gpa, len| Piece {
            item,
            cpu: None,
            gva: Gva(gpa),
            gpa: Gpa(gpa),
            bytes: vec![0; len].into(),
        };
        let pieces = vec![
            piece(Item::Text, 0x1000, 4096),
            piece(Item::Text, 0x2000, 4096),
            piece(Item::Constants, 0x3000, 100),
            piece(Item::Idt, 0x4000, 4096),
            piece(Item::Pointers, 0x5000, 4096),
        ];
        assert_eq!(Baseline { pieces }.never_written(), [(Gpa(0x1000), 0x2000), (Gpa(0x5000), 0x1000)]);
    }

    #[test]
    fn the_stack_of_a_gate_may_change() {
        let piece = |item| Piece { item, cpu: None, gva: Gva(0), gpa: Gpa(0), bytes: vec![0; 32].into() };
        let mut now = vec![0; 32];
        (now[4], now[20]) = (1, 2);
        assert!(changed_runs(&piece(Item::Idt), &now).is_empty());
        assert_eq!(changed_runs(&piece(Item::Text), &now), [(4, 5), (20, 21)]);
        now[0] = 1;
        assert_eq!(changed_runs(&piece(Item::Idt), &now), [(0, 1)]);
    }
}
