//! The system registers of each processor, and where SYSCALL enters.

use hypovisor_machine::leaves::top_level_entry;
use hypovisor_machine::{Gpa, Gva, PhysicalMemory, SystemRegisters};
use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};

use crate::finding::{Finding, Item, Report};
use crate::mappings::{self, Stub};
use crate::target::{Cpu, Target};

const CR0_WRITE_PROTECT: u64 = 1 << 16;
/// Protections that code of L1 relies on (AMD APM vol. 2, §3.1.3): bit and name.
const CR4_PROTECTIONS: [(u64, &str); 4] =
    [(1 << 11, "UMIP"), (1 << 20, "SMEP"), (1 << 21, "SMAP"), (1 << 23, "CET")];
const EFER_NO_EXECUTE: u64 = 1 << 11;
/// DR7: any of the four breakpoints is on.
const ENABLED_BREAKPOINTS: u64 = 0xff;
/// The stubs of a processor by what they jump to, and how far into its part of the page (xen/arch/x86/x86_64/traps.c).
const STUBS: [(&str, u64); 2] = [("lstar_enter", 0), ("cstar_enter", 32)];
/// LSTAR in the state that VMSAVE and VMLOAD exchange (AMD APM vol. 2, appendix B, table B-2).
const VMCB_LSTAR: u64 = 0x608;
/// A stub has no more than these.
const STUB_BYTES: usize = 32;

/// Checks all processors whose registers are known.
pub(crate) fn check<M: PhysicalMemory>(target: &Target<'_, M>, report: &mut Report) {
    let stubs = mappings::stubs(target);
    report.add(stubs.iter().flat_map(|stub| stub_findings(target, stub)));
    report.add(stubs.iter().filter_map(|stub| own_block_finding(target, stub)));
    report.verified(Item::Registers, format!("the entry code of {} processors", stubs.len()));
    if target.cpus.is_empty() {
        return report.skipped(Item::Registers, "the source does not tell the processors' registers");
    }
    for Cpu { index, registers } in target.cpus.iter() {
        let (index, cpu) = (*index, registers);
        report.add(control_findings(target, index, cpu));
        report.add(debug_finding(index, cpu));
        report.add(entry_finding(target, index, cpu, &stubs));
        report.add(address_space_findings(target, index, cpu));
    }
    report.verified(Item::Registers, format!("control registers of {} processors", target.cpus.len()));
    if target.elsewhere > 0 {
        let why = format!("those of {} processors, which ran a hardware-virtualised guest", target.elsewhere);
        report.skipped(Item::Registers, why);
    }
}

fn control_findings<M: PhysicalMemory>(
    target: &Target<'_, M>,
    index: usize,
    cpu: &SystemRegisters,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wrong = |register: &str, what: String| {
        findings.push(Finding::tampering(Item::Registers, format!("CPU {index} {register}"), what));
    };
    if cpu.cr0 & CR0_WRITE_PROTECT == 0 {
        wrong("CR0", format!("CPU {index} may write what is read-only: CR0.WP is off"));
    }
    if cpu.efer.is_some_and(|efer| efer & EFER_NO_EXECUTE == 0) {
        wrong("EFER", format!("CPU {index} may execute data: EFER.NXE is off"));
    }
    // For 32-bit PV guests, whose kernels run in ring 1, L1 turns some of them off on the way out (cr4_pv32_mask).
    let is_in_ring_1 = cpu.privilege_level() == 1;
    let wanted = target.variable("mmu_cr4_features").filter(|_| !is_in_ring_1).unwrap_or(0);
    for (bit, name) in CR4_PROTECTIONS {
        if wanted & bit != 0 && cpu.cr4 & bit == 0 {
            wrong("CR4", format!("CPU {index} runs without {name}, which L1 turned on at boot"));
        }
    }
    findings
}

/// L1 has the debug registers for its guests: while its own code runs, none should stop it.
fn debug_finding(index: usize, cpu: &SystemRegisters) -> Option<Finding> {
    let (addresses, control) = cpu.breakpoints.filter(|(_, control)| control & ENABLED_BREAKPOINTS != 0)?;
    let place = format!("CPU {index} DR7");
    let is_on = |slot: &usize| control >> (2 * slot) & 3 != 0;
    let own: Vec<String> = (0..4)
        .filter(is_on)
        .map(|slot| addresses[slot])
        .filter(|at| at >> 63 == 1)
        .map(|at| format!("{at:#x}"))
        .collect();
    let message = format!("CPU {index} stops at {}", own.join(", "));
    let settle = "whether a guest or a debugger set it";
    (!own.is_empty()).then(|| Finding::unknown(Item::DebugRegisters, place, message, settle))
}

fn entry_finding<M: PhysicalMemory>(
    target: &Target<'_, M>,
    index: usize,
    cpu: &SystemRegisters,
    stubs: &[Stub],
) -> Option<Finding> {
    let lstar = cpu.lstar?;
    let is_stub = stubs.iter().any(|stub| stub.at == lstar);
    let place = format!("CPU {index} LSTAR");
    let message = format!("SYSCALL on CPU {index} enters at {}, which is not its stub", target.name(lstar));
    (!is_stub).then(|| Finding::tampering(Item::Registers, place, message).at(lstar, 0))
}

/// On AMD processors L1 loads the registers of SYSCALL anew, from a control block of its own, whenever it has run a guest
/// (`per_cpu(host_vmcb)`, xen/arch/x86/hvm/svm/svm.c): what that holds is what the processor gets.
fn own_block_finding<M: PhysicalMemory>(target: &Target<'_, M>, stub: &Stub) -> Option<Finding> {
    let block = Gpa(mappings::per_cpu(target, "per_cpu__host_vmcb", stub.cpu)?);
    let lstar = target.physical.read_u64(block.offset(VMCB_LSTAR)).ok()?;
    // Nothing is in it on processors without SVM, and before the first guest.
    let wrong = block.0 != 0 && lstar != 0 && lstar != stub.at.0;
    let place = format!("CPU {} LSTAR in host_vmcb", stub.cpu);
    let message = format!(
        "SYSCALL on CPU {} will enter at {}, which is not its stub",
        stub.cpu,
        target.name(Gva(lstar))
    );
    wrong.then(|| Finding::tampering(Item::Registers, place, message).at(Gva(lstar), 0))
}

/// A stub loads some registers and jumps to L1's entry.
fn stub_findings<M: PhysicalMemory>(target: &Target<'_, M>, stub: &Stub) -> Vec<Finding> {
    let wrong = |(name, into): (&str, u64)| {
        let at = stub.at.offset(into);
        let wanted = target.reference.symbols().address_of(name)?;
        let code = target.bytes(at, STUB_BYTES)?;
        let goes_to = jump_behind_moves(at, &code);
        let place = format!("CPU {} stub of {name}", stub.cpu);
        let found = goes_to.map_or_else(|| "elsewhere".to_owned(), |to| format!("to {}", target.name(to)));
        let finding = Finding::tampering(Item::Registers, place.clone(), format!("the {place} goes {found}"))
            .at(at, STUB_BYTES as u64);
        (goes_to != Some(wanted)).then(|| finding.compared(Vec::new(), crate::disassembly::lines(at, &code)))
    };
    STUBS.into_iter().filter_map(wrong).collect()
}

fn jump_behind_moves(at: Gva, code: &[u8]) -> Option<Gva> {
    let mut decoder = Decoder::with_ip(64, code, at.0, DecoderOptions::NONE);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        match instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Endbr64 | Mnemonic::Push => {}
            Mnemonic::Jmp if instruction.op0_kind() == OpKind::NearBranch64 => {
                return Some(Gva(instruction.near_branch_target()));
            }
            _ => return None,
        }
    }
    None
}

/// Every address space shares L1's own part with the one that L1 keeps for itself.
fn address_space_findings<M: PhysicalMemory>(
    target: &Target<'_, M>,
    index: usize,
    cpu: &SystemRegisters,
) -> Vec<Finding> {
    let wrong = |slot: usize| {
        let own = top_level_entry(&target.physical, target.cr3, slot).ok()?;
        let found = top_level_entry(&target.physical, cpu.cr3, slot).ok()?;
        // What is absent leads nowhere: a PV guest's tables for its user mode lack one. ACCESSED and DIRTY are the processor's.
        let differs = (own ^ found) & !0x60 != 0;
        let place = format!("CPU {index} CR3 slot {slot}");
        let message = format!("{place} leads elsewhere than in L1's own tables");
        (own != 0 && found != 0 && differs).then(|| {
            Finding::tampering(Item::PageTables, place, message)
                .compared(vec![format!("{own:#x}")], vec![format!("{found:#x}")])
        })
    };
    mappings::SLOTS.filter(|slot| !mappings::is_own_table(target, *slot)).filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_moves_and_jumps() {
        let at = Gva(0xffff_82d0_7fff_e000);
        let code = [0x48, 0x89, 0xe0, 0xe9, 0x10, 0, 0, 0];
        assert_eq!(jump_behind_moves(at, &code), Some(at.offset(0x18)));
        assert_eq!(jump_behind_moves(at, &[0x48, 0x89, 0xe0, 0xff, 0xe0]), None);
        assert_eq!(jump_behind_moves(at, &[0x90, 0xe9, 0x10, 0, 0, 0]), None);
    }
}
