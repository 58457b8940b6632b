//! QEMU's notes in an ELF core: one "QEMU" note with the registers of each processor.
//!
//! A note is its three lengths and type (`Elf64_Nhdr`), its name and its content, each padded to four bytes. The
//! content is `struct QEMUCPUState` (QEMU `target/i386/arch_dump.c`):
//!
//! ```text
//!      0  u32 version, size
//!      8  u64 rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 to r15, rip, rflags
//!    152  cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt: u32 selector, limit, flags, pad; u64 base
//!    392  u64 cr0 to cr4
//!    432  u64 kernel_gs_base, since QEMU 4.0; not read
//! ```

use hypovisor_machine::{DescriptorTable, Gva, SystemRegisters, TaskRegister};

use crate::DumpError;
use crate::source::{Record, Source};

/// The most bytes of notes that are read; QEMU writes some 800 for a processor.
pub(crate) const MAX_NOTES_BYTES: u64 = 8 << 20;

const HEADER_BYTES: usize = 12;
/// `QEMUCPUSTATE_VERSION`.
const VERSION: u32 = 1;
/// The part of the structure that every version 1 has.
const STATE_BYTES: usize = 432;

const RSP: usize = 8 + 6 * 8;
const RIP: usize = 8 + 16 * 8;
const CS: usize = segment(0);
const TR: usize = segment(7);
const GDT: usize = segment(8);
const IDT: usize = segment(9);
const CONTROL: usize = segment(10);

/// Where a segment register stands.
const fn segment(index: usize) -> usize {
    152 + 24 * index
}

/// Reads the notes in `bytes` from `offset` on, and adds the processors among them.
pub(crate) fn read(
    source: &dyn Source,
    offset: u64,
    bytes: u64,
    cpus: &mut Vec<SystemRegisters>,
) -> Result<(), DumpError> {
    let cut_off = DumpError::CutOff { what: "the notes", offset };
    let end = offset.checked_add(bytes).filter(|end| *end <= i64::MAX as u64).ok_or(cut_off)?;
    let mut at = offset;
    while at + HEADER_BYTES as u64 <= end {
        let header = Record::<HEADER_BYTES>::read(source, at, "a note")?;
        let (name_bytes, content_bytes, kind) = (header.u32(0), header.u32(4), header.u32(8));
        let name = at + HEADER_BYTES as u64;
        let content = name + u64::from(name_bytes).next_multiple_of(4);
        if content + u64::from(content_bytes) > end {
            return Err(DumpError::BrokenNote(at));
        }
        if kind == 0 && is_qemu(source, name, name_bytes)? {
            cpus.push(cpu(source, content, content_bytes)?);
        }
        at = content + u64::from(content_bytes).next_multiple_of(4);
    }
    Ok(())
}

fn is_qemu(source: &dyn Source, offset: u64, bytes: u32) -> Result<bool, DumpError> {
    Ok(bytes == 5 && Record::<5>::read(source, offset, "a note")?.bytes() == b"QEMU\0")
}

/// The registers in the note's content at `offset`.
fn cpu(source: &dyn Source, offset: u64, bytes: u32) -> Result<SystemRegisters, DumpError> {
    let version = Record::<4>::read(source, offset, "the registers of a processor")?.u32(0);
    if version != VERSION || (bytes as usize) < STATE_BYTES {
        return Err(DumpError::CpuState { offset, version, bytes });
    }
    let state = Record::<STATE_BYTES>::read(source, offset, "the registers of a processor")?;
    let control = |number: usize| state.u64(CONTROL + 8 * number);
    let table =
        |at: usize| DescriptorTable { base: Gva(state.u64(at + 16)), limit: low_half(state.u32(at + 4)) };
    Ok(SystemRegisters {
        rip: Gva(state.u64(RIP)),
        rsp: Gva(state.u64(RSP)),
        cs: low_half(state.u32(CS)),
        cr0: control(0),
        cr2: control(2),
        cr3: control(3),
        cr4: control(4),
        gdt: table(GDT),
        idt: table(IDT),
        task: TaskRegister {
            selector: low_half(state.u32(TR)),
            base: Gva(state.u64(TR + 16)),
            limit: state.u32(TR + 4),
        },
        ..SystemRegisters::default()
    })
}

/// The processor has 16 bits for selectors and for the limits of GDT and IDT; QEMU keeps them in 32.
const fn low_half(field: u32) -> u16 {
    (field & 0xffff) as u16
}
