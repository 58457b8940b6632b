//! The task state segment of each processor, which says on which stack an interrupt is handled (AMD APM vol. 2, §12.2.5).
//!
//! ```text
//!   per_cpu__tss_page   a page for each processor; TR leads into it
//!     RSP0              the stack of the processor: interrupts from guests
//!     RSP1, RSP2        poisoned: not canonical
//!     IST1 to IST7      pages of the same stack, or poisoned
//! ```
//!
//! From xen/arch/x86/cpu/common.c, `load_system_tables()`. On AMD processors TR has a guest's value from when L1 loads the guest's state
//! (VMLOAD) until it loads its own again: most of the time that it works for a hardware-virtualised guest, and while it idles behind one. Its
//! gates name no stacks then. The guest may give it any value.

use hypovisor_machine::{Gva, PAGE_SIZE, PhysicalMemory};

use crate::domains::HARDWARE_VIRTUALISED;
use crate::finding::{Finding, Item, Report};
use crate::mappings;
use crate::structures::Structures;
use crate::target::{Cpu, Target};

/// Bytes of a physical CPU's stack, to which it is aligned (`STACK_ORDER` 3, xen/arch/x86/include/asm/config.h).
const STACK_BYTES: u64 = 8 * PAGE_SIZE;
/// Where in its page the segment begins, behind eight pointers of shadow stacks (`struct tss_page`, xen/arch/x86/include/asm/processor.h).
pub(crate) const OFFSET: u64 = 64;
/// Where the stack pointers stand in the segment: for rings 0 to 2, and for the gates that name one.
const STACKS: [(&str, u64); 10] = [
    ("RSP0", 4),
    ("RSP1", 12),
    ("RSP2", 20),
    ("IST1", 36),
    ("IST2", 44),
    ("IST3", 52),
    ("IST4", 60),
    ("IST5", 68),
    ("IST6", 76),
    ("IST7", 84),
];

/// The page that a processor has its segment in, by L1's own per-CPU variable.
pub(crate) fn page<M: PhysicalMemory>(target: &Target<'_, M>, cpu: u64) -> Option<Gva> {
    let symbols = target.reference.symbols();
    let offset = target.word(symbols.address_of("__per_cpu_offset")?.offset(8 * cpu))?;
    Some(Gva(symbols.address_of("per_cpu__tss_page")?.0.wrapping_add(offset)))
}

/// A processor's segment.
fn segment<M: PhysicalMemory>(target: &Target<'_, M>, cpu: u64) -> Option<Gva> {
    Some(page(target, cpu)?.offset(OFFSET))
}

/// Checks the segments of all processors, and where TR leads.
pub(crate) fn check<M: PhysicalMemory>(target: &Target<'_, M>, structures: &Structures, report: &mut Report) {
    let online = (0..mappings::MAX_CPUS).filter(|cpu| mappings::is_online(target, *cpu));
    let segments: Vec<(u64, Gva)> = online.map_while(|cpu| Some((cpu, segment(target, cpu)?))).collect();
    if segments.is_empty() {
        return report.skipped(Item::Tss, "the symbols file does not say where task segments are");
    }
    report.add(target.cpus.iter().filter_map(|cpu| place_finding(target, structures, cpu)));
    report.add(segments.iter().flat_map(|(cpu, base)| stack_findings(target, *cpu, *base)));
    report.verified(Item::Tss, format!("the stacks for interrupts of {} processors", segments.len()));
}

/// TR leads into L1's part of the address space, and not to the processor's segment.
fn place_finding<M: PhysicalMemory>(
    target: &Target<'_, M>,
    structures: &Structures,
    cpu: &Cpu,
) -> Option<Finding> {
    let (base, number) = (cpu.registers.task.base, cpu.index as u64);
    let is_in_l1 = base.0 >> 63 == 1 && mappings::SLOTS.contains(&((base.0 >> 39 & 0x1ff) as usize));
    segment(target, number).filter(|own| is_in_l1 && *own != base && mappings::is_online(target, number))?;
    let place = format!("CPU {number} TR");
    let message = format!("{place} leads to {}, not to L1's own segment", target.name(base));
    let finding = match has_guests_state(target, structures, number) {
        Some(true) => return None,
        Some(false) => Finding::tampering(Item::Tss, place, message),
        None => {
            let settle = "whether a hardware-virtualised guest has given it that value: a symbols file with debug information";
            Finding::unknown(Item::Tss, place, message, settle)
        }
    };
    Some(finding.at(base, 0))
}

/// Whether the processor has the state of a hardware-virtualised guest, by L1's own variable `curr_vcpu` (xen/arch/x86/domain.c).
fn has_guests_state<M: PhysicalMemory>(
    target: &Target<'_, M>,
    structures: &Structures,
    cpu: u64,
) -> Option<bool> {
    let vcpu = Gva(mappings::per_cpu(target, "per_cpu__curr_vcpu", cpu)?);
    let domain = Gva(target.word(vcpu.offset(structures.offset("vcpu", "domain")?))?);
    let options = target.memory().read_u32(domain.offset(structures.offset("domain", "options")?)).ok()?;
    Some(options & HARDWARE_VIRTUALISED != 0)
}

fn stack_findings<M: PhysicalMemory>(target: &Target<'_, M>, cpu: u64, base: Gva) -> Vec<Finding> {
    let pointers = STACKS.map(|(name, at)| (name, base.offset(at), target.word(base.offset(at)).map(Gva)));
    let Some(first) = pointers[0].2 else {
        let message = format!("the task segment of CPU {cpu} cannot be read");
        return vec![Finding::tampering(Item::Tss, format!("CPU {cpu}"), message).at(base, 0)];
    };
    // Without L1's own table of stacks all that can be said is that they are one.
    let stack = own_stack(target, cpu).unwrap_or(first.0 & !(STACK_BYTES - 1));
    let wrong = |(name, at, pointer): (&str, Gva, Option<Gva>)| {
        let pointer = pointer?;
        // The first push is below.
        let is_in_stack = pointer.0.wrapping_sub(stack + 1) < STACK_BYTES;
        let is_poisoned = name != "RSP0" && !pointer.is_canonical();
        let place = format!("CPU {cpu} {name}");
        let message =
            format!("{place} in the task segment is {pointer:#x}; the CPU's stack is at {stack:#x}");
        (!is_in_stack && !is_poisoned).then(|| Finding::tampering(Item::Tss, place, message).at(at, 8))
    };
    pointers.into_iter().filter_map(wrong).collect()
}

fn own_stack<M: PhysicalMemory>(target: &Target<'_, M>, cpu: u64) -> Option<u64> {
    let table = target.reference.symbols().address_of("stack_base")?;
    target.word(table.offset(8 * cpu)).filter(|stack| *stack != 0)
}
