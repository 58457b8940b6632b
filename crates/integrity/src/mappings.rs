//! L1's page tables: who may write and who may run what.
//!
//! Xen keeps the upper half's slots 256 to 271 of every top-level table for itself (xen/arch/x86/include/asm/config.h). All
//! of its address spaces share them, but for the slot that maps the table itself and the one that holds what belongs to the
//! domain that runs. Older versions map their own code a second time, writable, with the rest of memory (the direct map): as
//! long as that is all of it, it is theirs.

use std::collections::BTreeMap;

use hypovisor_machine::leaves::{Leaf, LeavesError, for_each_leaf, top_level_entry};
use hypovisor_machine::{Gpa, Gva, PAGE_SIZE, PhysicalMemory};

use crate::finding::{Finding, Item, Judgement, Report};
use crate::livepatch::LivePatches;
use crate::reference::Range;
use crate::target::Target;

/// The slots of the top-level table that are L1's own.
pub(crate) const SLOTS: std::ops::RangeInclusive<usize> = 256..=271;
/// The most tables that are read: with 4 KiB pages only, 128 GiB.
const MAX_TABLES: usize = 1 << 16;
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
    walk.code = frames_of(target, Range { start: parts.text.start, end: parts.set_at_boot.end });
    let mut ended = Ok(());
    for slot in SLOTS {
        if is_own_table(target, slot) {
            continue;
        }
        ended = ended
            .and(for_each_leaf(&target.physical, target.cr3, slot, MAX_TABLES, &mut |leaf| walk.see(leaf)));
    }
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

/// A variable of 8 bytes that each processor has for itself.
pub(crate) fn per_cpu<M: PhysicalMemory>(target: &Target<'_, M>, name: &str, cpu: u64) -> Option<u64> {
    let symbols = target.reference.symbols();
    let offset = target.word(symbols.address_of("__per_cpu_offset")?.offset(8 * cpu))?;
    target.word(Gva(symbols.address_of(name)?.0.wrapping_add(offset)))
}

/// The stubs of all processors that are online, by L1's own per-CPU variable `stubs`.
pub(crate) fn stubs<M: PhysicalMemory>(target: &Target<'_, M>) -> Vec<Stub> {
    (0..MAX_CPUS).filter(|cpu| is_online(target, *cpu)).map_while(|cpu| stub(target, cpu)).collect()
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
        if leaf.rights.write && (is_text || is_constant) {
            let what = if is_text { "code" } else { "constants" };
            self.note(Wrong::WritableCode, leaf, &format!("{what} may be written"));
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
        let judgement = self.patches.judge_code(leaf.gva);
        let (place, message) = match &judgement {
            Judgement::LivePatch { name } => {
                (format!("{:#x}", leaf.gva), format!("code of the live patch {name} may be executed"))
            }
            _ => self.described(leaf, "code may be executed that is not L1's"),
        };
        let finding = Finding::new(Item::PageTables, judgement, place, message).at(leaf.gva, leaf.bytes);
        self.push(Wrong::ForeignCode, finding);
    }

    /// A writable mapping of frames that hold code or constants.
    fn see_aliases(&mut self, leaf: Leaf) {
        let first = self.code.partition_point(|(gpa, _)| gpa.0 < leaf.gpa.0);
        let within = self.code[first..].iter().take_while(|(gpa, _)| gpa.0 - leaf.gpa.0 < leaf.bytes);
        let Some((gpa, gva)) = within.clone().next().copied() else { return };
        let (count, place) = (within.count(), self.target.name(gva));
        self.aliased += count;
        let alias = leaf.gva.offset(gpa.0 - leaf.gpa.0);
        let message = format!(
            "{count} pages of code or constants, the first at {place}, may be written through {alias:#x}"
        );
        self.push(
            Wrong::Alias,
            Finding::tampering(Item::PageTables, place, message).at(alias, count as u64 * PAGE_SIZE),
        );
    }

    /// A place by its name, and what is wrong there.
    fn described(&self, leaf: Leaf, what: &str) -> (String, String) {
        let place = self.target.name(leaf.gva);
        let message = format!("{what}: {} bytes at {place}", leaf.bytes);
        (place, message)
    }

    fn note(&mut self, wrong: Wrong, leaf: Leaf, what: &str) {
        let (place, message) = self.described(leaf, what);
        self.push(wrong, Finding::tampering(Item::PageTables, place, message).at(leaf.gva, leaf.bytes));
    }

    /// Neighbours are one finding.
    fn push(&mut self, wrong: Wrong, finding: Finding) {
        let findings = self.findings.entry(wrong).or_default();
        if let Some(last) = findings.last_mut()
            && last.judgement == finding.judgement
            && last.address.map(|at| at.offset(last.bytes)) == finding.address
        {
            last.bytes += finding.bytes;
        } else if findings.len() < MAX_FINDINGS {
            findings.push(finding);
        }
    }
}
