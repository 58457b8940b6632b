//! ELF cores of a whole machine, as QEMU's `dump-guest-memory` writes them (QEMU `dump/dump.c`).
//!
//! Of the headers only what leads to memory and notes is read: QEMU itself writes a wrong `e_ehsize`. Field offsets
//! are those of `Elf64_Ehdr`, `Elf64_Phdr` and `Elf64_Shdr` (System V ABI, generic part, "Object files").

use hypovisor_machine::{Gpa, SystemRegisters};

use crate::format::MAKE_DUMP;
use crate::segments::Segment;
use crate::source::{Record, Source};
use crate::{DumpError, MAX_RANGES, notes};

/// `ELFMAG`.
pub(crate) const MAGIC: [u8; 4] = *b"\x7fELF";

const FILE_HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const SECTION_HEADER_BYTES: usize = 64;

const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const ET_CORE: u16 = 4;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// The count is too large for its field and stands in `sh_info` of the first section header instead.
const PN_XNUM: u16 = 0xffff;

/// What an ELF core holds.
#[derive(Default)]
pub(crate) struct Core {
    pub(crate) segments: Vec<Segment>,
    pub(crate) cpus: Vec<SystemRegisters>,
}

/// Reads headers and notes.
pub(crate) fn read(source: &dyn Source) -> Result<Core, DumpError> {
    let header = Record::<FILE_HEADER_BYTES>::read(source, 0, "the ELF header")?;
    refuse_other_files(&header)?;
    let (table, count) = (header.u64(32), program_headers(source, &header)?);
    let (mut core, mut notes_left) = (Core::default(), notes::MAX_NOTES_BYTES);
    for index in 0..count {
        let at = table.saturating_add(index * PROGRAM_HEADER_BYTES as u64);
        let program = Record::<PROGRAM_HEADER_BYTES>::read(source, at, "an ELF program header")?;
        match program.u32(0) {
            PT_LOAD => core.segments.push(segment(&program)),
            PT_NOTE => {
                let (offset, bytes) = (program.u64(8), program.u64(32));
                notes_left = notes_left.checked_sub(bytes).ok_or(DumpError::NotesTooLong)?;
                notes::read(source, offset, bytes, &mut core.cpus)?;
            }
            _ => {}
        }
    }
    Ok(core)
}

/// QEMU writes what the first processor's mode asks for (QEMU `target/i386/arch_dump.c`, `cpu_get_dump_info`).
const WAIT: &str = "dump the machine while its first processor is in 64-bit mode";

fn refuse_other_files(header: &Record<FILE_HEADER_BYTES>) -> Result<(), DumpError> {
    let ident = header.bytes();
    let refuse = |format, advice| Err(DumpError::Unsupported { format, advice });
    if ident[4] != ELFCLASS64 {
        return refuse("a 32-bit ELF file", WAIT);
    }
    if ident[5] != ELFDATA2LSB {
        return refuse("a big-endian ELF file", "only memory of x86-64 machines is read");
    }
    if header.u16(16) != ET_CORE {
        return refuse("an ELF file that is no core dump", MAKE_DUMP);
    }
    match header.u16(18) {
        EM_X86_64 => Ok(()),
        EM_386 => refuse("a dump of 32-bit mode", WAIT),
        _ => refuse("an ELF core of another architecture", "only memory of x86-64 machines is read"),
    }
}

/// How many program headers there are.
fn program_headers(source: &dyn Source, header: &Record<FILE_HEADER_BYTES>) -> Result<u64, DumpError> {
    let (size, mut count) = (header.u16(54), u64::from(header.u16(56)));
    if count > 0 && usize::from(size) != PROGRAM_HEADER_BYTES {
        return Err(DumpError::ProgramHeaderSize(size));
    }
    if header.u16(56) == PN_XNUM {
        let section = Record::<SECTION_HEADER_BYTES>::read(source, header.u64(40), "an ELF section header")?;
        count = u64::from(section.u32(44));
    }
    if count > MAX_RANGES as u64 { Err(DumpError::TooManyRanges) } else { Ok(count) }
}

fn segment(program: &Record<PROGRAM_HEADER_BYTES>) -> Segment {
    Segment {
        gpa: Gpa(program.u64(24)),
        len: program.u64(40),
        file_offset: program.u64(8),
        file_len: program.u64(32),
    }
}
