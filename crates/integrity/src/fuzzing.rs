//! What the fuzz target, and the test that replays its seeds, hold of every L1, however damaged.

use hypovisor_machine::{DescriptorTable, Gpa, Gva, SystemRegisters};

use crate::made_up::L1;
use crate::{Baseline, LivePatches, check};

/// The most changes that are taken from the input.
const MAX_CHANGES: usize = 256;
/// Bytes of a change: a word's place, and the word.
const CHANGE_BYTES: usize = 3 + 8;
/// More findings than this nobody reads, and a hostile L1 must not fill the engine's memory.
const MAX_FINDINGS: usize = 4096;

/// How far a damaged L1 was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// It was still taken for L1.
    pub is_found: bool,
    /// How many domains were seen.
    pub domains: usize,
    /// How many live patches.
    pub patches: usize,
    /// Signs of tampering, by a full look.
    pub tampering: usize,
    /// Differences from the copy of the undamaged one.
    pub changes: usize,
}

/// Takes words and their places in an L1's memory from the input, and four registers of its processor; looks at what is left.
///
/// # Panics
/// When a look gives more than anybody could read.
#[must_use]
pub fn check_damaged(data: &[u8]) -> Reached {
    let mut words = data.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let mut register = |usual: u64| words.next().filter(|word| *word != 0).unwrap_or(usual);
    let usual = L1::cpu();
    let cpu = SystemRegisters {
        rsp: Gva(register(usual.rsp.0)),
        idt: DescriptorTable { base: Gva(register(usual.idt.base.0)), limit: 0xffff },
        gdt: DescriptorTable { base: Gva(register(usual.gdt.base.0)), limit: 0xffff },
        cr0: register(usual.cr0),
        ..usual
    };
    let clean = L1::new();
    let mut memory = clean.memory.clone();
    for change in data.get(32..).unwrap_or_default().chunks_exact(CHANGE_BYTES).take(MAX_CHANGES) {
        let [low, middle, high, word @ ..] = change else { continue };
        let at = u32::from_le_bytes([*low, *middle, *high, 0]) as usize % (memory.0.len() - 8);
        memory.0[at..at + 8].copy_from_slice(word);
    }
    look(&clean, &memory, cpu)
}

fn look(clean: &L1, memory: &crate::made_up::Memory, cpu: SystemRegisters) -> Reached {
    let reference = clean.reference();
    let Some(genuine) = L1::target(clean.memory.clone(), &reference, L1::cpu()) else {
        return Reached::default();
    };
    let Some(target) = L1::target(memory.clone(), &reference, cpu) else { return Reached::default() };
    let report = check(&target, &clean.structures, &clean.ram());
    let patches = LivePatches::read(&target, &clean.structures);
    let changes = Baseline::take(&genuine).compare(&target, &patches);
    let damaged = Baseline::take(&target);
    let back = damaged.compare(&genuine, &LivePatches::default());
    let moved = [Baseline::take(&genuine).remapped(&target), damaged.remapped(&genuine)];
    for (page, _) in damaged.never_written() {
        let _ = damaged.put_back(&target, page);
    }
    let _ = damaged.put_back(&target, Gpa(u64::MAX));
    let told = [&report.findings, &changes.findings, &back.findings, &moved[0], &moved[1]];
    assert!(told.iter().all(|findings| findings.len() <= MAX_FINDINGS));
    let domains = crate::domains::find(&target, &clean.structures, &clean.ram());
    Reached {
        is_found: true,
        domains: domains.map_or(0, |domains| domains.len()),
        patches: patches.iter().count(),
        tampering: report.findings.iter().filter(|finding| finding.is_tampering()).count(),
        changes: changes.findings.len(),
    }
}
