//! The descriptor tables of each processor (AMD APM vol. 2, §4.7 and §8.3).

use hypovisor_machine::{DescriptorTable, Gva, PhysicalMemory};

use crate::finding::{Finding, Item, Report};
use crate::mappings;
use crate::target::{Cpu, Target};

const GATES: usize = 256;
const GATE_BYTES: usize = 16;
/// Types of system descriptors: a 64-bit interrupt gate, a trap gate, a call gate.
const INTERRUPT_GATE: u8 = 0xe;
const TRAP_GATE: u8 = 0xf;
const CALL_GATE: u8 = 0xc;
/// Xen's own descriptors begin here (`FIRST_RESERVED_GDT_BYTE`, public/arch-x86/xen.h): the pages below are the guest's.
const OWN_GDT_BYTES: u64 = 14 * 4096;
/// The vectors that a guest's INT may take: breakpoint, overflow, and Xen's two ways to enter from 32-bit code.
const FOR_GUESTS: [usize; 4] = [3, 4, 0x80, 0x82];

/// One gate of an IDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gate {
    handler: Gva,
    selector: u16,
    kind: u8,
    privilege: u8,
    is_present: bool,
}

impl Gate {
    fn read(bytes: &[u8; GATE_BYTES]) -> Self {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let high = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let handler = u64::from(half(0)) | u64::from(half(6)) << 16 | u64::from(high) << 32;
        let flags = bytes[5];
        Self {
            handler: Gva(handler),
            selector: half(2),
            kind: flags & 0xf,
            privilege: flags >> 5 & 3,
            is_present: flags & 0x80 != 0,
        }
    }
}

/// Checks the tables of all processors whose registers are known.
pub(crate) fn check<M: PhysicalMemory>(target: &Target<'_, M>, report: &mut Report) {
    if target.cpus.is_empty() {
        report.skipped(Item::Idt, "the source does not tell where the processors' tables are");
        return report.skipped(Item::Gdt, "the source does not tell where the processors' tables are");
    }
    let first = target.cpus.first().and_then(|cpu| gates(target, cpu.registers.idt));
    for Cpu { index, registers } in target.cpus.iter().copied() {
        if !mappings::is_online(target, index as u64) {
            continue;
        }
        let Some(found) = gates(target, registers.idt) else {
            report.add([Finding::tampering(
                Item::Idt,
                format!("CPU {index}"),
                "the interrupt table cannot be read",
            )]);
            continue;
        };
        report.add(idt_findings(target, index, registers.idt.base, &found, first.as_deref()));
        report.add(gdt_findings(target, index, registers.gdt));
    }
    report.verified(Item::Idt, format!("the gates of {} processors", target.cpus.len()));
    report.verified(Item::Gdt, format!("L1's own descriptors of {} processors", target.cpus.len()));
}

fn gates<M: PhysicalMemory>(target: &Target<'_, M>, table: DescriptorTable) -> Option<Vec<Gate>> {
    let count = GATES.min((usize::from(table.limit) + 1) / GATE_BYTES);
    let bytes = target.bytes(table.base, count * GATE_BYTES)?;
    Some(bytes.as_chunks().0.iter().map(Gate::read).collect())
}

fn idt_findings<M: PhysicalMemory>(
    target: &Target<'_, M>,
    cpu: usize,
    base: Gva,
    gates: &[Gate],
    first: Option<&[Gate]>,
) -> Vec<Finding> {
    let wrong = |vector: usize, gate: &Gate| {
        let place = format!("CPU {cpu} vector {vector:#04x}");
        let at = base.offset((vector * GATE_BYTES) as u64);
        let handler = target.name(gate.handler);
        let why = if !target.reference.parts().text.contains(gate.handler) {
            format!("enters at {handler}, which is not L1's code")
        } else if !is_entry(target, vector, gate.handler) {
            format!("enters at {handler}, which is no entry point")
        } else if first
            .and_then(|first| first.get(vector))
            .is_some_and(|other| other.handler != gate.handler && is_entry(target, vector, other.handler))
        {
            format!("enters at {handler}, on CPU 0 elsewhere")
        } else if gate.kind != INTERRUPT_GATE && gate.kind != TRAP_GATE {
            format!("is of type {:#x}", gate.kind)
        } else if gate.privilege != 0 && !FOR_GUESTS.contains(&vector) {
            format!("may be entered from ring {}", gate.privilege)
        } else {
            return None;
        };
        Some(Finding::tampering(Item::Idt, place.clone(), format!("the gate of {place} {why}")).at(at, 0))
    };
    let present = gates.iter().enumerate().filter(|(_, gate)| gate.is_present);
    present.filter_map(|(vector, gate)| wrong(vector, gate)).collect()
}

fn is_entry<M: PhysicalMemory>(target: &Target<'_, M>, vector: usize, handler: Gva) -> bool {
    target.reference.is_function(handler) || generated(target, vector) == Some(handler)
}

/// Where the build has L1 enter for a vector that has no name of its own: its table of them, which is thrown away after boot.
fn generated<M: PhysicalMemory>(target: &Target<'_, M>, vector: usize) -> Option<Gva> {
    let table = target.reference.symbols().address_of("autogen_entrypoints")?;
    let entry = target.reference.bytes(table.offset(8 * vector as u64), 8)?;
    Some(Gva(u64::from_le_bytes(*entry.first_chunk()?)))
}

/// A call gate in L1's own part lets a guest jump into it.
fn gdt_findings<M: PhysicalMemory>(
    target: &Target<'_, M>,
    cpu: usize,
    table: DescriptorTable,
) -> Vec<Finding> {
    let len = (u64::from(table.limit) + 1).saturating_sub(OWN_GDT_BYTES);
    let Some(bytes) = target.bytes(table.base.offset(OWN_GDT_BYTES), len as usize) else { return Vec::new() };
    let wrong = |index: usize, descriptor: &[u8; 8]| {
        let (flags, at) = (descriptor[5], OWN_GDT_BYTES + 8 * index as u64);
        let is_call_gate = flags & 0x80 != 0 && flags & 0x1f == CALL_GATE;
        let place = format!("CPU {cpu} selector {at:#x}");
        let message = format!("{place} is a call gate, of which L1 has none");
        is_call_gate.then(|| Finding::tampering(Item::Gdt, place, message).at(table.base.offset(at), 8))
    };
    let own = bytes.as_chunks().0.iter().enumerate();
    own.filter_map(|(index, descriptor)| wrong(index, descriptor)).collect()
}
