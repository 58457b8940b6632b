//! Images made of ranges.

use hypovisor_machine::SystemRegisters;

/// A range of memory: bytes, then zeros that an ELF core does not store and LiME's format cannot express.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) gpa: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) zeros: u64,
}

impl Range {
    pub(crate) fn new(gpa: u64, bytes: impl Into<Vec<u8>>) -> Self {
        Self { gpa, bytes: bytes.into(), zeros: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64 + self.zeros
    }
}

/// Bytes before the memory in what [`elf`] makes.
pub(crate) fn elf_headers(ranges: &[Range], notes: &[u8]) -> usize {
    64 + 56 * (1 + ranges.len()) + notes.len()
}

/// An ELF core as QEMU writes it: notes, then memory.
pub(crate) fn elf(ranges: &[Range], notes: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    put(&mut file, 16, &4_u16.to_le_bytes());
    put(&mut file, 18, &62_u16.to_le_bytes());
    put(&mut file, 32, &64_u64.to_le_bytes());
    put(&mut file, 54, &56_u16.to_le_bytes());
    put(&mut file, 56, &(1 + ranges.len() as u16).to_le_bytes());
    let mut offset = elf_headers(ranges, notes) as u64;
    let len = notes.len() as u64;
    file.extend(program(4, offset - len, 0, len, len));
    for range in ranges {
        let stored = range.bytes.len() as u64;
        // QEMU has no offset for what it does not store.
        file.extend(program(1, if stored == 0 { u64::MAX } else { offset }, range.gpa, stored, range.len()));
        offset += stored;
    }
    file.extend(notes);
    file.extend(ranges.iter().flat_map(|range| &range.bytes));
    file
}

fn program(kind: u32, offset: u64, gpa: u64, file_len: u64, len: u64) -> Vec<u8> {
    let words = [offset, 0, gpa, file_len, len, 0].into_iter().flat_map(u64::to_le_bytes);
    kind.to_le_bytes().into_iter().chain([0; 4]).chain(words).collect()
}

/// A LiME file.
pub(crate) fn lime(ranges: &[Range]) -> Vec<u8> {
    let mut file = Vec::new();
    for range in ranges {
        file.extend(b"EMiL\x01\0\0\0");
        let words = [range.gpa, range.gpa + range.bytes.len() as u64 - 1, 0];
        file.extend(words.into_iter().flat_map(u64::to_le_bytes));
        file.extend(&range.bytes);
    }
    file
}

/// A note of type 0.
pub(crate) fn note(name: &[u8], content: &[u8]) -> Vec<u8> {
    let lengths = [name.len() as u32, content.len() as u32, 0];
    let mut note: Vec<u8> = lengths.into_iter().flat_map(u32::to_le_bytes).collect();
    for part in [name, content] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

/// QEMU's note about a processor, as QEMU 10 writes it.
pub(crate) fn cpu_note(cpu: &SystemRegisters) -> Vec<u8> {
    let mut state = vec![0; 440];
    put(&mut state, 0, &1_u32.to_le_bytes());
    put(&mut state, 4, &440_u32.to_le_bytes());
    put(&mut state, 56, &cpu.rsp.0.to_le_bytes());
    put(&mut state, 136, &cpu.rip.0.to_le_bytes());
    let segments = [
        (152, cpu.cs, 0xffff_ffff, 0),
        (320, cpu.task.selector, cpu.task.limit, cpu.task.base.0),
        (344, 0, u32::from(cpu.gdt.limit), cpu.gdt.base.0),
        (368, 0, u32::from(cpu.idt.limit), cpu.idt.base.0),
    ];
    for (at, selector, limit, base) in segments {
        put(&mut state, at, &u32::from(selector).to_le_bytes());
        put(&mut state, at + 4, &limit.to_le_bytes());
        put(&mut state, at + 16, &base.to_le_bytes());
    }
    for (at, value) in [(392, cpu.cr0), (408, cpu.cr2), (416, cpu.cr3), (424, cpu.cr4)] {
        put(&mut state, at, &value.to_le_bytes());
    }
    note(b"QEMU\0", &state)
}

/// A page at `gpa` that looks like an L4 of Xen's.
pub(crate) fn l4(gpa: u64) -> Vec<u8> {
    let mut page = vec![0; 4096];
    for (slot, entry) in [(256, 0x25), (258, gpa | 0x63), (261, 0x7fff_1063), (262, 0x7fff_2063)] {
        put(&mut page, 8 * slot, &u64::to_le_bytes(entry));
    }
    page
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}
