//! What may never change while L1 runs, copied once, and compared as often as anybody likes.
//!
//! A comparison reads the same physical memory again, so that nobody who changes page tables can show it something else. What
//! L1 changed at boot is in the copy; it was compared with the file when the copy was made.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

use hypovisor_machine::{Gpa, Gva, PAGE_SIZE, PhysicalMemory, VirtualMemory};

use crate::finding::{Finding, Item, Judgement};
use crate::livepatch::{LivePatches, MAX_FUNCTIONS};
use crate::mappings::{self, Stub};
use crate::reference::Range as Bytes;
use crate::target::Target;
use crate::{tasks, text};

/// A gate's byte that L1 changes as it goes from guest to guest: which stack an interrupt takes (AMD APM vol. 2, §8.9.3).
const GATE_STACK: usize = 4;
const GATE_BYTES: usize = 16;
const IDT_BYTES: usize = 4096;
/// From the start of the page that a processor's task segment is in to the end of the segment.
const TSS_BYTES: usize = tasks::OFFSET as usize + 104;
/// The code of one processor's stubs that SYSCALL enters by; what follows is scratch space for emulation.
const STUB_BYTES: usize = 64;
/// The most findings of one look, without those that live patches explain.
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

    /// Whether it is a page of which many processors have a part for their stubs.
    const fn is_shared_by_stubs(&self) -> bool {
        matches!(self.item, Item::Registers) && self.cpu.is_none()
    }

    /// Whether a byte is to be as it was. These are where stubs are, if it is a page of that kind.
    fn counts(&self, at: usize, stubs: &[Range<usize>]) -> bool {
        match self.item {
            Item::Idt => at % GATE_BYTES != GATE_STACK,
            _ => !stubs.iter().any(|stub| stub.contains(&at)),
        }
    }
}

/// A processor's stubs, and where they stand in memory: processors have them at addresses of their own, but in the same page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PlacedStub {
    stub: Stub,
    gpa: Gpa,
}

impl PlacedStub {
    fn new<M: PhysicalMemory>(target: &Target<'_, M>, stub: Stub) -> Option<Self> {
        Some(Self { stub, gpa: target.memory().translate(stub.at).ok()? })
    }

    /// Which bytes of their page they have.
    fn place(&self) -> Range<usize> {
        let start = self.gpa.page_offset() as usize;
        start..start + Stub::BYTES as usize
    }
}

/// What a look found.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// What has changed.
    pub findings: Vec<Finding>,
    /// The pages in which it did, each with a number for what it holds now.
    pub pages: Vec<(Gva, u64)>,
    explained: usize,
}

impl Changes {
    /// With what an earlier look found that is gone.
    #[must_use]
    pub fn with_those_of(mut self, earlier: Self) -> Self {
        let gone = earlier.findings.into_iter().filter(|finding| {
            self.findings.iter().all(|now| (now.address, &now.message) != (finding.address, &finding.message))
        });
        self.findings.extend(gone.collect::<Vec<_>>());
        self
    }

    /// Adds one; whether there is room for more. What live patches explain counts apart: an attacker can claim any number of those.
    fn add(&mut self, finding: Finding) -> bool {
        if matches!(finding.judgement, Judgement::LivePatch { .. }) {
            self.explained += 1;
            if self.explained > MAX_FUNCTIONS {
                let message = "more changes than all live patches together may have functions";
                self.findings.push(Finding::tampering(finding.item, finding.place, message));
                return false;
            }
        }
        self.findings.push(finding);
        self.findings.len() - self.explained < MAX_FINDINGS
    }
}

/// A copy of what may never change.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    pieces: Vec<Piece>,
    /// Those of processors that were online.
    stubs: Vec<PlacedStub>,
}

impl Baseline {
    /// Copies code, constants, and of each processor the gates and the code that SYSCALL enters by.
    #[must_use]
    pub fn take<M: PhysicalMemory>(target: &Target<'_, M>) -> Self {
        let mut baseline = Self::default();
        let parts = target.reference.parts();
        baseline.add(target, Item::Text, None, parts.text);
        baseline.add(target, Item::Pointers, None, parts.set_at_boot);
        let constants = Bytes { start: parts.set_at_boot.end, end: parts.constants.end };
        baseline.add(target, Item::Constants, None, constants);
        let stubs = mappings::stubs(target);
        baseline.stubs = stubs.iter().filter_map(|stub| PlacedStub::new(target, *stub)).collect();
        baseline.add_stub_pages(target);
        for stub in stubs {
            let tables = [
                (Item::Registers, Some(stub.at), STUB_BYTES),
                (Item::Idt, mappings::idt(target, stub.cpu), IDT_BYTES),
                (Item::Tss, tasks::page(target, stub.cpu), TSS_BYTES),
            ];
            for (item, at, len) in tables {
                let range = at.map(|at| Bytes { start: at, end: at.offset(len as u64) });
                range.into_iter().for_each(|range| baseline.add(target, item, Some(stub.cpu), range));
            }
        }
        baseline
    }

    /// The pages that stubs are in, which may be executed: what of them is nobody's is not to become somebody's.
    fn add_stub_pages<M: PhysicalMemory>(&mut self, target: &Target<'_, M>) {
        let mut pages: Vec<(Gpa, Gva)> =
            self.stubs.iter().map(|placed| (placed.gpa.page(), placed.stub.at.page())).collect();
        pages.sort_unstable_by_key(|(gpa, _)| gpa.0);
        pages.dedup_by_key(|(gpa, _)| *gpa);
        for (_, start) in pages {
            self.add(target, Item::Registers, None, Bytes { start, end: start.offset(PAGE_SIZE) });
        }
    }

    fn add<M: PhysicalMemory>(&mut self, target: &Target<'_, M>, item: Item, cpu: Option<u64>, range: Bytes) {
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

    /// Whether an address is in the part of the image's code that the sensor does not watch, a last page that is not all code, and leads to
    /// where that was. Code of the rest that the sensor tells of was in other memory, whatever L1's page tables show now.
    pub(crate) fn is_own_unwatched_code<M: PhysicalMemory>(&self, target: &Target<'_, M>, at: Gva) -> bool {
        let holds = |piece: &&Piece| {
            let offset = at.0.checked_sub(piece.gva.0);
            piece.item == Item::Text
                && !piece.is_never_written()
                && offset.is_some_and(|offset| offset < piece.bytes.len() as u64)
        };
        let piece = self.pieces.iter().find(holds);
        piece.is_some_and(|piece| target.memory().translate(piece.gva) == Ok(piece.gpa))
    }

    /// What has changed since.
    pub fn compare<M: PhysicalMemory>(&self, target: &Target<'_, M>, patches: &LivePatches) -> Changes {
        let mut now = [0; PAGE_SIZE as usize];
        let mut changes = Changes::default();
        for piece in &self.pieces {
            let now = &mut now[..piece.bytes.len()];
            if target.physical.read(piece.gpa, now).is_err()
                || *now == *piece.bytes
                || !is_in_use(target, piece)
            {
                continue;
            }
            let runs = changed_runs(piece, now, &self.stubs_in(target, piece));
            if runs.is_empty() {
                continue;
            }
            changes.pages.push((piece.gva.page(), content(&runs, now)));
            for run in runs {
                let (item, gva, before) = (piece.item, piece.gva, &piece.bytes);
                let finding = text::changed_since(target, patches, item, gva, before, now, run);
                if !changes.add(finding) {
                    return changes;
                }
            }
        }
        changes
    }

    /// Which bytes of a piece are stubs': of processors that had some then, and of those that have some now.
    fn stubs_in<M: PhysicalMemory>(&self, target: &Target<'_, M>, piece: &Piece) -> Vec<Range<usize>> {
        if !piece.is_shared_by_stubs() {
            return Vec::new();
        }
        let now = mappings::stubs_of_any(target).into_iter();
        let now = now.filter_map(|stub| PlacedStub::new(target, stub));
        let all = self.stubs.iter().copied().chain(now);
        all.filter(|placed| placed.gpa.page() == piece.gpa).map(|placed| placed.place()).collect()
    }

    /// Whether an address is in a stub of a processor that had some when the copy was made, or has some now.
    pub(crate) fn is_stub<M: PhysicalMemory>(&self, target: &Target<'_, M>, at: Gva) -> bool {
        let then = self.stubs.iter().map(|placed| placed.stub);
        then.chain(mappings::stubs_of_any(target)).any(|stub| stub.contains(at))
    }

    /// What L1's page tables, or those that a processor uses, show elsewhere than where it was: who changes them leaves all of this as it
    /// was, and has something else used.
    pub fn remapped<M: PhysicalMemory>(&self, target: &Target<'_, M>) -> Vec<Finding> {
        let own = target.memory();
        let cpus: Vec<_> =
            target.cpus.iter().map(|cpu| VirtualMemory::new(&target.physical, cpu.registers.cr3)).collect();
        let mut findings: Vec<Finding> = Vec::new();
        for piece in &self.pieces {
            let shown = own.translate(piece.gva).ok();
            // Of tables that a processor has while a guest runs, not all have all of L1 (Xen's XPTI).
            let mut others = cpus.iter().filter_map(|tables| tables.translate(piece.gva).ok());
            let elsewhere = if shown == Some(piece.gpa) {
                others.find(|gpa| *gpa != piece.gpa).map(Some)
            } else {
                Some(shown)
            };
            let Some(elsewhere) = elsewhere.filter(|_| is_in_use(target, piece)) else { continue };
            if let Some(last) = findings.last_mut()
                && last.address.map(|at| at.offset(last.bytes)) == Some(piece.gva)
            {
                last.bytes += piece.bytes.len() as u64;
            } else if findings.len() < MAX_FINDINGS {
                findings.push(remapped(target, piece, elsewhere));
            }
        }
        findings
    }
}

fn remapped<M: PhysicalMemory>(target: &Target<'_, M>, piece: &Piece, elsewhere: Option<Gpa>) -> Finding {
    let place = target.name(piece.gva);
    let message = match elsewhere {
        Some(gpa) => format!(
            "page tables show other memory at {place}: that at {:#x}, not that at {:#x}",
            gpa.0, piece.gpa.0
        ),
        None => format!("page tables show nothing at {place}, where L1 had what it never changes"),
    };
    Finding::tampering(Item::PageTables, place, message).at(piece.gva, piece.bytes.len() as u64)
}

/// A number for what is changed, and to what.
fn content(runs: &[(usize, usize)], now: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    runs.iter().for_each(|(start, end)| (start, &now[*start..*end]).hash(&mut hasher));
    hasher.finish()
}

/// A processor that L1 has taken offline leaves its tables behind, to be used for something else.
fn is_in_use<M: PhysicalMemory>(target: &Target<'_, M>, piece: &Piece) -> bool {
    let Some(cpu) = piece.cpu else {
        let is_in = |placed: PlacedStub| placed.gpa.page() == piece.gpa;
        let mut stubs = mappings::stubs(target).into_iter();
        return !piece.is_shared_by_stubs()
            || stubs.any(|stub| PlacedStub::new(target, stub).is_some_and(is_in));
    };
    let now = match piece.item {
        Item::Idt => mappings::idt(target, cpu),
        Item::Tss => tasks::page(target, cpu),
        _ => mappings::stub(target, cpu).map(|stub| stub.at),
    };
    mappings::is_online(target, cpu) && now == Some(piece.gva)
}

/// Which bytes of a piece have changed, as first and end.
fn changed_runs(piece: &Piece, now: &[u8], stubs: &[Range<usize>]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let changed = (0..now.len()).filter(|at| now[*at] != piece.bytes[*at] && piece.counts(*at, stubs));
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
        assert_eq!(
            Baseline { pieces, ..Baseline::default() }.never_written(),
            [(Gpa(0x1000), 0x2000), (Gpa(0x5000), 0x1000)]
        );
    }

    #[test]
    fn the_stack_of_a_gate_may_change() {
        let piece = |item| Piece { item, cpu: None, gva: Gva(0), gpa: Gpa(0), bytes: vec![0; 32].into() };
        let mut now = vec![0; 32];
        (now[4], now[20]) = (1, 2);
        assert!(changed_runs(&piece(Item::Idt), &now, &[]).is_empty());
        assert_eq!(changed_runs(&piece(Item::Text), &now, &[]), [(4, 5), (20, 21)]);
        now[0] = 1;
        assert_eq!(changed_runs(&piece(Item::Idt), &now, &[]), [(0, 1)]);
    }

    #[test]
    fn what_is_nobodys_stub_may_not_change() {
        let (gva, bytes) = (Gva(0x1000), vec![0xcc; 4096].into());
        let page = Piece { item: Item::Registers, cpu: None, gva, gpa: Gpa(0), bytes };
        let stubs = [0..0x80, 0x80..0x100];
        let mut now = vec![0xcc; 4096];
        (now[5], now[0xff]) = (0, 0);
        assert!(changed_runs(&page, &now, &stubs).is_empty());
        now[0x100] = 0;
        assert_eq!(changed_runs(&page, &now, &stubs), [(0x100, 0x101)]);
    }

    #[test]
    fn claimed_patches_do_not_fill_up_what_is_told() {
        let patched = || {
            let judgement = Judgement::LivePatch { name: "claimed".to_owned() };
            Finding::new(Item::Text, judgement, "here", "changed")
        };
        let mut changes = Changes::default();
        assert!((0..MAX_FUNCTIONS).all(|_| changes.add(patched())));
        assert!(changes.add(Finding::tampering(Item::Text, "there", "changed")));
        assert!(!changes.add(patched()), "L1 has not so many");
        assert_eq!(changes.findings.iter().filter(|finding| finding.is_tampering()).count(), 2);
    }
}
