//! L1's page tables: who may write and who may run what.
//!
//! Xen keeps the upper half's slots 256 to 271 of every top-level table for itself (xen/arch/x86/include/asm/config.h). All
//! of its address spaces share them, but for the slot that maps the table itself and the one that holds what belongs to the
//! domain that runs. Older versions map their own code a second time, writable, with the rest of memory (the direct map): as
//! long as that is all of it, it is theirs.

use std::collections::BTreeMap;

use hypovisor_machine::leaves::{Leaf, LeavesError, TableBudget, for_each_leaf, top_level_entry};
use hypovisor_machine::{Gpa, Gva, PAGE_SIZE, PhysicalMemory};

use crate::finding::{Finding, Item, Judgement, Report};
use crate::livepatch::LivePatches;
use crate::reference::Range;
use crate::target::Target;

/// The slots of the top-level table that are L1's own.
pub(crate) const SLOTS: std::ops::RangeInclusive<usize> = 256..=271;
/// The most tables that are read: Xen maps memory with large pages, and this is 32 GiB of small ones.
const MAX_TABLES: usize = 1 << 14;
/// The most processors that are looked at: Xen's own limit, unless it was built otherwise (`NR_CPUS`).
pub(crate) const MAX_CPUS: u64 = 256;
/// The most findings of one kind.
const MAX_FINDINGS: usize = 32;

/// Checks the rights of L1's own mappings.
pub(crate) fn check<M: PhysicalMemory>(target: &Target<'_, M>, patches: &LivePatches, report: &mut Report) {
    let parts = *target.reference.parts();
    let stubs = stubs(target).into_iter().map(|stub| stub.at.page()).collect();
    let mut walk =
        Walk { target, patches, stubs, code: Vec::new(), pages: 0, aliased: 0, findings: BTreeMap::new() };
    walk.code = frames_of(target, Range { start: parts.text.start, end: parts.constants.end });
    let mut budget = TableBudget::new(MAX_TABLES);
    let mut slots = SLOTS.filter(|slot| !is_own_table(target, *slot));
    let ended = slots.try_for_each(|slot| {
        for_each_leaf(&target.physical, target.cr3, slot, &mut budget, &mut |leaf| walk.see(leaf))
    });
    if let Err(error) = ended {
        report.add([unreadable(&error)]);
    }
    let mut what = format!("{} pages that L1 maps", walk.pages);
    if walk.aliased == walk.code.len()
        && walk.findings.get(&Wrong::Alias).is_some_and(|aliases| aliases.len() == 1)
    {
        walk.findings.remove(&Wrong::Alias);
        what.push_str("; its code is also in the direct map, writable, as in older versions of Xen");
    }
    report.verified(Item::PageTables, what);
    report.add(walk.findings.into_values().flatten());
}

/// The entry leads back to the top-level table: what it maps are the tables themselves.
pub(crate) fn is_own_table<M: PhysicalMemory>(target: &Target<'_, M>, slot: usize) -> bool {
    let frame = |entry: u64| entry & 0x000f_ffff_ffff_f000;
    top_level_entry(&target.physical, target.cr3, slot).is_ok_and(|entry| frame(entry) == frame(target.cr3))
}

fn unreadable(error: &LeavesError) -> Finding {
    let settle = "a memory image that holds all of the machine's memory";
    Finding::unknown(Item::PageTables, "page tables", format!("not all could be read: {error}"), settle)
}

/// Where the image's pages stand in memory.
fn frames_of<M: PhysicalMemory>(target: &Target<'_, M>, range: Range) -> Vec<(Gpa, Gva)> {
    let pages = (range.start.0..range.end.0).step_by(PAGE_SIZE as usize);
    let mut frames: Vec<(Gpa, Gva)> =
        pages.filter_map(|at| Some((target.memory().translate(Gva(at)).ok()?, Gva(at)))).collect();
    frames.sort_unstable_by_key(|(gpa, _)| gpa.0);
    frames
}

/// Where SYSCALL enters on one processor, and a little code for emulation (`struct stubs`): executable, outside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stub {
    pub(crate) cpu: u64,
    pub(crate) at: Gva,
}

impl Stub {
    /// With its place for emulated instructions (`STUB_BUF_SIZE`, xen/arch/x86/include/asm/config.h); others have the rest of its page.
    pub(crate) const BYTES: u64 = 128;

    pub(crate) fn contains(&self, at: Gva) -> bool {
        at.0.checked_sub(self.at.0).is_some_and(|offset| offset < Self::BYTES)
    }
}

/// A variable of 8 bytes that each processor has for itself.
pub(crate) fn per_cpu<M: PhysicalMemory>(target: &Target<'_, M>, name: &str, cpu: u64) -> Option<u64> {
    let symbols = target.reference.symbols();
    let offset = target.word(symbols.address_of("__per_cpu_offset")?.offset(8 * cpu))?;
    target.word(Gva(symbols.address_of(name)?.0.wrapping_add(offset)))
}

/// The stubs of all processors that are online, by L1's own per-CPU variable `stubs`.
pub(crate) fn stubs<M: PhysicalMemory>(target: &Target<'_, M>) -> Vec<Stub> {
    (0..MAX_CPUS).filter(|cpu| is_online(target, *cpu)).filter_map(|cpu| stub(target, cpu)).collect()
}

/// Those of all processors that have any. (L1 makes a processor's before it is online.)
pub(crate) fn stubs_of_any<M: PhysicalMemory>(target: &Target<'_, M>) -> Vec<Stub> {
    (0..MAX_CPUS).filter_map(|cpu| stub(target, cpu)).collect()
}

pub(crate) fn stub<M: PhysicalMemory>(target: &Target<'_, M>, cpu: u64) -> Option<Stub> {
    let symbols = target.reference.symbols();
    let offset = target.word(symbols.address_of("__per_cpu_offset")?.offset(8 * cpu))?;
    let stubs = Gva(symbols.address_of("per_cpu__stubs")?.0.wrapping_add(offset));
    // Its two members are the address and the frame's number (xen/arch/x86/include/asm/processor.h).
    let members = [0, 8].map(|member| target.word(stubs.offset(member)));
    let at = members.into_iter().flatten().map(Gva).find(|at| at.is_canonical() && at.0 >> 63 == 1)?;
    Some(Stub { cpu, at })
}

/// Where a processor's gates are, by L1's table of them.
pub(crate) fn idt<M: PhysicalMemory>(target: &Target<'_, M>, cpu: u64) -> Option<Gva> {
    target.word(target.reference.symbols().address_of("idt_tables")?.offset(8 * cpu)).map(Gva)
}

/// Whether L1 uses a processor, by its map of them; all, if there is none.
pub(crate) fn is_online<M: PhysicalMemory>(target: &Target<'_, M>, cpu: u64) -> bool {
    let Some(map) = target.reference.symbols().address_of("cpu_online_map") else { return true };
    target.word(map.offset(cpu / 64 * 8)).is_some_and(|word| word >> (cpu % 64) & 1 != 0)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    WritableCode,
    ExecutableData,
    ForeignCode,
    /// Apart from the others, so that nobody who claims any number of patches can fill up what is told of those.
    PatchCode,
    Alias,
}

struct Walk<'a, 'b, M> {
    target: &'a Target<'b, M>,
    patches: &'a LivePatches,
    /// Pages of the stubs.
    stubs: Vec<Gva>,
    /// Frames of code and constants, and the address each has in the image.
    code: Vec<(Gpa, Gva)>,
    pages: u64,
    /// Pages of code and constants that may be written elsewhere.
    aliased: usize,
    findings: BTreeMap<Wrong, Vec<Finding>>,
}

impl<M: PhysicalMemory> Walk<'_, '_, M> {
    fn see(&mut self, leaf: Leaf) {
        self.pages += leaf.bytes / PAGE_SIZE;
        let parts = *self.target.reference.parts();
        if parts.image.contains(leaf.gva) {
            return self.see_image(leaf, parts.text, parts.constants);
        }
        if leaf.rights.execute {
            self.see_foreign_code(leaf);
        }
        if leaf.rights.write {
            self.see_aliases(leaf);
        }
    }

    fn see_image(&mut self, leaf: Leaf, text: Range, constants: Range) {
        let (is_text, is_constant) = (text.contains(leaf.gva), constants.contains(leaf.gva));
        if leaf.rights.write {
            match (is_text, is_constant) {
                (true, _) => self.note(Wrong::WritableCode, leaf, "code may be written"),
                (_, true) => self.note(Wrong::WritableCode, leaf, "constants may be written"),
                _ => self.see_aliases(leaf),
            }
        }
        if leaf.rights.execute && !is_text {
            self.note(Wrong::ExecutableData, leaf, "data may be executed");
        }
    }

    fn see_foreign_code(&mut self, leaf: Leaf) {
        let is_stub = self.stubs.contains(&leaf.gva);
        if is_stub && !leaf.rights.write {
            return;
        }
        match self.patches.judge_code(leaf.gva) {
            Judgement::LivePatch { name } => {
                let message = format!("code of the live patch {name} may be executed");
                let judgement = Judgement::LivePatch { name };
                self.push(Wrong::PatchCode, judgement, leaf.gva, leaf.bytes, |_| {
                    (format!("{:#x}", leaf.gva), message)
                });
            }
            judgement => {
                self.push(Wrong::ForeignCode, judgement, leaf.gva, leaf.bytes, |target| {
                    described(target, leaf, "code may be executed that is not L1's")
                });
            }
        }
    }

    /// A writable mapping of frames that hold code or constants.
    fn see_aliases(&mut self, leaf: Leaf) {
        let first = self.code.partition_point(|(gpa, _)| gpa.0 < leaf.gpa.0);
        let within = self.code[first..].iter().take_while(|(gpa, _)| gpa.0 - leaf.gpa.0 < leaf.bytes);
        let Some((gpa, gva)) = within.clone().next().copied() else { return };
        let count = within.count();
        self.aliased += count;
        let alias = leaf.gva.offset(gpa.0 - leaf.gpa.0);
        let bytes = count as u64 * PAGE_SIZE;
        self.push(Wrong::Alias, Judgement::Tampering, alias, bytes, |target| {
            let place = target.name(gva);
            let message = format!(
                "{count} pages of code or constants, the first at {place}, may be written through {alias:#x}"
            );
            (place, message)
        });
    }

    fn note(&mut self, wrong: Wrong, leaf: Leaf, what: &str) {
        self.push(wrong, Judgement::Tampering, leaf.gva, leaf.bytes, |target| described(target, leaf, what));
    }

    /// Neighbours are one finding. Place and message are put in words only for one that is kept.
    fn push(
        &mut self,
        wrong: Wrong,
        judgement: Judgement,
        at: Gva,
        bytes: u64,
        words: impl FnOnce(&Target<'_, M>) -> (String, String),
    ) {
        let findings = self.findings.entry(wrong).or_default();
        if let Some(last) = findings.last_mut()
            && last.judgement == judgement
            && last.address.map(|at| at.offset(last.bytes)) == Some(at)
        {
            last.bytes += bytes;
        } else if findings.len() < MAX_FINDINGS {
            let (place, message) = words(self.target);
            findings.push(Finding::new(Item::PageTables, judgement, place, message).at(at, bytes));
        }
    }
}

/// A place by its name, and what is wrong there.
fn described<M: PhysicalMemory>(target: &Target<'_, M>, leaf: Leaf, what: &str) -> (String, String) {
    let place = target.name(leaf.gva);
    let message = format!("{what}: {} bytes at {place}", leaf.bytes);
    (place, message)
}
